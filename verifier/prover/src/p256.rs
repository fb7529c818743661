//! The witness with which `contracts/p256.tolk` checks an ECDSA P-256 signature over a digest. The method and its proof
//! are in `docs/p256.md`.

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::elliptic_curve::ops::{Invert, Reduce};
use p256::elliptic_curve::sec1::{FromEncodedPoint, ToEncodedPoint};
use p256::elliptic_curve::{Field, PrimeField};
use p256::{AffinePoint, EncodedPoint, FieldBytes, FieldElement, ProjectivePoint, Scalar, U256};
use sha2::{Digest, Sha256};
use tycho_types::cell::{CellBuilder, CellContext, Store};
use tycho_types::error::Error as CellError;

/// SHA-256 of 32 zero bytes, the message the contract's opcode is asked about.
pub const ZERO_MESSAGE_DIGEST: [u8; 32] = [
    0x66, 0x68, 0x7a, 0xad, 0xf8, 0x62, 0xbd, 0x77, 0x6c, 0x8f, 0xc1, 0x8b, 0x8e, 0x9f, 0x8e, 0x20, 0x08,
    0x97, 0x14, 0x85, 0x6e, 0xe2, 0x33, 0xb3, 0x90, 0x2a, 0x59, 0x1d, 0x0d, 0x5f, 0x29, 0x25,
];

/// `P256Witness` of `contracts/p256.tolk`. Stored as 520 + 256 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    /// T = k·G compressed (SEC 1 §2.3.3), then k = (digest − e) / r mod n, big-endian.
    pub shift: [u8; 65],
    /// Slope of the line through the public key and T, modulo p, big-endian.
    pub slope: [u8; 32],
}

impl Store for Witness {
    fn store_into(&self, builder: &mut CellBuilder, _: &dyn CellContext) -> Result<(), CellError> {
        builder.store_raw(&self.shift, 520)?;
        builder.store_raw(&self.slope, 256)
    }
}

/// Why there is no witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// Not x ‖ y of a point of the curve.
    #[error("the public key is no point of P-256; whoever issued it must be asked for another document")]
    NotAPoint,
    /// r or s is zero or not below the group order, or the DER is not that of a signature.
    #[error("the signature is malformed; its signer must be asked for another document")]
    MalformedSignature,
    /// The signature is not one of this digest under this key.
    #[error("the signature does not verify; the document was altered or is another signer's")]
    NotSigned,
    /// One of the cases of negligible probability in `docs/p256.md`.
    #[error(
        "the contract cannot check this valid signature (a chance of 2^-254); ask its signer for another"
    )]
    Unprovable,
}

/// The witness for a valid signature.
///
/// * `digest`: SHA-256 of the signed message.
/// * `signature`: r ‖ s, big-endian. s may be high or low.
/// * `public_key`: x ‖ y, big-endian, as quotes carry it.
///
/// # Errors
/// [`WitnessError`]; [`WitnessError::Unprovable`] has never been seen.
pub fn witness(
    digest: &[u8; 32],
    signature: &[u8; 64],
    public_key: &[u8; 64],
) -> Result<Witness, WitnessError> {
    let signature = Signature::from_slice(signature).map_err(|_| WitnessError::MalformedSignature)?;
    let encoded = EncodedPoint::from_untagged_bytes(public_key.into());
    let key = VerifyingKey::from_encoded_point(&encoded).map_err(|_| WitnessError::NotAPoint)?;
    key.verify_prehash(digest, &signature).map_err(|_| WitnessError::NotSigned)?;
    solve(digest, &signature.split_bytes().0, public_key).ok_or(WitnessError::Unprovable)
}

/// r ‖ s of a DER signature, as certificates and CRLs carry it.
///
/// # Errors
/// [`WitnessError::MalformedSignature`]
pub fn signature_from_der(der: &[u8]) -> Result<[u8; 64], WitnessError> {
    let signature = Signature::from_der(der).map_err(|_| WitnessError::MalformedSignature)?;
    Ok(signature.to_bytes().into())
}

