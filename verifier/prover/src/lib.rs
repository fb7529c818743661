//! From evidence to what the contracts ask for: signed texts cut as the contracts read them, and besides each signature
//! a number that is expensive to find and cheap to check. The contracts trust nothing in either.
//!
//! Everything here is computed from its arguments: no clock, no sockets.

pub mod certificate;
pub mod collateral;
pub mod crl;
mod dates;
mod der;
pub mod json;
pub mod p256;
pub mod pem;
pub mod pieces;
pub mod qe_identity;
pub mod quote;
pub mod signature;
pub mod statement;
pub mod tcb_info;
pub mod text;
pub mod trust;
