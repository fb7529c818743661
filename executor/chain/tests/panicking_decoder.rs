//! What panics while an answer is decoded ends a connection, not the process.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adnl::AdnlPeer;
use adnl::crypto::{KeyPair, SecretKey};
use chain::{ChainAccess, ChainError, GlobalConfig, LiteserverChain, Timing};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpListener;
use tracing_subscriber::filter::LevelFilter;

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// The decoder writes each answer into its log at level debug and panics on text that is not UTF-8.
#[tokio::test]
async fn a_panic_on_an_answer_is_an_error_of_its_server() {
    tracing_subscriber::fmt().with_max_level(LevelFilter::DEBUG).with_writer(std::io::sink).init();
    std::panic::set_hook(Box::new(|_| {
        PANICS.fetch_add(1, Ordering::SeqCst);
    }));
    let key = KeyPair::from(&SecretKey::from_bytes([7; 32]));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("IPv4") };
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let Ok(mut peer) = AdnlPeer::handle_handshake(socket, |_| Some(key)).await else { continue };
            let Some(Ok(query)) = peer.next().await else { continue };
            let mut answer = 0x0fac_8416_u32.to_le_bytes().to_vec();
            answer.extend_from_slice(&query[4..36]);
            // `liteServer.error` with code 1 and the text ff.
            answer.extend([12, 0x48, 0xe1, 0xa9, 0xbb, 1, 0, 0, 0, 1, 0xff, 0, 0, 0, 0, 0]);
            let _ = peer.send(answer.into()).await;
        }
    });
    let timing = Timing { retry_for: Duration::ZERO, ..Timing::default() };
    let chain = LiteserverChain::new(&GlobalConfig::single(address, key.public_key.to_bytes()), timing);
    for panics in 1..3 {
        let error = chain.head().await.unwrap_err();
        assert!(matches!(error, ChainError::Disconnected { .. }), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert!(PANICS.load(Ordering::SeqCst) >= panics, "the decoder did not panic");
    }
}
