//! A TDX quote, its collateral and a policy give a verdict (Intel, *TDX DCAP Quoting Library API*; the chain itself is
//! verified by dcap-qvl).

use contracts::HashBytes;
use contracts::measurement::{KeyBinding, TdMeasurements};
use dcap_qvl::quote::{Quote, TDReport10};
use dcap_qvl::tcb_info::TcbInfo;
use dcap_qvl::verify::QuoteVerifier;
use serde::Serialize;

pub use dcap_qvl::QuoteCollateralV3 as Collateral;

use crate::check::{Party, Verdict, holds};

/// A quote larger than this is no quote.
pub const MAX_QUOTE_BYTES: usize = 48 * 1024;

/// TUD group and DEBUG bit: any bit of the first byte makes a TD unfit for secrets.
const TUD_BITS: u64 = 0xff;
const SEPT_VE_DISABLE: u64 = 1 << 28;

/// Whose root ends the certificate chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedRoot {
    /// Intel's SGX root CA.
    Intel,
    /// A simulator's root (DER). **Proves nothing about hardware**; for the local chain.
    DangerousSimulator(Vec<u8>),
}

/// What is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotePolicy {
    /// The only root a chain may end in.
    pub root: TrustedRoot,
    /// TCB statuses that pass, as Intel names them.
    pub tcb_statuses: Vec<String>,
    /// Measurements that pass; `None` accepts any and says so.
    pub measurements: Option<Vec<HashBytes>>,
}

impl QuotePolicy {
    /// Intel's root and a platform that is up to date, or needs hardening in software alone.
    pub fn production(measurements: Vec<HashBytes>) -> Self {
        Self {
            root: TrustedRoot::Intel,
            tcb_statuses: vec!["UpToDate".into(), "SWHardeningNeeded".into()],
            measurements: Some(measurements),
        }
    }

    /// The same under a simulator's root.
    pub fn dangerous_simulated(root_der: Vec<u8>, measurements: Vec<HashBytes>) -> Self {
        Self { root: TrustedRoot::DangerousSimulator(root_der), ..Self::production(measurements) }
    }
}

/// What a quote says. To be believed only where the verdict passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuoteFacts {
    /// Hash over the measured registers and the configuration.
    pub measurement: HashBytes,
    /// 64 bytes chosen inside the TD, hexadecimal.
    #[serde(serialize_with = "hex::serde::serialize")]
    pub report_data: [u8; 64],
    /// Whether the policy's root is a simulator's.
    pub simulated: bool,
    /// Platform id of the certificate, where the chain verified.
    #[serde(serialize_with = "hex::serde::serialize")]
    pub ppid: Vec<u8>,
    /// Family, model and platform of the certificate, where the chain verified.
    #[serde(serialize_with = "hex::serde::serialize")]
    pub fmspc: Vec<u8>,
    /// Intel's word for the platform's state, where the chain verified.
    pub tcb_status: String,
    /// Advisories that apply.
    pub advisory_ids: Vec<String>,
    /// Unix time at which the first of certificates, revocation lists, TCB info and QE identity expires; 0 where the
    /// chain did not verify.
    pub expires_at_s: u64,
}

