//! Messages, storage, addresses and receipts of the Chrysalis contracts, mirrored in Rust. No I/O.
