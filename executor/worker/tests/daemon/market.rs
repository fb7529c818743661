//! A network with one model on a local chain, a worker with a small deterministic engine, and a client.

use std::net::SocketAddrV4;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chain::{
    AccountTx, ChainAccess, GlobalConfig, LiteserverChain, SenderTiming, Timing, Transfer, Wallet,
    WalletSender,
};
use client::deploy;
use contracts::artifacts::{self, Contract};
use contracts::attestor::AttestorStorage;
use contracts::job::{JobLimits, JobPaid, JobState, JobStorage, Outcome, PostJob, Seller};
use contracts::model::{RegisterModel, Unit};
use contracts::money::Amount;
use contracts::receipt::Dtype;
use contracts::registry::{PlatformPolicy, RegistryStorage};
use contracts::sealing::{
    ChatMessage, DecryptionKey, Input, InputContext, Output, ResultContext, open_result, seal_input,
};
use contracts::wire::{Snake, from_cell};
use contracts::work::{GenerateParams, Request};
use contracts::worker::{ClaimJob, WorkerState, WorkerStorage};
use contracts::{Generation, HashBytes, Message, Nanoton, Network, Params, Prices, Ref, StdAddr, Units};
use dcap_qvl::QuoteCollateralV3 as Collateral;
use engine_api::{
    AnswerStream, FinishReason, GenerateRequest, Generated, Piece, Prompt, Usage, Work, answer_channel,
};
use localnet::{BlockMode, Clock, Liteserver, LocalnetHandle, LocalnetOptions};
use tdx_simulator::{SimulatedPlatform, TdIdentity};
use tokio::runtime::Runtime;
use worker::attestation::read_quote;
use worker::{
    AttestationError, AttestationSource, CollateralSource, Engine, EngineError, EngineInfo, Identity,
    Journal, Keys, OnStep, Worker, WorkerConfig,
};

pub(crate) const TON: u128 = 1_000_000_000;
pub(crate) const MODEL: HashBytes = HashBytes([0x31; 32]);
pub(crate) const PRICES: Prices = Prices {
    input: Nanoton::new(2_000_000),
    cached_input: Nanoton::new(2_000_000),
    output: Nanoton::new(6_000_000),
};
pub(crate) const CLAIM_ABOVE: Nanoton = Nanoton::new(1_000_000);
const OWNER_SEED: [u8; 32] = [21; 32];
const CLIENT_SEED: [u8; 32] = [22; 32];

/// Answers with the last message, word by word; a token is a word's length.
pub(crate) struct Echo;

impl Engine for Echo {
    fn info(&self) -> &EngineInfo {
        static INFO: LazyLock<EngineInfo> = LazyLock::new(|| EngineInfo {
            model_id: MODEL,
            name: "echo".into(),
            engine: 1,
            dtype: Dtype::F32,
            work: Work::Text,
            context_tokens: 64,
            vocabulary: 100,
        });
        &INFO
    }

    fn admit(&self, _: u32, _: &GenerateParams) -> Result<(), EngineError> {
        Ok(())
    }

    fn tokenize(&self, prompt: &Prompt) -> Result<Vec<u32>, EngineError> {
        let Prompt::Chat { messages, .. } = prompt else { return Err(EngineError::Malformed) };
        let words = messages.iter().flat_map(|message| message.content.split_whitespace());
        Ok(words.map(|word| word.len() as u32).collect())
    }

    fn generate(&self, request: GenerateRequest) -> Result<AnswerStream, EngineError> {
        let count = request.prompt_ids.len().min(request.params.max_output_tokens as usize);
        let output_ids = request.prompt_ids[..count].to_vec();
        Ok(answered(format!("{ANSWER_CANARY} {count} words"), output_ids, FinishReason::Stop))
    }
}

