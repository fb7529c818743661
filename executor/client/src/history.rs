//! Everything the chain has on one job, collected for an audit.

use chain::{AccountTx, AccountView, ChainAccess, McBlock, TxId};
use contracts::job::{JobState, JobStorage, Posting};
use contracts::model::RoyaltyQuoted;
use contracts::network::WORKCHAIN;
use contracts::worker::Attestation;
use contracts::{Message, Network, StdAddr};

use crate::attestor::{AttestorView, read_attestor};
use crate::error::ClientError;
use crate::follow::MAX_JOB_TRANSACTIONS;
use crate::story::{JobStep, JobStory};
use crate::worker::{MAX_WALK, Registration, newest_registration};

/// A job's whole history, as of one masterchain block.
#[derive(Debug, Clone)]
pub struct CollectedJob {
    /// The job's address.
    pub job: StdAddr,
    /// The block everything was read at.
    pub as_of: McBlock,
    /// Who posted it, from the contract's storage.
    pub client: StdAddr,
    /// Its nonce.
    pub nonce: u64,
    /// The contract's state.
    pub state: JobState,
    /// The account, with its code.
    pub account: AccountView,
    /// All transactions of the job, oldest first, linked by hash to the account's state.
    pub transactions: Vec<AccountTx>,
    /// The same as steps.
    pub story: JobStory,
    /// The Registry's account as of the same block.
    pub registry: AccountView,
    /// The Attestor as of the same block; `None` where there is none.
    pub attestor: Option<AttestorView>,
    /// The registration of the seller's receipt key, as it was when the job was posted, or claimed on the market;
    /// `None` where there was none.
    pub registration: Option<Registration>,
    /// The masterchain block that the quote names, as the chain has it; `None` where the chain has no such
    /// block (any more).
    pub attested_block: Option<McBlock>,
    /// The account of the Model that the job names; `None` where it names none.
    pub model: Option<AccountView>,
    /// The Worker's transaction that took the offer in force when the job was posted, or claimed on the market; `None`
    /// where there was none.
    pub offer: Option<AccountTx>,
}

/// Collects the history of the job at `job`.
///
/// # Errors
/// [`ClientError::NoJob`] where nothing is there (any more); [`ClientError::NotOurs`] where another contract
/// is; what reading the chain meets.
pub async fn collect_job<C: ChainAccess + ?Sized>(
    chain: &C,
    network: &Network,
    job: &StdAddr,
) -> Result<CollectedJob, ClientError> {
    let as_of = chain.head().await?;
    let account = chain.account(job, &as_of).await?;
    let (Some(code), Some(data), Some(newest)) = (account.code(), account.data(), account.last) else {
        return Err(ClientError::NoJob(job.clone()));
    };
    let not_ours =
        |reason: &str| ClientError::NotOurs { address: job.clone(), what: "job", reason: reason.to_owned() };
    if code.repr_hash() != network.generation.job_code.repr_hash() {
        return Err(not_ours("its code is another"));
    }
    let storage: JobStorage = contracts::wire::from_cell(data)?;
    if network.job_address(&storage.client, storage.nonce)? != *job {
        return Err(not_ours("its address is another client's"));
    }
    // A refused posting leaves the account with its initial data.
    let state = storage.state.ok_or_else(|| ClientError::NoJob(job.clone()))?;
    let transactions = chain.transactions(job, newest, None, MAX_JOB_TRANSACTIONS).await?;
    let mut story = JobStory::new(job.clone());
    for transaction in &transactions {
        story.push(transaction)?;
    }
    let registry = chain.account(&network.registry, &as_of).await?;
    let attestor = match read_attestor(chain, network, &as_of).await {
        Ok(view) => Some(view),
        Err(ClientError::NotOurs { .. } | ClientError::Wire(_)) => None,
        Err(error) => return Err(error),
    };
    let SellerHistory { registration, offer } =
        seller_history(chain, network, &state.posting, &story, &as_of).await?;
    let model = model_account(chain, &state.posting, &as_of).await?;
    let attested_block = match &registration {
        Some(found) => match chain.block(found.attestation.evidence.mc_seqno).await {
            Ok(block) => Some(block),
            Err(error) if error.is_transient() => return Err(error.into()),
            Err(_) => None,
        },
        None => None,
    };
    Ok(CollectedJob {
        job: job.clone(),
        as_of,
        client: storage.client,
        nonce: storage.nonce,
        state,
        account,
        transactions,
        story,
        registry,
        attestor,
        registration,
        attested_block,
        model,
        offer,
    })
}

