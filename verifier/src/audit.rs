//! Re-checks a whole job from what is on the chain.
//!
//! The history may come from anybody. Transactions are bound to each other by their hashes, and the caller binds the
//! newest to the account's state; so a server that lies can withhold or invent a whole history, not alter a true one.
//! Masterchain signatures are not part of it.

use contracts::job::{JobPaid, JobRefund, JobStatus, JobStorage, PostJob, PostReceipt, TakeJob};
use contracts::measurement::KeyBinding;
use contracts::model::SharePaid;
use contracts::money::Split;
use contracts::wire::from_cell;
use contracts::worker::Attestation;
use contracts::{Cell, HashBytes, Message as _, Nanoton, Network, StdAddr};
use sha2::{Digest, Sha256};
use tycho_types::cell::CellBuilder;
use tycho_types::models::{ComputePhase, IntAddr, Message, MsgInfo, Transaction, TxInfo};

use crate::check::{Party, Verdict, holds};
use crate::quote::{Collateral, QuotePolicy, verify_binding, verify_quote};
use crate::receipt::{ReceiptTerms, verify_receipt};

/// More transactions than a job's life and the refusals of strangers can explain.
pub const MAX_TRANSACTIONS: usize = 10_000;
/// TON allows a transaction 255 actions. A hostile one may name the same cell as 2^15 messages.
const MAX_OUT_MESSAGES: usize = 255;

/// What the chain has on one job.
#[derive(Debug, Clone)]
pub struct JobHistory {
    /// The generation of contracts, from the network file.
    pub network: Network,
    /// The job's address.
    pub job: StdAddr,
    /// Every transaction of the job's account, oldest first: root cells. The caller has compared the hash of the last
    /// with the account's state, since nothing here names it.
    pub transactions: Vec<Cell>,
    /// The account's balance after them, nanoTON.
    pub balance_nanoton: u128,
    /// What the worker registered its keys with.
    pub registration: Option<WorkerRegistration>,
}

/// A worker's registration, as its contract received it.
#[derive(Debug, Clone)]
pub struct WorkerRegistration {
    /// The keys and what stands behind them.
    pub candidate: Attestation,
    /// The raw quote it published.
    pub quote: Vec<u8>,
    /// Unix time of the registration.
    pub at_s: u32,
    /// Root hash of the masterchain block that `candidate` names, as the chain has it.
    pub mc_root_hash: Option<HashBytes>,
}

/// Audits a settled job. A job that ended otherwise, or has not ended, fails `settled`.
pub fn audit(history: &JobHistory, collateral: &Collateral, policy: &QuotePolicy, now_s: u64) -> Verdict {
    let mut verdict = Verdict::default();
    let steps = read_steps(history);
    verdict.add(
        "transactions_linked",
        "the history is the account's whole history, in order, and unaltered",
        Party::Chain,
        steps.as_ref().map(|steps| format!("{} transactions", steps.len())).map_err(Clone::clone),
    );
    let Ok(steps) = steps else { return verdict };
    verdict.add(
        "conservation",
        "what came in is what went out, what the chain charged, and what is left",
        Party::Contracts,
        conservation(&steps, history.balance_nanoton),
    );
    let story = Story::read(history, &steps);
    verdict.add(
        "settled",
        "the job was posted, claimed and settled, once each",
        Party::Worker,
        story.as_ref().map(|_| "posted, claimed, settled".to_owned()).map_err(Clone::clone),
    );
    let Ok(story) = story else { return verdict };
    check_contracts(&mut verdict, history, &story);
    check_claim(&mut verdict, history, &story);
    check_receipt(&mut verdict, history, &story);
    check_payments(&mut verdict, history, &story);
    check_registration(&mut verdict, history, &story, collateral, policy, now_s);
    verdict
}

fn check_contracts(verdict: &mut Verdict, history: &JobHistory, story: &Story) {
    let network = &history.network;
    verdict.add(
        "job_address",
        "the account is a Job of this network, made for this client, with the code the manifest names",
        Party::Client,
        network.job_address(&story.client, story.nonce).map_err(|error| error.to_string()).and_then(
            |address| {
                holds(
                    address == history.job,
                    format!("nonce {}", story.nonce),
                    format!("it would be {address}"),
                )
            },
        ),
    );
    verdict.add(
        "posted_by_client",
        "terms and input came from the client's wallet",
        Party::Client,
        holds(
            story.post.from.as_ref() == Some(&story.client),
            story.client.to_string(),
            "the posting came from somebody else",
        ),
    );
    let posted = &story.posting;
    verdict.add(
        "worker_address",
        "the claim came from the Worker contract of the terms, with the code the manifest names",
        Party::Worker,
        network.worker_address(&story.claim.claim.worker_owner).map_err(|error| error.to_string()).and_then(
            |address| {
                let right = address == posted.terms.worker && story.take.from.as_ref() == Some(&address);
                holds(right, address.to_string(), "the claim came from another contract")
            },
        ),
    );
}

