//! Limits of an endpoint.

use std::time::Duration;

use session::SellerLimits;

/// What an endpoint allows. The limits on connections and handshakes are those of its `ra_tls::Acceptor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointConfig {
    /// Of the sessions.
    pub ledger: SellerLimits,
    /// Bytes of a request's body.
    pub max_body_bytes: usize,
    /// Bytes of all bodies that are being read or worked on.
    pub bodies_bytes: usize,
    /// From a request's head to the end of its body.
    pub body_timeout: Duration,
    /// A connection whose key is that of a session may be silent so long between requests, or take so long for a head.
    pub idle_timeout: Duration,
    /// The same for other keys.
    pub stranger_timeout: Duration,
    /// A client that takes nothing for so long is cut off.
    pub write_timeout: Duration,
    /// Requests under way, of all sessions.
    pub max_open: usize,
    /// An answer that takes longer ends as `cancelled`.
    pub request_timeout: Duration,
    /// An answer that nobody reads for so long ends as `cancelled`.
    pub linger: Duration,
    /// A finished answer can be had again for so long.
    pub hold: Duration,
    /// Bytes of one answer.
    pub answer_bytes: usize,
    /// Bytes of all answers in memory: beyond it finished ones go, the oldest first, and then nothing new is taken.
    pub answers_bytes: usize,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            ledger: SellerLimits::default(),
            max_body_bytes: 4 << 20,
            bodies_bytes: 256 << 20,
            body_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(120),
            stranger_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(30),
            max_open: 512,
            request_timeout: Duration::from_secs(240),
            linger: Duration::from_secs(30),
            hold: Duration::from_secs(600),
            answer_bytes: 32 << 20,
            answers_bytes: 512 << 20,
        }
    }
}
