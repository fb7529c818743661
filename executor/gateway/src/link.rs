//! Connections to one worker, and the requests of `docs/sessions.md` on them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use ra_tls::{ConnectError, Connector};
use serde::de::DeserializeOwned;
use session::message::{
    CloseReport, CloseRequest, Frame, REQUESTS_PATH, SESSIONS_PATH, SessionReport, StartRequest,
};
use session::{Refused, RequestId, SessionId};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

/// How long things may take and how large they may be.
#[derive(Debug, Clone, Copy)]
pub struct LinkLimits {
    /// To connect.
    pub connect_timeout: Duration,
    /// From a request to its answer's head.
    pub head_timeout: Duration,
    /// For one whole frame, however many bytes of it come.
    pub frame_timeout: Duration,
    /// For a whole answer.
    pub answer_timeout: Duration,
    /// One frame, bytes.
    pub frame_bytes: usize,
    /// A whole answer, bytes.
    pub answer_bytes: usize,
    /// Connections kept for later requests.
    pub idle_connections: usize,
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(60),
            frame_timeout: Duration::from_secs(60),
            answer_timeout: Duration::from_secs(900),
            frame_bytes: 8 << 20,
            answer_bytes: 64 << 20,
            idle_connections: 64,
        }
    }
}

/// A request did not come to its answer. Nothing of it tells a prompt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// No TCP connection.
    #[error("worker: its endpoint cannot be reached: {0}; it may be down")]
    Unreachable(#[source] std::io::Error),
    /// Not this worker.
    #[error(transparent)]
    NotThisWorker(#[from] ConnectError),
    /// Nothing came for too long.
    #[error("worker: nothing came from it for {} s", .0.as_secs())]
    Silent(Duration),
    /// The connection broke off.
    #[error("worker: the connection broke off")]
    BrokenOff,
    /// Not the protocol.
    #[error("worker: its answer is not one of this protocol: {0}")]
    Malformed(&'static str),
    /// It says no, in the protocol's words.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl LinkError {
    /// Whether the worker may have the request all the same.
    pub fn is_uncertain(&self) -> bool {
        matches!(self, Self::Silent(_) | Self::BrokenOff | Self::Malformed(_))
    }
}

/// One worker's endpoint, as one session key sees it.
pub struct Link {
    endpoint: String,
    connector: Connector,
    limits: LinkLimits,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    /// A worker lets one peer begin so many handshakes at a time.
    connects: Semaphore,
}

/// The frames of an answer. Dropped before its last, it closes its connection.
pub struct Frames {
    link: Arc<Link>,
    body: Incoming,
    sender: Option<SendRequest<Full<Bytes>>>,
    /// Bytes of a line that is not whole.
    partial: Vec<u8>,
    ready: VecDeque<Frame>,
    total_bytes: usize,
    /// Frames handed out.
    count: u64,
    is_over: bool,
}

impl Link {
    /// `endpoint` is HOST:PORT; `connector` expects the worker there.
    pub fn new(endpoint: String, connector: Connector, limits: LinkLimits) -> Arc<Self> {
        Arc::new(Self {
            endpoint,
            connector,
            limits,
            idle: Mutex::default(),
            connects: Semaphore::new(CONNECTS),
        })
    }

    /// Asks for work. The first frame is `accepted`.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn start(self: &Arc<Self>, request: &StartRequest) -> Result<Frames, LinkError> {
        let body = serde_json::to_vec(request).map_err(|_| LinkError::Malformed("the request"))?;
        self.frames(Method::POST, REQUESTS_PATH.into(), body.into()).await
    }

    /// Takes a request's answer up from its `from`-th frame on.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn resume(
        self: &Arc<Self>,
        session: &SessionId,
        request: RequestId,
        from: u64,
    ) -> Result<Frames, LinkError> {
        let path = format!("{REQUESTS_PATH}/{request}?session={session}&from={from}");
        self.frames(Method::GET, path, Bytes::new()).await
    }

    /// Takes a request back.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn cancel(self: &Arc<Self>, session: &SessionId, request: RequestId) -> Result<(), LinkError> {
        let path = format!("{REQUESTS_PATH}/{request}?session={session}");
        let (response, sender) = self.send(Method::DELETE, path, Bytes::new()).await?;
        if response.status() == StatusCode::NO_CONTENT {
            self.keep(sender);
        }
        Ok(())
    }

    /// What the worker knows of a session.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn report(self: &Arc<Self>, session: &SessionId) -> Result<SessionReport, LinkError> {
        self.whole(Method::GET, format!("{SESSIONS_PATH}/{session}"), Bytes::new()).await
    }

    /// Ends a session by a final receipt.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn close(
        self: &Arc<Self>,
        session: &SessionId,
        request: &CloseRequest,
    ) -> Result<CloseReport, LinkError> {
        let body = serde_json::to_vec(request).map_err(|_| LinkError::Malformed("the request"))?;
        self.whole(Method::POST, format!("{SESSIONS_PATH}/{session}/close"), body.into()).await
    }

    async fn whole<T: DeserializeOwned>(
        self: &Arc<Self>,
        method: Method,
        path: String,
        body: Bytes,
    ) -> Result<T, LinkError> {
        let (response, sender) = self.send(method, path, body).await?;
        let status = response.status();
        let bytes = self.body(response.into_body()).await?;
        self.keep(sender);
        match status.is_success() {
            true => serde_json::from_slice(&bytes).map_err(|_| LinkError::Malformed("a report")),
            false => Err(refusal(&bytes)),
        }
    }

    async fn frames(
        self: &Arc<Self>,
        method: Method,
        path: String,
        body: Bytes,
    ) -> Result<Frames, LinkError> {
        let (response, sender) = self.send(method, path, body).await?;
        if !response.status().is_success() {
            let bytes = self.body(response.into_body()).await?;
            self.keep(sender);
            return Err(refusal(&bytes));
        }
        Ok(Frames {
            link: self.clone(),
            body: response.into_body(),
            sender: Some(sender),
            partial: Vec::new(),
            ready: VecDeque::new(),
            total_bytes: 0,
            count: 0,
            is_over: false,
        })
    }

    /// A small body, whole.
    async fn body(&self, body: Incoming) -> Result<Bytes, LinkError> {
        let limited = http_body_util::Limited::new(body, SMALL_BYTES);
        match timeout(self.limits.head_timeout, limited.collect()).await {
            Err(_) => Err(LinkError::Silent(self.limits.head_timeout)),
            Ok(Err(_)) => Err(LinkError::BrokenOff),
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
        }
    }

    /// Over a connection that is kept, else over a new one. One that was kept may have been closed in the meantime: then
    /// the request is sent again, which is no second request, since it has its name.
    async fn send(
        &self,
        method: Method,
        path: String,
        body: Bytes,
    ) -> Result<(Response<Incoming>, SendRequest<Full<Bytes>>), LinkError> {
        let request = || {
            Request::builder()
                .method(method.clone())
                .uri(&path)
                .header(HOST, "worker")
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(body.clone()))
                .map_err(|_| LinkError::Malformed("the request"))
        };
        // The worker may have it, although no answer came.
        let mut may_have_it = false;
        while let Some(mut kept) = self.take() {
            match timeout(self.limits.connect_timeout, kept.ready()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => continue,
            }
            match timeout(self.limits.head_timeout, kept.send_request(request()?)).await {
                Ok(Ok(response)) => return Ok((response, kept)),
                Ok(Err(error)) => may_have_it |= !error.is_canceled(),
                Err(_) => return Err(LinkError::Silent(self.limits.head_timeout)),
            }
        }
        let permit = self.connects.acquire().await.map_err(|_| LinkError::BrokenOff)?;
        let connected = self.connect().await;
        drop(permit);
        let mut fresh = match connected {
            Ok(fresh) => fresh,
            Err(_) if may_have_it => return Err(LinkError::BrokenOff),
            Err(error) => return Err(error),
        };
        match timeout(self.limits.head_timeout, fresh.send_request(request()?)).await {
            Ok(Ok(response)) => Ok((response, fresh)),
            Ok(Err(_)) => Err(LinkError::BrokenOff),
            Err(_) => Err(LinkError::Silent(self.limits.head_timeout)),
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, LinkError> {
        let tcp = timeout(self.limits.connect_timeout, TcpStream::connect(&self.endpoint))
            .await
            .map_err(|_| LinkError::Silent(self.limits.connect_timeout))?
            .map_err(LinkError::Unreachable)?;
        tcp.set_nodelay(true).map_err(LinkError::Unreachable)?;
        let tls = self.connector.connect(tcp).await?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(tls)).await.map_err(|_| LinkError::BrokenOff)?;
        // Its end shows in the requests that are on it.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn take(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !sender.is_closed() && idle.len() < self.limits.idle_connections {
            idle.push(sender);
        }
    }
}

