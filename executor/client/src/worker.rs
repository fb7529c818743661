//! A worker as the chain shows it: its contract's state and the registration of its keys.

use chain::{AccountTx, ChainAccess, McBlock, TxId, trace};
use contracts::attestor::QuoteVerified;
use contracts::registry::RegistrationRequest;
use contracts::worker::{Attestation, AttestationRegistered, Offer, WorkerState, WorkerStorage};
use contracts::{HashBytes, Message, Nanoton, Network, StdAddr};

use crate::error::{ClientError, Unfit};
use crate::request::{JobRequest, JobTerms};

/// A worker's contract as of a block.
#[derive(Debug, Clone)]
pub struct WorkerView {
    /// The contract's address.
    pub address: StdAddr,
    /// The block.
    pub as_of: McBlock,
    /// Its balance: stake, unbonding stake, and the rest, which is its owner's.
    pub balance: Nanoton,
    /// Who owns it.
    pub owner: StdAddr,
    /// Stake, attestation, offers.
    pub state: WorkerState,
    /// The contract's newest transaction.
    pub last: Option<TxId>,
}

/// How a worker's keys came to be attested: four transactions, each started by a message of the one before.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The Attestor's: it was sent the quote's parts and verified them.
    pub attestor: AccountTx,
    /// The Registry's.
    pub registry: AccountTx,
    /// The Platform's: the machine serves the worker.
    pub platform: AccountTx,
    /// The Worker's.
    pub worker: AccountTx,
    /// What the Worker took.
    pub attestation: Attestation,
    /// What the worker's owner asked for.
    pub request: RegistrationRequest,
}

/// Reads the worker contract at `address` as of `at`.
///
/// # Errors
/// [`ClientError::NotOurs`] where another contract, or none, is there.
pub async fn read_worker<C: ChainAccess + ?Sized>(
    chain: &C,
    network: &Network,
    address: &StdAddr,
    at: &McBlock,
) -> Result<WorkerView, ClientError> {
    let not_ours = |reason: &str| ClientError::NotOurs {
        address: address.clone(),
        what: "worker",
        reason: reason.to_owned(),
    };
    let view = chain.account(address, at).await?;
    let (Some(code), Some(data)) = (view.code(), view.data()) else {
        return Err(not_ours("there is no active contract"));
    };
    if *code.repr_hash() != network.generation.codes.worker.hash {
        return Err(not_ours("its code is another"));
    }
    let storage: WorkerStorage = contracts::wire::from_cell(data)?;
    if *storage.network != *network || network.worker_address(&storage.owner)? != *address {
        return Err(not_ours("it belongs to another network"));
    }
    let Some(state) = storage.state else {
        return Err(not_ours("it was never initialised"));
    };
    let balance = Nanoton::checked(view.balance_nanoton()).unwrap_or(Nanoton::MAX);
    Ok(WorkerView {
        address: address.clone(),
        as_of: *at,
        balance,
        owner: storage.owner,
        state,
        last: view.last,
    })
}

impl WorkerView {
    /// The attested keys.
    ///
    /// # Errors
    /// [`Unfit::NotAttested`].
    pub fn attestation(&self) -> Result<&Attestation, Unfit> {
        self.state.attestation.as_deref().ok_or(Unfit::NotAttested)
    }

    /// The offer for a model.
    ///
    /// # Errors
    /// [`Unfit::ModelNotOffered`], also where the contract's list does not parse.
    pub fn offer(&self, model_id: &HashBytes) -> Result<Offer, Unfit> {
        match self.state.offers.get(model_id) {
            Ok(Some(offer)) => Ok(offer.into_value()),
            Ok(None) | Err(_) => Err(Unfit::ModelNotOffered),
        }
    }

    /// Whether the worker serves a job of these terms, as far as its contract tells, and as the client wants it.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn check_fit(&self, network: &Network, request: &JobRequest, terms: &JobTerms) -> Result<(), Unfit> {
        if self.state.paused {
            return Err(Unfit::Paused);
        }
        let attestation = self.attestation()?;
        if attestation.expires_at <= terms.until {
            return Err(Unfit::AttestationEnds { expires_at_s: attestation.expires_at });
        }
        if request.measurement != HashBytes::ZERO && request.measurement != attestation.measurement {
            return Err(Unfit::OtherMeasurement);
        }
        let offer = self.offer(&terms.model_id)?;
        if !offer.prices.at_most(&request.max_prices) {
            return Err(Unfit::PriceOverTerms);
        }
        if terms.deposit.nanoton() < offer.min_deposit {
            return Err(Unfit::DepositTooLow { least: offer.min_deposit });
        }
        let (stake, least) = (self.state.stake, network.generation.params.min_stake);
        if stake < least {
            return Err(Unfit::UnderStaked { stake, least });
        }
        Ok(())
    }
}

