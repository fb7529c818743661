// Opcodes that tycho's machine lacks, in the official emulator: P-256 signatures good and bad, previous blocks, and
// RUNVM around them; and those that money hangs on, Ed25519 signatures and the hashes of what is built. Each contract of raw opcodes runs once, at its deployment, on what its data holds.

import { createECDH, createHash, createPublicKey, verify as verifies } from 'node:crypto';
import { createRequire } from 'node:module';
import { label } from './label.mjs';
const require = createRequire(import.meta.url);
const { Blockchain } = require('@ton/sandbox');
const { beginCell, contractAddress, toNano } = require('@ton/core');

const bc = await Blockchain.create();
bc.now = 1_800_000_000;
const giver = await bc.treasury('giver', { balance: toNano(1000) });

const bytes = (buffer) => beginCell().storeBuffer(buffer);
const bits = (value, count) => beginCell().storeUint(value, count);
const hex = (text) => bytes(Buffer.from(text.replace(/ /g, ''), 'hex'));
const word = (value) => Buffer.from(value.toString(16).padStart(64, '0'), 'hex');

// Runs `code` (a builder) on `refs` (builders, at most four).
async function run(name, code, refs, value) {
    const data = beginCell();
    for (const ref of refs) data.storeRef(ref.endCell());
    await deploy(name, { code: code.endCell(), data: data.endCell() }, value);
}

async function deploy(name, init, value = '0.5') {
    label.address = contractAddress(0, init).toString();
    label.name = name;
    await giver.send({ to: contractAddress(0, init), value: toNano(value), init, bounce: true });
    label.address = null;
}

// PUSHCTR c4, CTOS; then LDREFRTOS, SWAP for each reference; DROP.
const load = (count) => 'ed44 d0' + 'd501'.repeat(count) + '30';
// NEWC, then STI 8 for each of `count` integers from the top; ENDC, POPCTR c4.
const keep = (count) => 'c8' + 'ca07'.repeat(count) + 'c9 ed54';
const ofSlice = hex(load(3) + 'f915' + keep(1));
const n = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
const p = 0xffffffff00000001000000000000000000000000ffffffffffffffffffffffffn;
const mod = (a, m) => ((a % m) + m) % m;
const inverse = (a, m) => { let [x, y, u, v] = [mod(a, m), m, 1n, 0n]; while (x) { const q = y / x; [y, x, v, u] = [x, y % x, u, v - q * u]; } return mod(v, m); };
const secret = 0x1f2e3d4c5b6a79880123456789abcdeffedcba98765432100f1e2d3c4b5a6978n;
const pair = createECDH('prime256v1');
pair.setPrivateKey(word(secret));
const point = pair.getPublicKey();
const key = pair.getPublicKey(null, 'compressed');
const number = (buffer) => BigInt('0x' + buffer.toString('hex'));
const digest = (data) => number(createHash('sha256').update(data).digest());

// A fixed nonce, so that the fixtures are the same each time.
const nonce = 0x5a5a000011112222333344445555666677778888999900001111222233334444n;
function signature(data) {
    const nonceKey = createECDH('prime256v1');
    nonceKey.setPrivateKey(word(nonce));
    const r = mod(number(nonceKey.getPublicKey().subarray(1, 33)), n);
    return { r, s: mod((digest(data) + r * secret) * inverse(nonce, n), n) };
}
const pack = ({ r, s }) => Buffer.concat([word(r), word(s)]);
const data = Buffer.from('a quote is a signed statement of a machine');
const good = signature(data);