impl Frames {
    /// The next frame; `None` after the last.
    ///
    /// # Errors
    /// [`LinkError`]; the answer can be taken up from [`Frames::count`] on.
    pub async fn next(&mut self) -> Result<Option<Frame>, LinkError> {
        let limits = self.link.limits;
        let until = Instant::now() + limits.frame_timeout;
        loop {
            if let Some(frame) = self.ready.pop_front() {
                self.count += 1;
                if frame.is_last() {
                    self.finish().await;
                }
                return Ok(Some(frame));
            }
            if self.is_over {
                return Ok(None);
            }
            let data = match timeout_at(until, self.body.frame()).await {
                Err(_) => return Err(LinkError::Silent(limits.frame_timeout)),
                Ok(None | Some(Err(_))) => return Err(LinkError::BrokenOff),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            self.total_bytes = self.total_bytes.saturating_add(data.len());
            if self.total_bytes > limits.answer_bytes {
                return Err(LinkError::Malformed("an answer beyond all bounds"));
            }
            self.take_lines(&data, limits.frame_bytes)?;
        }
    }

    /// The same, where `count` frames of the answer were handed out before.
    pub fn after(mut self, count: u64) -> Self {
        self.count = count;
        self
    }

    /// Frames handed out so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    fn take_lines(&mut self, data: &[u8], frame_bytes: usize) -> Result<(), LinkError> {
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(part);
            if self.partial.len() > frame_bytes {
                return Err(LinkError::Malformed("a frame beyond all bounds"));
            }
            if self.partial.ends_with(b"\n") {
                let frame =
                    serde_json::from_slice(&self.partial).map_err(|_| LinkError::Malformed("a frame"))?;
                self.ready.push_back(frame);
                self.partial.clear();
            }
        }
        Ok(())
    }

    /// Behind the last frame comes the body's end, and then the connection is free.
    async fn finish(&mut self) {
        self.is_over = true;
        let end = timeout(END_TIMEOUT, self.body.frame()).await;
        if let (Ok(None), Some(sender)) = (end, self.sender.take()) {
            self.link.keep(sender);
        }
    }
}

fn refusal(body: &[u8]) -> LinkError {
    if let Ok(Frame::Refused(refused)) = serde_json::from_slice(body) {
        return refused.into();
    }
    match serde_json::from_slice::<Refused>(body) {
        Ok(refused) => refused.into(),
        Err(_) => LinkError::Malformed("a refusal"),
    }
}

/// Of a report or a refusal.
const SMALL_BYTES: usize = 1 << 20;
/// Handshakes at a time.
const CONNECTS: usize = 8;
/// The body's end is sent with the last frame.
const END_TIMEOUT: Duration = Duration::from_secs(2);
