//! `chrysalis job`: a developer's jobs, from the posting to the answer.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use chain::{ChainAccess, LiteserverChain, McBlock, TxId, Wallet};
use clap::{Args, Subcommand};
use client::{
    Finished, JobEvent, JobRequest, JobStory, Outcome, check_worker, model_of, order, outcome, read_story,
    read_story_from, reply_key, seal,
};
use contracts::job::JobStatus;
use contracts::network::WORKCHAIN;
use contracts::{HashBytes, Nanoton, Prices, StdAddr};
use rand::RngExt;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::ask::{self, AskArguments};
use super::link::ByArguments;
use crate::exit::Exit;
use crate::market::random;
use crate::network::{NetworkArguments, OpenNetwork, QuoteArguments, address, read};

/// What to do with a job.
#[derive(Subcommand)]
pub(crate) enum JobCommand {
    /// Check a worker's quote, seal a prompt to it and post the job by one wallet transaction.
    Post(Box<PostArguments>),
    /// Show where a job is in its life.
    Status(StatusArguments),
    /// Open the answer of a job of this wallet.
    Result(ResultArguments),
    /// Take an open job back.
    Cancel(OrderArguments),
    /// Ask for a session's end.
    Close(OrderArguments),
    /// Add to a session's deposit.
    TopUp(TopUpArguments),
    /// End a job whose deadline has passed. Anybody may.
    Expire(OrderArguments),
    /// Destroy the account of a job that ended seven days ago. Anybody may.
    Sweep(OrderArguments),
}

/// What to ask, whom, and for how much.
#[derive(Args)]
pub(crate) struct PostArguments {
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    by: ByArguments,
    #[command(flatten)]
    replies: ReplyArguments,
    #[command(flatten)]
    quote: QuoteArguments,
    /// Address of the worker's contract.
    #[arg(long)]
    worker: String,
    /// The model's id (hexadecimal).
    #[arg(long)]
    model_id: HashBytes,
    #[command(flatten)]
    ask: AskArguments,
    /// Refuse a worker that asks more for 1 000 prompt tokens, nanoTON.
    #[arg(long)]
    max_input_nanoton_per_1k: Option<Nanoton>,
    /// Refuse a worker that asks more for 1 000 answer tokens, nanoTON.
    #[arg(long)]
    max_output_nanoton_per_1k: Option<Nanoton>,
    /// Time for a claim, or for the answer where the worker does not claim.
    #[arg(long, default_value_t = 600)]
    open_for_s: u32,
    /// Time from a claim to the answer.
    #[arg(long, default_value_t = 600)]
    settle_within_s: u32,
    /// Follow the job to its end and print the answer.
    #[arg(long, conflicts_with = "link")]
    wait: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Which job.
#[derive(Args)]
pub(crate) struct StatusArguments {
    /// The job's address.
    job: String,
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    last: LastArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Which job, of which wallet.
#[derive(Args)]
pub(crate) struct ResultArguments {
    /// The job's address.
    job: String,
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    replies: ReplyArguments,
    /// A file with the wallet's 24 words (V5R1).
    #[arg(long, env = "CHRYSALIS_MNEMONIC", required_unless_present = "reply_keys")]
    mnemonic: Option<PathBuf>,
    #[command(flatten)]
    last: LastArguments,
    /// Follow the job to its end.
    #[arg(long)]
    wait: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Which job, by whom.
#[derive(Args)]
pub(crate) struct OrderArguments {
    /// The job's address.
    job: String,
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    by: ByArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// How much more.
#[derive(Args)]
pub(crate) struct TopUpArguments {
    #[command(flatten)]
    order: OrderArguments,
    /// How much, nanoTON.
    #[arg(long, value_name = "NANOTON")]
    amount: Nanoton,
}

/// Whose secret the answers' keys come from.
#[derive(Args)]
pub(crate) struct ReplyArguments {
    /// A file with the secret that opens the answers of a wallet whose words are not here (64 hexadecimal digits); `post
    /// --link` makes it where there is none. Without it, the wallet's words are that secret.
    #[arg(long, value_name = "FILE")]
    reply_keys: Option<PathBuf>,
}

/// Of a job that was swept.
#[derive(Args)]
pub(crate) struct LastArguments {
    /// The transaction that swept the job, as an explorer shows it: its account names it no more.
    #[arg(long, value_name = "LT:HASH", value_parser = transaction)]
    swept_by: Option<TxId>,
}

impl LastArguments {
    pub(crate) fn swept_by(&self) -> Option<TxId> {
        self.swept_by
    }

