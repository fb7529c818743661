//! The liteservers of a network: which one to ask, when to try another, when to give up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::query::Query;
use super::server::{Endpoint, Failure, SERVER_WAIT, Server, Use};
use crate::error::ChainError;

/// How long to wait and how often to try again.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// For the TCP connection and the ADNL handshake.
    pub connect_timeout: Duration,
    /// For one answer.
    pub query_timeout: Duration,
    /// For one read with all its repetitions, over all servers.
    pub retry_for: Duration,
    /// The pause before the first repetition; it doubles up to `max_backoff`.
    pub first_backoff: Duration,
    /// The longest pause.
    pub max_backoff: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            query_timeout: Duration::from_secs(8),
            retry_for: Duration::from_secs(20),
            first_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
        }
    }
}

pub(crate) struct Servers {
    servers: Vec<Server>,
    /// Index of the server that answered last.
    preferred: AtomicUsize,
    timing: Timing,
}

impl Servers {
    pub(crate) fn new(endpoints: &[Endpoint], timing: Timing) -> Self {
        let servers =
            endpoints.iter().map(|endpoint| Server::new(*endpoint, timing.connect_timeout)).collect();
        Self { servers, preferred: AtomicUsize::new(0), timing }
    }

    /// Asks until a server gives the answer the query expects.
    ///
    /// Transient failures move on to the next server, with a pause after each round. That a block waited for is not
    /// there yet is told at once.
    pub(crate) async fn read<T>(&self, query: &Query<T>) -> Result<T, ChainError> {
        let deadline = Instant::now() + self.timing.retry_for;
        let mut backoff = self.timing.first_backoff;
        let how = if query.wait_for.is_some() { Use::LongPoll } else { Use::Read };
        loop {
            let mut last = None;
            for _ in 0..self.servers.len() {
                match self.ask(query, how).await {
                    Err(error) if query.wait_for.is_some() && is_not_yet(&error) => return Err(error),
                    Err(error) if error.is_transient() => {
                        tracing::debug!(%error, "liteserver query failed");
                        self.preferred.fetch_add(1, Ordering::Relaxed);
                        last = Some(error);
                    }
                    done => return done,
                }
            }
            let error = last.unwrap_or_else(no_server);
            if !error.is_transient() || Instant::now() + backoff >= deadline {
                return Err(error);
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(self.timing.max_backoff);
        }
    }

    /// Hands the query to one server. Only a failure to connect moves on to the next: after that a byte may
    /// have left.
    pub(crate) async fn send_once<T>(&self, query: &Query<T>) -> Result<T, ChainError> {
        let mut last = None;
        for _ in 0..self.servers.len() {
            match self.ask(query, Use::Send).await {
                Err(error @ ChainError::Unreachable { .. }) => {
                    self.preferred.fetch_add(1, Ordering::Relaxed);
                    last = Some(error);
                }
                Err(ChainError::Timeout { timeout, .. }) => {
                    return Err(ChainError::SendUnknown { detail: format!("no answer within {timeout:?}") });
                }
                Err(ChainError::Disconnected { detail, .. } | ChainError::BadAnswer { detail, .. }) => {
                    return Err(ChainError::SendUnknown { detail });
                }
                done => return done,
            }
        }
        Err(last.unwrap_or_else(no_server))
    }

    /// One query to the preferred server, connecting first if need be.
    async fn ask<T>(&self, query: &Query<T>, how: Use) -> Result<T, ChainError> {
        let at = self.preferred.load(Ordering::Relaxed) % self.servers.len().max(1);
        let Some(server) = self.servers.get(at) else { return Err(no_server()) };
        let wait = if query.wait_for.is_some() { SERVER_WAIT } else { Duration::ZERO };
        let limit = self.timing.query_timeout + wait;
        let request = query.request.clone();
        let connecting = self.timing.connect_timeout;
        let answer = server.exec(request, query.wait_for, how, connecting, limit).await;
        let address = server.address();
        let answer = answer.map_err(|failure| match failure {
            Failure::NotSent(detail) => ChainError::Unreachable {
                servers: self.servers.len(),
                detail: format!("{address}: {detail}"),
            },
            Failure::Broken(detail) => {
                ChainError::Disconnected { request: query.name, detail: format!("{address}: {detail}") }
            }
            Failure::Timeout(timeout) => ChainError::Timeout { request: query.name, timeout },
            Failure::Refused { code, message } => ChainError::Server { request: query.name, code, message },
            Failure::Setup(detail) => {
                ChainError::Caller(format!("no client for the liteserver {address}: {detail}"))
            }
        })?;
        (query.take)(answer).ok_or_else(|| ChainError::BadAnswer {
            request: query.name,
            detail: format!("{address} answered another question"),
        })
    }
}

/// Liteserver codes for "no such block yet": at once, and after a wait.
const NOT_YET: [i32; 2] = [651, 652];

fn is_not_yet(error: &ChainError) -> bool {
    matches!(error, ChainError::Server { code, .. } if NOT_YET.contains(code))
}

fn no_server() -> ChainError {
    ChainError::Caller("no liteserver is configured".into())
}
