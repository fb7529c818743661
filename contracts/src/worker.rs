//! The Worker: stake, attested keys, offers, claims.

use tycho_types::cell::{Cell, HashBytes, Load, Store};
use tycho_types::dict::Dict;
use tycho_types::models::StdAddr;

use crate::attestor::Serial;
use crate::model::RoyaltyQuoted;
use crate::money::{Nanoton, Prices};
use crate::network::Network;
use crate::platform::Ppid;
use crate::receipt::ClaimOrder;
use crate::wire::{Message, Ref, Signature, Snake, WireError, messages};

/// From the post of any job to the end of its audit at most; the least time of unbonding, whatever the network's.
pub const MAX_JOB_LIFE_S: u32 = 28 * 86_400;
/// Of the penalty for two receipts of one sequence, what the treasury has and what the reporter; the rest is the client's.
pub const TREASURY_PART_BPS: u16 = 5_000;
pub const REPORTER_PART_BPS: u16 = 1_000;
/// Registrations whose keys are kept at most.
pub const MAX_RECEIPT_KEYS: u32 = 128;

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct WorkerStorage {
    pub owner: StdAddr,
    pub network: Ref<Network>,
    pub state: Option<WorkerState>,
}

impl WorkerStorage {
    /// As deployed: without state.
    pub fn initial(network: &Network, owner: StdAddr) -> Result<Self, WireError> {
        Ok(Self { owner, network: Ref::new(network.clone())?, state: None })
    }
}

/// What lies above `stake` and `unbonding` is the owner's: earnings, gas, and the funds that bonds are made of.
#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct WorkerState {
    /// What two receipts of one sequence cost.
    pub stake: Nanoton,
    pub unbonding: Nanoton,
    /// Unix time from which `unbonding` may be withdrawn.
    pub unbonding_until: u32,
    /// Of the next claim order.
    pub claim_seqno: u32,
    /// Of the next registration: a quote names it, so that none registers twice.
    pub registration_seqno: u32,
    /// How often.
    pub slashed: u32,
    /// A paused Worker claims no job, and finishes those it has.
    pub paused: bool,
    pub attestation: Option<Ref<Attestation>>,
    /// Model id → offer.
    pub offers: Dict<HashBytes, Ref<Offer>>,
    pub history: Ref<WorkerHistory>,
}

impl WorkerState {
    /// HOST:PORT of its sessions, where it names one that could be such.
    pub fn endpoint(&self) -> Option<String> {
        let text = std::str::from_utf8(self.history.endpoint.as_ref()?.as_bytes()).ok()?;
        let (host, port) = text.rsplit_once(':')?;
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        (!host.is_empty() && host.bytes().all(is_host) && port.parse::<u16>().is_ok())
            .then(|| text.to_owned())
    }

    /// What of `balance` is the owner's.
    pub fn free(&self, balance: Nanoton) -> Nanoton {
        balance.saturating_sub(self.stake).saturating_sub(self.unbonding)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct WorkerHistory {
    /// May pause, offer and withdraw offers; nothing that moves money.
    pub operator: Option<StdAddr>,
    /// Where it serves sessions: UTF-8, HOST:PORT, at most 127 bytes.
    pub endpoint: Option<Ref<Snake>>,
    /// Registration seqno → key: what it signed can be held against the stake.
    pub receipt_keys: Dict<u32, ReceiptKey>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Store, Load)]
pub struct ReceiptKey {
    /// Ed25519.
    pub key: HashBytes,
    /// Unix time: when every job that it may have signed for has been closed and audited.
    pub until: u32,
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
    /// The least deposit of a job.
    pub min_deposit: Nanoton,
    /// Quoted by the Model when the offer was made.
    pub royalty_bps: u16,
    /// The Model's account, in the basechain.
    pub model: HashBytes,
}

/// One step of a worker's price history, which the transactions of its account tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfferChange {
    /// The offer of a model is new, or another than before.
    Offered {
        model_id: HashBytes,
        prices: Prices,
        min_deposit: Nanoton,
        royalty_bps: u16,
    },
    Withdrawn {
        model_id: HashBytes,
    },
}

impl OfferChange {
    /// What a message changed, by its body, where the Worker's transaction on it succeeded: then its sender was the
    /// Model, or who may withdraw the offer.
    pub fn of_message(body: &Cell, bounced: bool) -> Option<Self> {
        if bounced {
            return None;
        }
        if let Ok(RoyaltyQuoted { model_id, royalty_bps, min_deposit, prices, .. }) =
            RoyaltyQuoted::from_cell(body)
        {
            return Some(Self::Offered { model_id, prices: *prices, min_deposit, royalty_bps });
        }
        let WithdrawOffer { model_id, .. } = WithdrawOffer::from_cell(body).ok()?;
        Some(Self::Withdrawn { model_id })
    }
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
    /// Owner or operator.
    "offer_model" "#43480303" OfferModel {
        query_id: u64,
        model_id: HashBytes,
        min_deposit: Nanoton,
        prices: Ref<Prices>,
    }
    /// Owner or operator.
    "withdraw_offer" "#43480304" WithdrawOffer { query_id: u64, model_id: HashBytes }
    /// Owner.
    "request_unbond" "#43480305" RequestUnbond { query_id: u64, amount: Nanoton }
    /// Owner.
    "withdraw_unbonded" "#43480306" WithdrawUnbonded { query_id: u64 }
    /// Owner.
    "withdraw_earnings" "#43480307" WithdrawEarnings {
        query_id: u64,
        /// Zero: all that is not stake, less what a claim costs.
        amount: Nanoton,
    }
    /// Anyone: the value stays among the owner's funds.
    "fund_gas" "#43480308" FundGas { query_id: u64 }
    /// Owner: give the machine free, and the attestation up if it is that machine's.
    "leave_platform" "#4348030a" LeavePlatform { query_id: u64, ppid: Ppid }
    /// External, signed by the attested receipt key.
    "claim_job" "#43480309" ClaimJob { signature: Signature, order: Ref<ClaimOrder> }
    /// Owner or operator.
    "pause_worker" "#4348030d" PauseWorker { query_id: u64, paused: bool }
    /// Owner.
    "set_operator" "#4348030e" SetOperator { query_id: u64, account: Option<Ref<StdAddr>> }
    /// Owner or operator.
    "set_endpoint" "#4348030f" SetEndpoint { query_id: u64, endpoint: Option<Ref<Snake>> }
}
