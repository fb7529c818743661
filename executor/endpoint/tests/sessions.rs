//! Sessions over loopback: honest, refused, repeated, broken off, ended.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::*;
use contracts::Units;
use contracts::money::Amount;
use endpoint::{EndpointConfig, RedbStore, StoreError, StoreIdentity};
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use session::message::{CloseReport, CloseRequest, FinishReason, Frame, SessionReport, WorkerReport};
use session::work::{Embeddings, Params, Work};
use session::{BuyerLedger, Counted, Reason, RedeemPolicy, UnitBound};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_served_metered_and_closed() {
    let worker = Running::new().await;
    let client = worker.session(&session_key(), 100_000).await;
    let mut buyer = BuyerLedger::new(client.facts.clone(), Amount::new(100_000));
    let mut wire = client.connect().await;
    let bound = UnitBound { input: 100, output: 50 };
    for number in 1..=3 {
        let promised = buyer.promise(request(number), bound).unwrap();
        let mut ask = client.ask(request(number), promised.get(), chat("four words are here", 20));
        ask.seen_sequence = buyer.seen_sequence();
        let (status, frames) = wire.ask(&ask).await;
        assert_eq!(status, StatusCode::OK);
        assert!(matches!(frames[0], Frame::Accepted(accepted) if !accepted.again));
        let (done, output) = (done_of(&frames), tokens_of(&frames));
        assert_eq!(done.finish_reason, FinishReason::Length);
        assert_eq!((output.len(), done.limit), (20, 20));
        assert_eq!(done.used, Units { input: 2, cached_input: 2, output: 20 });
        buyer.done(done, &Counted { input: Some(4), output: output.len() as u32 }).unwrap();
        // The receipt commits to what was asked and answered.
        let transcript = done.transcript(&MODEL_ID, &ask.work.params_digest(done.limit, &[]), &output);
        assert_eq!(transcript.unwrap().0, done.receipt.content.transcript);
        let other = done.transcript(&MODEL_ID, &ask.work.params_digest(done.limit + 1, &[]), &output);
        assert_ne!(other.unwrap().0, done.receipt.content.transcript);
    }
    assert_eq!(buyer.spent(), Amount::new(3 * (2 + 1 + 40)));
    let report: SessionReport = json(wire.get(&client.session_path()).await).await;
    assert_eq!(report.receipt.as_ref(), buyer.newest());
    assert_eq!((report.open.len(), report.answered.len()), (0, 3));
    assert!(report.answered.iter().all(|answered| answered.held));
    let close = CloseRequest { voucher: client.voucher(buyer.promised().get()) };
    let path = format!("{}/close", client.session_path());
    let closed = wire.send(Method::POST, &path, serde_json::to_vec(&close).unwrap()).await.unwrap();
    let closed: CloseReport = json(closed).await;
    buyer.closed(&closed).unwrap();
    // What the worker redeems is that receipt.
    let policy = RedeemPolicy { at_stake: Amount::new(u64::MAX), margin_s: 300 };
    let due = worker.endpoint.due(&policy, Amount::new(1)).await;
    assert_eq!(due.len(), 1);
    let message = &due[0].message;
    assert!(message.receipt.is_final);
    assert_eq!(message.receipt.amount, buyer.spent());
    message.verify(&client.facts.receipt_key).unwrap();
    message.verify_voucher(&client.facts.session_key).unwrap();
    // It is over.
    let ask = client.ask(request(9), 50_000, chat("one more", 1));
    assert_eq!(refusal_of(&wire.ask(&ask).await.1), Reason::SessionEnded);
    let mut over = client.facts.clone();
    over.status = contracts::job::JobStatus::Settled;
    worker.endpoint.observe(&offered(&over), over).await.unwrap();
    assert!(worker.endpoint.sessions().is_empty());
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_covered_or_not_sound_is_refused_and_nothing_is_done() {
    let setup = Setup {
        config: EndpointConfig { max_body_bytes: 4_096, ..EndpointConfig::default() },
        ..Setup::default()
    };
    let worker = setup.run().await;
    let client = worker.session(&session_key(), 1_000).await;
    let mut wire = client.connect().await;
    let ask = |number, voucher| client.ask(request(number), voucher, chat("hello there", 50));
    let mut cases = vec![
        (ask(1, 199), StatusCode::PAYMENT_REQUIRED, Reason::VoucherTooLow),
        (ask(1, 200), StatusCode::PAYMENT_REQUIRED, Reason::DepositTooLow),
        (ask(1, 200), StatusCode::PAYMENT_REQUIRED, Reason::BadVoucher),
        (ask(1, 200), StatusCode::NOT_FOUND, Reason::UnknownSession),
        (ask(1, 200), StatusCode::CONFLICT, Reason::BehindReceipt),
        (ask(1, 200), StatusCode::BAD_REQUEST, Reason::BoundTooLow),
        (ask(1, 200), StatusCode::BAD_REQUEST, Reason::Unsupported),
        (ask(1, 200), StatusCode::BAD_REQUEST, Reason::Unsupported),
        (ask(1, 200), StatusCode::BAD_REQUEST, Reason::Malformed),
        (ask(1, 200), StatusCode::INTERNAL_SERVER_ERROR, Reason::EngineFailed),
    ];
    cases[1].0.bound = UnitBound { input: 1_001, output: 0 };
    cases[2].0.voucher.signature[0] ^= 1;
    cases[3].0.session.posted_lt += 1;
    cases[4].0.seen_sequence = 1;
    cases[5].0.bound.input = 1;
    let mut hot = Params::greedy(5);
    hot.temperature = 1_000.0;
    cases[6].0.work = completion("hello", 5);
    if let Work::Completion(work) = &mut cases[6].0.work {
        work.params = hot;
    }
    cases[7].0.work = Work::Embeddings(Embeddings { texts: vec!["hello".into()] });
    cases[8].0.work = completion("hello", 0);
    cases[9].0.work = chat("panics", 5);
    for (ask, status, reason) in cases {
        let (got, frames) = wire.ask(&ask).await;
        assert_eq!((got, refusal_of(&frames)), (status, reason));
        wire = client.connect().await;
    }
    // Not JSON, other JSON, too long, no such path.
    for (path, body, status, reason) in [
        ("/v1/requests", b"{".to_vec(), StatusCode::BAD_REQUEST, Reason::Malformed),
        ("/v1/requests", b"{\"a\":1}".to_vec(), StatusCode::BAD_REQUEST, Reason::Malformed),
        ("/v1/requests", vec![b' '; 4_097], StatusCode::PAYLOAD_TOO_LARGE, Reason::TooLarge),
        ("/v1/request", b"{}".to_vec(), StatusCode::BAD_REQUEST, Reason::Malformed),
    ] {
        let (got, frames) = frames(wire.send(Method::POST, path, body).await.unwrap()).await;
        assert_eq!((got, refusal_of(&frames)), (status, reason));
        wire = client.connect().await;
    }
    assert_eq!(worker.engine.begun.load(Ordering::SeqCst), 0, "the engine was asked");
    assert_eq!(worker.endpoint.open_requests(), 0);
    // None of it took anything of the voucher.
    let (status, answer) = wire.ask(&ask(1, 200)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(done_of(&answer).receipt.sequence, 1);
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_serves_the_sessions_of_its_own_key_alone() {
    let worker = Running::new().await;
    let client = worker.session(&session_key(), 100_000).await;
    let mut wire = client.connect().await;
    wire.ask(&client.ask(request(1), 1_000, chat("hello", 3))).await;
    let other_key = contracts::SigningKey::from_bytes(&[10; 32]);
    let other = worker.session(&other_key, 100_000).await;
    let mut foreign = other.connect().await;
    for path in [client.request_path(request(1), 0), client.session_path()] {
        let (status, answer) = frames(foreign.get(&path).await).await;
        assert_eq!((status, refusal_of(&answer)), (StatusCode::FORBIDDEN, Reason::WrongKey));
    }
    for number in [1, 2] {
        let (status, answer) = foreign.ask(&client.ask(request(number), 1_000, chat("hello", 3))).await;
        assert_eq!((status, refusal_of(&answer)), (StatusCode::FORBIDDEN, Reason::WrongKey));
        foreign = other.connect().await;
    }
    let deleted = foreign.send(Method::DELETE, &client.request_path(request(1), 0), vec![]).await.unwrap();
    assert_eq!(deleted.status(), StatusCode::FORBIDDEN);
    // A key of no session: its body is not read, and its connection ends; what the worker serves it may know.
    let stranger_key = contracts::SigningKey::from_bytes(&[11; 32]);
    let stranger = worker.client(&stranger_key, facts(&stranger_key, 1));
    let mut wire = stranger.connect().await;
    let report: WorkerReport = json(wire.get("/v1/worker").await).await;
    assert_eq!((report.model_id, report.accepting), (MODEL_ID.0, true));
    let mut wire = stranger.connect().await;
    let (status, answer) = wire.ask(&stranger.ask(request(1), 1_000, chat("hello", 3))).await;
    assert_eq!((status, refusal_of(&answer)), (StatusCode::NOT_FOUND, Reason::UnknownSession));
    assert!(wire.send(Method::GET, "/v1/worker", vec![]).await.is_err(), "the connection stayed");
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_has_the_same_answer_and_one_charge() {
    let setup = Setup {
        config: EndpointConfig { hold: Duration::from_millis(1_500), ..EndpointConfig::default() },
        ..Setup::default()
    };
    let worker = setup.run().await;
    let client = worker.session(&session_key(), 100_000).await;
    let ask = client.ask(request(1), 1_000, chat("slow words", 20));
    // Three at once on connections of their own.
    let mut wires = [client.connect().await, client.connect().await, client.connect().await];
    let [one, two, three] = &mut wires;
    let (one, two, three) = tokio::join!(one.ask(&ask), two.ask(&ask), three.ask(&ask));
    assert_eq!(one.0, StatusCode::OK);
    assert_eq!((&one, &two), (&two, &three));
    let [wire, ..] = &mut wires;
    assert_eq!(wire.ask(&ask).await, one);
    assert_eq!(frames(wire.get(&client.request_path(request(1), 0)).await).await, one);
    let tail = frames(wire.get(&client.request_path(request(1), 5)).await).await;
    assert_eq!(tail.1, one.1[5..]);
    assert_eq!(worker.engine.begun.load(Ordering::SeqCst), 1);
    let report: SessionReport = json(wire.get(&client.session_path()).await).await;
    assert_eq!(report.receipt.unwrap().sequence, 1);
    assert_eq!(
        refusal_of(&frames(wire.get(&client.request_path(request(2), 0)).await).await.1),
        Reason::UnknownRequest
    );
    // When it is no longer held, it is gone, and not charged a second time.
    loop {
        let (status, answer) = wire.ask(&ask).await;
        if status == StatusCode::GONE {
            assert_eq!(refusal_of(&answer), Reason::AnswerGone);
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        *wire = client.connect().await;
    }
    assert_eq!(worker.engine.begun.load(Ordering::SeqCst), 1);
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_is_taken_up_on_another_connection() {
    let worker = Running::new().await;
    let client = worker.session(&session_key(), 100_000).await;
    let ask = client.ask(request(1), 1_000, chat("slow words", 40));
    let mut wire = client.connect().await;
    let mut body = wire.post(&ask).await.into_body();
    let mut head = Vec::new();
    while head.len() < 5 {
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        head.extend(parse(&data));
    }
    drop(body);
    drop(wire);
    let mut wire = client.connect().await;
    let (status, rest) = frames(wire.get(&client.request_path(request(1), head.len())).await).await;
    assert_eq!(status, StatusCode::OK);
    let whole = [head, rest].concat();
    assert_eq!(tokens_of(&whole), (0..40).collect::<Vec<_>>());
    assert_eq!(done_of(&whole).receipt.units.output, 40);
    assert_eq!(worker.engine.begun.load(Ordering::SeqCst), 1);
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_wants_ends_and_what_was_made_is_charged() {
    let setup = Setup {
        config: EndpointConfig { linger: Duration::from_millis(100), ..EndpointConfig::default() },
        ..Setup::default()
    };
    let worker = setup.run().await;
    let client = worker.session(&session_key(), 100_000).await;
    let mut buyer = BuyerLedger::new(client.facts.clone(), Amount::new(100_000));
    let bound = UnitBound { input: 100, output: 50 };
    // Left alone.
    let voucher = buyer.promise(request(1), bound).unwrap().get();
    let mut wire = client.connect().await;
    drop(wire.post(&client.ask(request(1), voucher, chat("stuck words", 40))).await);
    drop(wire);
    // Taken back.
    let voucher = buyer.promise(request(2), bound).unwrap().get();
    let mut reading = client.connect().await;
    let response = reading.post(&client.ask(request(2), voucher, chat("stuck words", 40))).await;
    let mut wire = client.connect().await;
    let path = client.request_path(request(2), 0);
    assert_eq!(wire.send(Method::DELETE, &path, vec![]).await.unwrap().status(), StatusCode::NO_CONTENT);
    let (_, answer) = frames(response).await;
    let done = done_of(&answer);
    assert_eq!(done.finish_reason, FinishReason::Cancelled);
    assert_eq!((tokens_of(&answer).len(), done.used.output, done.limit), (3, 3, 3));
    let digest = client.ask(request(2), 0, chat("stuck words", 40)).work.params_digest(3, &[]);
    let transcript = done.transcript(&MODEL_ID, &digest, &tokens_of(&answer)).unwrap();
    assert_eq!(transcript.0, done.receipt.content.transcript);
    // What is held is wiped when it is taken back.
    assert_eq!(wire.send(Method::DELETE, &path, vec![]).await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(refusal_of(&frames(wire.get(&path).await).await.1), Reason::AnswerGone);
    while worker.endpoint.open_requests() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut report: SessionReport = json(wire.get(&client.session_path()).await).await;
    while report.answered.len() < 2 {
        report = json(wire.get(&client.session_path()).await).await;
    }
    assert!(report.answered.iter().all(|answered| answered.used.output == 3));
    buyer.report(&report, &Default::default()).unwrap();
    assert_eq!(buyer.units().output, 6);
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_fails_charges_nothing_and_takes_no_place() {
    let worker = Running::new().await;
    let client = worker.session(&session_key(), 100_000).await;
    let mut wire = client.connect().await;
    for (number, text) in [(1, "fails here"), (2, "vanishes here")] {
        let (status, answer) = wire.ask(&client.ask(request(number), 1_000, chat(text, 20))).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(refusal_of(&answer), Reason::EngineFailed);
        assert_eq!(tokens_of(&answer).len(), 3);
    }
    assert_eq!(worker.endpoint.open_requests(), 0);
    // The same name again, and the voucher of one request is enough: nothing stayed reserved.
    let (_, answer) = wire.ask(&client.ask(request(1), 200, chat("fine", 20))).await;
    assert_eq!(done_of(&answer).receipt.sequence, 1);
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_are_sold_by_the_token() {
    let worker = Setup { engine: Double::embeddings(), ..Setup::default() }.run().await;
    let client = worker.session(&session_key(), 100_000).await;
    let mut wire = client.connect().await;
    let texts = vec!["one two three".to_owned(), "four".to_owned()];
    let mut ask = client.ask(request(1), 1_000, Work::Embeddings(Embeddings { texts }));
    ask.bound = UnitBound { input: 4, output: 0 };
    let (_, answer) = wire.ask(&ask).await;
    let done = done_of(&answer);
    assert_eq!(done.used, Units { input: 4, cached_input: 0, output: 0 });
    let vectors = answer.iter().filter_map(|frame| match frame {
        Frame::Vector(vector) => Some(vector.clone()),
        _ => None,
    });
    let bits: Vec<u32> = vectors.flatten().map(f32::to_bits).collect();
    assert_eq!(bits.len(), 6);
    let transcript = done.transcript(&MODEL_ID, &ask.work.params_digest(0, &[3, 1]), &bits).unwrap();
    assert_eq!(transcript.0, done.receipt.content.transcript);
    ask.request = request(2);
    ask.bound.input = 3;
    assert_eq!(refusal_of(&wire.ask(&ask).await.1), Reason::BoundTooLow);
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn likely_tokens_come_with_their_text() {
    let worker = Running::new().await;
    let client = worker.session(&session_key(), 100_000).await;
    let mut ask = client.ask(request(1), 1_000, completion("hello", 2));
    if let Work::Completion(work) = &mut ask.work {
        work.params.top_logprobs = Some(2);
    }
    let (_, answer) = client.connect().await.ask(&ask).await;
    let Frame::Piece(piece) = &answer[1] else { panic!("{answer:?}") };
    assert_eq!(piece.logprobs[0].top, [(0, -0.5), (7, -1.5)]);
    assert_eq!(piece.logprobs[0].bytes, [word(0), word(0), word(7)].map(hex::encode));
    worker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_another_worker_is_refused_and_a_new_one_serves_no_older_session() {
    let setup = Setup::default();
    let file = setup.file();
    let worker = setup.run().await;
    let mut old = facts(&session_key(), 1_000);
    // Opened before the file was.
    old.id.posted_lt = 10;
    let refused = worker.endpoint.observe(&offered(&old), old.clone()).await.unwrap_err();
    assert_eq!(refused.reason, Reason::BeforeJournal);
    worker.session(&session_key(), 1_000).await;
    let directory = worker.end().await;
    drop(store_at(&file));
    let other = StoreIdentity::new(worker_address(), -3);
    assert!(matches!(RedbStore::open(&file, &other, 99), Err(StoreError::OtherWorker { .. })));
    let (store, stored) = store_at(&file);
    assert_eq!((store.since_lt(), stored.len()), (10, 1));
    drop((store, directory));
}

async fn json<T: serde::de::DeserializeOwned>(response: hyper::Response<hyper::body::Incoming>) -> T {
    assert_eq!(response.status(), StatusCode::OK);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap()
}
