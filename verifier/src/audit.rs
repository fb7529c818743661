//! Re-checks a whole job from what is on the chain, however it ended.
//!
//! The history may come from anybody. Transactions are bound to each other by their hashes, and the caller binds the
//! newest to the account's state; so a server that lies can withhold or invent a whole history, not alter a true one.
//! Masterchain signatures are not part of it.

mod ledger;
mod life;
mod payments;
mod steps;

use contracts::errors::RejectionReason;
use contracts::job::{JobState, JobStatus, PostRejection};
use contracts::registry::RegistryStorage;
use contracts::wire::from_cell;
use contracts::{Cell, HashBytes, Nanoton, Network, StdAddr};
use serde::Serialize;

pub use ledger::Ledger;

use crate::check::{Party, Verdict, holds};
use crate::quote::{Collateral, QuotePolicy};
use crate::receipt::{ReceiptTerms, verify_receipt, verify_rejection};
use crate::registration::{
    AttestorAccount, AttestorTrust, RegistrationTrace, verify_attestor, verify_registration,
};
use life::{End, Life, Taken};
use steps::Step;

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
    /// The job is open or claimed, and every other check held: ask again later.
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
/// The check `ended` fails for a job that is open or claimed: [`Conclusion::Unfinished`] where nothing else does.
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
        "the job was posted, claimed and ended once each at most, in this order",
        Party::Chain,
        life.as_ref().map(|life| life.status().name().to_owned()).map_err(Clone::clone),
    );
    let Ok(life) = life else { return audit };
    audit.status = Some(life.status());
    audit.ledger = Some(Ledger::of(&history.network, &life, &steps, history.balance_nanoton));
    verdict.add(ENDED, "the job is over: nobody can be paid any more", Party::Worker, ended(&life, now_s));
    check_registry(verdict, history, &life);
    check_posting(verdict, history, &life);
    check_state(verdict, history, &life);
    if let Some(taken) = &life.taken {
        check_claim(verdict, history, &life, taken);
    }
    check_ending(verdict, history, &life, &steps);
    if let Some(taken) = &life.taken {
        check_registration(verdict, history, &life, taken, collateral, policy, now_s);
    }
    audit
}

const ENDED: &str = "ended";

fn ended(life: &Life<'_>, now_s: u64) -> Result<String, String> {
    let deadline_s = life.deadline_s();
    let is_over = now_s > u64::from(deadline_s);
    match life.status() {
        JobStatus::Open if is_over => {
            Err(format!("not finished: nobody claimed it by {deadline_s}; anybody may expire it now"))
        }
        JobStatus::Open => Err(format!("not finished: open, its worker may claim it until {deadline_s}")),
        JobStatus::Claimed if is_over => Err(format!(
            "not finished: claimed, and no receipt came by {deadline_s}; anybody may expire it now"
        )),
        JobStatus::Claimed => Err(format!("not finished: claimed, a receipt is due by {deadline_s}")),
        status if life.swept => Ok(format!("{}, and swept since", status.name())),
        status => Ok(status.name().to_owned()),
    }
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
    let params = match &storage {
        None => missing(),
        Some(Err(error)) => Err(error.clone()),
        Some(Ok(storage)) => holds(
            storage.params.hash() == history.network.params.hash(),
            storage.params.hash().to_string(),
            "the Registry has other params",
        ),
    };
    verdict.add(
        "registry_params",
        "fee, caps, stakes, windows and the children's codes are those the Registry was deployed with",
        Party::Chain,
        params,
    );
    let (Some(taken), Some(registry)) = (&life.taken, registry) else { return };
    let measurement = taken.message.claim.measurement;
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
        "terms and input came from the client's wallet",
        Party::Client,
        holds(
            life.post.from.as_ref() == Some(&life.client),
            life.client.to_string(),
            "the posting came from somebody else",
        ),
    );
    let deposit = life.posting.terms.limits.deposit;
    verdict.add(
        "deposit",
        "the client brought what the terms promise the worker",
        Party::Client,
        holds(
            !deposit.is_zero() && life.post.value >= deposit.get(),
            format!("{} nanoTON", deposit.get()),
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
        Some(state) => state_agrees(state, life),
    };
    verdict.add(
        "state_agrees",
        "the contract's own storage tells the same posting, claim and end as its transactions",
        Party::Chain,
        finding,
    );
}

