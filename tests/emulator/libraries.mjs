// Writes fixtures/libraries.json: what the official emulator makes of library cells, as code, as data, published and
// taken back, in transactions and in get-methods. `npm ci && node libraries.mjs`.

import { createRequire } from 'node:module';
import { readFileSync, writeFileSync } from 'node:fs';
const require = createRequire(import.meta.url);
const { Blockchain, Executor } = require('@ton/sandbox');
const { Address, beginCell, Dictionary, external, loadMessage, loadTransaction, Cell, toNano } = require('@ton/core');

const fixtures = [];
const names = new Set();
let watched = null;
const runTransaction = Executor.prototype.runTransaction;
Executor.prototype.runTransaction = async function (args) {
    const done = await runTransaction.call(this, args);
    if (watched && destination(args.message) === watched.address) record(args, done.result);
    return done;
};
const runGetMethod = Executor.prototype.runGetMethod;
Executor.prototype.runGetMethod = async function (args) {
    const done = await runGetMethod.call(this, args);
    if (watched) {
        const { output } = done;
        push({
            now: args.unixTime,
            libraries: args.libs?.toBoc().toString('base64'),
            getter: {
                address: args.address.toRawString(),
                code: args.code.toBoc().toString('base64'),
                data: args.data.toBoc().toString('base64'),
                method: args.methodId,
                exit_code: output.vm_exit_code,
                gas_used: Number(output.gas_used),
                stack: output.stack,
            },
        });
    }
    return done;
};

function destination(message) {
    return loadMessage(message.beginParse()).info.dest?.toString();
}

function push(fixture) {
    const { name } = watched;
    watched = null;
    if (names.has(name)) throw new Error(`two fixtures are named ${name}`);
    names.add(name);
    fixtures.push({ name, ...fixture });
}

function record(args, result) {
    if (!result.success && !result.vmResults) throw new Error(`${watched.name}: ${result.error}`);
    if (process.env.VERBOSE) console.error(watched.name, '=>', words(result));
    push({
        now: args.now,
        lt: args.lt.toString(),
        account: args.shardAccount,
        message: args.message.toBoc().toString('base64'),
        libraries: args.libs?.toBoc().toString('base64'),
        expect: result.success
            ? { transaction: result.transaction, account: result.shardAccount }
            : { refused: Number(result.vmResults.vmExitCode) },
    });
}

function words(result) {
    if (!result.success) return `refused ${result.vmResults.vmExitCode}`;
    const { description } = loadTransaction(Cell.fromBase64(result.transaction).beginParse());
    const compute = description.computePhase;
    const ran = compute.type === 'vm' ? `exit ${compute.exitCode} gas ${compute.gasUsed}` : compute.reason;
    return `${ran} action ${description.actionPhase?.resultCode ?? '-'} ${description.bouncePhase?.type ?? ''}`;
}

const bc = await Blockchain.create();
bc.now = 1_800_000_000;
const giver = await bc.treasury('giver', { balance: toNano(900_000) });

const bits = (value, count) => beginCell().storeUint(value, count);
const hex = (text) => beginCell().storeBuffer(Buffer.from(text.replace(/ /g, ''), 'hex'));
const number = (value) => bits(value, 32).endCell();
const reference = (cell) => beginCell().storeUint(2, 8).storeBuffer(Buffer.isBuffer(cell) ? cell : cell.hash()).endCell({ exotic: true });
// As the reference node's state holds them: lib_descr$00 lib:^Cell publishers:(Hashmap 256 True).
const published = (...cells) => {
    const publishers = Dictionary.empty(Dictionary.Keys.Buffer(32), { serialize: () => {}, parse: () => true });
    publishers.set(Buffer.alloc(32, 0x5a), true);
    const libraries = Dictionary.empty(Dictionary.Keys.Buffer(32), {
        serialize: (cell, builder) => builder.storeUint(0, 2).storeRef(cell).storeSlice(beginCell().storeDictDirect(publishers).asSlice()),
        parse: () => null,
    });
    for (const cell of cells) libraries.set(cell.hash(), cell);
    return beginCell().storeDictDirect(libraries).endCell();
};
const custom = (entries, serialize) => {
    const libraries = Dictionary.empty(Dictionary.Keys.Buffer(32), { serialize, parse: () => null });
    for (const [key, value] of entries) libraries.set(key, value);
    return beginCell().storeDictDirect(libraries).endCell();
};
const simple = (entries) => {
    const libraries = Dictionary.empty(Dictionary.Keys.BigUint(256), {
        serialize: ({ isPublic, root }, builder) => builder.storeBit(isPublic).storeRef(root),
        parse: (slice) => ({ public: slice.loadBit(), root: slice.loadRef() }),
    });
    for (const [cell, isPublic, key] of entries) libraries.set(BigInt('0x' + (key ?? cell.hash()).toString('hex')), { isPublic, root: cell });
    return libraries;
};
const initCell = ({ code, data, libraries }) => {
    const cell = beginCell().storeBit(0).storeBit(0).storeMaybeRef(code).storeMaybeRef(data);
    return cell.storeDict(libraries).endCell();
};

