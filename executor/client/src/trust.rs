//! Whether to trust a worker with a prompt: the Registry that admits its image, its keys, the quote behind them, and the
//! block the quote names.

use chain::ChainAccess;
use contracts::measurement::KeyBinding;
use contracts::{CodeRef, HashBytes, Network, StdAddr};

use crate::error::{ClientError, Unfit};
use crate::registry::read_registry;
use crate::worker::{Registration, WorkerView, find_registration, read_worker};

/// What a worker shows for its keys.
#[derive(Debug, Clone)]
pub struct WorkerEvidence<'a> {
    /// The raw quote, whose hash is on chain.
    pub quote: &'a [u8],
    /// The measurement the worker states, which the Registry admitted.
    pub measurement: HashBytes,
    /// What the quote's `report_data` has to bind.
    pub binding: KeyBinding,
    /// The chain's time, Unix seconds.
    pub now_s: u32,
}

/// Judges a worker's evidence by a policy: trusted root, TCB status, measurements.
pub trait QuoteJudge: Send + Sync {
    /// `Err` names the checks that failed, with what each found.
    fn judge(&self, evidence: &WorkerEvidence<'_>) -> Result<(), String>;
}

/// A worker whose quote satisfied the policy.
#[derive(Debug, Clone)]
pub struct TrustedWorker {
    /// Its contract as of the check.
    pub view: WorkerView,
    /// The registration with the quote.
    pub registration: Registration,
    /// X25519 key to seal to.
    pub encryption_key: HashBytes,
    /// Ed25519 key that will sign the receipt.
    pub receipt_key: HashBytes,
}

/// Reads the network's Registry, which has to run `registry_code`, and the worker at `address`; finds the quote it
/// published, and has it judged.
///
/// # Errors
/// [`ClientError::NotOurs`] where Registry or worker is another contract; [`ClientError::QuoteRefused`] with what failed;
/// [`ClientError::Unfit`] where the Registry does not admit its image or there is no quote to judge.
pub async fn check_worker<C: ChainAccess + ?Sized>(
    chain: &C,
    network: &Network,
    registry_code: &CodeRef,
    address: &StdAddr,
    judge: &dyn QuoteJudge,
) -> Result<TrustedWorker, ClientError> {
    let head = chain.head().await?;
    let registry = read_registry(chain, network, registry_code, &head).await?;
    let view = read_worker(chain, network, address, &head).await?;
    let unfit = |reason| ClientError::Unfit { address: address.clone(), reason };
    let refused = |failed: String| ClientError::QuoteRefused { address: address.clone(), failed };
    let attestation = view.attestation().map_err(unfit)?.clone();
    if attestation.expires_at <= head.time_s {
        return Err(unfit(Unfit::AttestationEnds { expires_at_s: attestation.expires_at }));
    }
    registry.check_admitted(&attestation.measurement).map_err(unfit)?;
    let registration = find_registration(chain, &view).await?;
    let (mc_seqno, mc_root_hash) = (attestation.evidence.mc_seqno, attestation.evidence.mc_root_hash);
    if mc_seqno > head.seqno || chain.block(mc_seqno).await?.root_hash != mc_root_hash {
        return Err(refused(format!("masterchain block {mc_seqno} of this chain is not the one it names")));
    }
    let evidence = WorkerEvidence {
        quote: &registration.quote,
        measurement: attestation.measurement,
        binding: KeyBinding {
            network_id: network.params.network_id,
            worker: address.clone(),
            receipt_key: attestation.receipt_key,
            encryption_key: attestation.encryption_key,
            mc_seqno,
            mc_root_hash,
        },
        now_s: head.time_s,
    };
    judge.judge(&evidence).map_err(refused)?;
    Ok(TrustedWorker {
        encryption_key: attestation.encryption_key,
        receipt_key: attestation.receipt_key,
        registration,
        view,
    })
}
