// Opcodes that tycho's machine lacks, in the official emulator: P-256 signatures good and bad, previous blocks, and
// RUNVM around them. Each contract of raw opcodes runs once, at its deployment, on what its data holds.

import { createECDH, createHash } from 'node:crypto';
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
async function run(name, code, refs, value = '0.5') {
    const data = beginCell();
    for (const ref of refs) data.storeRef(ref.endCell());
    const init = { code: code.endCell(), data: data.endCell() };
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
await slices('too little gas', { value: '0.0012' });
for (const value of ['0.0015', '0.0016', '0.0017', '0.0018']) await slices(`gas for ${value}`, { value });

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
await nested('in too little gas for all', 0, '', keep(2), hex('f915'), '0.0015');
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
