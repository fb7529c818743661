//! A worker as the chain shows it: its contract's state and the quote it published.

use chain::{AccountTx, ChainAccess, McBlock, TxId};
use contracts::job::JobTerms;
use contracts::worker::{Attestation, Offer, RegisterAttestation, WorkerState, WorkerStorage};
use contracts::{HashBytes, Message, Nanoton, Network, Prices, StdAddr};
use sha2::{Digest, Sha256};

use crate::error::{ClientError, Unfit};

/// A worker's contract as of a block.
#[derive(Debug, Clone)]
pub struct WorkerView {
    /// The contract's address.
    pub address: StdAddr,
    /// The block.
    pub as_of: McBlock,
    /// Its balance: stake, earnings and the float for gas.
    pub balance: Nanoton,
    /// Who owns it.
    pub owner: StdAddr,
    /// Stake, attestation, offers.
    pub state: WorkerState,
    /// The contract's newest transaction.
    pub last: Option<TxId>,
}

/// The registration that published a worker's quote.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The transaction of the worker's contract.
    pub transaction: AccountTx,
    /// What it stated.
    pub candidate: Attestation,
    /// The raw quote.
    pub quote: Vec<u8>,
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
    if *code.repr_hash() != network.params.codes.worker.hash {
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
        state: state.into_value(),
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

    /// Whether the contract would let the worker claim a job of these terms.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn check_fit(&self, network: &Network, terms: &JobTerms) -> Result<(), Unfit> {
        let attestation = self.attestation()?;
        if attestation.expires_at <= terms.claim_by {
            return Err(Unfit::AttestationEnds { expires_at_s: attestation.expires_at });
        }
        if terms.measurement != HashBytes::ZERO && terms.measurement != attestation.measurement {
            return Err(Unfit::OtherMeasurement);
        }
        let prices: Prices = self.offer(&terms.model_id)?.prices;
        if !prices.at_most(&terms.limits.max_prices) {
            return Err(Unfit::PriceOverTerms);
        }
        let bond = network.params.min_bond_for(terms.limits.deposit);
        let free = self.state.stake;
        let total = free.checked_add(self.state.locked).unwrap_or(Nanoton::MAX);
        if free < bond || total < network.params.min_stake {
            return Err(Unfit::UnderStaked { free, bond });
        }
        Ok(())
    }
}

/// Finds the registration whose quote the worker's present attestation names.
///
/// # Errors
/// [`Unfit::QuoteNotPublished`] where it is not within the last [`MAX_WALK`] transactions.
pub async fn find_registration<C: ChainAccess + ?Sized>(
    chain: &C,
    worker: &WorkerView,
) -> Result<Registration, ClientError> {
    let unfit = |reason| ClientError::Unfit { address: worker.address.clone(), reason };
    let wanted = worker.attestation().map_err(unfit)?.evidence.quote_hash;
    let matches = |found: &Registration| found.candidate.evidence.quote_hash == wanted;
    let found = newest_registration(chain, &worker.address, worker.last, matches).await?;
    found.ok_or_else(|| unfit(Unfit::QuoteNotPublished))
}

/// The newest registration that `wanted` accepts, walking back from the transaction `from` of `worker`.
///
/// # Errors
/// What reading the chain meets.
pub async fn newest_registration<C: ChainAccess + ?Sized>(
    chain: &C,
    worker: &StdAddr,
    mut from: Option<TxId>,
    wanted: impl Fn(&Registration) -> bool + Send,
) -> Result<Option<Registration>, ClientError> {
    let mut walked = 0;
    while let Some(newest) = from
        && walked < MAX_WALK
    {
        let page = chain.latest_transactions(worker, newest, PAGE).await?;
        for transaction in &page {
            if let Some(found) = registration_in(transaction)?
                && wanted(&found)
            {
                return Ok(Some(found));
            }
        }
        walked += page.len();
        from = page.last().and_then(AccountTx::previous);
    }
    Ok(None)
}

/// The registration that a transaction of a worker's contract is, if its quote is the one it names.
///
/// # Errors
/// A cell error for a transaction that does not parse.
pub fn registration_in(transaction: &AccountTx) -> Result<Option<Registration>, ClientError> {
    let Some(message) = transaction.in_message()? else { return Ok(None) };
    if message.from.is_none() || message.bounced || !transaction.result()?.succeeded {
        return Ok(None);
    }
    let Ok(body) = RegisterAttestation::from_cell(&message.body) else { return Ok(None) };
    let quote = body.quote.into_value().into_bytes();
    if Sha256::digest(&quote).as_slice() != body.candidate.evidence.quote_hash.as_slice() {
        return Ok(None);
    }
    Ok(Some(Registration { transaction: transaction.clone(), candidate: body.candidate.into_value(), quote }))
}

/// How far back a registration is looked for.
pub const MAX_WALK: usize = 20_000;
const PAGE: usize = 64;
