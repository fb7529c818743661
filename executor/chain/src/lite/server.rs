//! One liteserver, through the `ton` crate's LiteClient.
//!
//! A `LiteClient` is used here as one connection that carries one query at a time. Four things of it are worked
//! around:
//! - A query that is given up leaves a task and a socket behind until the server closes. So the connections live on
//!   a runtime of their own, which is dropped with everything on it once a query of it came to a bad end.
//! - What panics while an answer is decoded panics on that runtime, where it ends one connection.
//! - "No handshake in time" and "no answer in time" are the same error. So its own limit for an answer is out of
//!   reach, and the whole is timed here.
//! - Nobody reads from an idle connection, so that a closed one looks open. So an idle one is not used for long, a
//!   read that finds it closed connects anew, and a message is only sent on a connection made for it.

use std::error::Error;
use std::future::Future;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use ton::errors::TonError;
use ton::lite_client::{Builder, LiteClient, LiteReqParams};

use super::query::{Request, Response, words_of};

/// Where a liteserver listens and the Ed25519 key it proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// IPv4 address and port.
    pub address: SocketAddrV4,
    /// The server's public key.
    pub public_key: [u8; 32],
}

/// What a query is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// May be asked again.
    Read,
    /// A read that the server first waits with, up to [`SERVER_WAIT`].
    LongPoll,
    /// Must not leave twice.
    Send,
}

/// How a query failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The query was never handed to a socket.
    NotSent(String),
    /// It may have been sent.
    Broken(String),
    Timeout(Duration),
    /// The server's error.
    Refused {
        code: i32,
        message: String,
    },
    /// The client cannot be set up.
    Setup(String),
}

pub(crate) struct Server {
    endpoint: Endpoint,
    builder: Result<Builder, String>,
    host: Mutex<Option<Arc<Host>>>,
    queries: Arc<Semaphore>,
    long_polls: Arc<Semaphore>,
}

/// How long the `ton` crate has a server wait for a block.
pub(crate) const SERVER_WAIT: Duration = Duration::from_secs(1);
/// Long polls of one server at a time, apart from other queries.
pub(crate) const MAX_LONG_POLLS: usize = 8;

impl Server {
    pub(crate) fn new(endpoint: Endpoint, connect_timeout: Duration) -> Self {
        Self {
            endpoint,
            builder: builder(&endpoint, connect_timeout),
            host: Mutex::default(),
            queries: Arc::new(Semaphore::new(MAX_QUERIES)),
            long_polls: Arc::new(Semaphore::new(MAX_LONG_POLLS)),
        }
    }

    pub(crate) fn address(&self) -> SocketAddrV4 {
        self.endpoint.address
    }

    /// Asks `request`. Connecting may take `connect_timeout` and the answer, from then on, `limit`.
    ///
    /// Dropping the future ends a send; a read goes on to its end, so that its connection stays of use.
    pub(crate) async fn exec(
        &self,
        request: Request,
        wait_for: Option<u32>,
        how: Use,
        connect_timeout: Duration,
        limit: Duration,
    ) -> Result<Response, Failure> {
        let permits = if how == Use::LongPoll { &self.long_polls } else { &self.queries };
        let permit = timeout(limit, permits.clone().acquire_owned())
            .await
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| Failure::NotSent("all connections to it are busy".into()))?;
        let answer = self
            .exec_on_some_connection(request, wait_for, how, Arc::new(permit), connect_timeout, limit)
            .await;
        self.leave_retired_host();
        answer
    }

    async fn exec_on_some_connection(
        &self,
        request: Request,
        wait_for: Option<u32>,
        how: Use,
        permit: Arc<OwnedSemaphorePermit>,
        connect_timeout: Duration,
        limit: Duration,
    ) -> Result<Response, Failure> {
        if how != Use::Send {
            let host = self.host()?;
            if let Some(client) = host.pool.take_idle() {
                let running = host.exec(client, request.clone(), wait_for, permit.clone(), limit);
                match running.joined(&host).await {
                    Err(Failure::Broken(_)) => {}
                    done => return done,
                }
            }
        }
        let host = self.host()?;
        let client = self
            .builder
            .clone()
            .and_then(|builder| builder.build().map_err(|error| error.to_string()))
            .map_err(Failure::Setup)?;
        let mut running = host.exec(client, request, wait_for, permit, connect_timeout + limit);
        running.abort_on_drop = how == Use::Send;
        match running.joined(&host).await {
            Err(Failure::Timeout(_)) => Err(Failure::Timeout(limit)),
            done => done,
        }
    }

    /// Queries still on it keep it until their end.
    fn leave_retired_host(&self) {
        lock(&self.host).take_if(|host| host.is_retired());
    }

    /// The runtime for new connections.
    fn host(&self) -> Result<Arc<Host>, Failure> {
        let mut slot = lock(&self.host);
        match slot.as_ref() {
            Some(host) if !host.is_retired() => Ok(host.clone()),
            _ => {
                let host = Host::new()
                    .map_err(|error| Failure::Setup(format!("no thread for its connections: {error}")))?;
                Ok(slot.insert(Arc::new(host)).clone())
            }
        }
    }
}

