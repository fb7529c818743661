//! The client against the real contracts on the local chain. The worker's side is played by hand: quotes from
//! the TDX simulator, claims and receipts signed with the attested key, no model.
#![allow(clippy::unwrap_used, clippy::type_complexity)]

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use chain::{
    ChainAccess, GlobalConfig, LiteserverChain, SenderTiming, Timing, Transfer, Wallet, WalletSender,
    external_message,
};
use client::{
    Client, ClientError, JobRequest, JobStep, Outcome, QuoteJudge, Registration, SealedJob, Unfit,
    WorkerEvidence, collect_job, deploy, posted_jobs, read_story,
};
use contracts::artifacts::{Contract, code, code_ref, codes, libraries, library};
use contracts::attestor::{AttestorStorage, QuoteProof};
use contracts::errors::RejectionReason;
use contracts::job::{JobStatus, PostReceipt, PostRejection};
use contracts::measurement::KeyBinding;
use contracts::model::Unit;
use contracts::money::Amount;
use contracts::receipt::{
    ClaimOrder, Dtype, Receipt, ReceiptContent, Rejection, generate_signing_key, public_key,
};
use contracts::registry::{PlatformPolicy, RegistrationRequest, RegistryStorage};
use contracts::sealing::{
    ChatMessage, DecryptionKey, FinishReason, InputContext, Output, ResultContext, open_input, seal_result,
};
use contracts::transcript::transcript;
use contracts::worker::ClaimJob;
use contracts::{
    Cell, CodeRef, Generation, HashBytes, Message, Nanoton, Network, Params, Prices, Ref, SigningKey,
    StdAddr, Units,
};
use localnet::{BlockMode, Clock, Liteserver, LocalnetHandle, LocalnetOptions};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tdx_simulator::{Faults, SimulatedPlatform, TdIdentity};
use tokio::runtime::Runtime;
use verifier::{
    AttestorAccount, AttestorTrust, Audit, Conclusion, JobHistory, QuotePolicy, RegistrationTrace,
    RegistryAccount, TrustedRoot, WorkerRegistration, audit, verify_attestor, verify_registration,
};

const TON: u128 = 1_000_000_000;
const FUNDS: u128 = 1_000 * TON;
const MODEL: HashBytes = HashBytes([4; 32]);
const PROMPT: &str = "What is a chrysalis?";
const PRICES: Prices = Prices {
    input: Nanoton::new(20_000_000),
    cached_input: Nanoton::new(10_000_000),
    output: Nanoton::new(40_000_000),
};

const MIN_DEPOSIT: Nanoton = Nanoton::new(1_000);

type Sender = WalletSender<LiteserverChain>;
type Lie = fn(KeyBinding) -> KeyBinding;
type Spoil = fn(&mut QuoteProof);
type Change = fn(&mut JobRequest);

/// A network with a model and one worker that offers it.
struct World {
    handle: LocalnetHandle,
    /// Runs the liteserver, so that it can be killed with all its connections.
    server: Option<Runtime>,
    server_at: SocketAddrV4,
    chain: Arc<LiteserverChain>,
    network: Network,
    owner: Sender,
    worker: Worker,
    platform: SimulatedPlatform,
    /// What becomes of a quote's proof before it is sent.
    spoil: Spoil,
    /// What the last registration cost its owner, from the wallet's external message to the last excess, nanoTON.
    registration_cost: u128,
    rng: StdRng,
}

struct Worker {
    address: StdAddr,
    receipt_key: SigningKey,
    decryption_key: DecryptionKey,
}

impl World {
    async fn new() -> Self {
        Self::with(Faults::default(), |binding| binding).await
    }