// The emulator keeps the libraries it had where it is given none.
const none = beginCell().endCell();
let nonce = 0;
// Deploys and runs once; without data, a number of its own.
async function deploy(name, { code, data = number(++nonce), libraries, libs = null, workchain = 0, value = '1', body, bounce = true }) {
    const init = { code, data, libraries };
    const address = new Address(workchain, initCell(init).hash());
    bc.libs = libs ?? none;
    watched = name === null ? null : { name, address: address.toString() };
    await giver.send({ to: address, value: toNano(value), init, body, bounce });
    return address;
}
async function call(name, address, { libs = null, body, value = '1', bounce = true, init } = {}) {
    bc.libs = libs ?? none;
    watched = name === null ? null : { name, address: address.toString() };
    await giver.send({ to: address, value: toNano(value), body, bounce, init });
}
async function callExternal(name, address, { libs = null, body = beginCell().endCell() } = {}) {
    bc.libs = libs ?? none;
    watched = { name, address: address.toString() };
    try { await bc.sendMessage(external({ to: address, body })); } catch (error) { if (!/not accept|exit|execution/i.test(error.message)) throw error; }
}
async function get(name, address, { libs = null, method = 12345 } = {}) {
    bc.libs = libs ?? none;
    watched = { name, address: address.toString() };
    try { await bc.runGetMethod(address, method); } catch (error) { if (!/exit|execution/i.test(error.message)) throw error; }
}

// Counts: PUSHCTR c4, CTOS, LDU 32, DROP, INC, NEWC, STU 32, ENDC, POPCTR c4.
const counter = hex('ed44 d0 d31f 30 a4 c8 cb1f c9 ed54').endCell();
// A get-method: the number in the data.
const shows = hex('ed44 d0 d31f 30').endCell();

// A tree of exactly `count` cells, four references each, unlike that of another start.
const spread = (count, start = 0) => {
    let id = start;
    const make = (size) => {
        const cell = bits(++id, 32);
        let left = size - 1;
        for (let i = 0; i < 4 && left > 0; i++) {
            const share = i === 3 ? left : Math.min(left, Math.ceil((size - 1) / 4));
            cell.storeRef(make(share));
            left -= share;
        }
        return cell.endCell();
    };
    return make(count);
};

// 40 cells of 27 176 bits, about what a contract of some size has.
const ofJobSize = (() => {
    let cell = number(3);
    for (let i = 0; i < 39; i++) cell = beginCell().storeBuffer(Buffer.alloc(87, i)).storeRef(cell).endCell();
    return cell;
})();

