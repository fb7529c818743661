//! What varies in a quote, as the contract is sent it, and the whole texts around it, as the contract hashes them
//! (`contracts/quote.tolk` and `contracts/pck.tolk`).

use contracts::attestor::{
    Bytes, P256Signature, PckPlatform, PckStatement, Pieces, PiecesError, QeStatement, QuoteProof,
    TdConfiguration, TdFormat, TdLast, TdMeasured, TdOwner, TdRegisters, TdStatement,
};
use contracts::{Ref, WireError};
use sha2::{Digest, Sha256};
use tycho_types::cell::HashBytes;

use crate::certificate::{Certificate, Kind};
use crate::der::{AUTHORITY_KEY_ID, ECDSA_WITH_SHA256, element};
use crate::trust::Usual;

/// Intel's quoting enclave, as the header names its vendor.
const INTEL_QE: [u8; 16] =
    [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];
/// Of a 1.5ex report's last 237 bytes, those in the piece with TEE_TCB_SVN2.
const EXTENSION_CUT: usize = 16 + 110;
/// Bytes of a report 1.0.
const REPORT_BYTES: usize = 584;
/// Key usage and basic constraints of a leaf.
const LEAF: [u8; 30] = [
    0x30, 0x0e, 0x06, 0x03, 0x55, 0x1d, 0x0f, 0x01, 0x01, 0xff, 0x04, 0x04, 0x03, 0x02, 0x06, 0xc0, 0x30,
    0x0c, 0x06, 0x03, 0x55, 0x1d, 0x13, 0x01, 0x01, 0xff, 0x04, 0x02, 0x30, 0x00,
];
/// id-ecPublicKey, prime256v1.
const P256: [u8; 21] = [
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07,
];
/// 1.2.840.113741.1.13.1 in DER, without tag and length.
const SGX: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];

