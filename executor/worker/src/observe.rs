//! What a block brings to a worker: its own account's new transactions, its state, and the state of the jobs it follows.

use chain::watcher::{Observation as Change, observe};
use chain::{AccountTx, AccountView, ChainAccess, ChainError, McBlock, TxId};
use contracts::job::{JobPosted, JobState, JobStatus, JobStorage, PostJob, TakeJob};
use contracts::wire::from_cell;
use contracts::worker::{ClaimJob, WorkerStorage};
use contracts::{Cell, Message, Nanoton, Network, StdAddr};
use tycho_types::boc::Boc;

use crate::error::WorkerError;
use crate::machine::{AttestedKeys, ClaimFacts, Event, JobFacts, JobKey, PostedJob, WorkerFacts};

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
    /// The Worker's newest transaction.
    pub cursor: Option<TxId>,
    /// The Worker's state; nothing where the contract does not exist yet.
    pub worker: Option<WorkerFacts>,
}

/// Reads the chain as of `block`, the Worker's account after `cursor`, and the accounts of `followed`.
///
/// # Errors
/// What reading meets; then nothing of the block counts as read.
pub async fn observe_block<C: ChainAccess + ?Sized>(
    chain: &C,
    scope: &Scope,
    block: &McBlock,
    cursor: Option<TxId>,
    followed: &[JobKey],
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
            for transaction in history(chain, &scope.worker, newest, until).await? {
                read_transaction(chain, scope, &transaction, &mut seen).await?;
            }
            seen.cursor = Some(newest);
        }
    }
    for key in followed {
        let view = chain.account(&key.job, block).await?;
        let state = job_storage(&view).and_then(|storage| storage.state);
        let facts = match state {
            Some(state) if state.posted_lt == key.posted_lt => job_facts(&state),
            // Swept, which only a closed job can be.
            _ => JobFacts { status: JobStatus::Expired, claim: None },
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
    let state = storage.state?.into_value();
    let liabilities = [state.stake, state.earnings, state.unbonding]
        .into_iter()
        .fold(Nanoton::ZERO, |sum, part| sum.checked_add(part).unwrap_or(Nanoton::MAX));
    let balance = Nanoton::checked(view.balance_nanoton()).unwrap_or(Nanoton::MAX);
    let offers = state.offers.iter().take(MAX_OFFERS).filter_map(Result::ok);
    Some(WorkerFacts {
        as_of_s: view.as_of.time_s,
        stake: state.stake,
        locked: state.locked,
        float: balance.saturating_sub(liabilities),
        claim_seqno: state.claim_seqno,
        registration_seqno: state.registration_seqno,
        attestation: state.attestation.map(|attestation| AttestedKeys {
            receipt_key: attestation.receipt_key,
            encryption_key: attestation.encryption_key,
            measurement: attestation.measurement,
            registered_at: attestation.evidence.registered_at,
            expires_at: attestation.expires_at,
        }),
        offers: offers.map(|(model_id, offer)| (model_id, offer.prices)).collect(),
    })
}

/// A start without a cursor on an account with a longer history reads the newest part: older jobs are closed or lost.
const MAX_BACKLOG: usize = 20_000;
/// Anyone may send a job messages that it refuses; a job with more of them than this is not served.
const MAX_JOB_TRANSACTIONS: usize = 1_000;
const MAX_OFFERS: usize = 1_024;
const BOUNCED: u32 = 0xffff_ffff;

async fn history<C: ChainAccess + ?Sized>(
    chain: &C,
    account: &StdAddr,
    newest: TxId,
    until: Option<TxId>,
) -> Result<Vec<AccountTx>, ChainError> {
    match chain.transactions(account, newest, until, MAX_BACKLOG).await {
        Err(ChainError::HistoryTooLong { .. }) if until.is_none() => {
            let mut page = chain.latest_transactions(account, newest, MAX_BACKLOG).await?;
            page.reverse();
            Ok(page)
        }
        read => read,
    }
}

/// The contract has authenticated what its successful transactions tell.
async fn read_transaction<C: ChainAccess + ?Sized>(
    chain: &C,
    scope: &Scope,
    transaction: &AccountTx,
    seen: &mut Observation,
) -> Result<(), WorkerError> {
    let Ok(Some(message)) = transaction.in_message() else { return Ok(()) };
    if !transaction.result().is_ok_and(|result| result.succeeded) {
        return Ok(());
    }
    if message.bounced {
        seen.events.extend(refused_seqno(&message.body).map(|seqno| Event::ClaimRefused { seqno }));
    } else if message.from.is_none() {
        if let Ok(claim) = ClaimJob::from_cell(&message.body) {
            let order = claim.order.into_value();
            seen.events.push(Event::OrderTaken {
                seqno: order.seqno,
                client: order.job_client,
                nonce: order.job_nonce,
            });
        }
    } else if let Ok(notice) = JobPosted::from_cell(&message.body) {
        read_posted(chain, scope, &notice, seen).await?;
    }
    Ok(())
}

async fn read_posted<C: ChainAccess + ?Sized>(
    chain: &C,
    scope: &Scope,
    notice: &JobPosted,
    seen: &mut Observation,
) -> Result<(), WorkerError> {
    let address = scope.network.job_address(&notice.client, notice.nonce)?;
    let view = chain.account(&address, &seen.block).await?;
    let (Some(newest), Some(storage)) = (view.last, job_storage(&view)) else { return Ok(()) };
    let Some(state) = storage.state else { return Ok(()) };
    if state.status.is_closed() {
        return Ok(());
    }
    let transactions = match chain.transactions(&address, newest, None, MAX_JOB_TRANSACTIONS).await {
        Ok(transactions) => transactions,
        Err(ChainError::HistoryTooLong { max }) => {
            tracing::warn!(job = %address, max, "a job with too long a history is left alone");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let Some(input) = transactions.iter().find_map(|transaction| input_in(transaction, &state)) else {
        tracing::warn!(job = %address, "a job whose input is not in its history is left alone");
        return Ok(());
    };
    let key = JobKey { job: address, posted_lt: state.posted_lt };
    let terms = &state.terms;
    let posted = PostedJob {
        key: key.clone(),
        client: notice.client.clone(),
        nonce: notice.nonce,
        worker: terms.worker.clone(),
        model_id: terms.model_id,
        measurement: terms.measurement,
        claim_by: terms.claim_by,
        settle_within_s: terms.settle_within_s,
        max_prices: terms.limits.max_prices,
        max_units: terms.limits.max_units,
        deposit: terms.limits.deposit,
    };
    seen.inputs.push((key, Boc::encode(&input)));
    seen.events.push(Event::Posted { posted: Box::new(posted), facts: job_facts(&state) });
    Ok(())
}

/// The sealed input, if the transaction is the one that posted the job.
fn input_in(transaction: &AccountTx, state: &JobState) -> Option<Cell> {
    let message = transaction.in_message().ok()??;
    if message.bounced || !transaction.result().ok()?.succeeded {
        return None;
    }
    let post = PostJob::from_cell(&message.body).ok()?;
    (post.input_hash() == state.input_hash && post.terms.hash() == state.terms.hash()).then_some(post.input)
}

fn job_storage(view: &AccountView) -> Option<JobStorage> {
    from_cell(view.data()?).ok()
}

fn job_facts(state: &JobState) -> JobFacts {
    let claim = state.claim.as_ref().map(|claim| ClaimFacts {
        receipt_key: claim.receipt_key,
        prices: *claim.prices,
        settle_by: claim.settle_by,
    });
    JobFacts { status: state.status, claim }
}

/// The order's number in a `take_job` that came back: the bounce marker, then the message's first bits.
fn refused_seqno(body: &Cell) -> Option<u32> {
    let mut slice = body.as_slice().ok()?;
    if slice.load_u32().ok()? != BOUNCED || slice.load_u32().ok()? != TakeJob::OPCODE {
        return None;
    }
    u32::try_from(slice.load_u64().ok()?).ok()
}