// ---- Code as a library ----
for (const workchain of [0, -1]) {
    const where = workchain === 0 ? '' : ' of the masterchain';
    const account = await deploy(`code, at deployment${where}`, { code: reference(counter), libs: published(counter), workchain });
    await call(`code, of an active account${where}`, account, { libs: published(counter) });
    await call(`code, missing later${where}`, account);
    await call(`code, missing later, other libraries there${where}`, account, { libs: published(shows) });
    await call(`code, missing later, no bounce${where}`, account, { bounce: false });
    await call(`code, gas for hardly more than the load${where}`, account, { libs: published(counter), value: workchain === 0 ? '0.0005' : '0.005' });
    for (const gas of [100, 209, 210, 211, 310, 400]) {
        const price = workchain === 0 ? 400n : 10_000n;
        await call(`code, ${gas} gas${where}`, account, { libs: published(counter), value: Number(price * BigInt(gas)) / 1e9 });
    }
}
await deploy('code, missing at deployment', { code: reference(counter) });
await deploy('code, missing at deployment, no bounce', { code: reference(counter), bounce: false });
await deploy('code, under the hash of another library', { code: reference(shows), libs: custom([[shows.hash(), counter]], (cell, builder) => builder.storeUint(0, 2).storeRef(cell)) });
await deploy('code, in a dictionary of references', { code: reference(counter), libs: custom([[counter.hash(), counter]], (cell, builder) => builder.storeRef(cell)) });
await deploy('code, in a dictionary of other tags', { code: reference(counter), libs: custom([[counter.hash(), counter]], (cell, builder) => builder.storeUint(3, 2).storeRef(cell)) });
await deploy('code, in a dictionary without references', { code: reference(counter), libs: custom([[counter.hash(), counter]], (_, builder) => builder.storeUint(0, 9)) });
await deploy('code, the second reference in a dictionary', { code: reference(counter), libs: custom([[counter.hash(), counter]], (cell, builder) => builder.storeRef(shows).storeRef(cell)) });
await deploy('code, in a malformed dictionary', { code: reference(counter), libs: hex('a0ff').endCell() });
await deploy('code, in an empty dictionary', { code: reference(counter), libs: beginCell().endCell() });
await deploy('code, among many', { code: reference(counter), libs: published(counter, shows, ...Array.from({ length: 20 }, (_, i) => number(i))) });
await deploy('code, behind a reference', { code: beginCell().storeRef(reference(counter)).endCell(), libs: published(counter) });
await deploy('code, behind two references', { code: beginCell().storeRef(beginCell().storeRef(reference(counter)).endCell()).endCell(), libs: published(counter) });
const nested = beginCell().storeRef(reference(counter)).endCell();
await deploy('code, a library that goes on in a library', { code: reference(nested), libs: published(nested, counter) });
await deploy('code, a library that goes on in a missing library', { code: reference(nested), libs: published(nested) });
const twice = reference(counter);
await deploy('code, a library that is a library cell', { code: reference(twice), libs: published(twice, counter) });
await deploy('code, empty', { code: reference(beginCell().endCell()), libs: published(beginCell().endCell()) });
await deploy('code, of unknown opcodes', { code: reference(hex('ff01').endCell()), libs: published(hex('ff01').endCell()) });
const merkle = (child) => beginCell().storeUint(3, 8).storeBuffer(child.hash()).storeUint(child.depth(), 16).storeRef(child).endCell({ exotic: true });
await deploy('code, a Merkle proof', { code: merkle(counter), libs: published(counter) });
await deploy('code, a Merkle proof behind a reference', { code: beginCell().storeRef(merkle(counter)).endCell() });
await deploy('code, a library that is a Merkle proof', { code: reference(merkle(counter)), libs: published(merkle(counter)) });
await deploy('code, none', { code: null });
{
    // MYCODE, HASHCU: of the library cell or of what it names.
    const own = hex('f82a f900 c8 cbff c9 ed54').endCell();
    await deploy('own code, hashed', { code: reference(own), libs: published(own) });
    // MYCODE, CTOS: gas of a load anew.
    const loads = hex('f82a d0 30').endCell();
    await deploy('own code, loaded', { code: reference(loads), libs: published(loads) });
    await deploy('own code, loaded, not in a library', { code: loads });
    const jumps = hex('88 d0 30').storeRef(reference(counter)).endCell();
    await deploy('own code, loads another library', { code: reference(jumps), libs: published(jumps, counter) });
    const selector = hex('8b08 88').storeRef(counter).endCell();
    await deploy('code, of a pushed slice and reference', { code: reference(selector), libs: published(selector) });
    // ACCEPT, then the counter.
    const accepts = hex('f800 ed44 d0 d31f 30 a4 c8 cb1f c9 ed54').endCell();
    const account = await deploy('code that accepts, at deployment', { code: reference(accepts), libs: published(accepts) });
    await callExternal('external, code there', account, { libs: published(accepts) });
    await callExternal('external, code missing', account);
    await callExternal('external, other libraries there', account, { libs: published(counter) });
    // Refuses: throws 77 before it accepts.
    const refuses = hex('f2c04d').endCell();
    const other = await deploy('code that throws, at deployment', { code: reference(refuses), libs: published(refuses) });
    await callExternal('external, refused by a library', other, { libs: published(refuses) });
}
{
    // SETCODE to a library cell (the reference in the data), then run as that.
    const changes = hex('ed44 d0 d4 30 fb04').endCell();
    const account = await deploy('code, replaced by a library cell', { code: changes, data: beginCell().storeRef(reference(counter)).storeUint(7, 32).endCell() });
    await call('code, after it was replaced', account, { libs: published(counter) });
}
for (const [name, opcode] of Object.entries({ CALLREF: 'db3c', JMPREF: 'db3d', 'PUSHREFCONT and CALLX': '8a', IFREF: '71e300', IFNOTJMPREF: '70e303', PUSHREFSLICE: '89' })) {
    const after = { 'PUSHREFCONT and CALLX': 'd8' }[name] ?? '';
    const code = hex(opcode + after).storeRef(reference(counter)).endCell();
    await deploy(`${name} of a library`, { code, libs: published(counter) });
    await deploy(`${name} of a missing library`, { code });
}
await deploy('IFREF of a library, not taken', { code: hex('70e300').storeRef(reference(counter)).endCell() });
await deploy('PUSHREF of a missing library', { code: hex('88').storeRef(reference(counter)).endCell() });
await deploy('CALLREF of a library, twice', { code: hex('db3c db3c').storeRef(reference(counter)).storeRef(reference(counter)).endCell(), libs: published(counter) });
await deploy('CALLREF of a library, then of its content', { code: hex('db3c db3c').storeRef(reference(counter)).storeRef(counter).endCell(), libs: published(counter) });
await deploy('CALLREF of content, then of its library', { code: hex('db3c db3c').storeRef(counter).storeRef(reference(counter)).endCell(), libs: published(counter) });
await deploy('CALLREF of a library, itself a library, twice', { code: reference(nested), data: number(++nonce), libs: published(nested, counter, twice) });
{
    // DICTPUSHCONST 19, DICTIGETJMPZ, THROWARG: as a compiler makes it, the dictionary of methods a library.
    const methods = Dictionary.empty(Dictionary.Keys.Int(19), { serialize: (cell, builder) => builder.storeSlice(cell.asSlice()), parse: () => null });
    methods.set(0, counter);
    methods.set(12345, shows);
    const root = beginCell().storeDictDirect(methods).endCell();
    const dispatch = (dictionary) => beginCell().storeUint(0xff00, 16).storeUint(0xf4a4 >> 2, 14).storeUint(0, 0).storeBit(1).storeUint(19, 10).storeRef(dictionary).storeUint(0xf4bc, 16).storeUint(0xf2c00b, 24).endCell();
    const libs = published(root, dispatch(root), dispatch(reference(root)), ...leaves(root));
    for (const [name, code] of [['methods', dispatch(reference(root))], ['dispatcher', reference(dispatch(root))], ['dispatcher and methods', reference(dispatch(reference(root)))]]) {
        const account = await deploy(`${name} in a library`, { code, libs });
        await get(`getter, ${name} in a library`, account, { libs });
        await get(`getter, ${name} in a library, no such method`, account, { libs, method: 777 });
        await get(`getter, ${name} in a library, missing`, account);
        await call(`${name} in a library, missing`, account);
    }
}
function leaves(cell) { return cell.refs.flatMap((ref) => [ref, ...leaves(ref)]); }

