//! Quotes and their judgement: the simulator as a source, the verifier as the judge.

use client::{QuoteJudge, WorkerEvidence};
use contracts::HashBytes;
use contracts::measurement::TdMeasurements;
use tdx_simulator::{SimulatedPlatform, TdIdentity};
use verifier::{Collateral, QuotePolicy, verify_binding, verify_quote};
use worker::{AttestationError, AttestationSource};

/// Name of the simulated image that the local chain's workers run.
pub(crate) const SIMULATED_IMAGE: &str = "chrysalis worker, local chain";

/// As the Registry lists a simulated image.
pub(crate) fn measurement_of(identity: &TdIdentity) -> HashBytes {
    let [rtmr0, rtmr1, rtmr2, rtmr3] = identity.rtmr;
    TdMeasurements {
        mr_td: identity.mr_td,
        rtmr0,
        rtmr1,
        rtmr2,
        rtmr3,
        mr_config_id: identity.mr_config_id,
        mr_owner: identity.mr_owner,
        mr_owner_config: identity.mr_owner_config,
        xfam: identity.xfam,
    }
    .measurement()
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

/// The verifier with a policy and collateral, before a prompt is sealed.
pub(crate) struct Judge {
    pub(crate) policy: QuotePolicy,
    pub(crate) collateral: Collateral,
}

impl QuoteJudge for Judge {
    fn judge(&self, evidence: &WorkerEvidence<'_>) -> Result<(), String> {
        let now_s = u64::from(evidence.now_s);
        let (verdict, facts) = verify_quote(evidence.quote, &self.collateral, &self.policy, now_s);
        let mut failures = verdict.failures();
        match facts {
            Some(facts) => {
                failures.extend(verify_binding(&facts, &evidence.binding).failures());
                if facts.measurement != evidence.measurement {
                    failures
                        .push("measurement: the quote is of another image than the worker states".to_owned());
                }
            }
            None => failures.push("no facts could be read".to_owned()),
        }
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
    }
}
