//! Signatures and witnesses a forger would make: the algebra of docs/p256.md, without asking whether anybody signed.

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::elliptic_curve::PrimeField;
use p256::elliptic_curve::ops::{Invert, Reduce};
use p256::elliptic_curve::sec1::{FromEncodedPoint, ToEncodedPoint};
use p256::{AffinePoint, EncodedPoint, FieldElement, ProjectivePoint, Scalar, U256};
use sha2::{Digest, Sha256};

/// p and n of P-256, big-endian.
pub(crate) const P: &str = "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff";
pub(crate) const N: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

/// What the contract is asked about, as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) digest: [u8; 32],
    pub(crate) r: [u8; 32],
    pub(crate) s: [u8; 32],
    pub(crate) x: [u8; 32],
    pub(crate) y: [u8; 32],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Witness {
    pub(crate) shift: [u8; 65],
    pub(crate) slope: [u8; 32],
}

impl From<prover::p256::Witness> for Witness {
    fn from(witness: prover::p256::Witness) -> Self {
        Self { shift: witness.shift, slope: witness.slope }
    }
}

impl Witness {
    /// T, k and the slope of the line from (x, y), or of any line where T is above or below it.
    pub(crate) fn new(x: &[u8; 32], y: &[u8; 32], shift: &ProjectivePoint, k: Scalar) -> Option<Self> {
        if *shift == ProjectivePoint::IDENTITY {
            return None;
        }
        let (x, y) = (element(x)?, element(y)?);
        let [shift_x, shift_y] = coordinates(shift);
        let (run, rise) = (element(&shift_x)? - x, element(&shift_y)? - y);
        let run: Option<FieldElement> = Option::from(run.invert());
        let slope = run.map_or(FieldElement::ONE, |run| rise * run);
        Some(Self { shift: encode_shift(shift, k), slope: slope.to_bytes().into() })
    }

    pub(crate) fn with_tag(mut self, tag: u8) -> Self {
        self.shift[0] = tag;
        self
    }

    pub(crate) fn with_k(mut self, k: &[u8; 32]) -> Self {
        self.shift[33..].copy_from_slice(k);
        self
    }

    pub(crate) fn with_shift_x(mut self, x: &[u8; 32]) -> Self {
        self.shift[1..33].copy_from_slice(x);
        self
    }

    pub(crate) fn k(&self) -> Scalar {
        let mut k = [0; 32];
        k.copy_from_slice(&self.shift[33..]);
        reduce(&k)
    }
}

impl Candidate {
    pub(crate) fn new(digest: Scalar, r: Scalar, s: Scalar, key: &ProjectivePoint) -> Self {
        let [x, y] = coordinates(key);
        Self { digest: bytes(digest), r: bytes(r), s: bytes(s), x, y }
    }

    /// Signs with a chosen nonce.
    pub(crate) fn signed(digest: Scalar, secret: Scalar, nonce: Scalar) -> Self {
        let r = x_mod_n(&(ProjectivePoint::GENERATOR * nonce));
        let s = (digest + r * secret) * inverse(nonce);
        Self::new(digest, r, s, &(ProjectivePoint::GENERATOR * secret))
    }

    /// A valid signature under a key whose secret nobody knows, of a digest nobody chose.
    pub(crate) fn of_unknown_secret(key: &ProjectivePoint, u: Scalar, v: Scalar) -> Self {
        let r = x_mod_n(&(ProjectivePoint::GENERATOR * u + *key * v));
        let s = r * inverse(v);
        Self::new(u * s, r, s, key)
    }

    pub(crate) fn with_key(self, key: &ProjectivePoint) -> Self {
        let [x, y] = coordinates(key);
        Self { x, y, ..self }
    }

    /// The key, if it is a point.
    pub(crate) fn key(&self) -> Option<ProjectivePoint> {
        let point = EncodedPoint::from_affine_coordinates(&self.x.into(), &self.y.into(), false);
        Option::<AffinePoint>::from(AffinePoint::from_encoded_point(&point)).map(ProjectivePoint::from)
    }

