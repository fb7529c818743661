//! The configuration file of `chrysalis` (TOML). Flags override it. Paths are relative to the file.

use serde::{Deserialize, Serialize};
use tycho_types::cell::HashBytes;

use crate::money::{Nanoton, Prices};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Path of the network file.
    pub network: String,
    /// Where keys, journal and cursor live.
    pub data_dir: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerSection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientSection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewaySection>,
}

/// `chrysalis worker`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkerSection {
    /// Path of a GGUF file or a Hugging Face directory.
    pub model: String,
    pub attestation: AttestationSource,
    /// Base address of a PCS or PCCS that has this machine's collateral; without it, a file has to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pccs_url: Option<String>,
    /// Path of a PEM file with the authorities that the server proves itself by; without it, the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pccs_authority: Option<String>,
    /// What the worker asks, in nanoTON per 1 000 units.
    pub prices_nanoton_per_1k: Prices,
    /// Stake to hold; missing stake is added on start.
    pub stake_nanoton: Nanoton,
    /// Funds beside the stake that pay for claims and bonds; refilled on start.
    pub gas_float_nanoton: Nanoton,
    /// A job of this deposit or more is claimed, with a bond, before it is answered.
    #[serde(default = "default_claim_above_nanoton")]
    pub claim_above_nanoton: Nanoton,
    /// The least deposit of a job, as the offer states it.
    #[serde(default)]
    pub min_deposit_nanoton: Nanoton,
    /// Jobs in flight at once.
    #[serde(default = "default_max_jobs")]
    pub max_jobs: u32,
    /// Context to serve, where it is less than the model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_context_tokens: Option<u32>,
    /// A job whose `settle_within_s` is less is left alone.
    #[serde(default = "default_min_settle_s")]
    pub min_settle_s: u32,
    /// Bytes of memory for keys and values of requests under way; without it, half of what is free once the weights are loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_bytes: Option<u64>,
}

/// Where quotes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttestationSource {
    /// The TDX guest this program runs in.
    Tdx,
    /// The simulator: local chain only.
    Simulator,
}

/// `chrysalis client`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientSection {
    /// The most the client pays, in nanoTON per 1 000 units.
    pub max_prices_nanoton_per_1k: Prices,
    #[serde(default = "default_max_output_tokens")]
    pub max_output_tokens: u32,
    /// From the post to the last moment of a claim, or of an answer without one.
    #[serde(default = "default_open_for_s")]
    pub open_for_s: u32,
    /// From a claim to the answer.
    #[serde(default = "default_settle_within_s")]
    pub settle_within_s: u32,
    /// Images the client trusts; empty: those of the network file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measurements: Vec<HashBytes>,
}

/// `chrysalis gateway`. What is absent has the default that its flag names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewaySection {
    /// Where it listens, ADDRESS:PORT.
    pub listen: Option<String>,
    /// Path of a file with the wallet's 24 words.
    pub mnemonic: Option<String>,
    /// Path of a file with the key that callers have to show.
    pub api_key: Option<String>,
    /// The most that may leave the wallet for good, over all sessions of the data directory.
    pub max_spend_nanoton: Option<Nanoton>,
    /// What a session is opened with, and topped up by.
    pub deposit_nanoton: Option<Nanoton>,
    /// The most that is paid, in nanoTON per 1 000 units.
    pub max_prices_nanoton_per_1k: Option<Prices>,
    /// The least stake of a worker.
    pub min_stake_nanoton: Option<Nanoton>,
    /// How long a session may live.
    pub session_s: Option<u32>,
    /// Workers to use, and no others: ADDRESS, or ADDRESS@HOST:PORT.
    pub workers: Vec<String>,
    /// Origins whose web pages may use the gateway.
    pub allowed_origins: Vec<String>,
    /// Names in `Host` beside this machine's own.
    pub allowed_hosts: Vec<String>,
    /// The most tokens of an answer whose request sets no limit.
    pub default_max_tokens: Option<u32>,
    /// Requests at a time.
    pub max_under_way: Option<usize>,
}

fn default_max_jobs() -> u32 {
    4
}

fn default_claim_above_nanoton() -> Nanoton {
    Nanoton::new(1_000_000_000)
}

fn default_min_settle_s() -> u32 {
    30
}

fn default_max_output_tokens() -> u32 {
    256
}

fn default_open_for_s() -> u32 {
    600
}

fn default_settle_within_s() -> u32 {
    600
}
