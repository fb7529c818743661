//! A generation of contracts: the Registry's address, the fixed parameters, and the addresses that follow from them.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tycho_types::cell::{Cell, HashBytes, Load, Store};
use tycho_types::models::{StateInit, StdAddr};

use crate::job::JobStorage;
use crate::model::ModelStorage;
use crate::money::Nanoton;
use crate::platform::{PlatformStorage, Ppid};
use crate::wire::{Ref, WireError, to_cell};
use crate::worker::WorkerStorage;

/// The workchain every contract of Chrysalis but the Librarian lives in.
pub const WORKCHAIN: i8 = 0;

/// Hash and depth of a cell. Of a code: enough to compute the address of a contract with that code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Store, Load, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeRef {
    pub hash: HashBytes,
    pub depth: u16,
}

impl CodeRef {
    pub fn of(code: &Cell) -> Self {
        Self { hash: *code.repr_hash(), depth: code.repr_depth() }
    }

    /// Address of the contract that starts with this code and `data`.
    pub fn address(&self, data: &Cell) -> StdAddr {
        // Representation of StateInit{code, data}: two references, the five bits 00110 completed to 0x34, depths, hashes.
        let mut hasher = Sha256::new();
        hasher.update([2, 1, 0x34]);
        hasher.update(self.depth.to_be_bytes());
        hasher.update(data.repr_depth().to_be_bytes());
        hasher.update(self.hash.0);
        hasher.update(data.repr_hash().0);
        StdAddr::new(WORKCHAIN, HashBytes(hasher.finalize().into()))
    }

    /// `StateInit{code, data}`; errors when `code` is another code.
    pub fn state_init(&self, what: &'static str, code: &Cell, data: Cell) -> Result<StateInit, WireError> {
        if Self::of(code) != *self {
            return Err(WireError::CodeMismatch { what });
        }
        Ok(state_init(code.clone(), data))
    }
}

/// `StateInit` with code and data alone.
pub fn state_init(code: Cell, data: Cell) -> StateInit {
    StateInit { code: Some(code), data: Some(data), ..Default::default() }
}

/// Codes of the children that are part of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Store, Load)]
pub struct Codes {
    pub worker: CodeRef,
    pub model: CodeRef,
    /// Hash of the library cell that is a Platform's code.
    pub platform: HashBytes,
}

/// Fixed for one generation of contracts. Amounts in nanoTON, shares in basis points.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Generation {
    /// TON's global id.
    pub network_id: i32,
    pub fee_bps: u16,
    pub bond_bps: u16,
    pub min_bond: Nanoton,
    /// A Job's code: a library cell.
    pub job_code: Cell,
    pub codes: Ref<Codes>,
    pub params: Ref<Params>,
}

/// What is needed more seldom.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Params {
    pub treasury: StdAddr,
    pub royalty_cap_bps: u16,
    pub min_stake: Nanoton,
    pub unbonding_s: u32,
    /// Who verifies quotes.
    pub attestor: StdAddr,
    /// An attestation lasts no longer.
    pub attestation_ttl_s: u32,
}

impl Generation {
    /// `max(min_bond, ⌈deposit × bond_bps / 10 000⌉)`: what an executor offers and a client asks for a claim.
    pub fn bond_for(&self, deposit: Nanoton) -> Nanoton {
        self.min_bond.max(deposit.share_bps_ceil(self.bond_bps))
    }

    /// Royalty and fee together.
    pub fn share_bps(&self, royalty_bps: u16) -> u16 {
        royalty_bps.saturating_add(self.fee_bps)
    }
}

/// What every Model, Worker and Platform is born with.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Network {
    pub registry: StdAddr,
    pub generation: Generation,
}

impl Network {
    pub fn id(&self) -> i32 {
        self.generation.network_id
    }

    /// Address of the job that `client` posts under `nonce`.
    pub fn job_address(&self, client: &StdAddr, nonce: u64) -> Result<StdAddr, WireError> {
        job_address(&self.generation.job_code, client, nonce)
    }

    /// Address of the worker contract of `owner`.
    pub fn worker_address(&self, owner: &StdAddr) -> Result<StdAddr, WireError> {
        let data = to_cell(&WorkerStorage::initial(self, owner.clone())?)?;
        Ok(self.generation.codes.worker.address(&data))
    }

    /// Address of the contract of a machine.
    pub fn platform_address(&self, ppid: Ppid) -> Result<StdAddr, WireError> {
        let data = to_cell(&PlatformStorage::initial(self, ppid)?)?;
        Ok(CodeRef { hash: self.generation.codes.platform, depth: 0 }.address(&data))
    }

    /// Address of the contract of a model.
    pub fn model_address(&self, model_id: &HashBytes) -> Result<StdAddr, WireError> {
        let data = to_cell(&ModelStorage::initial(self, *model_id)?)?;
        Ok(self.generation.codes.model.address(&data))
    }

    /// What deploys the job: with its code's library cell.
    pub fn job_state_init(&self, client: &StdAddr, nonce: u64) -> Result<StateInit, WireError> {
        let data = to_cell(&JobStorage::initial(client.clone(), nonce))?;
        Ok(state_init(self.generation.job_code.clone(), data))
    }

    /// What deploys the worker contract; `code` is the worker's code cell.
    pub fn worker_state_init(&self, code: &Cell, owner: &StdAddr) -> Result<StateInit, WireError> {
        let data = to_cell(&WorkerStorage::initial(self, owner.clone())?)?;
        self.generation.codes.worker.state_init("the worker", code, data)
    }

    /// What deploys the model contract; `code` is the model's code cell.
    pub fn model_state_init(&self, code: &Cell, model_id: &HashBytes) -> Result<StateInit, WireError> {
        let data = to_cell(&ModelStorage::initial(self, *model_id)?)?;
        self.generation.codes.model.state_init("the model", code, data)
    }
}

/// Address of the job that `client` posts under `nonce`; `code` is the library cell of a Job's code. A job knows nothing
/// of the network.
pub fn job_address(code: &Cell, client: &StdAddr, nonce: u64) -> Result<StdAddr, WireError> {
    let data = to_cell(&JobStorage::initial(client.clone(), nonce))?;
    Ok(CodeRef::of(code).address(&data))
}