    /// FIPS 186-5, by another implementation.
    pub(crate) fn is_valid(&self) -> bool {
        let (Ok(signature), Some(key)) = (Signature::from_scalars(self.r, self.s), self.key()) else {
            return false;
        };
        let Ok(key) = VerifyingKey::from_affine(key.to_affine()) else {
            return false;
        };
        key.verify_prehash(&self.digest, &signature).is_ok()
    }

    /// (digest − e) / r
    pub(crate) fn k(&self) -> Option<Scalar> {
        Some((reduce(&self.digest) - e()) * checked_inverse(reduce(&self.r))?)
    }

    /// The witness that fits digest, r and key, if the method has one.
    pub(crate) fn witness(&self) -> Option<Witness> {
        let k = self.k()?;
        Witness::new(&self.x, &self.y, &(ProjectivePoint::GENERATOR * k), k)
    }

    /// What a forger would try.
    pub(crate) fn witnesses(&self) -> Vec<Witness> {
        let g = ProjectivePoint::GENERATOR;
        let k = self.k().unwrap_or(Scalar::ONE);
        let shift = g * k;
        let witness = |shift: &ProjectivePoint, k: Scalar| Witness::new(&self.x, &self.y, shift, k);
        let mut witnesses = vec![Witness { shift: [0; 65], slope: [0; 32] }];
        witnesses.push(Witness { shift: [0xff; 65], slope: [0xff; 32] });
        for k in [k, -k, k + Scalar::ONE, Scalar::ONE, e()] {
            witnesses.extend(witness(&(g * k), k));
            witnesses.extend(witness(&shift, k));
            witnesses.extend(witness(&-shift, k));
        }
        // The line through the key's mirror image.
        witnesses.extend(Witness::new(&self.x, &negative(&self.y), &shift, k));
        // The other solution of the first call, for the hash of the first.
        let mirrored = -(k + hash_of(&encode_shift(&shift, k)).double() * inverse(x_mod_n(&g)));
        witnesses.extend(witness(&(g * mirrored), k));
        // Keys under which the second call accepts: r, s are given, the nonce point is chosen.
        let nonce_points = lift(&self.r).map(|point| [point, -point]).unwrap_or_default();
        for nonce_point in nonce_points {
            let Some(r_inverse) = checked_inverse(reduce(&self.r)) else { continue };
            let wanted = (nonce_point * reduce(&self.s) - g * e()) * r_inverse;
            if [wanted, shift].contains(&ProjectivePoint::IDENTITY) {
                continue;
            }
            // The true difference, of which nobody knows the logarithm.
            if let Some(key) = self.key() {
                witnesses.extend(witness(&(wanted - key), k));
            }
            // A line that leads to it from a point which is not on the curve.
            for slope in slopes_to(&self.x, &shift, &wanted) {
                witnesses.extend(
                    [2, 3].map(|tag| Witness { shift: encode_shift(&shift, k), slope }.with_tag(tag)),
                );
            }
        }
        let Some(fitting) = self.witness() else { return witnesses };
        witnesses.extend((0..8).chain([0x82, 0xff]).map(|tag| fitting.with_tag(tag)));
        witnesses.push(fitting.with_shift_x(&self.x));
        witnesses.push(fitting.with_k(&[0; 32]));
        witnesses.push(Witness { slope: [0; 32], ..fitting });
        witnesses.push(Witness { slope: negative(&fitting.slope), ..fitting });
        witnesses
    }
}

/// The slopes λ with λ² = from.x + shift.x + to.x.
fn slopes_to(from: &[u8; 32], shift: &ProjectivePoint, to: &ProjectivePoint) -> Vec<[u8; 32]> {
    let x = |point: &ProjectivePoint| element(&coordinates(point)[0]);
    let square = (|| Some(element(from)? + x(shift)? + x(to)?))();
    let root: Option<FieldElement> = square.and_then(|square| Option::from(square.sqrt()));
    root.map(|root| vec![root.to_bytes().into(), (-root).to_bytes().into()]).unwrap_or_default()
}

