//! The method of `contracts/p256.tolk` on curves small enough to try everything: every key, digest, signature and
//! witness, every digest of the fixed message, and the hash of the shift as a random table. docs/p256.md says what this
//! shows.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

/// Which of the contract's own checks are made.
#[derive(Clone, Copy)]
struct Checks {
    shift: bool,
    point: bool,
    slope_between_points: bool,
    root: bool,
    parity: bool,
    key: bool,
}

const ALL: Checks =
    Checks { shift: true, point: true, slope_between_points: true, root: true, parity: true, key: true };

#[test]
fn the_verdict_is_that_of_ecdsa() {
    let curves = curves(&[11, 13, 17, 19, 23, 29, 31, 37], 6);
    let below = curves.iter().filter(|c| c.order < c.field).count();
    assert!(below >= 5 && curves.len() - below >= 5, "{below} of {}", curves.len());
    let mut total = Tally::default();
    for curve in &curves {
        for e in 1..curve.order {
            total.add(&exhaust(&Method { curve, e, seed: e as u64, checks: ALL }));
        }
    }
    println!("{} curves, {total:?}", curves.len());
    assert_eq!(total.forged, 0);
    assert!(total.accepted > 100_000);
    // On P-256 neither has ever happened to anybody; here, with orders of 7 to 43, both are common.
    assert!(total.by_fixed_point > 0 && total.unprovable > 0);
}

#[test]
fn bigger_curves() {
    for (seed, curve) in (0..).zip(&curves(&[53, 61], 2)) {
        let e = 1 + (seed as i64 * 7 + 3) % (curve.order - 1);
        let tally = exhaust(&Method { curve, e, seed, checks: ALL });
        assert_eq!(tally.forged, 0, "{curve:?}");
        assert!(tally.accepted > 0);
    }
}

#[test]
fn every_check_is_needed() {
    let curves = curves(&[11, 13, 17, 19, 23], 12);
    for (name, checks) in [
        ("the relation of k, r and digest", Checks { shift: false, ..ALL }),
        ("the proof that T = k·G", Checks { point: false, ..ALL }),
        ("T.x ≠ Q.x", Checks { slope_between_points: false, ..ALL }),
        ("the curve's equation for T", Checks { root: false, ..ALL }),
        ("the parity of T.y", Checks { parity: false, ..ALL }),
        ("the curve's equation for Q", Checks { key: false, ..ALL }),
    ] {
        let forged: u64 =
            curves.iter().map(|curve| exhaust(&Method { curve, e: 2, seed: 1, checks }).forged).sum();
        assert!(forged > 0, "nothing is forged without {name}");
    }
}

#[derive(Debug, Default)]
struct Tally {
    /// Tuples (Q, digest, r, s) that some witness gets accepted.
    accepted: u64,
    /// Of these, such as ECDSA refuses and no fixed point of the hash explains.
    forged: u64,
    /// Such as ECDSA refuses, by a T that solves T = −(k + 2·H(T ‖ k) / G.x)·G.
    by_fixed_point: u64,
    /// Valid signatures without any witness, each in a listed case.
    unprovable: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.forged += other.forged;
        self.by_fixed_point += other.by_fixed_point;
        self.unprovable += other.unprovable;
    }
}

