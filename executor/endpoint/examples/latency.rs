//! What metering over RA-TLS adds to the first token, alone and among strangers: `cargo run -p endpoint --example latency`.
//!
//! The engine is the tests' double, which answers at once, so that what is measured is everything but an engine.
#![allow(clippy::unwrap_used)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::*;
use engine_api::{ClientKey, Engine, GenerateRequest, Prompt};
use http_body_util::BodyExt;
use ra_tls::ServerLimits;
use ra_tls::admission::Limits;
use session::RequestId;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const ROUNDS: u32 = 300;
const IDLE: usize = 1_000;
const TOKENS: u32 = 20;

#[tokio::main]
async fn main() {
    let admission = Limits {
        connections_per_peer: 2 * IDLE,
        handshakes_per_peer: 64,
        burst_per_peer: 1_000_000,
        ..Limits::default()
    };
    let limits = ServerLimits { handshake_timeout: Duration::from_secs(1), admission };
    let worker = Setup { limits, ..Setup::default() }.run().await;
    let client = worker.session(&session_key(), u64::MAX / 2).await;
    let mut next = 0;

    println!("first token in process: {}", show(in_process(&worker.engine).await));
    let alone = over_the_wire(&client, &mut next).await;
    println!("alone:                  {}", show_both(alone));

    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(client.connect().await);
    }
    let among = over_the_wire(&client, &mut next).await;
    println!("with {IDLE} idle:         {}", show_both(among));

    let stop = Arc::new(AtomicBool::new(false));
    let (address, stopped) = (worker.address, stop.clone());
    let flood = tokio::spawn(async move {
        let mut sent = 0_u32;
        while !stopped.load(Ordering::Relaxed) {
            if let Ok(mut tcp) = TcpStream::connect(address).await {
                // The beginning of a handshake, or none.
                let _ = tcp.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await;
                sent += 1;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        sent
    });
    let flooded = over_the_wire(&client, &mut next).await;
    stop.store(true, Ordering::Relaxed);
    println!("and bad handshakes:     {}", show_both(flooded));
    println!("bad handshakes sent: {}", flood.await.unwrap());
    drop(idle);
    worker.end().await;
}

async fn in_process(engine: &Double) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let prompt_ids = engine.tokenize(&Prompt::Text("four words are here".into())).unwrap();
        let params = session::work::Params::greedy(TOKENS).generate(TOKENS);
        let mut stream =
            engine.generate(GenerateRequest::new(prompt_ids, params, ClientKey([0; 32]))).unwrap();
        stream.next().await.unwrap();
        times.push(start.elapsed());
        stream.finish().await.unwrap();
    }
    times
}

/// To the first token, and to the receipt.
async fn over_the_wire(client: &Client, next: &mut u32) -> (Vec<Duration>, Vec<Duration>) {
    let (mut first, mut last) = (Vec::new(), Vec::new());
    let mut wire = client.connect().await;
    for _ in 0..ROUNDS {
        *next += 1;
        let mut id = [0; 16];
        id[..4].copy_from_slice(&next.to_be_bytes());
        let ask = client.ask(RequestId(id), u64::MAX / 4, completion("four words are here", TOKENS));
        let body = serde_json::to_vec(&ask).unwrap();
        let start = Instant::now();
        let response = wire.send(hyper::Method::POST, "/v1/requests", body).await.unwrap();
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        let mut seen = false;
        while let Some(frame) = body.frame().await {
            bytes.extend_from_slice(&frame.unwrap().into_data().unwrap());
            if !seen && bytes.windows(7).any(|window| window == b"\"piece\"") {
                first.push(start.elapsed());
                seen = true;
            }
        }
        last.push(start.elapsed());
        done_of(&parse(&bytes));
    }
    (first, last)
}

fn show(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    format!("median {:?}, 95 of 100 below {:?}", at(50), at(95))
}

fn show_both((first, last): (Vec<Duration>, Vec<Duration>)) -> String {
    format!("first token {}; receipt {}", show(first), show(last))
}
