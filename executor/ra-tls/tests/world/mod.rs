//! A registered worker, as the chain would name it.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub)]

use contracts::{HashBytes, SigningKey, StdAddr};
use ra_tls::certificate::{self, Validity};
use ra_tls::evidence::{self, Binding, ExpectedWorker};
use ra_tls::{Clock, Identity};
use rustls::pki_types::UnixTime;
use std::sync::Arc;
use std::time::Duration;

pub const NOW_S: u64 = 1_795_000_000;

pub struct World {
    pub receipt: SigningKey,
    pub binding: Binding,
    pub expected: ExpectedWorker,
}

impl World {
    pub fn new(seed: u8) -> Self {
        let receipt = key(seed);
        let binding = Binding {
            network_id: -239,
            worker: StdAddr::new(0, HashBytes([seed ^ 0x55; 32])),
            registration_seqno: 7,
            validity: Validity::starting(NOW_S),
        };
        let expected = ExpectedWorker {
            network_id: binding.network_id,
            worker: binding.worker.clone(),
            registration_seqno: 7,
            receipt_key: HashBytes(receipt.verifying_key().to_bytes()),
            attested_until_s: NOW_S + 1_000_000,
        };
        Self { receipt, binding, expected }
    }

    pub fn identity(&self) -> Identity {
        Identity::worker(&self.binding, &self.receipt, &mut rand::rng()).unwrap()
    }

    /// A certificate for a key of the caller's, in an envelope that may live otherwise than its evidence.
    pub fn certificate(&self, tls: &SigningKey, binding: &Binding, envelope: Validity) -> Vec<u8> {
        let evidence = evidence::build(binding, &tls.verifying_key().to_bytes(), &self.receipt);
        certificate::build(tls, envelope, Some(&evidence)).unwrap()
    }
}

pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

#[derive(Debug)]
pub struct FixedClock(pub u64);

impl Clock for FixedClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

pub fn clock() -> Arc<dyn Clock> {
    Arc::new(FixedClock(NOW_S))
}