fn state_agrees(state: &JobState, life: &Life<'_>) -> Result<String, String> {
    let closed_at = life.end_step().map_or(0, |step| step.at_s);
    let posting = (state.posted_lt, state.posted_at, state.input_hash, state.terms.hash())
        == (life.post.lt, life.post.at_s, life.posting.input_hash(), life.posting.terms.hash());
    let claim = match (&state.claim, &life.taken) {
        (None, None) => true,
        (Some(stored), Some(taken)) => {
            let mut claimed = (*taken.message.claim).clone();
            claimed.settle_by = life.deadline_s();
            **stored == claimed
        }
        _ => false,
    };
    let settlement = match (&state.settlement, &life.end) {
        (Some(stored), End::Settled(_, post)) => {
            (stored.receipt_hash, stored.result_hash) == (post.receipt.hash(), *post.result.repr_hash())
        }
        (Some(stored), End::Rejected(_, post)) => {
            let amounts = [stored.paid, stored.royalty, stored.fee];
            stored.receipt_hash == post.rejection.hash() && amounts == [Nanoton::ZERO; 3]
        }
        (None, End::Settled(..) | End::Rejected(..)) | (Some(_), _) => false,
        (None, _) => true,
    };
    for (agrees, what) in [
        (state.status == life.status(), "status"),
        (posting, "posting"),
        (claim, "claim"),
        (settlement, "settlement"),
        (state.closed_at == closed_at, "time of the end"),
    ] {
        if !agrees {
            return Err(format!("it has another {what}"));
        }
    }
    Ok(state.status.name().to_owned())
}

fn check_claim(verdict: &mut Verdict, history: &JobHistory, life: &Life<'_>, taken: &Taken<'_>) {
    let (terms, claim) = (&life.posting.terms, &taken.message.claim);
    let limits = &terms.limits;
    let address = history.network.worker_address(&claim.worker_owner);
    verdict.add(
        "worker_address",
        "the claim came from the Worker contract of the terms, with the code the manifest names",
        Party::Worker,
        address.map_err(|error| error.to_string()).and_then(|address| {
            let right = address == terms.worker && taken.step.from.as_ref() == Some(&address);
            holds(right, address.to_string(), "the claim came from another contract")
        }),
    );
    verdict.add(
        "claim_within_terms",
        "model, price, measurement and time of the claim are what the client asked for",
        Party::Contracts,
        holds(
            taken.message.model_id == terms.model_id
                && claim.prices.at_most(&limits.max_prices)
                && (terms.measurement == HashBytes::ZERO || terms.measurement == claim.measurement)
                && taken.step.at_s <= terms.claim_by,
            format!(
                "input {} output {} nanoTON per 1 000",
                claim.prices.input.get(),
                claim.prices.output.get()
            ),
            "the claim goes beyond the terms",
        ),
    );
    let bond = history.network.params.min_bond_for(limits.deposit);
    verdict.add(
        "bond",
        "the worker put up what it would have lost by not answering",
        Party::Contracts,
        holds(
            claim.bond >= bond && taken.message.bond == claim.bond && taken.step.value >= claim.bond.get(),
            format!("{} nanoTON", claim.bond.get()),
            "the bond is too low or did not come",
        ),
    );
}

