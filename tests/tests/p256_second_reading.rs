//! The second reading of `contracts/p256.tolk` (docs/p256.md): its constants from their definitions; its two lemmas on
//! small curves against every hash value at once instead of one table, with the addition of points as the only
//! arithmetic; the whole method on the smallest curves there are; and the compiled code against a reading of the source
//! in big integers, at the ends of every range.
#![allow(clippy::unwrap_used)]

#[path = "p256_second_reading/big.rs"]
mod big;
#[path = "p256_second_reading/compiled.rs"]
mod compiled;
#[path = "p256_second_reading/toy.rs"]
mod toy;
