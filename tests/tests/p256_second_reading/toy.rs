//! Curves small enough to try everything. A hash value is never computed here: whoever forges may have every one, and
//! what is asked is which of them would help.

/// A point; `None` is the identity.
type Point = Option<(i64, i64)>;

/// y² = x³ − 3x + b over the integers modulo `p`, with `n` points, `n` an odd prime.
struct Curve {
    p: i64,
    n: i64,
    b: i64,
    generator: (i64, i64),
}

/// What a key is given as: a tag and an x-coordinate, both of any size.
type Encoded = (i64, i64);

impl Curve {
    fn contains(&self, (x, y): (i64, i64)) -> bool {
        (0..self.p).contains(&x) && (0..self.p).contains(&y) && self.equation(x, y)
    }

    fn equation(&self, x: i64, y: i64) -> bool {
        (y * y - x * x * x + 3 * x - self.b).rem_euclid(self.p) == 0
    }

    fn points(&self) -> Vec<(i64, i64)> {
        let all = (0..self.p).flat_map(|x| (0..self.p).map(move |y| (x, y)));
        all.filter(|point| self.contains(*point)).collect()
    }

    /// Chord and tangent (SEC 1, 2.2.1).
    fn add(&self, a: Point, b: Point) -> Point {
        let (Some((ax, ay)), Some((bx, by))) = (a, b) else { return a.or(b) };
        let p = self.p;
        let slope = if ax != bx {
            (by - ay) * power(bx - ax, p - 2, p)
        } else if (ay + by) % p == 0 {
            return None;
        } else {
            (3 * ax * ax - 3) * power(2 * ay, p - 2, p)
        };
        let x = (slope.rem_euclid(p).pow(2) - ax - bx).rem_euclid(p);
        Some((x, (slope.rem_euclid(p) * (ax - x) - ay).rem_euclid(p)))
    }

    /// By doubling, for any factor.
    fn times(&self, factor: i64, point: Point) -> Point {
        let (mut factor, mut power, mut sum) = (factor.rem_euclid(self.n), point, None);
        while factor > 0 {
            if factor & 1 == 1 {
                sum = self.add(sum, power);
            }
            power = self.add(power, power);
            factor >>= 1;
        }
        sum
    }

    fn multiple(&self, factor: i64) -> Point {
        self.times(factor, Some(self.generator))
    }

    fn inverse(&self, x: i64) -> i64 {
        power(x, self.n - 2, self.n)
    }

    /// FIPS 186-5, 6.4.2, step by step.
    fn ecdsa(&self, z: i64, r: i64, s: i64, q: (i64, i64)) -> bool {
        if !(1..self.n).contains(&r) || !(1..self.n).contains(&s) {
            return false;
        }
        let w = self.inverse(s);
        let sum = self.add(self.multiple(z * w), self.times(r * w, Some(q)));
        sum.is_some_and(|(x, _)| x % self.n == r)
    }

    fn decode(&self, (tag, x): Encoded) -> Option<(i64, i64)> {
        if !(2..=3).contains(&tag) || !(0..self.p).contains(&x) {
            return None;
        }
        (0..self.p).map(|y| (x, y)).find(|(x, y)| self.equation(*x, *y) && y % 2 == tag - 2)
    }

    /// `P256_CHKSIGNS` on a message that hashes to `h`.
    fn opcode(&self, h: i64, r: i64, s: i64, key: Encoded) -> bool {
        self.decode(key).is_some_and(|q| self.ecdsa(h, r, s, q))
    }

    /// Encodings of every kind: tags that do not exist, x beyond the field.
    fn encodings(&self) -> Vec<Encoded> {
        (0..6).flat_map(|tag| (0..self.p + 3).map(move |x| (tag, x))).collect()
    }

    /// Step 2 of the method.
    fn proves_shift(&self, shift: Encoded, k: i64, h: i64) -> bool {
        let g_x = self.generator.0;
        self.opcode(h, g_x, (k * g_x + h) % self.n, shift)
    }

    /// Steps 0, 3 and 4: the sum as a key.
    fn sum(&self, (q_x, q_y): (i64, i64), (tag, t_x): Encoded, slope: i64) -> Option<(i64, i64)> {
        let p = self.p;
        if !(q_x < p && q_y < p && self.equation(q_x, q_y)) {
            return None;
        }
        let t_y = (q_y - (slope * (q_x - t_x)).rem_euclid(p)).rem_euclid(p);
        if t_x == q_x || tag != (t_y & 1) + 2 || !self.equation(t_x, t_y) {
            return None;
        }
        let x = ((slope * slope - q_x) % p - t_x).rem_euclid(p);
        Some((x, (slope * (q_x - x) - q_y).rem_euclid(p)))
    }

    /// The other solution of step 2: −(k + 2h / G.x)·G.
    fn mirrored(&self, k: i64, h: i64) -> Point {
        self.multiple(-(k + 2 * h * self.inverse(self.generator.0)))
    }
}

