//! Cross-crate tests of Chrysalis.
