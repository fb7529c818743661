//! X.509 certificates of Intel's SGX authorities (Intel, *SGX PCK Certificate and CRL Profile Specification*), read as
//! `contracts/certificate.tolk` reads them.

use contracts::attestor::{Bytes, Fmspc, KeyId, PckInstance, Serial, Svns};
use sha2::{Digest, Sha256};
use tycho_types::cell::HashBytes;

use crate::der::{AUTHORITY_KEY_ID, ECDSA_WITH_SHA256, header, split_signed};
use crate::p256::{WitnessError, signature_from_der};
use crate::text::{SignedText, Text, TextError};

/// What the certificate is called in errors.
const WHAT: &str = "the certificate";
/// id-ecPublicKey, prime256v1, an uncompressed point.
const KEY_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
const DISTRIBUTION_POINTS: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x1f];
const SUBJECT_KEY_ID: [u8; 11] = [0x30, 0x1d, 0x06, 0x03, 0x55, 0x1d, 0x0e, 0x04, 0x16, 0x04, 0x14];
/// 1.2.840.113741.1.13.1 in DER, without tag and length.
const SGX: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];
/// Bytes of platform instance and configuration, which PCK certificates of the platform CA end with.
const INSTANCE_BYTES: usize = 32 + 70;

/// A certificate in the one form that Intel issues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    pub signed: SignedText,
    /// r ‖ s, big-endian.
    pub signature: [u8; 64],
    /// x ‖ y, big-endian.
    pub key: [u8; 64],
    pub serial: Serial,
    /// DER Name.
    pub issuer: Vec<u8>,
    /// DER Name.
    pub subject: Vec<u8>,
    /// Unix time.
    pub not_before: u32,
    /// Unix time.
    pub not_after: u32,
    /// Both times in DER.
    pub validity: [u8; 32],
    /// AuthorityKeyIdentifier.
    pub issuer_key_id: KeyId,
    /// SubjectKeyIdentifier.
    pub key_id: KeyId,
    /// The extension with the CRL distribution points, in DER.
    pub points: Vec<u8>,
    pub kind: Kind,
}

/// What a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// May sign certificates and revocation lists.
    Authority,
    /// May sign documents.
    Signer,
    /// Certifies a platform's key.
    Pck(PlatformClaims),
}

/// What a PCK certificate says of its platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformClaims {
    pub ppid: Bytes<16>,
    pub svns: Svns,
    pub pce_svn: u16,
    pub pce_id: u16,
    pub fmspc: Fmspc,
    pub sgx_type: u8,
    /// In certificates by the platform CA.
    pub instance: Option<PckInstance>,
}

/// A certificate is of no use to the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    #[error(
        "these bytes are no X.509 certificate signed with ECDSA over P-256; whoever supplied them is at fault"
    )]
    NotACertificate,
    #[error(transparent)]
    Text(#[from] TextError),
    #[error("the certificate's signature: {0}")]
    Signature(#[from] WitnessError),
}

impl Certificate {
    /// Reads a DER certificate whole. Does not check its signature.
    ///
    /// # Errors
    /// [`CertificateError`]
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let (signed, signature) = split_signed(der).ok_or(CertificateError::NotACertificate)?;
        let signature = signature_from_der(signature)?;
        let mut text = Text::new(WHAT, signed);
        let content = text.sequence_header("a SEQUENCE")?;
        if content < 256 {
            return Err(text.error("a signed part of 256 bytes or more").into());
        }
        text.expect_bytes(&[0xa0, 0x03, 0x02, 0x01, 0x02], "version 3")?;
        let serial = text.serial()?;
        text.expect_bytes(&ECDSA_WITH_SHA256, "ecdsa-with-SHA256")?;
        text.end_piece();
        let issuer = name(&mut text)?;
        text.end_piece();
        let validity: [u8; 32] = text.take_array("a validity of two UTCTimes")?;
        let [0x30, 0x1e, times @ ..] = validity else {
            return Err(text.error("before here, a validity of two UTCTimes").into());
        };
        let (from, until) = times.split_at(15);
        let (not_before, not_after) = (text.time_in(from)?, text.time_in(until)?);
        text.end_piece();
        let subject = name(&mut text)?;
        text.end_piece();
        let key = public_key(&mut text)?;
        let Extensions { issuer_key_id, key_id, points, kind } = extensions(&mut text)?;
        Ok(Self {
            signed: text.finish()?,
            signature,
            key,
            serial,
            issuer,
            subject,
            not_before,
            not_after,
            validity,
            issuer_key_id,
            key_id,
            points,
            kind,
        })
    }

    /// SHA-256 of x ‖ y, which names the authority in the contract.
    #[must_use]
    pub fn key_hash(&self) -> HashBytes {
        sha256(&self.key)
    }
}

