//! `chrysalis demo`: the job's path from end to end, on an embedded local chain.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, bail};
use chain::{ChainAccess, trace};
use clap::Args;
use client::{Client, JobRequest, Outcome, Settled, TrustedWorker, collect_job, deploy};
use contracts::artifacts::{Contract, code, code_ref};
use contracts::sealing::ChatMessage;
use contracts::work::{GenerateParams, Request};
use contracts::{HashBytes, Nanoton, Prices, StdAddr, Units};
use rand::RngExt;
use tdx_simulator::{SimulatedPlatform, TdIdentity};
use tokio::sync::oneshot;
use verifier::{QuotePolicy, Verdict};
use worker::{Engine as _, Identity, Journal, Keys, Worker, WorkerConfig};

use crate::commands::verify::{Trusted, audit_collected};
use crate::engine::{BurnEngine, EngineLimits};
use crate::evidence::{
    Judge, SIMULATED_IMAGE, SimulatedQuotes, attestor_under, measurement_of, simulated_attestor,
};
use crate::exit::Exit;
use crate::market::{Market, now_s, random};
use crate::report::{
    BalanceReport, CheckReport, DemoReport, ReceiptReport, RegistrationReport, TimingReport,
    TransactionReport,
};

const SIMULATED: &str =
    "The chain and the TDX platform are SIMULATED: no validator signatures, no Intel hardware.";
/// A prompt this long is refused before anything starts.
const MAX_PROMPT_BYTES: usize = 16 * 1024;
/// A token stands for a byte at least; the template adds fewer tokens than this.
const TEMPLATE_TOKENS: u32 = 128;

/// What to ask and of which model.
#[derive(Args)]
pub(crate) struct DemoArguments {
    /// A GGUF file or a Hugging Face directory.
    #[arg(long)]
    model: PathBuf,
    /// What to ask.
    #[arg(long, default_value = "What is the capital of France? Answer in one sentence.")]
    prompt: String,
    /// The most tokens of the answer.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1024))]
    max_output_tokens: u32,
    /// Print one JSON object instead of the streamed answer and the tables.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: DemoArguments) -> anyhow::Result<Exit> {
    if arguments.prompt.is_empty() || arguments.prompt.len() > MAX_PROMPT_BYTES {
        bail!("the prompt has to have between 1 and {MAX_PROMPT_BYTES} bytes");
    }
    let mut stage = Stages::begin(!arguments.json);

    stage.say(&format!("reading the model {}", arguments.model.display()));
    let path = arguments.model.clone();
    let engine =
        tokio::task::spawn_blocking(move || BurnEngine::load(&path, EngineLimits::default())).await??;
    let model_id = engine.info().model_id;
    let (model_name, context) = (engine.info().name.clone(), usize::try_from(engine.info().context_tokens)?);
    stage.done("load model");

    stage.say("starting a local chain (simulated) and deploying the contracts");
    let identity = TdIdentity::of_image(SIMULATED_IMAGE);
    let platform = SimulatedPlatform::new(&random().random(), now_s())?;
    let measurement = measurement_of(&platform, &identity);
    let collateral = platform.collateral().clone();
    let attestor = attestor_under(platform.root_der().to_vec());
    let policy = QuotePolicy::dangerous_simulated(platform.root_der().to_vec(), vec![measurement]);
    let market = Market::open(measurement, &simulated_attestor(&platform)?).await?;
    market.register_model(&model_id, &model_name, context).await?;
    stage.done("chain, contracts, model");

