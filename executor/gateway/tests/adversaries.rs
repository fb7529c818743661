//! Workers that lie, stall or are not who they should be. Each is cheaper than an honest worker, so that it is asked first;
//! each test says what the gateway does about it.
#![allow(clippy::unwrap_used)]

mod world;

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use contracts::job::ReportEquivocation;
use contracts::money::Amount;
use contracts::receipt::{Receipt, SignedReceipt, Tag};
use contracts::{Message as _, SigningKey, StdAddr, Units};
use gateway::link::LinkLimits;
use gateway::store::Store;
use gateway::{SessionMarket, equivocation_report};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use session::message::{Accepted, Done, FinishReason, Frame, Piece, StartRequest};
use session::{Content, Fault, Reason, Refused, RequestId, SessionId, SessionReceipt};
use tokio::net::TcpListener;
use world::*;

/// What a liar does with its first request, or with its second where the lie needs two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// It charges a token more than came.
    InflatedUnits,
    /// It charges input that the request never bounded.
    InflatedInput,
    /// Its receipt's amount is not what the units cost.
    WrongAmount,
    /// Its receipt commits to another model's transcript.
    OtherModel,
    /// Its receipt is signed by another key.
    OtherKey,
    /// Its second answer has the receipt of the first.
    Replay,
    /// Its second receipt has the sequence of the first.
    Equivocation,
    /// It answers a request that was not asked.
    NeverAsked,
    /// It says that a new request was charged before.
    Again,
    /// It sends more tokens than were asked for.
    TooMany,
    /// It ends in the middle.
    Truncated,
    /// It sends a byte now and then.
    SlowLoris,
    /// It sends frames without text for ever.
    Endless,
    /// One frame without an end.
    HugeFrame,
    /// Frames of other work.
    OtherFrames,
}

struct Liar {
    port: u16,
    asked: Arc<AtomicUsize>,
}

impl Liar {
    async fn start(lie: Lie) -> Self {
        Self::of(lie, worker_address(1), worker_key(1)).await
    }

    async fn of(lie: Lie, address: StdAddr, key: SigningKey) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = acceptor(address, &key);
        let asked = Arc::new(AtomicUsize::new(0));
        let signed = Arc::new(Mutex::new(None));
        let counter = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, from)) = listener.accept().await {
                let (acceptor, counter, signed) = (acceptor.clone(), counter.clone(), signed.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream, from.ip()).await else { return };
                    let service = service_fn(|request| respond(lie, request, &counter, &signed));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { port, asked }
    }
}

async fn respond(
    lie: Lie,
    request: Request<Incoming>,
    asked: &AtomicUsize,
    signed: &Mutex<Option<SessionReceipt>>,
) -> Result<Response<Body>, Infallible> {
    let refuse = |reason: Reason| {
        let body = serde_json::to_vec(&Frame::Refused(Refused::new(reason))).unwrap();
        Ok(Response::builder().status(StatusCode::NOT_FOUND).body(Body::from(body)).unwrap())
    };
    if request.method() != Method::POST || request.uri().path() != "/v1/requests" {
        return refuse(Reason::UnknownSession);
    }
    let number = asked.fetch_add(1, Ordering::SeqCst);
    let body = to_bytes(Body::new(request.into_body()), 1 << 20).await.unwrap();
    let start: StartRequest = serde_json::from_slice(&body).unwrap();
    let mut frames = line(&Frame::Accepted(Accepted { request: start.request, again: false }));
    let most = match &start.work {
        session::work::Work::Chat(chat) => chat.params.max_output_tokens,
        _ => 0,
    };
    let count = if lie == Lie::TooMany { most + 1 } else { most };
    let half = most / 2;
    for token in 0..count {
        let (text, tokens) = (format!("answer-{token} "), vec![token]);
        frames.extend(line(&Frame::Piece(Piece { text, tokens, logprobs: vec![] })));
        if token == half {
            match lie {
                Lie::Truncated => return Ok(stream(vec![frames], Duration::ZERO, true)),
                Lie::SlowLoris => {
                    let drops = (0..10_000).map(|_| b" ".to_vec());
                    let all = std::iter::once(frames).chain(drops).collect();
                    return Ok(stream(all, Duration::from_millis(100), false));
                }
                Lie::Endless => {
                    let empty = line(&Frame::Piece(Piece::default()));
                    let all = std::iter::once(frames).chain((0..100_000).map(|_| empty.clone())).collect();
                    return Ok(stream(all, Duration::from_millis(1), false));
                }
                Lie::HugeFrame => {
                    frames.extend(b"{\"piece\":{\"text\":\"");
                    let all = std::iter::once(frames).chain((0..64).map(|_| vec![b'x'; 1 << 20])).collect();
                    return Ok(stream(all, Duration::ZERO, false));
                }
                Lie::OtherFrames => frames.extend(line(&Frame::Vector(vec![1.0]))),
                _ => {}
            }
        }
    }
    let mut previous = signed.lock().unwrap();
    let done = done(lie, number, &start, most, *previous);
    *previous = Some(done.receipt);
    frames.extend(line(&Frame::Done(Box::new(done))));
    Ok(stream(vec![frames], Duration::ZERO, false))
}

