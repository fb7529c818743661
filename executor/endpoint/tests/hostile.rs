//! Strangers and clients that hold on: slow heads, bodies and readers, floods of handshakes.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::*;
use endpoint::EndpointConfig;
use http_body_util::BodyExt;
use hyper::StatusCode;
use ra_tls::ServerLimits;
use ra_tls::admission::Limits;
use session::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Much longer than an honest step takes on a busy machine.
const PATIENCE: Duration = Duration::from_millis(1_500);

fn impatient() -> EndpointConfig {
    EndpointConfig {
        idle_timeout: PATIENCE,
        stranger_timeout: PATIENCE,
        body_timeout: PATIENCE,
        write_timeout: PATIENCE,
        linger: PATIENCE,
        ..EndpointConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sends_a_head_drop_by_drop_is_cut_off() {
    let worker = Setup { config: impatient(), ..Setup::default() }.run().await;
    let client = worker.session(&session_key(), 100_000).await;
    let mut tls = client.connector.connect(TcpStream::connect(worker.address).await.unwrap()).await.unwrap();
    let drops = async {
        for byte in
            b"POST /v1/requests HTTP/1.1\r\nHost: worker\r\nX: aaaaaaaaaaaaaaaaaaaaaaaa".iter().cycle()
        {
            if tls.write_all(&[*byte]).await.is_err() || tls.flush().await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, drops).await.expect("it was let drip on");
    // A connection that says nothing at all.
    let mut tls = client.connector.connect(TcpStream::connect(worker.address).await.unwrap()).await.unwrap();
    let mut read = Vec::new();
    let ended = timeout(LONG, tls.read_to_end(&mut read)).await;
    assert!(ended.is_ok() && read.is_empty());
    while worker.acceptor.connections() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sends_no_body_is_told_and_cut_off() {
    let worker = Setup { config: impatient(), ..Setup::default() }.run().await;
    let client = worker.session(&session_key(), 100_000).await;
    for head in [
        "POST /v1/requests HTTP/1.1\r\nHost: worker\r\nContent-Length: 1000\r\n\r\n{",
        // Without a length nothing is read.
        "POST /v1/requests HTTP/1.1\r\nHost: worker\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
    ] {
        let tcp = TcpStream::connect(worker.address).await.unwrap();
        let mut tls = client.connector.connect(tcp).await.unwrap();
        tls.write_all(head.as_bytes()).await.unwrap();
        tls.flush().await.unwrap();
        let mut answer = Vec::new();
        // The end may come as a reset.
        let _ = timeout(LONG, tls.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let expected = if head.contains("chunked") { "malformed" } else { "too_slow" };
        assert!(answer.contains(expected), "{answer}");
    }
    worker.end().await;
}

/// The answer is far larger than what the sockets hold.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_read_is_cut_off_and_pays_for_what_was_made() {
    let worker = Setup { config: impatient(), ..Setup::default() }.run().await;
    let client = worker.session(&session_key(), u64::MAX / 2).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let tls = client.connector.connect(socket.connect(worker.address).await.unwrap()).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(tls);
    let (mut sender, connection) =
        hyper::client::conn::http1::Builder::new().max_buf_size(8_192).handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut ask = client.ask(request(1), u64::MAX / 4, chat("many words", 300_000));
    ask.bound.output = 300_000;
    let body = http_body_util::Full::<bytes::Bytes>::from(serde_json::to_vec(&ask).unwrap());
    let post = hyper::Request::post("/v1/requests").header("host", "worker").body(body).unwrap();
    let response = sender.send_request(post).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    timeout(LONG, async {
        while worker.acceptor.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("a connection that is not read stayed");
    while worker.endpoint.open_requests() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What had been sent can be read to its end, and no further.
    assert!(response.into_body().collect().await.is_err());
    let report = client.connect().await.get(&client.session_path()).await;
    let report = report.into_body().collect().await.unwrap().to_bytes();
    let report: session::message::SessionReport = serde_json::from_slice(&report).unwrap();
    assert!(report.answered[0].used.output > 0 && report.receipt.unwrap().sequence == 1);
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_bad_handshakes_does_not_keep_a_client_out() {
    let admission = Limits {
        connections: 64,
        handshakes: 32,
        handshakes_per_peer: 16,
        burst_per_peer: 10_000,
        ..Limits::default()
    };
    let limits = ServerLimits { handshake_timeout: Duration::from_millis(200), admission };
    let worker = Setup { limits, ..Setup::default() }.run().await;
    let client = worker.session(&session_key(), 1_000_000).await;
    let mut wire = client.connect().await;
    let address = worker.address;
    let flood = tokio::spawn(async move {
        let mut held = Vec::new();
        for number in 0..600_u32 {
            let Ok(mut tcp) = TcpStream::connect(address).await else { continue };
            match number % 3 {
                // Not TLS.
                0 => drop(tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await),
                // The beginning of a handshake, and no more of it.
                1 => drop(tcp.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await),
                // Nothing.
                _ => {}
            }
            held.push(tcp);
        }
        held
    });
    for number in 1..=20 {
        let (status, answer) = wire.ask(&client.ask(request(number), 100_000, chat("hello", 5))).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(done_of(&answer).receipt.sequence, u32::from(number));
    }
    let held = flood.await.unwrap();
    assert!(worker.acceptor.connections() <= 64);
    // Those who hold on are gone soon, and a new client comes in beside them.
    timeout(LONG, async {
        while worker.acceptor.connections() > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
    let mut wire = client.connect().await;
    let (_, answer) = wire.ask(&client.ask(request(21), 100_000, chat("hello", 5))).await;
    assert_eq!(done_of(&answer).receipt.sequence, 21);
    drop(held);
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_requests_have_places_and_no_more() {
    let config = EndpointConfig { bodies_bytes: 8 << 10, max_open: 2, ..EndpointConfig::default() };
    let worker = Setup { config, ..Setup::default() }.run().await;
    let client = worker.session(&session_key(), 1_000_000).await;
    // A body that is announced and does not come holds its place.
    let mut tls = client.connector.connect(TcpStream::connect(worker.address).await.unwrap()).await.unwrap();
    let head = "POST /v1/requests HTTP/1.1\r\nHost: worker\r\nContent-Length: 7000\r\n\r\n{";
    tls.write_all(head.as_bytes()).await.unwrap();
    tls.flush().await.unwrap();
    let ask = |number, text: &str| client.ask(request(number), 100_000, chat(text, 5));
    let mut long = ask(1, "hello");
    if let session::work::Work::Chat(work) = &mut long.work {
        work.messages[0].content = "word ".repeat(500);
    }
    let mut refused = false;
    for _ in 0..200 {
        let (_, answer) = client.connect().await.ask(&long).await;
        if refusal_of(&answer) == Reason::Busy {
            refused = true;
            break;
        }
    }
    assert!(refused, "more bodies than places");
    drop(tls);
    // Two requests are under way: the third waits elsewhere.
    let mut wires = [client.connect().await, client.connect().await, client.connect().await];
    let [one, two, three] = &mut wires;
    let held = (one.post(&ask(2, "stuck")).await, two.post(&ask(3, "stuck")).await);
    let (status, answer) = three.ask(&ask(4, "hello")).await;
    assert_eq!((status, refusal_of(&answer)), (StatusCode::SERVICE_UNAVAILABLE, Reason::Busy));
    drop(held);
    worker.end().await;
}
