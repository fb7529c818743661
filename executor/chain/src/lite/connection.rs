//! One ADNL connection to one liteserver, shared by any number of queries at a time.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use adnl::AdnlPeer;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::tl::{self, Packet};

/// Where a liteserver listens and the Ed25519 key it proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// IPv4 address and port.
    pub address: SocketAddrV4,
    /// The server's public key.
    pub public_key: [u8; 32],
}

/// A live connection; dropping it closes the socket.
#[derive(Clone)]
pub(crate) struct Connection {
    queries: mpsc::Sender<Query>,
}

/// How a query on a connection failed.
pub(crate) enum QueryError {
    /// The packet was never handed to the socket.
    NotSent,
    /// It may have been sent.
    Broken,
    Timeout,
}

impl Connection {
    pub(crate) async fn open(endpoint: &Endpoint, limit: Duration) -> Result<Self, String> {
        let connecting = AdnlPeer::connect(endpoint.public_key, endpoint.address);
        let peer = timeout(limit, connecting)
            .await
            .map_err(|_| format!("{}: no handshake within {limit:?}", endpoint.address))?
            .map_err(|error| format!("{}: {error}", endpoint.address))?;
        let (queries, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(serve(peer, waiting));
        Ok(Self { queries })
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.queries.is_closed()
    }

    /// Sends `packet`, whose query id is `id`, and waits for its answer.
    pub(crate) async fn query(
        &self,
        id: [u8; 32],
        packet: Vec<u8>,
        limit: Duration,
    ) -> Result<Vec<u8>, QueryError> {
        let (reply, answer) = oneshot::channel();
        let query = Query { id, packet, reply };
        match timeout(limit, self.queries.send(query)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(QueryError::NotSent),
        }
        match timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(QueryError::Broken),
            Err(_) => Err(QueryError::Timeout),
        }
    }
}

struct Query {
    id: [u8; 32],
    packet: Vec<u8>,
    reply: oneshot::Sender<Vec<u8>>,
}

const MAX_WAITING: usize = 64;
const PING_EVERY: Duration = Duration::from_secs(5);
/// A peer that sends nothing, not even pongs, for this long is gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);

/// Owns the socket until it breaks or every [`Connection`] is dropped; then the replies still pending are
/// dropped, which their queries see as a broken connection.
async fn serve(mut peer: AdnlPeer<TcpStream>, mut queries: mpsc::Receiver<Query>) {
    let mut pending: HashMap<[u8; 32], oneshot::Sender<Vec<u8>>> = HashMap::new();
    let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard_at = Instant::now();
    let mut ping_id = 0_u64;
    loop {
        let sent = tokio::select! {
            query = queries.recv() => match query {
                Some(query) => {
                    pending.insert(query.id, query.reply);
                    peer.send(query.packet.into()).await
                }
                None => return,
            },
            packet = peer.next() => {
                let Some(Ok(packet)) = packet else { return };
                heard_at = Instant::now();
                if let Some(Packet::Answer(id, answer)) = Packet::parse(&packet)
                    && let Some(reply) = pending.remove(&id)
                {
                    // The asker may have stopped waiting.
                    let _ = reply.send(answer.to_vec());
                }
                Ok(())
            }
            _ = pings.tick() => {
                pending.retain(|_, reply| !reply.is_closed());
                if heard_at.elapsed() > SILENCE_LIMIT {
                    return;
                }
                ping_id += 1;
                peer.send(tl::ping(ping_id).into()).await
            }
        };
        if sent.is_err() {
            return;
        }
    }
}