/// SHA-256 as the contract's maps name keys and Names.
pub(crate) fn sha256(bytes: &[u8]) -> HashBytes {
    HashBytes(Sha256::digest(bytes).into())
}

/// A DER Name of at most 127 bytes, whole.
pub(crate) fn name(text: &mut Text<'_>) -> Result<Vec<u8>, TextError> {
    const EXPECTED: &str = "a Name of at most 127 bytes";
    let (header, content) = header(0x30, text.rest()).ok_or_else(|| text.error(EXPECTED))?;
    text.take(header + content, EXPECTED).map(<[u8]>::to_vec)
}

fn public_key(text: &mut Text<'_>) -> Result<[u8; 64], TextError> {
    const EXPECTED: &str = "an uncompressed P-256 key";
    let info: [u8; 91] = text.take_array(EXPECTED)?;
    match (info.starts_with(&KEY_PREFIX), info.last_chunk::<64>()) {
        (true, Some(key)) => Ok(*key),
        _ => Err(text.error("before here, an uncompressed P-256 key")),
    }
}

struct Extensions {
    issuer_key_id: KeyId,
    key_id: KeyId,
    points: Vec<u8>,
    kind: Kind,
}

fn extensions(text: &mut Text<'_>) -> Result<Extensions, TextError> {
    const EXPECTED: &str = "extensions";
    let outer = header(0xa3, text.rest()).ok_or_else(|| text.error(EXPECTED))?;
    let inner = text.rest().get(outer.0..).and_then(|rest| header(0x30, rest));
    let inner = inner.filter(|inner| inner.0 + inner.1 == outer.1 && inner.0 == outer.0 && outer.0 > 2);
    let inner = inner.ok_or_else(|| text.error(EXPECTED))?;
    text.take(outer.0 + inner.0, EXPECTED)?;
    text.end_piece();

    let issuer_key_id =
        text.expect_with_bytes(&AUTHORITY_KEY_ID, "an authority key identifier of 20 bytes")?;
    text.end_piece();
    let points = distribution_points(text)?;
    text.end_piece();
    let key_id = text.expect_with_bytes(&SUBJECT_KEY_ID, "a subject key identifier of 20 bytes")?;
    Ok(Extensions { issuer_key_id, key_id, points, kind: kind(text)? })
}

