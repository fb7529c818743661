//! What the operator sets.

use contracts::config_file::WorkerSection;
use contracts::{HashBytes, Nanoton, Network, Prices, StdAddr, WireError};
use serde::{Deserialize, Serialize};

use crate::fees::CLAIM_FLOAT;
use crate::keys::Keys;
use crate::machine::{Policy, ServedModel};

/// How a worker behaves. Every field has a default but the prices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerConfig {
    /// What the worker asks, nanoTON per 1 000 units.
    pub prices_nanoton_per_1k: Prices,
    /// Stake to hold; what is missing is added.
    #[serde(default = "default_stake")]
    pub stake_nanoton: Nanoton,
    /// Funds beside the stake, for bonds and the gas of claims; refilled when half of them is gone.
    #[serde(default = "default_float")]
    pub gas_float_nanoton: Nanoton,
    /// Jobs in flight at once.
    #[serde(default = "default_max_jobs")]
    pub max_jobs: u32,
    /// Jobs that wait for a place at most.
    #[serde(default = "default_max_waiting")]
    pub max_waiting: u32,
    /// Context to serve, where it is less than the model's.
    #[serde(default)]
    pub max_context_tokens: Option<u32>,
    /// A job of this deposit or more is claimed, with a bond, before it is answered; a smaller one is answered as it is, at
    /// the risk that its client takes it back meanwhile.
    #[serde(default = "default_claim_above")]
    pub claim_above_nanoton: Nanoton,
    /// A job with less time for its answer is left alone.
    #[serde(default = "default_min_settle_s")]
    pub min_settle_s: u32,
    /// The least deposit of a job, which the offer on chain states.
    #[serde(default)]
    pub min_deposit_nanoton: Nanoton,
    /// Time to the job's `until` that a claim needs to reach the chain.
    #[serde(default = "default_claim_margin_s")]
    pub claim_margin_s: u32,
    /// Life of a claim order.
    #[serde(default = "default_order_valid_s")]
    pub order_valid_s: u32,
    /// An unconfirmed message is sent again after this long.
    #[serde(default = "default_resend_every_s")]
    pub resend_every_s: u32,
    /// An attestation is renewed this long before its end, or at half its life where that is shorter.
    #[serde(default = "default_renew_before_s")]
    pub renew_before_s: u32,
    /// HOST:PORT at which gateways reach its sessions, as its contract is to name it; without it the contract's stays.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// How long a worker told to stop goes on with the jobs it has.
    #[serde(default = "default_drain_s")]
    pub drain_s: u32,
}

impl WorkerConfig {
    /// Defaults at these prices.
    pub fn at_prices(prices_nanoton_per_1k: Prices) -> Self {
        Self {
            prices_nanoton_per_1k,
            stake_nanoton: default_stake(),
            gas_float_nanoton: default_float(),
            max_jobs: default_max_jobs(),
            max_waiting: default_max_waiting(),
            max_context_tokens: None,
            claim_above_nanoton: default_claim_above(),
            min_settle_s: default_min_settle_s(),
            min_deposit_nanoton: Nanoton::ZERO,
            claim_margin_s: default_claim_margin_s(),
            order_valid_s: default_order_valid_s(),
            resend_every_s: default_resend_every_s(),
            renew_before_s: default_renew_before_s(),
            endpoint: None,
            drain_s: default_drain_s(),
        }
    }

    /// What the machine decides by.
    ///
    /// # Errors
    /// A wire error; none is known to occur.
    pub fn policy(
        &self,
        network: &Network,
        worker: StdAddr,
        keys: &Keys,
        model_id: HashBytes,
    ) -> Result<Policy, WireError> {
        let generation = &network.generation;
        let model = ServedModel { model_id, account: network.model_address(&model_id)?.address };
        Ok(Policy {
            worker,
            receipt_key: keys.receipt_public(),
            encryption_key: keys.encryption_public(),
            models: vec![model],
            min_stake: generation.params.min_stake,
            min_bond: generation.min_bond,
            bond_bps: generation.bond_bps,
            fee_bps: generation.fee_bps,
            max_jobs: usize::try_from(self.max_jobs).unwrap_or(usize::MAX),
            max_waiting: usize::try_from(self.max_waiting).unwrap_or(usize::MAX),
            claim_above: self.claim_above_nanoton,
            claim_margin_s: self.claim_margin_s,
            min_settle_s: self.min_settle_s,
            order_valid_s: self.order_valid_s,
            grace_s: GRACE_S,
            resend_every_s: self.resend_every_s,
            min_deposit: self.min_deposit_nanoton,
            min_float: CLAIM_FLOAT,
        })
    }
}

impl From<&WorkerSection> for WorkerConfig {
    fn from(section: &WorkerSection) -> Self {
        Self {
            stake_nanoton: section.stake_nanoton,
            gas_float_nanoton: section.gas_float_nanoton,
            max_jobs: section.max_jobs,
            max_context_tokens: section.max_context_tokens,
            claim_above_nanoton: section.claim_above_nanoton,
            min_deposit_nanoton: section.min_deposit_nanoton,
            min_settle_s: section.min_settle_s,
            ..Self::at_prices(section.prices_nanoton_per_1k)
        }
    }
}

/// A shard's block is older than the masterchain block that names it, by less than this.
const GRACE_S: u32 = 30;

fn default_stake() -> Nanoton {
    Nanoton::new(10_000_000_000)
}

fn default_float() -> Nanoton {
    Nanoton::new(500_000_000)
}

fn default_max_jobs() -> u32 {
    4
}

fn default_max_waiting() -> u32 {
    256
}

fn default_claim_above() -> Nanoton {
    Nanoton::new(1_000_000_000)
}

fn default_min_settle_s() -> u32 {
    60
}

fn default_claim_margin_s() -> u32 {
    15
}

fn default_order_valid_s() -> u32 {
    60
}

fn default_resend_every_s() -> u32 {
    15
}

fn default_renew_before_s() -> u32 {
    6 * 3_600
}

fn default_drain_s() -> u32 {
    120
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn prices_are_enough_and_unknown_names_are_refused() {
        let prices = "prices_nanoton_per_1k = { input = 1, cached_input = 2, output = 3 }\n";
        let config: WorkerConfig = toml::from_str(prices).unwrap();
        assert_eq!(config, WorkerConfig::at_prices(config.prices_nanoton_per_1k));
        assert!(toml::from_str::<WorkerConfig>(&format!("{prices}max_job = 3\n")).is_err());
        assert!(toml::from_str::<WorkerConfig>("max_jobs = 3\n").is_err());
    }
}
