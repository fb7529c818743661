//! A chain that is a test double, workers with an engine that is one, and a gateway between them. Connections, both ledgers
//! and both stores are the real ones.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use contracts::job::{JobStatus, RedeemReceipt, ReportEquivocation};
use contracts::money::Amount;
use contracts::receipt::Dtype;
use contracts::work::GenerateParams;
use contracts::{HashBytes, Nanoton, Prices, SigningKey, StdAddr};
use endpoint::{Endpoint, EndpointConfig, EndpointParts, RedbStore, StoreIdentity, serve};
use engine_api::{
    AnswerStream, EmbedRequest, Embedded, Engine, EngineError, EngineInfo, FinishReason, GenerateRequest,
    Generated, Piece, Prompt, Usage, Work as EngineWork, answer_channel,
};
use gateway::ground::{Ground, GroundError, Opening, Seller};
use gateway::link::LinkLimits;
use gateway::market::{AnswerEvent, Done, TextWork};
use gateway::openai::ApiError;
use gateway::store::{Store, StoreError};
use gateway::{Market as _, MarketParts, NoCounter, SessionMarket, Spending};
use ra_tls::admission::Limits;
use ra_tls::certificate::Validity;
use ra_tls::evidence::{Binding, ExpectedWorker};
use ra_tls::{Acceptor, ClientAuth, Identity, ServerLimits, SystemClock};
use session::work::{Chat, ChatMessage, Params};
use session::{Offered, RedeemPolicy, SessionFacts, SessionId};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub const MODEL_ID: HashBytes = HashBytes([0xab; 32]);
const NETWORK: i32 = -239;
pub const OPENING_FEES: u64 = 7_000;
pub const MESSAGE_FEE: u64 = 11;
pub const ACTION_FEES: u64 = 500;

pub fn now_s() -> u32 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as u32
}

/// Counts words and answers with numbered ones. `slow` in a prompt: 5 ms a token.
pub struct Double {
    info: EngineInfo,
    /// Begins every word of its answers.
    pub word: &'static str,
    pub begun: AtomicUsize,
}

impl Engine for Double {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn admit(&self, _: u32, _: &GenerateParams) -> Result<(), EngineError> {
        Ok(())
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        let text = match prompt {
            Prompt::Chat { messages, .. } => messages.iter().map(|turn| turn.content.clone()).collect(),
            Prompt::Text(text) => text.clone(),
        };
        let slow = text.contains("slow").then_some(901);
        Ok(text.split_whitespace().map(|word| word.len() as u32).chain(slow).collect())
    }

    fn generate(&self, request: GenerateRequest) -> Result<AnswerStream, EngineError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let cancelled = Arc::new(AtomicBool::new(false));
        let flag = cancelled.clone();
        let (sink, stream) = answer_channel(move || flag.store(true, Ordering::SeqCst));
        let word = self.word;
        std::thread::spawn(move || {
            let (mut text, mut output_ids) = (String::new(), Vec::new());
            let mut finish_reason = FinishReason::Length;
            for number in 0..request.params.max_output_tokens {
                if cancelled.load(Ordering::SeqCst) {
                    finish_reason = FinishReason::Cancelled;
                    break;
                }
                if request.prompt_ids.contains(&901) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                let piece = format!("{word}{number} ");
                output_ids.push(number);
                text.push_str(&piece);
                sink.piece(Piece { id: Some(number), text: piece, logprobs: None });
            }
            let usage = Usage {
                prompt_tokens: request.prompt_ids.len() as u32,
                output_tokens: output_ids.len() as u32,
                ..Usage::default()
            };
            sink.end(Ok(Generated { text, output_ids, logprobs: Vec::new(), finish_reason, usage }));
        });
        Ok(stream)
    }

    fn tokenize_texts(&self, texts: &[String]) -> Result<Vec<Vec<u32>>, EngineError> {
        Ok(texts.iter().map(|text| vec![1; text.split_whitespace().count()]).collect())
    }

    fn embed(&self, request: &EmbedRequest) -> Result<Embedded, EngineError> {
        Ok(Embedded {
            vectors: request.ids.iter().map(|ids| vec![ids.len() as f32, 0.1, -1.0 / 3.0]).collect(),
            input_tokens: request.ids.iter().map(|ids| ids.len() as u32).sum(),
        })
    }
}

