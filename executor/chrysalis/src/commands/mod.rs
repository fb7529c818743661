//! One file a command. Each returns whether everything it checked held.

pub(crate) mod demo;
pub(crate) mod localnet;
pub(crate) mod model;
pub(crate) mod verify;
pub(crate) mod worker;