const slices = (name, over = {}) => run(`p256 ${name}`, ofSlice, [over.data ?? bytes(data), over.signature ?? bytes(pack(good)), over.key ?? bytes(key)], over.value);
await slices('good');
await slices('high s', { signature: bytes(pack({ ...good, s: n - good.s })) });
for (const length of [0, 1, 32, 55, 64, 127]) {
    const text = Buffer.alloc(length, 7);
    await slices(`data of ${length} bytes`, { data: bytes(text), signature: bytes(pack(signature(text))) });
}
for (const count of [1, 7, 33, 1023]) await slices(`data of ${count} bits`, { data: bits(1n, count) });
await slices('other data', { data: bytes(Buffer.concat([data, data.subarray(0, 1)])) });
for (const [name, value] of [['0', 0n], ['1', 1n], ['n - 1', n - 1n], ['n', n], ['n + 1', n + 1n], ['p', p], ['2^256 - 1', (1n << 256n) - 1n]]) {
    await slices(`r = ${name}`, { signature: bytes(pack({ ...good, r: value })) });
    await slices(`s = ${name}`, { signature: bytes(pack({ ...good, s: value })) });
}
await slices('r and s swapped', { signature: bytes(pack({ r: good.s, s: good.r })) });
await slices('nonce point at infinity', { signature: bytes(pack({ r: mod(-digest(data) * inverse(secret, n), n), s: 5n })) });
await slices('signature with more behind', { signature: bytes(Buffer.concat([pack(good), Buffer.alloc(9, 1)])) });
await slices('signature of 511 bits', { signature: bits(1n, 511) });
await slices('no signature', { signature: beginCell() });
for (const tag of [0, 1, 3 - (key[0] - 2), 4, 5, 6, 7, 0x82, 0xff])
    await slices(`key tag ${tag}`, { key: bytes(Buffer.concat([Buffer.from([tag]), key.subarray(1)])) });
for (const [name, x] of [['0', 0n], ['1', 1n], ['2', 2n], ['3', 3n], ['5', 5n], ['p', p], ['p + 5', p + 5n], ['2^256 - 1', (1n << 256n) - 1n]])
    for (const tag of [2, 3]) await slices(`key x = ${name}, tag ${tag}`, { key: bytes(Buffer.concat([Buffer.from([tag]), word(x)])) });
await slices('key all zero', { key: bytes(Buffer.alloc(33)) });
await slices('key uncompressed', { key: bytes(point) });
await slices('key with more behind', { key: bytes(Buffer.concat([key, Buffer.alloc(9, 1)])) });
await slices('key of 263 bits', { key: bits(1n, 263) });
await slices('no key', { key: beginCell() });
await slices('no key and data of 3 bits', { key: beginCell(), data: bits(1n, 3) });
// Data of its own for each, since what ran once holds its result.
for (const value of ['0.0012', '0.0016', '0.0018', '0.0019', '0.002']) {
    const text = Buffer.from(`gas for ${value}`);
    await slices(text.toString(), { data: bytes(text), signature: bytes(pack(signature(text))), value });
}

// The integer comes from the code, the rest from the data.
const integer = (name, push, over = {}) =>
    run(`p256 of an integer, ${name}`, hex(`${push}${load(2)}f914${keep(1)}`), [bytes(over.signature ?? pack(good)), bytes(over.key ?? key)]);
const literal = (value) => {
    // PUSHINT of 19 + 8 * 30 = 259 bits: 82, five bits of length (30), the value.
    const text = ((0x82n << 5n) | 30n).toString(2).padStart(13, '0') + BigInt.asUintN(259, value).toString(2).padStart(259, '0');
    return BigInt('0b' + text).toString(16).padStart(68, '0');
};
const hash = number(Buffer.alloc(32, 0xc3));
await integer('good', literal(hash), { signature: pack(signature(word(hash))) });
await integer('small', '77', { signature: pack(signature(word(7n))) });
await integer('zero', '70', { signature: pack(signature(word(0n))) });
await integer('greatest', literal((1n << 256n) - 1n), { signature: pack(signature(word((1n << 256n) - 1n))) });
await integer('of other data', '78', { signature: pack(signature(word(7n))) });
await integer('negative', '7f');
await integer('least', literal(-(1n << 256n)));
await integer('not a number', '83ff');
await integer('a slice in its place', 'ed44 d0');
await integer('null in its place', '6d');

await run('p256 of an empty stack', hex('3030303030 f914'), []);
await run('p256 of two values', hex('303030 f915'), []);
await run('p256 of integers', hex('f914'), []);
await run('p256 signature is no slice', hex(load(1) + '70 01 f915'), [bytes(key)]);
await run('an opcode cut after 8 bits', bits(0xf9, 8), []);
await run('an opcode cut after 12 bits', bits(0xf91, 12), []);
await run('previous blocks cut after 16 bits', bits(0xf834, 16), []);
await run('previous blocks cut after 20 bits', bits(0xf8340, 20), []);

