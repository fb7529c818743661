//! The degenerate cases of docs/p256.md, one test each.

use p256::{ProjectivePoint, Scalar};

use crate::hostile::{
    Candidate, N, P, Witness, bytes, coordinates, e, encode_shift, hash_of, inverse, lift, negative, number,
    plus, point_from, reduce, scalar, sum, x_mod_n,
};
use crate::probe::Probe;

const G: ProjectivePoint = ProjectivePoint::GENERATOR;

fn signed() -> (Candidate, Witness) {
    let candidate = Candidate::signed(scalar(1), scalar(2), scalar(3));
    (candidate, candidate.witness().unwrap())
}

#[test]
fn r_or_s_zero_or_not_below_the_order_is_refused() {
    let probe = Probe::new();
    let (candidate, _) = signed();
    for out in [[0; 32], number(N), plus(&number(N), 1), [0xff; 32]] {
        assert!(!probe.is_fooled_by(&Candidate { r: out, ..candidate }));
        assert!(!probe.is_fooled_by(&Candidate { s: out, ..candidate }));
        assert!(!probe.is_fooled_by(&Candidate { r: out, s: out, ..candidate }));
    }
}

#[test]
fn s_plus_n_is_refused_where_s_is_accepted() {
    let probe = Probe::new();
    let (secret, nonce, s) = (scalar(1), scalar(2), Scalar::from(5_u64));
    let r = x_mod_n(&(G * nonce));
    let small = Candidate::new(s * nonce - r * secret, r, s, &(G * secret));
    assert!(probe.accepts(&small, &small.witness().unwrap()));
    let large = Candidate { s: sum(&small.s, &number(N)).unwrap(), ..small };
    assert!(!probe.is_fooled_by(&large));
}

#[test]
fn r_plus_n_is_refused_where_r_is_accepted() {
    let probe = Probe::new();
    let nonce_point = point_from(&bytes(Scalar::ONE));
    let (r, s, digest) = (x_mod_n(&nonce_point), scalar(1), scalar(2));
    let small = Candidate::new(digest, r, s, &((nonce_point * s - G * digest) * inverse(r)));
    assert!(probe.accepts(&small, &small.witness().unwrap()));
    let large = Candidate { r: sum(&small.r, &number(N)).unwrap(), ..small };
    assert!(!probe.is_fooled_by(&large));
}

#[test]
fn a_nonce_point_with_x_not_below_the_order_is_accepted() {
    let probe = Probe::new();
    let nonce_point = point_from(&number(N));
    let (r, s, digest) = (x_mod_n(&nonce_point), scalar(1), scalar(2));
    assert!(bytes(r) != coordinates(&nonce_point)[0]);
    let candidate = Candidate::new(digest, r, s, &((nonce_point * s - G * digest) * inverse(r)));
    assert!(candidate.is_valid());
    assert!(probe.accepts(&candidate, &candidate.witness().unwrap()));
}

#[test]
fn a_nonce_point_at_infinity_is_refused() {
    let probe = Probe::new();
    let (secret, r) = (scalar(1), scalar(2));
    let candidate = Candidate::new(-(r * secret), r, scalar(3), &(G * secret));
    assert!(!candidate.is_valid());
    assert!(!probe.is_fooled_by(&candidate));
}

#[test]
fn a_digest_of_zero_or_not_below_the_order_is_reduced() {
    let probe = Probe::new();
    for digest in [Scalar::ZERO, Scalar::from(5_u64)] {
        let small = Candidate::signed(digest, scalar(1), scalar(2));
        let large = Candidate { digest: sum(&small.digest, &number(N)).unwrap(), ..small };
        for candidate in [small, large] {
            assert!(candidate.is_valid());
            assert!(probe.accepts(&candidate, &candidate.witness().unwrap()));
        }
    }
}

/// k = 0: the signed message is the fixed one.
#[test]
fn the_digest_of_the_fixed_message_is_refused_though_signed() {
    let probe = Probe::new();
    let candidate = Candidate::signed(e(), scalar(1), scalar(2));
    assert!(candidate.is_valid());
    assert!(!probe.is_fooled_by(&candidate));
}