    stage.say("starting a worker: keys, quote (simulated TDX), stake, registration");
    let first_text: Arc<Mutex<Option<Instant>>> = Arc::default();
    let prices = Prices {
        input: Nanoton::new(1_000_000),
        cached_input: Nanoton::new(500_000),
        output: Nanoton::new(4_000_000),
    };
    let quotes = Arc::new(SimulatedQuotes { platform, identity });
    let folder = tempfile::tempdir().context("cannot make a temporary folder for the worker's journal")?;
    let (stop, stopped) = oneshot::channel::<()>();
    let owner = market.worker_owner.wallet().address().clone();
    let worker_address = market.network.worker_address(&owner)?;
    let identity_of_journal = Identity::new(worker_address.clone(), market.network.id());
    let daemon = Worker {
        chain: market.chain.clone(),
        network: market.network.clone(),
        worker_code: code(Contract::Worker),
        owner,
        keys: Arc::new(Keys::load_or_create(&folder.path().join("keys"), &mut random())?),
        engine: Arc::new(engine),
        attestation: quotes.clone(),
        collateral: quotes,
        wallet: Some(Arc::new(chain::WalletSender::new(
            market.worker_owner.wallet().clone(),
            market.chain.clone(),
            chain::SenderTiming::default(),
        ))),
        journal: Journal::open(&folder.path().join("journal.redb"), &identity_of_journal)?,
        // So small a job would be answered without a claim; the demo shows one.
        config: WorkerConfig { claim_above_nanoton: Nanoton::ZERO, ..WorkerConfig::at_prices(prices) },
        on_step: None,
        on_text: Some(live_text(arguments.json, first_text.clone())),
    };
    let mut running = tokio::spawn(daemon.run(async {
        let _ = stopped.await;
    }));
    tokio::select! {
        ready = market.wait_for_worker(&worker_address, &model_id) => { ready?; }
        ended = &mut running => { ended??; bail!("the worker stopped before it was ready"); }
    }
    market.quiet().await?;
    stage.done("worker registration");

    let parties = Parties::of(&market, &worker_address, &model_id)?;
    let before = parties.balances(&market)?;
    let since_lt = market.handle.read(|chain| chain.newest().end_lt);

    stage.say("posting the job by one wallet transaction");
    let sender = chain::WalletSender::new(
        market.client.wallet().clone(),
        market.chain.clone(),
        chain::SenderTiming::default(),
    );
    let client = Client::new(sender, market.network.clone(), code_ref(Contract::Registry));
    let judge = Judge { policy: policy.clone(), collateral: collateral.clone(), attestor: attestor.clone() };
    let trusted = client.check_worker(&worker_address, &judge).await?;
    let registration = registration(&market, &parties, &trusted).await?;
    let request = JobRequest {
        worker: worker_address.clone(),
        model_id,
        work: Request::chat(
            vec![ChatMessage::new("user", arguments.prompt.clone())],
            GenerateParams::greedy(arguments.max_output_tokens),
        ),
        measurement,
        max_prices: prices,
        max_units: Units {
            input: u32::try_from(arguments.prompt.len())? + TEMPLATE_TOKENS,
            cached_input: 0,
            output: arguments.max_output_tokens,
        },
        deposit: None,
        open_for_s: 600,
        settle_within_s: 600,
    };
    let sealed = client.seal(&request, &trusted, random().random(), &mut random()).await?;
    client.post(&sealed).await?;
    stage.done("check worker, seal, post");
    let posted = Instant::now();

    stage.say("the worker answers:");
    let finished = tokio::select! {
        finished = client.follow(&sealed.address, true, |_| {}) => finished?,
        ended = &mut running => { ended??; bail!("the worker stopped before it answered"); }
    };
    let settled_at = Instant::now();
    if !arguments.json {
        println!();
    }
    let first = first_text.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(settled_at);
    stage.measured("to first token", posted, first);
    stage.measured("decode, seal, receipt, settle", first, settled_at);
    stage.reset();

    let settled = match finished.outcome {
        Outcome::Settled(settled) => settled,
        other => bail!("the job ended as {}, not settled", other.status().name()),
    };
    market.quiet().await?;
    let earned = settled.paid.nanoton().saturating_sub(settled.share.nanoton());
    // A share that is worth less than its message was not sent.
    if !settled.share.is_zero() {
        market
            .send_and_settle(&market.publisher, deploy::withdraw_shares(&market.network, &model_id)?)
            .await?;
    }
    market
        .send_and_settle(
            &market.worker_owner,
            deploy::withdraw_earnings(&market.network, market.worker_owner.wallet().address(), earned)?,
        )
        .await?;
    stage.done("withdraw royalty, fee and earnings");

