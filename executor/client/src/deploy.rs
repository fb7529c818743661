//! Wallet messages that set up a network and its parties: librarian, attestor, registry, models, workers. Pure.
//!
//! Every function returns the [`Transfer`] that the named party's wallet is to send.

use chain::Transfer;
use contracts::attestor::{AttestorStorage, QuoteProof, ReportRevocation, VerifyQuote};
use contracts::model::{DeprecateModel, RegisterModel, Unit, WithdrawShares};
use contracts::money::BPS;
use contracts::network::state_init;
use contracts::registry::{AllowMeasurement, RegistrationRequest, RegistryStorage, RevokeMeasurement};
use contracts::wire::{Ref, Snake, to_cell};
use contracts::worker::{
    Evidence, FundGas, OfferModel, PauseWorker, RequestUnbond, SetEndpoint, SetOperator, TopUpStake,
    WithdrawEarnings, WithdrawOffer, WithdrawUnbonded,
};
use contracts::{Cell, CodeRef, HashBytes, Message, Nanoton, Network, Prices, StdAddr, librarian};

use prover::collateral::Posting;

use crate::amounts;
use crate::error::ClientError;

/// Anyone: publishes codes as libraries of the masterchain, and pays their rent for a year. `libraries` are the codes
/// themselves; an account of this address that exists already keeps what it is brought as further rent.
///
/// # Errors
/// A wire error for more than four libraries; [`ClientError::Request`] for one too large to be published.
pub fn librarian(libraries: &[Cell]) -> Result<Transfer, ClientError> {
    let value = plus(libraries_rent(libraries, YEAR_S)?, amounts::LIBRARIAN_DEPLOY)?;
    let transfer = Transfer::new(librarian::address(libraries)?, value.get(), Cell::default());
    Ok(transfer.with_state_init(librarian::initial_state(libraries)?))
}

/// Anyone: deploys an Attestor, and its rent with it. Its address follows from `storage`; it has no owner.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn attestor(code: &Cell, storage: &AttestorStorage) -> Result<Transfer, ClientError> {
    let init = state_init(code.clone(), to_cell(storage)?);
    let address = attestor_address(code, storage)?;
    Ok(Transfer::new(address, amounts::ATTESTOR_RENT.get(), Cell::default()).with_state_init(init))
}

/// Where an Attestor with this first storage is.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn attestor_address(code: &Cell, storage: &AttestorStorage) -> Result<StdAddr, ClientError> {
    Ok(CodeRef::of(code).address(&to_cell(storage)?))
}

/// Anyone: brings signed collateral to the Attestor; what is not its rent comes back.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn post_collateral(network: &Network, posting: &Posting) -> Result<Transfer, ClientError> {
    let attestor = network.generation.params.attestor.clone();
    Ok(Transfer::new(attestor, amounts::POSTING.get(), posting.to_cell()?))
}

/// Worker owner: has a quote verified and the keys that it binds registered.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn register(
    network: &Network,
    proof: QuoteProof,
    request: &RegistrationRequest,
) -> Result<Transfer, ClientError> {
    let body = VerifyQuote {
        query_id: 0,
        answer_to: network.registry.clone(),
        quote: Ref::new(proof)?,
        payload: to_cell(request)?,
    };
    let attestor = network.generation.params.attestor.clone();
    Ok(Transfer::new(attestor, amounts::REGISTRATION.get(), body.to_cell()?))
}

/// Anyone: has the Attestor tell a worker that its platform's certificate is revoked.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn report_revocation(
    network: &Network,
    worker: &StdAddr,
    evidence: &Evidence,
) -> Result<Transfer, ClientError> {
    let (authority, serial) = (evidence.authority, evidence.serial);
    let body = ReportRevocation { query_id: 0, authority, serial, worker: worker.clone() };
    order(&network.generation.params.attestor, &body)
}

