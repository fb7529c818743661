//! `contracts/p256.tolk` on the local VM, through `contracts/testing/p256_probe.tolk`.
#![allow(clippy::unwrap_used)]

mod degenerate;
mod emulator;
mod hostile;
mod probe;
mod random;
mod signatures;
mod wycheproof;
