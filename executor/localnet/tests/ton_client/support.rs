//! A local chain of its own for a test, and a client of it.

use std::time::{Duration, Instant};

use localnet::{BlockMode, Clock, Liteserver, LocalnetHandle, LocalnetOptions};
use ton::lite_client::{LiteClient, LiteReqParams};
use ton::ton_core::types::TonAddress;
use tycho_types::cell::HashBytes;
use tycho_types::models::StdAddr;

/// A running chain; it ends with its test's runtime.
pub(crate) struct LocalChain {
    handle: LocalnetHandle,
    config: String,
}

impl LocalChain {
    pub(crate) async fn start() -> Self {
        let mode = BlockMode::Interval(BLOCK_INTERVAL);
        let handle =
            LocalnetHandle::new(LocalnetOptions::default(), mode, Clock::System).expect("a local chain");
        let server = Liteserver::bind_local(handle.clone()).await.expect("a free port");
        let config = server.global_config_json().expect("where it listens");
        tokio::spawn(server.serve());
        let blocks = handle.clone();
        tokio::spawn(async move { blocks.run().await });
        Self { handle, config }
    }

    /// A client of its liteserver that tries each request once.
    pub(crate) fn client(&self) -> LiteClient {
        LiteClient::builder()
            .and_then(|builder| builder.with_net_config_json(&self.config))
            .expect("the global config is one that the crate reads")
            .with_conn_timeout(Duration::from_secs(5))
            .with_default_req_params(once())
            .build()
            .expect("the client is built")
    }

    /// Has the chain's giver pay `nanoton` to `address`.
    pub(crate) fn give(&self, address: &TonAddress, nanoton: u128) {
        let workchain = i8::try_from(address.workchain).expect("a workchain");
        let to = StdAddr::new(workchain, HashBytes(*address.hash.as_slice_sized()));
        self.handle.give(&to, nanoton).expect("the giver pays");
    }
}

/// Time between blocks of the chain.
const BLOCK_INTERVAL: Duration = Duration::from_millis(100);

/// A request that is sent once: the crate's default repeats every failure ten times, a refused message too.
pub(crate) fn once() -> LiteReqParams {
    LiteReqParams::new(0, 0, 15_000)
}

/// Waits until `look` finds something.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < WAIT_LIMIT, "not in time: {what}");
        tokio::time::sleep(BLOCK_INTERVAL).await;
    }
}

const WAIT_LIMIT: Duration = Duration::from_secs(60);
