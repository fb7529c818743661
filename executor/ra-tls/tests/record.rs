//! What is expected of a worker follows from its account's state.
#![allow(clippy::unwrap_used)]

use contracts::attestor::Bytes;
use contracts::worker::{Attestation, Evidence, WorkerHistory, WorkerState};
use contracts::{HashBytes, Nanoton, Ref, StdAddr};
use ra_tls::evidence::ExpectedWorker;

#[test]
fn the_attested_registration_is_the_one_before_the_next() {
    let worker = StdAddr::new(0, HashBytes([3; 32]));
    let mut state = WorkerState {
        stake: Nanoton::default(),
        unbonding: Nanoton::default(),
        unbonding_until: 0,
        claim_seqno: 4,
        registration_seqno: 1,
        slashed: 0,
        paused: false,
        attestation: None,
        offers: Default::default(),
        history: Ref::new(WorkerHistory { operator: None, endpoint: None, receipt_keys: Default::default() })
            .unwrap(),
    };
    assert_eq!(ExpectedWorker::of_state(-239, worker.clone(), &state), None);
    let evidence = Evidence {
        quote_digest: HashBytes::ZERO,
        mc_seqno: 1,
        registered_at: 2,
        authority: HashBytes::ZERO,
        serial: Bytes([0; 20]),
        ppid: Bytes([0; 16]),
    };
    let attestation = Attestation {
        receipt_key: HashBytes([1; 32]),
        encryption_key: HashBytes([2; 32]),
        measurement: HashBytes::ZERO,
        expires_at: 9,
        evidence: Ref::new(evidence).unwrap(),
    };
    state.attestation = Some(Ref::new(attestation).unwrap());
    let expected = ExpectedWorker {
        network_id: -239,
        worker: worker.clone(),
        registration_seqno: 0,
        receipt_key: HashBytes([1; 32]),
        attested_until_s: 9,
    };
    assert_eq!(ExpectedWorker::of_state(-239, worker.clone(), &state), Some(expected));
    state.registration_seqno = 0;
    assert_eq!(ExpectedWorker::of_state(-239, worker, &state), None);
}
