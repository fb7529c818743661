//! `deployments/NETWORK.json`: everything a program has to know of one network.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tycho_types::cell::HashBytes;
use tycho_types::models::StdAddr;

use crate::librarian::{self, library_cell_of, library_hash};
use crate::money::Nanoton;
use crate::network::{CodeRef, Codes, Generation, Network, Params};
use crate::wire::{Ref, WireError};

/// `format` of a file this crate reads.
pub const FORMAT: u32 = 2;

/// One network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkFile {
    pub format: u32,
    pub name: String,
    pub kind: NetworkKind,
    /// Raw form, `workchain:hex`.
    pub registry: StdAddr,
    pub generation: GenerationFile,
    pub registry_code: CodeRef,
    /// Of the masterchain: publishes the codes of Job and Platform.
    pub librarian: StdAddr,
    /// Image measurements the Registry was deployed with or has admitted since.
    pub measurements: Vec<MeasurementEntry>,
    pub quote_root: QuoteRoot,
    /// TON's global config, as a path relative to this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_config: Option<String>,
    /// Used where no global config is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub liteservers: Vec<Liteserver>,
    /// Name and version.
    pub compiler: String,
    /// Of the repository the contracts were built from.
    pub commit: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkKind {
    /// The embedded chain: no validator signatures, simulated quotes.
    Localnet,
    Testnet,
    Mainnet,
}

/// [`Generation`] without cells. Amounts in nanoTON, times in seconds, shares in basis points.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerationFile {
    /// TON's global id.
    pub network_id: i32,
    pub fee_bps: u16,
    pub bond_bps: u16,
    pub min_bond_nanoton: Nanoton,
    /// Hash of the code that the library cell of every Job names.
    pub job_code_hash: HashBytes,
    /// The same of every Platform.
    pub platform_code_hash: HashBytes,
    pub worker_code: CodeRef,
    pub model_code: CodeRef,
    pub treasury: StdAddr,
    pub royalty_cap_bps: u16,
    pub min_stake_nanoton: Nanoton,
    pub unbonding_s: u32,
    /// Who verifies quotes.
    pub attestor: StdAddr,
    pub attestation_ttl_s: u32,
}

/// An admitted image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasurementEntry {
    pub measurement: HashBytes,
    /// For people.
    pub image: String,
}

/// The certificate every quote has to chain to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuoteRoot {
    /// The root certificate.
    pub pem: String,
    /// Of its DER form.
    pub sha256: HashBytes,
    /// True for the simulator's root alone.
    pub simulated: bool,
}

/// An ADNL liteserver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Liteserver {
    /// `IP:PORT`.
    pub address: String,
    /// Ed25519, base64.
    pub public_key: String,
}

/// The file contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkFileError {
    #[error("the network file is not of the expected shape ({reason}); take the one of your release")]
    Shape { reason: String },
    #[error("the network file has format {found}, this program reads {FORMAT}; use a matching release")]
    Format { found: u32 },
    #[error("the quote root is not one PEM certificate; restore the network file")]
    RootPem,
    #[error("the quote root's SHA-256 is not the one stated; restore the network file")]
    RootHash,
    #[error(
        "{name} is not a local chain, so it must not trust a simulated quote root; restore the network file"
    )]
    SimulatedRoot { name: String },
    #[error(
        "fee {fee_bps} and royalty cap {royalty_cap_bps} exceed 10 000 basis points together; restore the network file"
    )]
    Shares { fee_bps: u16, royalty_cap_bps: u16 },
    #[error("the Librarian {librarian} is not of the masterchain; restore the network file")]
    Librarian { librarian: StdAddr },
    #[error(
        "the generation's code of a Job is no library cell, or its Platform's is another one; use the network's artefacts"
    )]
    Library,
    #[error("no global config and no liteserver is named; add one to the network file")]
    NoLiteserver,
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl NetworkFile {
    /// Reads and checks the file's text.
    pub fn parse(json: &str) -> Result<Self, NetworkFileError> {
        let file: Self = serde_json::from_str(json)
            .map_err(|error| NetworkFileError::Shape { reason: error.to_string() })?;
        file.check()?;
        Ok(file)
    }

    /// Pretty JSON with a final newline.
    pub fn to_json(&self) -> Result<String, NetworkFileError> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|error| NetworkFileError::Shape { reason: error.to_string() })?;
        text.push('\n');
        Ok(text)
    }

    /// Format, root certificate and shares agree with themselves.
    pub fn check(&self) -> Result<(), NetworkFileError> {
        if self.format != FORMAT {
            return Err(NetworkFileError::Format { found: self.format });
        }
        if self.quote_root.simulated && self.kind != NetworkKind::Localnet {
            return Err(NetworkFileError::SimulatedRoot { name: self.name.clone() });
        }
        let GenerationFile { fee_bps, royalty_cap_bps, .. } = self.generation;
        if u32::from(fee_bps) + u32::from(royalty_cap_bps) > 10_000 {
            return Err(NetworkFileError::Shares { fee_bps, royalty_cap_bps });
        }
        if self.librarian.workchain != librarian::WORKCHAIN {
            return Err(NetworkFileError::Librarian { librarian: self.librarian.clone() });
        }
        if self.global_config.is_none() && self.liteservers.is_empty() {
            return Err(NetworkFileError::NoLiteserver);
        }
        self.quote_root.der().map(|_| ())
    }

    /// The cell's view: what addresses are computed from.
    pub fn network(&self) -> Result<Network, NetworkFileError> {
        Ok(Network { registry: self.registry.clone(), generation: self.generation.to_generation()? })
    }
}

