//! Re-checks a whole job from what is on the chain, however it ended.
//!
//! The history may come from anybody. Transactions are bound to each other by their hashes, and the caller binds the
//! newest to the account's state; so a server that lies can withhold or invent a whole history, not alter a true one.
//! Masterchain signatures are not part of it.

mod ledger;
mod life;
mod market;
mod payments;
mod seller;
mod session;
mod steps;
mod story;

use contracts::errors::RejectionReason;
use contracts::job::{JobState, JobStatus, PostRejection, ReportEquivocation, TakeJob};
use contracts::network::WORKCHAIN;
use contracts::registry::RegistryStorage;
use contracts::wire::{from_cell, to_cell};
use contracts::{Cell, HashBytes, Network, StdAddr};
use serde::Serialize;

pub use ledger::Ledger;
pub use story::Story;

use crate::check::{Party, Verdict, holds};
use crate::quote::{Collateral, QuotePolicy};
use crate::receipt::{ReceiptTerms, all, verify_receipt, verify_rejection};
use crate::registration::{
    AttestorAccount, AttestorTrust, RegistrationTrace, read_registration, verify_attestor,
    verify_registration,
};
use life::{Act, Event, Life};

/// More transactions than a job's life and the refusals of strangers can explain.
pub const MAX_TRANSACTIONS: usize = 10_000;

/// What the chain has on one job.
#[derive(Debug, Clone)]
pub struct JobHistory {
    /// The generation of contracts, from the network file.
    pub network: Network,
    /// Hash of the Registry's code, from the network file.
    pub registry_code: HashBytes,
    /// The Registry's account as the chain has it.
    pub registry: Option<RegistryAccount>,
    /// What the network's Attestor has to be, from the network file.
    pub attestor_trust: AttestorTrust,
    /// The Attestor's account as the chain has it.
    pub attestor: Option<AttestorAccount>,
    /// The job's address.
    pub job: StdAddr,
    /// Every transaction of the job's account, oldest first: root cells. The caller has compared the hash of the last
    /// with the account's state, since nothing here names it.
    pub transactions: Vec<Cell>,
    /// The account's balance after them, nanoTON.
    pub balance_nanoton: u128,
    /// The contract's own state after them; nothing where the account is gone.
    pub state: Option<JobState>,
    /// What the worker registered its keys with.
    pub registration: Option<WorkerRegistration>,
    /// Data cell of the account of the model that the job names.
    pub model: Option<Cell>,
    /// The transaction in which the Worker took the offer of this model that was in force at the posting, or at the
    /// claim of a job of the market: a root cell. Its check is left out where the caller has none.
    pub offer: Option<Cell>,
}

/// The Registry's account, which lies at the address that the network names.
#[derive(Debug, Clone)]
pub struct RegistryAccount {
    /// Its code cell.
    pub code: Cell,
    /// Its data cell.
    pub data: Cell,
    /// Time of the block it was read at, Unix seconds.
    pub as_of_s: u32,
}

/// A worker's registration, as the chain has it.
#[derive(Debug, Clone)]
pub struct WorkerRegistration {
    /// Its transactions.
    pub trace: RegistrationTrace,
    /// Root hash of the masterchain block that it names, as the chain has it.
    pub mc_root_hash: Option<HashBytes>,
}

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// Where the job is in its life; nothing where the history is not that of a job.
    pub status: Option<JobStatus>,
    /// Where every nanoTON went; nothing where the history is not that of a job.
    pub ledger: Option<Ledger>,
    /// What happened; nothing where the history is not that of a job.
    pub story: Option<Story>,
    /// The checks.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// An audit in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// The job is over, and every check held.
    Holds,
    /// The job has not ended, and every other check held: ask again later.
    Unfinished,
    /// A check did not hold.
    Fails,
}

impl Audit {
    /// The word. Only [`Conclusion::Holds`] is a success.
    pub fn conclusion(&self) -> Conclusion {
        let is_open = self.status.is_some_and(|status| !status.is_closed());
        let rest_holds = || {
            let checks = &self.verdict.checks;
            checks.iter().all(|check| check.passed || check.name == ENDED)
        };
        if self.status.is_some() && self.verdict.all_passed() {
            Conclusion::Holds
        } else if is_open && rest_holds() {
            Conclusion::Unfinished
        } else {
            Conclusion::Fails
        }
    }
}

