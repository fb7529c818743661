//! Quotes and their judgement: the simulator as a source, the verifier as the judge.

use client::{AttestorView, QuoteJudge, Registration, WorkerEvidence};
use contracts::HashBytes;
use contracts::artifacts::{Contract, code_ref};
use contracts::attestor::AttestorStorage;
use contracts::measurement::TdMeasurements;
use tdx_simulator::{SimulatedPlatform, TdIdentity};
use verifier::{
    AttestorAccount, AttestorTrust, Collateral, QuotePolicy, RegistrationTrace, verify_attestor,
    verify_registration,
};
use worker::{AttestationError, AttestationSource, CollateralSource};

/// Name of the simulated image that the local chain's workers run.
pub(crate) const SIMULATED_IMAGE: &str = "chrysalis worker, local chain";

/// As the Registry lists a simulated image.
pub(crate) fn measurement_of(platform: &SimulatedPlatform, identity: &TdIdentity) -> HashBytes {
    let [rtmr0, rtmr1, rtmr2, rtmr3] = identity.rtmr;
    TdMeasurements {
        td_attributes: platform.profile().td_attributes.to_le_bytes(),
        xfam: identity.xfam,
        mr_td: identity.mr_td,
        mr_config_id: identity.mr_config_id,
        mr_owner: identity.mr_owner,
        mr_owner_config: identity.mr_owner_config,
        rtmr0,
        rtmr1,
        rtmr2,
        rtmr3,
    }
    .measurement()
}

/// What the Attestor of a local chain is born with: the simulator's root in the place of Intel's.
pub(crate) fn simulated_attestor(platform: &SimulatedPlatform) -> anyhow::Result<AttestorStorage> {
    let tdx_simulator::Names { platform_ca, processor_ca, tcb_signer, pck, .. } =
        tdx_simulator::Names::simulated();
    let names = prover::trust::Names { platform_ca, processor_ca, tcb_signer, pck };
    Ok(prover::trust::attestor_storage(platform.root_der(), &names)?)
}

/// A worker's source of **simulated** quotes.
pub(crate) struct SimulatedQuotes {
    pub(crate) platform: SimulatedPlatform,
    pub(crate) identity: TdIdentity,
}

impl AttestationSource for SimulatedQuotes {
    fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, AttestationError> {
        Ok(self.platform.quote(report_data, &self.identity))
    }
}

impl CollateralSource for SimulatedQuotes {
    fn collateral(&self) -> Result<Collateral, AttestationError> {
        Ok(self.platform.collateral().clone())
    }
}

/// What the verifier takes of a registration found on chain.
pub(crate) fn trace_of(registration: &Registration) -> RegistrationTrace {
    RegistrationTrace {
        attestor: registration.attestor.cell.clone(),
        registry: registration.registry.cell.clone(),
        platform: registration.platform.cell.clone(),
        worker: registration.worker.cell.clone(),
    }
}

/// What the verifier takes of the Attestor.
pub(crate) fn account_of(attestor: &AttestorView) -> AttestorAccount {
    AttestorAccount { code: attestor.code.clone(), data: attestor.data.clone() }
}

/// The Attestor of this release under a root (DER).
pub(crate) fn attestor_under(root_der: Vec<u8>) -> AttestorTrust {
    AttestorTrust { code: code_ref(Contract::Attestor).hash, root_der }
}

/// The verifier with a policy and collateral, before a prompt is sealed.
pub(crate) struct Judge {
    pub(crate) policy: QuotePolicy,
    pub(crate) collateral: Collateral,
    pub(crate) attestor: AttestorTrust,
}

impl QuoteJudge for Judge {
    fn judge(&self, evidence: &WorkerEvidence<'_>) -> Result<(), String> {
        let network = evidence.network;
        let attestor = account_of(evidence.attestor);
        let mut failures = verify_attestor(network, Some(&attestor), &self.attestor).failures();
        let (verdict, registered) = verify_registration(
            network,
            &trace_of(evidence.registration),
            Some(evidence.mc_root_hash),
            &self.collateral,
            &self.policy,
            u64::from(evidence.now_s),
        );
        failures.extend(verdict.failures());
        if registered.is_some_and(|registered| registered.worker != *evidence.worker) {
            failures.push("registration: it is another worker's".to_owned());
        }
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    }
}