/// T ‖ k.
pub(crate) fn encode_shift(shift: &ProjectivePoint, k: Scalar) -> [u8; 65] {
    let mut encoded = [0; 65];
    // The identity has one byte.
    let point = shift.to_affine().to_encoded_point(true);
    encoded[..point.len()].copy_from_slice(point.as_bytes());
    encoded[33..].copy_from_slice(&k.to_repr());
    encoded
}

/// The digest the first call takes.
pub(crate) fn hash_of(shift: &[u8; 65]) -> Scalar {
    reduce(&Sha256::digest(shift).into())
}

/// The digest of the fixed message.
pub(crate) fn e() -> Scalar {
    reduce(&prover::p256::ZERO_MESSAGE_DIGEST)
}

/// A point with this x-coordinate.
pub(crate) fn lift(x: &[u8; 32]) -> Option<ProjectivePoint> {
    let mut compressed = [2; 33];
    compressed[1..].copy_from_slice(x);
    let encoded = EncodedPoint::from_bytes(compressed).ok()?;
    Option::<AffinePoint>::from(AffinePoint::from_encoded_point(&encoded)).map(ProjectivePoint::from)
}

/// The first point at or above this x-coordinate.
pub(crate) fn point_from(x: &[u8; 32]) -> ProjectivePoint {
    (0..200).find_map(|step| lift(&plus(x, step))).unwrap()
}

/// x and y of a point that is not the identity.
pub(crate) fn coordinates(point: &ProjectivePoint) -> [[u8; 32]; 2] {
    let encoded = point.to_affine().to_encoded_point(false);
    [(*encoded.x().unwrap()).into(), (*encoded.y().unwrap()).into()]
}

pub(crate) fn x_mod_n(point: &ProjectivePoint) -> Scalar {
    reduce(&coordinates(point)[0])
}

pub(crate) fn reduce(value: &[u8; 32]) -> Scalar {
    <Scalar as Reduce<U256>>::reduce_bytes(&(*value).into())
}

pub(crate) fn bytes(scalar: Scalar) -> [u8; 32] {
    scalar.to_repr().into()
}

pub(crate) fn inverse(scalar: Scalar) -> Scalar {
    checked_inverse(scalar).unwrap()
}

fn checked_inverse(scalar: Scalar) -> Option<Scalar> {
    Option::from(Invert::invert(&scalar))
}

fn element(value: &[u8; 32]) -> Option<FieldElement> {
    Option::from(FieldElement::from_bytes(&(*value).into()))
}

/// p − value, where value is an element of the field.
pub(crate) fn negative(value: &[u8; 32]) -> [u8; 32] {
    element(value).map_or(*value, |element| (-element).to_bytes().into())
}

pub(crate) fn number(hex_digits: &str) -> [u8; 32] {
    hex::decode(hex_digits).unwrap().try_into().unwrap()
}

/// a + b, which must fit.
pub(crate) fn plus(a: &[u8; 32], b: u128) -> [u8; 32] {
    let mut addend = [0; 32];
    addend[16..].copy_from_slice(&b.to_be_bytes());
    sum(a, &addend).unwrap()
}

/// a + b, if it fits 256 bits.
pub(crate) fn sum(a: &[u8; 32], b: &[u8; 32]) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    let mut carry = 0;
    for i in (0..32).rev() {
        let digit = u16::from(a[i]) + u16::from(b[i]) + carry;
        out[i] = digit as u8;
        carry = digit >> 8;
    }
    (carry == 0).then_some(out)
}

/// A scalar from a few words, for tests that need one and do not care which.
pub(crate) fn scalar(seed: u64) -> Scalar {
    reduce(&Sha256::digest(seed.to_be_bytes()).into())
}
