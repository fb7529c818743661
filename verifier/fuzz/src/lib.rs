//! What the fuzz targets do with bytes. Each must return for any bytes at all; what it asserts is said at the function.

mod audit;
mod parsers;
mod quotes;
mod seeds;

pub use audit::audit;
pub use parsers::{certificate, crl, pem, postings, qe_identity, tcb_info};
pub use quotes::{prover_quote, quote};

/// A target by its name.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Bytes that it accepts, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 9] = [
    Target { name: "quote", run: quote, seeds: seeds::quotes },
    Target { name: "audit", run: audit, seeds: seeds::transactions },
    Target { name: "certificate", run: certificate, seeds: seeds::certificates },
    Target { name: "crl", run: crl, seeds: seeds::lists },
    Target { name: "tcb_info", run: tcb_info, seeds: seeds::tcb_infos },
    Target { name: "qe_identity", run: qe_identity, seeds: seeds::qe_identities },
    Target { name: "prover_quote", run: prover_quote, seeds: seeds::quotes },
    Target { name: "postings", run: postings, seeds: seeds::postings },
    Target { name: "pem", run: pem, seeds: seeds::chains },
];
