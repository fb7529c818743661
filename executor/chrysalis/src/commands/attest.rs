//! `chrysalis attest`: quotes, collateral and registrations.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use chain::trace::{self, Step};
use chain::{ChainAccess, LiteserverChain, Transfer, WalletSender};
use clap::{Args, Subcommand};
use client::{deploy, earlier_generation, read_attestor, read_worker};
use collateral::{Address, Ca, Pccs, Platform, Settings};
use contracts::artifacts::{Contract, code};
use contracts::attestor::Bytes;
use contracts::{HashBytes, Network, StdAddr};
use prover::certificate::Kind;
use prover::collateral::postings;
use prover::quote::{PckChain, Quote};
use serde_json::{Value, json};
use verifier::{Collateral, verify_quote};
use worker::attestation::read_quote;
use worker::registration::recent_block;
use worker::{Registrant, is_attested, refusals_in};

use crate::commands::worker::{Operator, OperatorArguments};
use crate::exit::Exit;
use crate::market::now_s;
use crate::network::{NetworkArguments, OpenNetwork, QuoteArguments, WalletArguments, address};
use crate::rehearsal::rehearse;
use crate::report::{TransactionReport, ton};

/// What to do about attestation.
#[derive(Subcommand)]
pub(crate) enum AttestCommand {
    /// Show what a quote says, whether it holds, and what the network's Attestor lacks to verify it.
    Inspect(InspectArguments),
    /// Bring collateral that the platform's vendor signed to the network's Attestor. Anybody may.
    PostCollateral(PostArguments),
    /// Have the keys of the worker in the configuration attested now. A running worker does this itself.
    Register(RegisterArguments),
    /// Have a worker whose platform's certificate is revoked give up its attestation. Anybody may.
    ReportRevocation(ReportArguments),
}