/// Audits the newest posting of a job as of `now_s`, Unix seconds.
///
/// The check `ended` fails for a job that has not ended: [`Conclusion::Unfinished`] where nothing else does.
pub fn audit(history: &JobHistory, collateral: &Collateral, policy: &QuotePolicy, now_s: u64) -> Audit {
    let mut audit = Audit::default();
    let verdict = &mut audit.verdict;
    let steps = steps::read_steps(history);
    verdict.add(
        "transactions_linked",
        "the history is the account's whole history, in order, and unaltered",
        Party::Chain,
        steps.as_ref().map(|steps| format!("{} transactions", steps.len())).map_err(Clone::clone),
    );
    let Ok(steps) = steps else { return audit };
    verdict.add(
        "conservation",
        "what came in is what went out, what the chain charged, and what is left",
        Party::Contracts,
        steps::conservation(&steps, history.balance_nanoton),
    );
    let life = Life::read(history, &steps);
    verdict.add(
        "life",
        "the job was posted once and ended once at most, and took every message in a state that allows it",
        Party::Chain,
        life.as_ref().map(|life| life.status().name().to_owned()).map_err(Clone::clone),
    );
    let Ok(life) = life else { return audit };
    audit.status = Some(life.status());
    audit.ledger = Some(Ledger::of(&life, &steps, history.balance_nanoton));
    audit.story = Some(Story::of(&life));
    verdict.add(ENDED, "the job is over: nobody can be paid any more", Party::Worker, ended(&life, now_s));
    check_registry(verdict, history, &life);
    check_posting(verdict, history, &life);
    market::check_market(verdict, &history.network, &life);
    check_state(verdict, history, &life);
    verdict.add(
        "logs_agree",
        "the job told the world at every step what it did, and nothing else",
        Party::Chain,
        story::logs(&life),
    );
    check_claims(verdict, &life);
    session::check_redemptions(verdict, &history.job, &life);
    check_clients_steps(verdict, &life);
    check_ending(verdict, history, &life);
    check_equivocations(verdict, history, &life);
    verdict.add(
        "payments",
        match life.status() {
            JobStatus::Settled => {
                "worker and model got what receipts, prices, vouchers and deposit allow, the client all the rest"
            }
            JobStatus::Rejected => "the deposit went back to the client, the bond to the worker, in one transaction",
            JobStatus::Expired => "the deposit, and the bond of a worker that did not answer, went to the client",
            JobStatus::Cancelled => "the deposit went back to the client",
            _ => "nothing was paid that is not due yet",
        },
        Party::Contracts,
        payments::payments(&life, &steps),
    );
    if let Some(finding) = payments::bounces(&life) {
        verdict.add(
            "bounces_forwarded",
            "a payment that its receiver could not take went to the client",
            Party::Contracts,
            finding,
        );
    }
    seller::check_seller(verdict, history, &life);
    // Of a job that ended without the worker's doing, its registration is none of the audit's business.
    let is_open = !life.status().is_closed() && life.seller().is_some();
    if life.worker_took_part() || (is_open && history.registration.is_some()) {
        check_registration(verdict, history, &life, collateral, policy, now_s);
    }
    audit
}

const ENDED: &str = "ended";

fn ended(life: &Life<'_>, now_s: u64) -> Result<String, String> {
    let state = life.state();
    let until = state.until;
    let is_over = now_s > u64::from(until);
    let (due, what) = match state.status {
        JobStatus::Open if state.posting.seller.is_none() => ("a bid", "no worker took it"),
        JobStatus::Open => ("a claim or an answer", "nobody claimed or answered it"),
        JobStatus::Awaiting => ("the client's input", "no input came"),
        JobStatus::Claimed => ("a receipt", "no receipt came"),
        JobStatus::Session | JobStatus::Closing => ("its last receipt", "it was not closed"),
        status if life.swept => return Ok(format!("{}, and swept since", status.name())),
        status => return Ok(status.name().to_owned()),
    };
    let status = state.status.name();
    Err(if is_over {
        format!("not finished: {status}, {what} by {until}; anybody may expire it now")
    } else {
        format!("not finished: {status}, it waits for {due} until {until}")
    })
}

