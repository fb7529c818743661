//! The embedded local chain: blocks, toncenter v2 and liteserver APIs. Its blocks carry no validator signatures.