impl GenerationFile {
    /// `platform_code_hash` is that of the code which the Platform's library cell names.
    ///
    /// # Errors
    /// [`NetworkFileError::Library`] where the generation's library cells are other ones.
    pub fn of(generation: &Generation, platform_code_hash: HashBytes) -> Result<Self, NetworkFileError> {
        let job_code_hash = library_hash(&generation.job_code).ok_or(NetworkFileError::Library)?;
        if *library_cell_of(&platform_code_hash).repr_hash() != generation.codes.platform {
            return Err(NetworkFileError::Library);
        }
        let params = &generation.params;
        Ok(Self {
            network_id: generation.network_id,
            fee_bps: generation.fee_bps,
            bond_bps: generation.bond_bps,
            min_bond_nanoton: generation.min_bond,
            job_code_hash,
            platform_code_hash,
            worker_code: generation.codes.worker,
            model_code: generation.codes.model,
            treasury: params.treasury.clone(),
            royalty_cap_bps: params.royalty_cap_bps,
            min_stake_nanoton: params.min_stake,
            unbonding_s: params.unbonding_s,
            attestor: params.attestor.clone(),
            attestation_ttl_s: params.attestation_ttl_s,
        })
    }

    pub fn to_generation(&self) -> Result<Generation, WireError> {
        Ok(Generation {
            network_id: self.network_id,
            fee_bps: self.fee_bps,
            bond_bps: self.bond_bps,
            min_bond: self.min_bond_nanoton,
            job_code: library_cell_of(&self.job_code_hash),
            codes: Ref::new(Codes {
                worker: self.worker_code,
                model: self.model_code,
                platform: *library_cell_of(&self.platform_code_hash).repr_hash(),
            })?,
            params: Ref::new(Params {
                treasury: self.treasury.clone(),
                royalty_cap_bps: self.royalty_cap_bps,
                min_stake: self.min_stake_nanoton,
                unbonding_s: self.unbonding_s,
                attestor: self.attestor.clone(),
                attestation_ttl_s: self.attestation_ttl_s,
            })?,
        })
    }
}

impl QuoteRoot {
    /// From the certificate's DER form.
    pub fn from_der(der: &[u8], simulated: bool) -> Self {
        let body = STANDARD.encode(der);
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        for line in body.as_bytes().chunks(64) {
            pem.extend(line.iter().map(|&byte| char::from(byte)));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
        Self { pem, sha256: HashBytes(Sha256::digest(der).into()), simulated }
    }

    /// The certificate's DER form, its hash checked.
    pub fn der(&self) -> Result<Vec<u8>, NetworkFileError> {
        let body: String = self
            .pem
            .trim()
            .strip_prefix("-----BEGIN CERTIFICATE-----")
            .and_then(|rest| rest.strip_suffix("-----END CERTIFICATE-----"))
            .ok_or(NetworkFileError::RootPem)?
            .split_whitespace()
            .collect();
        let der = STANDARD.decode(body).map_err(|_| NetworkFileError::RootPem)?;
        if self.sha256.0 != <[u8; 32]>::from(Sha256::digest(&der)) {
            return Err(NetworkFileError::RootHash);
        }
        Ok(der)
    }
}
