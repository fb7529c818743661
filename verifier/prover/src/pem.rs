//! PEM certificates (RFC 7468), as quotes and Intel's service carry chains.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// Most certificates read from a chain.
const MAX_CERTIFICATES: usize = 8;
/// Most characters in a certificate.
const MAX_CHARACTERS: usize = 16 * 1024;

/// A chain is not PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    #[error("the chain has no PEM certificate, or one that is cut off; whoever supplied it is at fault")]
    Incomplete,
    #[error("a PEM certificate of the chain is not base64; whoever supplied it is at fault")]
    NotBase64,
    #[error(
        "the chain has more than {MAX_CERTIFICATES} certificates or one over {MAX_CHARACTERS} characters; whoever supplied it is at fault"
    )]
    TooLong,
}

/// The DER of each certificate, in order; at least one. Text around them is passed over.
///
/// # Errors
/// [`PemError`]
pub fn certificates(pem: &str) -> Result<Vec<Vec<u8>>, PemError> {
    let mut certificates = Vec::new();
    let mut rest = pem;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (body, after) = after.split_once(END).ok_or(PemError::Incomplete)?;
        if body.len() > MAX_CHARACTERS || certificates.len() == MAX_CERTIFICATES {
            return Err(PemError::TooLong);
        }
        let body: String = body.chars().filter(|character| !character.is_ascii_whitespace()).collect();
        certificates.push(STANDARD.decode(body).map_err(|_| PemError::NotBase64)?);
        rest = after;
    }
    if certificates.is_empty() { Err(PemError::Incomplete) } else { Ok(certificates) }
}
