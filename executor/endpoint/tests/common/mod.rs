//! A worker with an engine that is a test double, and a client of its endpoint.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use contracts::job::JobStatus;
use contracts::money::Amount;
use contracts::receipt::Dtype;
use contracts::work::GenerateParams;
use contracts::{HashBytes, Nanoton, Prices, SigningKey, StdAddr};
use endpoint::{
    Endpoint, EndpointConfig, EndpointParts, RedbStore, StoreError, StoreIdentity, StoredSession, serve,
};
use engine_api::{
    AnswerStream, EmbedRequest, Embedded, Engine, EngineError, EngineInfo, FinishReason, GenerateRequest,
    Generated, Piece, Prompt, TokenLogprobs, Usage, Work as EngineWork, answer_channel,
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use ra_tls::certificate::Validity;
use ra_tls::evidence::{Binding, ExpectedWorker};
use ra_tls::{Acceptor, ClientAuth, Connector, Identity, ServerLimits, SystemClock};
use session::message::{Done, Frame, StartRequest};
use session::work::{Chat, ChatMessage, Completion, Params, Work};
use session::{Offered, RequestId, SessionFacts, SessionId, SessionJournal, SignedVoucher, UnitBound};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const CONTEXT: u32 = 1 << 20;
pub const MODEL_ID: HashBytes = HashBytes([0xab; 32]);
pub const LONG: Duration = Duration::from_secs(60);

/// A test double: it counts words and answers with numbered ones. Words of the prompt say how.
///
/// `slow`: 10 ms a token. `stuck`: no token after the third until it is cancelled. `fails`: an error after the third.
/// `vanishes`: gone after the third. `panics`: while tokenising.
pub struct Double {
    info: EngineInfo,
    /// Answers that were begun.
    pub begun: AtomicUsize,
}

impl Double {
    pub fn text() -> Arc<Self> {
        Self::of(EngineWork::Text)
    }

    pub fn embeddings() -> Arc<Self> {
        Self::of(EngineWork::Embeddings { dimensions: 3 })
    }

    fn of(work: EngineWork) -> Arc<Self> {
        let info = EngineInfo {
            model_id: MODEL_ID,
            name: "double".into(),
            engine: 2,
            dtype: Dtype::Q4_1,
            work,
            context_tokens: CONTEXT,
            vocabulary: 1_000,
        };
        Arc::new(Self { info, begun: AtomicUsize::new(0) })
    }
}

pub fn word_ids(text: &str) -> Vec<u32> {
    text.split_whitespace().map(|word| word.len() as u32).collect()
}

pub fn word(number: u32) -> String {
    format!("answer-{number} ")
}

impl Engine for Double {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn admit(&self, prompt_tokens: u32, params: &GenerateParams) -> Result<(), EngineError> {
        match prompt_tokens.saturating_add(params.max_output_tokens) <= CONTEXT {
            true if params.sampling.temperature > 100.0 => Err(EngineError::Parameter("temperature")),
            true => Ok(()),
            false => Err(EngineError::TooLong { given: prompt_tokens, most: CONTEXT }),
        }
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        let text = match prompt {
            Prompt::Chat { messages, .. } => {
                messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join(" ")
            }
            Prompt::Text(text) => text.clone(),
        };
        assert!(!text.contains("panics"), "as asked");
        let mut ids = word_ids(&text);
        // How to answer travels in the tokens.
        for (mode, name) in MODES {
            if text.contains(name) {
                ids.push(mode);
            }
        }
        Ok(ids)
    }

    fn token_text(&self, id: u32) -> String {
        word(id)
    }

    fn generate(&self, request: GenerateRequest) -> Result<AnswerStream, EngineError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let cancelled = Arc::new(AtomicBool::new(false));
        let flag = cancelled.clone();
        let (sink, stream) = answer_channel(move || flag.store(true, Ordering::SeqCst));
        let ids = request.prompt_ids.clone();
        let (most, want) = (request.params.max_output_tokens, request.params.top_logprobs.is_some());
        let has = move |name: &str| MODES.iter().any(|(mode, of)| *of == name && ids.contains(mode));
        let prompt_tokens = request.prompt_ids.len() as u32;
        std::thread::spawn(move || {
            let mut text = String::new();
            let mut output_ids = Vec::new();
            let mut finish_reason = FinishReason::Length;
            for number in 0..most {
                if number == 3 {
                    if has("fails") {
                        return sink.end(Err(EngineError::Failed));
                    }
                    if has("vanishes") {
                        return;
                    }
                    while has("stuck") && !cancelled.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                }
                if cancelled.load(Ordering::SeqCst) {
                    finish_reason = FinishReason::Cancelled;
                    break;
                }
                if has("slow") {
                    std::thread::sleep(Duration::from_millis(10));
                }
                let id = number % 1_000;
                output_ids.push(id);
                text.push_str(&word(id));
                let logprobs =
                    want.then(|| TokenLogprobs { logprob: -0.5, top: vec![(id, -0.5), (7, -1.5)] });
                sink.piece(Piece { id: Some(id), text: word(id), logprobs });
            }
            let usage = Usage {
                prompt_tokens,
                cached_prompt_tokens: prompt_tokens / 2,
                output_tokens: output_ids.len() as u32,
                ..Usage::default()
            };
            sink.end(Ok(Generated { text, output_ids, logprobs: Vec::new(), finish_reason, usage }));
        });
        Ok(stream)
    }

    fn tokenize_texts(&self, texts: &[String]) -> Result<Vec<Vec<u32>>, EngineError> {
        Ok(texts.iter().map(|text| word_ids(text)).collect())
    }

    fn embed(&self, request: &EmbedRequest) -> Result<Embedded, EngineError> {
        let vector = |ids: &Vec<u32>| vec![ids.len() as f32, 0.1, -1.0 / 3.0];
        Ok(Embedded {
            vectors: request.ids.iter().map(vector).collect(),
            input_tokens: request.ids.iter().map(|ids| ids.len() as u32).sum(),
        })
    }
}

