//! A local chain of its own for a test: `chrysalis localnet` with free ports.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ton::lite_client::{LiteClient, LiteReqParams};
use ton::ton_core::types::TonAddress;

/// A running chain; dropping it ends it.
pub struct LocalChain {
    process: Child,
    facts: Value,
}

impl LocalChain {
    /// Starts `$CHRYSALIS_BIN`, or the binary that `cargo build` makes in the repository's root.
    pub fn start() -> Self {
        let binary = std::env::var_os("CHRYSALIS_BIN").map_or_else(
            || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/debug/chrysalis"),
            PathBuf::from,
        );
        let mut process = Command::new(&binary)
            .args(["localnet", "--http-port", "0", "--liteserver-port", "0"])
            .args(["--block-interval-ms", &BLOCK_INTERVAL.as_millis().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start {}: {error}; run `cargo build`, or set CHRYSALIS_BIN", binary.display())
            });
        let output = BufReader::new(process.stdout.take().expect("the output is piped"));
        let mut chain = Self { process, facts: Value::Null };
        let (found, facts) = mpsc::channel();
        std::thread::spawn(move || found.send(read_facts(output)));
        chain.facts = facts
            .recv_timeout(START_LIMIT)
            .expect("the chain prints where it listens in time")
            .expect("the chain prints where it listens, as JSON");
        chain
    }

    /// A client of its liteserver that tries each request once.
    pub fn client(&self) -> LiteClient {
        LiteClient::builder()
            .and_then(|builder| builder.with_net_config_json(&self.facts["global_config"].to_string()))
            .expect("the global config is one that the crate reads")
            .with_conn_timeout(Duration::from_secs(5))
            .with_default_req_params(once())
            .build()
            .expect("the client is built")
    }

    /// Has the chain's giver pay `nanoton` to `address`.
    pub async fn give(&self, address: &TonAddress, nanoton: u128) {
        let http = self.facts["http"].as_str().expect("the chain says where HTTP is");
        let request = json!({ "address": address.to_hex(), "amount_nanoton": nanoton.to_string() });
        let answer = reqwest::Client::new()
            .post(format!("{http}/localnet/give"))
            .header("content-type", "application/json")
            .body(request.to_string())
            .send()
            .await
            .expect("the chain's HTTP answers");
        assert!(
            answer.status().is_success(),
            "the giver refused: {}",
            answer.text().await.unwrap_or_default()
        );
    }
}

impl Drop for LocalChain {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Time between blocks of the chain.
pub const BLOCK_INTERVAL: Duration = Duration::from_millis(100);

/// A request that is sent once: the crate's default repeats every failure ten times, a refused message too.
pub fn once() -> LiteReqParams {
    LiteReqParams::new(0, 0, 15_000)
}

/// Waits until `look` finds something.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(started.elapsed() < WAIT_LIMIT, "not in time: {what}");
        tokio::time::sleep(BLOCK_INTERVAL).await;
    }
}

const START_LIMIT: Duration = Duration::from_secs(60);
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// The first JSON object in the output, which may be spread over lines and follow a banner.
fn read_facts(output: impl BufRead) -> Option<Value> {
    let mut text = String::new();
    for line in output.lines() {
        let line = line.ok()?;
        if text.is_empty() && !line.starts_with('{') {
            continue;
        }
        text.push_str(&line);
        if let Ok(facts) = serde_json::from_str(&text) {
            return Some(facts);
        }
    }
    None
}
