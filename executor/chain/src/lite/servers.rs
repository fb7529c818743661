//! The liteservers of a network: which one to ask, when to try another, when to give up.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::connection::{Connection, Endpoint, QueryError};
use super::tl::{self, Request};
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
    ids: QueryIds,
}

/// The server waits until it has masterchain block `seqno`.
#[derive(Clone, Copy)]
pub(crate) struct WaitFor {
    pub(crate) seqno: u32,
    pub(crate) timeout: Duration,
}

impl Servers {
    pub(crate) fn new(endpoints: Vec<Endpoint>, timing: Timing) -> Self {
        let servers =
            endpoints.into_iter().map(|endpoint| Server { endpoint, connection: Mutex::default() }).collect();
        Self { servers, preferred: AtomicUsize::new(0), timing, ids: QueryIds::new() }
    }

    /// Asks until a server answers with the constructor the request expects; the body after it.
    ///
    /// Transient failures move on to the next server, with a pause after each round.
    pub(crate) async fn read(&self, request: &Request, wait: Option<WaitFor>) -> Result<Vec<u8>, ChainError> {
        let deadline = Instant::now() + self.timing.retry_for;
        let mut backoff = self.timing.first_backoff;
        loop {
            let mut last = None;
            for _ in 0..self.servers.len() {
                match self.ask(request, wait).await {
                    Err(error) if wait.is_some() && is_wait_timeout(&error) => return Err(error),
                    Err(error) if error.is_transient() => {
                        tracing::debug!(%error, "liteserver query failed");
                        self.preferred.fetch_add(1, Ordering::Relaxed);
                        last = Some(error);
                    }
                    done => return done,
                }
            }
            let error = last.unwrap_or_else(|| ChainError::Caller("no liteserver is configured".into()));
            if !error.is_transient() || Instant::now() + backoff >= deadline {
                return Err(error);
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(self.timing.max_backoff);
        }
    }

    /// Hands `request` to one server. Only a failure to connect moves on to the next: after that a byte may
    /// have left.
    pub(crate) async fn send_once(&self, request: &Request) -> Result<Vec<u8>, ChainError> {
        let mut last = None;
        for _ in 0..self.servers.len() {
            match self.ask(request, None).await {
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
        Err(last.unwrap_or_else(|| ChainError::Caller("no liteserver is configured".into())))
    }

    /// One query to the preferred server, connecting first if need be.
    async fn ask(&self, request: &Request, wait: Option<WaitFor>) -> Result<Vec<u8>, ChainError> {
        let Some(server) =
            self.servers.get(self.preferred.load(Ordering::Relaxed) % self.servers.len().max(1))
        else {
            return Err(ChainError::Caller("no liteserver is configured".into()));
        };
        let connection = server
            .connection(self.timing.connect_timeout)
            .await
            .map_err(|detail| ChainError::Unreachable { servers: self.servers.len(), detail })?;
        let id = self.ids.next();
        let packet = request.to_packet(&id, wait.map(|wait| (wait.seqno, duration_ms(wait.timeout))));
        let limit = self.timing.query_timeout + wait.map_or(Duration::ZERO, |wait| wait.timeout);
        let answer = connection.query(id, packet, limit).await.map_err(|error| match error {
            QueryError::NotSent => ChainError::Unreachable {
                servers: self.servers.len(),
                detail: "the connection was closed".into(),
            },
            QueryError::Broken => {
                ChainError::Disconnected { request: request.name, detail: "closed before the answer".into() }
            }
            QueryError::Timeout => ChainError::Timeout { request: request.name, timeout: limit },
        });
        if matches!(answer, Err(ChainError::Timeout { .. })) {
            server.forget().await;
        }
        interpret(request, &answer?)
    }
}

/// Liteserver code for "the block did not appear within the wait".
const WAIT_TIMED_OUT: i32 = 652;

fn is_wait_timeout(error: &ChainError) -> bool {
    matches!(error, ChainError::Server { code: WAIT_TIMED_OUT, .. })
}

struct Server {
    endpoint: Endpoint,
    connection: Mutex<Option<Connection>>,
}

impl Server {
    async fn connection(&self, limit: Duration) -> Result<Connection, String> {
        let mut slot = self.connection.lock().await;
        match slot.as_ref() {
            Some(open) if open.is_open() => Ok(open.clone()),
            _ => {
                *slot = None;
                let opened = Connection::open(&self.endpoint, limit).await?;
                tracing::debug!(server = %self.endpoint.address, "connected to a liteserver");
                Ok(slot.insert(opened).clone())
            }
        }
    }

    async fn forget(&self) {
        *self.connection.lock().await = None;
    }
}

fn interpret(request: &Request, answer: &[u8]) -> Result<Vec<u8>, ChainError> {
    let bad = |detail: &str| ChainError::BadAnswer { request: request.name, detail: detail.into() };
    match tl::split_constructor(answer) {
        Some((constructor, body)) if constructor == request.answer => Ok(body.to_vec()),
        Some((tl::ERROR, body)) => {
            let (code, message) = tl::parse_error(body).ok_or_else(|| bad("an error that cannot be read"))?;
            Err(ChainError::Server { request: request.name, code, message })
        }
        Some((constructor, _)) => Err(bad(&format!("constructor {constructor:08x}"))),
        None => Err(bad("empty")),
    }
}

fn duration_ms(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// Query ids only have to differ on a connection; a process-wide prefix and a counter do.
struct QueryIds {
    prefix: [u8; 32],
    next: AtomicU64,
}

impl QueryIds {
    fn new() -> Self {
        use std::hash::{BuildHasher, RandomState};
        let seed = RandomState::new().hash_one(std::process::id());
        Self { prefix: Sha256::digest(seed.to_le_bytes()).into(), next: AtomicU64::new(0) }
    }

    fn next(&self) -> [u8; 32] {
        let mut id = self.prefix;
        id[..8].copy_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        id
    }
}