// Behind a jump, in a continuation, in a loop, under TRY, in a nested machine.
const refs = [bytes(data), bytes(pack(good)), bytes(key)];
await run('p256 behind a jump', hex(load(3)).storeRef(hex('f915' + keep(1)).endCell()), refs);
await run('p256 in a continuation', hex(load(3) + '92f915 d8' + keep(1)), refs);
await run('p256 after a continuation', hex(load(3) + '9100 d8 f915' + keep(1)), refs);
await run('p256 in a loop', hex('739d' + load(3) + 'f91530 e4'), refs);
await run('p256 under TRY', hex('92f915 9170 f2ff' + keep(1)), refs);
const nested = (name, flags, before, after, child = hex('f915'), value = '0.5') =>
    // PUSHINT 3 under the code: data signature key 3 code.
    run(`RUNVM ${name}`, hex(load(4) + '7301' + before + 'db4' + flags.toString(16).padStart(3, '0') + after), [...refs, child], value);
await nested('p256', 0, '', keep(2));
await nested('that throws', 0, '', keep(2), hex('303030 f22a'));
await nested('with an unknown opcode', 0, '', keep(2), hex('ff01'));
await nested('and p256 after it', 0, '', '3030' + load(3) + 'f915' + keep(1));
await nested('with gas', 8, '811fff', 'c8 cb1f ca07 ca07 c9 ed54');
await nested('with too little gas', 8, '8103e8', 'c8 cb1f ca07 cb1f c9 ed54');
await nested('with hardly any gas', 8, '75', 'c8 cb1f ca07 cb1f c9 ed54');
await nested('isolated', 128, '', keep(2));
await nested('isolated with gas', 136, '811fff', 'c8 cb1f ca07 ca07 c9 ed54');
await nested('with one value back', 256, '71', keep(2));
await nested('with more values back than there are', 256, '75', keep(2));
await nested('with data', 4, 'ed44', '30' + keep(2));
await nested('with data and actions', 36, 'ed44', '3030' + keep(2));
await nested('with data of its own', 4, 'ed44', 'ed54 30', hex('f915 c8ca07c9ed54 f80f'));
await nested('in too little gas for all', 0, '', keep(2), hex('f91500'), '0.0015');
await nested('in RUNVM', 0, '', keep(3), hex('73 89 db4000').storeRef(hex('f915').endCell()));

// What the chain shows of its masterchain.
const id = (seqno) => ({
    workchain: -1, shard: 1n << 63n, seqno,
    rootHash: createHash('sha256').update(`root ${seqno}`).digest(), fileHash: createHash('sha256').update(`file ${seqno}`).digest(),
});
const blocks = (newest) => ({
    lastMcBlocks: Array.from({ length: Math.min(16, newest + 1) }, (_, i) => id(newest - i)),
    prevKeyBlock: id(newest > 5 ? 5 : 0),
    lastMcBlocks100: Array.from({ length: Math.min(16, Math.floor(newest / 100) + 1) }, (_, i) => id((Math.floor(newest / 100) - i) * 100)),
});
const ask = { last: 'f83400', key: 'f83401', hundreds: 'f83402' };
for (const newest of [0, 7, 230, 5000]) {
    bc.prevBlocks = blocks(newest);
    for (const [name, opcode] of Object.entries(ask)) {
        // UNTUPLE 5, then the five numbers of the block; or how many blocks, and the seqno of the oldest.
        await run(`previous blocks, ${name} of ${newest}`, hex(`${opcode}${name === 'key' ? '' : '6f10'} 6f25 c8 cbff cbff cb1f cb3f ca1f c9 ed54`), []);
        if (name !== 'key') await run(`previous blocks, ${name} of ${newest}, oldest`, hex(`${opcode}6f88 ${opcode}6f8b6f12 c8 cb1f cb1f c9 ed54`), []);
    }
}
bc.prevBlocks = { ...blocks(230), lastMcBlocks100: undefined };
for (const [name, opcode] of Object.entries(ask)) await run(`previous blocks of two lists, ${name}`, hex(`${opcode}6f88c8cb1fc9ed54`), []);
bc.prevBlocks = undefined;
for (const [name, opcode] of Object.entries(ask)) await run(`no previous blocks, ${name}`, hex(`${opcode}c8cb1fc9ed54`), []);