/// Which quote.
#[derive(Args)]
pub(crate) struct InspectArguments {
    /// A file with the raw quote.
    quote: PathBuf,
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    judged: QuoteArguments,
    #[command(flatten)]
    server: PccsArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// A server of collateral.
#[derive(Args)]
pub(crate) struct PccsArguments {
    /// Fetch the collateral from this server, Intel's PCS or any PCCS (base address), instead of taking it from a file.
    #[arg(long, value_name = "URL", conflicts_with = "collateral")]
    pccs: Option<Address>,
    /// A PEM file with the authorities that the server proves itself by, in the place of the system's.
    #[arg(long, value_name = "FILE", requires = "pccs")]
    pccs_authority: Option<PathBuf>,
}

/// What to bring.
#[derive(Args)]
pub(crate) struct PostArguments {
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    wallet: WalletArguments,
    /// A file with the collateral, as a PCCS gives it (JSON). Without it, `collateral.json` beside the network file.
    #[arg(long)]
    collateral: Option<PathBuf>,
    #[command(flatten)]
    server: PccsArguments,
    #[command(flatten)]
    platform: PlatformArguments,
    #[command(flatten)]
    way: WayArguments,
}

/// For which platform a server is asked.
#[derive(Args)]
pub(crate) struct PlatformArguments {
    /// A file with a raw quote of the platform that the collateral is fetched for.
    #[arg(long, value_name = "FILE", requires = "pccs", conflicts_with_all = ["fmspc", "ca"])]
    quote: Option<PathBuf>,
    /// The FMSPC of the platforms that it is fetched for, in hexadecimal.
    #[arg(long, value_name = "HEX", requires = "pccs", requires = "ca")]
    fmspc: Option<String>,
    /// Who issued their PCK certificates: platform or processor.
    #[arg(long, requires = "fmspc")]
    ca: Option<Ca>,
}

/// Whose keys.
#[derive(Args)]
pub(crate) struct RegisterArguments {
    #[command(flatten)]
    operator: OperatorArguments,
    #[command(flatten)]
    way: WayArguments,
}

/// Which worker.
#[derive(Args)]
pub(crate) struct ReportArguments {
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    wallet: WalletArguments,
    /// Address of the worker's contract.
    #[arg(long)]
    worker: String,
    #[command(flatten)]
    way: WayArguments,
}

/// How to do it.
#[derive(Args)]
pub(crate) struct WayArguments {
    /// Send nothing: run the messages here, on the accounts as they are, and show what they would cost.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(command: AttestCommand) -> anyhow::Result<Exit> {
    match command {
        AttestCommand::Inspect(arguments) => inspect(arguments).await,
        AttestCommand::PostCollateral(arguments) => post_collateral(arguments).await,
        AttestCommand::Register(arguments) => register(arguments).await,
        AttestCommand::ReportRevocation(arguments) => report_revocation(arguments).await,
    }
}

impl PccsArguments {
    /// What the server gives; `None` where none was named.
    async fn collateral(
        &self,
        at: &OpenNetwork,
        platform: impl FnOnce() -> anyhow::Result<Platform>,
    ) -> anyhow::Result<Option<Collateral>> {
        let Some(address) = &self.pccs else { return Ok(None) };
        let settings =
            Settings { authority_file: self.pccs_authority.clone(), ..Settings::of(address.clone()) };
        let pccs = Pccs::new(settings, &at.file.quote_root.der()?)?;
        Ok(Some(pccs.collateral(&platform()?, now_s()).await?))
    }
}

impl PlatformArguments {
    fn platform(&self) -> anyhow::Result<Platform> {
        if let Some(path) = &self.quote {
            return Ok(Platform::of_quote(&raw_quote(path)?)?);
        }
        let (Some(fmspc), Some(ca)) = (&self.fmspc, self.ca) else {
            bail!(
                "collateral of which platform? give --quote FILE, or --fmspc HEX and --ca platform or processor"
            )
        };
        let mut bytes = [0; 6];
        hex::decode_to_slice(fmspc, &mut bytes)
            .with_context(|| format!("{fmspc} is no FMSPC; give six bytes in hexadecimal"))?;
        Ok(Platform { fmspc: Bytes(bytes), ca })
    }
}

fn raw_quote(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read the quote {}", path.display()))
}

async fn inspect(arguments: InspectArguments) -> anyhow::Result<Exit> {
    let at = arguments.network.open()?;
    let raw = raw_quote(&arguments.quote)?;
    let quote = Quote::parse(&raw)?;
    let report = read_quote(&raw)?;
    let head = at.chain.head().await?;
    let attestor = read_attestor(&*at.chain, &at.network, &head).await?;
    let fetched = arguments.server.collateral(&at, || Ok(Platform::of_quote(&raw)?)).await?;
    let collateral = fetched.map_or_else(|| arguments.judged.collateral(&at), Ok)?;
    let pem = quote.pck_chain.as_deref().or(collateral.pck_certificate_chain.as_deref());
    let chain = PckChain::from_pem(pem.context("neither quote nor collateral has the certificate chain")?)?;
    let Kind::Pck(claims) = &chain.pck.kind else { bail!("the chain does not begin with a PCK certificate") };
    let lacks: Vec<&str> =
        postings(&collateral, &attestor.storage, 0)?.iter().map(|posting| posting.what()).collect();
    let proof = quote.prove_with(&chain)?;
    let policy = arguments.judged.policy(&at)?;
    let (verdict, facts) = verify_quote(&raw, &collateral, &policy, u64::from(head.time_s));
    let registered = at.network.platform_address(claims.ppid)?;
    let object = json!({
        "version": quote.version,
        "measurement": report.measurement,
        "report_data": hex::encode(report.report_data),
        "ppid": hex::encode(claims.ppid.0),
        "fmspc": hex::encode(claims.fmspc.0),
        "pce_id": claims.pce_id,
        "serial": hex::encode(chain.pck.serial.0),
        "certificate_ends_s": chain.pck.not_after,
        "authority": chain.issuer.key_hash(),
        "authority_known": attestor.storage.authorities.get(chain.issuer.key_hash())?.is_some(),
        "tcb_info_known": attestor.storage.collateral.tcb_infos.get(claims.fmspc)?.is_some(),
        "attestor": attestor.address.to_string(),
        "attestor_lacks": lacks,
        "platform": registered.to_string(),
        "tcb_status": facts.map(|facts| facts.tcb_status),
        "proof_cells": contracts::wire::to_cell(&proof)?.compute_unique_stats(1_000).map(|stats| stats.cell_count),
        "holds": verdict.all_passed(),
        "checks": verdict.checks,
    });
    if arguments.json {
        println!("{object:#}");
    } else {
        for (name, value) in object.as_object().into_iter().flatten() {
            if name != "checks" {
                println!("{name}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            }
        }
        for check in &verdict.checks {
            println!("{} {}: {}", if check.passed { "ok" } else { "NO" }, check.name, check.detail);
        }
    }
    Ok(verdict.all_passed().into())
}

async fn post_collateral(arguments: PostArguments) -> anyhow::Result<Exit> {
    let at = arguments.network.open()?;
    let sender = arguments.wallet.sender(&at)?;
    let fetched = arguments.server.collateral(&at, || arguments.platform.platform()).await?;
    let collateral = fetched.map_or_else(|| at.collateral(arguments.collateral.as_deref()), Ok)?;
    let head = at.chain.head().await?;
    let held = read_attestor(&*at.chain, &at.network, &head).await?.storage;
    let missing = postings(&collateral, &held, 0)?;
    let what: Vec<&str> = missing.iter().map(|posting| posting.what()).collect();
    let transfers = missing.iter().map(|posting| deploy::post_collateral(&at.network, posting));
    let transfers = transfers.collect::<Result<Vec<_>, _>>()?;
    let facts = json!({ "posted": what, "attestor": at.network.generation.params.attestor.to_string() });
    carry_out(&sender, &at.network, &transfers, facts, &arguments.way).await
}

async fn register(arguments: RegisterArguments) -> anyhow::Result<Exit> {
    let operator = Operator::open(&arguments.operator)?;
    let Some(sender) = &operator.sender else {
        bail!("pass --owner-mnemonic FILE: the owner's wallet registers")
    };
    let keys = operator.lasting_keys()?;
    let (chain, network) = (&*operator.chain, &operator.network);
    let registrant = Registrant {
        network: network.clone(),
        worker_code: code(Contract::Worker),
        owner: operator.owner.clone(),
        worker: operator.worker.clone(),
        model_id: HashBytes::ZERO,
        config: operator.config.clone(),
    };
    let head = chain.head().await?;
    let worker = read_worker(chain, network, &operator.worker, &head)
        .await
        .context("a worker has to be staked before it registers; start `chrysalis worker` once")?;
    let held = read_attestor(chain, network, &head).await?.storage;
    let block = recent_block(chain).await?;
    let (source, collateral) = (operator.attestation.clone(), operator.collateral.clone());
    let (prover, seqno) = (registrant.clone(), worker.state.registration_seqno);
    let proven = tokio::task::spawn_blocking(move || {
        let collateral =
            collateral.collateral().map_err(|error| eprintln!("nothing is posted: {error}")).ok();
        prover.prove(source.as_ref(), collateral.as_ref(), &keys, seqno, &block, &held)
    });
    let mut proven = proven.await??;
    proven.request.generation = earlier_generation(chain, network, &head).await?;
    let facts = json!({
        "worker": operator.worker.to_string(),
        "registration_seqno": seqno,
        "mc_seqno": proven.request.mc_seqno,
        "receipt_key": proven.request.receipt_key,
        "encryption_key": proven.request.encryption_key,
        "posted": proven.postings.iter().map(|posting| posting.what()).collect::<Vec<_>>(),
    });
    carry_out(sender, network, &registrant.registration(&proven)?, facts, &arguments.way).await
}

async fn report_revocation(arguments: ReportArguments) -> anyhow::Result<Exit> {
    let at = arguments.network.open()?;
    let sender = arguments.wallet.sender(&at)?;
    let worker = address(&arguments.worker)?;
    let head = at.chain.head().await?;
    let view = read_worker(&*at.chain, &at.network, &worker, &head).await?;
    let Some(attestation) = &view.state.attestation else {
        bail!("the worker has no attestation to give up")
    };
    let evidence = &attestation.evidence;
    let transfer = deploy::report_revocation(&at.network, &worker, evidence)?;
    let facts = json!({
        "worker": worker.to_string(),
        "authority": evidence.authority,
        "serial": hex::encode(evidence.serial.0),
    });
    carry_out(&sender, &at.network, &[transfer], facts, &arguments.way).await
}

/// Sends the transfers, or only rehearses them, and says what they caused and cost.
async fn carry_out(
    sender: &WalletSender<LiteserverChain>,
    network: &Network,
    transfers: &[Transfer],
    facts: Value,
    way: &WayArguments,
) -> anyhow::Result<Exit> {
    let owner = sender.wallet().address();
    let steps = if transfers.is_empty() {
        Vec::new()
    } else if way.dry_run {
        rehearse(sender, network.id(), transfers).await?
    } else {
        let confirmed = sender.send(transfers).await?;
        trace::follow(&**sender.chain(), owner, confirmed.transaction, trace::Limits::default()).await?
    };
    let refused = refusal(&steps);
    let worker = facts["worker"].as_str().unwrap_or_default().to_owned();
    let transactions = steps
        .iter()
        .map(|step| TransactionReport::of(name_of(network, owner, &worker, &step.account), &step.transaction))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let gas_used: u64 = transactions.iter().map(|transaction| transaction.gas_used).sum();
    let fees_nanoton: u128 = transactions.iter().map(TransactionReport::all_fees_nanoton).sum();
    if way.json {
        let mut object = facts;
        object["dry_run"] = way.dry_run.into();
        object["done"] = (refused.is_none() && !way.dry_run && !steps.is_empty()).into();
        object["refused"] = refused.clone().into();
        object["gas_used"] = gas_used.into();
        object["fees_nanoton"] = u64::try_from(fees_nanoton).unwrap_or(u64::MAX).into();
        object["transactions"] = serde_json::to_value(&transactions)?;
        println!("{object:#}");
    } else {
        if transactions.is_empty() {
            println!("nothing to send: the Attestor holds all of it, or newer");
        }
        print!("{}", TransactionReport::table("Transactions", &transactions));
        let verb = if way.dry_run { "would cost" } else { "cost" };
        println!("{gas_used} gas; {verb} {} TON of fees", ton(fees_nanoton));
        if let Some(refused) = &refused {
            println!("REFUSED: {refused}");
        }
    }
    Ok(refused.is_none().into())
}

fn name_of(network: &Network, owner: &StdAddr, worker: &str, account: &StdAddr) -> &'static str {
    match account {
        account if account == owner => "wallet",
        account if *account == network.generation.params.attestor => "Attestor",
        account if *account == network.registry => "Registry",
        account if account.to_string() == worker => "Worker",
        _ => "Platform",
    }
}

/// What a trace's contracts refused, in words; nothing where a registration succeeded all the same, since somebody else
/// may have posted the same collateral meanwhile.
fn refusal(steps: &[Step]) -> Option<String> {
    let refusals = refusals_in(steps);
    if refusals.is_empty() || is_attested(steps) {
        return None;
    }
    Some(refusals.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}
