//! The Attestor and the machines as the chain shows them.

use chain::{ChainAccess, McBlock};
use contracts::attestor::AttestorStorage;
use contracts::platform::{PlatformState, PlatformStorage, Ppid};
use contracts::{Cell, Network, StdAddr};

use crate::error::ClientError;

/// The Attestor's contract as of a block.
#[derive(Debug, Clone)]
pub struct AttestorView {
    /// The contract's address.
    pub address: StdAddr,
    /// The block.
    pub as_of: McBlock,
    /// Its code cell.
    pub code: Cell,
    /// Its data cell.
    pub data: Cell,
    /// The same, read.
    pub storage: AttestorStorage,
}

/// Reads the Attestor of `network` as of `at`. That its code and root are the right ones is for the caller to check.
///
/// # Errors
/// [`ClientError::NotOurs`] where nothing is at its address; a wire error where its storage does not parse.
pub async fn read_attestor<C: ChainAccess + ?Sized>(
    chain: &C,
    network: &Network,
    at: &McBlock,
) -> Result<AttestorView, ClientError> {
    let address = network.generation.params.attestor.clone();
    let view = chain.account(&address, at).await?;
    let (Some(code), Some(data)) = (view.code(), view.data()) else {
        let reason = "there is no active contract".to_owned();
        return Err(ClientError::NotOurs { address, what: "Attestor", reason });
    };
    let storage = contracts::wire::from_cell(data)?;
    Ok(AttestorView { address, as_of: *at, code: code.clone(), data: data.clone(), storage })
}

/// Whom the machine serves as of `at`; `None` where it serves nobody.
///
/// # Errors
/// A wire error where its storage does not parse; what reading the chain meets.
pub async fn read_platform<C: ChainAccess + ?Sized>(
    chain: &C,
    network: &Network,
    ppid: Ppid,
    at: &McBlock,
) -> Result<Option<PlatformState>, ClientError> {
    let view = chain.account(&network.platform_address(ppid)?, at).await?;
    let Some(data) = view.data() else { return Ok(None) };
    let storage: PlatformStorage = contracts::wire::from_cell(data)?;
    Ok(storage.state)
}
