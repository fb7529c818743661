//! DER (ITU-T X.690) as X.509 uses it, in the layout of Intel's SGX certificates and revocation lists (Intel, *SGX PCK
//! Certificate and CRL Profile Specification*).

use p256::ecdsa::Signature;
use time::OffsetDateTime;

use crate::SimulatorError;

/// ecdsa-with-SHA256 as an AlgorithmIdentifier.
const ECDSA_WITH_SHA256: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// id-ecPublicKey, prime256v1, up to an uncompressed point.
const KEY_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// 1.2.840.113741.1.13.1, Intel's SGX extension.
const SGX: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];

/// A certificate or a revocation list: `signed` with its ECDSA signature (r ‖ s, big-endian) over SHA-256.
///
/// # Errors
/// [`SimulatorError::Signature`]: r or s is zero or not below the group order.
pub fn x509(signed: &[u8], signature: &[u8; 64]) -> Result<Vec<u8>, SimulatorError> {
    let signature = Signature::from_slice(signature).map_err(|_| SimulatorError::Signature)?.to_der();
    let bits = tlv(0x03, &[&[0], signature.as_bytes()].concat());
    Ok(tlv(0x30, &[signed, &ECDSA_WITH_SHA256, &bits].concat()))
}

/// Who a certificate makes whom, and until when.
pub(crate) struct Certificate<'a> {
    pub(crate) serial: [u8; 20],
    pub(crate) issuer: &'a [u8],
    pub(crate) subject: &'a [u8],
    pub(crate) from: OffsetDateTime,
    pub(crate) until: OffsetDateTime,
    /// x ‖ y.
    pub(crate) key: [u8; 64],
    /// x ‖ y.
    pub(crate) issuer_key: [u8; 64],
    pub(crate) list_url: &'a str,
    pub(crate) kind: Kind<'a>,
}

pub(crate) enum Kind<'a> {
    Authority { path_length: u8 },
    Signer,
    Pck(&'a SgxExtension),
}

impl Certificate<'_> {
    /// The part that is signed (RFC 5280, 4.1).
    pub(crate) fn signed_part(&self) -> Result<Vec<u8>, SimulatorError> {
        let validity = [utc_time(self.from)?, utc_time(self.until)?].concat();
        let extensions = tlv(0x30, &self.extensions());
        let content = [
            &[0xa0, 0x03, 0x02, 0x01, 0x02],
            &integer(&self.serial)[..],
            &ECDSA_WITH_SHA256,
            self.issuer,
            &tlv(0x30, &validity),
            self.subject,
            &KEY_PREFIX,
            &self.key,
            &tlv(0xa3, &extensions),
        ]
        .concat();
        Ok(tlv(0x30, &content))
    }

    fn extensions(&self) -> Vec<u8> {
        let url = tlv(0xa0, &tlv(0xa0, &tlv(0x86, self.list_url.as_bytes())));
        let points = tlv(0x30, &tlv(0x30, &url));
        let subject_key = tlv(0x04, &key_id(&self.key));
        let (usage, constraints): (&[u8], Vec<u8>) = match &self.kind {
            Kind::Authority { path_length } => {
                (&[0x03, 0x02, 0x01, 0x06], vec![0x01, 0x01, 0xff, 0x02, 0x01, *path_length])
            }
            Kind::Signer | Kind::Pck(_) => (&[0x03, 0x02, 0x06, 0xc0], Vec::new()),
        };
        let mut extensions = [
            authority_key_id(&self.issuer_key),
            extension(0x1f, false, &points),
            extension(0x0e, false, &subject_key),
            extension(0x0f, true, usage),
            extension(0x13, true, &tlv(0x30, &constraints)),
        ]
        .concat();
        if let Kind::Pck(platform) = self.kind {
            extensions.extend(tlv(0x30, &[tlv(0x06, &SGX), tlv(0x04, &platform.encode())].concat()));
        }
        extensions
    }
}

/// A revocation list.
pub(crate) struct RevocationList<'a> {
    pub(crate) issuer: &'a [u8],
    /// x ‖ y.
    pub(crate) issuer_key: [u8; 64],
    pub(crate) this_update: OffsetDateTime,
    pub(crate) next_update: OffsetDateTime,
    /// Below 128.
    pub(crate) number: u8,
    pub(crate) revoked: &'a [[u8; 20]],
}

impl RevocationList<'_> {
    /// The part that is signed (RFC 5280, 5.1).
    pub(crate) fn signed_part(&self) -> Result<Vec<u8>, SimulatorError> {
        let (this_update, next_update) = (utc_time(self.this_update)?, utc_time(self.next_update)?);
        let reason = tlv(0x30, &extension(0x15, false, &[0x0a, 0x01, 0x01]));
        let entries: Vec<Vec<u8>> = self
            .revoked
            .iter()
            .map(|serial| tlv(0x30, &[integer(serial), this_update.clone(), reason.clone()].concat()))
            .collect();
        let entries = if entries.is_empty() { Vec::new() } else { tlv(0x30, &entries.concat()) };
        let number = extension(0x14, false, &tlv(0x02, &[self.number]));
        let extensions = tlv(0x30, &[number, authority_key_id(&self.issuer_key)].concat());
        let content = [
            &[0x02, 0x01, 0x01],
            &ECDSA_WITH_SHA256[..],
            self.issuer,
            &this_update,
            &next_update,
            &entries,
            &tlv(0xa0, &extensions),
        ]
        .concat();
        Ok(tlv(0x30, &content))
    }
}