/// An answer that is there at once.
pub(crate) fn answered(text: String, output_ids: Vec<u32>, finish_reason: FinishReason) -> AnswerStream {
    let (sink, stream) = answer_channel(|| {});
    sink.piece(Piece { id: output_ids.first().copied(), text: text.clone(), logprobs: None });
    let usage = Usage { output_tokens: output_ids.len() as u32, ..Usage::default() };
    sink.end(Ok(Generated { text, output_ids, logprobs: Vec::new(), finish_reason, usage }));
    stream
}

pub(crate) const ANSWER_CANARY: &str = "answer-canary-6b1f";

/// A simulated machine, the same in every process.
pub(crate) struct Quotes(SimulatedPlatform, TdIdentity);

/// One time for all quotes of a run: those of another second carry other collateral.
static STARTED_AT_S: LazyLock<u64> =
    LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());

impl Quotes {
    pub(crate) fn new() -> Self {
        Self::of_image("worker test")
    }

    pub(crate) fn of_image(name: &str) -> Self {
        Self(SimulatedPlatform::new(&[23; 32], *STARTED_AT_S).unwrap(), TdIdentity::of_image(name))
    }

    fn attestor(&self) -> AttestorStorage {
        let tdx_simulator::Names { platform_ca, processor_ca, tcb_signer, pck, .. } =
            tdx_simulator::Names::simulated();
        let names = prover::trust::Names { platform_ca, processor_ca, tcb_signer, pck };
        prover::trust::attestor_storage(self.0.root_der(), &names).unwrap()
    }
}

impl AttestationSource for Quotes {
    fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, AttestationError> {
        Ok(self.0.quote(report_data, &self.1))
    }
}

impl CollateralSource for Quotes {
    fn collateral(&self) -> Result<Collateral, AttestationError> {
        Ok(self.0.collateral().clone())
    }
}

pub(crate) struct Market {
    pub(crate) chain: Arc<LiteserverChain>,
    pub(crate) config_json: String,
    pub(crate) network: Network,
    pub(crate) client: WalletSender<LiteserverChain>,
    pub(crate) worker: StdAddr,
    pub(crate) server: Server,
    next_nonce: std::sync::atomic::AtomicU64,
}

/// What the worker's history tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) claims: usize,
    pub(crate) settled: usize,
    pub(crate) bonds_back: usize,
}

pub(crate) struct Posted {
    pub(crate) address: StdAddr,
    reply: DecryptionKey,
}

/// The chain's liteserver in a runtime of its own, so that it can go away with all its connections.
#[derive(Clone)]
pub(crate) struct Server {
    handle: LocalnetHandle,
    address: SocketAddrV4,
    running: Arc<Mutex<Option<Runtime>>>,
}

impl Server {
    /// Starts it; what stock clients load to reach it.
    fn start(handle: LocalnetHandle) -> (Self, String) {
        let (runtime, address, config_json) = serve(handle.clone(), "127.0.0.1:0".parse().unwrap());
        (Self { handle, address, running: Arc::new(Mutex::new(Some(runtime))) }, config_json)
    }

    pub(crate) fn go_away(&self) {
        if let Some(runtime) = self.running.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }

    pub(crate) fn is_away(&self) -> bool {
        self.running.lock().unwrap().is_none()
    }

    pub(crate) fn come_back(&self) {
        let runtime = serve(self.handle.clone(), self.address).0;
        *self.running.lock().unwrap() = Some(runtime);
    }
}

fn serve(handle: LocalnetHandle, at: SocketAddrV4) -> (Runtime, SocketAddrV4, String) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        let server = loop {
            // A port that was just closed may need a moment.
            match Liteserver::bind(handle.clone(), at).await {
                Ok(server) => break server,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        tell.send((server.address().unwrap(), server.global_config_json().unwrap())).unwrap();
        server.serve().await;
    });
    let (address, config_json) = told.recv().unwrap();
    (runtime, address, config_json)
}