    /// `lie` changes what the quote binds before it is made.
    async fn with(faults: Faults, lie: Lie) -> Self {
        let options = LocalnetOptions::default();
        let (network_id, genesis_s) = (options.global_id, options.genesis_utime_s);
        let handle =
            LocalnetHandle::new(options, BlockMode::Interval(Duration::from_millis(20)), Clock::Virtual)
                .unwrap();
        handle.advance().unwrap();
        let blocks = handle.clone();
        tokio::spawn(async move { blocks.run().await });
        let (server, config) = serve(&handle, "127.0.0.1:0".parse().unwrap());
        let timing = Timing { retry_for: Duration::from_secs(1), ..Timing::default() };
        let chain = Arc::new(LiteserverChain::new(&config, timing));

        let mut rng = StdRng::seed_from_u64(1);
        let owner = funded(&handle, &chain, network_id, 1).await;
        let treasury = StdAddr::new(0, HashBytes([9; 32]));
        let measurement = measurement_of(&identity());
        let platform = SimulatedPlatform::with_faults(&[3; 32], u64::from(genesis_s), faults).unwrap();
        let attestor = deploy::attestor(&code(Contract::Attestor), &attestor_of(&platform)).unwrap();
        let params = Params {
            treasury,
            royalty_cap_bps: 2_000,
            min_stake: Nanoton::new(5_000_000_000),
            unbonding_s: 86_400,
            attestor: attestor.to.clone(),
            attestation_ttl_s: 40_000,
        };
        let generation = Generation {
            network_id,
            fee_bps: 100,
            bond_bps: 10_000,
            min_bond: Nanoton::new(100_000_000),
            job_code: library(Contract::Job),
            codes: Ref::new(codes()).unwrap(),
            params: Ref::new(params).unwrap(),
        };
        let owned_by = owner.wallet().address().clone();
        let registry = RegistryStorage::initial(
            owned_by.clone(),
            0,
            0,
            generation,
            &[measurement],
            PlatformPolicy::initial(0),
            library(Contract::Platform),
        )
        .unwrap();
        let registry_code = code(Contract::Registry);
        let network = registry.network(registry.address(&registry_code).unwrap());
        let librarian = deploy::librarian(&libraries()).unwrap();
        owner
            .send(&[librarian, attestor, deploy::registry(&registry_code, &registry).unwrap()])
            .await
            .unwrap();
        let model =
            deploy::register_model(&network, &code(Contract::Model), &MODEL, 500, Unit::Token, "{}").unwrap();
        let stake =
            deploy::top_up_stake(&network, &code(Contract::Worker), &owned_by, Nanoton::new(6_000_000_000));
        let funds = deploy::fund_gas(&network, &owned_by, Nanoton::new(2_000_000_000));
        owner.send(&[model, stake.unwrap(), funds.unwrap()]).await.unwrap();

        let worker = Worker {
            address: network.worker_address(&owned_by).unwrap(),
            receipt_key: generate_signing_key(&mut rng),
            decryption_key: DecryptionKey::generate(&mut rng),
        };
        let mut world = Self {
            handle,
            server: Some(server),
            server_at: config.liteservers[0].address,
            chain,
            network,
            owner,
            worker,
            platform,
            spoil: |_| {},
            registration_cost: 0,
            rng,
        };
        world.register(lie).await;
        world
    }

    async fn register(&mut self, lie: Lie) {
        let head = self.chain.head().await.unwrap();
        let block = self.chain.block(head.seqno / 100 * 100).await.unwrap();
        let owner = self.owner.wallet().address();
        let worker =
            client::read_worker(&*self.chain, &self.network, &self.worker.address, &head).await.unwrap();
        let request = RegistrationRequest {
            receipt_key: public_key(&self.worker.receipt_key),
            encryption_key: self.worker.decryption_key.public(),
            registration_seqno: worker.state.registration_seqno,
            mc_seqno: block.seqno,
            mc_root_hash: block.root_hash,
        };
        let binding = KeyBinding {
            network_id: self.network.id(),
            worker: self.worker.address.clone(),
            receipt_key: request.receipt_key,
            encryption_key: request.encryption_key,
            registration_seqno: request.registration_seqno,
            mc_seqno: request.mc_seqno,
            mc_root_hash: request.mc_root_hash,
        };
        let quote = self.platform.quote(&lie(binding).report_data(), &identity());
        let mut proof = prover::quote::prove(&quote, None).unwrap();
        (self.spoil)(&mut proof);
        let held = client::read_attestor(&*self.chain, &self.network, &head).await.unwrap().storage;
        let postings = prover::collateral::postings(self.platform.collateral(), &held, 0).unwrap();
        let mut transfers: Vec<Transfer> =
            postings.iter().map(|posting| deploy::post_collateral(&self.network, posting).unwrap()).collect();
        transfers.push(deploy::offer_model(&self.network, owner, MODEL, MIN_DEPOSIT, PRICES).unwrap());
        self.owner.send(&transfers).await.unwrap();
        self.quiet().await;
        let before = self.handle.balance(owner).unwrap();
        self.owner.send(&[deploy::register(&self.network, proof, &request).unwrap()]).await.unwrap();
        self.quiet().await;
        self.registration_cost = before - self.handle.balance(owner).unwrap();
    }

    async fn client(&self, seed: u8) -> Client<LiteserverChain> {
        let sender = funded(&self.handle, &self.chain, self.network.id(), seed).await;
        let registry_code = CodeRef::of(&code(Contract::Registry));
        Client::new(sender, self.network.clone(), registry_code)
    }