const MODES: [(u32, &str); 4] = [(901, "slow"), (902, "stuck"), (903, "fails"), (904, "vanishes")];

pub fn receipt_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub fn session_key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

pub fn now_s() -> u32 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as u32
}

pub fn worker_address() -> StdAddr {
    StdAddr::new(0, HashBytes([5; 32]))
}

pub fn facts(key: &SigningKey, deposit: u64) -> SessionFacts {
    let price = |price| Nanoton::new(price);
    SessionFacts {
        id: SessionId { job: StdAddr::new(0, HashBytes(key.verifying_key().to_bytes())), posted_lt: 1_000 },
        client: StdAddr::new(0, HashBytes([4; 32])),
        worker: worker_address().address,
        receipt_key: HashBytes(receipt_key().verifying_key().to_bytes()),
        model: HashBytes([6; 32]),
        session_key: HashBytes(key.verifying_key().to_bytes()),
        prices: Prices { input: price(1_000), cached_input: price(500), output: price(2_000) },
        share_bps: 500,
        settle_within_s: 3_600,
        deposit: Amount::new(deposit),
        paid: Amount::ZERO,
        sequence: 0,
        status: JobStatus::Session,
        until: now_s() + 86_400,
    }
}

pub fn offered(facts: &SessionFacts) -> Offered {
    Offered {
        worker: facts.worker,
        receipt_key: facts.receipt_key,
        model: facts.model,
        prices: facts.prices,
        share_bps: facts.share_bps,
        min_deposit: Nanoton::ZERO,
        min_settle_s: 300,
    }
}

/// Waits for whoever has the file to let go of it.
pub fn store_at(path: &Path) -> (RedbStore, Vec<StoredSession>) {
    loop {
        match RedbStore::open(path, &StoreIdentity::new(worker_address(), -239), 10) {
            Err(StoreError::InUse { .. }) => std::thread::sleep(Duration::from_millis(5)),
            opened => return opened.unwrap(),
        }
    }
}

pub struct Running {
    pub endpoint: Endpoint,
    pub acceptor: Acceptor,
    pub address: SocketAddr,
    pub engine: Arc<Double>,
    pub directory: Arc<TempDir>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

pub struct Setup {
    pub config: EndpointConfig,
    pub limits: ServerLimits,
    pub engine: Arc<Double>,
    pub directory: Arc<TempDir>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            config: EndpointConfig::default(),
            limits: ServerLimits::default(),
            engine: Double::text(),
            directory: Arc::new(tempfile::tempdir().unwrap()),
        }
    }
}

impl Setup {
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("sessions.redb")
    }

    pub async fn run(self) -> Running {
        let (store, stored) = store_at(&self.file());
        let since_lt = store.since_lt();
        self.run_on(Arc::new(store), stored, since_lt).await
    }

    pub async fn run_on(
        self,
        store: Arc<dyn SessionJournal<Error = StoreError> + Send + Sync>,
        stored: Vec<StoredSession>,
        since_lt: u64,
    ) -> Running {
        let endpoint = Endpoint::new(EndpointParts {
            engine: self.engine.clone(),
            receipt_key: receipt_key(),
            store,
            stored,
            since_lt,
            clock: Arc::new(now_s),
            config: self.config,
        })
        .unwrap();
        let binding = Binding {
            network_id: -239,
            worker: worker_address(),
            registration_seqno: 7,
            validity: Validity::starting(u64::from(now_s())),
        };
        let identity = Identity::worker(&binding, &receipt_key(), &mut rand::rng()).unwrap();
        let acceptor =
            Acceptor::new(&identity, ClientAuth::Required, self.limits, Arc::new(SystemClock)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (served, accepted) = (endpoint.clone(), acceptor.clone());
        let server = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            serve(served, listener, accepted, stopped, Duration::from_millis(200)).await;
        });
        Running {
            endpoint,
            acceptor,
            address,
            engine: self.engine,
            directory: self.directory,
            stop: Some(stop),
            server,
        }
    }
}