/// What a process needs to run the worker against a market.
pub(crate) fn access(config_json: &str) -> Arc<LiteserverChain> {
    let timing = Timing { retry_for: Duration::from_secs(3), ..Timing::default() };
    Arc::new(LiteserverChain::new(&GlobalConfig::from_json(config_json).unwrap(), timing))
}

pub(crate) fn network(network_id: i32) -> (Network, RegistryStorage, Transfer) {
    let registrar = Wallet::from_seed(&[20; 32], network_id).unwrap().address().clone();
    let quotes = Quotes::new();
    let attestor = deploy::attestor(&artifacts::code(Contract::Attestor), &quotes.attestor()).unwrap();
    let params = Params {
        treasury: registrar.clone(),
        royalty_cap_bps: 1_000,
        min_stake: Nanoton::new(1_000_000_000),
        unbonding_s: 3_600,
        attestor: attestor.to.clone(),
        attestation_ttl_s: 86_400,
    };
    let generation = Generation {
        network_id,
        fee_bps: 100,
        bond_bps: 1_000,
        min_bond: Nanoton::new(10_000_000),
        job_code: artifacts::library(Contract::Job),
        codes: Ref::new(artifacts::codes()).unwrap(),
        params: Ref::new(params).unwrap(),
    };
    let measurement = read_quote(&quotes.quote(&[0; 64]).unwrap()).unwrap().measurement;
    let policy = PlatformPolicy::initial(0);
    let platform_code = artifacts::library(Contract::Platform);
    let storage =
        RegistryStorage::initial(registrar, 1, 60, generation, &[measurement], policy, platform_code)
            .unwrap();
    let registry = storage.address(&artifacts::code(Contract::Registry)).unwrap();
    (storage.network(registry), storage, attestor)
}

pub(crate) fn sender(
    chain: &Arc<LiteserverChain>,
    seed: [u8; 32],
    network_id: i32,
) -> WalletSender<LiteserverChain> {
    let wallet = Wallet::from_seed(&seed, network_id).unwrap();
    WalletSender::new(wallet, chain.clone(), SenderTiming::default())
}

/// The worker as its operator would start it.
pub(crate) fn start_worker(
    chain: Arc<LiteserverChain>,
    network_id: i32,
    data_dir: &Path,
    on_step: Option<OnStep>,
) -> Worker<LiteserverChain> {
    let (network, _, _) = network(network_id);
    let owner = sender(&chain, OWNER_SEED, network_id);
    let address = owner.wallet().address().clone();
    let identity = Identity::new(network.worker_address(&address).unwrap(), network_id);
    let config = WorkerConfig {
        resend_every_s: 2,
        drain_s: 20,
        max_jobs: 2,
        claim_above_nanoton: CLAIM_ABOVE,
        ..WorkerConfig::at_prices(PRICES)
    };
    let quotes = Arc::new(Quotes::new());
    Worker {
        chain,
        network,
        worker_code: artifacts::code(Contract::Worker),
        owner: address,
        keys: Arc::new(Keys::load_or_create(&data_dir.join("keys"), &mut rand::rng()).unwrap()),
        engine: Arc::new(Echo),
        attestation: quotes.clone(),
        collateral: quotes,
        wallet: Some(Arc::new(owner)),
        journal: Journal::open(&data_dir.join("journal.redb"), &identity).unwrap(),
        config,
        on_step,
        on_text: None,
    }
}

impl Drop for Market {
    fn drop(&mut self) {
        self.server.go_away();
    }
}

impl Market {
    pub(crate) async fn open() -> Self {
        Self::open_at(LocalnetOptions::default(), Clock::System).await
    }