// ---------------------------------------------------------------- Ed25519

const prime = (1n << 255n) - 19n, order = (1n << 252n) + 27742317777372353535851937790883648493n;
const power = (x, e) => { let r = 1n; for (x = mod(x, prime); e > 0n; e >>= 1n, x = x * x % prime) if (e & 1n) r = r * x % prime; return r; };
const invert = (x) => power(x, prime - 2n);
const curve = mod(-121665n * invert(121666n), prime);
const sum = ([x, y], [u, v]) => { const f = curve * x * u * y % prime * v % prime; return [(x * v + u * y) * invert(1n + f), (y * v + x * u) * invert(1n - f)].map((c) => mod(c, prime)); };
const multiple = (k, point) => { let r = [0n, 1n]; for (; k > 0n; k >>= 1n, point = sum(point, point)) if (k & 1n) r = sum(r, point); return r; };
const little = (value) => Buffer.from(value.toString(16).padStart(64, '0'), 'hex').reverse();
const fromLittle = (buffer) => number(Buffer.from(buffer).reverse());
const encode = ([x, y]) => little(y | ((x & 1n) << 255n));
const base = [15112221349535400772501151409588531511454012693041857206046113283949847762202n, 46316835694926478169428394003475163141307993866256225615783033603165251855960n];
// Of order 8.
const torsion = (() => { const y = fromLittle(Buffer.from('c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a', 'hex')); const square = mod((y * y - 1n) * invert(curve * y * y + 1n), prime); let x = power(square, (prime + 3n) / 8n); if (mod(x * x - square, prime)) x = mod(x * power(2n, (prime - 1n) / 4n), prime); return [x, y]; })();
const sha512 = (...parts) => fromLittle(createHash('sha512').update(Buffer.concat(parts)).digest());
const scalar = 0x0123456789abcdef0fedcba98765432100112233445566778899aabbccddeef0n % order, blind = 0x3333n;
// What `key` says of the message, though `scalar` is the secret of another point where the key has a part of small order.
const edSign = (text, key) => { const r = encode(multiple(blind, base)); return Buffer.concat([r, little(mod(blind + mod(sha512(r, key, text), order) * scalar, order))]); };
const holds = (text, seal, key) => { try { return verifies(null, text, createPublicKey({ key: Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), key]), format: 'der', type: 'spki' }), seal); } catch { return false; } };

// A voucher has 54 bytes.
const promise = Buffer.from('chvchr' + 'j'.repeat(32) + 'posted l' + 'amount  ');
const edKey = encode(multiple(scalar, base));
const edGood = edSign(promise, edKey);
// PLDU 256 makes the key an integer.
const ed = (name, over = {}) => run(`ed25519 ${name}`, hex(load(3) + 'd70bff f911' + keep(1)), [over.data ?? bytes(promise), over.signature ?? bytes(edGood), over.key ?? bytes(edKey)], over.value);
await ed('good');
await ed('of other data', { data: bytes(Buffer.concat([promise, promise.subarray(0, 1)])) });
for (const length of [0, 1, 32, 127]) await ed(`of ${length} bytes`, { data: bytes(Buffer.alloc(length, 9)), signature: bytes(edSign(Buffer.alloc(length, 9), edKey)) });
await ed('of 7 bits', { data: bits(1n, 7) });
await ed('signature of 511 bits', { signature: bits(1n, 511) });
await ed('signature with more behind', { signature: bytes(Buffer.concat([edGood, Buffer.alloc(9, 1)])) });
await ed('no signature', { signature: beginCell() });
for (const bit of [0, 255, 256, 511]) { const other = Buffer.from(edGood); other[bit >> 3] ^= 128 >> (bit & 7); await ed(`signature with bit ${bit} changed`, { signature: bytes(other) }); }
const half = fromLittle(edGood.subarray(32));
for (const [name, value] of [['s + order', half + order], ['s = 0', 0n], ['s = order', order], ['s of 256 bits', (1n << 256n) - 1n]])
    await ed(`signature of ${name}`, { signature: bytes(Buffer.concat([edGood.subarray(0, 32), little(value)])) });