impl Running {
    pub async fn new() -> Self {
        Setup::default().run().await
    }

    /// Opens a session of this key on the (absent) chain.
    pub async fn session(&self, key: &SigningKey, deposit: u64) -> Client {
        let facts = facts(key, deposit);
        self.endpoint.observe(&offered(&facts), facts.clone()).await.unwrap();
        self.client(key, facts)
    }

    pub fn client(&self, key: &SigningKey, facts: SessionFacts) -> Client {
        let expected = ExpectedWorker {
            network_id: -239,
            worker: worker_address(),
            registration_seqno: 7,
            receipt_key: HashBytes(receipt_key().verifying_key().to_bytes()),
            attested_until_s: u64::from(now_s()) + 100_000,
        };
        let identity = Identity::session(key.clone()).unwrap();
        let connector = Connector::new(expected, Some(&identity), LONG, Arc::new(SystemClock)).unwrap();
        Client { connector, address: self.address, key: key.clone(), facts }
    }

    /// As a process ends: what is in memory is gone. Returns where the file is.
    pub async fn end(mut self) -> Arc<TempDir> {
        drop(self.stop.take());
        self.server.await.unwrap();
        drop(self.endpoint);
        self.directory
    }
}

pub struct Client {
    pub connector: Connector,
    pub address: SocketAddr,
    pub key: SigningKey,
    pub facts: SessionFacts,
}

impl Client {
    pub async fn connect(&self) -> Wire {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let tls = self.connector.connect(tcp).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
        let task = tokio::spawn(async move {
            let _ = connection.await;
        });
        Wire { sender, task }
    }

    pub fn voucher(&self, amount: u64) -> SignedVoucher {
        SignedVoucher::sign(&self.facts.id, Amount::new(amount), &self.key)
    }

    pub fn ask(&self, request: RequestId, voucher: u64, work: Work) -> StartRequest {
        StartRequest {
            session: self.facts.id.clone(),
            request,
            voucher: self.voucher(voucher),
            seen_sequence: 0,
            bound: UnitBound { input: 100, output: 50 },
            work,
        }
    }

    pub fn request_path(&self, request: RequestId, from: usize) -> String {
        format!("/v1/requests/{request}?session={}&from={from}", self.facts.id)
    }

    pub fn session_path(&self) -> String {
        format!("/v1/sessions/{}", self.facts.id)
    }
}

/// One connection.
pub struct Wire {
    pub sender: SendRequest<Full<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        self.sender.ready().await?;
        let request =
            Request::builder().method(method).uri(path).header("host", "worker").body(Full::from(body));
        self.sender.send_request(request.unwrap()).await
    }

    pub async fn post(&mut self, ask: &StartRequest) -> Response<Incoming> {
        self.send(Method::POST, "/v1/requests", serde_json::to_vec(ask).unwrap()).await.unwrap()
    }

    pub async fn ask(&mut self, ask: &StartRequest) -> (StatusCode, Vec<Frame>) {
        frames(self.post(ask).await).await
    }

    pub async fn get(&mut self, path: &str) -> Response<Incoming> {
        self.send(Method::GET, path, Vec::new()).await.unwrap()
    }
}

pub async fn frames(response: Response<Incoming>) -> (StatusCode, Vec<Frame>) {
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, parse(&bytes))
}

pub fn parse(bytes: &[u8]) -> Vec<Frame> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

pub fn chat(text: &str, most: u32) -> Work {
    let message = ChatMessage {
        role: "user".into(),
        content: text.into(),
        name: None,
        tool_calls: vec![],
        tool_call_id: None,
    };
    Work::Chat(Chat { messages: vec![message], tools: vec![], params: Params::greedy(most) })
}

pub fn completion(text: &str, most: u32) -> Work {
    Work::Completion(Completion { prompt: text.into(), params: Params::greedy(most) })
}

pub fn request(number: u8) -> RequestId {
    RequestId([number; 16])
}

pub fn done_of(frames: &[Frame]) -> &Done {
    match frames.last() {
        Some(Frame::Done(done)) => done,
        other => panic!("no end: {other:?}"),
    }
}

pub fn refusal_of(frames: &[Frame]) -> session::Reason {
    match frames.last() {
        Some(Frame::Refused(refused)) => refused.reason,
        other => panic!("no refusal: {other:?}"),
    }
}

pub fn tokens_of(frames: &[Frame]) -> Vec<u32> {
    let tokens = frames.iter().map(|frame| match frame {
        Frame::Piece(piece) => piece.tokens.clone(),
        _ => vec![],
    });
    tokens.collect::<Vec<_>>().concat()
}
