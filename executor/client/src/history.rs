//! Everything the chain has on one job, collected for an audit.

use chain::{AccountTx, AccountView, ChainAccess, McBlock, TxId};
use contracts::job::{JobState, JobStorage, Posting};
use contracts::network::WORKCHAIN;
use contracts::{Network, StdAddr};

use crate::attestor::{AttestorView, read_attestor};
use crate::error::ClientError;
use crate::follow::MAX_JOB_TRANSACTIONS;
use crate::story::JobStory;
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
    /// The registration of the seller's receipt key, as it was when the job was posted; `None` where there was none.
    pub registration: Option<Registration>,
    /// The masterchain block that the quote names, as the chain has it; `None` where the chain has no such
    /// block (any more).
    pub attested_block: Option<McBlock>,
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
    let registration = sellers_registration(chain, network, &state.posting, &as_of).await?;
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
    })
}

/// The newest registration of the receipt key that the job names, before its posting; of a job of the market, which names
/// nobody when posted, at all.
async fn sellers_registration<C: ChainAccess + ?Sized>(
    chain: &C,
    network: &Network,
    posting: &Posting,
    as_of: &McBlock,
) -> Result<Option<Registration>, ClientError> {
    let Some(seller) = &posting.seller else { return Ok(None) };
    let worker = StdAddr::new(WORKCHAIN, seller.worker);
    let mut from = chain.account(&worker, as_of).await?.last;
    if posting.market().is_none() {
        from = older_than(chain, &worker, from, posting.posted_lt).await?;
    }
    newest_registration(chain, network, &worker, from, |taken| taken.receipt_key == seller.receipt_key).await
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