    async fn story(&self, at: &OpenNetwork, job: &StdAddr, head: &McBlock) -> anyhow::Result<JobStory> {
        Ok(match self.swept_by {
            Some(newest) => read_story_from(&*at.chain, job, newest).await?,
            None => read_story(&*at.chain, job, head).await?,
        })
    }
}

/// A transaction as logical time and hash.
fn transaction(text: &str) -> Result<TxId, String> {
    let (lt, hash) = text.split_once(':').ok_or("give LT:HASH")?;
    let lt = lt.parse().map_err(|_| "the logical time is a number")?;
    let hash = hash.parse().map_err(|_| "the hash has 64 hexadecimal digits")?;
    Ok(TxId { lt, hash })
}

impl ReplyArguments {
    /// The secret of the file; `make` writes a new one where there is none.
    fn keys(&self, network_id: i32, make: bool) -> anyhow::Result<Option<Wallet>> {
        let Some(path) = &self.reply_keys else { return Ok(None) };
        if make && !path.exists() {
            let secret = Zeroizing::new(random().random::<[u8; 32]>());
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(path).with_context(|| format!("cannot make {}", path.display()))?;
            let digits = Zeroizing::new(hex::encode(secret.as_slice()));
            writeln!(file, "{}", digits.as_str())?;
            file.sync_all()?;
        }
        let text = Zeroizing::new(read(path, "file of reply keys")?);
        let mut secret = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim(), secret.as_mut())
            .ok()
            .with_context(|| format!("{} is not 64 hexadecimal digits", path.display()))?;
        Ok(Some(Wallet::from_seed(&secret, network_id)?))
    }
}

pub(crate) async fn run(command: JobCommand) -> anyhow::Result<Exit> {
    match command {
        JobCommand::Post(arguments) => post(*arguments).await,
        JobCommand::Status(arguments) => status(arguments).await,
        JobCommand::Result(arguments) => result(arguments).await,
        JobCommand::Cancel(arguments) => steer(arguments, Order::Cancel).await,
        JobCommand::Close(arguments) => steer(arguments, Order::Close).await,
        JobCommand::TopUp(arguments) => steer(arguments.order, Order::TopUp(arguments.amount)).await,
        JobCommand::Expire(arguments) => steer(arguments, Order::Expire).await,
        JobCommand::Sweep(arguments) => steer(arguments, Order::Sweep).await,
    }
}

async fn post(arguments: PostArguments) -> anyhow::Result<Exit> {
    let at = arguments.network.open()?;
    let worker = address(&arguments.worker)?;
    let mut ask = arguments.ask.read()?;
    let judge = arguments.quote.judge(&at)?;
    let made = arguments.replies.keys(at.network.id(), arguments.by.is_link())?;
    let keys = match made {
        Some(keys) => keys,
        None if arguments.by.is_link() => {
            bail!("the answer needs a key that stays here: name a file for it with --reply-keys")
        }
        None => arguments.by.wallet(&at)?,
    };
    let payer = arguments.by.owner(&at)?;
    let trusted = check_worker(&*at.chain, &at.network, &at.file.registry_code, &worker, &judge).await?;
    let asked: Prices = trusted
        .view
        .offer(&arguments.model_id)
        .map_err(|reason| client::ClientError::Unfit { address: worker.clone(), reason })?
        .prices;
    let max_prices = Prices {
        input: arguments.max_input_nanoton_per_1k.unwrap_or(asked.input),
        output: arguments.max_output_nanoton_per_1k.unwrap_or(asked.output),
        ..asked
    };
    let deposit = ask.with_cached(&asked);
    let request = JobRequest {
        worker: worker.clone(),
        model_id: arguments.model_id,
        work: ask.work,
        measurement: trusted.view.attestation().map(|attestation| attestation.measurement)?,
        max_prices,
        max_units: ask.max_units,
        deposit: Some(deposit),
        open_for_s: arguments.open_for_s,
        settle_within_s: arguments.settle_within_s,
    };
    let nonce = random().random();
    let rng = &mut random();
    let sealed = seal(&*at.chain, &at.network, &payer, &keys, &request, &trusted, nonce, rng).await?;
    if arguments.by.is_link() {
        eprintln!("job {} once it is sent, which has to be before {}", sealed.address, sealed.terms.until);
        arguments.by.carry_out(&at, sealed.transfer, arguments.json).await?;
        return Ok(Exit::Success);
    }
    let client = at.client(arguments.by.sender(&at)?);
    client.post(&sealed).await?;
    if !arguments.wait {
        if arguments.json {
            println!(
                "{:#}",
                json!({
                    "job": sealed.address.to_string(),
                    "nonce": sealed.nonce.to_string(),
                    "worker": worker.to_string(),
                    "model_id": arguments.model_id,
                    "deposit_nanoton": sealed.terms.deposit.get(),
                    "value_nanoton": sealed.transfer.value_nanoton,
                    "until_s": sealed.terms.until,
                })
            );
        } else {
            println!("{}", sealed.address);
        }
        return Ok(Exit::Success);
    }
    eprintln!("posted {}", sealed.address);
    let finished = client.follow(&sealed.address, true, |event| eprintln!("{}", event.name)).await?;
    show_outcome(&finished, arguments.json)
}

async fn status(arguments: StatusArguments) -> anyhow::Result<Exit> {
    let at = arguments.network.open()?;
    let job = address(&arguments.job)?;
    let head = at.chain.head().await?;
    let story = arguments.last.story(&at, &job, &head).await?;
    let described = describe(&at, &story, head.time_s).await?;
    if arguments.json {
        println!("{described:#}");
    } else {
        println!("{}", described["state"].as_str().unwrap_or_default());
        for event in story.events() {
            let amount = named_amount(&event).map(|(name, amount)| format!(" {name} {amount}"));
            println!("  {} {}{}", event.at_s, event.name, amount.unwrap_or_default());
        }
        if let Some(deadline_s) = story.deadline_s() {
            let words = if head.time_s > deadline_s { "overdue since" } else { "deadline" };
            println!("  {deadline_s} {words}");
        }
    }
    Ok(Exit::Success)
}

async fn result(arguments: ResultArguments) -> anyhow::Result<Exit> {
    let at = arguments.network.open()?;
    let job = address(&arguments.job)?;
    let keys = match (arguments.replies.keys(at.network.id(), false)?, &arguments.mnemonic) {
        (Some(keys), _) => keys,
        (None, Some(path)) => wallet_of(path, at.network.id())?,
        (None, None) => bail!("give --mnemonic or --reply-keys"),
    };
    let mut head = at.chain.head().await?;
    loop {
        let story = arguments.last.story(&at, &job, &head).await?;
        let model_id = model_of(&*at.chain, &at.network, &story).await?;
        let key = reply_key(&keys, at.network.id(), &job)?;
        if let Some(outcome) = outcome(&story, &at.network, &key, model_id.as_ref())? {
            return show_outcome(&Finished { outcome, story }, arguments.json);
        }
        if !arguments.wait {
            let described = describe(&at, &story, head.time_s).await?;
            if arguments.json {
                println!("{described:#}");
            } else {
                let state = described["state"].as_str().unwrap_or_default();
                eprintln!("not finished: the job is {state}; ask again later, or with --wait");
            }
            return Ok(Exit::Unfinished);
        }
        head = next_block(&at.chain, &head).await?;
    }
}

/// What may be asked of a job on the chain.
#[derive(Clone, Copy)]
enum Order {
    Cancel,
    Close,
    TopUp(Nanoton),
    Expire,
    Sweep,
}

/// Sends an order, and says what the chain made of it; or hands it to a wallet app.
async fn steer(arguments: OrderArguments, order: Order) -> anyhow::Result<Exit> {
    let at = arguments.network.open()?;
    let job = address(&arguments.job)?;
    let head = at.chain.head().await?;
    let before = read_story(&*at.chain, &job, &head).await?;
    let status = before.status().context("the job is gone")?;
    let is_sweep = matches!(order, Order::Sweep);
    if status.is_closed() && !is_sweep {
        bail!("the job is {} already", status.name());
    }
    let transfer = match order {
        Order::Cancel if status == JobStatus::Open => order::cancel(&job)?,
        Order::Cancel if status.is_session() => {
            bail!("a session is not cancelled; ask for its end: `job close`")
        }
        Order::Cancel => {
            bail!("the worker has claimed the job; it ends with its receipt, or expires after its deadline")
        }
        Order::Close if status == JobStatus::Session => order::close(&job)?,
        Order::TopUp(amount) if status == JobStatus::Session => order::top_up(&job, amount)?,
        Order::Close | Order::TopUp(_) => {
            bail!("the job is {}; it is no session that goes on", status.name())
        }
        Order::Expire => {
            let deadline_s = before.deadline_s().context("the job has no deadline")?;
            if head.time_s <= deadline_s {
                bail!("the job has time until {deadline_s}; it is {} now", head.time_s);
            }
            order::expire(&job)?
        }
        Order::Sweep => {
            let life = before.life().context("the job is gone")?;
            let until = life.state().until;
            if !status.is_closed() || head.time_s <= until {
                bail!("a job is swept seven days after its end; this one is {}", status.name());
            }
            order::sweep(&job)?
        }
    };
    if !arguments.by.carry_out(&at, transfer, arguments.json).await? {
        return Ok(Exit::Success);
    }
    if is_sweep {
        return swept(&at, &job, &head, arguments.json).await;
    }
    let story = settle(&at, &job, &before).await?;
    let event = story.events().pop().context("the job is gone")?;
    let described = describe(&at, &story, at.chain.head().await?.time_s).await?;
    if arguments.json {
        println!("{described:#}");
    } else {
        println!("{}", event.status.name());
    }
    let done = match order {
        Order::Cancel => event.status == JobStatus::Cancelled,
        Order::Close => event.name == "close_asked",
        Order::TopUp(_) => event.name == "topped_up",
        Order::Expire => event.name == "expired",
        Order::Sweep => false,
    };
    Ok(done.into())
}

/// Waits until the job has taken, or refused, the order.
async fn settle(at: &OpenNetwork, job: &StdAddr, before: &JobStory) -> anyhow::Result<JobStory> {
    let known = before.events().len();
    let mut head = at.chain.head().await?;
    for _ in 0..BLOCKS_TO_WAIT {
        let story = read_story(&*at.chain, job, &head).await?;
        if story.events().len() > known {
            return Ok(story);
        }
        head = next_block(&at.chain, &head).await?;
    }
    bail!("the job has not answered yet; see `chrysalis job status {job}`")
}

/// Waits until the account is gone.
async fn swept(at: &OpenNetwork, job: &StdAddr, head: &McBlock, as_json: bool) -> anyhow::Result<Exit> {
    let mut head = *head;
    for _ in 0..BLOCKS_TO_WAIT {
        if at.chain.account(job, &head).await?.last.is_none() {
            if as_json {
                println!("{:#}", json!({ "job": job.to_string(), "state": "gone" }));
            } else {
                println!("gone");
            }
            return Ok(Exit::Success);
        }
        head = next_block(&at.chain, &head).await?;
    }
    bail!("the job is still there; see `chrysalis job status {job}`")
}

/// The next block, or the newest there is.
async fn next_block(chain: &LiteserverChain, head: &McBlock) -> anyhow::Result<McBlock> {
    match chain.wait_block(head.seqno.saturating_add(1), BLOCK_WAIT).await {
        Ok(block) => Ok(block),
        Err(_) => Ok(chain.head().await?),
    }
}

async fn describe(at: &OpenNetwork, story: &JobStory, now_s: u32) -> anyhow::Result<Value> {
    let told = story.told().context("the job was never posted")?;
    let model_id = model_of(&*at.chain, &at.network, story).await?;
    let deadline_s = story.deadline_s();
    let steps: Vec<Value> = story
        .events()
        .iter()
        .map(|event| {
            let mut step = json!({ "step": event.name, "at_s": event.at_s, "lt": event.lt.to_string() });
            if let Some((name, amount)) = named_amount(event) {
                step[format!("{name}_nanoton")] = json!(amount);
            }
            step
        })
        .collect();
    let worker = story.seller().map(|seller| StdAddr::new(WORKCHAIN, seller.worker).to_string());
    let paid = story.life().map(|life| life.state().paid);
    Ok(json!({
        "job": story.job().to_string(),
        "kind": told.kind,
        "state": told.status.name(),
        "swept": story.is_swept(),
        "worker": worker,
        "model_id": model_id,
        "deposit_nanoton": told.deposit_nanoton.get(),
        "paid_nanoton": paid.map(|paid| paid.get()),
        "deadline_s": deadline_s,
        "overdue": deadline_s.is_some_and(|deadline_s| now_s > deadline_s),
        "steps": steps,
    }))
}

/// What a step's amount is, nanoTON.
fn named_amount(event: &JobEvent) -> Option<(&'static str, u64)> {
    let name = match event.name {
        "claimed" => "bond",
        "posted" | "topped_up" => "deposit",
        _ => "paid",
    };
    event.amount.map(|amount| (name, amount.get()))
}

fn wallet_of(path: &Path, network_id: i32) -> anyhow::Result<Wallet> {
    let words = Zeroizing::new(read(path, "mnemonic")?);
    Wallet::from_mnemonic(&words, network_id).context("the mnemonic file is not usable")
}

fn show_outcome(finished: &Finished, as_json: bool) -> anyhow::Result<Exit> {
    let mut object = json!({
        "job": finished.story.job().to_string(),
        "state": finished.outcome.status().name(),
    });
    let exit = match &finished.outcome {
        Outcome::Settled(settled) => {
            let answer = match &settled.answer {
                Ok(answer) => answer,
                Err(error) => bail!("the job was settled, but its answer cannot be opened: {error}"),
            };
            object["answer"] = json!(answer.text);
            object["finish_reason"] = json!(answer.finish_reason);
            if let Some(vectors) = ask::beside_text(answer) {
                object["embeddings"] = vectors;
            }
            if let Some(language) = &answer.language {
                object["language"] = json!(language);
            }
            object["transcript_matches"] = json!(settled.transcript_matches);
            object["receipt"] = json!({
                "hash": settled.receipt_hash,
                "input_tokens": settled.receipt.units.input,
                "cached_input_tokens": settled.receipt.units.cached_input,
                "output_tokens": settled.receipt.units.output,
                "paid_nanoton": settled.paid.get(),
                "royalty_nanoton": settled.royalty.get(),
                "fee_nanoton": settled.fee.get(),
                "refund_nanoton": settled.refund.get(),
            });
            if !as_json {
                match object.get("embeddings") {
                    Some(vectors) => println!("{vectors}"),
                    None => println!("{}", answer.text),
                }
            }
            if !settled.transcript_matches {
                eprintln!("the receipt commits to another transcript than this answer's; do not trust it");
            }
            settled.transcript_matches.into()
        }
        Outcome::Session(end) => {
            object["session"] = json!({
                "redemptions": end.redemptions,
                "paid_nanoton": end.paid.get(),
                "share_nanoton": end.share.get(),
                "refund_nanoton": end.refund.get(),
            });
            if !as_json {
                println!("{} receipts, {} paid, {} came back", end.redemptions, end.paid, end.refund);
            }
            Exit::Success
        }
        Outcome::Rejected { code, reason, refund } => {
            let words = reason.map_or_else(|| format!("reason {code}"), |reason| reason.to_string());
            object["reason"] = json!({ "code": code, "words": words });
            object["refund_nanoton"] = json!(refund.get());
            if !as_json {
                eprintln!("the worker gave the job back: {words}; {refund} came back");
            }
            Exit::Failed
        }
        Outcome::Expired { refund, bond } => {
            object["refund_nanoton"] = json!(refund.get());
            object["bond_nanoton"] = json!(bond.get());
            if !as_json {
                eprintln!("the job expired; {refund} came back, and a bond of {bond}");
            }
            Exit::Failed
        }
        Outcome::Cancelled { refund } => {
            object["refund_nanoton"] = json!(refund.get());
            if !as_json {
                eprintln!("the job was cancelled; {refund} came back");
            }
            Exit::Failed
        }
    };
    if as_json {
        println!("{object:#}");
    }
    Ok(exit)
}

const BLOCKS_TO_WAIT: usize = 40;
const BLOCK_WAIT: std::time::Duration = std::time::Duration::from_secs(20);