fn check_registry(verdict: &mut Verdict, history: &JobHistory, life: &Life<'_>) {
    let missing = || Err("the Registry was not read".to_owned());
    let registry = history.registry.as_ref();
    verdict.add(
        "registry_code",
        "the account that the network file calls its Registry runs the code that the file names",
        Party::Chain,
        registry.map_or_else(missing, |registry| {
            let found = *registry.code.repr_hash();
            holds(found == history.registry_code, found.to_string(), format!("it runs {found}"))
        }),
    );
    let storage = registry.map(|registry| {
        from_cell::<RegistryStorage>(&registry.data).map_err(|_| "its storage does not parse".to_owned())
    });
    let expected = to_cell(&history.network.generation);
    let generation = match (&storage, expected) {
        (None, _) => missing(),
        (Some(Err(error)), _) => Err(error.clone()),
        (_, Err(error)) => Err(error.to_string()),
        (Some(Ok(storage)), Ok(expected)) => holds(
            storage.generation.hash() == *expected.repr_hash(),
            storage.generation.hash().to_string(),
            "the Registry has another generation",
        ),
    };
    verdict.add(
        "registry_generation",
        "fee, caps, stakes and the codes of the other contracts are those the Registry was deployed with",
        Party::Chain,
        generation,
    );
    let (Some(measurement), Some(registry)) = (stated_measurement(history, life), registry) else { return };
    let listed = storage.unwrap_or_else(missing_storage).and_then(|storage| {
        match storage.measurements.get(measurement) {
            Ok(Some(from_s)) => holds(
                from_s <= registry.as_of_s,
                format!("{measurement}, admitted from {from_s}"),
                format!("{measurement} is admitted from {from_s} on, after {}", registry.as_of_s),
            ),
            Ok(None) => Err(format!("{measurement} is not on the Registry's list, or was revoked")),
            Err(_) => Err("the Registry's list does not parse".to_owned()),
        }
    });
    verdict.add(
        "measurement_listed",
        "the Registry on chain admits the image that the worker stated, and has not revoked it",
        Party::Worker,
        listed,
    );
}

fn missing_storage() -> Result<RegistryStorage, String> {
    Err("the Registry was not read".to_owned())
}

/// Of the bid where the job asked for it, else of the registration.
fn stated_measurement(history: &JobHistory, life: &Life<'_>) -> Option<HashBytes> {
    if !life.worker_took_part() {
        return None;
    }
    let registered = || {
        let trace = &history.registration.as_ref()?.trace;
        read_registration(&history.network, trace).ok().map(|found| found.attestation.measurement)
    };
    bid_measurement(life).or_else(registered)
}

fn bid_measurement(life: &Life<'_>) -> Option<HashBytes> {
    life.takes().last().and_then(|(_, take)| take.bid.as_ref()?.measurement.as_deref().copied())
}

fn check_posting(verdict: &mut Verdict, history: &JobHistory, life: &Life<'_>) {
    let address = history.network.job_address(&life.client, life.nonce);
    verdict.add(
        "job_address",
        "the account is a Job of this network, made for this client, with the code the manifest names",
        Party::Client,
        address.map_err(|error| error.to_string()).and_then(|address| {
            holds(address == history.job, format!("nonce {}", life.nonce), format!("it would be {address}"))
        }),
    );
    verdict.add(
        "posted_by_client",
        "the terms, and the input where there was one, came from the client's wallet",
        Party::Client,
        holds(
            life.post.from.as_ref() == Some(&life.client),
            life.client.to_string(),
            "the posting came from somebody else",
        ),
    );
    let deposit = life.posted.deposit.get();
    verdict.add(
        "deposit",
        "the client brought what it promises the worker",
        Party::Client,
        holds(
            deposit > 0 && life.post.value >= u128::from(deposit),
            format!("{deposit} nanoTON"),
            "the posting brought less than the deposit",
        ),
    );
}

/// Whether the contract's own storage tells the same.
fn check_state(verdict: &mut Verdict, history: &JobHistory, life: &Life<'_>) {
    let finding = match &history.state {
        None if life.swept => Ok("the account is gone".to_owned()),
        None => Err("the contract's state was not read".to_owned()),
        Some(_) if life.swept => Err("the account has a state though it was swept".to_owned()),
        Some(state) => state_agrees(state, life.state()),
    };
    verdict.add(
        "state_agrees",
        "the contract's own storage tells the same posting, money and status as its transactions",
        Party::Chain,
        finding,
    );
}