/// Finds the registration that the worker's present attestation came with.
///
/// # Errors
/// [`Unfit::NotRegistered`] where it is not within the last [`MAX_WALK`] transactions of each account.
pub async fn find_registration<C: ChainAccess + ?Sized>(
    chain: &C,
    network: &Network,
    worker: &WorkerView,
) -> Result<Registration, ClientError> {
    let unfit = |reason| ClientError::Unfit { address: worker.address.clone(), reason };
    let wanted = worker.attestation().map_err(unfit)?.clone();
    let found =
        newest_registration(chain, network, &worker.address, worker.last, |taken| *taken == wanted).await?;
    found.ok_or_else(|| unfit(Unfit::NotRegistered))
}

/// The newest registration whose attestation `wanted` accepts, walking back from the transaction `from` of `worker`.
///
/// # Errors
/// What reading the chain meets.
pub async fn newest_registration<C: ChainAccess + ?Sized>(
    chain: &C,
    network: &Network,
    worker: &StdAddr,
    mut from: Option<TxId>,
    wanted: impl Fn(&Attestation) -> bool + Send,
) -> Result<Option<Registration>, ClientError> {
    let mut walked = 0;
    while let Some(newest) = from
        && walked < MAX_WALK
    {
        let page = chain.latest_transactions(worker, newest, PAGE).await?;
        for transaction in &page {
            if let Some(taken) = attestation_in(transaction)?
                && wanted(&taken)
            {
                return registration_behind(chain, network, transaction, taken).await;
            }
        }
        walked += page.len();
        from = page.last().and_then(AccountTx::previous);
    }
    Ok(None)
}

/// The attestation that a transaction of a worker's contract took.
///
/// # Errors
/// A cell error for a transaction that does not parse.
pub fn attestation_in(transaction: &AccountTx) -> Result<Option<Attestation>, ClientError> {
    let Some(message) = transaction.in_message()? else { return Ok(None) };
    if message.from.is_none() || message.bounced || !transaction.result()?.succeeded {
        return Ok(None);
    }
    let taken = AttestationRegistered::from_cell(&message.body).ok();
    Ok(taken.map(|taken| taken.attestation.into_value()))
}

/// How far back a registration is looked for, on each account.
pub const MAX_WALK: usize = 20_000;
const PAGE: usize = 64;

/// From the Worker's transaction back to the Attestor's; `None` where a message's sender is not found, or is not what it
/// has to be.
async fn registration_behind<C: ChainAccess + ?Sized>(
    chain: &C,
    network: &Network,
    worker: &AccountTx,
    attestation: Attestation,
) -> Result<Option<Registration>, ClientError> {
    let platform = network.platform_address(attestation.evidence.ppid)?;
    let Some(platform) = sender(chain, worker, &platform).await? else { return Ok(None) };
    let Some(registry) = sender(chain, &platform, &network.registry).await? else { return Ok(None) };
    let Some(attestor) = sender(chain, &registry, &network.generation.params.attestor).await? else {
        return Ok(None);
    };
    let Some(verified) =
        registry.in_message()?.and_then(|message| QuoteVerified::from_cell(&message.body).ok())
    else {
        return Ok(None);
    };
    let Ok(request) = contracts::wire::from_cell(&verified.payload) else { return Ok(None) };
    Ok(Some(Registration { attestor, registry, platform, worker: worker.clone(), attestation, request }))
}

/// The transaction of `expected` that sent the message which started `transaction`.
async fn sender<C: ChainAccess + ?Sized>(
    chain: &C,
    transaction: &AccountTx,
    expected: &StdAddr,
) -> Result<Option<AccountTx>, ClientError> {
    match transaction.in_message()? {
        Some(message) if message.from.as_ref() == Some(expected) => {
            Ok(trace::sender_of(chain, expected, &message, MAX_WALK).await?)
        }
        _ => Ok(None),
    }
}
