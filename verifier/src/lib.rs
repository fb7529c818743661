//! Verdicts over TDX quotes, receipts and whole jobs. No sockets, no clock.
