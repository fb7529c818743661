//! `chrysalis job`: a developer's jobs, from the posting to the answer.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use chain::ChainAccess;
use clap::{Args, Subcommand};
use client::{Finished, JobRequest, JobStep, JobStory, Outcome, model_of, outcome, read_story, reply_key};
use contracts::job::JobStatus;
use contracts::network::WORKCHAIN;
use contracts::sealing::ChatMessage;
use contracts::work::{GenerateParams, Request};
use contracts::{HashBytes, Nanoton, Prices, StdAddr, Units};
use rand::RngExt;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::exit::Exit;
use crate::market::random;
use crate::network::{NetworkArguments, OpenNetwork, QuoteArguments, WalletArguments, address};

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
    Cancel(EndArguments),
    /// End a job whose deadline has passed. Anybody may.
    Expire(EndArguments),
}

/// What to ask, whom, and for how much.
#[derive(Args)]
pub(crate) struct PostArguments {
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    wallet: WalletArguments,
    #[command(flatten)]
    quote: QuoteArguments,
    /// Address of the worker's contract.
    #[arg(long)]
    worker: String,
    /// The model's id (hexadecimal).
    #[arg(long)]
    model_id: HashBytes,
    /// A file with the prompt; `-`: standard input. Arguments show in the list of processes, so the prompt is none.
    #[arg(long, default_value = "-")]
    prompt_file: PathBuf,
    /// The most tokens of the answer.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    max_output_tokens: u32,
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
    #[arg(long)]
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
    wallet: WalletArguments,
    /// Follow the job to its end.
    #[arg(long)]
    wait: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Which job, by which wallet.
#[derive(Args)]
pub(crate) struct EndArguments {
    /// The job's address.
    job: String,
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    wallet: WalletArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(command: JobCommand) -> anyhow::Result<Exit> {
    match command {
        JobCommand::Post(arguments) => post(*arguments).await,
        JobCommand::Status(arguments) => status(arguments).await,
        JobCommand::Result(arguments) => result(arguments).await,
        JobCommand::Cancel(arguments) => end(arguments, JobStatus::Cancelled).await,
        JobCommand::Expire(arguments) => end(arguments, JobStatus::Expired).await,
    }
}

async fn post(arguments: PostArguments) -> anyhow::Result<Exit> {
    let at = arguments.network.open()?;
    let worker = address(&arguments.worker)?;
    let prompt = prompt(&arguments.prompt_file)?;
    let judge = arguments.quote.judge(&at)?;
    let client = at.client(arguments.wallet.sender(&at)?);
    let trusted = client.check_worker(&worker, &judge).await?;
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
    let request = JobRequest {
        worker: worker.clone(),
        model_id: arguments.model_id,
        work: Request::chat(
            vec![ChatMessage::new("user", prompt.as_str())],
            GenerateParams::greedy(arguments.max_output_tokens),
        ),
        measurement: trusted.view.attestation().map(|attestation| attestation.measurement)?,
        max_prices,
        max_units: Units {
            // A token stands for a byte at least.
            input: u32::try_from(prompt.len())?.saturating_add(TEMPLATE_TOKENS),
            cached_input: 0,
            output: arguments.max_output_tokens,
        },
        deposit: None,
        open_for_s: arguments.open_for_s,
        settle_within_s: arguments.settle_within_s,
    };
    let sealed = client.seal(&request, &trusted, random().random(), &mut random()).await?;
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
    let finished = client.follow(&sealed.address, true, |event| eprintln!("{}", event.step.name())).await?;
    show_outcome(&finished, arguments.json)
}

async fn status(arguments: StatusArguments) -> anyhow::Result<Exit> {
    let at = arguments.network.open()?;
    let job = address(&arguments.job)?;
    let head = at.chain.head().await?;
    let story = read_story(&*at.chain, &job, &head).await?;
    let described = describe(&at, &story).await?;
    if arguments.json {
        println!("{described:#}");
    } else {
        println!("{}", described["state"].as_str().unwrap_or_default());
        for event in &story.events {
            println!("  {} {}", event.at_s, event.step.name());
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
    let sender = arguments.wallet.sender(&at)?;
    if arguments.wait {
        let finished = at.client(sender).follow(&job, false, |_| {}).await?;
        return show_outcome(&finished, arguments.json);
    }
    let head = at.chain.head().await?;
    let story = read_story(&*at.chain, &job, &head).await?;
    let key = reply_key(sender.wallet(), at.network.id(), &job)?;
    let model_id = model_of(&*at.chain, &at.network, &story).await?;
    match outcome(&story, &at.network, &key, model_id.as_ref())? {
        Some(outcome) => show_outcome(&Finished { outcome, story }, arguments.json),
        None => {
            let described = describe(&at, &story).await?;
            if arguments.json {
                println!("{described:#}");
            } else {
                let state = described["state"].as_str().unwrap_or_default();
                eprintln!("not finished: the job is {state}; ask again later, or with --wait");
            }
            Ok(Exit::Unfinished)
        }
    }
}

/// Sends the order that ends a job, and says what the chain made of it.
async fn end(arguments: EndArguments, wanted: JobStatus) -> anyhow::Result<Exit> {
    let at = arguments.network.open()?;
    let job = address(&arguments.job)?;
    let client = at.client(arguments.wallet.sender(&at)?);
    let head = at.chain.head().await?;
    let before = read_story(&*at.chain, &job, &head).await?;
    let status = before.status().context("the job is gone")?;
    if status.is_closed() {
        bail!("the job is {} already", status.name());
    }
    match wanted {
        JobStatus::Cancelled if status == JobStatus::Claimed => {
            bail!("the worker has claimed the job; it ends with its receipt, or expires after its deadline")
        }
        JobStatus::Cancelled => client.cancel(&job).await?,
        _ => {
            let deadline_s = before.deadline_s().context("the job has no deadline")?;
            if head.time_s <= deadline_s {
                bail!("the job has time until {deadline_s}; it is {} now", head.time_s);
            }
            client.expire(&job).await?
        }
    };
    let story = settle(&at, &job, &before).await?;
    let found = story.status().context("the job is gone")?;
    let described = describe(&at, &story).await?;
    if arguments.json {
        println!("{described:#}");
    } else {
        println!("{}", found.name());
    }
    Ok((found == wanted).into())
}

/// Waits until the job has taken, or refused, the order.
async fn settle(at: &OpenNetwork, job: &StdAddr, before: &JobStory) -> anyhow::Result<JobStory> {
    let newest_known = before.events.last().map(|event| event.id.lt);
    for _ in 0..BLOCKS_TO_WAIT {
        let head = at.chain.head().await?;
        let story = read_story(&*at.chain, job, &head).await?;
        if story.events.last().map(|event| event.id.lt) != newest_known {
            return Ok(story);
        }
        let _ = at.chain.wait_block(head.seqno.saturating_add(1), BLOCK_WAIT).await;
    }
    bail!("the job has not answered yet; see `chrysalis job status {job}`")
}

async fn describe(at: &OpenNetwork, story: &JobStory) -> anyhow::Result<Value> {
    let (_, posting) = story.posted().context("the job was never posted")?;
    let model_id = model_of(&*at.chain, &at.network, story).await?;
    let now_s = at.chain.head().await?.time_s;
    let deadline_s = story.deadline_s();
    let steps: Vec<Value> = story
        .events
        .iter()
        .map(|event| {
            let mut step =
                json!({ "step": event.step.name(), "at_s": event.at_s, "lt": event.id.lt.to_string() });
            if let JobStep::Claimed { bond } = &event.step {
                step["bond_nanoton"] = json!(bond.get());
            }
            step
        })
        .collect();
    Ok(json!({
        "job": story.job.to_string(),
        "state": story.status().map_or("gone", JobStatus::name),
        "worker": StdAddr::new(WORKCHAIN, posting.seller.worker).to_string(),
        "model_id": model_id,
        "deposit_nanoton": posting.deposit.get(),
        "deadline_s": deadline_s,
        "overdue": deadline_s.is_some_and(|deadline_s| now_s > deadline_s),
        "steps": steps,
    }))
}

fn show_outcome(finished: &Finished, as_json: bool) -> anyhow::Result<Exit> {
    let mut object = json!({
        "job": finished.story.job.to_string(),
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
            object["transcript_matches"] = json!(settled.transcript_matches);
            object["receipt"] = json!({
                "hash": settled.receipt_hash,
                "input_tokens": settled.receipt.units.input,
                "output_tokens": settled.receipt.units.output,
                "paid_nanoton": settled.paid.get(),
                "royalty_nanoton": settled.royalty.get(),
                "fee_nanoton": settled.fee.get(),
                "refund_nanoton": settled.refund.get(),
            });
            if !as_json {
                println!("{}", answer.text);
            }
            if !settled.transcript_matches {
                eprintln!("the receipt commits to another transcript than this answer's; do not trust it");
            }
            settled.transcript_matches.into()
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

/// The prompt, wiped on drop.
fn prompt(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    // One allocation, so that no copy is left behind by a buffer that grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PROMPT_BYTES + 1));
    let limit = MAX_PROMPT_BYTES as u64 + 1;
    if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes).context("cannot read standard input")?;
    } else {
        let file = std::fs::File::open(path)
            .with_context(|| format!("cannot read the prompt file {}", path.display()))?;
        file.take(limit)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read the prompt file {}", path.display()))?;
    }
    let text = std::str::from_utf8(&bytes).ok().context("the prompt is not UTF-8")?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    if text.is_empty() || text.len() > MAX_PROMPT_BYTES {
        bail!("the prompt has to have between 1 and {MAX_PROMPT_BYTES} bytes");
    }
    Ok(Zeroizing::new(text.to_owned()))
}

/// What fits a sealed input beside the rest of its JSON.
const MAX_PROMPT_BYTES: usize = 16 * 1024;
/// The chat template adds fewer tokens than this.
const TEMPLATE_TOKENS: u32 = 128;
const BLOCKS_TO_WAIT: usize = 40;
const BLOCK_WAIT: std::time::Duration = std::time::Duration::from_secs(20);