/// From the key usage on.
fn kind(text: &mut Text<'_>) -> Result<Kind, TextError> {
    let usage: [u8; 16] = text.take_array("a key usage")?;
    let Some(usage) = usage
        .strip_prefix(&[0x30, 0x0e, 0x06, 0x03, 0x55, 0x1d, 0x0f, 0x01, 0x01, 0xff, 0x04, 0x04, 0x03, 0x02])
    else {
        return Err(text.error("before here, a critical key usage"));
    };
    match usage {
        [0x01, 0x06] => {
            // The path length is 1 in the root's and 0 in the others'.
            let constraints: [u8; 20] = text.take_array("basic constraints of an authority")?;
            const AUTHORITY: [u8; 19] = [
                0x30, 0x12, 0x06, 0x03, 0x55, 0x1d, 0x13, 0x01, 0x01, 0xff, 0x04, 0x08, 0x30, 0x06, 0x01,
                0x01, 0xff, 0x02, 0x01,
            ];
            match constraints.strip_prefix(&AUTHORITY) {
                Some([0 | 1]) => Ok(Kind::Authority),
                _ => Err(text.error("before here, critical basic constraints of an authority")),
            }
        }
        [0x06, 0xc0] => {
            const LEAF: [u8; 14] =
                [0x30, 0x0c, 0x06, 0x03, 0x55, 0x1d, 0x13, 0x01, 0x01, 0xff, 0x04, 0x02, 0x30, 0x00];
            text.expect_bytes(&LEAF, "critical basic constraints of no authority")?;
            if text.rest().is_empty() { Ok(Kind::Signer) } else { platform_claims(text).map(Kind::Pck) }
        }
        _ => Err(text.error("before here, the key usage of an authority or of a signer")),
    }
}

fn distribution_points(text: &mut Text<'_>) -> Result<Vec<u8>, TextError> {
    const EXPECTED: &str = "CRL distribution points of at most 127 bytes with their header";
    let length = match text.rest() {
        [0x30, length @ 5..=125, oid @ ..] if oid.starts_with(&DISTRIBUTION_POINTS) => usize::from(*length),
        _ => return Err(text.error(EXPECTED)),
    };
    text.take(2 + length, EXPECTED).map(<[u8]>::to_vec)
}

fn platform_claims(text: &mut Text<'_>) -> Result<PlatformClaims, TextError> {
    let content = sgx_header(text)?;
    let before = text.rest().len();
    if before != content {
        return Err(text.error("the SGX extension to be the last"));
    }
    let ppid = text.item(0x1e, &[1], &[0x04, 16], "a PPID")?;
    let (svns, pce_svn) = tcb(text)?;
    let pce_id: [u8; 2] = text.item(0x10, &[3], &[0x04, 2], "a PCEID")?;
    let fmspc = text.item(0x14, &[4], &[0x04, 6], "an FMSPC")?;
    let [sgx_type] = text.item(0x0f, &[5], &[0x0a, 1], "an SGX type")?;
    let instance = match text.rest().len() {
        0 => None,
        INSTANCE_BYTES => {
            let id = text.item(0x1e, &[6], &[0x04, 16], "a platform instance")?;
            let flags: [u8; 54] = text.item(0x44, &[7], &[0x30, 54], "a configuration")?;
            let mut values = [0; 3];
            for ((flag, which), value) in flags.chunks(18).zip(1..).zip(&mut values) {
                let head = [&[0x30, 0x10, 0x06, 0x0b], &SGX[..], &[7, which, 0x01, 0x01]].concat();
                let Some(&[found @ (0x00 | 0xff)]) = flag.strip_prefix(&head[..]) else {
                    return Err(text.error("before here, a configuration of three flags"));
                };
                *value = found;
            }
            let [dynamic_platform, cached_keys, smt_enabled] = values;
            Some(PckInstance { id: Bytes(id), dynamic_platform, cached_keys, smt_enabled })
        }
        _ => return Err(text.error("a platform instance and a configuration, or the end")),
    };
    Ok(PlatformClaims {
        ppid: Bytes(ppid),
        svns: Bytes(svns),
        pce_svn,
        pce_id: u16::from_be_bytes(pce_id),
        fmspc: Bytes(fmspc),
        sgx_type,
        instance,
    })
}

