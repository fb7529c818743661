//! The daemon on the local chain, through its liteserver: jobs, rejections, secrets, crashes, outages.
#![allow(clippy::unwrap_used)]

mod crash;
mod full_disk;
mod hostile;
mod large_result;
mod live;
mod lost_journal;
mod market;
mod outage;
mod registration;
mod renewal;
mod sessions;