fn check_claim(verdict: &mut Verdict, history: &JobHistory, story: &Story) {
    let (terms, claim) = (&story.posting.terms, &story.claim.claim);
    let limits = &terms.limits;
    verdict.add(
        "claim_within_terms",
        "model, price, measurement and time of the claim are what the client asked for",
        Party::Contracts,
        holds(
            story.claim.model_id == terms.model_id
                && claim.prices.at_most(&limits.max_prices)
                && (terms.measurement == HashBytes::ZERO || terms.measurement == claim.measurement)
                && story.take.at_s <= terms.claim_by,
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
            claim.bond >= bond && story.claim.bond == claim.bond && story.take.value >= claim.bond.get(),
            format!("{} nanoTON", claim.bond.get()),
            "the bond is too low or did not come",
        ),
    );
}

fn check_receipt(verdict: &mut Verdict, history: &JobHistory, story: &Story) {
    let terms = &story.posting.terms;
    verdict.extend(verify_receipt(
        &story.receipt,
        &ReceiptTerms {
            network_id: history.network.params.network_id,
            job: &history.job,
            posted_lt: story.post.lt,
            receipt_key: &story.claim.claim.receipt_key,
            max_units: &terms.limits.max_units,
        },
    ));
    let settle_by = story.take.at_s.saturating_add(terms.settle_within_s);
    verdict.add(
        "settled_in_time",
        "the receipt came before the deadline",
        Party::Contracts,
        holds(story.settle.at_s <= settle_by, format!("by {settle_by}"), "it came after the deadline"),
    );
}

fn check_payments(verdict: &mut Verdict, history: &JobHistory, story: &Story) {
    let (receipt, claim) = (&story.receipt.receipt, &story.claim.claim);
    let deposit = story.posting.terms.limits.deposit;
    let cost = claim.prices.cost(&receipt.units);
    let split = Split::of(receipt.amount, cost, deposit, claim.royalty_bps, history.network.params.fee_bps);
    let finding = split
        .ok_or_else(|| "royalty and fee exceed the payment".to_owned())
        .and_then(|split| paid_as_split(history, story, &split));
    verdict.add(
        "payments",
        "the payment is min(receipt, units × prices, deposit), split as the protocol says, in one transaction",
        Party::Contracts,
        finding,
    );
}

/// Whether the settlement sent each party its part, once.
fn paid_as_split(history: &JobHistory, story: &Story, split: &Split) -> Result<String, String> {
    let model =
        history.network.model_address(&story.posting.terms.model_id).map_err(|error| error.to_string())?;
    let (client, nonce, bond) = (&story.client, story.nonce, story.claim.claim.bond);
    let shares = split.royalty.get().saturating_add(split.fee.get());
    let (mut to_worker, mut to_model, mut to_client) = (Vec::new(), Vec::new(), Vec::new());
    for sent in &story.settle.sent {
        if let Ok(paid) = JobPaid::from_cell(&sent.body) {
            let named =
                (paid.paid, paid.bond, &paid.client, paid.nonce) == (split.to_worker, bond, client, nonce);
            let value = split.to_worker.get().saturating_add(bond.get());
            to_worker.push(named && sent.to == story.posting.terms.worker && sent.value >= value);
        } else if let Ok(share) = SharePaid::from_cell(&sent.body) {
            let named = (share.royalty, share.fee, &share.client, share.nonce)
                == (split.royalty, split.fee, client, nonce);
            to_model.push(named && sent.to == model && sent.value >= shares);
        } else if let Ok(refund) = JobRefund::from_cell(&sent.body) {
            let named = (refund.paid, refund.bond, refund.status)
                == (split.paid, Nanoton::ZERO, JobStatus::Settled as u8);
            to_client.push(named && sent.to == *client && sent.value >= split.to_client.get());
        } else {
            return Err("the settlement sent a message that is no part of it".to_owned());
        }
    }
    let model_due: &[bool] = if shares == 0 { &[] } else { &[true] };
    for (found, due, whom) in [
        (to_worker, &[true][..], "worker"),
        (to_model, model_due, "model"),
        (to_client, &[true][..], "client"),
    ] {
        if found != due {
            return Err(format!("the {whom} did not get its part, once"));
        }
    }
    Ok(format!(
        "paid {}: worker {}, royalty {}, fee {}; refund {}",
        amount(split.paid),
        amount(split.to_worker),
        amount(split.royalty),
        amount(split.fee),
        amount(split.to_client)
    ))
}