/// What a worker answers to a prompt.
pub fn answer(word: &str, tokens: u32) -> String {
    (0..tokens).map(|number| format!("{word}{number} ")).collect()
}

pub fn worker_key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[100 + number; 32])
}

pub fn worker_address(number: u8) -> StdAddr {
    StdAddr::new(0, HashBytes([number; 32]))
}

pub fn public(key: &SigningKey) -> HashBytes {
    HashBytes(key.verifying_key().to_bytes())
}

pub fn acceptor(worker: StdAddr, key: &SigningKey) -> Acceptor {
    let binding = Binding {
        network_id: NETWORK,
        worker,
        registration_seqno: 7,
        validity: Validity::starting(u64::from(now_s())),
    };
    let identity = Identity::worker(&binding, key, &mut rand::rng()).unwrap();
    // Every gateway of a test is the same peer.
    let admission =
        Limits { burst_per_peer: 100_000, handshakes_per_peer_per_s: 100_000, ..Limits::default() };
    let limits = ServerLimits { admission, ..ServerLimits::default() };
    Acceptor::new(&identity, ClientAuth::Required, limits, Arc::new(SystemClock)).unwrap()
}

/// A seller whose worker is at `port`.
pub fn seller(number: u8, port: u16, price: u64) -> Seller {
    let price = Nanoton::new(price);
    Seller {
        expected: ExpectedWorker {
            network_id: NETWORK,
            worker: worker_address(number),
            registration_seqno: 7,
            receipt_key: public(&worker_key(number)),
            attested_until_s: u64::from(now_s()) + 100_000,
        },
        endpoint: format!("127.0.0.1:{port}"),
        model_id: MODEL_ID,
        model: HashBytes([6; 32]),
        model_name: "double".into(),
        licence: String::new(),
        context_tokens: 1 << 20,
        publisher: String::new(),
        registered_at_s: 0,
        prices: Prices { input: price, cached_input: price, output: price },
        share_bps: 500,
        royalty_bps: 0,
        min_deposit: Amount::ZERO,
        stake: Amount::new(1),
    }
}

/// A worker's server.
pub struct Worker {
    pub number: u8,
    pub port: u16,
    pub endpoint: Endpoint,
    pub engine: Arc<Double>,
    directory: Arc<TempDir>,
    server: JoinHandle<()>,
}

impl Worker {
    pub async fn start(number: u8, word: &'static str) -> Self {
        Self::on(number, word, Arc::new(tempfile::tempdir().unwrap()), 0).await
    }

