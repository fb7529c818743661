//! The Worker: stake, attested keys, offers, claims.

use tycho_types::cell::{HashBytes, Load, Store};
use tycho_types::dict::Dict;
use tycho_types::models::StdAddr;

use crate::attestor::Serial;
use crate::money::{Nanoton, Prices};
use crate::network::Network;
use crate::platform::Ppid;
use crate::receipt::ClaimOrder;
use crate::wire::{Ref, Signature, WireError, messages};

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct WorkerStorage {
    pub owner: StdAddr,
    pub network: Ref<Network>,
    pub state: Option<Ref<WorkerState>>,
}

impl WorkerStorage {
    /// As deployed: without state.
    pub fn initial(network: &Network, owner: StdAddr) -> Result<Self, WireError> {
        Ok(Self { owner, network: Ref::new(network.clone())?, state: None })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct WorkerState {
    /// Free: bonds that are in jobs are not part of it.
    pub stake: Nanoton,
    /// Bonds that travelled into jobs and have not come back.
    pub locked: Nanoton,
    /// Paid by jobs, not yet withdrawn.
    pub earnings: Nanoton,
    pub unbonding: Nanoton,
    /// Unix time from which `unbonding` may be withdrawn.
    pub unbonding_until: u32,
    /// Of the next claim order.
    pub claim_seqno: u32,
    /// Of the next registration: a quote names it, so that none registers twice.
    pub registration_seqno: u32,
    pub record: WorkerRecord,
    pub attestation: Option<Ref<Attestation>>,
    /// Model id → offer.
    pub offers: Dict<HashBytes, Ref<Offer>>,
}

/// How many claims ended how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Store, Load)]
pub struct WorkerRecord {
    pub settled: u32,
    pub rejected: u32,
    pub expired: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Attestation {
    /// Ed25519: signs claims, receipts and rejections.
    pub receipt_key: HashBytes,
    /// X25519: inputs are sealed to it.
    pub encryption_key: HashBytes,
    pub measurement: HashBytes,
    /// Unix time.
    pub expires_at: u32,
    pub evidence: Ref<Evidence>,
}

/// Which quote stands behind an attestation.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Evidence {
    /// SHA-256 of the quote's header and report.
    pub quote_digest: HashBytes,
    /// The masterchain block that the quote's `report_data` names.
    pub mc_seqno: u32,
    /// Unix time.
    pub registered_at: u32,
    /// Who issued the PCK certificate: SHA-256 of its public key x ‖ y.
    pub authority: HashBytes,
    /// Of the PCK certificate.
    pub serial: Serial,
    pub ppid: Ppid,
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct Offer {
    pub prices: Prices,
    /// Quoted by the Model when the offer was made.
    pub royalty_bps: u16,
}

messages! {
    /// Owner; the first one carries the state init.
    "top_up_stake" "#43480301" TopUpStake { query_id: u64, amount: Nanoton }
    /// Platform to Worker, at the end of a registration.
    "attestation_registered" "#43480302" AttestationRegistered {
        query_id: u64,
        ppid: Ppid,
        registration_seqno: u32,
        attestation: Ref<Attestation>,
    }
    /// Owner.
    "offer_model" "#43480303" OfferModel { query_id: u64, model_id: HashBytes, prices: Ref<Prices> }
    /// Owner.
    "withdraw_offer" "#43480304" WithdrawOffer { query_id: u64, model_id: HashBytes }
    /// Owner.
    "request_unbond" "#43480305" RequestUnbond { query_id: u64, amount: Nanoton }
    /// Owner.
    "withdraw_unbonded" "#43480306" WithdrawUnbonded { query_id: u64 }
    /// Owner.
    "withdraw_earnings" "#43480307" WithdrawEarnings { query_id: u64 }
    /// Anyone: the value stays as the float that pays for claims.
    "fund_gas" "#43480308" FundGas { query_id: u64 }
    /// Owner: give the machine free, and the attestation up if it is that machine's.
    "leave_platform" "#4348030a" LeavePlatform { query_id: u64, ppid: Ppid }
    /// External, signed by the attested receipt key.
    "claim_job" "#43480309" ClaimJob { signature: Signature, order: Ref<ClaimOrder> }
}