/// One bite from the extension's header to that of the list in it: the length of the list.
fn sgx_header(text: &mut Text<'_>) -> Result<usize, TextError> {
    const EXPECTED: &str = "Intel's SGX extension";
    let bytes: [u8; 23] = text.take_array(EXPECTED)?;
    let long = |at: usize| match bytes.get(at..at + 4) {
        Some(&[0x04 | 0x30, 0x82, high, low]) => Some(usize::from(u16::from_be_bytes([high, low]))),
        _ => None,
    };
    let is_sgx = bytes[0] == 0x30
        && bytes[4..6] == [0x06, 0x09]
        && bytes[6..15] == SGX
        && bytes[15] == 0x04
        && bytes[19] == 0x30;
    match (long(0), long(15), long(19)) {
        (Some(extension), Some(value), Some(list))
            if is_sgx && extension == list + 19 && value == list + 4 && list >= 256 =>
        {
            Ok(list)
        }
        _ => Err(text.error("before here, Intel's SGX extension")),
    }
}

fn tcb(text: &mut Text<'_>) -> Result<([u8; 16], u16), TextError> {
    const EXPECTED: &str = "a list of SVNs";
    let head: [u8; 20] = text.take_array(EXPECTED)?;
    let after = text.rest().len();
    let lengths =
        [[head[2], head[3]], [head[18], head[19]]].map(|bytes| usize::from(u16::from_be_bytes(bytes)));
    let is_tcb = head[..2] == [0x30, 0x82]
        && head[4..6] == [0x06, 0x0a]
        && head[6..15] == SGX
        && head[15..18] == [2, 0x30, 0x82];
    if !is_tcb || lengths[0] != lengths[1] + 16 {
        return Err(text.error("before here, a list of SVNs"));
    }
    let mut svns = [0; 16];
    for (svn, component) in svns.iter_mut().zip(1..) {
        let value = text.svn(component)?;
        *svn = u8::try_from(value).map_err(|_| text.error("before here, a component's SVN below 256"))?;
    }
    let pce_svn = text.svn(17)?;
    let cpu_svn: [u8; 16] = text.item(0x1f, &[2, 18], &[0x04, 16], "a CPUSVN")?;
    if cpu_svn != svns || after - text.rest().len() != lengths[1] {
        return Err(text.error("before here, a CPUSVN that says the same as the components"));
    }
    Ok((svns, pce_svn))
}

impl Text<'_> {
    /// One bite: a known start, then `N` bytes of any kind.
    fn expect_with_bytes<const N: usize>(
        &mut self,
        start: &[u8],
        expected: &'static str,
    ) -> Result<Bytes<N>, TextError> {
        let at_fault = self.error(expected);
        if !self.rest().starts_with(start) {
            return Err(at_fault);
        }
        self.take(start.len() + N, expected)?.last_chunk().map(|bytes| Bytes(*bytes)).ok_or(at_fault)
    }

    /// One bite: an item of the SGX extension with a value of `N` bytes.
    fn item<const N: usize>(
        &mut self,
        length: u8,
        path: &[u8],
        value: &[u8],
        expected: &'static str,
    ) -> Result<[u8; N], TextError> {
        let oid_bytes = (SGX.len() + path.len()) as u8;
        let head = [&[0x30, length, 0x06, oid_bytes], &SGX[..], path, value].concat();
        if !self.rest().starts_with(&head) {
            return Err(self.error(expected));
        }
        let at_fault = self.error(expected);
        let item = self.take(head.len() + N, expected)?;
        item.last_chunk::<N>().copied().ok_or(at_fault)
    }

    /// One bite: an SVN as an INTEGER of one byte, or of two where it needs them.
    fn svn(&mut self, component: u8) -> Result<u16, TextError> {
        const EXPECTED: &str = "an SVN";
        if self.rest().first_chunk::<2>() == Some(&[0x30, 0x10]) {
            let [value] = self.item(0x10, &[2, component], &[0x02, 1], EXPECTED)?;
            return if value < 128 {
                Ok(u16::from(value))
            } else {
                Err(self.error("before here, an SVN that is positive"))
            };
        }
        let value = u16::from_be_bytes(self.item(0x11, &[2, component], &[0x02, 2], EXPECTED)?);
        if (128..32_768).contains(&value) {
            Ok(value)
        } else {
            Err(self.error("before here, an SVN in its shortest form"))
        }
    }
}