/// What the chain has on the worker that a job names, as it was when the job was posted, or claimed on the market.
#[derive(Debug, Default)]
struct SellerHistory {
    registration: Option<Registration>,
    offer: Option<AccountTx>,
}

async fn seller_history<C: ChainAccess + ?Sized>(
    chain: &C,
    network: &Network,
    posting: &Posting,
    story: &JobStory,
    as_of: &McBlock,
) -> Result<SellerHistory, ClientError> {
    let Some(seller) = &posting.seller else { return Ok(SellerHistory::default()) };
    let worker = StdAddr::new(WORKCHAIN, seller.worker);
    let model = StdAddr::new(WORKCHAIN, seller.model);
    let claimed = story.events.iter().rev().find(|event| matches!(event.step, JobStep::Claimed { .. }));
    let named_lt = match (posting.market(), claimed) {
        (Some(_), Some(claimed)) => claimed.id.lt,
        _ => posting.posted_lt,
    };
    let newest = chain.account(&worker, as_of).await?.last;
    let before = older_than(chain, &worker, newest, named_lt).await?;
    let has_key = |taken: &Attestation| taken.receipt_key == seller.receipt_key;
    Ok(SellerHistory {
        registration: newest_registration(chain, network, &worker, before, has_key).await?,
        offer: newest_offer(chain, &worker, &model, before).await?,
    })
}

/// The newest transaction, walking back from `from`, in which `worker` took the royalty that `model` quoted: its offer.
async fn newest_offer<C: ChainAccess + ?Sized>(
    chain: &C,
    worker: &StdAddr,
    model: &StdAddr,
    mut from: Option<TxId>,
) -> Result<Option<AccountTx>, ClientError> {
    let mut walked = 0;
    while let Some(newest) = from
        && walked < MAX_WALK
    {
        let page = chain.latest_transactions(worker, newest, PAGE).await?;
        for transaction in &page {
            let Some(message) = transaction.in_message()? else { continue };
            let is_quote = message.from.as_ref() == Some(model)
                && !message.bounced
                && RoyaltyQuoted::from_cell(&message.body).is_ok();
            if is_quote && transaction.result()?.succeeded {
                return Ok(Some(transaction.clone()));
            }
        }
        walked += page.len();
        from = page.last().and_then(AccountTx::previous);
    }
    Ok(None)
}

/// The Model that a job names, or whose workers its client wants.
async fn model_account<C: ChainAccess + ?Sized>(
    chain: &C,
    posting: &Posting,
    as_of: &McBlock,
) -> Result<Option<AccountView>, ClientError> {
    let named = posting.seller.as_ref().map(|seller| seller.model);
    let Some(account) = named.or_else(|| posting.market().map(|market| market.model)) else {
        return Ok(None);
    };
    Ok(Some(chain.account(&StdAddr::new(WORKCHAIN, account), as_of).await?))
}

/// The newest transaction of `account` whose logical time is below `lt`.
async fn older_than<C: ChainAccess + ?Sized>(
    chain: &C,
    account: &StdAddr,
    mut from: Option<TxId>,
    lt: u64,
) -> Result<Option<TxId>, ClientError> {
    let mut walked = 0;
    while let Some(newest) = from
        && newest.lt >= lt
    {
        if walked >= MAX_WALK {
            return Ok(None);
        }
        let page = chain.latest_transactions(account, newest, PAGE).await?;
        walked += page.len();
        let older = page.iter().filter_map(AccountTx::previous).find(|previous| previous.lt < lt);
        from = older.or_else(|| page.last().and_then(AccountTx::previous));
    }
    Ok(from)
}

const PAGE: usize = 64;
