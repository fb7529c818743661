//! One bounded GET. What a server sends beyond a bound is not read, and a redirect is not followed.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::{Body as _, Bytes};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderMap, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::address::Address;

/// What one request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From looking up the name to the last byte.
    pub request_ms: u64,
    /// Of the body. Intel's largest document is a revocation list of some kilobytes, and the Attestor takes no more
    /// than 31 KB of one.
    pub body_bytes: usize,
    /// Of status line and headers together; an issuer chain is a header of some 3 KB. At least 8 192.
    pub head_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { request_ms: 20_000, body_bytes: 1 << 20, head_bytes: 64 << 10 }
    }
}

/// A server gave no answer that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// No connection.
    #[error("it cannot be reached ({reason}); check the address and the network")]
    Unreachable {
        /// What was met.
        reason: String,
    },
    /// The server is not who it should be.
    #[error(
        "it did not prove who it is ({reason}); name its certificate authority in a PEM file, or another server"
    )]
    Tls {
        /// What was met.
        reason: String,
    },
    /// No answer in time.
    #[error("it did not answer within {ms} ms; try again later, or another server")]
    Late {
        /// The bound.
        ms: u64,
    },
    /// An answer that is no HTTP, or that ends early.
    #[error("its answer is broken ({reason}); ask its operator, or another server")]
    Broken {
        /// What was met.
        reason: String,
    },
    /// A status other than 200.
    #[error("it answered with status {status}; check the address, and whether it serves this platform")]
    Status {
        /// As in RFC 9110, section 15.
        status: u16,
    },
    /// The server points elsewhere.
    #[error(
        "it sends us elsewhere (status {status}), which is not followed; give the address it should be asked at"
    )]
    Redirect {
        /// As in RFC 9110, section 15.4.
        status: u16,
    },
    /// More than one takes.
    #[error("its answer is longer than {limit} bytes; ask its operator, or another server")]
    TooLong {
        /// The bound.
        limit: usize,
    },
}

/// Status 200.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Asks for the document at `address`. `tls` is used where the address is https.
pub(crate) async fn get(
    address: &Address,
    tls: &Arc<ClientConfig>,
    limits: &Limits,
) -> Result<Answer, HttpError> {
    let ms = limits.request_ms;
    match tokio::time::timeout(Duration::from_millis(ms), exchange(address, tls, limits)).await {
        Ok(answer) => answer,
        Err(_) => Err(HttpError::Late { ms }),
    }
}

async fn exchange(address: &Address, tls: &Arc<ClientConfig>, limits: &Limits) -> Result<Answer, HttpError> {
    let connected = TcpStream::connect((address.host(), address.port())).await;
    let stream = connected.map_err(|error| HttpError::Unreachable { reason: error.to_string() })?;
    if !address.is_https() {
        return ask(stream, address, limits).await;
    }
    let name = ServerName::try_from(address.host().to_owned())
        .map_err(|_| HttpError::Tls { reason: "its name is none that a certificate can state".into() })?;
    let secured = TlsConnector::from(tls.clone()).connect(name, stream).await;
    ask(secured.map_err(|error| HttpError::Tls { reason: error.to_string() })?, address, limits).await
}

async fn ask<S>(stream: S, address: &Address, limits: &Limits) -> Result<Answer, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::Builder::new()
        .max_buf_size(limits.head_bytes.max(LEAST_BUFFER_BYTES))
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = handshake.map_err(|error| broken(&error))?;
    let request = Request::get(address.path())
        .header(HOST, address.authority())
        .header(ACCEPT, "*/*")
        .header(USER_AGENT, concat!("chrysalis/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| HttpError::Broken { reason: error.to_string() })?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let (head, body) = response.into_parts();
        match head.status {
            StatusCode::OK => {}
            status if status.is_redirection() => return Err(HttpError::Redirect { status: status.as_u16() }),
            status => return Err(HttpError::Status { status: status.as_u16() }),
        }
        let limit = limits.body_bytes;
        if body.size_hint().lower() > limit as u64 {
            return Err(HttpError::TooLong { limit });
        }
        let body = Limited::new(body, limit).collect().await.map_err(|error| {
            match error.downcast::<hyper::Error>() {
                Ok(error) => broken(&error),
                Err(_) => HttpError::TooLong { limit },
            }
        })?;
        Ok(Answer { headers: head.headers, body: body.to_bytes() })
    };
    tokio::pin!(connection, exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            // What was read before the end is still to be had.
            Ok(()) => exchange.await,
            Err(error) => Err(broken(&error)),
        },
    }
}

/// hyper's own words; for an I/O error the system's.
fn broken(error: &hyper::Error) -> HttpError {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    HttpError::Broken { reason: format!("{error}{cause}") }
}

const MAX_HEADERS: usize = 64;
/// hyper panics below this.
const LEAST_BUFFER_BYTES: usize = 8_192;
