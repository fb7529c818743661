// Writes ../tests/p256/emulator.json: what the official emulator makes of signatures, witnesses and degenerate cases,
// all from the arithmetic below. `npm ci && node p256.mjs`

import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
const require = createRequire(import.meta.url);
const { Blockchain } = require('@ton/sandbox');
const { Cell, beginCell, contractAddress } = require('@ton/core');

const p = 0xffffffff00000001000000000000000000000000ffffffffffffffffffffffffn;
const n = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
const b = 0x5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604bn;
const G = [
    0x6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296n,
    0x4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5n,
];
const mod = (a, m) => ((a % m) + m) % m;
const power = (a, k, m) => { let out = 1n; for (a = mod(a, m); k; k >>= 1n, a = (a * a) % m) if (k & 1n) out = (out * a) % m; return out; };
const inverse = (a, m) => power(a, m - 2n, m);
function add(P, Q) {
    if (!P || !Q) return P ?? Q;
    if (P[0] === Q[0] && P[1] !== Q[1]) return null;
    const slope = P[0] === Q[0] ? (3n * P[0] * P[0] - 3n) * inverse(2n * P[1], p) : (Q[1] - P[1]) * inverse(Q[0] - P[0], p);
    const x = mod(slope * slope - P[0] - Q[0], p);
    return [x, mod(slope * (P[0] - x) - P[1], p)];
}
function times(k, P) {
    let out = null;
    for (k = mod(k, n); k; k >>= 1n, P = add(P, P)) if (k & 1n) out = add(out, P);
    return out;
}
const negative = (P) => P && [P[0], mod(-P[1], p)];
// A point with this x-coordinate, or none.
function lift(x) {
    const square = mod(x ** 3n - 3n * x + b, p);
    const y = power(square, (p + 1n) / 4n, p);
    return x < p && mod(y * y, p) === square ? [x, y] : null;
}
const pointFrom = (x) => lift(x) ?? pointFrom(x + 1n);
const compressed = (P) => ((P[1] & 1n) + 2n) << 256n | P[0];
const sha256 = (text) => BigInt('0x' + createHash('sha256').update(text).digest('hex'));
const e = sha256(Buffer.alloc(32));
const scalar = (label) => mod(sha256(label), n);

function sign(digest, secret, nonce) {
    const r = mod(times(nonce, G)[0], n);
    return asked(digest, r, mod((digest + r * secret) * inverse(nonce, n), n), times(secret, G));
}
const asked = (digest, r, s, [x, y]) => ({ digest, r, s, x, y });
// Valid under a key of unknown secret, of a digest that comes out.
function signUnder(Q, u, v) {
    const r = mod(add(times(u, G), times(v, Q))[0], n);
    const s = mod(r * inverse(v, n), n);
    return asked(mod(u * s, n), r, s, Q);
}
const shiftOf = (T, k) => compressed(T ?? [0n, 0n]) << 256n | k;
function witnessFor({ x, y }, T, k) {
    return { shift: shiftOf(T, k), slope: T ? mod((T[1] - y) * inverse(T[0] - x, p), p) : 0n };
}
function prove(candidate) {
    const k = mod((candidate.digest - e) * inverse(candidate.r, n), n);
    return witnessFor(candidate, times(k, G), k);
}

const cases = [];
const ask = (name, candidate, witness = prove(candidate)) => cases.push({ name, ...candidate, ...witness });
const retag = (shift, tag) => tag << 512n | mod(shift, 1n << 512n);
const withX = (shift, x) => (shift >> 512n) << 512n | x << 256n | mod(shift, 1n << 256n);
const top = (1n << 256n) - 1n;