/// Tries every witness for every (Q, digest, r, s), values beyond their ranges included.
fn exhaust(method: &Method<'_>) -> Tally {
    let curve = method.curve;
    let (n, p) = (curve.order, curve.field);
    // (T's encoding, whether it is k·G), by k
    let shifts: Vec<Vec<(Encoded, bool)>> = (0..n + 2)
        .map(|k| {
            (1..5)
                .flat_map(|tag| (0..p + 2).map(move |x| Encoded { tag, x }))
                .filter(|shift| method.is_point_right(*shift, k))
                .map(|shift| (shift, curve.decode(shift) == Some(k % n)))
                .collect()
        })
        .collect();
    let mut tally = Tally::default();
    let limit = p + 2;
    for q in (0..limit).flat_map(|x| (0..limit).map(move |y| (x, y))) {
        let log = curve.log(q);
        if log.is_none() && (method.checks.key || q.0 % 3 != 0 || q.1 % 5 != 0) {
            continue;
        }
        // The sums that some slope gives, by T
        let sums = |shift: Encoded| -> BTreeSet<Encoded> {
            (0..p).filter_map(|slope| method.sum(q, shift, slope)).collect()
        };
        let by_k: Vec<Vec<(Encoded, bool)>> = shifts
            .iter()
            .map(|shifts| {
                shifts
                    .iter()
                    .flat_map(|(shift, is_kg)| sums(*shift).into_iter().map(|sum| (sum, *is_kg)))
                    .collect()
            })
            .collect();
        for digest in 0..n + 2 {
            for r in 0..n + 2 {
                let keys: BTreeSet<(Encoded, bool)> = (0..n + 2)
                    .filter(|k| !method.checks.shift || (k * r + method.e) % n == digest % n)
                    .flat_map(|k| by_k[k as usize].iter().copied())
                    .collect();
                for s in 0..n + 2 {
                    let accepting = keys.iter().filter(|(sum, _)| curve.opcode(method.e, r, s, *sum));
                    let valid = log.is_some_and(|log| curve.ecdsa(digest, r, s, log));
                    // Whether one of them came of T = k·G.
                    let verdict = accepting.map(|(_, is_kg)| *is_kg).reduce(|a, b| a || b);
                    if let Some(by_kg) = verdict {
                        tally.accepted += 1;
                        let by_fixed_point = method.checks.point && !by_kg;
                        tally.forged += u64::from(!valid && !by_fixed_point);
                        tally.by_fixed_point += u64::from(!valid && by_fixed_point);
                    } else if valid {
                        tally.unprovable += 1;
                        assert!(
                            method.is_unprovable(digest, r, log.unwrap()),
                            "{curve:?} {q:?} {digest} {r} {s}"
                        );
                    }
                }
            }
        }
    }
    tally
}

/// The contract over a small curve.
struct Method<'a> {
    curve: &'a Curve,
    /// Digest of the fixed message.
    e: i64,
    /// Of the table that stands for SHA-256.
    seed: u64,
    checks: Checks,
}

