//! The Registry: owner, generation of contracts, admitted image measurements.

use tycho_types::cell::{Cell, HashBytes, Load, Store};
use tycho_types::dict::Dict;
use tycho_types::models::{StateInit, StdAddr};

use crate::network::{CodeRef, Generation, Network, state_init};
use crate::wire::{Ref, WireError, messages, to_cell};

/// The whole storage; as deployed, `pending_owner` is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct RegistryStorage {
    pub owner: StdAddr,
    pub pending_owner: Option<StdAddr>,
    /// Lets one owner have several registries.
    pub salt: u64,
    /// Between allowing a measurement and its being admitted.
    pub timelock_s: u32,
    pub generation: Ref<Generation>,
    /// Measurement → Unix time from which it is admitted.
    pub measurements: Dict<HashBytes, u32>,
    pub policy: Ref<PlatformPolicy>,
    pub upgrades: Ref<Upgrades>,
}

/// What a change of parameters changes, and what remains of those before.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Upgrades {
    /// Of the contracts the Registry itself deploys: a library cell.
    pub platform_code: Cell,
    /// The change under way.
    pub next: Option<Ref<Proposal>>,
    /// Hash of an earlier generation's cell → its Platform's code: its workers register as before.
    pub earlier: Dict<HashBytes, Cell>,
}

/// A change of parameters that waits for its time.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Proposal {
    /// Unix time from which anyone may apply it.
    pub from: u32,
    /// Of changes proposed after it.
    pub timelock_s: u32,
    /// Of the children that come after it.
    pub generation: Ref<Generation>,
    pub platform_code: Cell,
}

/// Which TCB levels a worker's platform may be at. Sets of [`crate::attestor::needs`].
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct PlatformPolicy {
    pub needs: u8,
    pub next_needs: u8,
    /// Unix time.
    pub next_from: u32,
    /// [`crate::attestor::QuoteOrigin::advisories`] → Unix time from which they are accepted.
    pub advisories: Dict<HashBytes, u32>,
}

impl PlatformPolicy {
    /// Platforms that need no more than `needs`, without advisories.
    pub fn initial(needs: u8) -> Self {
        Self { needs, next_needs: needs, next_from: 0, advisories: Dict::new() }
    }

    /// What a level may need at a time (Unix seconds).
    pub fn accepted(&self, now_s: u32) -> u8 {
        if now_s >= self.next_from { self.next_needs } else { self.needs & self.next_needs }
    }
}

/// What a worker asks for beside its quote: all that the quote's report data binds but the worker's own address.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct RegistrationRequest {
    pub receipt_key: HashBytes,
    pub encryption_key: HashBytes,
    pub registration_seqno: u32,
    pub mc_seqno: u32,
    pub mc_root_hash: HashBytes,
    /// The worker's, where it is not the Registry's newest.
    pub generation: Option<Ref<Generation>>,
}

impl RegistryStorage {
    /// A fresh registry whose first measurements are admitted at once. `platform_code` is a library cell.
    ///
    /// # Errors
    /// [`WireError::CodeMismatch`] where it is not the one that the generation names.
    pub fn initial(
        owner: StdAddr,
        salt: u64,
        timelock_s: u32,
        generation: Generation,
        measurements: &[HashBytes],
        policy: PlatformPolicy,
        platform_code: Cell,
    ) -> Result<Self, WireError> {
        if *platform_code.repr_hash() != generation.codes.platform {
            return Err(WireError::CodeMismatch { what: "the platform" });
        }
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
            generation: Ref::new(generation)?,
            measurements: admitted,
            policy: Ref::new(policy)?,
            upgrades: Ref::new(Upgrades { platform_code, next: None, earlier: Dict::new() })?,
        })
    }

    /// Address of the registry that starts with this storage.
    pub fn address(&self, code: &Cell) -> Result<StdAddr, WireError> {
        Ok(CodeRef::of(code).address(&to_cell(self)?))
    }

    /// Whether children of this generation, by the hash of its cell, are this registry's: the newest, or an earlier one
    /// that was not retired.
    pub fn serves(&self, generation: &HashBytes) -> bool {
        self.generation.hash() == *generation || matches!(self.upgrades.earlier.get(generation), Ok(Some(_)))
    }

    /// What the children of the registry at `address` are born with.
    pub fn network(&self, address: StdAddr) -> Network {
        Network { registry: address, generation: (*self.generation).clone() }
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
    /// Anyone: tell a worker that its measurement is revoked.
    "enforce_revocation" "#43480107" EnforceRevocation {
        query_id: u64,
        measurement: HashBytes,
        worker_owner: StdAddr,
        /// The worker's, where it is not the Registry's newest.
        generation: Option<Ref<Generation>>,
    }
    /// Registry to worker.
    "measurement_revoked" "#43480108" MeasurementRevoked { query_id: u64, measurement: HashBytes }
    /// Owner: what a TCB level may need; what is dropped is dropped at once, what is added waits for the timelock.
    "set_accepted_needs" "#43480109" SetAcceptedNeeds { query_id: u64, needs: u8 }
    /// Owner: accept levels with these advisories after the timelock.
    "allow_advisories" "#4348010a" AllowAdvisories { query_id: u64, advisories: HashBytes }
    /// Owner: accept them no longer, at once.
    "revoke_advisories" "#4348010b" RevokeAdvisories { query_id: u64, advisories: HashBytes }
    /// Owner: other parameters, codes and timelock after the timelock, for children that come then. One at a time.
    "propose_generation" "#4348010d" ProposeGeneration {
        query_id: u64,
        timelock_s: u32,
        generation: Ref<Generation>,
        platform_code: Cell,
    }
    /// Owner: take the proposal back, at once.
    "withdraw_proposal" "#4348010e" WithdrawProposal { query_id: u64 }
    /// Anyone, once its time has come.
    "apply_proposal" "#4348010f" ApplyProposal { query_id: u64 }
    /// Owner: workers of an earlier generation, by the hash of its cell, register no more, at once.
    "retire_generation" "#43480110" RetireGeneration { query_id: u64, generation: HashBytes }
    /// Log of the Registry.
    "registry_changed" "#43480180" RegistryChanged {
        /// Of the message that changed it.
        opcode: u32,
        /// Measurement, advisories, needs, hash of the generation's cell, or account of the owner to come.
        subject: HashBytes,
        /// Unix time from which it holds.
        from: u32,
    }
    /// To the sender of a `verify_quote`, with what it brought: why the registration ends here, by its exit code.
    "registration_refused" "#4348010c" RegistrationRefused { query_id: u64, reason: u16 }
}
