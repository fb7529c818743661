//! How a worker's keys came to be attested: the transactions of its registration, and the quote that was proven in them.

use contracts::attestor::{AttestorStorage, QuoteProof, QuoteVerified, VerifiedReport, VerifyQuote};
use contracts::measurement::KeyBinding;
use contracts::platform::{Ppid, ServeWorker};
use contracts::registry::RegistrationRequest;
use contracts::wire::{from_cell, to_cell};
use contracts::worker::{Attestation, AttestationRegistered};
use contracts::{Cell, CodeRef, HashBytes, Network, StdAddr};
use prover::certificate::Certificate;
use sha2::{Digest, Sha256};
use tycho_types::cell::CellBuilder;
use tycho_types::models::{ComputePhase, Message, MsgInfo, Transaction, TxInfo};

use crate::check::{Party, Verdict, holds};
use crate::proof::raw_quote;
use crate::quote::{Collateral, QuotePolicy, verify_binding, verify_quote};

/// The four transactions of a registration: root cells. The caller has read each from its account's history.
#[derive(Debug, Clone)]
pub struct RegistrationTrace {
    /// The Attestor's: it verified the quote.
    pub attestor: Cell,
    /// The Registry's: it checked policy, measurement and binding.
    pub registry: Cell,
    /// The Platform's: the machine serves this worker.
    pub platform: Cell,
    /// The Worker's: it took the attestation.
    pub worker: Cell,
}

/// The Attestor's account as the chain has it.
#[derive(Debug, Clone)]
pub struct AttestorAccount {
    /// Its code cell.
    pub code: Cell,
    /// Its data cell.
    pub data: Cell,
}

/// What the network's Attestor has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestorTrust {
    /// Hash of its code.
    pub code: HashBytes,
    /// The root certificate (DER) that the network file names.
    pub root_der: Vec<u8>,
}

/// What a registration says.
#[derive(Debug, Clone)]
pub struct Registered {
    /// Who asked for it: the worker's owner.
    pub owner: StdAddr,
    /// The Worker contract.
    pub worker: StdAddr,
    /// When the Worker took it, Unix seconds.
    pub at_s: u32,
    /// What the quote's `report_data` has to bind.
    pub request: RegistrationRequest,
    /// What the Worker took.
    pub attestation: Attestation,
    /// What the Attestor was sent.
    pub proof: QuoteProof,
    /// What the Attestor found.
    pub report: VerifiedReport,
    /// The machine.
    pub ppid: Ppid,
}

impl Registered {
    /// What the quote's `report_data` has to bind.
    pub fn binding(&self, network_id: i32) -> KeyBinding {
        KeyBinding {
            network_id,
            worker: self.worker.clone(),
            receipt_key: self.request.receipt_key,
            encryption_key: self.request.encryption_key,
            registration_seqno: self.request.registration_seqno,
            mc_seqno: self.request.mc_seqno,
            mc_root_hash: self.request.mc_root_hash,
        }
    }
}

