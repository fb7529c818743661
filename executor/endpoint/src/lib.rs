//! The worker's side of a session's connection: HTTP/1.1 over RA-TLS, as `docs/sessions.md` describes it.
//!
//! [`Endpoint`] holds the sessions, asks the engine, meters and signs; [`serve`] lets gateways reach it. Prompts and answers
//! are in memory only: no log line, no error and no record of [`RedbStore`] has any of them.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod config;
mod endpoint;
mod held;
mod http;
mod paced;
mod server;
mod store;
mod work;
mod writer;

pub use config::EndpointConfig;
pub use endpoint::{Clock, Due, Endpoint, EndpointParts};
pub use server::serve;
pub use store::{RedbStore, StoreError, StoreIdentity, StoredSession};
