//! Contract tests: a chain of accounts over the local TVM, and a market of Chrysalis on it.

pub mod chain;
pub mod engine;
pub mod market;

pub use chain::{Chain, Tx};
pub use market::{Job, Kind, Market, Terms, Worker};