// ---- Data as a library ----
const content = beginCell().storeUint(41, 32).storeRef(number(5)).endCell();
const inData = (cell) => beginCell().storeRef(cell).storeUint(++nonce, 32).endCell();
// The cell of the data's first reference: PUSHCTR c4, CTOS, LDREF, DROP.
const first = 'ed44 d0 d4 30';
// Puts the integer at the top into new data: NEWC, STI 256, ENDC, POPCTR c4.
const keep = 'c8 caff c9 ed54';
const missing = reference(Buffer.alloc(32, 0xee));
await deploy('data is a library', { code: counter, data: reference(content), libs: published(content) });
await deploy('data is a missing library', { code: counter, data: reference(content) });
await deploy('data is a library and stays', { code: hex('ed44 ed54').endCell(), data: reference(content) });
await deploy('data becomes a library cell', { code: hex(first + 'ed54').endCell(), data: inData(reference(content)), libs: published(content) });
const on = {
    CTOS: 'd0 d31f 30' + keep,
    'CTOS twice': '20 d0 30 d0 d31f 30' + keep,
    XCTOS: 'd739 31' + keep,
    'XCTOS bits': 'd739 30 d307 30' + keep,
    XLOAD: 'd73a f900' + keep,
    'XLOAD and CTOS': 'd73a d0 d31f 30' + keep,
    'XLOAD and XCTOS': 'd73a d739 31' + keep,
    XLOADQ: 'd73b c8 caff 30 c9 ed54',
    'XLOADQ flag': 'd73b' + keep,
    HASHCU: 'f900' + keep,
    CDEPTH: 'd765' + keep,
    CHASHI: 'd768' + keep,
    'store again': 'c8 cc c9 ed54',
};
for (const [name, opcodes] of Object.entries(on)) {
    const code = hex(first + opcodes).endCell();
    await deploy(`${name} of a library`, { code, data: inData(reference(content)), libs: published(content) });
    await deploy(`${name} of a missing library`, { code, data: inData(missing), libs: published(content) });
    await deploy(`${name} of an ordinary cell`, { code, data: inData(content), libs: published(content) });
    await deploy(`${name} of a library of a library`, { code, data: inData(reference(reference(content))), libs: published(content, reference(content)) });
    await deploy(`${name} of a Merkle proof`, { code, data: inData(merkle(content)), libs: published(content) });
}
{
    // CTOS of a missing library in a TRY, whose handler keeps the exit code: PUSHCONT, PUSHCONT, TRY.
    const handler = hex(keep);
    const body = hex(first + 'd0 30');
    const tries = hex('9' + (body.bits / 8).toString(16)).storeBuilder(body).storeBuilder(hex('9' + (handler.bits / 8).toString(16))).storeBuilder(handler).storeBuilder(hex('f2ff')).endCell();
    await deploy('TRY around a missing library', { code: tries, data: inData(missing) });
    await deploy('TRY around a library', { code: tries, data: inData(reference(content)), libs: published(content) });
}
{
    // LDREFRTOS; PLDREF; the same library by two references; a library and its content.
    const two = (a, b) => beginCell().storeRef(a).storeRef(b).storeUint(++nonce, 32).endCell();
    const rtos = hex('ed44 d0 d5 d31f 30' + keep).endCell();
    await deploy('LDREFRTOS of a library', { code: rtos, data: inData(reference(content)), libs: published(content) });
    await deploy('LDREFRTOS of a missing library', { code: rtos, data: inData(missing) });
    const both = hex('ed44 d0 d4 d4 30 d0 30 d0 30').endCell();
    const libs = published(content);
    await deploy('a library twice', { code: both, data: two(reference(content), reference(content)), libs });
    await deploy('a library, then its content', { code: both, data: two(content, reference(content)), libs });
    await deploy('content, then its library', { code: both, data: two(reference(content), content), libs });
}
{
    // Dictionaries of 32-bit keys whose root, or whose inner node, is a library: DICTUGET, DICTUMIN, DICTUSETB, DICTUDEL, CDATASIZEQ.
    const dictionary = Dictionary.empty(Dictionary.Keys.Uint(32), Dictionary.Values.Uint(32));
    for (let i = 0; i < 20; i++) dictionary.set(i * 7, i);
    const root = beginCell().storeDictDirect(dictionary).endCell();
    const inner = (cell) => cell.refs.length === 0 ? cell : beginCell().storeBits(cell.bits).storeRef(cell.refs[0]).storeRef(reference(cell.refs[1])).endCell();
    const deep = inner(root);
    const libs = published(root, root.refs[1]);
    const get = (key, opcode, after) => hex('80' + key.toString(16).padStart(2, '0') + 'ed44 d0 d4 30' + '8020' + opcode + after).endCell();
    for (const [where, cell] of [['root', reference(root)], ['node', deep]]) {
        for (const [state, libraries] of [['', libs], [' missing', null]]) {
            const run = (name, code) => deploy(`${name}, dictionary's ${where} in a${state} library`, { code, data: inData(cell), libs: libraries });
            await run('DICTUGET of the first', get(0, 'f40e', ''));
            await run('DICTUGET of the last', get(126, 'f40e', ''));
            await run('DICTUGET of none', get(100, 'f40e', ''));
            await run('DICTUMIN', hex('ed44 d0 d4 30 8020 f486').endCell());
            await run('DICTUMAX', hex('ed44 d0 d4 30 8020 f48e').endCell());
            await run('DICTUDEL of the last', get(126, 'f45b', '30 ed54'));
            await run('DICTUDEL of the first', get(0, 'f45b', '30 ed54'));
            // value builder, key, dictionary, length: C8 CB1F for the value.
            await run('DICTUSETB of a new key', hex('77 c8 cb1f 8064 ed44 d0 d4 30 8020 f446 ed54').endCell());
            await run('DICTUSETB of the last', hex('77 c8 cb1f 807e ed44 d0 d4 30 8020 f446 ed54').endCell());
            await run('DICTUGETNEXT', get(3, 'f47c', ''));
        }
    }
    const size = (opcode) => hex('ed44 d0 d4 30 8100ff' + opcode).endCell();
    for (const [name, opcode] of [['CDATASIZEQ', 'f940'], ['CDATASIZE', 'f941']]) {
        await deploy(`${name} of a library`, { code: size(opcode), data: inData(reference(root)), libs });
        await deploy(`${name} of a missing library`, { code: size(opcode), data: inData(missing), libs });
        await deploy(`${name} of cells with a library`, { code: size(opcode), data: inData(deep), libs });
        await deploy(`${name} of cells with a missing library`, { code: size(opcode), data: inData(deep) });
    }
}
{
    // RUNVM of a library's code: PUSHREFSLICE or c4, on an empty stack, with and without isolated gas.
    for (const [name, flags] of [['', 'db4000'], [' isolated', 'db4080']]) {
        const code = hex('77 71 89' + flags).storeRef(reference(hex('a4').endCell())).endCell();
        await deploy(`RUNVM${name} of a library`, { code, libs: published(hex('a4').endCell()) });
        const inside = hex('70 89' + flags + keep).storeRef(hex('88 d0 d31f 30').storeRef(reference(content)).endCell()).endCell();
        await deploy(`RUNVM${name} loads a library`, { code: inside, libs: published(content) });
        await deploy(`RUNVM${name} loads a missing library`, { code: inside });
        const again = hex('88 d0 30 70 89' + flags + keep).storeRef(reference(content)).storeRef(hex('88 d0 d31f 30').storeRef(reference(content)).endCell()).endCell();
        await deploy(`RUNVM${name} loads a library loaded before`, { code: again, libs: published(content) });
    }
}
{
    // Get-methods.
    const code = reference(shows);
    const account = await deploy(null, { code, data: reference(content), libs: published(shows, content) });
    await get('getter, code and data in libraries', account, { libs: published(shows, content) });
    await get('getter, code missing', account, { libs: published(content) });
    await get('getter, data missing', account, { libs: published(shows) });
    await get('getter, all missing', account);
}