fn done(
    lie: Lie,
    number: usize,
    start: &StartRequest,
    tokens: u32,
    previous: Option<SessionReceipt>,
) -> Done {
    let is_first = number == 0;
    let input = if lie == Lie::InflatedInput { start.bound.input + 1 } else { 3 };
    let output = if lie == Lie::InflatedUnits { tokens + 1 } else { tokens };
    let used = Units { input, cached_input: 0, output };
    let before = previous.map_or(Units::default(), |receipt| receipt.units);
    let units = Units { input: before.input + input, cached_input: 0, output: before.output + output };
    let mut done = Done {
        request: if lie == Lie::NeverAsked { RequestId([0x77; 16]) } else { start.request },
        again: lie == Lie::Again,
        finish_reason: FinishReason::Length,
        used,
        limit: tokens,
        receipt: SessionReceipt {
            sequence: 1 + number as u32,
            is_final: false,
            units,
            // 1 nanoTON a token.
            amount: Amount::new(u64::from(units.input + units.output) + u64::from(lie == Lie::WrongAmount)),
            content: Content { transcript: [0; 32], engine: 2, dtype: 5 },
            signature: [0; 64],
        },
        salt: [9; 32],
        input_tokens: vec![1; input as usize],
    };
    if lie == Lie::Equivocation && !is_first {
        done.receipt.sequence = 1;
    }
    let mut model = MODEL_ID;
    if lie == Lie::OtherModel {
        model.0[0] ^= 1;
    }
    let output: Vec<u32> = (0..tokens).collect();
    let params = start.work.params_digest(tokens, &[]);
    done.receipt.content.transcript = done.transcript(&model, &params, &output).unwrap().0;
    let key = if lie == Lie::OtherKey { worker_key(9) } else { worker_key(1) };
    sign(&mut done.receipt, &start.session, &key);
    if lie == Lie::Replay
        && let Some(previous) = previous
    {
        done.receipt = previous;
    }
    done
}

fn sign(receipt: &mut SessionReceipt, session: &SessionId, key: &SigningKey) {
    let fields = Receipt {
        tag: Tag,
        job: session.job.clone(),
        posted_lt: session.posted_lt,
        sequence: receipt.sequence,
        is_final: receipt.is_final,
        units: receipt.units,
        amount: receipt.amount,
        content_hash: receipt.content.to_cell_fields().hash().unwrap(),
    };
    receipt.signature = SignedReceipt::new(fields, key).unwrap().signature.0;
}

fn line(frame: &Frame) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(frame).unwrap();
    bytes.push(b'\n');
    bytes
}

/// Sends the parts with pauses; cut off at the end, or ended as it should be.
fn stream(parts: Vec<Vec<u8>>, pause: Duration, is_cut: bool) -> Response<Body> {
    let end = is_cut.then(|| Err(std::io::Error::other("cut")));
    let parts = parts.into_iter().map(|part| Ok(Bytes::from(part))).chain(end);
    let body = futures_util::stream::unfold(parts, move |mut parts| async move {
        let part: Result<Bytes, std::io::Error> = parts.next()?;
        tokio::time::sleep(pause).await;
        Some((part, parts))
    });
    Response::new(Body::from_stream(body))
}

struct Place {
    ledger: Arc<Ledger>,
    store: Arc<Store>,
    market: SessionMarket,
    honest: Worker,
    _folder: tempfile::TempDir,
}

impl Place {
    async fn with(liar: &Liar) -> Self {
        let ledger = Ledger::new();
        let honest = Worker::start(2, "answer-").await;
        ledger.books.lock().unwrap().sellers.push(seller(1, liar.port, 1_000));
        ledger.sell(&honest, 2_000);
        let folder = tempfile::tempdir().unwrap();
        let store = store_at(&folder.path().join("gateway.redb")).await;
        let limits = LinkLimits {
            frame_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(4),
            ..LinkLimits::default()
        };
        let market = market(&ledger, store.clone(), spending(100_000_000, 1_000_000), limits).await;
        Self { ledger, store, market, honest, _folder: folder }
    }

