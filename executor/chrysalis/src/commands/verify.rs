//! `chrysalis verify`.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};
use chain::{ChainAccess, LiteserverChain, Timing};
use clap::Args;
use client::{CollectedJob, collect_job};
use contracts::network_file::NetworkFile;
use contracts::{Network, StdAddr};
use serde_json::json;
use verifier::{Collateral, JobHistory, QuotePolicy, Verdict, WorkerRegistration, audit};

use crate::market::global_config;

/// Which job, on which network.
#[derive(Args)]
pub(crate) struct VerifyArguments {
    /// The network file, `deployments/NETWORK.json`.
    #[arg(long)]
    network: PathBuf,
    /// The job's address.
    #[arg(long)]
    job: String,
    /// Collateral for the worker's quote, as a PCCS gives it (JSON).
    #[arg(long)]
    collateral: PathBuf,
    /// Accept the simulator's root that the network file names. Proves nothing about hardware.
    #[arg(long)]
    dangerous_accept_simulated: bool,
    /// Judge the quote as of this Unix time instead of the chain's.
    #[arg(long)]
    at_s: Option<u64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: VerifyArguments) -> anyhow::Result<bool> {
    let text = std::fs::read_to_string(&arguments.network)
        .with_context(|| format!("cannot read the network file {}", arguments.network.display()))?;
    let file = NetworkFile::parse(&text)?;
    let job = StdAddr::from_str(&arguments.job).context("--job is no address; give WORKCHAIN:HEX")?;
    let text = std::fs::read_to_string(&arguments.collateral)
        .with_context(|| format!("cannot read the collateral {}", arguments.collateral.display()))?;
    let collateral: Collateral =
        serde_json::from_str(&text).context("the collateral is not a PCCS answer")?;
    let measurements = file.measurements.iter().map(|entry| entry.measurement).collect();
    let policy = match (file.quote_root.simulated, arguments.dangerous_accept_simulated) {
        (false, _) => QuotePolicy::production(measurements),
        (true, true) => QuotePolicy::dangerous_simulated(file.quote_root.der()?, measurements),
        (true, false) => bail!(
            "network {} trusts a simulator; its quotes prove nothing about hardware. \
             Pass --dangerous-accept-simulated to check them all the same",
            file.name
        ),
    };
    let network = file.network()?;
    let chain = LiteserverChain::new(&global_config(&file, &arguments.network)?, Timing::default());
    let collected = collect_job(&chain, &network, &job).await?;
    let now_s = match arguments.at_s {
        Some(at_s) => at_s,
        None => u64::from(chain.head().await?.time_s),
    };
    let verdict = audit_collected(&network, &collected, &collateral, &policy, now_s);
    if arguments.json {
        println!(
            "{:#}",
            json!({ "job": job.to_string(), "holds": verdict.all_passed(), "checks": verdict.checks })
        );
    } else {
        for check in &verdict.checks {
            println!(
                "{} {}: {} ({})",
                if check.passed { "ok" } else { "NO" },
                check.name,
                check.proves,
                check.detail
            );
        }
    }
    Ok(verdict.all_passed())
}

/// Hands what was collected to the verifier.
pub(crate) fn audit_collected(
    network: &Network,
    collected: &CollectedJob,
    collateral: &Collateral,
    policy: &QuotePolicy,
    now_s: u64,
) -> Verdict {
    let registration = collected.registration.as_ref().map(|found| WorkerRegistration {
        candidate: found.candidate.clone(),
        quote: found.quote.clone(),
        at_s: found.transaction.tx.now,
        mc_root_hash: collected.attested_block.map(|block| block.root_hash),
    });
    let history = JobHistory {
        network: network.clone(),
        job: collected.job.clone(),
        transactions: collected.transactions.iter().map(|transaction| transaction.cell.clone()).collect(),
        balance_nanoton: collected.account.balance_nanoton(),
        registration,
    };
    audit(&history, collateral, policy, now_s)
}