// ---- Libraries of the account and of the message ----
for (const workchain of [0, -1]) {
    const where = workchain === 0 ? '' : ' of the masterchain';
    for (const isPublic of [false, true]) {
        const kind = isPublic ? 'public' : 'private';
        const libraries = simple([[counter, isPublic]]);
        const account = await deploy(`own ${kind} library, at deployment${where}`, { code: reference(counter), libraries, workchain });
        await call(`own ${kind} library, later${where}`, account, { body: number(1) });
        await call(`own ${kind} library, later, a global one too${where}`, account, { body: number(1), libs: published(counter) });
    }
    await deploy(`own library under another key${where}`, { code: reference(counter), libraries: simple([[counter, false, shows.hash()]]), workchain });
    await deploy(`own library under another key, a global one too${where}`, { code: reference(counter), libraries: simple([[shows, false, counter.hash()]]), libs: published(counter), workchain });
    const other = await deploy(null, { code: reference(counter), libs: published(counter), workchain });
    const init = (libraries, extra = {}) => ({ code: reference(counter), data: number(9), libraries, ...extra });
    await call(`library in the message${where}`, other, { init: init(simple([[counter, false]])) });
    await call(`public library in the message${where}`, other, { init: init(simple([[counter, true]])) });
    await call(`library in the message, another${where}`, other, { init: init(simple([[shows, false]])) });
    await call(`library in the message was not kept${where}`, other);
}