fn power(base: i64, mut exponent: i64, modulus: i64) -> i64 {
    let (mut square, mut product) = (base.rem_euclid(modulus), 1);
    while exponent > 0 {
        if exponent & 1 == 1 {
            product = product * square % modulus;
        }
        square = square * square % modulus;
        exponent >>= 1;
    }
    product
}

/// Every curve of this form and of odd prime order over the field, with a generator for which `wanted` holds.
fn curves(p: i64, wanted: impl Fn(&Curve) -> bool) -> Vec<Curve> {
    let is_prime = |n: i64| n > 2 && (2..n).all(|d| n % d != 0);
    let mut found = Vec::new();
    for b in 0..p {
        if (27 * b * b - 4 * 27).rem_euclid(p) == 0 {
            continue;
        }
        let mut curve = Curve { p, n: 0, b, generator: (0, 0) };
        let points = curve.points();
        curve.n = points.len() as i64 + 1;
        if !is_prime(curve.n) || curve.n == p {
            continue;
        }
        for generator in points {
            curve.generator = generator;
            if wanted(&curve) {
                found.push(curve);
                break;
            }
        }
    }
    found
}

/// As P-256's: 0 < G.x < n, and no other x below p is congruent to it.
fn is_like_p256(curve: &Curve) -> bool {
    let x = curve.generator.0;
    0 < x && x < curve.n && x + curve.n >= curve.p
}

#[test]
fn lemma_1_has_two_solutions_and_the_second_fixes_the_hash() {
    let (mut smaller, mut bigger, mut mirrored) = (0, 0, 0);
    for curve in [41, 43, 47].into_iter().flat_map(|p| curves(p, is_like_p256)) {
        *(if curve.n < curve.p { &mut smaller } else { &mut bigger }) += 1;
        let n = curve.n;
        for shift in curve.encodings() {
            let point = curve.decode(shift);
            for k in 0..n + 2 {
                let mut helpful = 0;
                for h in 0..n {
                    let is_sigma_zero = (k * curve.generator.0 + h) % n == 0;
                    let is_kg = point.is_some() && point == curve.multiple(k);
                    let is_mirrored = point.is_some() && point == curve.mirrored(k, h);
                    let expected = !is_sigma_zero && (is_kg || is_mirrored);
                    assert_eq!(curve.proves_shift(shift, k, h), expected);
                    helpful += i64::from(expected && !is_kg);
                    // A digest beyond the order is the same digest.
                    if h < 3 {
                        assert_eq!(curve.proves_shift(shift, k, h + n), expected);
                    }
                }
                // One residue of the hash at most helps somebody who names a T that is not k·G.
                assert!(helpful <= 1, "{helpful} of {n}");
                mirrored += helpful;
            }
        }
    }
    println!("{smaller} curves of order below the field's, {bigger} above, {mirrored} mirrored solutions");
    assert!(smaller > 2 && bigger > 2 && mirrored > 1_000);
}

/// Lemma 1 needs G.x + n ≥ p: otherwise points other than ±G share the signature's first half.
#[test]
fn lemma_1_needs_the_generators_x_to_be_alone() {
    let is_not_alone = |curve: &Curve| {
        let x = curve.generator.0;
        0 < x && x < curve.n && curve.points().iter().any(|(other, _)| *other == x + curve.n)
    };
    let mut more = 0;
    let mut seen = 0;
    for curve in [41, 43, 47].into_iter().flat_map(|p| curves(p, is_not_alone)) {
        seen += 1;
        for shift in curve.encodings() {
            for (k, h) in (0..curve.n).flat_map(|k| (0..curve.n).map(move |h| (k, h))) {
                let point = curve.decode(shift);
                let is_known = point == curve.multiple(k) || point == curve.mirrored(k, h);
                more += u64::from(curve.proves_shift(shift, k, h) && !is_known);
            }
        }
    }
    assert!(seen > 0 && more > 0, "{seen} curves, {more} more solutions");
}

#[test]
fn lemma_2_gives_the_sum_by_one_slope_and_nothing_else() {
    let mut sums = 0;
    for curve in [41, 43, 47].into_iter().flat_map(|p| curves(p, is_like_p256)) {
        let p = curve.p;
        let wide = (0..p + 3).flat_map(|x| (0..p + 3).map(move |y| (x, y)));
        // Keys off the curve and beyond the field in one place in seven: all of them are refused at once.
        let keys = wide.filter(|(x, y)| curve.contains((*x, *y)) || (x + 3 * y) % 7 == 0);
        for q in keys {
            let is_point = curve.contains(q);
            for shift in curve.encodings() {
                // Whether T is a point is step 2's to say.
                let Some(t) = curve.decode(shift) else { continue };
                let slopes =
                    (0..2 * p).filter_map(|slope| curve.sum(q, shift, slope).map(|sum| (slope, sum)));
                let slopes: Vec<_> = slopes.collect();
                let expected = if is_point && q.0 != t.0 { 2 } else { 0 };
                assert_eq!(slopes.len(), expected, "{q:?} {t:?}");
                if let [(slope, sum), (again, same)] = slopes[..] {
                    assert_eq!((again, same), (slope + p, sum));
                    assert_eq!(Some(sum), curve.add(Some(q), Some(t)));
                    sums += 1;
                }
            }
        }
    }
    assert!(sums > 10_000, "{sums}");
}