/// Registry owner: deploys the Registry, and its rent with it. Its address follows from `storage`.
///
/// # Errors
/// [`ClientError::Request`] where royalty cap and fee come to more than the whole payment; a wire error for storage
/// that does not fit.
pub fn registry(code: &Cell, storage: &RegistryStorage) -> Result<Transfer, ClientError> {
    let generation = &storage.generation;
    let (cap_bps, fee_bps) = (generation.params.royalty_cap_bps, generation.fee_bps);
    if u128::from(cap_bps) + u128::from(fee_bps) > BPS {
        return Err(ClientError::Request(format!(
            "a royalty cap of {cap_bps} and a fee of {fee_bps} basis points come to more than 10 000; lower one"
        )));
    }
    let address = storage.address(code)?;
    let transfer = Transfer::new(address, amounts::REGISTRY_RENT.get(), Cell::default());
    Ok(transfer.with_state_init(storage.state_init(code)?))
}

/// Registry owner: admits a measurement once the timelock has passed.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn allow_measurement(registry: &StdAddr, measurement: HashBytes) -> Result<Transfer, ClientError> {
    order(registry, &AllowMeasurement { query_id: 0, measurement })
}

/// Registry owner: admits a measurement no longer, at once.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn revoke_measurement(registry: &StdAddr, measurement: HashBytes) -> Result<Transfer, ClientError> {
    order(registry, &RevokeMeasurement { query_id: 0, measurement })
}

/// Publisher: registers a model; whoever does it first is its publisher. `metadata` is UTF-8 JSON: name,
/// licence, context.
///
/// # Errors
/// A wire error for metadata above 48 KiB or another code than the network's.
pub fn register_model(
    network: &Network,
    model_code: &Cell,
    model_id: &HashBytes,
    royalty_bps: u16,
    unit: Unit,
    metadata: &str,
) -> Result<Transfer, ClientError> {
    let metadata = Ref::new(Snake::new(metadata.as_bytes().to_vec())?)?;
    let body = RegisterModel { query_id: 0, royalty_bps, unit, files_root: None, metadata }.to_cell()?;
    let transfer = Transfer::new(network.model_address(model_id)?, amounts::MODEL_REGISTER.get(), body);
    Ok(transfer.with_state_init(network.model_state_init(model_code, model_id)?))
}

/// Publisher: no worker may newly offer the model.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn deprecate_model(network: &Network, model_id: &HashBytes) -> Result<Transfer, ClientError> {
    order(&network.model_address(model_id)?, &DeprecateModel { query_id: 0 })
}

/// Anyone: sends a model's collected royalty to its publisher and its fee to the treasury.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn withdraw_shares(network: &Network, model_id: &HashBytes) -> Result<Transfer, ClientError> {
    order(&network.model_address(model_id)?, &WithdrawShares { query_id: 0 })
}

/// Worker owner: adds `amount` to the stake. The first time it deploys the worker's contract; the state init
/// goes with every one, since an existing contract ignores it.
///
/// # Errors
/// A wire error for another code than the network's.
pub fn top_up_stake(
    network: &Network,
    worker_code: &Cell,
    owner: &StdAddr,
    amount: Nanoton,
) -> Result<Transfer, ClientError> {
    let value = plus(amount, amounts::WORKER_DEPLOY)?;
    let body = TopUpStake { query_id: 0, amount }.to_cell()?;
    let transfer = Transfer::new(network.worker_address(owner)?, value.get(), body);
    Ok(transfer.with_state_init(network.worker_state_init(worker_code, owner)?))
}

/// Worker owner or operator: offers a model at these prices, for jobs of this deposit or more.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn offer_model(
    network: &Network,
    owner: &StdAddr,
    model_id: HashBytes,
    min_deposit: Nanoton,
    prices: Prices,
) -> Result<Transfer, ClientError> {
    let body = OfferModel { query_id: 0, model_id, min_deposit, prices: Ref::new(prices)? }.to_cell()?;
    Ok(Transfer::new(network.worker_address(owner)?, amounts::OFFER.get(), body))
}

/// Worker owner or operator: takes an offer back.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn withdraw_offer(
    network: &Network,
    owner: &StdAddr,
    model_id: HashBytes,
) -> Result<Transfer, ClientError> {
    order(&network.worker_address(owner)?, &WithdrawOffer { query_id: 0, model_id })
}

/// Anyone: gives a worker's contract funds for bonds and for the gas of its claims.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn fund_gas(network: &Network, owner: &StdAddr, amount: Nanoton) -> Result<Transfer, ClientError> {
    let body = FundGas { query_id: 0 }.to_cell()?;
    Ok(Transfer::new(network.worker_address(owner)?, amount.get(), body))
}

