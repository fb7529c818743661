//! A session on the local chain: opened by a wallet, served over RA-TLS, redeemed and closed by the worker.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chain::{ChainAccess, Transfer};
use contracts::job::{JobLimits, JobState, JobStatus, OpenSession, Seller, SessionTerms};
use contracts::money::Amount;
use contracts::{HashBytes, Message, Ref, SigningKey, Units};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use ra_tls::admission::Limits;
use ra_tls::evidence::ExpectedWorker;
use ra_tls::{Connector, Identity, ServerLimits, SystemClock};
use session::message::{CloseReport, CloseRequest, Done, Frame, StartRequest};
use session::work::{Chat, ChatMessage, Params, Work};
use session::{BuyerLedger, Counted, RequestId, SessionFacts, SignedVoucher, UnitBound};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use worker::Keys;
use worker::sessions::{SessionConfig, SessionServer};

use crate::market::{Echo, Market, PRICES, TON, start_worker};

const DEPOSIT: Amount = Amount::new(200_000_000);
const BOUND: UnitBound = UnitBound { input: 20, output: 20 };

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_opened_served_redeemed_and_closed() {
    let market = Market::open().await;
    let dir = tempfile::tempdir().unwrap();
    let daemon = start_worker(market.chain.clone(), market.network_id(), dir.path(), None);
    let (stop_jobs, stopped) = oneshot::channel::<()>();
    let jobs = tokio::spawn(daemon.run(async move { drop(stopped.await) }));
    market.wait_ready().await;
    let address = free_address().await;
    let at_stake = Amount::new(10_000_000);
    let (stop, served) = sell(&market, dir.path(), address, at_stake);

    let key = SigningKey::from_bytes(&[77; 32]);
    let facts = open(&market, &key).await;
    let mut buyer = BuyerLedger::new(facts.clone(), DEPOSIT);
    // 5 words in, 5 out: 40 000 nanoTON each.
    for number in 1..=3 {
        let done = ask(&market, address, &key, &mut buyer, number).await;
        assert_eq!(done.receipt.sequence, u32::from(number));
    }
    assert_eq!(buyer.spent(), Amount::new(3 * 40_000));
    // Below what may be at stake: nothing is redeemed.
    assert_eq!(market.job(&facts.id.job).await.unwrap().paid, Amount::ZERO);

    // The worker is started anew, without the risk that it took before.
    stop.send(()).unwrap();
    served.await.unwrap();
    let (stop, served) = sell(&market, dir.path(), address, Amount::ZERO);
    let done = ask(&market, address, &key, &mut buyer, 4).await;
    assert_eq!(done.receipt.sequence, 4);

    // The gateway closes; the worker redeems a final receipt, and the chain settles it to the nanoTON.
    let close = CloseRequest { voucher: SignedVoucher::sign(&facts.id, buyer.promised(), &key) };
    let path = format!("/v1/sessions/{}/close", facts.id);
    let closed = call(&market, address, &key, Method::POST, &path, serde_json::to_vec(&close).unwrap()).await;
    let closed: CloseReport = serde_json::from_slice(&closed).unwrap();
    buyer.closed(&closed).unwrap();
    let state = market.wait_end(&facts.id.job).await;
    assert_eq!((state.status, state.paid), (JobStatus::Settled, Amount::new(4 * 40_000)));
    assert_eq!(state.paid, buyer.spent());
    assert_eq!(state.sequence, 5);
    stop.send(()).unwrap();
    served.await.unwrap();
    stop_jobs.send(()).unwrap();
    jobs.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_worth_it_is_redeemed_before_the_end_and_a_wish_on_chain_ends_a_session() {
    let market = Market::open().await;
    let dir = tempfile::tempdir().unwrap();
    let daemon = start_worker(market.chain.clone(), market.network_id(), dir.path(), None);
    let (stop_jobs, stopped) = oneshot::channel::<()>();
    let jobs = tokio::spawn(daemon.run(async move { drop(stopped.await) }));
    market.wait_ready().await;
    let address = free_address().await;
    let (stop, served) = sell(&market, dir.path(), address, Amount::ZERO);
    let key = SigningKey::from_bytes(&[78; 32]);
    let facts = open(&market, &key).await;
    let mut buyer = BuyerLedger::new(facts.clone(), DEPOSIT);
    // 160 of them are 6 400 000 nanoTON, of which the worker's part is above the fee of 6 000 000 nanoTON.
    let mut number = 0;
    while buyer.spent() < Amount::new(6_500_000) {
        number += 1;
        ask(&market, address, &key, &mut buyer, number).await;
    }
    let state = wait(&market, &facts, |state| !state.paid.is_zero()).await;
    assert_eq!(state.status, JobStatus::Session);
    assert!(state.paid <= buyer.spent());
    // The wallet asks for the end.
    let close = client::close_session(&facts.id.job).unwrap();
    market.client.send(&[close]).await.unwrap();
    let state = market.wait_end(&facts.id.job).await;
    assert_eq!((state.status, state.paid), (JobStatus::Settled, buyer.spent()));
    stop.send(()).unwrap();
    served.await.unwrap();
    stop_jobs.send(()).unwrap();
    jobs.await.unwrap().unwrap();
}

fn sell(
    market: &Market,
    dir: &Path,
    address: SocketAddr,
    at_stake: Amount,
) -> (oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let server = SessionServer {
        chain: market.chain.clone(),
        network: market.network.clone(),
        owner: market.owner().wallet().address().clone(),
        keys: Arc::new(Keys::load_or_create(&dir.join("keys"), &mut rand::rng()).unwrap()),
        engine: Arc::new(Echo),
        file: dir.join("sessions.redb"),
        config: SessionConfig {
            at_stake,
            drain_s: 1,
            resend_every_s: 2,
            connections: ServerLimits {
                // A connection for each request.
                admission: Limits { burst_per_peer: 10_000, ..Limits::default() },
                ..ServerLimits::default()
            },
            ..SessionConfig::at(address)
        },
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(async move {
        server.run(Box::pin(async move { drop(stopped.await) })).await.unwrap();
    });
    (stop, served)
}

async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn open(market: &Market, key: &SigningKey) -> SessionFacts {
    // The worker's file has to be there before the session is.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let state = market.worker_state().await.unwrap();
    let offer = state.offers.get(crate::market::MODEL).unwrap().unwrap();
    let head = market.chain.head().await.unwrap();
    let open = OpenSession {
        query_id: 0,
        until: head.time_s + 7_200,
        deposit: DEPOSIT,
        limits: JobLimits { max_units: Units::default(), least_bond: Amount::ZERO },
        seller: Ref::new(Seller {
            worker: market.worker.address,
            receipt_key: state.attestation.unwrap().receipt_key,
            model: offer.model,
            settle_within_s: 600,
            share_bps: market.network.generation.share_bps(offer.royalty_bps),
            prices: PRICES,
        })
        .unwrap(),
        terms: Ref::new(SessionTerms { session_key: HashBytes(key.verifying_key().to_bytes()) }).unwrap(),
    };
    let client = market.client.wallet().address();
    let nonce = u64::from(key.to_bytes()[0]);
    let job = market.network.job_address(client, nonce).unwrap();
    let init = market.network.job_state_init(client, nonce).unwrap();
    let transfer = Transfer::new(job.clone(), TON, open.to_cell().unwrap()).with_state_init(init);
    market.client.send(&[transfer]).await.unwrap();
    let client = client.clone();
    for _ in 0..200 {
        if let Some(state) = market.job(&job).await {
            return SessionFacts::of_state(job, client, &state).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the session was not opened");
}

async fn ask(
    market: &Market,
    address: SocketAddr,
    key: &SigningKey,
    buyer: &mut BuyerLedger,
    number: u8,
) -> Done {
    let request = RequestId([number; 16]);
    let promised = buyer.promise(request, BOUND).unwrap();
    let message = ChatMessage {
        role: "user".into(),
        content: "five words to be echoed".into(),
        name: None,
        tool_calls: vec![],
        tool_call_id: None,
    };
    let start = StartRequest {
        session: buyer.session().clone(),
        request,
        voucher: SignedVoucher::sign(buyer.session(), promised, key),
        seen_sequence: buyer.seen_sequence(),
        bound: BOUND,
        work: Work::Chat(Chat { messages: vec![message], tools: vec![], params: Params::greedy(20) }),
    };
    let body = serde_json::to_vec(&start).unwrap();
    for _ in 0..100 {
        let answer = call(market, address, key, Method::POST, "/v1/requests", body.clone()).await;
        let last = answer.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).unwrap();
        match serde_json::from_slice(last).unwrap() {
            Frame::Done(done) => {
                buyer.done(&done, &Counted { input: Some(5), output: 5 }).unwrap();
                return *done;
            }
            // Until the worker has read the block.
            Frame::Refused(refused) if refused.reason == session::Reason::UnknownSession => {}
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the worker does not know the session");
}

async fn call(
    market: &Market,
    address: SocketAddr,
    key: &SigningKey,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Vec<u8> {
    let state = market.worker_state().await.unwrap();
    let expected = ExpectedWorker::of_state(market.network_id(), market.worker.clone(), &state).unwrap();
    let identity = Identity::session(key.clone()).unwrap();
    let timeout = Duration::from_secs(10);
    let connector = Connector::new(expected, Some(&identity), timeout, Arc::new(SystemClock)).unwrap();
    let tcp = loop {
        match TcpStream::connect(address).await {
            Ok(tcp) => break tcp,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let tls = connector.connect(tcp).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header("host", "worker");
    let answer = sender.send_request(request.body(Full::<bytes::Bytes>::from(body)).unwrap()).await.unwrap();
    answer.into_body().collect().await.unwrap().to_bytes().to_vec()
}

async fn wait(market: &Market, facts: &SessionFacts, until: impl Fn(&JobState) -> bool) -> JobState {
    for _ in 0..200 {
        let state = market.job(&facts.id.job).await.unwrap();
        if until(&state) {
            return state;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it did not come to that");
}
