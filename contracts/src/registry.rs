//! The Registry: owner, parameters, admitted image measurements.

use tycho_types::cell::{Cell, HashBytes, Load, Store};
use tycho_types::dict::Dict;
use tycho_types::models::{StateInit, StdAddr};

use crate::network::{CodeRef, Params, state_init};
use crate::wire::{Ref, WireError, messages, to_cell};
use crate::worker::Attestation;

/// The whole storage; as deployed, `pending_owner` is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct RegistryStorage {
    pub owner: StdAddr,
    pub pending_owner: Option<StdAddr>,
    /// Lets one owner have several registries.
    pub salt: u64,
    /// Between allowing a measurement and its being admitted.
    pub timelock_s: u32,
    pub params: Ref<Params>,
    /// Measurement → Unix time from which it is admitted.
    pub measurements: Dict<HashBytes, u32>,
}

impl RegistryStorage {
    /// A fresh registry whose first measurements are admitted at once.
    pub fn initial(
        owner: StdAddr,
        salt: u64,
        timelock_s: u32,
        params: Params,
        measurements: &[HashBytes],
    ) -> Result<Self, WireError> {
        let mut admitted = Dict::new();
        for measurement in measurements {
            admitted
                .set(measurement, 0u32)
                .map_err(|source| WireError::Build { what: "RegistryStorage", source })?;
        }
        Ok(Self {
            owner,
            pending_owner: None,
            salt,
            timelock_s,
            params: Ref::new(params)?,
            measurements: admitted,
        })
    }

    /// Address of the registry that starts with this storage.
    pub fn address(&self, code: &Cell) -> Result<StdAddr, WireError> {
        Ok(CodeRef::of(code).address(&to_cell(self)?))
    }

    /// What deploys the registry.
    pub fn state_init(&self, code: &Cell) -> Result<StateInit, WireError> {
        Ok(state_init(code.clone(), to_cell(self)?))
    }
}

messages! {
    /// Owner: admit a measurement after the timelock.
    "allow_measurement" "#43480101" AllowMeasurement { query_id: u64, measurement: HashBytes }
    /// Owner: admit a measurement no longer, at once.
    "revoke_measurement" "#43480102" RevokeMeasurement { query_id: u64, measurement: HashBytes }
    /// Owner: offer the ownership, or take the offer back with nothing.
    "transfer_ownership" "#43480103" TransferOwnership { query_id: u64, new_owner: Option<StdAddr> }
    /// The pending owner: take the ownership.
    "accept_ownership" "#43480104" AcceptOwnership { query_id: u64 }
    /// Anyone: ask whether the candidate's measurement is admitted.
    "check_measurement" "#43480105" CheckMeasurement { query_id: u64, candidate: Ref<Attestation> }
    /// Registry to asker: it is.
    "measurement_admitted" "#43480106" MeasurementAdmitted { query_id: u64, candidate: Ref<Attestation> }
    /// Anyone: tell a worker that its measurement is revoked.
    "enforce_revocation" "#43480107" EnforceRevocation { query_id: u64, measurement: HashBytes, worker_owner: StdAddr }
    /// Registry to worker.
    "measurement_revoked" "#43480108" MeasurementRevoked { query_id: u64, measurement: HashBytes }
}
