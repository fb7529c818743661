//! What a block brings to a worker: its own account's new transactions, its state, and the state of the jobs it follows.

use std::collections::BTreeSet;

use chain::watcher::{Observation as Change, observe};
use chain::{AccountTx, AccountView, ChainAccess, ChainError, McBlock, TxId};
use contracts::job::{JobNoticed, JobState, JobStatus, JobStorage, PostJob, TakeJob};
use contracts::wire::{from_cell, opcode_of};
use contracts::worker::{ClaimJob, WorkerStorage};
use contracts::{Cell, Message, Nanoton, Network, StdAddr};
use tycho_types::boc::Boc;

use crate::error::WorkerError;
use crate::machine::{AttestedKeys, Event, JobFacts, JobKey, OfferFacts, PostedJob, WorkerFacts};

/// Whose chain is read.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The network.
    pub network: Network,
    /// The Worker contract.
    pub worker: StdAddr,
}

/// What one block brought.
#[derive(Debug)]
pub struct Observation {
    /// The block.
    pub block: McBlock,
    /// In the order in which they happened; the last is the tick.
    pub events: Vec<Event>,
    /// Sealed inputs of newly posted jobs, as bags of cells.
    pub inputs: Vec<(JobKey, Vec<u8>)>,
    /// The Worker's newest transaction that was read; there may be more.
    pub cursor: Option<TxId>,
    /// The Worker's state; nothing where the contract does not exist yet.
    pub worker: Option<WorkerFacts>,
}

/// Reads the chain as of `block`, the Worker's account after `cursor`, and the accounts of `followed`. `is_first`: the
/// journal is new, and this is the first that it hears of the chain.
///
/// Anyone may send the Worker notices of jobs: of those after the first, no more than [`MAX_NOTICES`] are followed up at
/// once, and the rest wait for the next call.
///
/// # Errors
/// What reading meets; then nothing of the block counts as read.
pub async fn observe_block<C: ChainAccess + ?Sized>(
    chain: &C,
    scope: &Scope,
    block: &McBlock,
    cursor: Option<TxId>,
    followed: &[JobKey],
    is_first: bool,
) -> Result<Observation, WorkerError> {
    let view = chain.account(&scope.worker, block).await?;
    let mut seen = Observation {
        block: *block,
        events: Vec::new(),
        inputs: Vec::new(),
        cursor,
        worker: worker_facts(&view),
    };
    // Time first: what follows is judged by the block's.
    seen.events.push(Event::Tick { now_s: block.time_s });
    match observe(cursor, &view) {
        Change::Unchanged | Change::Vanished => {}
        Change::Behind { shown, seen } => {
            return Err(ChainError::Behind { shown: shown.to_string(), seen: seen.to_string() }.into());
        }
        Change::Advanced { newest, until } => {
            let mut noticed = BTreeSet::new();
            for transaction in history(chain, &scope.worker, newest, until).await? {
                if let Some(job) = read_transaction(&transaction, &mut seen)
                    && !noticed.contains(&job)
                {
                    if !is_first && noticed.len() >= MAX_NOTICES {
                        break;
                    }
                    read_posted(chain, scope, &job, is_first, &mut seen).await?;
                    noticed.insert(job);
                }
                seen.cursor = Some(transaction.id);
            }
        }
    }
    for key in followed {
        let view = chain.account(&key.job, block).await?;
        let state = job_storage(&view).and_then(|storage| storage.state);
        let facts = match state {
            Some(state) if state.posting.posted_lt == key.posted_lt => job_facts(&state),
            // Swept, which only a closed job can be.
            _ => JobFacts { status: JobStatus::Expired, until: 0 },
        };
        seen.events.push(Event::JobRead { key: key.clone(), facts });
    }
    if let Some(facts) = &seen.worker {
        seen.events.push(Event::WorkerRead(facts.clone()));
    }
    Ok(seen)
}

/// The worker's state in a view of its account.
pub fn worker_facts(view: &AccountView) -> Option<WorkerFacts> {
    let storage: WorkerStorage = from_cell(view.data()?).ok()?;
    let state = storage.state?;
    let balance = Nanoton::checked(view.balance_nanoton()).unwrap_or(Nanoton::MAX);
    let offers = state.offers.iter().take(MAX_OFFERS).filter_map(Result::ok);
    let offers = offers.map(|(model_id, offer)| OfferFacts {
        model_id,
        prices: offer.prices,
        royalty_bps: offer.royalty_bps,
        min_deposit: offer.min_deposit,
    });
    Some(WorkerFacts {
        as_of_s: view.as_of.time_s,
        stake: state.stake,
        float: state.free(balance),
        paused: state.paused,
        claim_seqno: state.claim_seqno,
        registration_seqno: state.registration_seqno,
        attestation: state.attestation.as_ref().map(|attestation| AttestedKeys {
            receipt_key: attestation.receipt_key,
            encryption_key: attestation.encryption_key,
            measurement: attestation.measurement,
            registered_at: attestation.evidence.registered_at,
            expires_at: attestation.expires_at,
        }),
        offers: offers.collect(),
        endpoint: state.endpoint(),
    })
}

/// Jobs that one block makes us read at most; more than a worker serves in that time.
pub const MAX_NOTICES: usize = 256;
/// Of a longer history the newest part is read: older jobs are closed or lost.
const MAX_BACKLOG: usize = 20_000;
/// Anyone may send a job messages that it refuses; a job with more of them than this is not served.
const MAX_JOB_TRANSACTIONS: usize = 1_000;
const PAGE: usize = 16;
const MAX_OFFERS: usize = 1_024;
const BOUNCED: u32 = 0xffff_ffff;