/// A text is not what the contract would put together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatementError {
    /// Another form than Intel's.
    #[error(
        "{what} differs at byte {at} from the form Intel issues: the contract cannot be shown it; the worker must produce another quote"
    )]
    Form { what: &'static str, at: usize },
    #[error(transparent)]
    Pieces(#[from] PiecesError),
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Header and report: what the attestation key signs.
#[must_use]
pub fn td_text(td: &TdStatement) -> Vec<u8> {
    let (version, body): (u8, &[u8]) = match td.format {
        TdFormat::V4 => (4, &[]),
        TdFormat::V5Td10 => (5, &[2, 0, 0x48, 0x02, 0, 0]),
        TdFormat::V5Td15 => (5, &[3, 0, 0x88, 0x02, 0, 0]),
        TdFormat::V5Td15Ex => (5, &[4, 0, 0x75, 0x03, 0, 0]),
    };
    let (mrconfigid, owner) = match &td.configuration {
        None => ([0; 48], [0; 96]),
        Some(configuration) => {
            let owner = configuration.owner.as_ref().map_or([0; 96], |owner| {
                let mut bytes = [0; 96];
                let (id, config) = bytes.split_at_mut(48);
                id.copy_from_slice(&owner.mrowner.0);
                config.copy_from_slice(&owner.mrownerconfig.0);
                bytes
            });
            (configuration.mrconfigid.0, owner)
        }
    };
    let (registers, last) = (&td.measured.rest, &td.measured.rest.rest);
    let mut text = [
        &[version, 0, 2, 0, 0x81, 0, 0, 0][..],
        &td.versions.0,
        &INTEL_QE,
        &td.user_data.0,
        body,
        &td.tee_tcb_svn.0,
        &td.mrseam.0,
        &[0; 48],
        &td.seam_attributes.0,
        &td.td_attributes.0,
        &td.xfam.0,
        &td.measured.mrtd.0,
        &mrconfigid,
        &owner,
        &td.measured.rtmr0.0,
        &registers.rtmr1.0,
        &registers.rtmr2.0,
        &last.rtmr3.0,
        &last.report_data.0,
    ]
    .concat();
    if matches!(td.format, TdFormat::V5Td15 | TdFormat::V5Td15Ex) {
        let extension = td.extension.as_ref().map(|pieces| pieces.concat()).unwrap_or_default();
        let (svn, rest) = extension.split_at_checked(16).unwrap_or_default();
        text.extend([svn, &[0; 48], rest].concat());
    }
    text
}

/// What varies in header and report, by `signature`.
///
/// # Errors
/// [`StatementError`]: MRSIGNERSEAM, MRSERVICETD or something in the header is not as in Intel's quotes.
pub fn td_statement(
    format: TdFormat,
    text: &[u8],
    signature: P256Signature,
) -> Result<TdStatement, StatementError> {
    let statement = td_fields(format, text, signature)?;
    holds("the quote", text, &td_text(&statement)).map(|()| statement)
}

/// The same from any text: where it is not of this form, so is not what comes back.
///
/// # Errors
/// [`StatementError::Pieces`] and [`StatementError::Wire`]: never for a text below 64 KiB.
pub fn td_fields(
    format: TdFormat,
    text: &[u8],
    signature: P256Signature,
) -> Result<TdStatement, StatementError> {
    let start = if format == TdFormat::V4 { 48 } else { 54 };
    let report = text.get(start..).unwrap_or_default();
    let owner = TdOwner { mrowner: array(report, 232), mrownerconfig: array(report, 280) };
    let has_owner = (owner.mrowner, owner.mrownerconfig) != (Bytes([0; 48]), Bytes([0; 48]));
    let configuration = TdConfiguration {
        mrconfigid: array(report, 184),
        owner: if has_owner { Some(Ref::new(owner)?) } else { None },
    };
    let last = TdLast { rtmr3: array(report, 472), report_data: array(report, 520) };
    let registers =
        TdRegisters { rtmr1: array(report, 376), rtmr2: array(report, 424), rest: Ref::new(last)? };
    let measured =
        TdMeasured { mrtd: array(report, 136), rtmr0: array(report, 328), rest: Ref::new(registers)? };
    let extension = match format {
        TdFormat::V4 | TdFormat::V5Td10 => None,
        TdFormat::V5Td15 | TdFormat::V5Td15Ex => {
            let svn: Bytes<16> = array(report, REPORT_BYTES);
            let rest = report.get(REPORT_BYTES + 64..).unwrap_or_default();
            let whole = [&svn.0, rest].concat();
            let (first, more) = whole.split_at(whole.len().min(EXTENSION_CUT));
            let pieces = [first.to_vec()].into_iter().chain(more.chunks(127).map(<[u8]>::to_vec));
            Some(Ref::new(Pieces::new(pieces.collect())?)?)
        }
    };
    let is_configured = has_owner || configuration.mrconfigid != Bytes([0; 48]);
    Ok(TdStatement {
        format,
        versions: array(text, 8),
        user_data: array(text, 28),
        tee_tcb_svn: array(report, 0),
        mrseam: array(report, 16),
        seam_attributes: array(report, 112),
        td_attributes: array(report, 120),
        xfam: array(report, 128),
        measured: Ref::new(measured)?,
        configuration: if is_configured { Some(Ref::new(configuration)?) } else { None },
        extension,
        signature: Ref::new(signature)?,
    })
}

/// The quoting enclave's report: what the PCK signs.
#[must_use]
pub fn qe_text(proof: &QuoteProof) -> Vec<u8> {
    let key_hash = Sha256::new()
        .chain_update(proof.key_x.0)
        .chain_update(proof.key_y.0)
        .chain_update(proof.authentication_data.0)
        .finalize();
    let qe = &proof.qe;
    [
        &qe.cpu_svn.0[..],
        &qe.miscselect.0,
        &[0; 28],
        &qe.attributes.0,
        &qe.mrenclave.0,
        &[0; 32],
        &qe.mrsigner.0,
        &[0; 96],
        &qe.isv_prod_id.0,
        &qe.isv_svn.0,
        &[0; 60],
        &key_hash,
        &[0; 32],
    ]
    .concat()
}

/// What varies in the quoting enclave's report (`sgx_report_body_t`), by `signature`. Whether the rest is as it should be
/// shows in [`qe_text`].
///
/// # Errors
/// [`StatementError::Wire`]: never.
pub fn qe_statement(report: &[u8], signature: P256Signature) -> Result<QeStatement, StatementError> {
    Ok(QeStatement {
        cpu_svn: array(report, 0),
        miscselect: array(report, 16),
        attributes: array(report, 48),
        mrenclave: HashBytes(array(report, 64).0),
        mrsigner: HashBytes(array(report, 128).0),
        isv_prod_id: array(report, 256),
        isv_svn: array(report, 258),
        signature: Ref::new(signature)?,
    })
}

/// The signed part of a PCK certificate by `issuer`.
#[must_use]
pub fn pck_text(pck: &PckStatement, issuer: &Certificate) -> Vec<u8> {
    let usual = Usual::of(&issuer.subject);
    let platform = &pck.platform;
    let sgx = |path: &[u8], value: Vec<u8>| {
        let oid = element(0x06, &[&SGX[..], path].concat());
        element(0x30, &[oid, value].concat())
    };
    let mut svns = Vec::new();
    for (svn, component) in platform.svns.0.iter().zip(1..) {
        svns.extend(sgx(&[2, component], integer(&[*svn])));
    }
    svns.extend(sgx(&[2, 17], integer(&platform.pce_svn.to_be_bytes())));
    svns.extend(sgx(&[2, 18], element(0x04, &platform.svns.0)));
    let mut items = [
        sgx(&[1], element(0x04, &platform.ppid.0)),
        sgx(&[2], element(0x30, &svns)),
        sgx(&[3], element(0x04, &platform.pce_id.to_be_bytes())),
        sgx(&[4], element(0x04, &platform.fmspc.0)),
        sgx(&[5], vec![0x0a, 1, platform.sgx_type]),
    ]
    .concat();
    if let Some(instance) = &platform.instance {
        items.extend(sgx(&[6], element(0x04, &instance.id.0)));
        let flags = [instance.dynamic_platform, instance.cached_keys, instance.smt_enabled];
        let flags = flags.iter().zip(1..).flat_map(|(flag, which)| sgx(&[7, which], vec![0x01, 1, *flag]));
        items.extend(sgx(&[7], element(0x30, &flags.collect::<Vec<u8>>())));
    }
    let extensions = [
        [&AUTHORITY_KEY_ID[..], &issuer.key_id.0].concat(),
        pck.points.as_ref().map_or(usual.points, |points| points.concat()),
        [&[0x30, 0x1d, 0x06, 0x03, 0x55, 0x1d, 0x0e, 0x04, 0x16, 0x04, 0x14][..], &platform.key_id.0]
            .concat(),
        LEAF.to_vec(),
        sgx(&[], element(0x04, &element(0x30, &items))),
    ]
    .concat();
    let key = [&[0, 4][..], &pck.x.0, &pck.y.0].concat();
    let content = [
        [0xa0, 0x03, 0x02, 0x01, 0x02].to_vec(),
        integer(&pck.serial.0),
        ECDSA_WITH_SHA256.to_vec(),
        issuer.subject.clone(),
        pck.validity.0.to_vec(),
        usual.subject,
        element(0x30, &[&P256[..], &element(0x03, &key)].concat()),
        element(0xa3, &element(0x30, &extensions)),
    ];
    element(0x30, &content.concat())
}

/// What varies in a PCK certificate by `issuer`.
///
/// # Errors
/// [`StatementError`]: it is no PCK certificate, or not in the one form of this issuer's.
pub fn pck_statement(
    certificate: &Certificate,
    issuer: &Certificate,
    signature: P256Signature,
) -> Result<PckStatement, StatementError> {
    const WHAT: &str = "the PCK certificate";
    let Kind::Pck(claims) = &certificate.kind else {
        return Err(StatementError::Form { what: WHAT, at: 0 });
    };
    let (x, y) = certificate.key.split_at(32);
    let points = if certificate.points == Usual::of(&issuer.subject).points {
        None
    } else {
        Some(Ref::new(Pieces::new(vec![certificate.points.clone()])?)?)
    };
    let platform = PckPlatform {
        issuer: issuer.key_hash(),
        key_id: certificate.key_id,
        ppid: claims.ppid,
        svns: claims.svns,
        pce_svn: claims.pce_svn,
        pce_id: claims.pce_id,
        fmspc: claims.fmspc,
        sgx_type: claims.sgx_type,
        instance: claims.instance,
    };
    let statement = PckStatement {
        x: HashBytes::from_slice(x),
        y: HashBytes::from_slice(y),
        validity: Bytes(certificate.validity),
        serial: certificate.serial,
        points,
        platform: Ref::new(platform)?,
        signature: Ref::new(signature)?,
    };
    holds(WHAT, &certificate.signed.bytes, &pck_text(&statement, issuer)).map(|()| statement)
}

/// Whether the contract would put the same text together.
pub(crate) fn holds(what: &'static str, text: &[u8], made: &[u8]) -> Result<(), StatementError> {
    if text == made {
        return Ok(());
    }
    let same = text.iter().zip(made).take_while(|(a, b)| a == b).count();
    Err(StatementError::Form { what, at: same })
}

/// Bytes from `at` on; zeros where the text has ended.
fn array<const N: usize>(text: &[u8], at: usize) -> Bytes<N> {
    let rest = text.get(at..).unwrap_or_default();
    let mut bytes = [0; N];
    let length = rest.len().min(N);
    if let (Some(to), Some(from)) = (bytes.get_mut(..length), rest.get(..length)) {
        to.copy_from_slice(from);
    }
    Bytes(bytes)
}

/// A non-negative INTEGER in its shortest form.
fn integer(number: &[u8]) -> Vec<u8> {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len().saturating_sub(1));
    let digits = number.get(start..).unwrap_or_default();
    let sign: &[u8] = if digits.first().is_some_and(|first| *first >= 0x80) { &[0] } else { &[] };
    element(0x02, &[sign, digits].concat())
}