    fn judge(&self) -> Judge<'_> {
        let root = self.platform.root_der().to_vec();
        let policy = QuotePolicy::dangerous_simulated(root, vec![measurement_of(&identity())]);
        let attestor = AttestorTrust {
            code: code_ref(Contract::Attestor).hash,
            root_der: self.platform.root_der().to_vec(),
        };
        Judge { platform: &self.platform, policy, attestor }
    }

    fn request(&self) -> JobRequest {
        JobRequest {
            worker: self.worker.address.clone(),
            model_id: MODEL,
            messages: vec![ChatMessage::new("user", PROMPT)],
            max_output_tokens: 100,
            measurement: HashBytes::ZERO,
            max_prices: PRICES,
            max_units: Units { input: 500, cached_input: 0, output: 100 },
            deposit: None,
            open_for_s: 60,
            settle_within_s: 600,
        }
    }

    /// The audit of a job as the chain has it now.
    async fn audit(&self, job: &StdAddr) -> Audit {
        let found = collect_job(&*self.chain, &self.network, job).await.unwrap();
        let registration = found.registration.map(|registration| WorkerRegistration {
            trace: trace_of(&registration),
            mc_root_hash: found.attested_block.map(|block| block.root_hash),
        });
        let history = JobHistory {
            network: self.network.clone(),
            registry_code: *code(Contract::Registry).repr_hash(),
            registry: Some(RegistryAccount {
                code: found.registry.code().unwrap().clone(),
                data: found.registry.data().unwrap().clone(),
                as_of_s: found.as_of.time_s,
            }),
            attestor_trust: self.judge().attestor,
            attestor: found.attestor.map(|view| AttestorAccount { code: view.code, data: view.data }),
            job: job.clone(),
            transactions: found.transactions.iter().map(|transaction| transaction.cell.clone()).collect(),
            balance_nanoton: found.account.balance_nanoton(),
            state: Some(found.state),
            registration,
            model: found.model.as_ref().and_then(|view| view.data().cloned()),
            offer: found.offer.map(|transaction| transaction.cell),
        };
        let policy = self.judge().policy;
        audit(&history, self.platform.collateral(), &policy, u64::from(found.as_of.time_s))
    }

    /// The audit holds, for a job that ended like this, and accounts for every nanoTON.
    async fn audited(&self, job: &StdAddr, status: JobStatus) {
        self.quiet().await;
        let found = self.audit(job).await;
        assert_eq!(found.status, Some(status));
        assert_eq!(found.conclusion(), Conclusion::Holds, "{status:?}: {:?}", found.verdict.failures());
        assert_eq!(found.ledger.unwrap().unaccounted_nanoton(), 0);
    }

    /// The job is not over, and nothing else is wrong with it.
    async fn unfinished(&self, job: &StdAddr, status: JobStatus) {
        let found = self.audit(job).await;
        assert_eq!(found.status, Some(status));
        assert_eq!(found.conclusion(), Conclusion::Unfinished, "{status:?}: {:?}", found.verdict.failures());
    }

    async fn sealed(&mut self, client: &Client<LiteserverChain>, nonce: u64) -> SealedJob {
        let judge = self.judge();
        let trusted = client.check_worker(&self.worker.address, &judge).await.unwrap();
        client.seal(&self.request(), &trusted, nonce, &mut self.rng).await.unwrap()
    }

    /// The worker claims the job.
    async fn claim(&self, client: &StdAddr, nonce: u64, seqno: u32, deposit: Amount) {
        let bond = self.network.generation.bond_for(deposit.nanoton());
        let order = ClaimOrder {
            tag: Default::default(),
            worker: self.worker.address.address,
            seqno,
            valid_until: u32::MAX,
            job_client: client.clone(),
            job_nonce: nonce,
            model_id: MODEL,
            bond: Amount::try_from(bond).unwrap(),
            is_bid: false,
            names_measurement: false,
        };
        let claim = ClaimJob::signed(order, &self.worker.receipt_key).unwrap().to_cell().unwrap();
        self.external(&self.worker.address, &claim).await;
        self.quiet().await;
    }

    /// The worker opens the input, answers, and posts its receipt.
    async fn answer(&mut self, job: &StdAddr) {
        let head = self.chain.head().await.unwrap();
        let story = read_story(&*self.chain, job, &head).await.unwrap();
        let (posted, posting) = story.posted().unwrap();
        let network_id = self.network.id();
        let context = InputContext { network_id, job: job.clone(), model_id: MODEL, until: posting.until };
        let sealed_input = posting.sealed_input().unwrap();
        let input = open_input(&sealed_input, &self.worker.decryption_key, &context).unwrap();
        assert_eq!(input.messages[0].content, PROMPT);
        let (salt, tokens_in, tokens_out) = ([1; 32], vec![1, 2, 3], vec![4, 5]);
        let committed = transcript(&salt, &MODEL, 1, Dtype::Q4_1, &tokens_in, &tokens_out);
        let answer = Output::new("A pupa.".into(), FinishReason::Stop, salt, tokens_in, tokens_out);
        let context = ResultContext { network_id, job: job.clone(), posted_lt: posted.id.lt };
        let sealed = seal_result(&answer, &HashBytes(input.reply_key), &context, &mut self.rng).unwrap();
        let units = Units { input: 3, cached_input: 0, output: 2 };
        let content = ReceiptContent {
            result_hash: *contracts::wire::to_cell(&sealed).unwrap().repr_hash(),
            transcript: committed,
            engine: 1,
            dtype: Dtype::Q4_1 as u8,
        };
        let receipt = Receipt {
            tag: Default::default(),
            job: job.clone(),
            posted_lt: posted.id.lt,
            sequence: 1,
            is_final: true,
            units,
            amount: Amount::try_from(PRICES.cost(&units)).unwrap(),
            content_hash: content.hash().unwrap(),
        };
        let post = PostReceipt::signed(receipt, content, &sealed, &self.worker.receipt_key).unwrap();
        self.external(job, &post.to_cell().unwrap()).await;
    }

    async fn external(&self, to: &StdAddr, body: &Cell) {
        self.chain.send_external(&external_message(to, None, body).unwrap()).await.unwrap();
    }

    /// Until no message is under way.
    async fn quiet(&self) {
        for _ in 0..500 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if !self.handle.read(localnet::Localnet::has_work) {
                return;
            }
        }
        panic!("the local chain is still busy");
    }

    /// Moves the clock on, and waits for a block that shows it.
    async fn skip(&self, seconds: u32) {
        self.handle.skip_time(seconds);
        let newest = self.handle.newest().seqno;
        self.chain.wait_block(newest + 2, Duration::from_secs(10)).await.unwrap();
    }

    fn kill_server(&mut self) {
        self.server.take().unwrap().shutdown_background();
    }

    fn restart_server(&mut self) {
        self.server = Some(serve(&self.handle, self.server_at).0);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_background();
        }
    }
}

