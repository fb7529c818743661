//! P-256 in big integers, from FIPS 186-5 alone: no library for curves has a part in it. And the method as one reads it
//! in the source, with TVM's integers: 257 bits with a sign, remainders that floor.

use num_bigint::{BigInt, Sign};
use sha2::{Digest, Sha256};

pub(crate) fn int(bytes: &[u8]) -> BigInt {
    BigInt::from_bytes_be(Sign::Plus, bytes)
}

pub(crate) fn one() -> BigInt {
    BigInt::from(1)
}

pub(crate) fn two_to(exponent: u32) -> BigInt {
    one() << exponent
}

/// Remainder as TVM's `MOD` gives it for a positive modulus.
pub(crate) fn floored(x: BigInt, modulus: &BigInt) -> BigInt {
    let remainder = x % modulus;
    if remainder.sign() == Sign::Minus { remainder + modulus } else { remainder }
}

/// p = 2²⁵⁶ − 2²²⁴ + 2¹⁹² + 2⁹⁶ − 1.
pub(crate) fn field() -> BigInt {
    two_to(256) - two_to(224) + two_to(192) + two_to(96) - 1
}

/// What `contracts/p256.tolk` has between two texts.
pub(crate) fn constant(after: &str) -> BigInt {
    let source = include_str!("../../../contracts/p256.tolk");
    let (_, rest) = source.split_once(after).unwrap_or_else(|| panic!("{after} is not in the source"));
    let (_, digits) = rest.split_once("0x").unwrap();
    let end = digits.find(|digit: char| !digit.is_ascii_hexdigit()).unwrap();
    assert_eq!(end, 64, "{after}");
    BigInt::parse_bytes(&digits.as_bytes()[..end], 16).unwrap()
}

pub(crate) struct P256 {
    pub(crate) p: BigInt,
    pub(crate) n: BigInt,
    pub(crate) b: BigInt,
    pub(crate) generator: (BigInt, BigInt),
    /// Digest of the fixed message.
    pub(crate) e: BigInt,
}

/// Jacobian coordinates; z = 0 is the identity.
#[derive(Clone)]
struct Jacobian(BigInt, BigInt, BigInt);

impl P256 {
    /// With the contract's constants; its G has an even or an odd y, which for nothing here matters.
    pub(crate) fn of_the_source() -> Self {
        let mut curve = Self {
            p: constant("fun p256Field()"),
            n: constant("fun p256Order()"),
            b: constant("val b = "),
            generator: (constant("fun p256GX()"), BigInt::ZERO),
            e: constant("P256_ZERO_MESSAGE_DIGEST = "),
        };
        curve.generator = curve.lift(&curve.generator.0, 3).expect("G.x is of the curve");
        curve
    }

    fn right_side(&self, x: &BigInt) -> BigInt {
        floored(x * x * x - x * 3 + &self.b, &self.p)
    }

    pub(crate) fn contains(&self, (x, y): &(BigInt, BigInt)) -> bool {
        x < &self.p && y < &self.p && floored(y * y, &self.p) == self.right_side(x)
    }

    /// The point of this x whose y has the parity of the tag (SEC 1, 2.3.4); p ≡ 3 (mod 4).
    pub(crate) fn lift(&self, x: &BigInt, tag: u8) -> Option<(BigInt, BigInt)> {
        if !(2..=3).contains(&tag) || x >= &self.p {
            return None;
        }
        let y = self.right_side(x).modpow(&((&self.p + 1) / 4), &self.p);
        let is_odd = y.bit(0);
        let y = if is_odd == (tag == 3) { y } else { &self.p - y };
        let point = (x.clone(), y);
        self.contains(&point).then_some(point)
    }

    /// a·P + b·Q.
    pub(crate) fn sum_of_multiples(
        &self,
        a: &BigInt,
        p: &(BigInt, BigInt),
        b: &BigInt,
        q: &(BigInt, BigInt),
    ) -> Option<(BigInt, BigInt)> {
        let jacobian = |point: &(BigInt, BigInt)| Jacobian(point.0.clone(), point.1.clone(), one());
        let (p, q) = (jacobian(p), jacobian(q));
        let mut sum = Jacobian(one(), one(), BigInt::ZERO);
        for bit in (0..257).rev() {
            sum = self.double(&sum);
            if a.bit(bit) {
                sum = self.add(&sum, &p);
            }
            if b.bit(bit) {
                sum = self.add(&sum, &q);
            }
        }
        self.affine(&sum)
    }

    pub(crate) fn multiple(&self, factor: &BigInt) -> Option<(BigInt, BigInt)> {
        self.sum_of_multiples(factor, &self.generator, &BigInt::ZERO, &self.generator)
    }

