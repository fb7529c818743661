//! The few DER forms (ITU-T X.690) that Intel's SGX extension is made of.

/// Intel's SGX extension: 1.2.840.113741.1.13.1.
pub(crate) const SGX_EXTENSION: &[u64] = &[1, 2, 840, 113_741, 1, 13, 1];
const SGX_EXTENSION_DER: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];

/// What a PCK certificate says of its platform.
pub(crate) struct SgxExtension {
    pub(crate) ppid: [u8; 16],
    pub(crate) component_svn: u8,
    pub(crate) pce_svn: u8,
    pub(crate) pce_id: [u8; 2],
    pub(crate) fmspc: [u8; 6],
}

impl SgxExtension {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut tcb = Vec::new();
        for component in 1..=16 {
            tcb.extend(entry(&[2, component], &tlv(0x02, &[self.component_svn])));
        }
        tcb.extend(entry(&[2, 17], &tlv(0x02, &[self.pce_svn])));
        tcb.extend(entry(&[2, 18], &tlv(0x04, &[self.component_svn; 16])));
        let yes = tlv(0x01, &[0xff]);
        let configuration = [entry(&[7, 1], &yes), entry(&[7, 2], &yes), entry(&[7, 3], &yes)].concat();
        let entries = [
            entry(&[1], &tlv(0x04, &self.ppid)),
            entry(&[2], &tlv(0x30, &tcb)),
            entry(&[3], &tlv(0x04, &self.pce_id)),
            entry(&[4], &tlv(0x04, &self.fmspc)),
            entry(&[5], &tlv(0x0a, &[1])),
            entry(&[6], &tlv(0x04, &self.ppid)),
            entry(&[7], &tlv(0x30, &configuration)),
        ];
        tlv(0x30, &entries.concat())
    }
}

fn entry(path: &[u8], value: &[u8]) -> Vec<u8> {
    let oid = tlv(0x06, &[&SGX_EXTENSION_DER[..], path].concat());
    tlv(0x30, &[oid, value.to_vec()].concat())
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