for (let i = 0; i < 8; i++) {
    const digest = sha256(`digest ${i}`), secret = scalar(`secret ${i}`);
    const good = sign(digest, secret, scalar(`nonce ${i}`));
    const witness = prove(good);
    const k = mod(witness.shift, 1n << 256n);
    ask(`signature ${i}`, good);
    ask(`signature ${i}, n - s`, { ...good, s: n - good.s });
    if (i > 1) continue;
    const opposite = { ...good, y: p - good.y };
    ask(`opposite key ${i}`, opposite);
    ask(`negative of the digest ${i}`, { ...good, digest: mod(-digest, n) });
    ask(`negative of the digest, opposite key ${i}`, { ...opposite, digest: mod(-digest, n) });
    ask(`altered s ${i}`, { ...good, s: good.s ^ 1n });
    ask(`altered digest ${i}`, { ...good, digest: digest ^ 1n }, witness);
    ask(`altered digest, fitting witness ${i}`, { ...good, digest: digest ^ 1n });
    const [x, y] = times(secret + 1n, G);
    ask(`another key ${i}`, { ...good, x, y });
    ask(`altered y ${i}`, { ...good, y: good.y ^ 1n });
    for (const other of [k + 1n, n - k, 1n]) {
        ask(`another multiple ${other} ${i}`, good, witnessFor(good, times(other, G), k));
        ask(`another k ${other} ${i}`, good, witnessFor(good, times(other, G), other));
    }
    const hash = BigInt('0x' + createHash('sha256').update(Buffer.from(witness.shift.toString(16).padStart(130, '0'), 'hex')).digest('hex'));
    ask(`mirrored shift ${i}`, good, witnessFor(good, times(-(k + 2n * hash * inverse(G[0], n)), G), k));
    for (const tag of [0n, 1n, 2n, 3n, 4n, 5n, 6n, 7n, 0x82n, 0xffn])
        ask(`tag ${tag} ${i}`, good, { ...witness, shift: retag(witness.shift, tag) });
    const small = pointFrom(1n)[0];
    for (const [label, value] of [['0', 0n], ['n', n], ['n + 1', n + 1n], ['p', p], ['small', small], ['small + p', small + p], ['2^256 - 1', top]]) {
        ask(`r = ${label} ${i}`, { ...good, r: value });
        ask(`s = ${label} ${i}`, { ...good, s: value });
        ask(`digest = ${label} ${i}`, { ...good, digest: value });
        ask(`Q.x = ${label} ${i}`, { ...good, x: value });
        ask(`Q.y = ${label} ${i}`, { ...good, y: value });
        ask(`Q.x = Q.y = ${label} ${i}`, { ...good, x: value, y: value });
        ask(`slope = ${label} ${i}`, good, { ...witness, slope: value });
        ask(`k = ${label} ${i}`, good, { ...witness, shift: (witness.shift >> 256n) << 256n | value });
        ask(`T.x = ${label} ${i}`, good, { ...witness, shift: withX(witness.shift, value) });
    }
}
for (const digest of [0n, 5n]) {
    const good = sign(digest, scalar('a'), scalar('b'));
    ask(`signed digest ${digest}`, good);
    ask(`signed digest ${digest} + n`, { ...good, digest: digest + n });
}
{
    const [secret, nonce, s] = [scalar('a'), scalar('b'), 5n];
    const r = mod(times(nonce, G)[0], n);
    const tiny = asked(mod(s * nonce - r * secret, n), r, s, times(secret, G));
    ask('s = 5', tiny);
    ask('s = 5 + n', { ...tiny, s: s + n });
}
for (const from of [1n, n]) {
    const R = pointFrom(from), r = mod(R[0], n), s = scalar('s'), digest = scalar('d');
    const candidate = asked(digest, r, s, times(inverse(r, n), add(times(s, R), negative(times(digest, G)))));
    ask(`nonce point from ${from === n ? 'n' : from}`, candidate);
    if (from === 1n) ask('its r + n', { ...candidate, r: r + n });
}
for (const [label, from] of [['0', 0n], ['n', n]]) {
    const candidate = signUnder(pointFrom(from), scalar('u'), scalar('v'));
    ask(`key from x = ${label}`, candidate);
    if (from === 0n) ask('that key with x + p', { ...candidate, x: candidate.x + p }, prove(candidate));
}
{
    const secret = scalar('a'), nonce = scalar('b'), r = mod(times(nonce, G)[0], n);
    ask('k = 0', sign(mod(e, n), secret, nonce));
    ask('T = Q', sign(mod(e + r * secret, n), secret, nonce));
    ask('T = -Q', sign(mod(e - r * secret, n), secret, nonce));
    const seven = sign(mod(e + r * 7n, n), secret, nonce);
    ask('k = 7', seven);
    ask('k = 7 + n', seven, { ...prove(seven), shift: shiftOf(times(7n, G), 7n + n) });
    ask('nonce point at infinity', asked(mod(-r * secret, n), r, 5n, times(secret, G)));
}

const artefact = JSON.parse(readFileSync(new URL('../../contracts/artifacts/P256Probe.json', import.meta.url), 'utf8'));
const init = { code: Cell.fromBase64(artefact.code_boc64), data: beginCell().endCell() };
const address = contractAddress(0, init);
const chain = await Blockchain.create();
const payer = await chain.treasury('payer');
await payer.send({ to: address, value: 1_000_000_000n, init, bounce: false });
const hex = (value, digits) => value.toString(16).padStart(digits, '0');
const answers = [];
for (const { name, digest, r, s, x, y, shift, slope } of cases) {
    const numbers = [digest, r, s, x, y].map((value) => ({ type: 'int', value }));
    const slice = { type: 'slice', cell: beginCell().storeUint(shift, 520).endCell() };
    const { stackReader } = await chain.runGetMethod(address, 'checkSignature', [...numbers, slice, { type: 'int', value: slope }]);
    const accepted = stackReader.readBigNumber() !== 0n;
    const gas = Number(stackReader.readBigNumber());
    const [d, rr, ss, xx, yy, sl] = [digest, r, s, x, y, slope].map((value) => hex(value, 64));
    answers.push({ name, digest: d, r: rr, s: ss, x: xx, y: yy, shift: hex(shift, 130), slope: sl, accepted, gas });
}
writeFileSync(new URL('../tests/p256/emulator.json', import.meta.url), JSON.stringify(answers, null, 1) + '\n');
const accepted = answers.filter((answer) => answer.accepted);
console.error(`${answers.length} cases, ${accepted.length} accepted: ${accepted.map((answer) => answer.name).join('; ')}`);