fn check_registration(
    verdict: &mut Verdict,
    history: &JobHistory,
    story: &Story,
    collateral: &Collateral,
    policy: &QuotePolicy,
    now_s: u64,
) {
    let claim = &story.claim.claim;
    let found =
        history.registration.as_ref().ok_or_else(|| "the worker's registration was not found".to_owned());
    verdict.add(
        "registration",
        "the key of the claim was registered before the claim, with a quote that is on chain",
        Party::Worker,
        found.clone().and_then(|registration| {
            let candidate = &registration.candidate;
            let quote_hash = HashBytes(Sha256::digest(&registration.quote).into());
            // The contract shortens what the worker states.
            let longest = registration.at_s.saturating_add(history.network.params.attestation_ttl_s);
            let expires_at = candidate.expires_at.min(longest);
            holds(
                candidate.receipt_key == claim.receipt_key
                    && candidate.measurement == claim.measurement
                    && candidate.evidence.quote_hash == quote_hash
                    && registration.at_s <= story.take.at_s
                    && expires_at > story.take.at_s,
                format!("quote {quote_hash}"),
                "it is of another key, measurement or quote, or was not in force at the claim",
            )
        }),
    );
    let Ok(registration) = found else { return };
    let candidate = &registration.candidate;
    verdict.add(
        "block_is_of_this_chain",
        "the quote was made after a block of this chain, so it is not older than that block",
        Party::Worker,
        holds(
            registration.mc_root_hash == Some(candidate.evidence.mc_root_hash),
            format!("masterchain block {}", candidate.evidence.mc_seqno),
            "the chain has no such block",
        ),
    );
    let (quote_verdict, facts) = verify_quote(&registration.quote, collateral, policy, now_s);
    verdict.extend(quote_verdict);
    let Some(facts) = facts else { return };
    verdict.add(
        "measurement_as_claimed",
        "the image the worker named on chain is the one that runs",
        Party::Worker,
        holds(
            facts.measurement == claim.measurement,
            facts.measurement.to_string(),
            format!("the quote is of {}", facts.measurement),
        ),
    );
    verdict.extend(verify_binding(
        &facts,
        &KeyBinding {
            network_id: history.network.params.network_id,
            worker: story.posting.terms.worker.clone(),
            receipt_key: candidate.receipt_key,
            encryption_key: candidate.encryption_key,
            mc_seqno: candidate.evidence.mc_seqno,
            mc_root_hash: candidate.evidence.mc_root_hash,
        },
    ));
}

/// One transaction, as far as an audit needs it.
struct Step {
    lt: u64,
    at_s: u32,
    succeeded: bool,
    external: bool,
    from: Option<StdAddr>,
    value: u128,
    bounced: bool,
    body: Cell,
    deployed_with: Option<Cell>,
    sent: Vec<Sent>,
    fees: u128,
    sent_external: bool,
}

struct Sent {
    to: StdAddr,
    value: u128,
    forward_fee: u128,
    body: Cell,
}

/// The three transactions that make a settled job.
struct Story<'a> {
    client: StdAddr,
    nonce: u64,
    post: &'a Step,
    posting: PostJob,
    take: &'a Step,
    claim: TakeJob,
    settle: &'a Step,
    receipt: PostReceipt,
}

impl<'a> Story<'a> {
    fn read(history: &JobHistory, steps: &'a [Step]) -> Result<Self, String> {
        let done = || steps.iter().filter(|step| step.succeeded && !step.bounced);
        let once = |what: &str, found: Vec<&'a Step>| match found.as_slice() {
            [step] => Ok(*step),
            [] => Err(format!("there is no {what}")),
            more => Err(format!("there are {} times {what}", more.len())),
        };
        let inner = |opcode: u32, external: bool| -> Vec<&'a Step> {
            done().filter(|step| step.external == external && opcode_of(&step.body) == Some(opcode)).collect()
        };
        let post = once("post_job", inner(PostJob::OPCODE, false))?;
        let take = once("take_job", inner(TakeJob::OPCODE, false))?;
        let settle = once("post_receipt", inner(PostReceipt::OPCODE, true))?;
        let (client, nonce) = identity(history, steps)?;
        Ok(Self {
            client,
            nonce,
            posting: PostJob::from_cell(&post.body).map_err(|error| error.to_string())?,
            claim: TakeJob::from_cell(&take.body).map_err(|error| error.to_string())?,
            receipt: PostReceipt::from_cell(&settle.body).map_err(|error| error.to_string())?,
            post,
            take,
            settle,
        })
    }
}

