//! What identifies a TDX image, and what binds a quote to a worker.

use sha2::{Digest, Sha256};
use tycho_types::cell::HashBytes;
use tycho_types::models::StdAddr;

/// The fields of a TD report that make up a measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdMeasurements {
    pub td_attributes: [u8; 8],
    pub xfam: [u8; 8],
    pub mr_td: [u8; 48],
    pub mr_config_id: [u8; 48],
    pub mr_owner: [u8; 48],
    pub mr_owner_config: [u8; 48],
    pub rtmr0: [u8; 48],
    pub rtmr1: [u8; 48],
    pub rtmr2: [u8; 48],
    pub rtmr3: [u8; 48],
}

impl TdMeasurements {
    /// What the Registry admits or not: SHA-256 over a tag and the fields in the order they have in the TD report,
    /// where they follow each other.
    pub fn measurement(&self) -> HashBytes {
        let mut hasher = Sha256::new();
        hasher.update(b"chrysalis/measurement/v1");
        hasher.update(self.td_attributes);
        hasher.update(self.xfam);
        for field in [
            &self.mr_td,
            &self.mr_config_id,
            &self.mr_owner,
            &self.mr_owner_config,
            &self.rtmr0,
            &self.rtmr1,
            &self.rtmr2,
            &self.rtmr3,
        ] {
            hasher.update(field);
        }
        HashBytes(hasher.finalize().into())
    }
}

/// What a quote's `report_data` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyBinding {
    pub network_id: i32,
    /// Address of the `Worker` contract.
    pub worker: StdAddr,
    /// Ed25519.
    pub receipt_key: HashBytes,
    /// X25519.
    pub encryption_key: HashBytes,
    /// `WorkerState::registration_seqno` before the registration; 0 for a Worker without state.
    pub registration_seqno: u32,
    /// A recent masterchain block.
    pub mc_seqno: u32,
    pub mc_root_hash: HashBytes,
}

impl KeyBinding {
    /// 32 bytes of hash, 32 of zeros.
    pub fn report_data(&self) -> [u8; 64] {
        let mut hasher = Sha256::new();
        hasher.update(b"chrysalis/report-data/v1");
        hasher.update(self.network_id.to_be_bytes());
        hasher.update([self.worker.workchain as u8]);
        hasher.update(self.worker.address.0);
        hasher.update(self.receipt_key.0);
        hasher.update(self.encryption_key.0);
        hasher.update(self.registration_seqno.to_be_bytes());
        hasher.update(self.mc_seqno.to_be_bytes());
        hasher.update(self.mc_root_hash.0);
        let mut report_data = [0; 64];
        report_data[..32].copy_from_slice(&hasher.finalize());
        report_data
    }
}