/// What a PCK certificate says of its platform.
pub(crate) struct SgxExtension {
    pub(crate) ppid: [u8; 16],
    pub(crate) component_svns: [u8; 16],
    pub(crate) pce_svn: u16,
    pub(crate) pce_id: [u8; 2],
    pub(crate) fmspc: [u8; 6],
    /// The platform CA states an instance and its configuration, the processor CA does not.
    pub(crate) has_instance: bool,
}

impl SgxExtension {
    fn encode(&self) -> Vec<u8> {
        let mut tcb = Vec::new();
        for (svn, component) in self.component_svns.iter().zip(1..) {
            tcb.extend(item(&[2, component], &integer(&[*svn])));
        }
        tcb.extend(item(&[2, 17], &integer(&self.pce_svn.to_be_bytes())));
        tcb.extend(item(&[2, 18], &tlv(0x04, &self.component_svns)));
        let mut items = [
            item(&[1], &tlv(0x04, &self.ppid)),
            item(&[2], &tlv(0x30, &tcb)),
            item(&[3], &tlv(0x04, &self.pce_id)),
            item(&[4], &tlv(0x04, &self.fmspc)),
            item(&[5], &tlv(0x0a, &[1])),
        ]
        .concat();
        if self.has_instance {
            let yes = tlv(0x01, &[0xff]);
            let configuration = [item(&[7, 1], &yes), item(&[7, 2], &yes), item(&[7, 3], &yes)].concat();
            items.extend(item(&[6], &tlv(0x04, &self.ppid)));
            items.extend(item(&[7], &tlv(0x30, &configuration)));
        }
        tlv(0x30, &items)
    }
}

/// DER Name of common name, organisation, locality, state and country, as Intel orders them.
pub(crate) fn name(values: [&str; 5]) -> Vec<u8> {
    const ATTRIBUTES: [(u8, u8); 5] = [(3, 0x0c), (10, 0x0c), (7, 0x0c), (8, 0x0c), (6, 0x13)];
    let relative = values.into_iter().zip(ATTRIBUTES).map(|(value, (attribute, string))| {
        let pair = [tlv(0x06, &[0x55, 0x04, attribute]), tlv(string, value.as_bytes())].concat();
        tlv(0x31, &tlv(0x30, &pair))
    });
    tlv(0x30, &relative.collect::<Vec<_>>().concat())
}

fn authority_key_id(issuer_key: &[u8; 64]) -> Vec<u8> {
    extension(0x23, false, &tlv(0x30, &tlv(0x80, &key_id(issuer_key))))
}

fn key_id(key: &[u8; 64]) -> Vec<u8> {
    crate::digest(&[key])[..20].to_vec()
}

/// An extension of id-ce (2.5.29).
fn extension(id: u8, is_critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if is_critical { &[0x01, 0x01, 0xff] } else { &[] };
    tlv(0x30, &[&[0x06, 0x03, 0x55, 0x1d, id], critical, &tlv(0x04, value)].concat())
}

/// An item of the SGX extension.
fn item(path: &[u8], value: &[u8]) -> Vec<u8> {
    tlv(0x30, &[&tlv(0x06, &[&SGX[..], path].concat()), value].concat())
}

/// A non-negative INTEGER in its shortest form.
fn integer(value: &[u8]) -> Vec<u8> {
    let zeros = value.iter().take_while(|byte| **byte == 0).count();
    let significant = value.get(zeros..).unwrap_or_default();
    let sign: &[u8] = if significant.first().is_none_or(|byte| *byte >= 0x80) { &[0] } else { &[] };
    tlv(0x02, &[sign, significant].concat())
}

/// UTCTime, 2000 to 2049.
fn utc_time(time: OffsetDateTime) -> Result<Vec<u8>, SimulatorError> {
    if !(2000..2050).contains(&time.year()) {
        return Err(SimulatorError::Time(time.unix_timestamp().unsigned_abs()));
    }
    let (year, month) = (time.year() - 2000, u8::from(time.month()));
    let (day, hour, minute, second) = (time.day(), time.hour(), time.minute(), time.second());
    Ok(tlv(0x17, format!("{year:02}{month:02}{day:02}{hour:02}{minute:02}{second:02}Z").as_bytes()))
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length {
        0..=127 => out.push(length as u8),
        128..=255 => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend_from_slice(content);
    out
}
