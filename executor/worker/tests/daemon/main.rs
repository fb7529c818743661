//! The daemon on the local chain, through its liteserver: jobs, rejections, secrets, crashes.
#![allow(clippy::unwrap_used)]

mod crash;
mod full_disk;
mod live;
mod market;
