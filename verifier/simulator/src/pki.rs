//! The simulated authority: root, issuer of PCK certificates, PCK, TCB signer, two revocation lists, TCB info and QE
//! identity.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dcap_qvl::QuoteCollateralV3;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use time::OffsetDateTime;

use crate::der::{Certificate, Kind, RevocationList, SgxExtension, name, x509};
use crate::documents;
use crate::profile::{PckIssuer, Period, Profile};
use crate::{SimulatorError, digest};

const DAY_S: u64 = 86_400;
/// 2018-05-21 and 2048-05-21: no test of time depends on the authorities unless it says so.
const AUTHORITY_FROM_S: u64 = 1_526_899_810;
const AUTHORITY_UNTIL_S: u64 = 2_473_584_610;
const LAST_CERTIFIABLE_S: u64 = 2_524_607_999;
const URL: &str = "https://simulated-not-intel.invalid/crl/";

/// Who holds a key of the simulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signer {
    Root,
    /// The CA that issued the platform's PCK certificate.
    PckIssuer,
    /// Of TCB info and QE identity.
    TcbSigner,
    Pck,
    AttestationKey,
}

/// DER Names of the simulation's certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    pub root: Vec<u8>,
    pub platform_ca: Vec<u8>,
    pub processor_ca: Vec<u8>,
    pub tcb_signer: Vec<u8>,
    /// Of every PCK certificate.
    pub pck: Vec<u8>,
}

impl Names {
    /// The simulator's, the same for every seed.
    #[must_use]
    pub fn simulated() -> Self {
        let name = |who: &str| {
            name([&format!("SIMULATED NOT INTEL {who}"), "Chrysalis TDX simulator", "Nowhere", "XX", "XX"])
        };
        Self {
            root: name("Root CA"),
            platform_ca: name("PCK Platform CA"),
            processor_ca: name("PCK Processor CA"),
            tcb_signer: name("TCB Signing"),
            pck: name("PCK Certificate"),
        }
    }
}

/// Certificates in DER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates {
    pub root: Vec<u8>,
    pub pck_issuer: Vec<u8>,
    pub tcb_signer: Vec<u8>,
    pub pck: Vec<u8>,
}

pub(crate) struct Pki {
    pub(crate) certificates: Certificates,
    pub(crate) pck_chain_pem: String,
    pub(crate) qe_signer: [u8; 32],
    pub(crate) collateral: QuoteCollateralV3,
    root: Holder,
    pck_issuer: Holder,
    tcb_signer: Holder,
    pck: Holder,
    attestation_key: Holder,
}

/// A key and the serial of the certificate it has.
pub(crate) struct Holder {
    key: SigningKey,
    pub(crate) serial: [u8; 20],
}

