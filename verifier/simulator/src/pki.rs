//! The simulated authority: root, platform CA, PCK, TCB signer, two revocation lists, TCB info and QE identity.

use dcap_qvl::QuoteCollateralV3;
use p256::SecretKey;
use p256::ecdsa::SigningKey;
use p256::ecdsa::signature::Signer;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    RevokedCertParams, SerialNumber, SignatureAlgorithm,
};
use serde_json::json;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::der::{SGX_EXTENSION, SgxExtension};
use crate::{FMSPC, Faults, SimulatorError};

pub(crate) const COMPONENT_SVN: u8 = 5;
pub(crate) const TDX_SVN: u8 = 3;
pub(crate) const QE_SVN: u16 = 4;
const PCE_SVN: u8 = 13;
const DAY_S: u64 = 86_400;
const PCK_SERIAL: u64 = 3;

pub(crate) struct Pki {
    pub(crate) root_der: Vec<u8>,
    pub(crate) pck_chain_pem: String,
    pub(crate) pck_key: SigningKey,
    pub(crate) attestation_key: SigningKey,
    pub(crate) qe_signer: [u8; 32],
    pub(crate) collateral: QuoteCollateralV3,
}

impl Pki {
    pub(crate) fn new(seed: &[u8; 32], now_s: u64, faults: Faults) -> Result<Self, SimulatorError> {
        let issued_s = now_s.checked_sub(DAY_S).ok_or(SimulatorError::Time(now_s))?;
        let issued = moment(issued_s)?;
        let until = moment(now_s.saturating_add(30 * DAY_S))?;
        let key = |purpose: &str| secret(seed, purpose);

        let root_key = CertificateKey::new(&key("root")?);
        let root_params = authority("Root CA", 1, issued, until);
        let root = root_params.self_signed(&root_key)?;
        let root_issuer = Issuer::new(root_params, root_key);

        let ca_key = CertificateKey::new(&key("platform ca")?);
        let ca_params = authority("PCK Platform CA", 2, issued, until);
        let ca = ca_params.signed_by(&ca_key, &root_issuer)?;
        let ca_issuer = Issuer::new(ca_params, ca_key);

        let ppid: [u8; 16] = Sha256::digest([seed.as_slice(), b"ppid"].concat())[..16]
            .try_into()
            .map_err(|_| SimulatorError::Key)?;
        let svn = if faults.old_svn { 0 } else { COMPONENT_SVN };
        let sgx = SgxExtension { ppid, component_svn: svn, pce_svn: PCE_SVN, pce_id: [0, 0], fmspc: FMSPC };
        let pck_key = key("pck")?;
        let mut pck_params = leaf("PCK Certificate", PCK_SERIAL, issued, until);
        pck_params.custom_extensions = vec![CustomExtension::from_oid_content(SGX_EXTENSION, sgx.encode())];
        let pck = pck_params.signed_by(&CertificateKey::new(&pck_key), &ca_issuer)?;

        let tcb_key = key("tcb signing")?;
        let tcb_signer =
            leaf("TCB Signing", 4, issued, until).signed_by(&CertificateKey::new(&tcb_key), &root_issuer)?;
        let tcb_signing_key = SigningKey::from(&tcb_key);

        let revoked = if faults.revoked_pck { vec![PCK_SERIAL] } else { Vec::new() };
        let root_crl = revocations(&root_issuer, &[], issued, until)?;
        let pck_crl = revocations(&ca_issuer, &revoked, issued, until)?;

        let qe_signer: [u8; 32] = Sha256::digest(b"SIMULATED QE SIGNER - NOT INTEL").into();
        let (issue_date, next_update) = (rfc3339(issued)?, rfc3339(until)?);
        let pce_id = if faults.other_pce { "0001" } else { "0000" };
        let tcb_info = tcb_info(&issue_date, &next_update, pce_id).to_string();
        let qe_identity = qe_identity(&issue_date, &next_update, &qe_signer).to_string();
        let sign = |document: &str| -> Vec<u8> {
            let signature: p256::ecdsa::Signature = tcb_signing_key.sign(document.as_bytes());
            signature.to_bytes().to_vec()
        };
        let signer_chain = format!("{}{}", tcb_signer.pem(), root.pem());
        let collateral = QuoteCollateralV3 {
            pck_crl_issuer_chain: format!("{}{}", ca.pem(), root.pem()),
            root_ca_crl: root_crl,
            pck_crl,
            tcb_info_issuer_chain: signer_chain.clone(),
            tcb_info_signature: sign(&tcb_info),
            tcb_info,
            qe_identity_issuer_chain: signer_chain,
            qe_identity_signature: sign(&qe_identity),
            qe_identity,
            pck_certificate_chain: None,
        };
        Ok(Self {
            root_der: root.der().to_vec(),
            pck_chain_pem: format!("{}{}{}", pck.pem(), ca.pem(), root.pem()),
            pck_key: SigningKey::from(&pck_key),
            attestation_key: SigningKey::from(&key("attestation")?),
            qe_signer,
            collateral,
        })
    }
}

