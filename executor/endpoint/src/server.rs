//! Connections.

use std::future::Future;
use std::io;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ra_tls::Acceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::endpoint::Endpoint;
use crate::http::handle;
use crate::paced::Paced;

/// Lets gateways in until `stop` is ready; then takes nothing new, waits for the answers under way no longer than `drain`,
/// and cuts what is left. `acceptor` must ask for the client's certificate.
pub async fn serve(
    endpoint: Endpoint,
    listener: TcpListener,
    acceptor: Acceptor,
    stop: impl Future<Output = ()>,
    drain: Duration,
) {
    let mut connections = JoinSet::new();
    connections.spawn(endpoint.sweep());
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    let (endpoint, acceptor) = (endpoint.clone(), acceptor.clone());
                    connections.spawn(async move {
                        if let Err(error) = connection(&endpoint, &acceptor, stream, from.ip()).await {
                            tracing::debug!(%error, "a connection ended");
                        }
                    });
                }
                Err(error) => {
                    // Out of descriptors, mostly: others have to end first.
                    tracing::warn!(%error, "no connection can be taken");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    endpoint.set_accepting(false);
    let until = Instant::now() + drain;
    while endpoint.open_requests() > 0 && Instant::now() < until {
        sleep(DRAIN_STEP).await;
    }
    // The last frames are on their way.
    sleep(DRAIN_STEP).await;
    connections.shutdown().await;
}

async fn connection(
    endpoint: &Endpoint,
    acceptor: &Acceptor,
    stream: TcpStream,
    from: std::net::IpAddr,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let connection = acceptor.accept(stream, from).await.map_err(io::Error::other)?;
    let key = connection.session_key();
    let is_known = key.is_some_and(|key| endpoint.knows_key(&key));
    let config = endpoint.config();
    let idle = if is_known { config.idle_timeout } else { config.stranger_timeout };
    let io = TokioIo::new(Paced::new(connection, config.write_timeout));
    let service = service_fn(|request| handle(endpoint, key, request));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .half_close(false)
        .serve_connection(io, service)
        .await
        .map_err(io::Error::other)
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const DRAIN_STEP: Duration = Duration::from_millis(50);
/// Of a request's head; also how much of an answer waits for a slow reader.
const HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 64;