/// Client and nonce: from the initial data that gives this address, which anybody may have brought, before or with the
/// posting; else from the first that came.
fn identity(history: &JobHistory, steps: &[Step]) -> Result<(StdAddr, u64), String> {
    let mut first = None;
    for data in steps.iter().filter_map(|step| step.deployed_with.as_ref()) {
        let Ok(storage) = from_cell::<JobStorage>(data) else { continue };
        let found = (storage.client, storage.nonce);
        if history.network.job_address(&found.0, found.1).is_ok_and(|address| address == history.job) {
            return Ok(found);
        }
        first.get_or_insert(found);
    }
    first.ok_or_else(|| "no message brought the job's initial data".to_owned())
}

fn read_steps(history: &JobHistory) -> Result<Vec<Step>, String> {
    if history.transactions.len() > MAX_TRANSACTIONS {
        return Err(format!("more than {MAX_TRANSACTIONS} transactions"));
    }
    let mut previous: Option<(u64, HashBytes)> = None;
    let mut steps = Vec::new();
    for cell in &history.transactions {
        let malformed = |_| format!("transaction {} does not parse", cell.repr_hash());
        let transaction = cell.parse::<Transaction>().map_err(malformed)?;
        if transaction.account != history.job.address {
            return Err(format!("transaction {} is of another account", cell.repr_hash()));
        }
        let stated = (transaction.prev_trans_lt, transaction.prev_trans_hash);
        let linked = match previous {
            Some(previous) => stated == previous,
            None => transaction.prev_trans_lt == 0,
        };
        if !linked {
            return Err(format!("transaction {} does not follow the one before it", cell.repr_hash()));
        }
        previous = Some((transaction.lt, *cell.repr_hash()));
        steps.push(read_step(&transaction).map_err(malformed)?);
    }
    Ok(steps)
}

fn read_step(transaction: &Transaction) -> Result<Step, tycho_types::error::Error> {
    let info = transaction.load_info()?;
    let succeeded = match &info {
        TxInfo::Ordinary(info) => {
            !info.aborted && matches!(&info.compute_phase, ComputePhase::Executed(run) if run.success)
        }
        TxInfo::TickTock(_) => false,
    };
    let mut step = Step {
        lt: transaction.lt,
        at_s: transaction.now,
        succeeded,
        external: false,
        from: None,
        value: 0,
        bounced: false,
        body: Cell::default(),
        deployed_with: None,
        sent: Vec::new(),
        fees: transaction.total_fees.tokens.into_inner(),
        sent_external: false,
    };
    if let Some(cell) = &transaction.in_msg {
        let message = cell.parse::<Message<'_>>()?;
        match &message.info {
            MsgInfo::Int(info) => {
                step.from = std_address(&info.src);
                step.value = info.value.tokens.into_inner();
                step.bounced = info.bounced;
            }
            MsgInfo::ExtIn(_) => step.external = true,
            MsgInfo::ExtOut(_) => return Err(tycho_types::error::Error::InvalidData),
        }
        step.deployed_with = message.init.and_then(|init| init.data);
        step.body = CellBuilder::build_from(message.body)?;
    }
    for (index, cell) in transaction.out_msgs.values().enumerate() {
        if index >= MAX_OUT_MESSAGES {
            return Err(tycho_types::error::Error::InvalidData);
        }
        let cell = cell?;
        let message = cell.parse::<Message<'_>>()?;
        match &message.info {
            MsgInfo::Int(info) => step.sent.push(Sent {
                to: std_address(&info.dst).ok_or(tycho_types::error::Error::InvalidData)?,
                value: info.value.tokens.into_inner(),
                forward_fee: info.fwd_fee.into_inner(),
                body: CellBuilder::build_from(message.body)?,
            }),
            _ => step.sent_external = true,
        }
    }
    Ok(step)
}

fn conservation(steps: &[Step], balance: u128) -> Result<String, String> {
    let mut held: u128 = 0;
    for step in steps {
        if step.sent_external {
            return Err("a message to the outer world, whose fee is not known here".into());
        }
        let out = step
            .sent
            .iter()
            .fold(step.fees, |sum, sent| sum.saturating_add(sent.value).saturating_add(sent.forward_fee));
        held = held
            .saturating_add(step.value)
            .checked_sub(out)
            .ok_or_else(|| format!("the transaction at lt {} spends more than there was", step.lt))?;
    }
    holds(held == balance, format!("{held} nanoTON left"), format!("{held} should be left, {balance} are"))
}

fn opcode_of(body: &Cell) -> Option<u32> {
    body.as_slice().ok().and_then(|slice| contracts::wire::opcode_of(&slice))
}

fn std_address(address: &IntAddr) -> Option<StdAddr> {
    address.as_std().cloned()
}

fn amount(nanoton: Nanoton) -> u128 {
    nanoton.get()
}