/// Worker owner: starts to unbond `amount` of the stake.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn request_unbond(network: &Network, owner: &StdAddr, amount: Nanoton) -> Result<Transfer, ClientError> {
    order(&network.worker_address(owner)?, &RequestUnbond { query_id: 0, amount })
}

/// Worker owner: takes stake whose unbonding is over.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn withdraw_unbonded(network: &Network, owner: &StdAddr) -> Result<Transfer, ClientError> {
    order(&network.worker_address(owner)?, &WithdrawUnbonded { query_id: 0 })
}

/// Worker owner: takes `amount` of what is not stake; zero takes all but what a claim costs.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn withdraw_earnings(
    network: &Network,
    owner: &StdAddr,
    amount: Nanoton,
) -> Result<Transfer, ClientError> {
    order(&network.worker_address(owner)?, &WithdrawEarnings { query_id: 0, amount })
}

/// Worker owner or operator: a paused worker takes no new jobs, and finishes those it has.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn pause_worker(network: &Network, owner: &StdAddr, paused: bool) -> Result<Transfer, ClientError> {
    order(&network.worker_address(owner)?, &PauseWorker { query_id: 0, paused })
}

/// Worker owner: names the account that may pause the worker and change its offers; `None` takes it back.
///
/// # Errors
/// A wire error; none is known to occur.
pub fn set_operator(
    network: &Network,
    owner: &StdAddr,
    operator: Option<StdAddr>,
) -> Result<Transfer, ClientError> {
    let account = operator.map(Ref::new).transpose()?;
    order(&network.worker_address(owner)?, &SetOperator { query_id: 0, account })
}

/// Worker owner or operator: where it serves sessions, HOST:PORT; `None`: nowhere.
///
/// # Errors
/// A wire error above 127 bytes.
pub fn set_endpoint(
    network: &Network,
    owner: &StdAddr,
    endpoint: Option<&str>,
) -> Result<Transfer, ClientError> {
    let snake = |text: &str| Snake::new(text.as_bytes().to_vec()).and_then(Ref::new);
    let endpoint = endpoint.map(snake).transpose()?;
    order(&network.worker_address(owner)?, &SetEndpoint { query_id: 0, endpoint })
}

/// What libraries cost to keep, at the masterchain's storage prices: each cell once, with what their account adds.
fn libraries_rent(libraries: &[Cell], time_s: u64) -> Result<Nanoton, ClientError> {
    let (mut cells, mut bits) = (ACCOUNT_CELLS, ACCOUNT_BITS);
    for library in libraries {
        let Some(size) = library.compute_unique_stats(MAX_LIBRARY_CELLS) else {
            let most = MAX_LIBRARY_CELLS;
            return Err(ClientError::Request(format!(
                "a library has more than {most} cells; make it smaller"
            )));
        };
        cells += u128::from(size.cell_count);
        bits += u128::from(size.bit_count);
    }
    let a_second = cells * MC_CELL_PRICE + bits * MC_BIT_PRICE;
    let rent = (a_second * u128::from(time_s)).div_ceil(1 << 16);
    Nanoton::checked(rent).ok_or_else(|| ClientError::Request("the rent is larger than any amount".into()))
}

/// Storage prices of the masterchain, nanoTON for 65 536 s (config parameter 18).
const MC_BIT_PRICE: u128 = 1_000;
const MC_CELL_PRICE: u128 = 500_000;
/// The Librarian's own code, the dictionary of its libraries, and the account's cell, generously.
const ACCOUNT_CELLS: u128 = 16;
const ACCOUNT_BITS: u128 = 8_000;
/// The network's own limit.
const MAX_LIBRARY_CELLS: usize = 1_000;
const YEAR_S: u64 = 365 * 86_400;

fn order(to: &StdAddr, message: &impl Message) -> Result<Transfer, ClientError> {
    Ok(Transfer::new(to.clone(), amounts::ORDER.get(), message.to_cell()?))
}

fn plus(amount: Nanoton, fees: Nanoton) -> Result<Nanoton, ClientError> {
    amount
        .checked_add(fees)
        .ok_or_else(|| ClientError::Request("the amount is larger than any amount of TON".into()))
}