/// T = Q: the line would be the tangent.
#[test]
fn a_shift_equal_to_the_key_is_refused_though_signed() {
    let probe = Probe::new();
    let (secret, nonce) = (scalar(1), scalar(2));
    let digest = e() + x_mod_n(&(G * nonce)) * secret;
    let candidate = Candidate::signed(digest, secret, nonce);
    assert!(candidate.is_valid());
    assert_eq!(candidate.k(), Some(secret));
    assert!(!probe.is_fooled_by(&candidate));
    // Not even with the tangent: T.x = Q.x would leave the slope free.
    let [x, y] = coordinates(&(G * secret));
    let slope = tangent(&x, &y);
    assert!(!probe.accepts(&candidate, &Witness { shift: encode_shift(&(G * secret), secret), slope }));
}

/// T = −Q: the sum would be the identity, which has no encoding.
#[test]
fn a_shift_opposite_to_the_key_is_refused_though_signed() {
    let probe = Probe::new();
    let (secret, nonce) = (scalar(1), scalar(2));
    let digest = e() - x_mod_n(&(G * nonce)) * secret;
    let candidate = Candidate::signed(digest, secret, nonce);
    assert!(candidate.is_valid());
    assert_eq!(candidate.k(), Some(-secret));
    assert!(!probe.is_fooled_by(&candidate));
}

/// With T = ±Q allowed, a signer could reach any key by a free slope.
#[test]
fn a_free_slope_at_the_keys_own_x_is_refused() {
    let probe = Probe::new();
    let (secret, nonce) = (scalar(1), scalar(2));
    let r = x_mod_n(&(G * nonce));
    let candidate = Candidate { s: bytes(scalar(9)), ..Candidate::signed(e() + r * secret, secret, nonce) };
    assert!(!candidate.is_valid());
    assert!(!probe.is_fooled_by(&candidate));
}

/// The first call accepts T = −(k + 2·e / G.x)·G for a hash fixed beforehand; the hash of T and k is not.
#[test]
fn the_mirrored_solution_of_the_first_call_needs_a_fixed_point_of_the_hash() {
    let probe = Probe::new();
    let (candidate, fitting) = signed();
    let g_x = x_mod_n(&G);
    let k = fitting.k();
    let mut shift = G * k;
    for _ in 0..50 {
        let hash = hash_of(&encode_shift(&shift, k));
        let mirrored = G * -(k + hash.double() * inverse(g_x));
        // It would have been right, had the hash stayed.
        assert_eq!((G * hash + mirrored * g_x) * inverse(hash + g_x * k), -G);
        assert!(!probe.accepts(&candidate, &Witness::new(&candidate.x, &candidate.y, &mirrored, k).unwrap()));
        shift = mirrored;
    }
}

#[test]
fn a_shift_that_is_another_multiple_is_refused() {
    let probe = Probe::new();
    let (candidate, fitting) = signed();
    let k = fitting.k();
    for other in [k + Scalar::ONE, -k, k.double(), Scalar::ONE] {
        let shift = G * other;
        for claimed in [k, other] {
            assert!(
                !probe
                    .accepts(&candidate, &Witness::new(&candidate.x, &candidate.y, &shift, claimed).unwrap())
            );
        }
    }
}

#[test]
fn a_k_above_the_order_is_another_message_but_means_the_same() {
    let probe = Probe::new();
    let (secret, nonce, k) = (scalar(1), scalar(2), Scalar::from(7_u64));
    let candidate = Candidate::signed(e() + x_mod_n(&(G * nonce)) * k, secret, nonce);
    let fitting = candidate.witness().unwrap();
    assert_eq!(fitting.k(), k);
    assert!(probe.accepts(&candidate, &fitting));
    assert!(probe.accepts(&candidate, &fitting.with_k(&sum(&bytes(k), &number(N)).unwrap())));
}

#[test]
fn a_shift_encoded_otherwise_than_02_or_03_is_refused() {
    let probe = Probe::new();
    let (candidate, fitting) = signed();
    let accepted: Vec<u8> =
        (0..=u8::MAX).filter(|tag| probe.accepts(&candidate, &fitting.with_tag(*tag))).collect();
    assert_eq!(accepted, [fitting.shift[0]]);
}