pub(crate) async fn history<C: ChainAccess + ?Sized>(
    chain: &C,
    account: &StdAddr,
    newest: TxId,
    until: Option<TxId>,
) -> Result<Vec<AccountTx>, ChainError> {
    match chain.transactions(account, newest, until, MAX_BACKLOG).await {
        Err(ChainError::HistoryTooLong { .. }) => {
            let mut page = chain.latest_transactions(account, newest, MAX_BACKLOG).await?;
            page.reverse();
            Ok(page)
        }
        read => read,
    }
}

/// What a transaction of our contract tells; the sender of a notice is yet to be read.
fn read_transaction(transaction: &AccountTx, seen: &mut Observation) -> Option<StdAddr> {
    let message = transaction.in_message().ok()??;
    if let Some(from) = &message.from
        && !message.bounced
        && opcode_of(&message.body.as_slice().ok()?) == Some(JobNoticed::OPCODE)
    {
        // A notice brings no gas, so that our contract did not run.
        return Some(from.clone());
    }
    // The contract has authenticated what its successful transactions tell.
    if !transaction.result().is_ok_and(|result| result.succeeded) {
        return None;
    }
    if message.bounced {
        seen.events.extend(refused_seqno(&message.body).map(|seqno| Event::ClaimRefused { seqno }));
    } else if message.from.is_none()
        && let Ok(claim) = ClaimJob::from_cell(&message.body)
    {
        let order = claim.order.into_value();
        seen.events.push(Event::OrderTaken {
            seqno: order.seqno,
            client: order.job_client,
            nonce: order.job_nonce,
        });
    }
    None
}

/// A directed job for us, if that is what sent the notice: whoever it was, its account has to run the code of jobs at the
/// address of its client and nonce.
async fn read_posted<C: ChainAccess + ?Sized>(
    chain: &C,
    scope: &Scope,
    sender: &StdAddr,
    before_us: bool,
    seen: &mut Observation,
) -> Result<(), WorkerError> {
    let view = chain.account(sender, &seen.block).await?;
    let is_job =
        view.code().is_some_and(|code| code.repr_hash() == scope.network.generation.job_code.repr_hash());
    let (true, Some(newest), Some(storage)) = (is_job, view.last, job_storage(&view)) else { return Ok(()) };
    if scope.network.job_address(&storage.client, storage.nonce)? != *sender {
        return Ok(());
    }
    let Some(state) = storage.state else { return Ok(()) };
    let posting = &state.posting;
    let (Some(seller), None) = (&posting.seller, &posting.special) else {
        tracing::debug!(job = %sender, "no directed job; sessions are the session server's");
        return Ok(());
    };
    if state.status.is_closed() || seller.worker != scope.worker.address {
        return Ok(());
    }
    let Some(post) = posting_of(chain, sender, newest, posting.posted_lt).await? else {
        tracing::warn!(job = %sender, "a job whose input is not in its newest history is left alone");
        return Ok(());
    };
    let key = JobKey { job: sender.clone(), posted_lt: posting.posted_lt };
    let posted = PostedJob {
        key: key.clone(),
        client: storage.client,
        nonce: storage.nonce,
        until: post.until,
        deposit: state.deposit,
        max_units: posting.limits.max_units,
        least_bond: posting.limits.least_bond,
        worker: seller.worker,
        receipt_key: seller.receipt_key,
        model: seller.model,
        settle_within_s: seller.settle_within_s,
        share_bps: seller.share_bps,
        prices: seller.prices,
    };
    seen.inputs.push((key, Boc::encode(&post.input)));
    seen.events.push(Event::Posted { posted: Box::new(posted), facts: job_facts(&state), before_us });
    Ok(())
}

/// The message that posted the job, which its transaction of the logical time `posted_lt` took.
async fn posting_of<C: ChainAccess + ?Sized>(
    chain: &C,
    job: &StdAddr,
    newest: TxId,
    posted_lt: u64,
) -> Result<Option<PostJob>, ChainError> {
    let mut from = Some(newest);
    let mut walked = 0;
    while let Some(at) = from
        && at.lt >= posted_lt
        && walked < MAX_JOB_TRANSACTIONS
    {
        let page = chain.latest_transactions(job, at, PAGE).await?;
        if let Some(found) = page.iter().find(|transaction| transaction.id.lt == posted_lt) {
            return Ok(post_in(found));
        }
        walked += page.len();
        from = page.last().and_then(AccountTx::previous);
    }
    Ok(None)
}

fn post_in(transaction: &AccountTx) -> Option<PostJob> {
    PostJob::from_cell(&transaction.in_message().ok()??.body).ok()
}

fn job_storage(view: &AccountView) -> Option<JobStorage> {
    from_cell(view.data()?).ok()
}

fn job_facts(state: &JobState) -> JobFacts {
    JobFacts { status: state.status, until: state.until }
}

/// The order's number in a `take_job` that came back: the bounce marker, then the message's first bits.
fn refused_seqno(body: &Cell) -> Option<u32> {
    let mut slice = body.as_slice().ok()?;
    if slice.load_u32().ok()? != BOUNCED || slice.load_u32().ok()? != TakeJob::OPCODE {
        return None;
    }
    u32::try_from(slice.load_u64().ok()?).ok()
}