    async fn on(number: u8, word: &'static str, directory: Arc<TempDir>, port: u16) -> Self {
        let info = EngineInfo {
            model_id: MODEL_ID,
            name: "double".into(),
            engine: 2,
            dtype: Dtype::Q4_1,
            work: EngineWork::Text,
            context_tokens: 1 << 20,
            vocabulary: 1_000,
        };
        let engine = Arc::new(Double { info, word, begun: AtomicUsize::new(0) });
        let path = directory.path().join("worker.redb");
        let (store, stored) = loop {
            match RedbStore::open(&path, &StoreIdentity::new(worker_address(number), NETWORK), 10) {
                Err(endpoint::StoreError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                opened => break opened.unwrap(),
            }
        };
        let since_lt = store.since_lt();
        let endpoint = Endpoint::new(EndpointParts {
            engine: engine.clone(),
            receipt_key: worker_key(number),
            store: Arc::new(store),
            stored,
            since_lt,
            clock: Arc::new(now_s),
            config: EndpointConfig::default(),
        })
        .unwrap();
        let listener = loop {
            match TcpListener::bind(("127.0.0.1", port)).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let port = listener.local_addr().unwrap().port();
        let acceptor = acceptor(worker_address(number), &worker_key(number));
        let server =
            tokio::spawn(serve(endpoint.clone(), listener, acceptor, std::future::pending(), Duration::ZERO));
        Self { number, port, endpoint, engine, directory, server }
    }

    /// As a process that is killed: its connections are cut, what is in memory is gone.
    pub fn kill(&self) {
        self.server.abort();
    }

    /// Its file.
    pub fn journal(&self) -> std::path::PathBuf {
        self.directory.path().join("worker.redb")
    }

    /// Killed and started anew, with its file and at its port.
    pub async fn restart(self) -> Self {
        self.server.abort();
        let (number, word, directory, port) =
            (self.number, self.engine.word, self.directory.clone(), self.port);
        drop(self);
        Self::on(number, word, directory, port).await
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Default)]
pub struct Books {
    pub sessions: BTreeMap<StdAddr, SessionFacts>,
    pub sellers: Vec<Seller>,
    /// What has left the wallet, what has come back, and what went to workers and for fees.
    pub out: u64,
    pub back: u64,
    pub paid: u64,
    pub fees: u64,
    pub openings: usize,
    pub top_ups: usize,
    pub reports: Vec<ReportEquivocation>,
    pub closing: Vec<StdAddr>,
}

/// The chain and the wallet: keeps sessions' facts as a contract would.
pub struct Ledger {
    pub books: Mutex<Books>,
    endpoints: Mutex<BTreeMap<HashBytes, Endpoint>>,
    /// How long the wallet takes.
    pub wallet_takes: Duration,
    nonce_base: u64,
}

impl Ledger {
    pub fn new() -> Arc<Self> {
        Self::with(Duration::ZERO)
    }

    pub fn with(wallet_takes: Duration) -> Arc<Self> {
        Arc::new(Self { books: Mutex::default(), endpoints: Mutex::default(), wallet_takes, nonce_base: 0 })
    }

    pub fn sell(&self, worker: &Worker, price: u64) {
        let seller = seller(worker.number, worker.port, price);
        self.endpoints.lock().unwrap().insert(seller.expected.worker.address, worker.endpoint.clone());
        self.books.lock().unwrap().sellers.push(seller);
    }

    /// Nobody there for now.
    pub fn gone(&self, worker: &Worker) {
        self.endpoints.lock().unwrap().remove(&worker_address(worker.number).address);
    }

    /// Its endpoint is another one now, as after a restart.
    pub fn moved(&self, worker: &Worker) {
        self.endpoints.lock().unwrap().insert(worker_address(worker.number).address, worker.endpoint.clone());
    }

    fn key(job: &StdAddr) -> SigningKey {
        SigningKey::from_bytes(&job.address.0)
    }

    async fn show(&self, facts: &SessionFacts) {
        let endpoint = self.endpoints.lock().unwrap().get(&facts.worker).cloned();
        let Some(endpoint) = endpoint else { return };
        let offered = Offered {
            worker: facts.worker,
            receipt_key: facts.receipt_key,
            model: facts.model,
            prices: facts.prices,
            share_bps: facts.share_bps,
            min_deposit: Nanoton::ZERO,
            min_settle_s: 30,
        };
        let _ = endpoint.observe(&offered, facts.clone()).await;
    }

    /// As the contract takes it: the smallest of receipt, voucher and deposit, and no more than once.
    pub fn redeem(&self, job: &StdAddr, message: &RedeemReceipt) {
        let mut books = self.books.lock().unwrap();
        let facts = books.sessions.get_mut(job).unwrap();
        if facts.status.is_closed() {
            return;
        }
        message.verify(&facts.receipt_key).unwrap();
        message.verify_voucher(&facts.session_key).unwrap();
        let receipt = &message.receipt;
        assert!(receipt.sequence > facts.sequence || receipt.is_final);
        let paid = receipt.amount.min(message.voucher_amount).min(facts.deposit).max(facts.paid);
        let more = paid.get() - facts.paid.get();
        facts.paid = paid;
        facts.sequence = receipt.sequence;
        let mut back = 0;
        if receipt.is_final {
            facts.status = JobStatus::Settled;
            back = facts.deposit.get() - paid.get();
        }
        books.paid += more;
        books.back += back;
    }

    /// What sessions that are not over hold.
    pub fn held(&self) -> u64 {
        let books = self.books.lock().unwrap();
        let open = books.sessions.values().filter(|facts| !facts.status.is_closed());
        open.map(|facts| facts.deposit.get() - facts.paid.get()).sum()
    }

    /// Every worker redeems what it has, and ends what it was asked to end.
    pub async fn settle(&self) {
        let endpoints: Vec<_> = self.endpoints.lock().unwrap().values().cloned().collect();
        let policy = RedeemPolicy { at_stake: Amount::new(1), margin_s: 300 };
        for endpoint in endpoints {
            for due in endpoint.due(&policy, Amount::ZERO).await {
                self.redeem(&due.session.job, &due.message);
                let facts = self.books.lock().unwrap().sessions[&due.session.job].clone();
                self.show(&facts).await;
            }
        }
    }
}

#[async_trait]
impl Ground for Ledger {
    async fn sellers(&self) -> Result<Vec<Seller>, GroundError> {
        Ok(self.books.lock().unwrap().sellers.clone())
    }

    fn job_address(&self, nonce: u64) -> Result<StdAddr, GroundError> {
        let mut address = [0x11; 32];
        address[..8].copy_from_slice(&nonce.to_be_bytes());
        Ok(StdAddr::new(0, HashBytes(address)))
    }

    fn session_key(&self, job: &StdAddr) -> SigningKey {
        Self::key(job)
    }

    async fn opening_fees(&self, _: &Seller, _: Amount) -> Result<Amount, GroundError> {
        Ok(Amount::new(OPENING_FEES))
    }

    fn message_fee(&self) -> Amount {
        Amount::new(MESSAGE_FEE)
    }

    fn action_fees(&self) -> Amount {
        Amount::new(ACTION_FEES)
    }

    async fn open(&self, opening: &Opening<'_>) -> Result<SessionFacts, GroundError> {
        tokio::time::sleep(self.wallet_takes).await;
        let job = self.job_address(opening.nonce)?;
        let facts = {
            let mut books = self.books.lock().unwrap();
            books.openings += 1;
            books.out += opening.deposit.get() + opening.fees.get() + MESSAGE_FEE;
            books.fees += opening.fees.get() + MESSAGE_FEE;
            let facts = SessionFacts {
                id: SessionId { job: job.clone(), posted_lt: 1_000 + books.openings as u64 },
                client: StdAddr::new(0, HashBytes([4; 32])),
                worker: opening.seller.expected.worker.address,
                receipt_key: opening.seller.expected.receipt_key,
                model: opening.seller.model,
                session_key: public(&Self::key(&job)),
                prices: opening.seller.prices,
                share_bps: opening.seller.share_bps,
                settle_within_s: opening.settle_within_s,
                deposit: opening.deposit,
                paid: Amount::ZERO,
                sequence: 0,
                status: JobStatus::Session,
                until: now_s() + opening.lives_for_s,
            };
            books.sessions.insert(job, facts.clone());
            facts
        };
        self.show(&facts).await;
        // The wallet's message is taken; its answer is on the way.
        tokio::time::sleep(self.wallet_takes).await;
        Ok(facts)
    }

    async fn top_up(&self, session: &SessionId, amount: Amount) -> Result<SessionFacts, GroundError> {
        tokio::time::sleep(self.wallet_takes).await;
        let facts = {
            let mut books = self.books.lock().unwrap();
            books.top_ups += 1;
            books.out += amount.get() + ACTION_FEES + MESSAGE_FEE;
            books.fees += ACTION_FEES + MESSAGE_FEE;
            let facts = books.sessions.get_mut(&session.job).unwrap();
            facts.deposit = facts.deposit.checked_add(amount).unwrap();
            facts.clone()
        };
        self.show(&facts).await;
        tokio::time::sleep(self.wallet_takes).await;
        Ok(facts)
    }

    async fn ask_close(&self, session: &SessionId) -> Result<(), GroundError> {
        let facts = {
            let mut books = self.books.lock().unwrap();
            books.out += ACTION_FEES + MESSAGE_FEE;
            books.fees += ACTION_FEES + MESSAGE_FEE;
            books.closing.push(session.job.clone());
            let facts = books.sessions.get_mut(&session.job).unwrap();
            if facts.status == JobStatus::Session {
                facts.status = JobStatus::Closing;
                facts.until = now_s() + facts.settle_within_s;
            }
            facts.clone()
        };
        self.show(&facts).await;
        Ok(())
    }

    async fn expire(&self, _: &SessionId) -> Result<(), GroundError> {
        Ok(())
    }

    async fn report(&self, _: &StdAddr, report: &ReportEquivocation) -> Result<(), GroundError> {
        self.books.lock().unwrap().reports.push(report.clone());
        Ok(())
    }

    async fn facts(&self, job: &StdAddr) -> Result<Option<SessionFacts>, GroundError> {
        Ok(self.books.lock().unwrap().sessions.get(job).cloned())
    }

    async fn now_s(&self) -> Result<u32, GroundError> {
        Ok(now_s())
    }
}

pub fn spending(max_spend: u64, deposit: u64) -> Spending {
    Spending {
        max_spend: Amount::new(max_spend),
        deposit: Amount::new(deposit),
        max_prices: None,
        min_stake: Amount::ZERO,
        session_s: 86_400,
        settle_within_s: 3_600,
    }
}

pub fn limits() -> LinkLimits {
    LinkLimits { frame_timeout: Duration::from_secs(20), ..LinkLimits::default() }
}

/// Waits for whoever has the file to let go of it.
pub async fn store_at(path: &Path) -> Arc<Store> {
    loop {
        match Store::open(path) {
            Err(StoreError::Locked) => tokio::time::sleep(Duration::from_millis(2)).await,
            opened => return Arc::new(opened.unwrap()),
        }
    }
}

pub async fn market(
    ledger: &Arc<Ledger>,
    store: Arc<Store>,
    spending: Spending,
    limits: LinkLimits,
) -> SessionMarket {
    let parts = MarketParts { ground: ledger.clone(), store, spending, limits, counter: Arc::new(NoCounter) };
    SessionMarket::start(parts).await.unwrap()
}

pub fn chat(text: &str, most: u32) -> TextWork {
    let message = ChatMessage {
        role: "user".into(),
        content: text.into(),
        name: None,
        tool_calls: vec![],
        tool_call_id: None,
    };
    TextWork::Chat(Chat { messages: vec![message], tools: vec![], params: Params::greedy(most) })
}

/// Asks and reads to the end: what was told, and how it ended.
pub async fn ask(market: &SessionMarket, work: TextWork) -> (String, Result<Done, ApiError>) {
    let mut answer = match market.generate("double", work).await {
        Ok(answer) => answer,
        Err(error) => return (String::new(), Err(error)),
    };
    let mut text = String::new();
    while let Some(event) = answer.events.recv().await {
        match event {
            AnswerEvent::Piece(piece) => text.push_str(&piece.text),
            AnswerEvent::Done(done) => return (text, Ok(done)),
            AnswerEvent::Failed(error) => return (text, Err(error)),
        }
    }
    panic!("an answer without an end");
}