impl Method<'_> {
    fn is_point_right(&self, shift: Encoded, k: i64) -> bool {
        let e = self.hash(shift, k);
        let g_x = self.curve.generator_x();
        !self.checks.point && self.curve.decode(shift).is_some()
            || self.curve.opcode(e, g_x, (k * g_x + e) % self.curve.order, shift)
    }

    /// The key for the second call, unless a check of the sum fails.
    fn sum(&self, (q_x, q_y): (i64, i64), shift: Encoded, slope: i64) -> Option<Encoded> {
        let p = self.curve.field;
        let t_y = (slope * (shift.x - q_x) + q_y).rem_euclid(p);
        let x = (slope * slope - q_x - shift.x).rem_euclid(p);
        let y = (slope * (q_x - x) - q_y).rem_euclid(p);
        let passes = (!self.checks.slope_between_points || shift.x != q_x)
            && (!self.checks.root || self.curve.is_root(shift.x, t_y))
            && (!self.checks.parity || shift.tag == (t_y & 1) + 2);
        passes.then_some(Encoded { tag: (y & 1) + 2, x })
    }

    /// Below three times the order, as SHA-256 is not below P-256's.
    fn hash(&self, shift: Encoded, k: i64) -> i64 {
        let mut word = self.seed;
        for part in [shift.tag, shift.x, k] {
            word = (word ^ part as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^= word >> 31;
        }
        (word % (3 * self.curve.order as u64)) as i64
    }

    /// The refusals that docs/p256.md lists, each of negligible probability on P-256.
    fn is_unprovable(&self, digest: i64, r: i64, log: i64) -> bool {
        let n = self.curve.order;
        let k = ((digest - self.e) * self.curve.inverse(r)).rem_euclid(n);
        if k == 0 || k == log || k == n - log {
            return true;
        }
        let shift = self.curve.encode(k);
        (self.hash(shift, k) + self.curve.generator_x() * k) % n == 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Encoded {
    tag: i64,
    x: i64,
}

/// y² = x³ − 3x + b over a prime field, of prime order. The generator's x is to the order as P-256's is: it and no other
/// coordinate is congruent to it.
#[derive(Debug)]
struct Curve {
    field: i64,
    order: i64,
    b: i64,
    /// Point by logarithm to the generator.
    points: Vec<Point>,
    /// Modulo the order; nothing of use at 0.
    inverses: Vec<i64>,
}

impl Curve {
    /// `P256_CHKSIGNS` on a message whose digest is `e`.
    fn opcode(&self, e: i64, r: i64, s: i64, key: Encoded) -> bool {
        self.decode(key).is_some_and(|log| self.ecdsa(e, r, s, log))
    }

    /// FIPS 186-5 §6.4.2 on integers as they come, the key by its logarithm.
    fn ecdsa(&self, digest: i64, r: i64, s: i64, log: i64) -> bool {
        let n = self.order;
        if !(1..n).contains(&r) || !(1..n).contains(&s) {
            return false;
        }
        let nonce = (digest + r * log).rem_euclid(n) * self.inverse(s) % n;
        self.points[nonce as usize].is_some_and(|(x, _)| x % n == r)
    }

    /// The logarithm of a point; never that of the identity.
    fn log(&self, point: (i64, i64)) -> Option<i64> {
        self.points.iter().position(|p| *p == Some(point)).map(|log| log as i64)
    }

    fn decode(&self, key: Encoded) -> Option<i64> {
        let fits = |point: &Point| point.is_some_and(|(x, y)| x == key.x && key.tag == (y & 1) + 2);
        self.points.iter().position(fits).map(|log| log as i64)
    }

    fn encode(&self, log: i64) -> Encoded {
        let (x, y) = self.points[log as usize].unwrap();
        Encoded { tag: (y & 1) + 2, x }
    }

    fn is_root(&self, x: i64, y: i64) -> bool {
        (y * y - (x * x * x - 3 * x + self.b)).rem_euclid(self.field) == 0
    }

    fn generator_x(&self) -> i64 {
        self.points[1].unwrap().0
    }

    fn inverse(&self, x: i64) -> i64 {
        self.inverses[x as usize]
    }
}

/// Curves of order below and above the field's, up to `most` of each and two of a kind a field.
fn curves(fields: &[i64], most: usize) -> Vec<Curve> {
    let (mut below, mut above) = (Vec::new(), Vec::new());
    for &field in fields {
        for b in 1..field {
            let points: Vec<(i64, i64)> = (0..field)
                .flat_map(|x| (0..field).map(move |y| (x, y)))
                .filter(|(x, y)| (y * y - (x * x * x - 3 * x + b)).rem_euclid(field) == 0)
                .collect();
            let order = points.len() as i64 + 1;
            let is_singular = (27 * b * b - 108).rem_euclid(field) == 0;
            let generator = points.iter().find(|(x, _)| *x > 0 && *x < order && x + order >= field);
            let Some(generator) = generator.filter(|_| !is_singular && is_prime(order) && order != field)
            else {
                continue;
            };
            let mut multiples = vec![None; order as usize];
            for log in 1..order as usize {
                multiples[log] = add(field, multiples[log - 1], Some(*generator));
            }
            let inverses = (0..order).map(|x| (1..order).find(|i| i * x % order == 1).unwrap_or(0)).collect();
            let kind: &mut Vec<Curve> = if order < field { &mut below } else { &mut above };
            if kind.len() < most && kind.iter().filter(|c| c.field == field).count() < 2 {
                kind.push(Curve { field, order, b, points: multiples, inverses });
            }
        }
    }
    below.append(&mut above);
    below
}

type Point = Option<(i64, i64)>;

fn add(field: i64, p: Point, q: Point) -> Point {
    let (Some((x1, y1)), Some((x2, y2))) = (p, q) else {
        return p.or(q);
    };
    let over = |a: i64, b: i64| {
        let inverse = (1..field).find(|i| (i * b).rem_euclid(field) == 1).unwrap();
        (a * inverse).rem_euclid(field)
    };
    let slope = match (x1 == x2, (y1 + y2) % field == 0) {
        (true, true) => return None,
        (true, false) => over(3 * x1 * x1 - 3, 2 * y1),
        (false, _) => over(y2 - y1, x2 - x1),
    };
    let x = (slope * slope - x1 - x2).rem_euclid(field);
    Some((x, (slope * (x1 - x) - y1).rem_euclid(field)))
}

fn is_prime(n: i64) -> bool {
    n > 1 && (2..n).take_while(|d| d * d <= n).all(|d| n % d != 0)
}
