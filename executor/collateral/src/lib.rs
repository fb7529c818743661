//! What a platform's vendor signed about it (revocation lists, TCB info, QE identity), fetched from any server that
//! speaks Intel's PCS API v4, a caching one (PCCS) included.
//!
//! The server is trusted with nothing but to answer: each document is checked against the root that the caller names
//! before it is used or kept, and again when it is read from the cache. So plain `http` to a server of one's own is as
//! good as `https`, but for who sees which platform is asked about.
//!
//! [`Pccs`] fetches, [`Platform`] says for whom, [`Document`] is one answer, checked.

mod address;
mod cache;
mod document;
mod error;
mod http;
mod platform;
mod service;
mod tls;

pub use address::{Address, AddressError};
pub use document::{Document, DocumentError, Kind};
pub use error::CollateralError;
pub use http::{HttpError, Limits};
pub use platform::{Ca, Platform, PlatformError};
pub use service::{Pccs, Settings};