    /// On a chain whose time stands still until it is told to go on, and begins now.
    pub(crate) async fn open_in_still_time() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let genesis_utime_s = u32::try_from(since.as_secs()).unwrap();
        Self::open_at(LocalnetOptions { genesis_utime_s, ..LocalnetOptions::default() }, Clock::Virtual).await
    }

    async fn open_at(options: LocalnetOptions, clock: Clock) -> Self {
        let network_id = options.global_id;
        let mode = BlockMode::Interval(Duration::from_millis(60));
        let handle = LocalnetHandle::new(options, mode, clock).unwrap();
        handle.advance().unwrap();
        let (server, config_json) = Server::start(handle.clone());
        let runner = handle.clone();
        tokio::spawn(async move { runner.run().await });
        let chain = access(&config_json);
        let registrar = sender(&chain, [20; 32], network_id);
        let client = sender(&chain, CLIENT_SEED, network_id);
        let owner = sender(&chain, OWNER_SEED, network_id).wallet().address().clone();
        for address in [registrar.wallet().address(), client.wallet().address(), &owner] {
            handle.give(address, 1_000 * TON).unwrap();
        }
        let newest = handle.newest().seqno;
        chain.wait_block(newest + 3, Duration::from_secs(10)).await.unwrap();
        let (network, storage, attestor) = network(network_id);
        let registry = deploy::registry(&artifacts::code(Contract::Registry), &storage).unwrap();
        let metadata = Ref::new(Snake::new(b"{}".to_vec()).unwrap()).unwrap();
        let register =
            RegisterModel { query_id: 0, royalty_bps: 500, unit: Unit::Token, files_root: None, metadata };
        let model = network.model_address(&MODEL).unwrap();
        let init = network.model_state_init(&artifacts::code(Contract::Model), &MODEL).unwrap();
        let model = Transfer::new(model, TON, register.to_cell().unwrap()).with_state_init(init);
        let librarian = deploy::librarian(&artifacts::libraries()).unwrap();
        registrar.send(&[librarian, attestor, registry, model]).await.unwrap();
        let worker = network.worker_address(&owner).unwrap();
        Self { chain, config_json, network, client, worker, server, next_nonce: 1.into() }
    }

    /// Moves the chain's time on, where it stands still; done when a block has the new time.
    pub(crate) async fn skip_time(&self, seconds: u32) {
        self.server.handle.skip_time(seconds);
        let now_s = self.server.handle.now_s();
        let mut head = self.chain.head().await.unwrap();
        while head.time_s < now_s {
            head = self.chain.wait_block(head.seqno + 1, Duration::from_secs(10)).await.unwrap();
        }
    }

    /// The worker's owner, with its wallet.
    pub(crate) fn owner(&self) -> WalletSender<LiteserverChain> {
        sender(&self.chain, OWNER_SEED, self.network_id())
    }

    pub(crate) fn network_id(&self) -> i32 {
        self.network.id()
    }

    pub(crate) async fn worker_state(&self) -> Option<WorkerState> {
        let head = self.chain.head().await.unwrap();
        let view = self.chain.account(&self.worker, &head).await.unwrap();
        let storage: WorkerStorage = from_cell(view.data()?).unwrap();
        storage.state
    }

    /// Waits until the worker's contract is attested and offers the model.
    pub(crate) async fn wait_ready(&self) -> WorkerState {
        for _ in 0..600 {
            if let Some(state) = self.worker_state().await
                && state.attestation.is_some()
                && !state.offers.is_empty()
            {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the worker did not register");
    }

    /// Posts a job with this prompt for the attested worker, sealed to `encryption_key`. It is claimed if it is `large`,
    /// and answered as it is otherwise.
    pub(crate) async fn post_of(&self, prompt: &str, encryption_key: &HashBytes, large: bool) -> Posted {
        self.post_with(prompt, encryption_key, large, |_| {}).await
    }

    /// As [`Self::post_of`], after `change` of what the client names as the seller.
    pub(crate) async fn post_with(
        &self,
        prompt: &str,
        encryption_key: &HashBytes,
        large: bool,
        change: impl FnOnce(&mut Seller),
    ) -> Posted {
        let nonce = self.next_nonce.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let client = self.client.wallet().address();
        let address = self.network.job_address(client, nonce).unwrap();
        let head = self.chain.head().await.unwrap();
        let state = self.worker_state().await.unwrap();
        let offer = state.offers.get(MODEL).unwrap().unwrap();
        let deposit = if large { CLAIM_ABOVE } else { Nanoton::new(500_000) };
        let amount = |amount: Nanoton| Amount::try_from(amount).unwrap();
        let generation = &self.network.generation;
        let limits = JobLimits {
            max_units: Units { input: 40, cached_input: 0, output: 40 },
            least_bond: amount(generation.bond_for(deposit)),
        };
        let mut seller = Seller {
            worker: self.worker.address,
            receipt_key: state.attestation.unwrap().receipt_key,
            model: offer.model,
            settle_within_s: 300,
            share_bps: generation.share_bps(offer.royalty_bps),
            prices: offer.prices,
        };
        change(&mut seller);
        let until = head.time_s + 300;
        let context =
            InputContext { network_id: self.network_id(), job: address.clone(), model_id: MODEL, until };
        let reply = DecryptionKey::generate(&mut rand::rng());
        let messages = vec![ChatMessage::new("user", prompt)];
        let input = Input::new(reply.public(), Request::chat(messages, GenerateParams::greedy(30)));
        let sealed = seal_input(&input, encryption_key, &context, &mut rand::rng()).unwrap();
        let post = PostJob::new(nonce, until, amount(deposit), limits, seller, &sealed).unwrap();
        let init = self.network.job_state_init(client, nonce).unwrap();
        let transfer = Transfer::new(address.clone(), TON, post.to_cell().unwrap()).with_state_init(init);
        self.client.send(&[transfer]).await.unwrap();
        Posted { address, reply }
    }

    /// A job that is answered as it is.
    pub(crate) async fn post(&self, prompt: &str, encryption_key: &HashBytes) -> Posted {
        self.post_of(prompt, encryption_key, false).await
    }

    pub(crate) async fn job(&self, address: &StdAddr) -> Option<JobState> {
        let head = self.chain.head().await.unwrap();
        let view = self.chain.account(address, &head).await.unwrap();
        let storage: JobStorage = from_cell(view.data()?).unwrap();
        storage.state
    }

    /// How often the worker's contract claimed a job, was paid for one, and got a bond back with a rejection.
    pub(crate) async fn record(&self) -> Record {
        let mut record = Record::default();
        for transaction in self.transactions(&self.worker).await {
            let Some(message) = transaction.in_message().unwrap() else { continue };
            if !transaction.result().unwrap().succeeded {
                continue;
            }
            record.claims += usize::from(ClaimJob::from_cell(&message.body).is_ok());
            match JobPaid::from_cell(&message.body).ok().and_then(|paid| Outcome::from_wire(paid.outcome)) {
                Some(Outcome::Settled) => record.settled += 1,
                Some(Outcome::Rejected) => record.bonds_back += 1,
                _ => {}
            }
        }
        record
    }

    /// Waits for the job's end.
    pub(crate) async fn wait_end(&self, address: &StdAddr) -> JobState {
        for _ in 0..600 {
            if let Some(state) = self.job(address).await
                && state.status.is_closed()
            {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the job did not end: {:?}", self.job(address).await.map(|state| state.status));
    }

    pub(crate) async fn transactions(&self, address: &StdAddr) -> Vec<AccountTx> {
        let head = self.chain.head().await.unwrap();
        let newest = self.chain.account(address, &head).await.unwrap().last.unwrap();
        self.chain.transactions(address, newest, None, 10_000).await.unwrap()
    }

    pub(crate) fn open_answer(
        &self,
        job: &Posted,
        state: &JobState,
        sealed: &contracts::sealing::Sealed,
    ) -> Output {
        let context = ResultContext {
            network_id: self.network_id(),
            job: job.address.clone(),
            posted_lt: state.posting.posted_lt,
        };
        open_result(sealed, &job.reply, &context).unwrap()
    }
}
