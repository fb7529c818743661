//! The Platform: which Worker a machine serves.

use tycho_types::cell::{Load, Store};
use tycho_types::models::StdAddr;

use crate::attestor::Bytes;
use crate::network::Network;
use crate::wire::{Ref, WireError, messages};
use crate::worker::Attestation;

/// Platform provisioning id: one per machine.
pub type Ppid = Bytes<16>;

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct PlatformStorage {
    pub ppid: Ppid,
    pub network: Ref<Network>,
    pub state: Option<PlatformState>,
}

impl PlatformStorage {
    /// As deployed: without state.
    pub fn initial(network: &Network, ppid: Ppid) -> Result<Self, WireError> {
        Ok(Self { ppid, network: Ref::new(network.clone())?, state: None })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct PlatformState {
    pub worker_owner: StdAddr,
    /// Unix time: the last moment of the attestation it serves under.
    pub until: u32,
}

messages! {
    /// Registry to Platform: the machine's quote names this worker.
    "serve_worker" "#43480601" ServeWorker {
        query_id: u64,
        worker_owner: StdAddr,
        registration_seqno: u32,
        attestation: Ref<Attestation>,
    }
    /// Worker to Platform; anyone once the attestation has ended.
    "leave_worker" "#43480602" LeaveWorker { query_id: u64 }
}