/// The step from the lemmas to the theorem: for every e, k, r and s, ECDSA of e under Q + k·G is ECDSA of e + k·r under Q.
#[test]
fn the_shifted_question_is_the_question() {
    let mut both = 0;
    for curve in [41, 43, 47].into_iter().flat_map(|p| curves(p, is_like_p256)).step_by(6) {
        let n = curve.n;
        for q in curve.points().into_iter().step_by(8) {
            for k in 0..n {
                let Some(shifted) = curve.add(Some(q), curve.multiple(k)) else { continue };
                for (e, r) in [1, n - 1].into_iter().flat_map(|e| (0..n + 2).map(move |r| (e, r))) {
                    // r ≡ 0: step 1 then says z ≡ e for any k, and step 5 refuses r.
                    for s in 0..n + 2 {
                        let verdict = curve.ecdsa(e, r, s, shifted);
                        assert_eq!(verdict, curve.ecdsa(e + k * r, r, s, q));
                        assert!(!verdict || r % n != 0);
                        both += u64::from(verdict);
                    }
                }
            }
        }
    }
    assert!(both > 10_000, "{both}");
}

/// All steps together, over every number that goes in and every hash value, where that can be done.
#[test]
fn the_whole_method_on_the_smallest_curves() {
    let (mut tried, mut accepted, mut by_mirror) = (0, 0_u64, 0_u64);
    for curve in [5, 7, 11].into_iter().flat_map(|p| curves(p, is_like_p256)) {
        tried += 1;
        let n = curve.n;
        let keys = curve.points();
        let e = n - 1;
        for (shift, k) in curve.encodings().into_iter().flat_map(|t| (0..n + 2).map(move |k| (t, k))) {
            for h in (0..n).filter(|h| curve.proves_shift(shift, k, *h)) {
                let is_kg = curve.decode(shift) == curve.multiple(k);
                assert!(is_kg || curve.decode(shift) == curve.mirrored(k, h));
                for (q, slope) in keys.iter().flat_map(|q| (0..curve.p).map(move |slope| (*q, slope))) {
                    let Some((x, y)) = curve.sum(q, shift, slope) else { continue };
                    for (z, r) in (0..n + 2).flat_map(|z| (0..n + 2).map(move |r| (z, r))) {
                        if (k * r - z + e) % n != 0 {
                            continue;
                        }
                        for s in 0..n + 2 {
                            if curve.opcode(e, r, s, ((y & 1) + 2, x)) {
                                accepted += 1;
                                let is_valid = curve.ecdsa(z, r, s, q);
                                assert!(is_valid || !is_kg, "{z} {r} {s} {q:?}");
                                by_mirror += u64::from(!is_valid);
                            }
                        }
                    }
                }
            }
        }
    }
    println!("{tried} curves, {accepted} acceptances, {by_mirror} by the mirrored solution");
    assert!(tried >= 3 && accepted > 10_000 && by_mirror > 0);
}

/// What is refused though it is signed: the page's four cases and no fifth.
#[test]
fn every_valid_signature_has_a_witness_but_in_the_four_cases() {
    let (mut provable, mut cases) = (0, [0; 4]);
    for curve in [5, 7, 11, 13].into_iter().flat_map(|p| curves(p, is_like_p256)) {
        let n = curve.n;
        for q in curve.points() {
            for (z, e) in (0..n).flat_map(|z| (0..n).map(move |e| (z, e))) {
                for (r, s) in (1..n).flat_map(|r| (1..n).map(move |s| (r, s))) {
                    if !curve.ecdsa(z, r, s, q) {
                        continue;
                    }
                    let k = ((z - e) * curve.inverse(r)).rem_euclid(n);
                    let t = curve.multiple(k);
                    for h in 0..n {
                        let case = [
                            k == 0,
                            t == Some(q),
                            k != 0 && curve.add(t, Some(q)).is_none(),
                            (h + k * curve.generator.0) % n == 0,
                        ];
                        for (count, is_met) in cases.iter_mut().zip(case) {
                            *count += u64::from(is_met);
                        }
                        let shift = t.map_or((0, 0), |(x, y)| (2 + y % 2, x));
                        let is_accepted = curve.proves_shift(shift, k, h)
                            && (0..curve.p).any(|slope| {
                                let sum = curve.sum(q, shift, slope);
                                sum.is_some_and(|(x, y)| curve.opcode(e, r, s, ((y & 1) + 2, x)))
                            });
                        assert_eq!(is_accepted, !case.contains(&true), "{case:?}");
                        provable += u64::from(is_accepted);
                    }
                }
            }
        }
    }
    assert!(provable > 10_000 && cases.iter().all(|count| *count > 0), "{provable} {cases:?}");
}