#[test]
fn a_shift_off_the_curve_or_not_canonical_is_refused() {
    let probe = Probe::new();
    let (candidate, fitting) = signed();
    let off = (1..200).map(|x| plus(&[0; 32], x)).find(|x| lift(x).is_none()).unwrap();
    let small = coordinates(&point_from(&bytes(Scalar::ONE)))[0];
    for x in [off, small, sum(&small, &number(P)).unwrap(), number(P), [0; 32], [0xff; 32]] {
        for tag in [2, 3] {
            assert!(!probe.accepts(&candidate, &fitting.with_shift_x(&x).with_tag(tag)));
        }
    }
}

#[test]
fn a_slope_of_another_line_is_refused_and_one_plus_p_is_the_same() {
    let probe = Probe::new();
    let (candidate, fitting) = signed();
    for slope in [[0; 32], number(P), [0xff; 32], negative(&fitting.slope), plus(&fitting.slope, 1)] {
        assert!(!probe.accepts(&candidate, &Witness { slope, ..fitting }));
    }
    if let Some(slope) = sum(&fitting.slope, &number(P)) {
        assert!(probe.accepts(&candidate, &Witness { slope, ..fitting }));
    }
}

#[test]
fn a_key_off_the_curve_is_refused() {
    let probe = Probe::new();
    let (candidate, _) = signed();
    for y in [negative(&plus(&candidate.y, 1)), candidate.x, [0; 32], [0xff; 32], number(P)] {
        assert!(!probe.is_point(&candidate.x, &y));
        assert!(!probe.is_fooled_by(&Candidate { y, ..candidate }));
    }
    let zero = Candidate { x: [0; 32], y: [0; 32], ..candidate };
    assert!(!probe.is_point(&zero.x, &zero.y));
    assert!(!probe.is_fooled_by(&zero));
}

#[test]
fn a_key_with_a_coordinate_plus_p_is_refused() {
    let probe = Probe::new();
    let key = point_from(&[0; 32]);
    let [x, y] = coordinates(&key);
    let candidate = Candidate::of_unknown_secret(&key, scalar(1), scalar(2));
    assert!(probe.is_point(&x, &y) && probe.accepts(&candidate, &candidate.witness().unwrap()));
    let large = Candidate { x: sum(&x, &number(P)).unwrap(), ..candidate };
    assert!(!probe.is_point(&large.x, &large.y));
    assert!(!probe.accepts(&large, &candidate.witness().unwrap()));
}

#[test]
fn keys_at_the_edges_of_the_field_are_accepted() {
    let probe = Probe::new();
    let top = (1..200).map(|step| minus(&number(P), step)).find_map(|x| lift(&x)).unwrap();
    for key in [point_from(&[0; 32]), point_from(&number(N)), top, G, -G] {
        let candidate = Candidate::of_unknown_secret(&key, scalar(1), scalar(2));
        assert!(candidate.is_valid());
        assert!(probe.accepts(&candidate, &candidate.witness().unwrap()));
    }
}

#[test]
fn the_opposite_key_is_refused() {
    let probe = Probe::new();
    let (candidate, _) = signed();
    assert!(!probe.is_fooled_by(&Candidate { y: negative(&candidate.y), ..candidate }));
    let negated = Candidate { digest: bytes(-reduce(&candidate.digest)), ..candidate };
    assert!(!probe.is_fooled_by(&negated));
}

/// (3·x² − 3) / 2·y
fn tangent(x: &[u8; 32], y: &[u8; 32]) -> [u8; 32] {
    use p256::FieldElement;
    let element = |value: &[u8; 32]| FieldElement::from_bytes(&(*value).into()).unwrap();
    let (x, y) = (element(x), element(y));
    let three = FieldElement::ONE + FieldElement::ONE + FieldElement::ONE;
    ((x * x - FieldElement::ONE) * three * (y + y).invert().unwrap()).to_bytes().into()
}

/// For numbers whose last byte is not below b.
fn minus(a: &[u8; 32], b: u8) -> [u8; 32] {
    let mut out = *a;
    out[31] = out[31].checked_sub(b).unwrap();
    out
}
