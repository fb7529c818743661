//! The liteserver client against a server that misbehaves: real ADNL, scripted answers.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adnl::AdnlPeer;
use adnl::crypto::{KeyPair, SecretKey};
use chain::{ChainAccess, ChainError, GlobalConfig, LiteserverChain, McBlock, StackValue, Timing};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellFamily, HashBytes};
use tycho_types::models::StdAddr;

/// What the server does with a query.
#[derive(Clone)]
enum Reply {
    /// Sends these bytes as the answer.
    Answer(Vec<u8>),
    /// Closes the connection.
    HangUp,
    /// Says nothing.
    Silence,
}

struct Server {
    address: SocketAddr,
    queries: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Server {
    /// Plays `script`, one reply a query over all connections; the last one for ever.
    async fn start(port: u16, script: Vec<Reply>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let queries = Arc::new(AtomicUsize::new(0));
        let counter = queries.clone();
        let task = tokio::spawn(async move {
            let mut peers = tokio::task::JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                peers.spawn(serve(socket, script.clone(), counter.clone()));
            }
        });
        Self { address, queries, task }
    }

    async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    fn chain(&self) -> LiteserverChain {
        chain_at(self.address)
    }
}

async fn serve(socket: TcpStream, script: Vec<Reply>, queries: Arc<AtomicUsize>) {
    let Ok(mut peer) = AdnlPeer::handle_handshake(socket, |_| Some(key())).await else { return };
    while let Some(Ok(packet)) = peer.next().await {
        const QUERY: [u8; 4] = 0xb48b_f97a_u32.to_le_bytes();
        if packet[..4] != QUERY {
            continue;
        }
        let turn = queries.fetch_add(1, Ordering::SeqCst);
        match script.get(turn).or(script.last()).unwrap() {
            Reply::Answer(answer) => {
                let mut out = 0x0fac_8416_u32.to_le_bytes().to_vec();
                out.extend_from_slice(&packet[4..36]);
                out.extend(bytes(answer));
                if peer.send(out.into()).await.is_err() {
                    return;
                }
            }
            Reply::HangUp => return,
            Reply::Silence => {}
        }
    }
}

fn key() -> KeyPair {
    KeyPair::from(&SecretKey::from_bytes([7; 32]))
}

fn chain_at(address: SocketAddr) -> LiteserverChain {
    let SocketAddr::V4(address) = address else { panic!("IPv4") };
    let timing = Timing {
        connect_timeout: Duration::from_millis(500),
        query_timeout: Duration::from_millis(300),
        retry_for: Duration::from_millis(3_000),
        first_backoff: Duration::from_millis(20),
        max_backoff: Duration::from_millis(100),
    };
    LiteserverChain::new(&GlobalConfig::single(address, key().public_key.to_bytes()), timing)
}

