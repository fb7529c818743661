//! The contracts on the local VM: who may do what, what is refused, and where every nanoTON goes.
#![allow(clippy::unwrap_used)]

mod artefacts;
mod attest;
mod cancel;
mod claim;
mod expire;
mod gas;
mod golden;
mod model;
mod post;
mod random;
mod receipt;
mod registry;
mod rejection;
mod stake;
mod sweep;