const MAX_QUERIES: usize = 8;
/// Servers, and the networks on the way, forget connections on which nothing is said.
const IDLE_LIMIT: Duration = Duration::from_secs(15);

/// Connections and the runtime they live on, a thread.
struct Host {
    runtime: Option<Runtime>,
    pool: Arc<Pool>,
}

#[derive(Default)]
struct Pool {
    idle: Mutex<Vec<(LiteClient, Instant)>>,
    /// Set when a query came to a bad end: what it left behind goes with the runtime.
    retired: AtomicBool,
}

impl Host {
    fn new() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("liteserver")
            .enable_all()
            .build()?;
        Ok(Self { runtime: Some(runtime), pool: Arc::default() })
    }

    fn exec(
        &self,
        client: LiteClient,
        request: Request,
        wait_for: Option<u32>,
        permit: Arc<OwnedSemaphorePermit>,
        limit: Duration,
    ) -> Running {
        let lease = Lease { client: Some(client), pool: self.pool.clone() };
        let exec = async move {
            let _permit = permit;
            let Some(client) = lease.client.clone() else {
                return Err(Failure::NotSent("no connection".into()));
            };
            let params = LiteReqParams::new(NO_RETRIES, 0, NEVER_MS);
            let Ok(answer) = timeout(limit, client.exec(request, wait_for, Some(params))).await else {
                return Err(Failure::Timeout(limit));
            };
            let answer = answer.map_err(failure);
            match &answer {
                Ok(_) | Err(Failure::Refused { .. }) => lease.give_back(),
                Err(Failure::NotSent(_)) => lease.discard(),
                Err(_) => drop(lease),
            }
            answer
        };
        Running { task: self.spawn(exec), abort_on_drop: false }
    }

    fn is_retired(&self) -> bool {
        self.pool.retired.load(Ordering::Acquire)
    }

    fn spawn<F>(&self, exec: F) -> Option<JoinHandle<F::Output>>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.as_ref().map(|runtime| runtime.spawn(exec))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Pool {
    fn take_idle(&self) -> Option<LiteClient> {
        let mut idle = lock(&self.idle);
        idle.retain(|(_, since)| since.elapsed() < IDLE_LIMIT);
        idle.pop().map(|(client, _)| client)
    }
}

/// A connection at work. Dropped before its query's end, it retires the runtime.
struct Lease {
    client: Option<LiteClient>,
    pool: Arc<Pool>,
}

impl Lease {
    fn give_back(mut self) {
        if let Some(client) = self.client.take() {
            lock(&self.pool.idle).push((client, Instant::now()));
        }
    }

    /// For a connection that was never made.
    fn discard(mut self) {
        self.client = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.client.is_some() {
            self.pool.retired.store(true, Ordering::Release);
        }
    }
}

struct Running {
    task: Option<JoinHandle<Result<Response, Failure>>>,
    abort_on_drop: bool,
}

impl Running {
    /// Waits for the end; `_host` keeps the runtime until then.
    async fn joined(mut self, _host: &Host) -> Result<Response, Failure> {
        let Some(task) = &mut self.task else { return Err(Failure::NotSent("shut down".into())) };
        let ended = task.await;
        self.abort_on_drop = false;
        ended.unwrap_or_else(|_| Err(Failure::Broken("the client failed on its answer".into())))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = &self.task
            && self.abort_on_drop
        {
            task.abort();
        }
    }
}

const NO_RETRIES: u32 = 0;
/// The limit is kept outside, see the module's page.
const NEVER_MS: u64 = u32::MAX as u64;

fn failure(error: TonError) -> Failure {
    match error {
        TonError::LiteClientErrorResponse(error) => {
            Failure::Refused { code: error.code, message: words_of(&error) }
        }
        TonError::AdnlError(error) => {
            Failure::NotSent(error.source().map_or_else(|| error.to_string(), ToString::to_string))
        }
        TonError::ElapsedError(_) => Failure::NotSent("no handshake in time".into()),
        // The crate drops the reason: the connection's own task had it.
        _ => Failure::Broken("it closed the connection, or sent what is no answer".into()),
    }
}

/// A client of this server alone, so that whom to ask next stays ours to choose.
fn builder(endpoint: &Endpoint, connect_timeout: Duration) -> Result<Builder, String> {
    let config = json!({
        "@type": "config.global",
        "dht": Value::Null,
        "liteservers": [{
            "ip": u32::from(*endpoint.address.ip()).cast_signed(),
            "port": endpoint.address.port(),
            "id": { "@type": "pub.ed25519", "key": STANDARD.encode(endpoint.public_key) },
        }],
        "validator": { "@type": "validator.config.global", "zero_state": {}, "init_block": {}, "hardforks": [] },
    });
    let builder = LiteClient::builder()
        .and_then(|builder| builder.with_net_config_json(&config.to_string()))
        .map_err(|error| error.to_string())?;
    let once = LiteReqParams::new(NO_RETRIES, 0, NEVER_MS);
    Ok(builder.with_connections_per_node(1).with_conn_timeout(connect_timeout).with_default_req_params(once))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