/// Verifies `raw` at the time `now_s` (Unix seconds). The facts are `None` where the bytes are no TDX quote.
pub fn verify_quote(
    raw: &[u8],
    collateral: &Collateral,
    policy: &QuotePolicy,
    now_s: u64,
) -> (Verdict, Option<QuoteFacts>) {
    let mut verdict = Verdict::default();
    let parsed = parse(raw);
    let report = parsed.as_ref().ok().map(|(_, report)| *report);
    verdict.add(
        "quote_parses",
        "the bytes are a TDX quote with a TD report",
        Party::Worker,
        parsed.as_ref().map(|(quote, _)| format!("version {}", quote.header.version)).map_err(Clone::clone),
    );
    let Some(report) = report else { return (verdict, None) };

    let verifier = match &policy.root {
        TrustedRoot::Intel => QuoteVerifier::new_prod(),
        TrustedRoot::DangerousSimulator(root) => QuoteVerifier::new(root.clone()),
    };
    // The library refuses a debug TD too; the attributes have checks of their own below, with a clearer word.
    let all_claims = dcap_qvl::QuotePolicy::claims_only(now_s);
    let verified = verifier.verify_with_policy(raw, collateral.clone(), now_s, &all_claims);
    let root_name = match policy.root {
        TrustedRoot::Intel => "Intel's root",
        TrustedRoot::DangerousSimulator(_) => "the SIMULATOR's root, which proves nothing about hardware",
    };
    verdict.add(
        "quote_chain",
        "attestation key, QE report, PCK certificate, CA and root sign each other; nothing is expired or revoked",
        verified.as_ref().err().map_or(Party::Worker, |error| at_fault(&format!("{error:#}"))),
        verified.as_ref().map(|_| format!("up to {root_name}")).map_err(|error| format!("{error:#}")),
    );
    let mut facts = QuoteFacts {
        measurement: measurements_of(&report).measurement(),
        report_data: report.report_data,
        simulated: matches!(policy.root, TrustedRoot::DangerousSimulator(_)),
        ppid: Vec::new(),
        fmspc: Vec::new(),
        tcb_status: String::new(),
        advisory_ids: Vec::new(),
        expires_at_s: 0,
    };
    let not_verified = || Err("the chain did not verify".to_owned());
    verdict.add(
        "collateral_current",
        "certificates, revocation lists, TCB info and QE identity are in force at this time, every one",
        Party::Collateral,
        match &verified {
            Ok(claims) => holds(
                claims.latest_issue_date <= now_s && now_s <= claims.earliest_expiration_date,
                format!("until {}", claims.earliest_expiration_date),
                format!(
                    "in force from {} to {}, asked for {now_s}; fetch it anew",
                    claims.latest_issue_date, claims.earliest_expiration_date
                ),
            ),
            Err(_) => not_verified(),
        },
    );
    verdict.add(
        "tcb_status",
        "the platform's firmware and TDX module are at a level the policy accepts",
        Party::Worker,
        match &verified {
            Ok(claims) => {
                let status = claims.tcb.status.to_string();
                let accepted = policy.tcb_statuses.contains(&status);
                holds(accepted, &status, format!("{status} is not accepted by the policy"))
            }
            Err(_) => not_verified(),
        },
    );
    verdict.add(
        "pce_id",
        "the TCB info is for this platform's provisioning enclave",
        Party::Collateral,
        match &verified {
            Ok(claims) => pce_id_matches(&claims.platform.pck.pce_id, collateral),
            Err(_) => not_verified(),
        },
    );
    if let Ok(claims) = verified {
        facts.ppid = claims.platform.pck.ppid;
        facts.fmspc = claims.platform.pck.fmspc.to_vec();
        facts.tcb_status = claims.tcb.status.to_string();
        facts.advisory_ids = claims.tcb.advisory_ids;
        facts.expires_at_s = claims.earliest_expiration_date;
    }
    let attributes = u64::from_le_bytes(report.td_attributes);
    verdict.add(
        "debug_off",
        "the host cannot read the TD's memory through the debug interface",
        Party::Worker,
        holds(attributes & TUD_BITS == 0, "off", "the TD runs under debug"),
    );
    verdict.add(
        "sept_ve_disable",
        "the host cannot inject exceptions through secure page tables",
        Party::Worker,
        holds(attributes & SEPT_VE_DISABLE != 0, "set", "the TD runs without it"),
    );
    verdict.add(
        "measurement_admitted",
        "the image that runs is one the network admits",
        Party::Worker,
        match &policy.measurements {
            Some(list) => {
                let found = facts.measurement.to_string();
                holds(list.contains(&facts.measurement), &found, format!("{found} is not on the list"))
            }
            None => Ok(format!("{}; the policy accepts any", facts.measurement)),
        },
    );
    (verdict, Some(facts))
}

/// Whether the quote's `report_data` binds these keys to this worker and this block.
pub fn verify_binding(facts: &QuoteFacts, binding: &KeyBinding) -> Verdict {
    let mut verdict = Verdict::default();
    verdict.add(
        "report_data_binds_keys",
        "the receipt key and the encryption key were made inside this TD, for this worker on this network",
        Party::Worker,
        holds(
            facts.report_data == binding.report_data(),
            format!("worker {}, masterchain block {}", binding.worker, binding.mc_seqno),
            "report_data is another: the quote is of other keys, another worker, network or block",
        ),
    );
    verdict
}

/// The measured fields of a TD report.
fn measurements_of(report: &TDReport10) -> TdMeasurements {
    TdMeasurements {
        td_attributes: report.td_attributes,
        xfam: report.xfam,
        mr_td: report.mr_td,
        mr_config_id: report.mr_config_id,
        mr_owner: report.mr_owner,
        mr_owner_config: report.mr_owner_config,
        rtmr0: report.rt_mr0,
        rtmr1: report.rt_mr1,
        rtmr2: report.rt_mr2,
        rtmr3: report.rt_mr3,
    }
}

fn parse(raw: &[u8]) -> Result<(Quote, TDReport10), String> {
    if raw.len() > MAX_QUOTE_BYTES {
        return Err(format!("{} bytes; a quote has {MAX_QUOTE_BYTES} at most", raw.len()));
    }
    let quote = Quote::parse(raw).map_err(|error| format!("not a quote: {error:#}"))?;
    let report = *quote.report.as_td10().ok_or_else(|| "an SGX quote, not a TDX one".to_owned())?;
    Ok((quote, report))
}

/// dcap-qvl matches the FMSPC but not the PCE id.
fn pce_id_matches(certified: &[u8], collateral: &Collateral) -> Result<String, String> {
    let info: TcbInfo =
        serde_json::from_str(&collateral.tcb_info).map_err(|_| "the TCB info does not parse".to_owned())?;
    let stated = hex::decode(&info.pce_id).map_err(|_| "the TCB info's PCE id is no hex".to_owned())?;
    holds(stated == certified, info.pce_id, "TCB info and certificate name different ones")
}

/// The library's errors have no kinds, only words; those that speak of the collateral are of whoever fetched it.
fn at_fault(error: &str) -> Party {
    let words = [
        "TCBInfo",
        "TcbInfo",
        "TCB Info",
        "tcb_info",
        "QE Identity",
        "QeIdentity",
        "qe_identity",
        "CRL",
        "Crl",
    ];
    if words.iter().any(|word| error.contains(word)) { Party::Collateral } else { Party::Worker }
}