// Keys of small order and such as are written in more than one way, with a message they are made to sign where one exists.
const small = Array.from({ length: 8 }, (_, i) => encode(multiple(BigInt(i), torsion)));
const odd = { 'y = 1, x = -0': little(1n | (1n << 255n)), 'y = p': little(prime), 'y = p, odd': little(prime | (1n << 255n)), 'y = p + 1': little(prime + 1n), 'y = p + 1, odd': little((prime + 1n) | (1n << 255n)), 'y = -1, x = -0': little((prime - 1n) | (1n << 255n)), 'y = 2': little(2n), 'y = 2^255 - 1': little((1n << 255n) - 1n) };
const keys = [...small.map((key, i) => [`${i} of small order`, key]), ...Object.entries(odd)];
for (const [name, key] of keys) {
    const seal = Buffer.concat([small[0], little(0n)]);
    const texts = Array.from({ length: 40 }, (_, i) => Buffer.from(`message ${i}`));
    const text = texts.find((text) => holds(text, seal, key)) ?? texts[0];
    await ed(`key ${name}`, { data: bytes(text), signature: bytes(seal), key: bytes(key) });
    await ed(`signature whose first half is ${name}`, { signature: bytes(Buffer.concat([key, little(0n)])), key: bytes(small[0]) });
}
// A key with a part of small order: what it signs holds for one message in eight, unless the check ignores that part.
const mixed = encode(sum(multiple(scalar, base), torsion));
const texts = Array.from({ length: 100 }, (_, i) => Buffer.from(`message ${i}`));
for (const found of [true, false]) {
    const text = texts.find((text) => holds(text, edSign(text, mixed), mixed) === found);
    await ed(`key of mixed order, ${found}`, { data: bytes(text), signature: bytes(edSign(text, mixed)), key: bytes(mixed) });
}
for (const value of ['0.0003', '0.0004', '0.0005', '0.0006']) {
    const text = Buffer.from(`gas for ${value}`);
    await ed(text.toString(), { data: bytes(text), signature: bytes(edSign(text, edKey)), value });
}
const edOfHash = (name, push, seal) => run(`ed25519 of an integer, ${name}`, hex(`${push}${load(2)}d70bff f910${keep(1)}`), [bytes(seal), bytes(edKey)]);
await edOfHash('good', literal(hash), edSign(word(hash), edKey));
await edOfHash('small', '77', edSign(word(7n), edKey));
await edOfHash('of other data', '78', edSign(word(7n), edKey));
await edOfHash('negative', '7f', edGood);
// Only the first ten checks of a transaction are free of charge.
await run('ed25519, eleven checks', hex(load(3) + 'd70bff' + '222222 f911 30'.repeat(10) + 'f911' + keep(1)), [bytes(promise), bytes(edGood), bytes(edKey)]);

// ---------------------------------------------------------------- what is built

// The data, stored into a builder: NEWC, STSLICE.
const builder = beginCell().storeUint(0x1234567890abcdefn, 64).storeRef(beginCell().storeUint(5, 8).storeRef(beginCell().endCell()).endCell()).endCell();
for (const [name, code] of [['HASHBU', 'f916 c8cbffc9ed54'], ['BDEPTH', 'cf30 c8cb0fc9ed54'], ['BTOS', 'cf50 c8cec9ed54'], ['BTOS SHA256U', 'cf50 f902 c8cbffc9ed54'], ['BTOS HASHSU', 'cf50 f901 c8cbffc9ed54']])
    await deploy(`builder ${name}`, { code: hex(`ed44 d0 c8 ce ${code}`).endCell(), data: builder });
await run('SHA256U of 7 bits', hex(load(1) + 'f902 c8cbffc9ed54'), [bits(1n, 7)]);