fn state_agrees(stored: &JobState, told: &JobState) -> Result<String, String> {
    for (agrees, what) in [
        (stored.status == told.status, "status"),
        (stored.posting == told.posting, "posting"),
        (stored.until == told.until, "deadline"),
        (stored.deposit == told.deposit, "deposit"),
        (stored.bond == told.bond, "bond"),
        (stored.paid == told.paid, "sum of payments"),
        (stored.sequence == told.sequence, "sequence"),
    ] {
        if !agrees {
            return Err(format!("it has another {what}"));
        }
    }
    Ok(stored.status.name().to_owned())
}

fn check_claims(verdict: &mut Verdict, life: &Life<'_>) {
    let claims: Vec<_> = life.takes().collect();
    if claims.is_empty() {
        return;
    }
    let came = |(act, _): &(&Act<'_>, _)| {
        let seller = act.after.posting.seller.as_deref();
        let worker = seller.map(|seller| StdAddr::new(WORKCHAIN, seller.worker));
        let is_its = worker.is_some() && act.step.from == worker;
        if is_its { Ok(()) } else { Err("the claim came from another contract".to_owned()) }
    };
    let count = format!("{} claims", claims.len());
    verdict.add(
        "worker_address",
        "every claim came from the Worker contract that the job, or the bid, names",
        Party::Worker,
        all(&claims, &count, came),
    );
    let in_time = |(act, _): &(&Act<'_>, _)| {
        let is_market = act.before.posting.market().is_some();
        let holds = is_market || act.step.at_s <= act.before.until;
        if holds { Ok(()) } else { Err("the claim came after the time for it".to_owned()) }
    };
    verdict.add(
        "claimed_in_time",
        "the job was claimed within the time the client set",
        Party::Contracts,
        all(&claims, &count, in_time),
    );
    let bonded = |(act, take): &(&Act<'_>, &TakeJob)| {
        let (bond, least) = (take.bond, act.after.posting.limits.least_bond);
        let came = act.step.value >= u128::from(bond.get());
        if !bond.is_zero() && bond >= least && came {
            Ok(())
        } else {
            Err("the bond is too low or did not come".to_owned())
        }
    };
    let bond = format!("{} nanoTON", claims.last().map_or(0, |(_, take)| take.bond.get()));
    verdict.add(
        "bond",
        "the worker put up what it would have lost by not answering",
        Party::Contracts,
        all(&claims, &bond, bonded),
    );
}

/// Of a session: what its client alone may do.
fn check_clients_steps(verdict: &mut Verdict, life: &Life<'_>) {
    let steps: Vec<_> =
        life.acts.iter().filter(|act| matches!(act.event, Event::CloseAsked | Event::ToppedUp(_))).collect();
    if steps.is_empty() {
        return;
    }
    let right = |act: &&Act<'_>| {
        let brought = match &act.event {
            Event::ToppedUp(more) => act.step.value >= u128::from(more.amount.get()),
            _ => true,
        };
        if act.step.from.as_ref() == Some(&life.client) && brought {
            Ok(())
        } else {
            Err(format!("at lt {}: it was somebody else, or brought less", act.step.lt))
        }
    };
    verdict.add(
        "session_steps_by_client",
        "the client alone added to the deposit, with money, and asked for the session's end",
        Party::Contracts,
        all(&steps, &format!("{} steps", steps.len()), right),
    );
}

/// What the end was, by whom and when.
fn check_ending(verdict: &mut Verdict, history: &JobHistory, life: &Life<'_>) {
    let Some(end) = life.end() else { return };
    let until = end.before.until;
    let in_time = |verdict: &mut Verdict, name, proves| {
        let is_in_time = end.step.at_s <= until;
        let finding = holds(is_in_time, format!("by {until}"), "it came after the deadline");
        verdict.add(name, proves, Party::Contracts, finding);
    };
    let receipt_key = end.before.posting.seller.as_ref().map(|seller| seller.receipt_key);
    match (&end.event, receipt_key) {
        (Event::Answered(post), Some(receipt_key)) => {
            verdict.extend(verify_receipt(
                post,
                &ReceiptTerms {
                    job: &history.job,
                    posted_lt: life.post.lt,
                    receipt_key: &receipt_key,
                    max_units: &life.posted.posting.limits.max_units,
                },
            ));
            in_time(verdict, "settled_in_time", "the receipt came before the deadline");
        }
        (Event::Rejected(post), Some(receipt_key)) => {
            check_rejection(verdict, history, life, &receipt_key, post);
            in_time(verdict, "rejected_in_time", "the rejection came before the deadline");
        }
        (Event::Cancelled, _) => verdict.add(
            "cancelled_by_client",
            "the client took the job back, before anybody had claimed or answered it",
            Party::Contracts,
            holds(
                end.step.from.as_ref() == Some(&life.client),
                life.client.to_string(),
                "somebody else took it back",
            ),
        ),
        (Event::Expired, _) => verdict.add(
            "expired_after_deadline",
            "the job was ended after the time for what it waited for, and not before",
            Party::Contracts,
            holds(
                end.step.at_s > until,
                format!("{} until {until}", end.before.status.name()),
                format!("it was ended at {}, and there was time until {until}", end.step.at_s),
            ),
        ),
        _ => {}
    }
}