fn secret(seed: &[u8; 32], purpose: &str) -> Result<SecretKey, SimulatorError> {
    let bytes = Sha256::digest([b"chrysalis/simulated-tdx", seed.as_slice(), purpose.as_bytes()].concat());
    SecretKey::from_slice(&bytes).map_err(|_| SimulatorError::Key)
}

/// A P-256 key whose signatures follow from the message (RFC 6979), so that a platform is the same each time.
struct CertificateKey {
    signing: SigningKey,
    point: Vec<u8>,
}

impl CertificateKey {
    fn new(secret: &SecretKey) -> Self {
        Self {
            signing: SigningKey::from(secret),
            point: secret.public_key().to_encoded_point(false).as_bytes().to_vec(),
        }
    }
}

impl PublicKeyData for CertificateKey {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for CertificateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature: p256::ecdsa::Signature = self.signing.sign(message);
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

fn named(name: &str, serial: u64, from: OffsetDateTime, until: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("SIMULATED - NOT INTEL: {name}"));
    params.distinguished_name.push(DnType::OrganizationName, "Chrysalis TDX simulator");
    params.serial_number = Some(SerialNumber::from(serial));
    params.not_before = from;
    params.not_after = until;
    params
}

fn authority(name: &str, serial: u64, from: OffsetDateTime, until: OffsetDateTime) -> CertificateParams {
    let mut params = named(name, serial, from, until);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf(name: &str, serial: u64, from: OffsetDateTime, until: OffsetDateTime) -> CertificateParams {
    let mut params = named(name, serial, from, until);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

fn revocations(
    issuer: &Issuer<'_, CertificateKey>,
    serials: &[u64],
    from: OffsetDateTime,
    until: OffsetDateTime,
) -> Result<Vec<u8>, SimulatorError> {
    let revoked_certs = serials
        .iter()
        .map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: from,
            reason_code: None,
            invalidity_date: None,
        })
        .collect();
    let params = CertificateRevocationListParams {
        this_update: from,
        next_update: until,
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(params.signed_by(issuer)?.der().to_vec())
}

fn tcb_info(issue_date: &str, next_update: &str, pce_id: &str) -> serde_json::Value {
    let components = |svn: u8| vec![json!({ "svn": svn }); 16];
    json!({
        "id": "TDX",
        "version": 3,
        "issueDate": issue_date,
        "nextUpdate": next_update,
        "fmspc": hex::encode_upper(FMSPC),
        "pceId": pce_id,
        "tcbType": 0,
        "tcbEvaluationDataNumber": 1,
        "tdxModule": {
            "mrsigner": hex::encode_upper([0; 48]),
            "attributes": "0000000000000000",
            "attributesMask": "FFFFFFFFFFFFFFFF"
        },
        "tdxModuleIdentities": [],
        "tcbLevels": [
            {
                "tcb": {
                    "sgxtcbcomponents": components(COMPONENT_SVN),
                    "pcesvn": PCE_SVN,
                    "tdxtcbcomponents": tdx_components(TDX_SVN)
                },
                "tcbDate": issue_date,
                "tcbStatus": "UpToDate"
            },
            {
                "tcb": {
                    "sgxtcbcomponents": components(0),
                    "pcesvn": 0,
                    "tdxtcbcomponents": tdx_components(0)
                },
                "tcbDate": issue_date,
                "tcbStatus": "OutOfDate"
            }
        ]
    })
}

/// Component 1 is the module's version, which is 0 here: no separate module identity applies.
fn tdx_components(svn: u8) -> Vec<serde_json::Value> {
    (0..16).map(|component| json!({ "svn": if component == 1 { 0 } else { svn } })).collect()
}

fn qe_identity(issue_date: &str, next_update: &str, signer: &[u8; 32]) -> serde_json::Value {
    json!({
        "id": "TD_QE",
        "version": 2,
        "issueDate": issue_date,
        "nextUpdate": next_update,
        "tcbEvaluationDataNumber": 1,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": hex::encode_upper(signer),
        "isvprodid": 2,
        "tcbLevels": [{ "tcb": { "isvsvn": QE_SVN }, "tcbDate": issue_date, "tcbStatus": "UpToDate" }]
    })
}

fn moment(unix_s: u64) -> Result<OffsetDateTime, SimulatorError> {
    i64::try_from(unix_s)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(SimulatorError::Time(unix_s))
}

fn rfc3339(moment: OffsetDateTime) -> Result<String, SimulatorError> {
    let seconds = moment.unix_timestamp().unsigned_abs();
    moment.format(&Rfc3339).map_err(|_| SimulatorError::Time(seconds))
}