/// What the end was, by whom and when, and what it paid.
fn check_ending(verdict: &mut Verdict, history: &JobHistory, life: &Life<'_>, steps: &[Step]) {
    let terms = &life.posting.terms;
    let deadline_s = life.deadline_s();
    let in_time = |verdict: &mut Verdict, name, proves, step: &Step| {
        verdict.add(
            name,
            proves,
            Party::Contracts,
            holds(step.at_s <= deadline_s, format!("by {deadline_s}"), "it came after the deadline"),
        );
    };
    match (&life.end, &life.taken) {
        (End::Settled(step, post), Some(taken)) => {
            verdict.extend(verify_receipt(
                post,
                &ReceiptTerms {
                    network_id: history.network.params.network_id,
                    job: &history.job,
                    posted_lt: life.post.lt,
                    receipt_key: &taken.message.claim.receipt_key,
                    max_units: &terms.limits.max_units,
                },
            ));
            in_time(verdict, "settled_in_time", "the receipt came before the deadline", step);
        }
        (End::Rejected(step, post), Some(taken)) => {
            check_rejection(verdict, history, life, taken, post);
            in_time(verdict, "rejected_in_time", "the rejection came before the deadline", step);
        }
        (End::Cancelled(step), _) => verdict.add(
            "cancelled_by_client",
            "the client took the job back, before anybody had claimed it",
            Party::Contracts,
            holds(
                step.from.as_ref() == Some(&life.client),
                life.client.to_string(),
                "somebody else took it back",
            ),
        ),
        (End::Expired(step), taken) => verdict.add(
            "expired_after_deadline",
            "the job was ended for want of a claim, or of a receipt, after the time for it and not before",
            Party::Contracts,
            holds(
                step.at_s > deadline_s,
                format!(
                    "no {} by {deadline_s}",
                    if taken.is_some() { "receipt or rejection" } else { "claim" }
                ),
                format!("it was ended at {}, and there was time until {deadline_s}", step.at_s),
            ),
        ),
        _ => return,
    }
    let left = left_after_end(life, steps);
    verdict.add(
        "payments",
        match life.status() {
            JobStatus::Settled => {
                "the payment is min(receipt, units × prices, deposit), split as the protocol says, in one transaction"
            }
            JobStatus::Rejected => "the deposit went back to the client, the bond to the worker, in one transaction",
            JobStatus::Expired => "the deposit, and the bond of a worker that did not answer, went to the client",
            _ => "the deposit went back to the client",
        },
        Party::Contracts,
        left.and_then(|left| payments::payments(&history.network, life, left)),
    );
    if let Some(finding) = payments::bounces(life) {
        verdict.add(
            "bounces_forwarded",
            "a payment that its receiver could not take went to the receiver's owner or to the client",
            Party::Contracts,
            finding,
        );
    }
}

/// What the account had after the transaction that ended the job.
fn left_after_end(life: &Life<'_>, steps: &[Step]) -> Result<u128, String> {
    let end = life.end_step().ok_or("the job has not ended")?;
    let balances = steps::balances(steps)?;
    let at = steps.iter().position(|step| step.lt == end.lt).ok_or("the end is not in the history")?;
    balances.get(at).copied().ok_or_else(|| "the end is not in the history".to_owned())
}

fn check_rejection(
    verdict: &mut Verdict,
    history: &JobHistory,
    life: &Life<'_>,
    taken: &Taken<'_>,
    post: &PostRejection,
) {
    verdict.extend(verify_rejection(
        post,
        history.network.params.network_id,
        &history.job,
        life.post.lt,
        &taken.message.claim.receipt_key,
    ));
    let code = post.rejection.reason;
    let reason = RejectionReason::from_code(code);
    verdict.add(
        "rejection_reason",
        "the worker gave a reason that the protocol knows",
        Party::Worker,
        reason.map(|reason| reason.to_string()).ok_or(format!("reason {code} is none of the protocol's")),
    );
}

fn check_registration(
    verdict: &mut Verdict,
    history: &JobHistory,
    life: &Life<'_>,
    taken: &Taken<'_>,
    collateral: &Collateral,
    policy: &QuotePolicy,
    now_s: u64,
) {
    let (claim, claimed_at_s) = (&taken.message.claim, taken.step.at_s);
    let network = &history.network;
    verdict.extend(verify_attestor(network, history.attestor.as_ref(), &history.attestor_trust));
    let Some(registration) = &history.registration else {
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
    let (owner, worker) = (&claim.worker_owner, &life.posting.terms.worker);
    verdict.add(
        REGISTRATION,
        REGISTRATION_PROVES,
        Party::Worker,
        holds(
            (&registered.owner, &registered.worker) == (owner, worker)
                && attestation.receipt_key == claim.receipt_key
                && attestation.measurement == claim.measurement
                && registered.at_s <= claimed_at_s
                && attestation.expires_at > claimed_at_s,
            format!("registration {}", registered.request.registration_seqno),
            "it is of another worker, key or measurement, or was not in force at the claim",
        ),
    );
}

const REGISTRATION: &str = "registration";
const REGISTRATION_PROVES: &str =
    "the key and the image of the claim were registered by this worker before the claim, and in force at it";
