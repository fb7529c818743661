//! The ADNL liteserver: what `ton-lite-client`, `pytoniq`, `tonlib` and this project's `chain` crate speak.

mod libraries;
mod methods;
mod tl;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use adnl::AdnlPeer;
use adnl::crypto::{KeyPair, SecretKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use crate::error::LocalnetError;
use crate::handle::LocalnetHandle;
use methods::Failure;
use tl::{Packet, Query, QueryError};

/// A liteserver that listens.
pub struct Liteserver {
    listener: TcpListener,
    keys: KeyPair,
    handle: LocalnetHandle,
}

impl Liteserver {
    /// Listens at `address`. Its key is derived from the chain's seed.
    ///
    /// # Errors
    /// [`LocalnetError::Io`].
    pub async fn bind(handle: LocalnetHandle, address: SocketAddrV4) -> Result<Self, LocalnetError> {
        let listener = TcpListener::bind(address).await.map_err(io)?;
        let seed = handle.read(|chain| chain.options().seed);
        let mut hasher = Sha256::new();
        hasher.update(KEY_DOMAIN);
        hasher.update(seed);
        let keys = KeyPair::from(&SecretKey::from_bytes(hasher.finalize().into()));
        Ok(Self { listener, keys, handle })
    }

    /// Listens at a free port of 127.0.0.1.
    ///
    /// # Errors
    /// [`LocalnetError::Io`].
    pub async fn bind_local(handle: LocalnetHandle) -> Result<Self, LocalnetError> {
        Self::bind(handle, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).await
    }

    /// Where it listens.
    ///
    /// # Errors
    /// [`LocalnetError::Io`].
    pub fn address(&self) -> Result<SocketAddrV4, LocalnetError> {
        match self.listener.local_addr().map_err(io)? {
            SocketAddr::V4(address) => Ok(address),
            SocketAddr::V6(_) => Err(io(std::io::ErrorKind::Unsupported.into())),
        }
    }

    /// Its Ed25519 public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.keys.public_key.to_bytes()
    }

    /// The global config that stock clients load to reach it.
    ///
    /// # Errors
    /// [`LocalnetError::Io`].
    pub fn global_config_json(&self) -> Result<String, LocalnetError> {
        let address = self.address()?;
        let zero = self.handle.read(|chain| chain.block(-1, 0).map(|record| record.id))?;
        let zero = json!({
            "workchain": -1,
            "shard": i64::MIN,
            "seqno": 0,
            "root_hash": STANDARD.encode(zero.root_hash.as_slice()),
            "file_hash": STANDARD.encode(zero.file_hash.as_slice()),
        });
        let config = json!({
            "@type": "config.global",
            "dht": { "@type": "dht.config.global", "k": 6, "a": 3, "static_nodes": {
                "@type": "dht.nodes", "nodes": [],
            } },
            "liteservers": [{
                "ip": u32::from(*address.ip()).cast_signed(),
                "port": address.port(),
                "id": { "@type": "pub.ed25519", "key": STANDARD.encode(self.public_key()) },
            }],
            "validator": {
                "@type": "validator.config.global",
                "zero_state": zero,
                "init_block": zero,
                "hardforks": [],
            },
        });
        Ok(format!("{config:#}"))
    }

    /// Serves for ever; dropping the future closes the listener.
    pub async fn serve(self) {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = connections.clone().acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((socket, peer)) => {
                    let keys = self.keys;
                    let handle = self.handle.clone();
                    tokio::spawn(async move {
                        if let Err(error) = serve_connection(socket, keys, handle).await {
                            tracing::debug!(%peer, error, "a liteserver connection ended");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the liteserver could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

const KEY_DOMAIN: &[u8] = b"chrysalis/localnet/liteserver/v1";
const MAX_CONNECTIONS: usize = 256;
const MAX_QUERIES_A_CONNECTION: usize = 32;
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// A client that sends nothing, not even pings, for this long is gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(300);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Of an ADNL packet, with room for the headers around an answer.
const MAX_ANSWER_BYTES: usize = (1 << 24) - 256;
/// A client may wait for a masterchain block at most so far ahead, as the reference node has it.
const FARTHEST_WAIT: u32 = 100;
/// The reference node's codes.
const NOT_READY: i32 = 651;
const TIMEOUT: i32 = 652;
const PROTOCOL_VIOLATION: i32 = 621;

async fn serve_connection(
    socket: TcpStream,
    keys: KeyPair,
    handle: LocalnetHandle,
) -> Result<(), &'static str> {
    socket.set_nodelay(true).map_err(|_| "no socket")?;
    let handshake = AdnlPeer::handle_handshake(socket, |_| Some(keys));
    let peer = timeout(HANDSHAKE_LIMIT, handshake)
        .await
        .map_err(|_| "no handshake in time")?
        .map_err(|_| "a handshake not meant for this key")?;
    let (mut sink, mut stream) = peer.split();
    let (answers, mut ready) = mpsc::channel::<Vec<u8>>(MAX_QUERIES_A_CONNECTION);
    let writing = tokio::spawn(async move {
        while let Some(packet) = ready.recv().await {
            if sink.send(packet.into()).await.is_err() {
                return;
            }
        }
    });
    let queries = Arc::new(Semaphore::new(MAX_QUERIES_A_CONNECTION));
    let ended = loop {
        let packet = match timeout(SILENCE_LIMIT, stream.next()).await {
            Ok(Some(Ok(packet))) => packet,
            Ok(Some(Err(_))) => break Err("a broken packet"),
            Ok(None) => break Ok(()),
            Err(_) => break Err("silence"),
        };
        match Packet::parse(&packet) {
            None => break Err("a packet of another protocol"),
            Some(Packet::Ping(id)) => {
                if answers.send(tl::pong(id)).await.is_err() {
                    break Ok(());
                }
            }
            Some(Packet::Query(id, data)) => {
                let Ok(permit) = queries.clone().acquire_owned().await else { break Ok(()) };
                let query = Query::parse(data);
                let answers = answers.clone();
                let handle = handle.clone();
                tokio::spawn(async move {
                    let answer = answer_query(handle, query).await;
                    // The client may be gone.
                    let _ = answers.send(tl::answer(&id, &answer)).await;
                    drop(permit);
                });
            }
        }
    };
    drop(answers);
    writing.abort();
    ended
}

async fn answer_query(handle: LocalnetHandle, query: Result<Query, QueryError>) -> Vec<u8> {
    let query = match query {
        Ok(query) => query,
        Err(QueryError::Malformed) => return tl::error(PROTOCOL_VIOLATION, "cannot parse the query"),
        Err(QueryError::UnknownMethod(method)) => {
            return tl::error(PROTOCOL_VIOLATION, &format!("unknown method {method:#010x}"));
        }
    };
    if let Some(wait) = query.wait {
        if wait.seqno > handle.newest().seqno.saturating_add(FARTHEST_WAIT) {
            return tl::error(NOT_READY, "too big masterchain block seqno");
        }
        let limit = Duration::from_millis(wait.timeout_ms.into()).min(LONGEST_WAIT);
        if !handle.wait_block(wait.seqno, limit).await {
            return tl::error(TIMEOUT, &format!("block {} did not appear in time", wait.seqno));
        }
    }
    let answered = tokio::task::spawn_blocking(move || methods::answer(&handle, query.request)).await;
    match answered {
        Ok(Ok(answer)) if answer.len() <= MAX_ANSWER_BYTES => answer,
        Ok(Ok(_)) => tl::error(0, "the answer is larger than a packet"),
        Ok(Err(Failure { code, message })) => tl::error(code, &message),
        Err(_) => tl::error(0, "the local chain failed; report this"),
    }
}

fn io(source: std::io::Error) -> LocalnetError {
    LocalnetError::Io { what: "liteserver", source }
}
