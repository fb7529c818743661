//! The witness with which `contracts/p256.tolk` checks an ECDSA P-256 signature over a digest. The method and its proof
//! are in `docs/p256.md`.

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::elliptic_curve::group::GroupEncoding;
use p256::elliptic_curve::ops::{Invert, Reduce};
use p256::elliptic_curve::sec1::FromEncodedPoint;
use p256::elliptic_curve::{Field, PrimeField};
use p256::{AffinePoint, EncodedPoint, FieldBytes, ProjectivePoint, Scalar, U256};
use tycho_types::cell::{CellBuilder, CellContext, Store};
use tycho_types::error::Error as CellError;

/// SHA-256 of 32 zero bytes, the message the contract's opcode is asked about.
pub const ZERO_MESSAGE_DIGEST: [u8; 32] = [
    0x66, 0x68, 0x7a, 0xad, 0xf8, 0x62, 0xbd, 0x77, 0x6c, 0x8f, 0xc1, 0x8b, 0x8e, 0x9f, 0x8e, 0x20, 0x08,
    0x97, 0x14, 0x85, 0x6e, 0xe2, 0x33, 0xb3, 0x90, 0x2a, 0x59, 0x1d, 0x0d, 0x5f, 0x29, 0x25,
];

/// `P256Witness` of `contracts/p256.tolk`. Stored as 264 + 256 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    /// Q′ = a·Q − (e / Q.x)·G, compressed (SEC 1 §2.3.3).
    pub blinded_key: [u8; 33],
    /// a = e·(Q.x − r) / (Q.x·digest) mod n, big-endian.
    pub scale: [u8; 32],
}

impl Store for Witness {
    fn store_into(&self, builder: &mut CellBuilder, _: &dyn CellContext) -> Result<(), CellError> {
        builder.store_raw(&self.blinded_key, 264)?;
        builder.store_raw(&self.scale, 256)
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
        "the contract cannot check this valid signature (a chance of 2^-128); ask its signer for another"
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

/// The one (a, Q′) that the contract can accept for a digest, r and point, whether or not anybody signed.
fn solve(digest: &[u8; 32], r: &FieldBytes, public_key: &[u8; 64]) -> Option<Witness> {
    let (x_bytes, _) = public_key.split_first_chunk::<32>()?;
    // The contract wants 2^127 <= Q.x < n.
    if x_bytes[..16] == [0; 16] && x_bytes[16] < 0x80 {
        return None;
    }
    let x: Scalar = Option::from(Scalar::from_repr((*x_bytes).into()))?;
    let r: Scalar = Option::from(Scalar::from_repr(*r))?;
    let z = <Scalar as Reduce<U256>>::reduce_bytes(&(*digest).into());
    let e = <Scalar as Reduce<U256>>::reduce_bytes(&ZERO_MESSAGE_DIGEST.into());
    let encoded = EncodedPoint::from_untagged_bytes(public_key.into());
    let q: AffinePoint = Option::from(AffinePoint::from_encoded_point(&encoded))?;

    let x_inverse: Scalar = Option::from(Invert::invert(&x))?;
    let z_inverse: Scalar = Option::from(Invert::invert(&z))?;
    let scale = e * (x - r) * x_inverse * z_inverse;
    if bool::from(scale.is_zero()) {
        return None;
    }
    let blinded = ProjectivePoint::from(q) * scale - ProjectivePoint::GENERATOR * (e * x_inverse);
    if blinded == ProjectivePoint::IDENTITY {
        return None;
    }
    Some(Witness { blinded_key: blinded.to_affine().to_bytes().into(), scale: scale.to_repr().into() })
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
    fn the_blinded_key_signs_the_zero_message_twice() {
        let digest = [0x5a; 32];
        let (signature, key) = signed(digest);
        let witness = witness(&digest, &signature, &key).unwrap();
        let blinded = VerifyingKey::from_sec1_bytes(&witness.blinded_key).unwrap();
        let scale = Scalar::from_repr(witness.scale.into()).unwrap();
        let signature = Signature::from_slice(&signature).unwrap();
        let (r, s) = signature.split_scalars();
        let x = Scalar::from_repr(FieldBytes::clone_from_slice(&key[..32])).unwrap();
        for (first, second) in [(x, scale * x), (*r, scale * *s)] {
            let signature = Signature::from_scalars(first.to_repr(), second.to_repr()).unwrap();
            blinded.verify_prehash(&ZERO_MESSAGE_DIGEST, &signature).unwrap();
        }
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
    fn cannot_prove_a_zero_digest() {
        let (signature, key) = signed([0; 32]);
        assert_eq!(witness(&[0; 32], &signature, &key), Err(WitnessError::Unprovable));
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
    fn is_stored_in_520_bits() {
        let (signature, key) = signed([9; 32]);
        let witness = witness(&[9; 32], &signature, &key).unwrap();
        let cell = CellBuilder::build_from(witness).unwrap();
        assert_eq!((cell.bit_len(), cell.reference_count()), (520, 0));
    }
}