// ---- Actions ----
// Runs the program in the body's first reference on the rest of the body: DROP, LDREF, SWAP, CTOS, BLESS, EXECUTE.
const actor = hex('30 d4 01 d0 ed1e d8').endCell();
const pushInt = (value) => (value <= 10 ? (0x70 + value).toString(16) : '81' + value.toString(16).padStart(4, '0'));
const setLibrary = (mode) => 'd401' + pushInt(mode) + 'fb06';
const body = (program, refs, hash) => {
    let cell = beginCell();
    if (hash) cell.storeBuffer(hash);
    cell.storeRef(hex(program).endCell());
    for (const ref of refs) cell.storeRef(ref);
    return cell.endCell();
};
// LDU 256, DROP, mode, CHANGELIB: the hash behind the program's reference.
const change = (mode) => 'd3ff 30' + pushInt(mode) + 'fb07';
const message = (value, mode) => beginCell().storeUint(0x18, 6).storeAddress(giver.address).storeCoins(toNano(value)).storeUint(0, 1 + 4 + 4 + 64 + 32 + 1 + 1).endCell();
const send = (mode) => 'd401' + pushInt(mode) + 'fb00';
for (const workchain of [0, -1]) {
    const where = workchain === 0 ? '' : ', masterchain';
    for (const mode of [0, 1, 2, 3, 16, 17, 18, 19]) {
        const name = (what) => `SETLIBCODE ${mode}${where}, ${what}`;
        const account = await deploy(name('at deployment'), { code: actor, workchain, body: body(setLibrary(mode), [content]) });
        await call(name('again'), account, { body: body(setLibrary(mode), [content]) });
        await call(name('another'), account, { body: body(setLibrary(mode), [shows]) });
        for (const [next, after] of [[1, 'private'], [2, 'public'], [0, 'taken back']]) {
            await call(`SETLIBCODE ${mode}${where}, then ${after}`, account, { body: body(setLibrary(next), [content]) });
        }
    }
    for (const before of [null, 1, 2]) {
        const kind = { null: 'absent', 1: 'private', 2: 'public' }[before];
        for (const mode of [0, 1, 2, 16, 17, 18]) {
            const account = await deploy(null, { code: actor, workchain, body: body(before === null ? '' : setLibrary(before), before === null ? [] : [content]) });
            await call(`CHANGELIB ${mode}${where}, of a library ${kind}`, account, { body: body(change(mode), [], content.hash()) });
        }
    }
    const fresh = () => deploy(null, { code: actor, workchain, body: body('', []) });
    await call(`libraries, four at once${where}`, await fresh(), { body: body(setLibrary(2) + setLibrary(1) + setLibrary(2), [content, shows, counter]) });
    await call(`library set and taken back${where}`, await fresh(), { body: body(setLibrary(2) + setLibrary(0), [content, content]) });
    await call(`library private, then public${where}`, await fresh(), { body: body(setLibrary(1) + setLibrary(2), [content, content]) });
    await call(`a library cell as a library${where}`, await fresh(), { body: body(setLibrary(2), [reference(content)]) });
    const halted = await fresh();
    await call(`library set, then an action fails${where}`, halted, { body: body(setLibrary(2) + send(0), [content, message('5000')]) });
    await call(`library set, then an action fails, what is left${where}`, halted, { body: body(change(1), [], content.hash()) });
    await call(`library set, then an action fails and bounces${where}`, await fresh(), { body: body(setLibrary(2) + send(16), [content, message('5000')]) });
    await call(`an action fails, then a library is set${where}`, await fresh(), { body: body(send(0) + setLibrary(2), [message('5000'), content]) });
    await call(`two libraries set, then a third fails${where}`, await fresh(), { body: body(setLibrary(2) + setLibrary(1) + setLibrary(3), [content, shows, counter]) });
    await call(`library set, then a message sent, then one fails${where}`, await fresh(), { body: body(setLibrary(2) + send(1) + send(0), [content, message('0.1'), message('5000')]) });
    const loses = await fresh();
    await call(null, loses, { body: body(setLibrary(2) + setLibrary(1), [content, shows]) });
    await call(`library taken back, then an action fails${where}`, loses, { body: body(setLibrary(0) + send(0), [content, message('5000')]) });
    await call(`library set, then the code throws${where}`, await fresh(), { body: body(setLibrary(2) + 'f2c04d', [content]) });
    await call(`library set, then committed, then the code throws${where}`, await fresh(), { body: body(setLibrary(2) + 'f80f f2c04d', [content]) });
    const leaving = await fresh();
    await call(null, leaving, { body: body(setLibrary(2), [content]) });
    await call(`account with a library leaves${where}`, leaving, { body: body(send(160), [message('0')]) });
    const deployed = await deploy(null, { code: actor, workchain, body: body(setLibrary(1), [counter]) });
    // SETCODE to the library cell, then the account's own library serves.
    await call(`code replaced by one's own library${where}`, deployed, { body: body('d401 fb04', [reference(counter)]) });
    await call(`code of one's own private library${where}`, deployed, { body: body('', []) });
}
{
    // More cells than a library may have (config param 43: max_library_cells, 1000), and fewer; up to 300 public libraries.
    for (const count of [999, 1000, 1001]) {
        const account = await deploy(null, { code: actor, workchain: -1, body: body('', []), value: '1000' });
        await call(`a library of ${count} cells`, account, { body: body(setLibrary(2), [spread(count)]), value: '100' });
    }
    const large = await deploy(null, { code: actor, workchain: -1, body: body('', []), value: '1000' });
    for (const count of [1, 2, 3]) await call(`masterchain, ${count} libraries of 900 cells`, large, { body: body(setLibrary(2), [spread(900, count * 10_000)]), value: '100' });
    // A list of cells, each with a library and the next; the loop takes `count` of it: count, PUSHCONT of { LDREF,
    // SWAP, mode, SETLIBCODE, LDREF, DROP, CTOS, NOP }, REPEAT.
    const many = (from, count) => {
        let list = beginCell().endCell();
        for (let i = 0; i < count; i++) list = beginCell().storeRef(number(from + i)).storeRef(list).endCell();
        return list;
    };
    const loop = (count, mode) => 'd4 01 d0' + '81' + count.toString(16).padStart(4, '0') + '99 d401' + pushInt(mode) + 'fb06 d430d000 e4 30';
    for (const workchain of [0, -1]) {
        for (const count of [200, 255]) {
            const where = workchain === 0 ? '' : ', masterchain';
            const account = await deploy(null, { code: actor, workchain, body: body('', []), value: '1000' });
            await call(`${count} public libraries${where}`, account, { body: body(loop(count, 2), [many(10_000, count)]), value: '100' });
            await call(`${count} public libraries and 1 more${where}`, account, { body: body(loop(1, 2), [many(20_000, 1)]), value: '100' });
            await call(`${count} public libraries and 2 more${where}`, account, { body: body(loop(2, 2), [many(20_001, 2)]), value: '100' });
            await call(`${count} public libraries and 60 more, then an action fails${where}`, account, { body: body(loop(60, 2) + send(0), [many(20_100, 60), message('50000')]), value: '100' });
            await call(`${count} public libraries and 60 private, then an action fails${where}`, account, { body: body(loop(60, 1) + send(0), [many(20_200, 60), message('50000')]), value: '100' });
        }
    }
}
{
    // Action lists no opcode makes, put into c5 whole: POPCTR c5.
    const list = (...actions) => actions.reduce((previous, action) => beginCell().storeRef(previous).storeBuilder(action).endCell(), beginCell().endCell());
    const library = (mode, cell) => bits(0x26fa1dd4, 32).storeUint(mode, 7).storeUint(1, 1).storeRef(cell);
    const hash = (mode, cell) => bits(0x26fa1dd4, 32).storeUint(mode, 7).storeUint(0, 1).storeBuffer(cell.hash());
    for (const mode of [3, 4, 5, 6, 8, 10, 19, 20, 32, 34, 64, 66]) {
        const account = await deploy(null, { code: actor, body: body('', []), workchain: -1, value: '10' });
        await call(`action of mode ${mode} with a cell`, account, { body: body('d430 ed55', [list(library(mode, content))]) });
        await call(`action of mode ${mode} with a hash`, account, { body: body('d430 ed55', [list(library(2, content), hash(mode, content))]) });
    }
    const fresh = () => deploy(null, { code: actor, body: body('', []), value: '10', libraries: simple([[content, true, shows.hash()], [counter, false]]) });
    for (const mode of [0, 1, 2]) {
        await call(`a library under another key, mode ${mode}, by the key`, await fresh(), { body: body('d430 ed55', [list(hash(mode, shows))]) });
        await call(`a library under another key, mode ${mode}, by its hash`, await fresh(), { body: body('d430 ed55', [list(hash(mode, content))]) });
        await call(`a library under another key, mode ${mode}, the key's library`, await fresh(), { body: body('d430 ed55', [list(library(mode, shows))]) });
    }
    const account = await deploy(null, { code: actor, body: body('', []), value: '10' });
    await call('action of a library without one', account, { body: body('d430 ed55', [list(bits(0x26fa1dd4, 32).storeUint(2, 7).storeUint(1, 1))]) });
    await call('action of a library with more behind', account, { body: body('d430 ed55', [list(library(2, content).storeUint(1, 1))]) });
    await call('action of a library, then a malformed one', account, { body: body('d430 ed55', [list(library(2, content), bits(1, 32))]) });
}