    let collected = collect_job(&*market.chain, &market.network, &sealed.address, None).await?;
    let trusted = Trusted { registry_code: code_ref(Contract::Registry).hash, attestor };
    let audit = audit_collected(&market.network, trusted, &collected, &collateral, &policy, now_s());
    let checks = checks(&audit.verdict, &settled);
    stage.done("verify");

    let transactions = transactions(&market, &parties, &sealed.address, since_lt).await?;
    let after = parties.balances(&market)?;
    let answer = match &settled.answer {
        Ok(answer) => answer.text.clone(),
        Err(error) => bail!("the worker's answer cannot be opened: {error}"),
    };
    let report = DemoReport {
        simulated: SIMULATED,
        prompt: arguments.prompt,
        answer,
        model_id: model_id.to_string(),
        job: sealed.address.to_string(),
        state: audit.status.map_or("gone", |status| status.name()).to_owned(),
        receipt: ReceiptReport {
            hash: settled.receipt_hash.to_string(),
            input_tokens: settled.receipt.units.input,
            output_tokens: settled.receipt.units.output,
            paid_nanoton: settled.paid.get().into(),
            royalty_nanoton: settled.royalty.get(),
            fee_nanoton: settled.fee.get(),
        },
        checks,
        registration,
        balances: parties.report(&before, &after),
        unaccounted_nanoton: market.unaccounted_nanoton()?,
        transactions,
        timings_ms: stage.timings,
    };
    let _ = stop.send(());
    running.await??;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.tables());
    }
    Ok(report.holds().into())
}

/// What the verifier found, and what only the client can check: that the opened answer is the one committed to.
fn checks(verdict: &Verdict, settled: &Settled) -> Vec<CheckReport> {
    let mut checks: Vec<CheckReport> = verdict
        .checks
        .iter()
        .map(|check| CheckReport {
            name: check.name.to_owned(),
            passed: check.passed,
            proves: check.proves.to_owned(),
            detail: check.detail.clone(),
        })
        .collect();
    checks.push(CheckReport {
        name: "answer_opens".to_owned(),
        passed: settled.answer.is_ok(),
        proves: "the result on chain was sealed to this client for this posting".to_owned(),
        detail: if settled.answer.is_ok() { "opened" } else { "it does not open" }.to_owned(),
    });
    checks.push(CheckReport {
        name: "transcript_matches".to_owned(),
        passed: settled.transcript_matches,
        proves: "prompt tokens, answer tokens, model and engine are the ones the receipt commits to"
            .to_owned(),
        detail: if settled.transcript_matches { "equal" } else { "another transcript" }.to_owned(),
    });
    checks
}