/// Reads a registration and holds each transaction to have been started by a message of the one before, from the
/// network's Attestor on.
///
/// # Errors
/// The first thing that is not as it has to be.
pub fn read_registration(network: &Network, trace: &RegistrationTrace) -> Result<Registered, String> {
    let attestor = Taken::read("Attestor", &network.generation.params.attestor, &trace.attestor)?;
    let asked: VerifyQuote = attestor.message()?;
    let owner = attestor.from.clone();
    if asked.answer_to != network.registry {
        return Err("the Attestor answered somebody else than the Registry".into());
    }
    let registry = Taken::read("Registry", &network.registry, &trace.registry)?;
    attestor.sent(&registry)?;
    let verified: QuoteVerified = registry.message()?;
    if verified.requester != owner {
        return Err("the Attestor verified for another requester".into());
    }
    let request: RegistrationRequest =
        from_cell(&verified.payload).map_err(|_| "the request does not parse")?;

    let ppid = verified.report.origin.ppid;
    let machine = network.platform_address(ppid).map_err(|error| error.to_string())?;
    let platform = Taken::read("Platform", &machine, &trace.platform)?;
    registry.sent(&platform)?;
    let serve: ServeWorker = platform.message()?;
    let address = network.worker_address(&owner).map_err(|error| error.to_string())?;
    let worker = Taken::read("Worker", &address, &trace.worker)?;
    platform.sent(&worker)?;
    let registered: AttestationRegistered = worker.message()?;

    let attestation = registered.attestation.into_value();
    let evidence = &attestation.evidence;
    let origin = &verified.report.origin;
    let agrees = serve.worker_owner == owner
        && serve.attestation.hash()
            == to_cell(&attestation).map_or(HashBytes::ZERO, |cell| *cell.repr_hash())
        && (registered.ppid, registered.registration_seqno) == (ppid, request.registration_seqno)
        && (attestation.receipt_key, attestation.encryption_key)
            == (request.receipt_key, request.encryption_key)
        && attestation.measurement == verified.report.measurement
        && evidence.mc_seqno == request.mc_seqno
        && (evidence.quote_digest, evidence.authority) == (origin.quote_digest, origin.authority)
        && asked.quote.pck.platform.issuer == origin.authority
        && (evidence.serial, evidence.ppid) == (verified.report.serial, ppid);
    let quote_digest = HashBytes(Sha256::digest(prover::statement::td_text(&asked.quote.td)).into());
    if !agrees || quote_digest != origin.quote_digest {
        return Err("the Worker took another attestation than was verified".into());
    }
    Ok(Registered {
        owner,
        worker: address,
        at_s: worker.at_s,
        request,
        attestation,
        proof: asked.quote.into_value(),
        report: verified.report.into_value(),
        ppid,
    })
}

/// Whether the account that the network calls its Attestor is one, under the root of the network file.
pub fn verify_attestor(
    network: &Network,
    account: Option<&AttestorAccount>,
    trust: &AttestorTrust,
) -> Verdict {
    let mut verdict = Verdict::default();
    let missing = || "the Attestor was not read".to_owned();
    let attestor = &network.generation.params.attestor;
    verdict.add(
        "attestor_code",
        "quotes are verified on chain by the published contract, which has no owner and cannot change",
        Party::Chain,
        account.ok_or_else(missing).and_then(|account| {
            let found = *account.code.repr_hash();
            holds(found == trust.code, found.to_string(), format!("it runs {found}"))
        }),
    );
    verdict.add(
        "attestor_root",
        "the root that the Attestor has trusted from its first day is the network file's",
        Party::Chain,
        account.ok_or_else(missing).and_then(|account| attestor_root(account, attestor, &trust.root_der)),
    );
    verdict
}

/// Checks a registration and, once more and by other means, the quote that was proven in it. The facts are `None` where
/// the transactions are not those of a registration.
///
/// `mc_root_hash`: of the masterchain block that the registration names, as the chain has it.
pub fn verify_registration(
    network: &Network,
    trace: &RegistrationTrace,
    mc_root_hash: Option<HashBytes>,
    collateral: &Collateral,
    policy: &QuotePolicy,
    now_s: u64,
) -> (Verdict, Option<Registered>) {
    let mut verdict = Verdict::default();
    let read = read_registration(network, trace);
    verdict.add(
        "attested_on_chain",
        "the network's Attestor verified the quote and Registry, Platform and Worker took its word, message by message",
        Party::Worker,
        read.as_ref()
            .map(|found| format!("quote {}", found.attestation.evidence.quote_digest))
            .map_err(Clone::clone),
    );
    let Ok(registered) = read else { return (verdict, None) };
    verdict.add(
        "block_is_of_this_chain",
        "the quote was made after a block of this chain, so it is not older than that block",
        Party::Worker,
        holds(
            mc_root_hash == Some(registered.request.mc_root_hash),
            format!("masterchain block {}", registered.request.mc_seqno),
            "the chain has no such block",
        ),
    );
    let raw = raw_quote(&registered.proof, &collateral.pck_crl_issuer_chain);
    verdict.add(
        "quote_rebuilt",
        "the parts of the proof are put together to the quote that Intel's libraries read",
        Party::Worker,
        raw.as_ref().map(|raw| format!("{} bytes", raw.len())).map_err(ToString::to_string),
    );
    let Ok(raw) = raw else { return (verdict, Some(registered)) };
    let (quote, facts) = verify_quote(&raw, collateral, policy, now_s);
    verdict.extend(quote);
    let Some(facts) = facts else { return (verdict, Some(registered)) };
    verdict.add(
        "verifiers_agree",
        "dcap-qvl reads the same measurement, report data and machine from the quote as the Attestor did",
        Party::Contracts,
        holds(
            facts.measurement == registered.report.measurement
                && facts.report_data == registered.report.report_data.0
                && facts.ppid == registered.ppid.0,
            facts.measurement.to_string(),
            "the Attestor found something else",
        ),
    );
    verdict.extend(verify_binding(&facts, &registered.binding(network.id())));
    (verdict, Some(registered))
}