    /// The answer is whole, and from the honest worker.
    async fn is_served_by_the_honest(&self) {
        let (text, done) = ask(&self.market, chat("three words here", 20)).await;
        let done = done.unwrap();
        assert_eq!(text, answer("answer-", 20));
        assert_eq!(done.paid.worker, worker_address(2).to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lies_about_an_answer_is_asked_for_nothing_more() {
    for lie in [
        Lie::InflatedUnits,
        Lie::InflatedInput,
        Lie::WrongAmount,
        Lie::OtherModel,
        Lie::OtherKey,
        Lie::NeverAsked,
        Lie::Again,
        Lie::TooMany,
    ] {
        let liar = Liar::start(lie).await;
        let place = Place::with(&liar).await;
        place.is_served_by_the_honest().await;
        place.is_served_by_the_honest().await;
        assert_eq!(liar.asked.load(Ordering::SeqCst), 1, "{lie:?}");
        assert_eq!(place.honest.engine.begun.load(Ordering::SeqCst), 2, "{lie:?}");
        // The session with it is ended on chain: what it may draw is what was promised.
        while place.ledger.books.lock().unwrap().closing.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let fault = place.store.proofs().unwrap().first().map(|kept| kept.proof.fault);
        let proven = match lie {
            Lie::InflatedUnits => Some(Fault::Overcharge),
            Lie::InflatedInput => Some(Fault::OverVoucher),
            Lie::WrongAmount => Some(Fault::WrongAmount),
            _ => None,
        };
        assert_eq!(fault, proven, "{lie:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_receipts_of_one_sequence_are_kept_and_make_the_message_that_the_contract_takes() {
    let liar = Liar::start(Lie::Equivocation).await;
    let place = Place::with(&liar).await;
    // The first answer is sound.
    let (_, done) = ask(&place.market, chat("three words here", 20)).await;
    assert_eq!(done.unwrap().paid.worker, worker_address(1).to_string());
    place.is_served_by_the_honest().await;
    place.is_served_by_the_honest().await;
    assert_eq!(liar.asked.load(Ordering::SeqCst), 2);
    let proofs = place.store.proofs().unwrap();
    assert_eq!((proofs.len(), proofs[0].proof.fault), (1, Fault::Equivocation));
    let sent = equivocation_report(&proofs[0]).unwrap().unwrap();
    let cell = sent.to_cell().unwrap();
    let mut body = cell.as_slice().unwrap();
    let read = ReportEquivocation::from_slice(&mut body).unwrap();
    assert_eq!(read, sent);
    assert_eq!(read.registration_seqno, 7);
    let key = public(&worker_key(1));
    for receipt in [&read.one, &read.other] {
        receipt.verify(&key).unwrap();
        assert_eq!(receipt.receipt.job, proofs[0].proof.facts.id.job);
        assert_eq!(receipt.receipt.sequence, 1);
    }
    assert_ne!(read.one.receipt, read.other.receipt);
    // The wallet sends it.
    assert_eq!(place.market.prove().await.unwrap(), vec![proofs[0].proof.facts.id.clone()]);
    assert_eq!(place.ledger.books.lock().unwrap().reports, vec![sent]);
    // A later run remembers the worker.
    let Place { ledger, store, market: old, .. } = place;
    drop(old);
    let market = market(&ledger, store, spending(100_000_000, 1_000_000), limits()).await;
    let (_, done) = ask(&market, chat("three words here", 20)).await;
    assert_eq!(done.unwrap().paid.worker, worker_address(2).to_string());
    assert_eq!(liar.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_of_an_earlier_answer_pays_for_no_other() {
    let liar = Liar::start(Lie::Replay).await;
    let place = Place::with(&liar).await;
    ask(&place.market, chat("three words here", 10)).await.1.unwrap();
    place.is_served_by_the_honest().await;
    place.is_served_by_the_honest().await;
    assert_eq!(liar.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stalls_or_floods_is_left_within_bounds() {
    for lie in [Lie::Truncated, Lie::SlowLoris, Lie::Endless, Lie::HugeFrame, Lie::OtherFrames] {
        let liar = Liar::start(lie).await;
        let place = Place::with(&liar).await;
        let served = tokio::time::timeout(Duration::from_secs(60), place.is_served_by_the_honest()).await;
        assert!(served.is_ok(), "{lie:?}: the gateway waits");
        // It failed, and was not shown dishonest: it comes after the others for a while.
        place.is_served_by_the_honest().await;
        assert_eq!(liar.asked.load(Ordering::SeqCst), 1, "{lie:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_prompt_goes_to_whoever_is_not_the_worker_on_chain() {
    // Its certificate, for its own key; another worker at the endpoint; a registration that has ended.
    let stolen = Liar::of(Lie::Truncated, worker_address(1), worker_key(5)).await;
    let other = Liar::of(Lie::Truncated, worker_address(3), worker_key(3)).await;
    for liar in [stolen, other] {
        let place = Place::with(&liar).await;
        place.is_served_by_the_honest().await;
        assert_eq!(liar.asked.load(Ordering::SeqCst), 0);
    }
    let expired = Liar::start(Lie::Truncated).await;
    let place = Place::with(&expired).await;
    place.ledger.books.lock().unwrap().sellers[0].expected.attested_until_s = u64::from(now_s()) - 1;
    place.is_served_by_the_honest().await;
    assert_eq!(expired.asked.load(Ordering::SeqCst), 0);
    assert_eq!(place.ledger.books.lock().unwrap().openings, 1);
}