impl Pki {
    pub(crate) fn new(seed: &[u8; 32], now_s: u64, profile: &Profile) -> Result<Self, SimulatorError> {
        let issued_s = now_s.checked_sub(DAY_S).ok_or(SimulatorError::Time(now_s))?;
        let names = Names::simulated();
        let machine = profile.machine.to_be_bytes();
        // A platform's PCK changes with its SVNs.
        let platform = [&machine[..], &profile.component_svns, &profile.pce_svn.to_be_bytes()].concat();
        let (issuer_name, issuer_purpose) = match profile.issuer {
            PckIssuer::Platform => (&names.platform_ca, "platform ca"),
            PckIssuer::Processor => (&names.processor_ca, "processor ca"),
        };
        let root = Holder::new(seed, "root", &[])?;
        let pck_issuer = Holder::new(seed, issuer_purpose, &[profile.issuer_key])?;
        let tcb_signer = Holder::new(seed, "tcb signing", &[])?;
        let pck = Holder::new(seed, "pck", &platform)?;
        let attestation_key = Holder::new(seed, "attestation", &machine)?;

        let issue = |holder: &Holder, subject: &[u8], kind, by: &Holder, issuer: &[u8], period: Times| {
            let list = if by.serial == root.serial { "root.crl" } else { "pck.crl" };
            let certificate = Certificate {
                serial: holder.serial,
                issuer,
                subject,
                from: period.0,
                until: period.1,
                key: holder.public_key(),
                issuer_key: by.public_key(),
                list_url: &format!("{URL}{list}"),
                kind,
            };
            let signed = certificate.signed_part()?;
            x509(&signed, &by.sign(&signed))
        };
        let periods = &profile.periods;
        let always = |period| times(period, AUTHORITY_FROM_S, AUTHORITY_UNTIL_S);
        let pck_until_s = now_s.saturating_add(7 * 365 * DAY_S).min(LAST_CERTIFIABLE_S);
        let ppid = digest(&[seed, b"ppid", &machine]);
        let sgx = SgxExtension {
            ppid: *ppid.first_chunk().unwrap_or(&[0; 16]),
            component_svns: profile.component_svns,
            pce_svn: profile.pce_svn,
            pce_id: profile.pce_id.to_be_bytes(),
            fmspc: profile.fmspc,
            has_instance: profile.issuer == PckIssuer::Platform,
        };
        let certificates = Certificates {
            root: issue(
                &root,
                &names.root,
                Kind::Authority { path_length: 1 },
                &root,
                &names.root,
                always(Period::default())?,
            )?,
            pck_issuer: issue(
                &pck_issuer,
                issuer_name,
                Kind::Authority { path_length: 0 },
                &root,
                &names.root,
                always(periods.issuer)?,
            )?,
            tcb_signer: issue(
                &tcb_signer,
                &names.tcb_signer,
                Kind::Signer,
                &root,
                &names.root,
                always(periods.tcb_signer)?,
            )?,
            pck: issue(
                &pck,
                &names.pck,
                Kind::Pck(&sgx),
                &pck_issuer,
                issuer_name,
                times(periods.pck, issued_s, pck_until_s)?,
            )?,
        };

        let next_s = now_s.saturating_add(30 * DAY_S);
        let lately = |period| times(period, issued_s, next_s);
        let revocations = &profile.revocations;
        let list = |by: &Holder, issuer: &[u8], period: Times, revoked: &[[u8; 20]]| {
            let list = RevocationList {
                issuer,
                issuer_key: by.public_key(),
                this_update: period.0,
                next_update: period.1,
                number: revocations.number,
                revoked,
            };
            if revocations.number > 127 {
                return Err(SimulatorError::CrlNumber(revocations.number));
            }
            let signed = list.signed_part()?;
            x509(&signed, &by.sign(&signed))
        };
        let by_issuer: Vec<[u8; 20]> = [(revocations.pck, pck.serial)]
            .into_iter()
            .filter_map(|(is, serial)| is.then_some(serial))
            .chain(revocations.more_by_issuer.iter().copied())
            .collect();
        let by_root: Vec<[u8; 20]> = [
            (revocations.issuer, pck_issuer.serial),
            (revocations.tcb_signer, tcb_signer.serial),
            (revocations.root, root.serial),
        ]
        .into_iter()
        .filter_map(|(is, serial)| is.then_some(serial))
        .chain(revocations.more_by_root.iter().copied())
        .collect();

        let qe_signer = digest(&[b"SIMULATED QE SIGNER - NOT INTEL"]);
        let (from, until) = lately(periods.tcb_info)?;
        let tcb_info = documents::tcb_info(profile, from, until);
        let (from, until) = lately(periods.qe_identity)?;
        let qe_identity = documents::qe_identity(profile, from, until, &qe_signer);
        let root_pem = pem(&certificates.root);
        let signer_chain = format!("{}{root_pem}", pem(&certificates.tcb_signer));
        let issuer_chain = format!("{}{root_pem}", pem(&certificates.pck_issuer));
        let collateral = QuoteCollateralV3 {
            root_ca_crl: list(&root, &names.root, lately(periods.root_crl)?, &by_root)?,
            pck_crl: list(&pck_issuer, issuer_name, lately(periods.pck_crl)?, &by_issuer)?,
            tcb_info_issuer_chain: signer_chain.clone(),
            tcb_info_signature: tcb_signer.sign(tcb_info.as_bytes()).to_vec(),
            tcb_info,
            qe_identity_issuer_chain: signer_chain,
            qe_identity_signature: tcb_signer.sign(qe_identity.as_bytes()).to_vec(),
            qe_identity,
            pck_certificate_chain: None,
            pck_crl_issuer_chain: issuer_chain.clone(),
        };
        Ok(Self {
            pck_chain_pem: format!("{}{issuer_chain}", pem(&certificates.pck)),
            certificates,
            qe_signer,
            collateral,
            root,
            pck_issuer,
            tcb_signer,
            pck,
            attestation_key,
        })
    }

    pub(crate) fn holder(&self, signer: Signer) -> &Holder {
        match signer {
            Signer::Root => &self.root,
            Signer::PckIssuer => &self.pck_issuer,
            Signer::TcbSigner => &self.tcb_signer,
            Signer::Pck => &self.pck,
            Signer::AttestationKey => &self.attestation_key,
        }
    }
}

impl Holder {
    fn new(seed: &[u8; 32], purpose: &str, which: &[u8]) -> Result<Self, SimulatorError> {
        let secret = digest(&[b"chrysalis/simulated-tdx", seed, purpose.as_bytes(), which]);
        let serial = digest(&[b"chrysalis/simulated-serial", seed, purpose.as_bytes(), which]);
        Ok(Self {
            key: SigningKey::from_slice(&secret).map_err(|_| SimulatorError::Key)?,
            serial: *serial.first_chunk().unwrap_or(&[1; 20]),
        })
    }

    /// r ‖ s, big-endian. Follows from the message (RFC 6979), so that a platform is the same each time.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature: Signature = self.key.sign(message);
        signature.to_bytes().into()
    }

    /// x ‖ y, big-endian.
    pub(crate) fn public_key(&self) -> [u8; 64] {
        let point = self.key.verifying_key().to_encoded_point(false);
        *point.as_bytes().last_chunk().unwrap_or(&[0; 64])
    }
}

/// A certificate's PEM (RFC 7468).
#[must_use]
pub fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap_or_default()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

type Times = (OffsetDateTime, OffsetDateTime);

fn times(period: Period, from_s: u64, until_s: u64) -> Result<Times, SimulatorError> {
    Ok((moment(period.from_s.unwrap_or(from_s))?, moment(period.until_s.unwrap_or(until_s))?))
}

fn moment(unix_s: u64) -> Result<OffsetDateTime, SimulatorError> {
    i64::try_from(unix_s)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .filter(|time| (2000..2050).contains(&time.year()))
        .ok_or(SimulatorError::Time(unix_s))
}
