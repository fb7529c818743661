//! One file a command.

pub(crate) mod ask;
pub(crate) mod attest;
pub(crate) mod demo;
pub(crate) mod gateway;
pub(crate) mod job;
pub(crate) mod link;
pub(crate) mod localnet;
pub(crate) mod model;
pub(crate) mod models;
pub(crate) mod session;
pub(crate) mod stake;
pub(crate) mod verify;
pub(crate) mod wallet;
pub(crate) mod worker;