    fn affine(&self, Jacobian(x, y, z): &Jacobian) -> Option<(BigInt, BigInt)> {
        if z.sign() == Sign::NoSign {
            return None;
        }
        let inverse = z.modpow(&(&self.p - 2), &self.p);
        let square = floored(&inverse * &inverse, &self.p);
        Some((floored(x * &square, &self.p), floored(y * square * inverse, &self.p)))
    }

    fn double(&self, Jacobian(x, y, z): &Jacobian) -> Jacobian {
        let p = &self.p;
        let yy = floored(y * y, p);
        let s = floored(x * &yy * 4, p);
        let zz = floored(z * z, p);
        let m = floored((x - &zz) * (x + &zz) * 3, p);
        let new_x = floored(&m * &m - &s * 2, p);
        let new_y = floored(m * (s - &new_x) - &yy * &yy * 8, p);
        Jacobian(new_x, new_y, floored(y * z * 2, p))
    }

    fn add(&self, a: &Jacobian, b: &Jacobian) -> Jacobian {
        let p = &self.p;
        if a.2.sign() == Sign::NoSign {
            return b.clone();
        }
        if b.2.sign() == Sign::NoSign {
            return a.clone();
        }
        let (azz, bzz) = (floored(&a.2 * &a.2, p), floored(&b.2 * &b.2, p));
        let (u, v) = (floored(&a.0 * &bzz, p), floored(&b.0 * &azz, p));
        let (s, t) = (floored(&a.1 * bzz * &b.2, p), floored(&b.1 * azz * &a.2, p));
        let (h, r) = (floored(&v - &u, p), floored(t - &s, p));
        if h.sign() == Sign::NoSign {
            return match r.sign() {
                Sign::NoSign => self.double(a),
                _ => Jacobian(one(), one(), BigInt::ZERO),
            };
        }
        let hh = floored(&h * &h, p);
        let hhh = floored(&hh * &h, p);
        let uhh = floored(u * hh, p);
        let x = floored(&r * &r - &hhh - &uhh * 2, p);
        let y = floored(r * (uhh - &x) - s * hhh, p);
        Jacobian(x, y, floored(&a.2 * &b.2 * h, p))
    }

    pub(crate) fn inverse(&self, x: &BigInt) -> BigInt {
        floored(x.clone(), &self.n).modpow(&(&self.n - 2), &self.n)
    }

    /// FIPS 186-5, 6.4.2.
    pub(crate) fn ecdsa(&self, z: &BigInt, r: &BigInt, s: &BigInt, q: &(BigInt, BigInt)) -> bool {
        let in_range = |x: &BigInt| x.sign() == Sign::Plus && x < &self.n;
        if !in_range(r) || !in_range(s) {
            return false;
        }
        let w = self.inverse(s);
        let (u, v) = (floored(z * &w, &self.n), floored(r * w, &self.n));
        let sum = self.sum_of_multiples(&u, &self.generator, &v, q);
        sum.is_some_and(|(x, _)| floored(x, &self.n) == *r)
    }

    fn opcode(&self, digest: &BigInt, r: &BigInt, s: &BigInt, tag: u8, x: &BigInt) -> bool {
        self.lift(x, tag).is_some_and(|key| self.ecdsa(digest, r, s, &key))
    }

    /// `verifyP256Digest`, line by line. Panics where TVM would throw.
    pub(crate) fn contract_accepts(&self, question: &Question) -> bool {
        let Question { digest, r, s, x: q_x, y: q_y, shift, slope } = question;
        let (p, n) = (&self.p, &self.n);
        let (tag, t_x, k) = (shift[0], int(&shift[1..33]), int(&shift[33..]));
        let is_root = |x: &BigInt, y: &BigInt| {
            let inner = fits(self.mul_mod(x, x, p) - 3);
            floored(fits(self.mul_mod(y, y, p) - self.mul_mod(&inner, x, p)), p) == self.b
        };
        let is_key = q_x < p && q_y < p && is_root(q_x, q_y);
        let is_shift_right = self.mul_mod(&k, r, n) == floored(fits(digest - &self.e), n);
        let hash = int(&Sha256::digest(shift));
        let g_x = &self.generator.0;
        let whole = &k * g_x + &hash;
        fits(&whole / n);
        let proof = floored(whole, n);
        let is_point_right = self.opcode(&hash, g_x, &proof, tag, &t_x);
        let t_y = floored(fits(q_y - self.mul_mod(slope, &fits(q_x - &t_x), p)), p);
        let parity = u8::from(t_y.bit(0));
        let is_sum_right = t_x != *q_x && tag == parity + 2 && is_root(&t_x, &t_y);
        let first = floored(fits(self.mul_mod(slope, slope, p) - q_x), p);
        let x = floored(fits(first - t_x), p);
        let y = floored(fits(self.mul_mod(slope, &fits(q_x - &x), p) - q_y), p);
        let is_signed = self.opcode(&self.e, r, s, u8::from(y.bit(0)) + 2, &x);
        is_key & is_shift_right & is_point_right & is_sum_right & is_signed
    }

