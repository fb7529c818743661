//! What the owner's wallet has to send so that the worker can claim: stake, float, attestation, offers.

use async_trait::async_trait;
use chain::trace::Step;
use chain::{ChainAccess, Confirmed, McBlock, Transfer, WalletError, WalletSender};
use client::{ClientError, deploy};
use contracts::attestor::{AttestorStorage, QuoteProof, QuoteVerified};
use contracts::errors::ContractError;
use contracts::measurement::KeyBinding;
use contracts::registry::{RegistrationRefused, RegistrationRequest};
use contracts::wire::opcode_of;
use contracts::worker::AttestationRegistered;
use contracts::{Cell, HashBytes, Message, Nanoton, Network, StdAddr, opcodes};
use dcap_qvl::QuoteCollateralV3;
use prover::collateral::{CollateralError, Posting, postings};
use prover::quote::{QuoteError, prove};

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
    async fn send(&self, transfers: &[Transfer]) -> Result<Confirmed, WalletError>;
}

#[async_trait]
impl<C: ChainAccess + ?Sized> OwnerWallet for WalletSender<C> {
    fn address(&self) -> &StdAddr {
        self.wallet().address()
    }

    async fn send(&self, transfers: &[Transfer]) -> Result<Confirmed, WalletError> {
        WalletSender::send(self, transfers).await
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
    /// The contract names another endpoint, or none.
    pub endpoint: bool,
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
    /// The quote cannot be proven.
    #[error("worker: the quote cannot be proven: {0}")]
    Quote(#[from] QuoteError),
    /// The collateral cannot be posted.
    #[error("worker: {0}")]
    Collateral(#[from] CollateralError),
    /// A message could not be made.
    #[error(transparent)]
    Message(#[from] ClientError),
}

/// A quote as the Attestor takes it, and what it binds.
#[derive(Debug, Clone)]
pub struct Proven {
    /// The quote's parts.
    pub proof: QuoteProof,
    /// The keys, the registration's number and the block.
    pub request: RegistrationRequest,
    /// What the Attestor lacks, in the order in which it has to arrive.
    pub postings: Vec<Posting>,
}

/// A message that a contract refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} was refused: {}", refusal_words(*.exit_code))]
pub struct Refusal {
    /// Its name; for a refusal by the Registry or the Platform, `quote_verified`.
    pub message: &'static str,
    /// The contract's exit code.
    pub exit_code: i32,
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
                endpoint: self.config.endpoint.is_some(),
            };
        };
        let is_attested = facts.attestation.as_ref().is_some_and(|known| {
            // What ends early, with its collateral, and begins again no longer is renewed ever less often.
            let life_s = known.expires_at.saturating_sub(known.registered_at);
            let renew_before_s = self.config.renew_before_s.min(life_s / 2);
            known.receipt_key == keys.receipt_public()
                && known.encryption_key == keys.encryption_public()
                && known.expires_at > now_s.saturating_add(renew_before_s)
        });
        let (prices, min_deposit) = (self.config.prices_nanoton_per_1k, self.config.min_deposit_nanoton);
        let is_offered = facts
            .offer(&self.model_id)
            .is_some_and(|offer| offer.prices == prices && offer.min_deposit == min_deposit);
        let is_low = facts.float.get() < self.config.gas_float_nanoton.get() / 2;
        let missing_float = self.config.gas_float_nanoton.saturating_sub(facts.float);
        Needs {
            stake: self.config.stake_nanoton.saturating_sub(facts.stake),
            float: if is_low { missing_float } else { Nanoton::ZERO },
            attestation: !is_attested,
            offer: !is_offered,
            endpoint: self.config.endpoint.is_some() && self.config.endpoint != facts.endpoint,
        }
    }

    /// Has a quote made over `keys` and proves it. Blocks.
    ///
    /// `block`: a recent masterchain block whose seqno 100 divides. `held`: what the Attestor has; nothing is posted
    /// without `collateral`.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub fn prove(
        &self,
        source: &dyn AttestationSource,
        collateral: Option<&QuoteCollateralV3>,
        keys: &Keys,
        registration_seqno: u32,
        block: &McBlock,
        held: &AttestorStorage,
    ) -> Result<Proven, RegistrationError> {
        let request = RegistrationRequest {
            receipt_key: keys.receipt_public(),
            encryption_key: keys.encryption_public(),
            registration_seqno,
            mc_seqno: block.seqno,
            mc_root_hash: block.root_hash,
            generation: None,
        };
        let report_data = self.binding(&request).report_data();
        let quote = source.quote(&report_data)?;
        if read_quote(&quote)?.report_data != report_data {
            return Err(AttestationError::Malformed { reason: "it carries other report data" }.into());
        }
        let chain = collateral.and_then(|collateral| collateral.pck_certificate_chain.as_deref());
        let proof = prove(&quote, chain)?;
        let postings = collateral.map(|collateral| postings(collateral, held, 0)).transpose()?;
        Ok(Proven { proof, request, postings: postings.unwrap_or_default() })
    }