/// The verifier as the client's judge.
struct Judge<'a> {
    platform: &'a SimulatedPlatform,
    policy: QuotePolicy,
    attestor: AttestorTrust,
}

impl QuoteJudge for Judge<'_> {
    fn judge(&self, evidence: &WorkerEvidence<'_>) -> Result<(), String> {
        let now_s = u64::from(evidence.now_s);
        let view = evidence.attestor;
        let attestor = AttestorAccount { code: view.code.clone(), data: view.data.clone() };
        let mut failures = verify_attestor(evidence.network, Some(&attestor), &self.attestor).failures();
        let (verdict, registered) = verify_registration(
            evidence.network,
            &trace_of(evidence.registration),
            Some(evidence.mc_root_hash),
            self.platform.collateral(),
            &self.policy,
            now_s,
        );
        failures.extend(verdict.failures());
        assert!(registered.is_none_or(|registered| registered.worker == *evidence.worker));
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    }
}

fn other_root() -> Vec<u8> {
    SimulatedPlatform::new(&[4; 32], 1_800_000_000).unwrap().root_der().to_vec()
}

fn trace_of(registration: &Registration) -> RegistrationTrace {
    RegistrationTrace {
        attestor: registration.attestor.cell.clone(),
        registry: registration.registry.cell.clone(),
        platform: registration.platform.cell.clone(),
        worker: registration.worker.cell.clone(),
    }
}

fn attestor_of(platform: &SimulatedPlatform) -> AttestorStorage {
    let tdx_simulator::Names { platform_ca, processor_ca, tcb_signer, pck, .. } =
        tdx_simulator::Names::simulated();
    let names = prover::trust::Names { platform_ca, processor_ca, tcb_signer, pck };
    prover::trust::attestor_storage(platform.root_der(), &names).unwrap()
}