/// The one witness that the contract can accept for a digest, r and key, whether or not anybody signed.
fn solve(digest: &[u8; 32], r: &FieldBytes, public_key: &[u8; 64]) -> Option<Witness> {
    let r: Scalar = Option::from(Scalar::from_repr(*r))?;
    let z = <Scalar as Reduce<U256>>::reduce_bytes(&(*digest).into());
    let e = <Scalar as Reduce<U256>>::reduce_bytes(&ZERO_MESSAGE_DIGEST.into());
    let r_inverse: Scalar = Option::from(Invert::invert(&r))?;
    let k = (z - e) * r_inverse;
    if bool::from(k.is_zero()) {
        return None;
    }
    let encoded = EncodedPoint::from_untagged_bytes(public_key.into());
    let key: AffinePoint = Option::from(AffinePoint::from_encoded_point(&encoded))?;
    let shift_point = (ProjectivePoint::GENERATOR * k).to_affine();
    let (key_x, key_y) = coordinates(&key)?;
    let (shift_x, shift_y) = coordinates(&shift_point)?;
    let run: FieldElement = Option::from((shift_x - key_x).invert())?;
    let slope = (shift_y - key_y) * run;

    let mut shift = [0; 65];
    shift[..33].copy_from_slice(shift_point.to_encoded_point(true).as_bytes());
    shift[33..].copy_from_slice(&k.to_repr());
    let (generator_x, _) = coordinates(&AffinePoint::GENERATOR)?;
    let generator_x = <Scalar as Reduce<U256>>::reduce_bytes(&generator_x.to_bytes());
    let hash = <Scalar as Reduce<U256>>::reduce_bytes(&Sha256::digest(shift));
    if bool::from((hash + k * generator_x).is_zero()) {
        return None;
    }
    Some(Witness { shift, slope: slope.to_bytes().into() })
}

fn coordinates(point: &AffinePoint) -> Option<(FieldElement, FieldElement)> {
    let encoded = point.to_encoded_point(false);
    let x = Option::from(FieldElement::from_bytes(encoded.x()?))?;
    let y = Option::from(FieldElement::from_bytes(encoded.y()?))?;
    Some((x, y))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use p256::ecdsa::SigningKey;
    use p256::ecdsa::signature::hazmat::PrehashSigner;

    fn signed(digest: [u8; 32]) -> ([u8; 64], [u8; 64]) {
        let signer = SigningKey::from_slice(&[7; 32]).unwrap();
        let signature: Signature = signer.sign_prehash(&digest).unwrap();
        let point = signer.verifying_key().to_encoded_point(false);
        (signature.to_bytes().into(), point.as_bytes()[1..].try_into().unwrap())
    }

    #[test]
    fn the_sum_of_key_and_shift_signed_the_zero_message() {
        let digest = [0x5a; 32];
        let (signature, key) = signed(digest);
        let witness = witness(&digest, &signature, &key).unwrap();
        let shift = VerifyingKey::from_sec1_bytes(&witness.shift[..33]).unwrap();
        let k = Scalar::from_repr(FieldBytes::clone_from_slice(&witness.shift[33..])).unwrap();
        let shift = ProjectivePoint::from(*shift.as_affine());
        assert_eq!(shift, ProjectivePoint::GENERATOR * k);
        let encoded = EncodedPoint::from_untagged_bytes(&key.into());
        let key = ProjectivePoint::from(AffinePoint::from_encoded_point(&encoded).unwrap());
        let sum = VerifyingKey::from_affine((key + shift).to_affine()).unwrap();
        let signature = Signature::from_slice(&signature).unwrap();
        sum.verify_prehash(&ZERO_MESSAGE_DIGEST, &signature).unwrap();
    }

    #[test]
    fn refuses_what_is_not_signed() {
        let digest = [0x5a; 32];
        let (signature, key) = signed(digest);
        assert_eq!(witness(&[0x5b; 32], &signature, &key), Err(WitnessError::NotSigned));
        assert_eq!(witness(&digest, &[0; 64], &key), Err(WitnessError::MalformedSignature));
        assert_eq!(witness(&digest, &[0xff; 64], &key), Err(WitnessError::MalformedSignature));
        assert_eq!(witness(&digest, &signature, &[0; 64]), Err(WitnessError::NotAPoint));
        assert_eq!(witness(&digest, &signature, &[0xff; 64]), Err(WitnessError::NotAPoint));
    }

    #[test]
    fn cannot_prove_the_zero_message_itself() {
        let (signature, key) = signed(ZERO_MESSAGE_DIGEST);
        assert_eq!(witness(&ZERO_MESSAGE_DIGEST, &signature, &key), Err(WitnessError::Unprovable));
    }

    #[test]
    fn reads_der() {
        let (signature, _) = signed([1; 32]);
        let der = Signature::from_slice(&signature).unwrap().to_der();
        assert_eq!(signature_from_der(der.as_bytes()).unwrap(), signature);
        assert_eq!(signature_from_der(&[0x30, 0]), Err(WitnessError::MalformedSignature));
        assert_eq!(signature_from_der(&[]), Err(WitnessError::MalformedSignature));
    }

    #[test]
    fn is_stored_in_776_bits() {
        let (signature, key) = signed([9; 32]);
        let witness = witness(&[9; 32], &signature, &key).unwrap();
        let cell = CellBuilder::build_from(witness).unwrap();
        assert_eq!((cell.bit_len(), cell.reference_count()), (776, 0));
    }
}
