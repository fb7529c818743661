//! The Registry as the chain shows it: the parameters it stands for and the images it admits.

use chain::{ChainAccess, McBlock};
use contracts::registry::RegistryStorage;
use contracts::{Cell, CodeRef, Generation, HashBytes, Network, Ref, StdAddr};

use crate::error::{ClientError, Unfit};

/// The Registry's contract as of a block.
#[derive(Debug, Clone)]
pub struct RegistryView {
    /// The contract's address.
    pub address: StdAddr,
    /// The block.
    pub as_of: McBlock,
    /// Its code cell.
    pub code: Cell,
    /// Its data cell.
    pub data: Cell,
    /// The same, read.
    pub storage: RegistryStorage,
}

/// Reads the Registry of `network` as of `at`. `trusted_code` is the code that the network file names for it.
///
/// # Errors
/// [`ClientError::NotOurs`] where nothing is at its address, or another contract, or one that does not serve these
/// parameters.
pub async fn read_registry<C: ChainAccess + ?Sized>(
    chain: &C,
    network: &Network,
    trusted_code: &CodeRef,
    at: &McBlock,
) -> Result<RegistryView, ClientError> {
    let address = network.registry.clone();
    let not_ours = |reason: &str| ClientError::NotOurs {
        address: address.clone(),
        what: "Registry",
        reason: reason.to_owned(),
    };
    let view = chain.account(&address, at).await?;
    let (Some(code), Some(data)) = (view.code(), view.data()) else {
        return Err(not_ours("there is no active contract"));
    };
    if CodeRef::of(code) != *trusted_code {
        return Err(not_ours("its code is another"));
    }
    let storage: RegistryStorage = contracts::wire::from_cell(data)?;
    let generation = contracts::wire::to_cell(&network.generation)?;
    if !storage.serves(generation.repr_hash()) {
        return Err(not_ours("its parameters are others, or those of the network file are retired"));
    }
    Ok(RegistryView { address, as_of: *at, code: code.clone(), data: data.clone(), storage })
}

/// What a registration has to name beside the keys: the generation of `network`, where its Registry has come to another
/// one since.
///
/// # Errors
/// [`ClientError::NotOurs`] where no Registry is at its address.
pub async fn earlier_generation<C: ChainAccess + ?Sized>(
    chain: &C,
    network: &Network,
    at: &McBlock,
) -> Result<Option<Ref<Generation>>, ClientError> {
    let address = network.registry.clone();
    let view = chain.account(&address, at).await?;
    let data = view.data().ok_or_else(|| ClientError::NotOurs {
        address,
        what: "Registry",
        reason: "there is no active contract".to_owned(),
    })?;
    let newest = contracts::wire::from_cell::<RegistryStorage>(data)?.generation;
    let own = Ref::new(network.generation.clone())?;
    Ok((newest.hash() != own.hash()).then_some(own))
}

impl RegistryView {
    /// Unix time from which the image is admitted; `None` where it is not listed, or the list does not parse.
    pub fn admitted_from(&self, measurement: &HashBytes) -> Option<u32> {
        self.storage.measurements.get(measurement).ok().flatten()
    }

    /// Whether the image is admitted at the time of this view.
    ///
    /// # Errors
    /// [`Unfit::MeasurementNotAdmitted`].
    pub fn check_admitted(&self, measurement: &HashBytes) -> Result<(), Unfit> {
        match self.admitted_from(measurement) {
            Some(from_s) if from_s <= self.as_of.time_s => Ok(()),
            from_s => Err(Unfit::MeasurementNotAdmitted { measurement: *measurement, from_s }),
        }
    }
}
