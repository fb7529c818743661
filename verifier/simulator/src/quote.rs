//! A version 4 TDX quote, field by field (Intel, *TDX DCAP Quoting Library API*, appendix A.3).

use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use sha2::{Digest, Sha256};

use crate::Faults;
use crate::pki::{COMPONENT_SVN, Pki, QE_SVN, TDX_SVN};

const QUOTE_VERSION: u16 = 4;
const ECDSA_P256: u16 = 2;
const TEE_TDX: u32 = 0x81;
const QE_VENDOR_INTEL: [u8; 16] =
    [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];
const QE_REPORT_CERTIFICATION_DATA: u16 = 6;
const PCK_CERTIFICATE_CHAIN: u16 = 5;
/// TUD.DEBUG, bit 0, and SEC.SEPT_VE_DISABLE, bit 28 of the TD attributes.
const DEBUG: u64 = 1;
const SEPT_VE_DISABLE: u64 = 1 << 28;

/// What identifies a TD: the measured registers and its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TdIdentity {
    /// Hash of the TD's initial memory.
    pub mr_td: [u8; 48],
    /// RTMR 0 to 3.
    pub rtmr: [[u8; 48]; 4],
    /// MRCONFIGID.
    pub mr_config_id: [u8; 48],
    /// MROWNER.
    pub mr_owner: [u8; 48],
    /// MROWNERCONFIG.
    pub mr_owner_config: [u8; 48],
    /// Extended features.
    pub xfam: [u8; 8],
}

impl TdIdentity {
    /// The identity of a simulated image of this name.
    pub fn of_image(name: &str) -> Self {
        let register = |which: u8| {
            let mut register = [0; 48];
            let hash = Sha256::digest([b"simulated image", name.as_bytes(), &[which]].concat());
            register[..32].copy_from_slice(&hash);
            register
        };
        Self {
            mr_td: register(0),
            rtmr: [register(1), register(2), register(3), [0; 48]],
            mr_config_id: [0; 48],
            mr_owner: [0; 48],
            mr_owner_config: [0; 48],
            xfam: [0xe7, 0x02, 0x06, 0, 0, 0, 0, 0],
        }
    }
}

pub(crate) fn quote(pki: &Pki, faults: Faults, report_data: &[u8; 64], identity: &TdIdentity) -> Vec<u8> {
    let mut signed = header();
    signed.extend(td_report(faults, report_data, identity));
    let authentication = authentication_data(pki, faults, &signed);
    let mut quote = signed;
    quote.extend((authentication.len() as u32).to_le_bytes());
    quote.extend(authentication);
    quote
}

fn header() -> Vec<u8> {
    let mut header = Vec::with_capacity(48);
    header.extend(QUOTE_VERSION.to_le_bytes());
    header.extend(ECDSA_P256.to_le_bytes());
    header.extend(TEE_TDX.to_le_bytes());
    header.extend([0; 4]);
    header.extend(QE_VENDOR_INTEL);
    header.extend(*b"SIMULATED-NOT-INTEL\0");
    header
}

fn td_report(faults: Faults, report_data: &[u8; 64], identity: &TdIdentity) -> Vec<u8> {
    let svn = if faults.old_svn { 0 } else { TDX_SVN };
    let mut tee_tcb_svn = [svn; 16];
    tee_tcb_svn[1] = 0;
    let attributes = SEPT_VE_DISABLE | if faults.debug_td { DEBUG } else { 0 };
    let mut report = Vec::with_capacity(584);
    report.extend(tee_tcb_svn);
    // MRSEAM, MRSIGNERSEAM, SEAMATTRIBUTES.
    report.extend([0; 48]);
    report.extend([0; 48]);
    report.extend([0; 8]);
    report.extend(attributes.to_le_bytes());
    report.extend(identity.xfam);
    report.extend(identity.mr_td);
    report.extend(identity.mr_config_id);
    report.extend(identity.mr_owner);
    report.extend(identity.mr_owner_config);
    report.extend(identity.rtmr.concat());
    report.extend(report_data);
    report
}

fn authentication_data(pki: &Pki, faults: Faults, signed: &[u8]) -> Vec<u8> {
    let point = pki.attestation_key.verifying_key().to_encoded_point(false);
    let attestation_key = &point.as_bytes()[1..];
    let qe_authentication = *b"SIMULATED QE - NOT INTEL\0\0\0\0\0\0\0\0";
    let qe_report = qe_report(pki, faults, attestation_key, &qe_authentication);

    let mut certification = qe_report.clone();
    certification.extend(sign(&pki.pck_key, &qe_report));
    certification.extend((qe_authentication.len() as u16).to_le_bytes());
    certification.extend(qe_authentication);
    certification.extend(PCK_CERTIFICATE_CHAIN.to_le_bytes());
    certification.extend((pki.pck_chain_pem.len() as u32).to_le_bytes());
    certification.extend(pki.pck_chain_pem.as_bytes());

    let mut data = sign(&pki.attestation_key, signed);
    data.extend(attestation_key);
    data.extend(QE_REPORT_CERTIFICATION_DATA.to_le_bytes());
    data.extend((certification.len() as u32).to_le_bytes());
    data.extend(certification);
    data
}

fn qe_report(pki: &Pki, faults: Faults, attestation_key: &[u8], authentication: &[u8]) -> Vec<u8> {
    let svn = if faults.old_svn { 0 } else { COMPONENT_SVN };
    let mut report = Vec::with_capacity(384);
    report.extend([svn; 16]);
    // MISCSELECT and reserved.
    report.extend([0; 32]);
    report.extend([0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    report.extend(Sha256::digest(b"SIMULATED QE - NOT INTEL"));
    report.extend([0; 32]);
    report.extend(pki.qe_signer);
    report.extend([0; 96]);
    report.extend(2u16.to_le_bytes());
    report.extend(QE_SVN.to_le_bytes());
    report.extend([0; 60]);
    report.extend(Sha256::digest([attestation_key, authentication].concat()));
    report.extend([0; 32]);
    report
}

fn sign(key: &SigningKey, message: &[u8]) -> Vec<u8> {
    let signature: Signature = key.sign(message);
    signature.to_bytes().to_vec()
}
