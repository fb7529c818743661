//! The Attestor under hostile evidence and hostile messages.
#![allow(clippy::unwrap_used)]

mod bench;
mod differential;
mod documents;
mod emulator;
mod evidence;
mod hostile;
mod mutations;
mod steps;