fn check_rejection(
    verdict: &mut Verdict,
    history: &JobHistory,
    life: &Life<'_>,
    receipt_key: &HashBytes,
    post: &PostRejection,
) {
    verdict.extend(verify_rejection(post, &history.job, life.post.lt, receipt_key));
    let code = post.rejection.reason;
    let reason = RejectionReason::from_code(code);
    verdict.add(
        "rejection_reason",
        "the worker gave a reason that the protocol knows",
        Party::Worker,
        reason.map(|reason| reason.to_string()).ok_or(format!("reason {code} is none of the protocol's")),
    );
}

/// Two receipts of one sequence, where somebody showed them.
fn check_equivocations(verdict: &mut Verdict, history: &JobHistory, life: &Life<'_>) {
    let reports: Vec<_> = (life.acts.iter())
        .filter_map(|act| match &act.event {
            Event::Equivocated(report) => Some((act, &**report)),
            _ => None,
        })
        .collect();
    if reports.is_empty() {
        return;
    }
    let shown = |(act, report): &(&Act<'_>, &ReportEquivocation)| {
        let seller = act.before.posting.seller.as_ref().ok_or("nobody served the job")?;
        for signed in [&report.one, &report.other] {
            signed.verify(&seller.receipt_key).map_err(|error| error.to_string())?;
            if signed.receipt.job != history.job || signed.receipt.posted_lt != life.post.lt {
                return Err("a receipt of another job or posting".to_owned());
            }
        }
        let (one, other) = (&report.one.receipt, &report.other.receipt);
        holds(one.sequence == other.sequence && one.hash() != other.hash(), "", "they do not contradict")
            .map(drop)
    };
    verdict.add(
        "equivocation",
        "the worker signed two receipts of one sequence for this job, and lost stake for it where its Worker took the report",
        Party::Contracts,
        all(&reports, &format!("{} reports", reports.len()), shown),
    );
}

fn check_registration(
    verdict: &mut Verdict,
    history: &JobHistory,
    life: &Life<'_>,
    collateral: &Collateral,
    policy: &QuotePolicy,
    now_s: u64,
) {
    let network = &history.network;
    verdict.extend(verify_attestor(network, history.attestor.as_ref(), &history.attestor_trust));
    let (Some(registration), Some(seller)) = (&history.registration, life.seller()) else {
        verdict.add(
            REGISTRATION,
            REGISTRATION_PROVES,
            Party::Worker,
            Err("the worker's registration was not found".into()),
        );
        return;
    };
    let (checks, registered) = verify_registration(
        network,
        &registration.trace,
        registration.mc_root_hash,
        collateral,
        policy,
        now_s,
    );
    verdict.extend(checks);
    let Some(registered) = registered else { return };
    let attestation = &registered.attestation;
    let engaged_at_s = life.engaged_at_s();
    let stated = bid_measurement(life).unwrap_or(attestation.measurement);
    verdict.add(
        REGISTRATION,
        REGISTRATION_PROVES,
        Party::Worker,
        holds(
            registered.worker == StdAddr::new(WORKCHAIN, seller.worker)
                && attestation.receipt_key == seller.receipt_key
                && attestation.measurement == stated
                && registered.at_s <= engaged_at_s
                && attestation.expires_at > engaged_at_s,
            format!("registration {}", registered.request.registration_seqno),
            "it is of another worker, key or measurement, or was not in force at the posting or claim",
        ),
    );
}

const REGISTRATION: &str = "registration";
const REGISTRATION_PROVES: &str = "the key and the image were registered by this worker before the posting, or the claim, and in force at it";