fn serve(handle: &LocalnetHandle, at: SocketAddrV4) -> (Runtime, GlobalConfig) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let handle = handle.clone();
    runtime.spawn(async move {
        let server = loop {
            // A port that was just closed may need a moment.
            match Liteserver::bind(handle.clone(), at).await {
                Ok(server) => break server,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        tell.send(server.global_config_json().unwrap()).unwrap();
        server.serve().await;
    });
    let config = GlobalConfig::from_json(&told.recv().unwrap()).unwrap();
    (runtime, config)
}

async fn funded(handle: &LocalnetHandle, chain: &Arc<LiteserverChain>, network_id: i32, seed: u8) -> Sender {
    let wallet = Wallet::from_seed(&[seed; 32], network_id).unwrap();
    handle.give(wallet.address(), FUNDS).unwrap();
    while handle.balance(wallet.address()).unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    WalletSender::new(wallet, chain.clone(), SenderTiming::default())
}

fn identity() -> TdIdentity {
    TdIdentity::of_image("client test")
}

fn measurement_of(identity: &TdIdentity) -> HashBytes {
    contracts::measurement::TdMeasurements {
        td_attributes: tdx_simulator::TD_SEPT_VE_DISABLE.to_le_bytes(),
        xfam: identity.xfam,
        mr_td: identity.mr_td,
        mr_config_id: identity.mr_config_id,
        mr_owner: identity.mr_owner,
        mr_owner_config: identity.mr_owner_config,
        rtmr0: identity.rtmr[0],
        rtmr1: identity.rtmr[1],
        rtmr2: identity.rtmr[2],
        rtmr3: identity.rtmr[3],
    }
    .measurement()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_settles_while_the_liteserver_goes_away_and_the_client_crashes() {
    let mut world = World::new().await;
    let client = world.client(50).await;
    let me = client.sender().wallet().address().clone();
    let job = world.sealed(&client, 7).await;
    client.post(&job).await.unwrap();
    world.quiet().await;
    world.claim(&me, 7, 0, job.terms.deposit).await;

    let following = {
        let address = job.address.clone();
        tokio::spawn(async move {
            let mut steps = Vec::new();
            let finished = client.follow(&address, false, |event| steps.push(event.step.name())).await;
            (finished.unwrap(), steps)
        })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.kill_server();
    // Longer than one read is tried for.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    world.restart_server();
    world.answer(&job.address).await;
    let (finished, steps) = following.await.unwrap();
    assert_eq!(steps, ["posted", "claimed", "settled"]);
    let Outcome::Settled(settled) = finished.outcome else { panic!("settled") };
    assert_eq!(settled.answer.as_ref().unwrap().text, "A pupa.");
    assert!(settled.transcript_matches);
    // 3 × 0.02 + 2 × 0.04 thousandths of a TON.
    assert_eq!((settled.paid, settled.share), (Amount::new(140_000), Amount::new(8_400)));
    assert_eq!((settled.royalty, settled.fee), (Nanoton::new(7_000), Nanoton::new(1_400)));

    // The process died; the same wallet on another machine finds the job and opens the answer.
    let again = world.client(50).await;
    let head = world.chain.head().await.unwrap();
    let found = posted_jobs(&*world.chain, &world.network, &me, &head, 100).await.unwrap();
    assert_eq!((found[0].address.clone(), found[0].nonce), (job.address.clone(), 7));
    let finished = again.follow(&found[0].address, false, |_| {}).await.unwrap();
    let Outcome::Settled(settled) = finished.outcome else { panic!("settled") };
    assert_eq!(settled.answer.as_ref().unwrap().text, "A pupa.");

    world.quiet().await;
    let collected = collect_job(&*world.chain, &world.network, &job.address).await.unwrap();
    assert_eq!(collected.state.status, JobStatus::Settled);
    assert_eq!((collected.client, collected.nonce), (me, 7));
    let registration = collected.registration.unwrap();
    assert_eq!(registration.attestation.receipt_key, public_key(&world.worker.receipt_key));
    let block = collected.attested_block.unwrap();
    assert_eq!(block.root_hash, registration.request.mc_root_hash);
    world.audited(&job.address, JobStatus::Settled).await;

    // The image turns out to be bad: the Registry on chain says so, whatever a network file lists.
    let revoke = deploy::revoke_measurement(&world.network.registry, measurement_of(&identity())).unwrap();
    world.owner.send(&[revoke]).await.unwrap();
    world.quiet().await;
    let revoked = world.audit(&job.address).await;
    assert_eq!(revoked.conclusion(), Conclusion::Fails);
    let failures = revoked.verdict.failures();
    assert!(failures.len() == 1 && failures[0].starts_with("measurement_listed"), "{failures:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_answered_as_it_is_and_a_cancel_comes_too_late() {
    let mut world = World::new().await;
    let client = world.client(50).await;
    let job = world.sealed(&client, 7).await;
    client.post(&job).await.unwrap();
    world.quiet().await;
    let worker_before = world.handle.balance(&world.worker.address).unwrap();
    world.answer(&job.address).await;
    world.quiet().await;
    client.cancel(&job.address).await.unwrap();
    world.quiet().await;
    let mut steps = Vec::new();
    let finished = client.follow(&job.address, false, |event| steps.push(event.step.name())).await.unwrap();
    assert_eq!(steps, ["posted", "settled"]);
    let Outcome::Settled(settled) = finished.outcome else { panic!("settled") };
    assert!(settled.transcript_matches);
    let earned = world.handle.balance(&world.worker.address).unwrap() - worker_before;
    // With what the payment's own gas brought and did not need.
    assert!((131_600..800_000).contains(&earned), "{earned}");
    assert_eq!(world.handle.balance(&job.address).unwrap(), 0, "a closed job keeps nothing");
    world.audited(&job.address, JobStatus::Settled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_prompt_leaves_for_a_worker_whose_image_the_registry_on_chain_does_not_admit() {
    let world = World::new().await;
    let client = world.client(50).await;
    let (worker, judge) = (&world.worker.address, world.judge());
    let registry_code = CodeRef::of(&code(Contract::Registry));
    client.check_worker(worker, &judge).await.unwrap();

    let other_code = CodeRef { hash: HashBytes([1; 32]), ..registry_code };
    let check = client::check_worker(&*world.chain, &world.network, &other_code, worker, &judge);
    let refused = check.await.unwrap_err();
    assert!(
        refused.to_string().contains("is no Registry of this network (its code is another)"),
        "{refused}"
    );
    let mut network: Network = world.network.clone();
    network.generation.fee_bps += 1;
    let check = client::check_worker(&*world.chain, &network, &registry_code, worker, &judge);
    let refused = check.await.unwrap_err();
    assert!(refused.to_string().contains("its parameters are others"), "{refused}");

    let measurement = measurement_of(&identity());
    let revoke = deploy::revoke_measurement(&world.network.registry, measurement).unwrap();
    world.owner.send(&[revoke]).await.unwrap();
    world.quiet().await;
    let refused = client.check_worker(worker, &judge).await.unwrap_err();
    let ClientError::Unfit { reason, .. } = &refused else { panic!("{refused}") };
    assert_eq!(*reason, Unfit::MeasurementNotAdmitted { measurement, from_s: None });
}

#[tokio::test(flavor = "multi_thread")]
async fn no_prompt_leaves_for_a_worker_whose_quote_is_refused() {
    let debug = Faults { debug_td: true, ..Faults::default() };
    let cases: [(Faults, Lie); 4] = [
        (debug, |binding| binding),
        (Faults { revoked_pck: true, ..Faults::default() }, |binding| binding),
        (Faults::default(), |binding| KeyBinding { encryption_key: HashBytes([1; 32]), ..binding }),
        (Faults::default(), |binding| KeyBinding { worker: StdAddr::new(0, HashBytes([2; 32])), ..binding }),
    ];
    for (faults, lie) in cases {
        let world = World::with(faults, lie).await;
        let client = world.client(50).await;
        let refused = client.check_worker(&world.worker.address, &world.judge()).await.unwrap_err();
        let ClientError::Unfit { reason, .. } = &refused else { panic!("{refused}") };
        assert_eq!(*reason, Unfit::NotAttested);
        assert!(!refused.is_transient());
    }
    let world = World::new().await;
    let client = world.client(50).await;
    // What the chain has accepted is judged again by the client's own verifier, policy and root.
    let changes: [(fn(&mut Judge<'_>), &str); 4] = [
        (|judge| judge.policy.measurements = Some(Vec::new()), "measurement_admitted"),
        (|judge| judge.policy.root = TrustedRoot::Intel, "quote_chain"),
        (|judge| judge.attestor.root_der = other_root(), "attestor_root"),
        (|judge| judge.attestor.code = HashBytes([1; 32]), "attestor_code"),
    ];
    for (change, named) in changes {
        let mut judge = world.judge();
        change(&mut judge);
        let refused = client.check_worker(&world.worker.address, &judge).await.unwrap_err();
        let ClientError::QuoteRefused { failed, .. } = &refused else { panic!("{refused}") };
        assert!(failed.contains(named), "{failed}");
    }
    let nobody = StdAddr::new(0, HashBytes([2; 32]));
    let nothing = client.check_worker(&nobody, &world.judge()).await.unwrap_err();
    assert!(matches!(nothing, ClientError::NotOurs { .. }), "{nothing}");
    let wallet = world.owner.wallet().address();
    let a_wallet = client.check_worker(wallet, &world.judge()).await.unwrap_err();
    assert!(a_wallet.to_string().contains("its code is another"), "{a_wallet}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_quote_does_not_register_and_changes_nothing() {
    let mut world = World::new().await;
    let client = world.client(50).await;
    let before = client.check_worker(&world.worker.address, &world.judge()).await.unwrap();
    let spoils: [Spoil; 3] = [
        |proof| proof.key_x.0[7] ^= 1,
        |proof| {
            let mut pck = (*proof.pck).clone();
            let mut platform = (*pck.platform).clone();
            platform.issuer.0[0] ^= 1;
            pck.platform = Ref::new(platform).unwrap();
            proof.pck = Ref::new(pck).unwrap();
        },
        |proof| {
            let mut td = (*proof.td).clone();
            td.mrseam.0[40] ^= 1;
            proof.td = Ref::new(td).unwrap();
        },
    ];
    for spoil in spoils {
        world.spoil = spoil;
        world.register(|binding| binding).await;
        let after = client.check_worker(&world.worker.address, &world.judge()).await.unwrap();
        assert_eq!(after.registration.worker.id, before.registration.worker.id);
        assert_eq!(after.view.state.registration_seqno, 1);
    }
    world.spoil = |_| {};
    world.register(|binding| binding).await;
    let after = client.check_worker(&world.worker.address, &world.judge()).await.unwrap();
    assert_eq!(after.registration.request.registration_seqno, 1);
    assert_ne!(after.registration.worker.id, before.registration.worker.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_costs_its_owner_less_than_six_hundredths_of_a_ton() {
    let mut world = World::new().await;
    let first = world.registration_cost;
    world.register(|binding| binding).await;
    let renewal = world.registration_cost;
    let head = world.chain.head().await.unwrap();
    let worker =
        client::read_worker(&*world.chain, &world.network, &world.worker.address, &head).await.unwrap();
    assert_eq!(worker.state.registration_seqno, 2);
    println!("first {first}, renewal {renewal} nanoTON");
    // With gas, import and delivery of the proof.
    assert!(first <= 60_000_000 && renewal <= 60_000_000, "first {first}, renewal {renewal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_the_worker_would_not_serve_is_not_posted() {
    let mut world = World::new().await;
    let client = world.client(50).await;
    let trusted = client.check_worker(&world.worker.address, &world.judge()).await.unwrap();
    let changes: [(Change, fn(&Unfit) -> bool); 5] = [
        (|r| r.model_id = HashBytes([5; 32]), |u| matches!(u, Unfit::ModelNotOffered)),
        (|r| r.max_prices.input = Nanoton::new(19_999_999), |u| matches!(u, Unfit::PriceOverTerms)),
        (|r| r.measurement = HashBytes([1; 32]), |u| matches!(u, Unfit::OtherMeasurement)),
        (|r| r.open_for_s = 50_000, |u| matches!(u, Unfit::AttestationEnds { .. })),
        (|r| r.deposit = Some(Nanoton::new(999)), |u| matches!(u, Unfit::DepositTooLow { .. })),
    ];
    for (change, expected) in changes {
        let mut request = world.request();
        change(&mut request);
        let error = client.seal(&request, &trusted, 1, &mut world.rng).await.unwrap_err();
        let ClientError::Unfit { reason, .. } = &error else { panic!("{error}") };
        assert!(expected(reason), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_posting_below_the_least_value_comes_back_and_leaves_no_job() {
    let mut world = World::new().await;
    let client = world.client(50).await;
    let mut job = world.sealed(&client, 7).await;
    let least = job.transfer.value_nanoton - client::amounts::JOB_MARGIN.get();
    job.transfer.value_nanoton = least - 1_000_000;
    let address = client.sender().wallet().address().clone();
    let before = world.handle.balance(&address).unwrap();
    client.post(&job).await.unwrap();
    world.quiet().await;
    let missing = collect_job(&*world.chain, &world.network, &job.address).await.unwrap_err();
    assert!(matches!(missing, ClientError::NoJob(_)), "{missing}");
    let refused = client.follow(&job.address, true, |_| {}).await.unwrap_err();
    assert!(refused.to_string().contains("ValueTooLow"), "{refused}");
    assert!(matches!(refused, ClientError::PostingRefused { exit_code: 105, .. }));
    let lost = before - world.handle.balance(&address).unwrap();
    assert!(lost < TON / 20, "{lost} nanoTON lost");

    // The least value itself is enough.
    let mut enough = world.sealed(&client, 8).await;
    enough.transfer.value_nanoton -= client::amounts::JOB_MARGIN.get();
    client.post(&enough).await.unwrap();
    world.quiet().await;
    let collected = collect_job(&*world.chain, &world.network, &enough.address).await.unwrap();
    assert_eq!(collected.state.status, JobStatus::Open);
    let registration = collected.registration.unwrap();
    assert_eq!(registration.attestation.receipt_key, public_key(&world.worker.receipt_key));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_cancelled_rejected_or_expired_and_swept() {
    let mut world = World::new().await;
    let client = world.client(50).await;
    let me = client.sender().wallet().address().clone();

    let cancelled = world.sealed(&client, 1).await;
    client.post(&cancelled).await.unwrap();
    world.quiet().await;
    world.unfinished(&cancelled.address, JobStatus::Open).await;
    client.cancel(&cancelled.address).await.unwrap();
    let finished = client.follow(&cancelled.address, false, |_| {}).await.unwrap();
    assert!(matches!(finished.outcome, Outcome::Cancelled { .. }));
    world.audited(&cancelled.address, JobStatus::Cancelled).await;

    let rejected = world.sealed(&client, 2).await;
    client.post(&rejected).await.unwrap();
    world.quiet().await;
    world.claim(&me, 2, 0, rejected.terms.deposit).await;
    client.cancel(&rejected.address).await.unwrap();
    let head = world.chain.head().await.unwrap();
    let story = read_story(&*world.chain, &rejected.address, &head).await.unwrap();
    assert_eq!(story.status(), Some(JobStatus::Claimed));
    world.unfinished(&rejected.address, JobStatus::Claimed).await;
    let rejection = Rejection {
        tag: Default::default(),
        job: rejected.address.clone(),
        posted_lt: story.posted().unwrap().0.id.lt,
        reason: RejectionReason::MalformedInput.code(),
    };
    let rejection = PostRejection::signed(rejection, &world.worker.receipt_key).unwrap();
    world.external(&rejected.address, &rejection.to_cell().unwrap()).await;
    let finished = client.follow(&rejected.address, false, |_| {}).await.unwrap();
    let Outcome::Rejected { reason, refund, .. } = finished.outcome else { panic!("rejected") };
    assert_eq!((reason, refund), (Some(RejectionReason::MalformedInput), rejected.terms.deposit));
    world.audited(&rejected.address, JobStatus::Rejected).await;

    for (nonce, claimed) in [(3, false), (4, true)] {
        let job = world.sealed(&client, nonce).await;
        client.post(&job).await.unwrap();
        world.quiet().await;
        if claimed {
            world.claim(&me, nonce, 1, job.terms.deposit).await;
        }
        world.skip(if claimed { 601 } else { 61 }).await;
        let finished = client.follow(&job.address, true, |_| {}).await.unwrap();
        assert!(matches!(finished.story.events.last().unwrap().step, JobStep::Expired));
        let Outcome::Expired { bond, refund } = finished.outcome else { panic!("expired") };
        assert_eq!(refund, job.terms.deposit);
        assert_eq!(!bond.is_zero(), claimed);
        world.audited(&job.address, JobStatus::Expired).await;
    }

    client.sweep(&cancelled.address).await.unwrap();
    world.quiet().await;
    let early = collect_job(&*world.chain, &world.network, &cancelled.address).await.unwrap();
    assert_eq!(early.state.status, JobStatus::Cancelled);
    world.skip(contracts::job::AUDIT_WINDOW_S + 1).await;
    client.sweep(&cancelled.address).await.unwrap();
    world.quiet().await;
    let gone = collect_job(&*world.chain, &world.network, &cancelled.address).await.unwrap_err();
    assert!(matches!(gone, ClientError::NoJob(_)), "{gone}");
    let following = {
        let address = cancelled.address.clone();
        tokio::spawn(async move { client.follow(&address, false, |_| {}).await.unwrap_err() })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.skip(client::ABSENT_LIMIT_S + 1).await;
    assert!(matches!(following.await.unwrap(), ClientError::NoJob(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_earnings_and_stake_are_withdrawn() {
    let mut world = World::new().await;
    let client = world.client(50).await;
    let me = client.sender().wallet().address().clone();
    let job = world.sealed(&client, 7).await;
    client.post(&job).await.unwrap();
    world.quiet().await;
    world.claim(&me, 7, 0, job.terms.deposit).await;
    world.answer(&job.address).await;
    world.quiet().await;
    let owner = world.owner.wallet().address().clone();
    let network = &world.network;
    let withdraw: [Transfer; 4] = [
        deploy::withdraw_shares(network, &MODEL).unwrap(),
        deploy::withdraw_earnings(network, &owner, Nanoton::new(1_500_000_000)).unwrap(),
        deploy::withdraw_offer(network, &owner, MODEL).unwrap(),
        deploy::request_unbond(network, &owner, Nanoton::new(6_000_000_000)).unwrap(),
    ];
    world.owner.send(&withdraw).await.unwrap();
    world.quiet().await;
    // Of 8 400 one part in six, and of the gas that the payment brought and did not need.
    let treasury = world.handle.balance(&network.generation.params.treasury).unwrap();
    assert!((1_400..110_000).contains(&treasury), "{treasury}");
    let head = world.chain.head().await.unwrap();
    let view = client::read_worker(&*world.chain, network, &world.worker.address, &head).await.unwrap();
    assert_eq!((view.state.unbonding.get(), view.state.stake), (6 * TON, Nanoton::ZERO));
    assert_eq!(view.offer(&MODEL).unwrap_err(), Unfit::ModelNotOffered);
    world.skip(contracts::worker::MAX_JOB_LIFE_S + 1).await;
    world.owner.send(&[deploy::withdraw_unbonded(network, &owner).unwrap()]).await.unwrap();
    world.quiet().await;
    let spent = FUNDS - world.handle.balance(&owner).unwrap();
    let published = deploy::librarian(&libraries()).unwrap().value_nanoton;
    assert!(spent < published + 4 * TON, "{spent}");
}
