//! A model as the chain shows it.

use chain::{ChainAccess, McBlock};
use contracts::model::{ModelState, ModelStorage};
use contracts::network::WORKCHAIN;
use contracts::{HashBytes, Nanoton, Network, StdAddr};

use crate::error::ClientError;

/// A model's contract as of a block.
#[derive(Debug, Clone)]
pub struct ModelView {
    /// The contract's address.
    pub address: StdAddr,
    /// The block.
    pub as_of: McBlock,
    /// Its balance: rent, and the shares that nobody has withdrawn.
    pub balance: Nanoton,
    /// Hash of the weights' manifest.
    pub model_id: HashBytes,
    /// Publisher, royalty, metadata; `None` where it was never registered.
    pub state: Option<ModelState>,
}

/// Reads the Model whose account is `account`, in the basechain, as of `at`.
///
/// # Errors
/// [`ClientError::NotOurs`] where another contract, or none, is there.
pub async fn read_model<C: ChainAccess + ?Sized>(
    chain: &C,
    network: &Network,
    account: &HashBytes,
    at: &McBlock,
) -> Result<ModelView, ClientError> {
    let address = StdAddr::new(WORKCHAIN, *account);
    let not_ours = |reason: &str| ClientError::NotOurs {
        address: address.clone(),
        what: "model",
        reason: reason.to_owned(),
    };
    let view = chain.account(&address, at).await?;
    let (Some(code), Some(data)) = (view.code(), view.data()) else {
        return Err(not_ours("there is no active contract"));
    };
    if *code.repr_hash() != network.generation.codes.model.hash {
        return Err(not_ours("its code is another"));
    }
    let storage: ModelStorage = contracts::wire::from_cell(data)?;
    if network.model_address(&storage.model_id)? != address {
        return Err(not_ours("it belongs to another network"));
    }
    let balance = Nanoton::checked(view.balance_nanoton()).unwrap_or(Nanoton::MAX);
    Ok(ModelView { address, as_of: *at, balance, model_id: storage.model_id, state: storage.state })
}