fn attestor_root(account: &AttestorAccount, attestor: &StdAddr, root_der: &[u8]) -> Result<String, String> {
    let storage: AttestorStorage =
        from_cell(&account.data).map_err(|_| "the Attestor's storage does not parse")?;
    let root =
        Certificate::from_der(root_der).map_err(|error| format!("the network file's root: {error}"))?;
    let (x, y) = root.key.split_at(32);
    let trust = &storage.trust;
    if trust.root_x == HashBytes::ZERO {
        return Err("the root has revoked itself".into());
    }
    let same = trust.root_x.as_slice() == x
        && trust.root_y.as_slice() == y
        && trust.root_serial == root.serial
        && trust.root_subject.as_slice() == Sha256::digest(&root.subject).as_slice();
    if !same {
        return Err("it trusts another root than the network file names".into());
    }
    // The address commits to the code and to what was trusted when it was deployed.
    let initial = AttestorStorage::initial(trust.clone().into_value())
        .and_then(|initial| to_cell(&initial))
        .map_err(|error| error.to_string())?;
    holds(
        CodeRef::of(&account.code).address(&initial) == *attestor,
        format!("root {}", hex::encode(x)),
        "it was deployed with another root",
    )
}

/// A transaction that succeeded, as far as a registration needs it.
pub(crate) struct Taken {
    whose: &'static str,
    pub(crate) at_s: u32,
    pub(crate) from: StdAddr,
    message_hash: HashBytes,
    body: Cell,
    sent: Vec<HashBytes>,
}

/// TON allows a transaction 255 actions. A hostile one may name the same cell as 2^15 messages.
const MAX_OUT_MESSAGES: usize = 255;

impl Taken {
    pub(crate) fn read(whose: &'static str, account: &StdAddr, cell: &Cell) -> Result<Self, String> {
        let malformed = |_| format!("the {whose}'s transaction does not parse");
        let transaction = cell.parse::<Transaction>().map_err(malformed)?;
        if transaction.account != account.address {
            return Err(format!("the {whose}'s transaction is of another account"));
        }
        let succeeded = match transaction.load_info().map_err(malformed)? {
            TxInfo::Ordinary(info) => {
                !info.aborted && matches!(&info.compute_phase, ComputePhase::Executed(run) if run.success)
            }
            TxInfo::TickTock(_) => false,
        };
        if !succeeded {
            return Err(format!("the {whose}'s transaction failed"));
        }
        let unstarted = || format!("no message started the {whose}'s transaction");
        let cell = transaction.in_msg.as_ref().ok_or_else(unstarted)?;
        let message = cell.parse::<Message<'_>>().map_err(malformed)?;
        let MsgInfo::Int(info) = &message.info else { return Err(unstarted()) };
        if info.bounced {
            return Err(format!("the {whose}'s message is one that came back"));
        }
        let mut sent = Vec::new();
        for message in transaction.out_msgs.values().take(MAX_OUT_MESSAGES) {
            sent.push(*message.map_err(malformed)?.repr_hash());
        }
        Ok(Self {
            whose,
            at_s: transaction.now,
            from: info.src.as_std().cloned().ok_or_else(unstarted)?,
            message_hash: *cell.repr_hash(),
            body: CellBuilder::build_from(message.body).map_err(malformed)?,
            sent,
        })
    }

    pub(crate) fn message<M: contracts::Message>(&self) -> Result<M, String> {
        M::from_cell(&self.body)
            .map_err(|_| format!("the {} was sent something else than {}", self.whose, M::NAME))
    }

    fn sent(&self, next: &Self) -> Result<(), String> {
        if self.sent.contains(&next.message_hash) {
            Ok(())
        } else {
            Err(format!("the {}'s transaction was not caused by the {}'s", next.whose, self.whose))
        }
    }
}
