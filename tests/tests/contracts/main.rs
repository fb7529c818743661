//! The contracts on the local VM: who may do what, what is refused, and where every nanoTON goes.
#![allow(clippy::unwrap_used)]

mod artefacts;
mod attest;
mod cancel;
mod cases;
mod claim;
mod cocoon;
mod equivocation;
mod expire;
mod gas;
mod getters;
mod golden;
mod librarian;
mod model;
mod open_job;
mod post;
mod price_history;
mod random;
mod receipt;
mod registry;
mod rejection;
mod session;
mod stake;
mod sweep;
mod traces;
mod transitions;
mod wallet;
mod words;