{
    // Lists of actions by chance, each upon what the ones before left. RANDOM=2000 makes more of them.
    let seed = 20261121;
    const below = (count) => { seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0; return Math.floor((seed / 2 ** 32) * count); };
    const cells = [content, shows, counter, reference(content), number(1), number(2)];
    const modes = [0, 1, 2, 2, 1, 16, 17, 18, 3, 20];
    const actions = [
        () => bits(0x26fa1dd4, 32).storeUint(modes[below(10)], 7).storeUint(1, 1).storeRef(cells[below(6)]),
        () => bits(0x26fa1dd4, 32).storeUint(modes[below(10)], 7).storeUint(0, 1).storeBuffer(cells[below(6)].hash()),
        () => bits(0x26fa1dd4, 32).storeUint(modes[below(3)], 7).storeUint(1, 1).storeRef(cells[below(6)]),
        () => bits(0x0ec3c86d, 32).storeUint([0, 1, 64, 3, 17][below(5)], 8).storeRef(message(['0.01', '0.5', '9000'][below(3)])),
        () => bits(0xad4de08e, 32).storeRef([actor, actor, hex('30 d4 01 d0 ed1e d8 00').endCell()][below(3)]),
        () => bits(0x36e6b809, 32).storeUint([0, 2, 4][below(3)], 8).storeCoins(toNano(['0.1', '1', '900'][below(3)])).storeBit(0),
        () => bits(0x0ec3c86d, 32).storeUint(160, 8).storeRef(message('0')),
    ];
    const count = Number(process.env.RANDOM ?? 60);
    for (const workchain of [0, -1]) {
        let account = null;
        for (let at = 0; at < count; at++) {
            if (account === null || at % 15 === 0) account = await deploy(null, { code: actor, workchain, body: body('', []), value: '50' });
            let list = beginCell().endCell();
            for (let n = below(5); n >= 0; n--) list = beginCell().storeRef(list).storeBuilder(actions[below(below(8) === 0 ? 7 : 6)]()).endCell();
            await call(`actions by chance ${at}${workchain === 0 ? '' : ', masterchain'}`, account, { body: body('d430 ed55', [list]), value: ['0.3', '2'][below(2)], bounce: below(3) > 0 });
        }
    }
}

// ---- Deployment of others: a message that carries a library cell as code ----
{
    const child = { code: reference(counter), data: number(1) };
    const whole = { code: counter, data: number(1) };
    const large = { code: ofJobSize, data: number(1) };
    const small = { code: reference(ofJobSize), data: number(1) };
    for (const [name, init] of [['library cell', child], ['code itself', whole], ['library cell of large code', small], ['large code itself', large]]) {
        const cell = initCell(init);
        const out = beginCell().storeUint(0x18, 6).storeAddress(new Address(0, cell.hash())).storeCoins(toNano('0.5'))
            .storeUint(0, 1 + 4 + 4 + 64 + 32).storeBit(1).storeBit(1).storeRef(cell).storeBit(0).endCell();
        const account = await deploy(null, { code: actor, body: body('', []), value: '10' });
        await call(`a child deployed with the ${name}`, account, { body: body(send(1), [out]), libs: published(counter) });
        const inline = beginCell().storeUint(0x18, 6).storeAddress(new Address(0, cell.hash())).storeCoins(toNano('0.5'))
            .storeUint(0, 1 + 4 + 4 + 64 + 32).storeBit(1).storeBit(0).storeSlice(cell.asSlice()).storeBit(0).endCell();
        await call(`a child deployed with the ${name}, inline`, account, { body: body(send(1), [inline]), libs: published(counter) });
    }
}