    /// What the quote of a request has to bind.
    pub fn binding(&self, request: &RegistrationRequest) -> KeyBinding {
        KeyBinding {
            network_id: self.network.id(),
            worker: self.worker.clone(),
            receipt_key: request.receipt_key,
            encryption_key: request.encryption_key,
            registration_seqno: request.registration_seqno,
            mc_seqno: request.mc_seqno,
            mc_root_hash: request.mc_root_hash,
        }
    }

    /// The owner's messages, in the order in which they have to arrive; `proven` where an attestation is needed.
    ///
    /// # Errors
    /// [`RegistrationError::Message`].
    pub fn transfers(
        &self,
        needs: &Needs,
        proven: Option<&Proven>,
    ) -> Result<Vec<Transfer>, RegistrationError> {
        let (network, owner) = (&self.network, &self.owner);
        let mut transfers = Vec::new();
        if !needs.stake.is_zero() {
            transfers.push(deploy::top_up_stake(network, &self.worker_code, owner, needs.stake)?);
        }
        if !needs.float.is_zero() {
            transfers.push(deploy::fund_gas(network, owner, needs.float)?);
        }
        if let Some(proven) = proven {
            transfers.extend(self.registration(proven)?);
        }
        if needs.offer {
            let (prices, min_deposit) = (self.config.prices_nanoton_per_1k, self.config.min_deposit_nanoton);
            transfers.push(deploy::offer_model(network, owner, self.model_id, min_deposit, prices)?);
        }
        if needs.endpoint {
            transfers.push(deploy::set_endpoint(network, owner, self.config.endpoint.as_deref())?);
        }
        Ok(transfers)
    }

    /// What the owner's wallet sends to the Attestor: collateral that it lacks, then the quote.
    ///
    /// # Errors
    /// [`RegistrationError::Message`].
    pub fn registration(&self, proven: &Proven) -> Result<Vec<Transfer>, RegistrationError> {
        let mut transfers = Vec::new();
        for posting in &proven.postings {
            transfers.push(deploy::post_collateral(&self.network, posting)?);
        }
        transfers.push(deploy::register(&self.network, proven.proof.clone(), &proven.request)?);
        Ok(transfers)
    }
}

/// The newest masterchain block whose seqno 100 divides: what a quote may name for the next 1 500 blocks.
///
/// # Errors
/// What reading the chain meets.
pub async fn recent_block<C: ChainAccess + ?Sized>(chain: &C) -> Result<McBlock, chain::ChainError> {
    let head = chain.head().await?;
    chain.block(head.seqno / BLOCKS_APART * BLOCKS_APART).await
}

/// Whether a registration in a trace came to its end: a Worker took the attestation.
#[must_use]
pub fn is_attested(trace: &[Step]) -> bool {
    trace.iter().any(|step| {
        let result = step.transaction.result();
        opcode(step) == Some(AttestationRegistered::OPCODE) && result.is_ok_and(|result| result.succeeded)
    })
}

/// The messages of a trace that a contract refused, in their order.
#[must_use]
pub fn refusals_in(trace: &[Step]) -> Vec<Refusal> {
    trace.iter().filter_map(refusal_of).collect()
}

fn refusal_of(step: &Step) -> Option<Refusal> {
    let message = step.transaction.in_message().ok()??;
    let opcode = opcode(step)?;
    if opcode == RegistrationRefused::OPCODE {
        let refused = RegistrationRefused::from_cell(&message.body).ok()?;
        return Some(Refusal { message: QuoteVerified::NAME, exit_code: i32::from(refused.reason) });
    }
    let result = step.transaction.result().ok()?;
    if result.succeeded || message.bounced {
        return None;
    }
    let exit_code = result.exit_code.or(result.action_code).unwrap_or_default();
    Some(Refusal { message: opcodes::name(opcode)?, exit_code })
}

fn opcode(step: &Step) -> Option<u32> {
    let message = step.transaction.in_message().ok()??;
    opcode_of(&message.body.as_slice().ok()?)
}

/// What `PREVMCBLOCKS_100` gives.
const BLOCKS_APART: u32 = 100;

fn refusal_words(exit_code: i32) -> String {
    match ContractError::from_code(exit_code) {
        Some(error) => error.to_string(),
        None => format!("exit code {exit_code}"),
    }
}
