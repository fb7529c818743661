//! The liteserver client against a server that misbehaves: real ADNL, scripted answers.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adnl::AdnlPeer;
use adnl::crypto::{KeyPair, SecretKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

/// Of the server's life.
#[derive(Default)]
struct Counts {
    queries: AtomicUsize,
    opened: AtomicUsize,
    closed: AtomicUsize,
}

impl Counts {
    fn queries(&self) -> usize {
        self.queries.load(Ordering::SeqCst)
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    /// Waits until no connection is open.
    async fn all_closed(&self) {
        let closed = async {
            while self.closed.load(Ordering::SeqCst) < self.opened() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), closed).await.expect("a connection stays open");
    }
}

impl Server {
    /// Plays `script`, one reply a query over all connections; the last one for ever. To a query that waits for a
    /// block it says nothing.
    async fn start(port: u16, script: Vec<Reply>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::<Counts>::default();
        let counter = counts.clone();
        let task = tokio::spawn(async move {
            let mut peers = tokio::task::JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                peers.spawn(serve(socket, script.clone(), counter.clone()));
            }
        });
        Self { address, counts, task }
    }

    async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    fn chain(&self) -> LiteserverChain {
        chain_at(self.address)
    }
}

async fn serve(socket: TcpStream, script: Vec<Reply>, counts: Arc<Counts>) {
    let Ok(peer) = AdnlPeer::handle_handshake(socket, |_| Some(key())).await else { return };
    counts.opened.fetch_add(1, Ordering::SeqCst);
    play(peer, script, &counts).await;
    counts.closed.fetch_add(1, Ordering::SeqCst);
}

