//! The daemon on the local chain, through its liteserver: jobs, rejections, secrets, crashes.
#![allow(clippy::unwrap_used)]

mod crash;
mod live;
mod market;
