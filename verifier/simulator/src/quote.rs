//! TDX quotes of version 4 and 5, field by field (Intel, *TDX DCAP Quoting Library API*, appendix A.3).

use crate::digest;
use crate::pki::{Pki, Signer};
use crate::profile::{Profile, QuoteFormat};

const ECDSA_P256: u16 = 2;
const TEE_TDX: u32 = 0x81;
const QE_VENDOR_INTEL: [u8; 16] =
    [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];
const QE_REPORT_CERTIFICATION_DATA: u16 = 6;
const PCK_CERTIFICATE_CHAIN: u16 = 5;

/// A quote in parts, so that hostile tests can change one and sign again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuoteParts {
    /// Header and report.
    pub signed: Vec<u8>,
    /// By the attestation key over `signed`: r ‖ s.
    pub signature: [u8; 64],
    /// x ‖ y.
    pub attestation_key: [u8; 64],
    pub qe_report: Vec<u8>,
    /// By the PCK over `qe_report`: r ‖ s.
    pub qe_report_signature: [u8; 64],
    pub authentication_data: Vec<u8>,
    pub pck_chain_pem: String,
}

impl QuoteParts {
    /// The raw quote.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut certification = self.qe_report.clone();
        certification.extend(self.qe_report_signature);
        certification.extend((self.authentication_data.len() as u16).to_le_bytes());
        certification.extend(&self.authentication_data);
        certification.extend(PCK_CERTIFICATE_CHAIN.to_le_bytes());
        certification.extend((self.pck_chain_pem.len() as u32).to_le_bytes());
        certification.extend(self.pck_chain_pem.as_bytes());

        let mut data = self.signature.to_vec();
        data.extend(self.attestation_key);
        data.extend(QE_REPORT_CERTIFICATION_DATA.to_le_bytes());
        data.extend((certification.len() as u32).to_le_bytes());
        data.extend(certification);

        let mut quote = self.signed.clone();
        quote.extend((data.len() as u32).to_le_bytes());
        quote.extend(data);
        quote
    }
}

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
            let hash = digest(&[b"simulated image", name.as_bytes(), &[which]]);
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

pub(crate) fn parts(
    pki: &Pki,
    profile: &Profile,
    report_data: &[u8; 64],
    identity: &TdIdentity,
) -> QuoteParts {
    let mut signed = header(profile);
    signed.extend(td_report(profile, report_data, identity));
    let attestation_key = pki.holder(Signer::AttestationKey).public_key();
    let authentication_data = b"SIMULATED QE - NOT INTEL\0\0\0\0\0\0\0\0".to_vec();
    let qe_report = qe_report(pki, profile, &digest(&[&attestation_key, &authentication_data]));
    QuoteParts {
        signature: pki.holder(Signer::AttestationKey).sign(&signed),
        signed,
        attestation_key,
        qe_report_signature: pki.holder(Signer::Pck).sign(&qe_report),
        qe_report,
        authentication_data,
        pck_chain_pem: pki.pck_chain_pem.clone(),
    }
}

/// The header, and in version 5 kind and size of the report.
fn header(profile: &Profile) -> Vec<u8> {
    let (version, body): (u16, Option<(u16, u32)>) = match profile.format {
        QuoteFormat::V4 => (4, None),
        QuoteFormat::V5Td10 => (5, Some((2, 584))),
        QuoteFormat::V5Td15 => (5, Some((3, 648))),
        QuoteFormat::V5Td15Ex => (5, Some((4, 885))),
    };
    let mut header = Vec::with_capacity(54);
    header.extend(version.to_le_bytes());
    header.extend(ECDSA_P256.to_le_bytes());
    header.extend(TEE_TDX.to_le_bytes());
    header.extend([0; 4]);
    header.extend(QE_VENDOR_INTEL);
    header.extend(*b"SIMULATED-NOT-INTEL\0");
    if let Some((kind, size)) = body {
        header.extend(kind.to_le_bytes());
        header.extend(size.to_le_bytes());
    }
    header
}

fn td_report(profile: &Profile, report_data: &[u8; 64], identity: &TdIdentity) -> Vec<u8> {
    let mut report = Vec::with_capacity(885);
    report.extend(profile.tee_tcb_svn);
    // MRSEAM, MRSIGNERSEAM, SEAMATTRIBUTES.
    report.extend([0; 48]);
    report.extend([0; 48]);
    report.extend([0; 8]);
    report.extend(profile.td_attributes.to_le_bytes());
    report.extend(identity.xfam);
    report.extend(identity.mr_td);
    report.extend(identity.mr_config_id);
    report.extend(identity.mr_owner);
    report.extend(identity.mr_owner_config);
    report.extend(identity.rtmr.concat());
    report.extend(report_data);
    if matches!(profile.format, QuoteFormat::V5Td15 | QuoteFormat::V5Td15Ex) {
        report.extend(profile.tee_tcb_svn2);
        // MRSERVICETD.
        report.extend([0; 48]);
    }
    if profile.format == QuoteFormat::V5Td15Ex {
        // VMID, TDID, device information, and about service TDs.
        report.extend([0; 237]);
    }
    report
}

fn qe_report(pki: &Pki, profile: &Profile, bound: &[u8; 32]) -> Vec<u8> {
    let mut report = Vec::with_capacity(384);
    report.extend(profile.component_svns);
    // MISCSELECT and reserved.
    report.extend([0; 32]);
    report.extend([0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    report.extend(digest(&[b"SIMULATED QE - NOT INTEL"]));
    report.extend([0; 32]);
    report.extend(pki.qe_signer);
    report.extend([0; 96]);
    report.extend(2u16.to_le_bytes());
    report.extend(profile.qe_svn.to_le_bytes());
    report.extend([0; 60]);
    report.extend(bound);
    report.extend([0; 32]);
    report
}
