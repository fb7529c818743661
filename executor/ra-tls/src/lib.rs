//! TLS 1.3 between a gateway and an attested worker.
//!
//! The worker's certificate carries evidence: the receipt key, which the worker's registration on chain attests, signs the
//! TLS key. The client compares it with the worker's record, which its caller has read from the chain. What flows over a
//! connection is the caller's business.
//!
//! [`certificate`], [`evidence`] and [`admission`] are pure: no sockets, no clock, no randomness of their own.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod admission;
pub mod certificate;
pub mod evidence;

mod client;
mod connection;
mod der;
mod identity;
mod server;
mod tls;

pub use client::{ConnectError, Connector};
pub use connection::Connection;
pub use identity::{Identity, IdentityError};
pub use server::{AcceptError, Acceptor, ClientAuth, ServerLimits};
pub use tls::{ALPN, Clock, ConfigError, SystemClock};
