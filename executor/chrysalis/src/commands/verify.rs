//! `chrysalis verify`.

use chain::ChainAccess;
use clap::Args;
use client::{CollectedJob, collect_job};
use contracts::{HashBytes, Network};
use serde_json::json;
use verifier::{
    AttestorTrust, Audit, Collateral, Conclusion, JobHistory, QuotePolicy, RegistryAccount,
    WorkerRegistration, audit,
};

use super::job::LastArguments;
use crate::evidence::{account_of, trace_of};
use crate::exit::Exit;
use crate::network::{NetworkArguments, QuoteArguments, address};

/// Which job, on which network.
#[derive(Args)]
pub(crate) struct VerifyArguments {
    /// The job's address.
    job: String,
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    quote: QuoteArguments,
    #[command(flatten)]
    last: LastArguments,
    /// Judge the quote as of this Unix time instead of the chain's.
    #[arg(long)]
    at_s: Option<u64>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: VerifyArguments) -> anyhow::Result<Exit> {
    let at = arguments.network.open()?;
    let job = address(&arguments.job)?;
    let (policy, collateral) = (arguments.quote.policy(&at)?, arguments.quote.collateral(&at)?);
    let collected = collect_job(&*at.chain, &at.network, &job, arguments.last.swept_by()).await?;
    let now_s = match arguments.at_s {
        Some(at_s) => at_s,
        None => u64::from(at.chain.head().await?.time_s),
    };
    let trusted = Trusted { registry_code: at.file.registry_code.hash, attestor: at.attestor()? };
    let audit = audit_collected(&at.network, trusted, &collected, &collateral, &policy, now_s);
    let conclusion = audit.conclusion();
    if arguments.json {
        println!(
            "{:#}",
            json!({
                "job": job.to_string(),
                "status": audit.status,
                "conclusion": conclusion,
                "holds": conclusion == Conclusion::Holds,
                "ledger": audit.ledger,
                "story": audit.story,
                "checks": audit.verdict.checks,
            })
        );
    } else {
        print(&audit);
    }
    Ok(conclusion.into())
}

/// What the network file vouches for.
pub(crate) struct Trusted {
    /// Hash of the Registry's code.
    pub(crate) registry_code: HashBytes,
    /// Code and root of the Attestor.
    pub(crate) attestor: AttestorTrust,
}

/// Hands what was collected to the verifier.
pub(crate) fn audit_collected(
    network: &Network,
    trusted: Trusted,
    collected: &CollectedJob,
    collateral: &Collateral,
    policy: &QuotePolicy,
    now_s: u64,
) -> Audit {
    let registration = collected.registration.as_ref().map(|found| WorkerRegistration {
        trace: trace_of(found),
        mc_root_hash: collected.attested_block.map(|block| block.root_hash),
    });
    let registry = collected.registry.code().zip(collected.registry.data()).map(|(code, data)| {
        RegistryAccount { code: code.clone(), data: data.clone(), as_of_s: collected.as_of.time_s }
    });
    let history = JobHistory {
        network: network.clone(),
        registry_code: trusted.registry_code,
        registry,
        attestor_trust: trusted.attestor,
        attestor: collected.attestor.as_ref().map(account_of),
        job: collected.job.clone(),
        transactions: collected.transactions.iter().map(|transaction| transaction.cell.clone()).collect(),
        balance_nanoton: collected.balance_nanoton,
        state: collected.state.clone(),
        registration,
        model: collected.model.as_ref().and_then(|view| view.data().cloned()),
        offer: collected.offer.as_ref().map(|transaction| transaction.cell.clone()),
    };
    audit(&history, collateral, policy, now_s)
}

fn print(audit: &Audit) {
    for check in &audit.verdict.checks {
        let mark = if check.passed { "ok" } else { "NO" };
        println!("{mark} {}: {} ({})", check.name, check.proves, check.detail);
    }
    if let Some(ledger) = &audit.ledger {
        println!(
            "received {} nanoTON: client {}, worker {}, model {}, others {}, chain {}, left {}; unaccounted {}",
            ledger.received_nanoton,
            ledger.to_client_nanoton,
            ledger.to_worker_nanoton,
            ledger.to_model_nanoton,
            ledger.to_others_nanoton,
            ledger.to_chain_nanoton,
            ledger.left_nanoton,
            ledger.unaccounted_nanoton()
        );
    }
    let state = audit.status.map_or("no job", |status| status.name());
    match audit.conclusion() {
        Conclusion::Holds => println!("{state}: every check held"),
        Conclusion::Unfinished => println!("{state}: not finished, nothing wrong so far; ask again later"),
        Conclusion::Fails => println!("{state}: FAILED, see the lines that begin with NO"),
    }
}
