//! A visibly fake TDX platform for the local chain: own PKI, own quotes.