/// TL `bytes`.
fn bytes(data: &[u8]) -> Vec<u8> {
    let mut out = match data.len() {
        short @ 0..=253 => vec![short as u8],
        long => [&[254], &(long as u32).to_le_bytes()[..3]].concat(),
    };
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn error(code: i32, message: &[u8]) -> Reply {
    Reply::Answer([&0xbba9_e148_u32.to_le_bytes()[..], &code.to_le_bytes(), &bytes(message)].concat())
}

fn accepted() -> Reply {
    Reply::Answer([0x3950_e597_u32.to_le_bytes(), 1_u32.to_le_bytes()].concat())
}

fn block() -> McBlock {
    McBlock { seqno: 9, root_hash: HashBytes([1; 32]), file_hash: HashBytes([2; 32]), time_s: 5 }
}

/// `liteServer.runMethodResult` with the number 42 on the stack.
fn getter_answer() -> Reply {
    let block = block();
    let mut id = (-1_i32).to_le_bytes().to_vec();
    id.extend(0x8000_0000_0000_0000_u64.to_le_bytes());
    id.extend(block.seqno.to_le_bytes());
    id.extend(block.root_hash.0);
    id.extend(block.file_hash.0);
    let stack = Boc::encode(chain::encode_stack(&[StackValue::Int(42)]).unwrap());
    let mut answer = 0xa39a_616b_u32.to_le_bytes().to_vec();
    answer.extend(4_u32.to_le_bytes());
    answer.extend(&id);
    answer.extend(&id);
    answer.extend(0_i32.to_le_bytes());
    answer.extend(bytes(&stack));
    Reply::Answer(answer)
}

async fn read(chain: &LiteserverChain) -> Result<Vec<StackValue>, ChainError> {
    let address = StdAddr::new(0, HashBytes::ZERO);
    chain.run_getter(&address, "answer", &[], &block()).await?.success()
}

#[tokio::test]
async fn a_read_survives_hang_ups_silence_and_not_ready() {
    let script = vec![Reply::HangUp, Reply::Silence, error(651, b"not in db"), getter_answer()];
    let server = Server::start(0, script).await;
    assert_eq!(read(&server.chain()).await.unwrap(), [StackValue::Int(42)]);
    assert_eq!(server.queries.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_read_survives_a_server_that_goes_away_and_comes_back() {
    let server = Server::start(0, vec![getter_answer()]).await;
    let (chain, address) = (Arc::new(server.chain()), server.address);
    read(&chain).await.unwrap();
    server.stop().await;
    let reading = tokio::spawn({
        let chain = chain.clone();
        async move { read(&chain).await }
    });
    tokio::time::sleep(Duration::from_millis(400)).await;
    let _server = Server::start(address.port(), vec![getter_answer()]).await;
    assert_eq!(reading.await.unwrap().unwrap(), [StackValue::Int(42)]);
}

#[tokio::test]
async fn many_reads_share_one_connection() {
    let server = Server::start(0, vec![getter_answer()]).await;
    let chain = server.chain();
    let reads = futures_util::future::join_all((0..50).map(|_| read(&chain))).await;
    assert!(reads.into_iter().all(|read| read.is_ok()));
}

#[tokio::test]
async fn permanent_errors_and_nonsense_are_not_asked_again() {
    for (reply, words) in [
        (error(-400, b"unknown method"), "code -400: unknown method"),
        (error(1, &[0xff, 0xfe, b'x']), "code 1"),
        (Reply::Answer(vec![1, 2, 3, 4]), "constructor 04030201"),
        (Reply::Answer(vec![]), "empty"),
        (Reply::Answer(0xa39a_616b_u32.to_le_bytes().to_vec()), "truncated"),
    ] {
        let server = Server::start(0, vec![reply]).await;
        let error = read(&server.chain()).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.is_transient());
        assert_eq!(server.queries.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_refused_message_is_the_senders_fault() {
    let words = b"cannot apply external message to current state : exitcode=133, steps=14";
    let server = Server::start(0, vec![error(0, words)]).await;
    let refused = server.chain().send_external(&Cell::empty_cell()).await.unwrap_err();
    assert!(matches!(refused, ChainError::Refused { exit_code: Some(133), .. }), "{refused}");
    assert_eq!(refused.party(), chain::Party::Sender);
    assert_eq!(server.queries.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_send_is_never_repeated_once_a_byte_may_have_left() {
    for reply in [Reply::HangUp, Reply::Silence] {
        let server = Server::start(0, vec![reply, accepted()]).await;
        let unknown = server.chain().send_external(&Cell::empty_cell()).await.unwrap_err();
        assert!(matches!(unknown, ChainError::SendUnknown { .. }), "{unknown}");
        assert!(!unknown.is_transient());
        assert_eq!(server.queries.load(Ordering::SeqCst), 1);
    }
    let server = Server::start(0, vec![accepted()]).await;
    server.chain().send_external(&Cell::empty_cell()).await.unwrap();
}

#[tokio::test]
async fn nobody_listening_is_told_as_such() {
    let server = Server::start(0, vec![accepted()]).await;
    let chain = server.chain();
    server.stop().await;
    let sent = chain.send_external(&Cell::empty_cell()).await.unwrap_err();
    assert!(matches!(sent, ChainError::Unreachable { servers: 1, .. }), "{sent}");
    let started = std::time::Instant::now();
    let read = read(&chain).await.unwrap_err();
    assert!(read.is_transient() && read.party() == chain::Party::Liteserver, "{read}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_server_with_another_key_is_refused() {
    let server = Server::start(0, vec![accepted()]).await;
    let SocketAddr::V4(address) = server.address else { panic!("IPv4") };
    let stranger = KeyPair::from(&SecretKey::from_bytes([8; 32])).public_key.to_bytes();
    let timing = Timing { connect_timeout: Duration::from_millis(300), ..Timing::default() };
    let chain = LiteserverChain::new(&GlobalConfig::single(address, stranger), timing);
    let refused = chain.send_external(&Cell::empty_cell()).await.unwrap_err();
    assert!(matches!(refused, ChainError::Unreachable { .. }), "{refused}");
    assert_eq!(server.queries.load(Ordering::SeqCst), 0);
}
