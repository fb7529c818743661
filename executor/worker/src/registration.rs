//! What the owner's wallet has to send so that the worker can claim: stake, float, attestation, offers.

use std::sync::Arc;

use async_trait::async_trait;
use chain::{ChainAccess, McBlock, Transfer, WalletError, WalletSender};
use contracts::measurement::KeyBinding;
use contracts::wire::{Ref, Snake};
use contracts::worker::{Attestation, Evidence, FundGas, OfferModel, RegisterAttestation, TopUpStake};
use contracts::{Cell, HashBytes, Message, Nanoton, Network, Prices, StdAddr, WireError};
use sha2::{Digest, Sha256};

use crate::attestation::{AttestationError, AttestationSource, read_quote};
use crate::config::WorkerConfig;
use crate::keys::Keys;
use crate::machine::WorkerFacts;

/// The wallet that owns the worker.
#[async_trait]
pub trait OwnerWallet: Send + Sync {
    /// Its address.
    fn address(&self) -> &StdAddr;

    /// Sends the messages in one transaction and waits until it is final.
    ///
    /// # Errors
    /// [`WalletError`].
    async fn send(&self, transfers: &[Transfer]) -> Result<(), WalletError>;
}

#[async_trait]
impl<C: ChainAccess + ?Sized> OwnerWallet for WalletSender<C> {
    fn address(&self) -> &StdAddr {
        self.wallet().address()
    }

    async fn send(&self, transfers: &[Transfer]) -> Result<(), WalletError> {
        WalletSender::send(self, transfers).await.map(|_| ())
    }
}

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// Stake to add.
    pub stake: Nanoton,
    /// Float to add.
    pub float: Nanoton,
    /// A fresh attestation of our keys.
    pub attestation: bool,
    /// The model is not offered, or at other prices.
    pub offer: bool,
}

impl Needs {
    /// Whether anything is.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// Who registers what.
#[derive(Debug, Clone)]
pub struct Registrant {
    /// The network.
    pub network: Network,
    /// Code of the Worker contract.
    pub worker_code: Cell,
    /// The worker's owner.
    pub owner: StdAddr,
    /// The Worker contract.
    pub worker: StdAddr,
    /// The model served.
    pub model_id: HashBytes,
    /// Stake, float, prices.
    pub config: WorkerConfig,
}

/// No message could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistrationError {
    /// No quote.
    #[error(transparent)]
    Attestation(#[from] AttestationError),
    /// A message does not fit into cells.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl Registrant {
    /// What is missing for `keys` as of `now_s`; `facts`: nothing where the contract does not exist.
    pub fn needs(&self, facts: Option<&WorkerFacts>, keys: &Keys, now_s: u32) -> Needs {
        let Some(facts) = facts else {
            return Needs {
                stake: self.config.stake_nanoton,
                float: self.config.gas_float_nanoton,
                attestation: true,
                offer: true,
            };
        };
        let held = facts.stake.checked_add(facts.locked).unwrap_or(Nanoton::MAX);
        let ttl_s = self.network.params.attestation_ttl_s;
        let renew_before_s = self.config.renew_before_s.min(ttl_s / 2);
        let is_attested = facts.attestation.as_ref().is_some_and(|known| {
            known.receipt_key == keys.receipt_public()
                && known.encryption_key == keys.encryption_public()
                && known.expires_at > now_s.saturating_add(renew_before_s)
        });
        let wanted: (HashBytes, Prices) = (self.model_id, self.config.prices_nanoton_per_1k);
        let is_low = facts.float.get() < self.config.gas_float_nanoton.get() / 2;
        let missing_float = self.config.gas_float_nanoton.saturating_sub(facts.float);
        Needs {
            stake: self.config.stake_nanoton.saturating_sub(held),
            float: if is_low { missing_float } else { Nanoton::ZERO },
            attestation: !is_attested,
            offer: !facts.offers.contains(&wanted),
        }
    }

    /// The owner's messages, in the order in which they have to arrive. Blocks while the quote is made.
    ///
    /// `block` is a recent masterchain block, to which the quote is bound.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub fn transfers(
        &self,
        needs: &Needs,
        source: &Arc<dyn AttestationSource>,
        keys: &Keys,
        block: &McBlock,
    ) -> Result<Vec<Transfer>, RegistrationError> {
        let mut transfers = Vec::new();
        if !needs.stake.is_zero() {
            let body = TopUpStake { query_id: 0, amount: needs.stake }.to_cell()?;
            let value = needs.stake.get().saturating_add(DEPLOY_NANOTON);
            let init = self.network.worker_state_init(&self.worker_code, &self.owner)?;
            transfers.push(Transfer::new(self.worker.clone(), value, body).with_state_init(init));
        }
        if !needs.float.is_zero() {
            let body = FundGas { query_id: 0 }.to_cell()?;
            transfers.push(Transfer::new(self.worker.clone(), needs.float.get(), body));
        }
        if needs.attestation {
            let body = self.registration(source, keys, block)?.to_cell()?;
            transfers.push(Transfer::new(self.worker.clone(), ATTESTATION_NANOTON, body));
        }
        if needs.offer {
            let prices = Ref::new(self.config.prices_nanoton_per_1k)?;
            let body = OfferModel { query_id: 0, model_id: self.model_id, prices }.to_cell()?;
            transfers.push(Transfer::new(self.worker.clone(), OFFER_NANOTON, body));
        }
        Ok(transfers)
    }

    fn registration(
        &self,
        source: &Arc<dyn AttestationSource>,
        keys: &Keys,
        block: &McBlock,
    ) -> Result<RegisterAttestation, RegistrationError> {
        let params = &self.network.params;
        let binding = KeyBinding {
            network_id: params.network_id,
            worker: self.worker.clone(),
            receipt_key: keys.receipt_public(),
            encryption_key: keys.encryption_public(),
            mc_seqno: block.seqno,
            mc_root_hash: block.root_hash,
        };
        let report_data = binding.report_data();
        let quote = source.quote(&report_data)?;
        let facts = read_quote(&quote)?;
        if facts.report_data != report_data {
            return Err(AttestationError::Malformed { reason: "it carries other report data" }.into());
        }
        let evidence = Evidence {
            quote_hash: HashBytes(Sha256::digest(&quote).into()),
            mc_seqno: block.seqno,
            mc_root_hash: block.root_hash,
            registered_at: block.time_s,
        };
        let candidate = Attestation {
            receipt_key: binding.receipt_key,
            encryption_key: binding.encryption_key,
            measurement: facts.measurement,
            expires_at: block.time_s.saturating_add(params.attestation_ttl_s),
            evidence: Ref::new(evidence)?,
        };
        let quote = Ref::new(Snake::new(quote)?)?;
        Ok(RegisterAttestation { query_id: 0, candidate: Ref::new(candidate)?, quote })
    }
}

/// What the messages bring above their amounts, upper bounds; the rest comes back or stays in the worker's contract.
const DEPLOY_NANOTON: u128 = 200_000_000;
const ATTESTATION_NANOTON: u128 = 500_000_000;
const OFFER_NANOTON: u128 = 100_000_000;
