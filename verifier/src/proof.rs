//! From the proof that an Attestor was sent back to the raw quote it was made of, so that another verifier can judge it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contracts::attestor::{P256Signature, QuoteProof};
use prover::certificate::Certificate;
use prover::pem::certificates;
use prover::statement::{pck_text, qe_text, td_text};

const QE_REPORT_CERTIFICATION_DATA: u16 = 6;
const PCK_CHAIN: u16 = 5;
/// AlgorithmIdentifier: ecdsa-with-SHA256 (RFC 5758 §3.2).
const ECDSA_WITH_SHA256: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// The proof is no proof of a quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Without it the certificate cannot be put together.
    #[error("the issuer's chain does not begin with a certificate; whoever supplied it is at fault")]
    NoIssuer,
    /// Longer than any quote.
    #[error("its parts are longer than those of any quote; whoever sent it is at fault")]
    TooLong,
}

/// The raw quote (Intel, *TDX DCAP Quoting Library API*, appendix A.3) whose parts `proof` has, with the certificate of
/// its platform and, behind it, `issuer_chain`: PEM, from the platform's issuer to the root.
///
/// # Errors
/// [`ProofError`].
pub fn raw_quote(proof: &QuoteProof, issuer_chain: &str) -> Result<Vec<u8>, ProofError> {
    let chain = certificates(issuer_chain).map_err(|_| ProofError::NoIssuer)?;
    let issuer = chain.first().and_then(|der| Certificate::from_der(der).ok()).ok_or(ProofError::NoIssuer)?;
    let certificate = certificate(&pck_text(&proof.pck, &issuer), &proof.pck.signature)?;
    let chain = format!("{}{}", pem(&certificate), issuer_chain.trim_start());

    let mut certification = qe_text(proof);
    certification.extend(raw_signature(&proof.qe.signature));
    certification.extend(32_u16.to_le_bytes());
    certification.extend(proof.authentication_data.0);
    certification.extend(PCK_CHAIN.to_le_bytes());
    certification.extend(length(chain.len())?);
    certification.extend(chain.into_bytes());

    let mut data = raw_signature(&proof.td.signature).to_vec();
    data.extend(proof.key_x.0);
    data.extend(proof.key_y.0);
    data.extend(QE_REPORT_CERTIFICATION_DATA.to_le_bytes());
    data.extend(length(certification.len())?);
    data.extend(certification);

    let mut quote = td_text(&proof.td);
    quote.extend(length(data.len())?);
    quote.extend(data);
    Ok(quote)
}

fn raw_signature(signature: &P256Signature) -> [u8; 64] {
    let mut raw = [0; 64];
    let (r, s) = raw.split_at_mut(32);
    r.copy_from_slice(&signature.r.0);
    s.copy_from_slice(&signature.s.0);
    raw
}

fn length(bytes: usize) -> Result<[u8; 4], ProofError> {
    u32::try_from(bytes).map(u32::to_le_bytes).map_err(|_| ProofError::TooLong)
}

/// The certificate in DER, from what was signed and the signature (RFC 5280 §4.1).
fn certificate(signed: &[u8], signature: &P256Signature) -> Result<Vec<u8>, ProofError> {
    let numbers = [integer(&signature.r.0)?, integer(&signature.s.0)?].concat();
    // A BIT STRING begins with the count of bits that its last byte does not use.
    let bits = [&[0], element(0x30, &numbers)?.as_slice()].concat();
    let content = [signed, &ECDSA_WITH_SHA256, &element(0x03, &bits)?].concat();
    element(0x30, &content)
}

fn integer(number: &[u8; 32]) -> Result<Vec<u8>, ProofError> {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(31);
    let digits = &number[start..];
    let sign: &[u8] = if digits[0] & 0x80 == 0 { &[] } else { &[0] };
    element(0x02, &[sign, digits].concat())
}

fn element(tag: u8, content: &[u8]) -> Result<Vec<u8>, ProofError> {
    let length = u16::try_from(content.len()).map_err(|_| ProofError::TooLong)?;
    let mut element = vec![tag];
    match length {
        0..=0x7f => element.push(length as u8),
        0x80..=0xff => element.extend([0x81, length as u8]),
        _ => {
            element.push(0x82);
            element.extend(length.to_be_bytes());
        }
    }
    element.extend(content);
    Ok(element)
}

fn pem(der: &[u8]) -> String {
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in STANDARD.encode(der).as_bytes().chunks(64) {
        pem.extend(line.iter().map(|&byte| char::from(byte)));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tdx_simulator::{SimulatedPlatform, TdIdentity};

    use super::*;

    #[test]
    fn the_raw_quote_comes_back_to_the_byte() {
        for seed in 0..8 {
            let platform = SimulatedPlatform::new(&[seed; 32], 1_800_000_000).unwrap();
            let raw = platform.quote(&[7; 64], &TdIdentity::of_image("worker"));
            let proof = prover::quote::prove(&raw, None).unwrap();
            let again = raw_quote(&proof, &platform.collateral().pck_crl_issuer_chain).unwrap();
            let (expected, found) = (prover::quote::Quote::parse(&raw), prover::quote::Quote::parse(&again));
            let (mut expected, mut found) = (expected.unwrap(), found.unwrap());
            let chains = [expected.pck_chain.take().unwrap(), found.pck_chain.take().unwrap()];
            assert_eq!(expected, found);
            let [expected, found] = chains.map(|chain| prover::pem::certificates(&chain).unwrap());
            assert_eq!(expected, found);
        }
    }
}
