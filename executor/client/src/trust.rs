//! Whether to trust a worker with a prompt: the Registry that admits its image, its keys, the registration behind them, the
//! machine that serves it, and the block the quote names.

use chain::ChainAccess;
use contracts::{CodeRef, HashBytes, Network, StdAddr};

use crate::attestor::{AttestorView, read_attestor, read_platform};
use crate::error::{ClientError, Unfit};
use crate::registry::read_registry;
use crate::worker::{Registration, WorkerView, find_registration, read_worker};

/// What a worker shows for its keys.
#[derive(Debug, Clone)]
pub struct WorkerEvidence<'a> {
    /// The network.
    pub network: &'a Network,
    /// The network's Attestor.
    pub attestor: &'a AttestorView,
    /// The transactions in which the quote was proven and the keys registered.
    pub registration: &'a Registration,
    /// The masterchain block that the quote names, as the chain has it.
    pub mc_root_hash: HashBytes,
    /// The Worker contract.
    pub worker: &'a StdAddr,
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
    /// The registration of its keys.
    pub registration: Registration,
    /// X25519 key to seal to.
    pub encryption_key: HashBytes,
    /// Ed25519 key that will sign the receipt.
    pub receipt_key: HashBytes,
}

/// Reads the network's Registry, which has to run `registry_code`, its Attestor, and the worker at `address`; finds the
/// registration of its keys, and has it judged.
///
/// # Errors
/// [`ClientError::NotOurs`] where Registry or worker is another contract; [`ClientError::QuoteRefused`] with what failed;
/// [`ClientError::Unfit`] where the Registry does not admit its image, its machine has left it, or there is no registration
/// to judge.
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
    let evidence = &attestation.evidence;
    match read_platform(chain, network, evidence.ppid, &head).await? {
        Some(machine) if machine.worker_owner == view.owner && machine.until >= head.time_s => {}
        _ => return Err(unfit(Unfit::PlatformLeft)),
    }
    let attestor = read_attestor(chain, network, &head).await?;
    let registration = find_registration(chain, network, &view).await?;
    let mc_seqno = evidence.mc_seqno;
    if mc_seqno > head.seqno {
        return Err(refused(format!("masterchain block {mc_seqno}, which it names, is not there")));
    }
    let mc_root_hash = chain.block(mc_seqno).await?.root_hash;
    let evidence = WorkerEvidence {
        network,
        attestor: &attestor,
        registration: &registration,
        mc_root_hash,
        worker: address,
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