async fn play(mut peer: AdnlPeer<TcpStream>, script: Vec<Reply>, counts: &Counts) {
    while let Some(Ok(packet)) = peer.next().await {
        const QUERY: [u8; 4] = 0xb48b_f97a_u32.to_le_bytes();
        if packet[..4] != QUERY {
            continue;
        }
        const WAIT_MASTERCHAIN_SEQNO: [u8; 4] = 0xbaea_b892_u32.to_le_bytes();
        if packet.windows(4).any(|window| window == WAIT_MASTERCHAIN_SEQNO) {
            continue;
        }
        let turn = counts.queries.fetch_add(1, Ordering::SeqCst);
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
    chain_that_retries_for(Duration::from_millis(3_000), address)
}

fn chain_that_retries_for(retry_for: Duration, address: SocketAddr) -> LiteserverChain {
    let SocketAddr::V4(address) = address else { panic!("IPv4") };
    let timing = Timing {
        connect_timeout: Duration::from_millis(500),
        query_timeout: Duration::from_millis(300),
        retry_for,
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
    assert_eq!(server.counts.queries(), 4);
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
async fn many_reads_share_few_connections() {
    let server = Server::start(0, vec![getter_answer()]).await;
    let chain = server.chain();
    for _ in 0..2 {
        let reads = futures_util::future::join_all((0..50).map(|_| read(&chain))).await;
        assert!(reads.into_iter().all(|read| read.is_ok()));
    }
    assert!(server.counts.opened() <= 8, "{}", server.counts.opened());
    drop(chain);
    server.counts.all_closed().await;
}

#[tokio::test]
async fn long_polls_leave_room_for_reads() {
    let server = Server::start(0, vec![getter_answer()]).await;
    let chain = Arc::new(server.chain());
    let polls: Vec<_> = (0..30)
        .map(|_| {
            let chain = chain.clone();
            tokio::spawn(async move { chain.wait_block(9, Duration::from_secs(30)).await })
        })
        .collect();
    while server.counts.opened() < 8 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    read(&chain).await.unwrap();
    for poll in polls {
        poll.abort();
    }
}

/// The crate under the client leaves the task of an unanswered query, and its socket, to the server's mercy.
#[tokio::test]
async fn a_server_cannot_keep_the_sockets_of_queries_given_up() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let chain = chain_at(listener.local_addr().unwrap());
    let held = Arc::<Mutex<Vec<TcpStream>>>::default();
    let holding = held.clone();
    tokio::spawn(async move {
        loop {
            let socket = listener.accept().await.unwrap().0.into_std().unwrap();
            let raw = TcpStream::from_std(socket.try_clone().unwrap()).unwrap();
            let socket = TcpStream::from_std(socket).unwrap();
            let mut peer = AdnlPeer::handle_handshake(socket, |_| Some(key())).await.unwrap();
            if peer.next().await.is_some() {
                holding.lock().unwrap().push(raw);
                // Neither an answer nor an end.
                std::mem::forget(peer);
            }
        }
    });
    assert!(matches!(read(&chain).await.unwrap_err(), ChainError::Timeout { .. }));
    let unknown = chain.send_external(&Cell::empty_cell()).await.unwrap_err();
    assert!(matches!(unknown, ChainError::SendUnknown { .. }), "{unknown}");
    let sockets = std::mem::take(&mut *held.lock().unwrap());
    assert!(sockets.len() > 2);
    for socket in sockets {
        // Only a socket that is gone answers bytes with a reset. Three bytes are no packet yet.
        for _ in 0..3 {
            let _ = socket.try_write(&[0]);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(socket.try_write(&[0]).is_err(), "the client still holds this socket");
    }
}

#[tokio::test]
async fn a_send_given_up_while_it_connects_never_leaves() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let chain = chain_at(listener.local_addr().unwrap());
    let message = Cell::empty_cell();
    let sending = tokio::time::timeout(Duration::from_millis(100), chain.send_external(&message));
    sending.await.unwrap_err();
    let (socket, _) = listener.accept().await.unwrap();
    let peer = AdnlPeer::handle_handshake(socket, |_| Some(key())).await;
    let query = async { peer.ok()?.next().await?.ok() };
    assert_eq!(query.await, None);
}

#[tokio::test]
async fn a_read_on_a_connection_closed_meanwhile_connects_anew() {
    let server = Server::start(0, vec![getter_answer()]).await;
    let address = server.address;
    let chain = chain_that_retries_for(Duration::ZERO, address);
    read(&chain).await.unwrap();
    server.stop().await;
    let server = Server::start(address.port(), vec![getter_answer()]).await;
    read(&chain).await.unwrap();
    let other = chain.send_external(&Cell::empty_cell()).await.unwrap_err();
    assert!(matches!(other, ChainError::SendUnknown { .. }), "{other}");
    assert_eq!((server.counts.queries(), server.counts.opened()), (2, 2));
}

#[tokio::test]
async fn permanent_errors_and_other_answers_are_not_asked_again() {
    for (reply, words) in [
        (error(-400, b"unknown method"), "code -400: unknown method"),
        (error(1, &[0xff, 0xfe, b'x']), "code 1"),
        (accepted(), "another question"),
    ] {
        let server = Server::start(0, vec![reply]).await;
        let error = read(&server.chain()).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.is_transient());
        assert_eq!(server.counts.queries(), 1);
    }
}

#[tokio::test]
async fn nonsense_is_a_broken_connection_and_tells_of_its_server() {
    let truncated = Reply::Answer(0xa39a_616b_u32.to_le_bytes().to_vec());
    let promises_more_than_it_holds =
        Reply::Answer([0x6f26_c60b_u32.to_le_bytes(), 0x000f_ffff_u32.to_le_bytes()].concat());
    let holds_fewer_than_it_promises = Reply::Answer(
        [&0x6f26_c60b_u32.to_le_bytes()[..], &0x0003_ffff_u32.to_le_bytes(), &[0; 1 << 20]].concat(),
    );
    for nonsense in [
        holds_fewer_than_it_promises,
        Reply::Answer(vec![1, 2, 3, 4]),
        Reply::Answer(vec![]),
        Reply::Answer(vec![0xff; 1_000]),
        truncated,
        promises_more_than_it_holds,
    ] {
        let server = Server::start(0, vec![nonsense.clone(), getter_answer()]).await;
        assert_eq!(read(&server.chain()).await.unwrap(), [StackValue::Int(42)]);
        assert_eq!(server.counts.queries(), 2);

        let server = Server::start(0, vec![nonsense]).await;
        let chain = chain_that_retries_for(Duration::ZERO, server.address);
        let error = read(&chain).await.unwrap_err();
        assert!(matches!(error, ChainError::Disconnected { .. }), "{error}");
        assert!(error.to_string().contains(&server.address.to_string()), "{error}");
        let sent = chain.send_external(&Cell::empty_cell()).await.unwrap_err();
        assert!(matches!(sent, ChainError::SendUnknown { .. }), "{sent}");
        server.counts.all_closed().await;
    }
}

#[tokio::test]
async fn a_refused_message_is_the_senders_fault() {
    let words = b"cannot apply external message to current state : exitcode=133, steps=14";
    let server = Server::start(0, vec![error(0, words)]).await;
    let refused = server.chain().send_external(&Cell::empty_cell()).await.unwrap_err();
    assert!(matches!(refused, ChainError::Refused { exit_code: Some(133), .. }), "{refused}");
    assert_eq!(refused.party(), chain::Party::Sender);
    assert_eq!(server.counts.queries(), 1);
}

#[tokio::test]
async fn a_send_is_never_repeated_once_a_byte_may_have_left() {
    for reply in [Reply::HangUp, Reply::Silence, getter_answer()] {
        let server = Server::start(0, vec![reply, accepted()]).await;
        let unknown = server.chain().send_external(&Cell::empty_cell()).await.unwrap_err();
        assert!(matches!(unknown, ChainError::SendUnknown { .. }), "{unknown}");
        assert!(!unknown.is_transient());
        assert_eq!(server.counts.queries(), 1);
    }
    let server = Server::start(0, vec![accepted()]).await;
    server.chain().send_external(&Cell::empty_cell()).await.unwrap();
}

#[tokio::test]
async fn another_server_is_read_from_but_gets_no_message_that_the_first_may_have() {
    let first = Server::start(0, vec![Reply::HangUp]).await;
    let second = Server::start(0, vec![getter_answer(), accepted()]).await;
    let key = STANDARD.encode(key().public_key.to_bytes());
    let (at, then_at) = (first.address.to_string(), second.address.to_string());
    let both = GlobalConfig::from_liteservers([(&*at, &*key), (&*then_at, &*key)]).unwrap();
    let reader = LiteserverChain::new(&both, Timing::default());
    assert_eq!(read(&reader).await.unwrap(), [StackValue::Int(42)]);
    assert_eq!((first.counts.queries(), second.counts.queries()), (1, 1));

    let sender = LiteserverChain::new(&both, Timing::default());
    let unknown = sender.send_external(&Cell::empty_cell()).await.unwrap_err();
    assert!(matches!(unknown, ChainError::SendUnknown { .. }), "{unknown}");
    assert_eq!((first.counts.queries(), second.counts.queries()), (2, 1));
    first.stop().await;
    sender.send_external(&Cell::empty_cell()).await.unwrap();
    assert_eq!(second.counts.queries(), 2);
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
    assert_eq!(server.counts.queries(), 0);
}