    fn mul_mod(&self, x: &BigInt, y: &BigInt, modulus: &BigInt) -> BigInt {
        floored(x * y, modulus)
    }

    /// The witness of a signature, as the page derives it; `None` where there is none.
    pub(crate) fn witness(
        &self,
        digest: &BigInt,
        r: &BigInt,
        q: &(BigInt, BigInt),
    ) -> Option<([u8; 65], BigInt)> {
        let k = floored((digest - &self.e) * self.inverse(r), &self.n);
        let t = self.multiple(&k)?;
        let slope = self.slope(q, &t)?;
        Some((shift_of(&t, &k), slope))
    }

    /// Of the line through two points with distinct x.
    pub(crate) fn slope(&self, q: &(BigInt, BigInt), t: &(BigInt, BigInt)) -> Option<BigInt> {
        let run = floored(&t.0 - &q.0, &self.p);
        let inverse = (run.sign() != Sign::NoSign).then(|| run.modpow(&(&self.p - 2), &self.p))?;
        Some(floored((&t.1 - &q.1) * inverse, &self.p))
    }
}

pub(crate) fn shift_of(t: &(BigInt, BigInt), k: &BigInt) -> [u8; 65] {
    let mut shift = [0; 65];
    shift[0] = 2 + u8::from(t.1.bit(0));
    shift[1..33].copy_from_slice(&bytes(&t.0));
    shift[33..].copy_from_slice(&bytes(k));
    shift
}

pub(crate) fn bytes(number: &BigInt) -> [u8; 32] {
    let (_, digits) = number.to_bytes_be();
    let mut bytes = [0; 32];
    bytes[32 - digits.len()..].copy_from_slice(&digits);
    bytes
}

/// All that goes in; numbers of 256 bits.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) digest: BigInt,
    pub(crate) r: BigInt,
    pub(crate) s: BigInt,
    pub(crate) x: BigInt,
    pub(crate) y: BigInt,
    pub(crate) shift: [u8; 65],
    pub(crate) slope: BigInt,
}

/// An integer of TVM.
fn fits(x: BigInt) -> BigInt {
    assert!(x >= -two_to(256) && x < two_to(256), "{x} is no integer of TVM");
    x
}

#[test]
fn the_constants_are_what_they_are_defined_as() {
    let curve = P256::of_the_source();
    let (p, n, g_x) = (&curve.p, &curve.n, &curve.generator.0);
    assert_eq!(*p, field());
    assert!(is_prime(p) && is_prime(n));
    // No other order of a group with a point of order n fits Hasse's interval: n is the order.
    assert!((p + one() - n).pow(2) <= p * 4 && n * 2 > p + one() + two_to(129));
    assert!(curve.multiple(n).is_none() && curve.multiple(&one()) == Some(curve.generator.clone()));
    // Of lemma 1, and of the sum that must not overflow.
    assert!(g_x > &BigInt::ZERO && g_x * 2 < *n && g_x + n >= *p && g_x + n >= two_to(256));
    assert_eq!(curve.e, int(&Sha256::digest([0; 32])));
    // FIPS 186-5, or SP 800-186, 3.2.1.3: b² · c ≡ −27 (mod p), c from the published seed.
    let c =
        BigInt::parse_bytes(b"7efba1662985be9403cb055c75d4f7e0ce8d84a9c5114abcaf3177680104fa0d", 16).unwrap();
    assert_eq!(floored(&curve.b * &curve.b * c + 27, p), BigInt::ZERO);
    // And as a library has them.
    let generator =
        p256::elliptic_curve::sec1::ToEncodedPoint::to_encoded_point(&p256::AffinePoint::GENERATOR, false);
    assert_eq!(generator.as_bytes()[1..33], bytes(g_x));
    assert!(generator.as_bytes()[33..] == bytes(&curve.generator.1));
}

/// Miller and Rabin, to forty bases: enough for numbers that nobody chose today.
fn is_prime(n: &BigInt) -> bool {
    let minus_one: BigInt = n - 1;
    let twos = minus_one.trailing_zeros().unwrap();
    let odd = &minus_one >> twos;
    (2..42).all(|base| {
        let mut x = BigInt::from(base).modpow(&odd, n);
        if x == one() {
            return true;
        }
        for _ in 0..twos {
            if x == minus_one {
                return true;
            }
            x = floored(&x * &x, n);
        }
        false
    })
}