// ---- Storage ----
{
    const code = ofJobSize;
    for (const workchain of [0, -1]) {
        const where = workchain === 0 ? '' : ' of the masterchain';
        const account = await deploy(null, { code: actor, workchain, body: body(setLibrary(2), [code]), value: '50' });
        for (const days of [1, 365]) {
            bc.now += days * 86_400;
            await call(`storage of a library${where}, ${days} days`, account, { body: body('', []), value: '0.1' });
        }
        bc.now += 3 * 365 * 86_400;
        await call(`storage of a library${where}, until frozen or poor`, account, { body: body('', []), value: '0.1' });
        bc.now += 365 * 86_400 / 5;
        await call(`storage of a library${where}, long after`, account, { body: body('', []), value: '0.1' });
    }
    // Frozen, then woken with its state, whose public library returns.
    const poor = await deploy(null, { code: actor, workchain: -1, body: body(setLibrary(2), [content]), value: '0.05', data: number(77) });
    bc.now += 60 * 86_400;
    await call('a poor publisher of the masterchain freezes', poor, { body: body('', []), value: '0.001', bounce: false });
    const state = { code: actor, data: number(77), libraries: simple([[content, true]]) };
    bc.libs = none;
    watched = { name: 'a frozen publisher of the masterchain wakes', address: poor.toString() };
    await giver.send({ to: poor, value: toNano('20'), init: state, body: body('', []), bounce: true });
    watched = { name: 'a frozen publisher of the masterchain, after it woke', address: poor.toString() };
    await giver.send({ to: poor, value: toNano('1'), body: body(change(0), [], content.hash()), bounce: true });
}
{
    // Frozen as it was deployed, and woken.
    const idle = await deploy(null, { code: actor, workchain: -1, body: body('', []), value: '0.03', data: number(78) });
    bc.now += 100 * 86_400;
    await call('an account of the masterchain freezes as it was deployed', idle, { body: body('', []), value: '0.1' });
    await call('an account of the masterchain that froze as it was deployed wakes', idle, { body: body('', []), value: '3', init: { code: actor, data: number(78) } });
    // Frozen by the very message that brings its state, and by one that brings another.
    for (const workchain of [0, -1]) {
        const where = workchain === 0 ? '' : ' of the masterchain';
        for (const [name, number] of [['its', 0], ['another', 1]]) {
            const data = beginCell().storeUint(++nonce, 32).storeRef(spread(workchain === 0 ? 60 : 3)).endCell();
            const account = await deploy(null, { code: actor, workchain, body: body('', []), value: workchain === 0 ? '0.02' : '0.03', data });
            const init = { code: actor, data: number === 0 ? data : reference(content) };
            bc.now += 365 * 86_400 * (workchain === 0 ? 4 : 0.2);
            await call(`an account${where} that freezes at a message with ${name} state`, account, { body: body('', []), init });
            await call(`an account${where} that froze at a message with ${name} state`, account, { body: body('', []) });
        }
    }
}

// ---- The Librarian ----
{
    const read = (name) => Cell.fromBase64(JSON.parse(readFileSync(new URL(`../../contracts/artifacts/${name}.json`, import.meta.url))).code_boc64);
    const code = read('Librarian');
    const data = (...cells) => cells.reduce((builder, cell) => builder.storeRef(cell), beginCell()).endCell();
    const librarian = await deploy('Librarian, deployed', { code, data: data(ofJobSize), workchain: -1, value: '5' });
    await call('Librarian, a message', librarian, { body: number(1) });
    await call('Librarian, deployed again', librarian, { init: { code, data: data(ofJobSize) } });
    await callExternal('Librarian, an external message', librarian, { body: number(1) });
    await get('getter, Librarian', librarian);
    const none = data();
    await deploy('Librarian, of nothing', { code, data: none, workchain: -1, value: '5' });
    await deploy('Librarian, of four, two of them equal', { code, data: data(ofJobSize, content, counter, content), workchain: -1, value: '5' });
    await deploy('Librarian, of too large a library', { code, data: data(spread(1001, 70_000)), workchain: -1, value: '50' });
    await deploy('Librarian, of a good library and one too large', { code, data: data(content, spread(1001, 80_000)), workchain: -1, value: '50' });
    await deploy('Librarian, of a library cell', { code, data: data(reference(content)), workchain: -1, value: '5' });
    await deploy('Librarian, with bits in its data', { code, data: beginCell().storeUint(99, 32).storeRef(content).endCell(), workchain: -1, value: '5' });
    await deploy('Librarian, with too little', { code, data: data(content, shows), workchain: -1, value: '0.005' });
    await deploy('Librarian, of the basechain', { code, data: data(content), value: '5' });
}

fixtures.sort((a, b) => (a.name < b.name ? -1 : 1));
writeFileSync(new URL('fixtures/libraries.json', import.meta.url), JSON.stringify(fixtures, null, 1) + '\n');
console.error(`libraries: ${fixtures.length} fixtures`);
process.exit(0);