/// The parties whose balances the report shows.
struct Parties(Vec<(&'static str, StdAddr)>);

impl Parties {
    fn of(market: &Market, worker: &StdAddr, model_id: &HashBytes) -> anyhow::Result<Self> {
        Ok(Self(vec![
            ("client", market.client.wallet().address().clone()),
            ("worker contract", worker.clone()),
            ("worker owner", market.worker_owner.wallet().address().clone()),
            ("model", market.network.model_address(model_id)?),
            ("publisher", market.publisher.wallet().address().clone()),
            ("treasury", market.treasury.clone()),
        ]))
    }

    fn balances(&self, market: &Market) -> anyhow::Result<Vec<u128>> {
        self.0.iter().map(|(_, address)| Ok(market.handle.balance(address)?)).collect()
    }

    fn report(&self, before: &[u128], after: &[u128]) -> Vec<BalanceReport> {
        let amounts = before.iter().zip(after);
        self.0
            .iter()
            .zip(amounts)
            .map(|((party, address), (before, after))| BalanceReport {
                party,
                address: address.to_string(),
                before_nanoton: *before,
                after_nanoton: *after,
            })
            .collect()
    }
}

async fn transactions(
    market: &Market,
    parties: &Parties,
    job: &StdAddr,
    since_lt: u64,
) -> anyhow::Result<Vec<TransactionReport>> {
    let head = market.chain.head().await?;
    let mut reports = Vec::new();
    let accounts = parties.0.iter().map(|(name, address)| (*name, address)).chain([("job", job)]);
    for (contract, address) in accounts {
        let Some(newest) = market.chain.account(address, &head).await?.last else { continue };
        for transaction in market.chain.transactions(address, newest, None, 10_000).await? {
            if transaction.id.lt > since_lt {
                reports.push(TransactionReport::of(contract, &transaction)?);
            }
        }
    }
    reports.sort_by_key(|report| report.lt);
    Ok(reports)
}

/// The owner's wallet transaction that registered the worker, and all it caused.
async fn registration(
    market: &Market,
    parties: &Parties,
    trusted: &TrustedWorker,
) -> anyhow::Result<RegistrationReport> {
    let (chain, attestor) = (&*market.chain, &market.network.generation.params.attestor);
    let first = &trusted.registration.attestor;
    let asked = first.in_message()?.context("no message started the Attestor's transaction")?;
    let owner = &trusted.view.owner;
    let wallet = trace::sender_of(chain, owner, &asked, client::MAX_WALK).await?;
    let wallet = wallet.context("the wallet's transaction is not in its history")?;
    let machine = market.network.platform_address(trusted.registration.attestation.evidence.ppid)?;
    let named = [("Attestor", attestor), ("Registry", &market.network.registry), ("Platform", &machine)];
    let name_of = |account: &StdAddr| {
        let mut known = parties.0.iter().map(|(name, address)| (*name, address)).chain(named);
        known.find(|(_, address)| *address == account).map_or("another", |(name, _)| name)
    };
    let sent = wallet.out_messages()?;
    let delivery =
        sent.iter().find(|sent| sent.hash == asked.hash).map_or(0, |sent| sent.forward_fee_nanoton);
    let verified = trace::follow(chain, attestor, first.clone(), trace::Limits::default()).await?;
    let mut fees_nanoton = delivery;
    for step in &verified {
        let report = TransactionReport::of(name_of(&step.account), &step.transaction)?;
        fees_nanoton += report.all_fees_nanoton();
    }
    let steps = trace::follow(chain, owner, wallet, trace::Limits::default()).await?;
    let transactions =
        steps.iter().map(|step| TransactionReport::of(name_of(&step.account), &step.transaction));
    let mut transactions = transactions.collect::<anyhow::Result<Vec<_>>>()?;
    transactions.sort_by_key(|report| report.lt);
    Ok(RegistrationReport { transactions, fees_nanoton })
}

/// Shows the answer while it is made; the demo runs client and worker for the same person.
fn live_text(quiet: bool, first: Arc<Mutex<Option<Instant>>>) -> worker::OnText {
    Arc::new(move |_, piece| {
        first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        if !quiet {
            print!("{piece}");
            let _ = std::io::stdout().flush();
        }
    })
}

/// Tells what happens and keeps the time.
struct Stages {
    speaks: bool,
    since: Instant,
    timings: Vec<TimingReport>,
}

impl Stages {
    fn begin(speaks: bool) -> Self {
        let stages = Self { speaks, since: Instant::now(), timings: Vec::new() };
        stages.say(SIMULATED);
        stages
    }

    fn say(&self, what: &str) {
        if self.speaks {
            eprintln!("· {what}");
        }
    }

    fn done(&mut self, phase: &'static str) {
        self.measured(phase, self.since, Instant::now());
        self.reset();
    }

    fn measured(&mut self, phase: &'static str, from: Instant, to: Instant) {
        let ms = u64::try_from(to.duration_since(from).as_millis()).unwrap_or(u64::MAX);
        self.timings.push(TimingReport { phase, ms });
    }

    fn reset(&mut self) {
        self.since = Instant::now();
    }
}
