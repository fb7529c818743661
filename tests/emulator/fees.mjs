// Whole traces in the official emulator, from a V5R1 wallet's external message to the last refund: writes
// ../snapshots/fees.json, of which docs/fees.md has its tables. `npm ci && npm run fees`.

import { createRequire } from 'node:module';
import { readFileSync, writeFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
const require = createRequire(import.meta.url);
const { Blockchain } = require('@ton/sandbox');
const { WalletContractV5R1, internal } = require('@ton/ton');
const { beginCell, Cell, contractAddress, Dictionary, external, SendMode } = require('@ton/core');
const { keyPairFromSeed, sign } = require('@ton/crypto');

const TON = 1_000_000_000n;
const DAY_S = 86400;
const NETWORK = -3;
const PAYLOAD_BYTES = 254;
const BOND = TON / 10n;
const DEPOSIT = TON / 10n;
const UNITS = { input: 100, cached: 0, output: 50 };
const PRICES = [2_000_000n, 1_000_000n, 6_000_000n];

const b = beginCell;
const hash = (text) => BigInt('0x' + createHash('sha256').update(text).digest('hex'));
const hashOf = (cell) => BigInt('0x' + cell.hash().toString('hex'));
const artefact = (name) => JSON.parse(readFileSync(new URL(`../../contracts/artifacts/${name}.json`, import.meta.url)));
const code = Object.fromEntries(['Registry', 'Model', 'Worker', 'Job', 'Platform'].map((name) => [name, Cell.fromBase64(artefact(name).code_boc64)]));
const library = (cell) => b().storeUint(2, 8).storeBuffer(cell.hash()).endCell({ exotic: true });
const jobCode = library(code.Job), platformCode = library(code.Platform);
const codeRef = (builder, cell) => builder.storeUint(hashOf(cell), 256).storeUint(cell.depth(), 16);
const prices = (builder) => PRICES.reduce((rest, price) => rest.storeUint(price, 48), builder);
const bytes = (value, size) => Buffer.from(value.toString(16).padStart(2 * size, '0'), 'hex');
function sealed(size) {
    let next = null;
    for (let cells = size / 127; cells > 0; cells--) {
        const cell = b().storeBuffer(Buffer.alloc(127, 7));
        if (next) cell.storeRef(next);
        next = cell.endCell();
    }
    return next;
}

const bc = await Blockchain.create();
bc.now = 1_800_000_000;
const published = Dictionary.empty(Dictionary.Keys.BigUint(256), Dictionary.Values.Cell());
for (const cell of [code.Job, code.Platform]) published.set(hashOf(cell), cell);
bc.libs = b().storeDictDirect(published).endCell();
const giver = await bc.treasury('giver', { balance: 100_000n * TON });
// Stands for the Registry, which has no part in these traces but the attestation's last steps.
const registry = await bc.treasury('registry', { balance: 1_000n * TON });
const workerKey = keyPairFromSeed(Buffer.alloc(32, 5)), sessionKey = keyPairFromSeed(Buffer.alloc(32, 7)), deliveryKey = keyPairFromSeed(Buffer.alloc(32, 8));

const codes = codeRef(codeRef(b(), code.Worker), code.Model).storeUint(hashOf(platformCode), 256).endCell();
const params = b().storeAddress(giver.address).storeUint(1000, 16).storeCoins(10n * TON).storeUint(14 * DAY_S, 32).storeAddress(giver.address).storeUint(7 * DAY_S, 32).endCell();
const generation = b().storeInt(NETWORK, 32).storeUint(100, 16).storeUint(2000, 16).storeCoins(BOND).storeRef(jobCode).storeRef(codes).storeRef(params);
const network = b().storeAddress(registry.address).storeBuilder(generation).endCell();

// A wallet of its own for client, worker's owner and publisher, each deployed before it is measured.
async function walletOf(seed) {
    const key = keyPairFromSeed(Buffer.alloc(32, seed));
    const wallet = WalletContractV5R1.create({ workchain: 0, publicKey: key.publicKey, walletId: { networkGlobalId: NETWORK } });
    await giver.send({ to: wallet.address, value: 1_000n * TON, bounce: false });
    let seqno = 0;
    const send = async (to, value, body, init) => {
        const transfer = wallet.createTransfer({
            seqno, secretKey: key.secretKey, sendMode: SendMode.PAY_GAS_SEPARATELY, timeout: bc.now + 60,
            messages: [internal({ to, value, body, init, bounce: true })],
        });
        const done = await bc.sendMessage(external({ to: wallet.address, init: seqno === 0 ? wallet.init : undefined, body: transfer }));
        seqno += 1;
        return done;
    };
    await send(giver.address, 1n, b().endCell());
    return { address: wallet.address, send };
}
const client = await walletOf(1), owner = await walletOf(2), publisher = await walletOf(3);

const modelId = hash('model');
const modelInit = { code: code.Model, data: b().storeUint(modelId, 256).storeRef(network).storeBit(0).endCell() };
const workerInit = { code: code.Worker, data: b().storeAddress(owner.address).storeRef(network).storeBit(0).endCell() };
const platformInit = { code: platformCode, data: b().storeUint(5, 128).storeRef(network).storeBit(0).endCell() };
const [model, worker, platform] = [modelInit, workerInit, platformInit].map((init) => contractAddress(0, init));

// What a trace cost: every transaction's fees, and the part of forward fees that its receiver's validators get.
function cost(...traces) {
    const row = { transactions: 0, gas: 0, fees: 0n };
    for (const { transactions } of traces) for (const { description, totalFees } of transactions) {
        const compute = description.computePhase, action = description.actionPhase;
        const failed = compute.type === 'vm' ? !compute.success : compute.reason !== 'no-gas';
        if (failed || (action && !action.success)) throw new Error(`a transaction failed: ${compute.exitCode} ${action?.resultCode}`);
        row.transactions += 1;
        row.gas += compute.type === 'vm' ? Number(compute.gasUsed) : 0;
        row.fees += totalFees.coins + (action?.totalFwdFees ?? 0n) - (action?.totalActionFees ?? 0n);
    }
    return { ...row, fees: Number(row.fees) };
}
const message = (opcode) => b().storeUint(opcode, 32).storeUint(1, 64);
const toContract = (to, body) => bc.sendMessage(external({ to, body }));
const getInt = async (method, ...args) => (await bc.runGetMethod(worker, method, args.map((value) => ({ type: 'int', value: BigInt(value) })))).stackReader.readBigNumber();

const rows = {};
rows['Register a model (42 bytes of metadata)'] = cost(await publisher.send(model, TON, message(0x43480201).storeUint(500, 16).storeUint(0, 8).storeBit(false).storeRef(b().storeBuffer(Buffer.alloc(42, 97)).endCell()).endCell(), modelInit));
rows['Stake, with the deployment of the Worker'] = cost(await owner.send(worker, 22n * TON, message(0x43480301).storeCoins(20n * TON).endCell(), workerInit));
const attestation = () => b().storeBuffer(workerKey.publicKey).storeUint(hash('encryption key'), 256).storeUint(hash('measurement'), 256).storeUint(bc.now + 6 * DAY_S, 32)
    .storeRef(b().storeUint(1n, 256).storeUint(1, 32).storeUint(1, 32).storeUint(1n, 256).storeUint(1n, 160).storeUint(5n, 128).endCell()).endCell();
await registry.send({ to: platform, value: TON, body: message(0x43480601).storeAddress(owner.address).storeUint(0, 32).storeRef(attestation()).endCell(), init: platformInit, bounce: true, sendMode: 1 });
rows['Offer a model'] = cost(await owner.send(worker, TON / 10n, message(0x43480303).storeUint(modelId, 256).storeCoins(1000n).storeRef(prices(b()).endCell()).endCell()));

let nonce = 0n;
let claims = 0;
const seller = (settleWithinS = 600) => prices(b().storeBuffer(worker.hash).storeBuffer(workerKey.publicKey).storeBuffer(model.hash).storeUint(settleWithinS, 32).storeUint(600, 16)).endCell();
function jobAt() {
    nonce += 1n;
    const init = { code: jobCode, data: b().storeAddress(client.address).storeUint(nonce, 64).storeBit(0).endCell() };
    return { nonce, init, address: contractAddress(0, init) };
}
const terms = (body, deposit, until) => body.storeUint(until, 32).storeUint(deposit, 64).storeUint(UNITS.input, 32).storeUint(UNITS.cached, 32).storeUint(UNITS.output, 32).storeUint(BOND, 64);
async function open(job, value, body) {
    const trace = await client.send(job.address, value, body, job.init);
    job.lt = trace.transactions.find(({ inMessage }) => inMessage.info.type === 'internal' && inMessage.info.dest.equals(job.address)).lt;
    return trace;
}
const post = (job, value, { waitS = 120, inputBytes = PAYLOAD_BYTES } = {}) => open(job, value, terms(message(0x43480401), DEPOSIT, bc.now + waitS).storeRef(seller()).storeRef(sealed(inputBytes)).endCell());
function openTerms(waitS = 120) {
    const place = prices(codeRef(codeRef(b(), code.Worker), network).storeUint(600, 32)).storeUint(BOND, 64).endCell();
    const market = b().storeUint(0x4d, 8).storeBuffer(model.hash).storeUint(bc.now - 1, 32).storeUint(600, 32).storeUint(1_000_000n, 64).storeBuffer(deliveryKey.publicKey).storeBit(0).storeUint(0, 64).storeRef(place).endCell();
    return message(0x4348040e).storeUint(bc.now + waitS, 32).storeUint(DEPOSIT, 64).storeUint(UNITS.input, 32).storeUint(UNITS.cached, 32).storeUint(UNITS.output, 32).storeRef(market).endCell();
}
const postOpen = (job, value, { waitS } = {}) => open(job, value, openTerms(waitS));
function deliver(job, inputBytes = PAYLOAD_BYTES) {
    const input = sealed(inputBytes);
    const order = Buffer.concat([Buffer.from('chinpt'), job.address.hash, bytes(job.lt, 8), seller().hash(), input.hash()]);
    return toContract(job.address, b().storeUint(0x43480411, 32).storeBuffer(sign(order, deliveryKey.secretKey)).storeRef(input).endCell());
}
function claim(job, market) {
    const order = b().storeUint(0x63686f726472n, 48).storeBuffer(worker.hash).storeUint(claims++, 32).storeUint(bc.now + 60, 32).storeAddress(client.address).storeUint(job.nonce, 64)
        .storeUint(modelId, 256).storeUint(BOND, 64).storeBit(market ? 1 : 0).storeBit(0).endCell();
    return toContract(worker, b().storeUint(0x43480309, 32).storeBuffer(sign(order.hash(), workerKey.secretKey)).storeRef(order).endCell());
}
const contentOf = (result) => b().storeUint(hashOf(result), 256).storeUint(hash('transcript'), 256).storeUint(1, 32).storeUint(0, 8).endCell();
const receiptOf = (job, content, over = {}) => b().storeUint(0x636872637074n, 48).storeAddress(job.address).storeUint(job.lt, 64).storeUint(over.sequence ?? 1, 32).storeBit(over.final ?? true)
    .storeUint(UNITS.input, 32).storeUint(UNITS.cached, 32).storeUint(UNITS.output, 32).storeUint(over.amount ?? TON, 64).storeUint(hashOf(content), 256).endCell();
function answer(job, resultBytes = PAYLOAD_BYTES) {
    const result = sealed(resultBytes), content = contentOf(result), receipt = receiptOf(job, content);
    return toContract(job.address, b().storeUint(0x43480406, 32).storeBuffer(sign(receipt.hash(), workerKey.secretKey)).storeRef(receipt).storeRef(content).storeRef(result).endCell());
}

{
    const job = jobAt();
    rows['Directed job, answered without a claim'] = cost(await post(job, TON / 5n), await answer(job));
}
{
    const job = jobAt();
    rows['Directed job, answered without a claim, with 2 540 bytes of input and of result'] = cost(await post(job, TON / 5n, { inputBytes: 2540 }), await answer(job, 2540));
}
{
    const job = jobAt();
    const units = UNITS.output;
    UNITS.output = 5000;
    rows['Directed job for 0.03 TON, answered without a claim, whose share is sent'] = cost(await post(job, TON / 2n), await answer(job));
    UNITS.output = units;
}
{
    const job = jobAt();
    rows['Directed job, claimed and answered'] = cost(await post(job, TON / 5n), await claim(job), await answer(job));
}
{
    const job = jobAt();
    const posted = await postOpen(job, TON / 5n);
    const taken = await claim(job, true);
    const delivered = await deliver(job);
    rows['Job of the market: posted, taken, input delivered, answered'] = cost(posted, taken, delivered, await answer(job));
}
{
    const job = jobAt();
    const posted = await postOpen(job, TON / 5n);
    const taken = await claim(job, true);
    const delivered = await client.send(job.address, TON / 50n, message(0x43480409).storeRef(sealed(PAYLOAD_BYTES)).endCell());
    rows["The same, with the input in a message of the client's wallet"] = cost(posted, taken, delivered, await answer(job));
}
const session = async (deposit, value, waitS = DAY_S, settleWithinS) => {
    const job = jobAt();
    const body = terms(message(0x4348040d), deposit, bc.now + waitS).storeRef(seller(settleWithinS)).storeRef(b().storeUint(0x53, 8).storeBuffer(sessionKey.publicKey).endCell()).endCell();
    return { job, opened: await open(job, value, body) };
};
function redeem(job, sequence, amount, final) {
    const receipt = receiptOf(job, contentOf(sealed(PAYLOAD_BYTES)), { sequence, amount, final });
    const promise = Buffer.concat([Buffer.from('chvchr'), job.address.hash, bytes(job.lt, 8), bytes(amount, 8)]);
    const voucher = b().storeBuffer(sign(promise, sessionKey.secretKey)).endCell();
    return toContract(job.address, b().storeUint(0x43480408, 32).storeBuffer(sign(receipt.hash(), workerKey.secretKey)).storeUint(amount, 64).storeRef(receipt).storeRef(voucher).endCell());
}
{
    const { job, opened } = await session(TON, TON + TON / 10n);
    const redeemed = await redeem(job, 1, TON / 5n, false);
    const ended = await redeem(job, 2, TON / 2n, true);
    rows['Session: opened, redeemed once, ended by a last receipt'] = cost(opened, redeemed, ended);
    rows['Its opening alone'] = cost(opened);
    rows['A redemption alone'] = cost(redeemed);
    rows['Its last receipt alone, with payment, share and refund'] = cost(ended);
}
{
    const { job, opened } = await session(TON, TON + TON / 10n);
    const redeemed = await redeem(job, 1, TON / 5n, false);
    const asked = await client.send(job.address, TON / 50n, message(0x4348040a).endCell());
    bc.now += 601;
    const expired = await client.send(job.address, TON / 50n, message(0x43480404).endCell());
    rows['Session: opened, redeemed once, closed by its client, expired'] = cost(opened, redeemed, asked, expired);
    rows['Its close and expiry alone'] = cost(asked, expired);
}
{
    const job = jobAt();
    const posted = await post(job, TON / 5n);
    bc.now += 121;
    rows['Directed job that nobody answered, expired by its client'] = cost(posted, await client.send(job.address, TON / 50n, message(0x43480404).endCell()));
}
{
    const job = jobAt();
    rows['Directed job, called off'] = cost(await post(job, TON / 5n), await client.send(job.address, TON / 50n, message(0x43480403).endCell()));
}

// What the least value brings above the deposit, and what of it was used by the largest result it foresees, at the last
// moment. A claim brings more than it uses.
const refund = ({ transactions }, job) => transactions.find(({ inMessage }) => inMessage.info.type === 'internal' && inMessage.info.src.equals(job.address) && inMessage.info.dest.equals(client.address)).inMessage.info.value.coins;
const minima = {};
{
    // No getter names it: the least that is taken.
    let [refused, least] = [DEPOSIT, DEPOSIT + TON];
    while (least - refused > 1n) {
        const middle = (least + refused) / 2n, job = jobAt();
        const trace = await client.send(job.address, middle, openTerms(), job.init);
        const taken = trace.transactions.some(({ inMessage, description }) => inMessage.info.dest.equals(job.address) && description.computePhase.success);
        if (taken) least = middle; else refused = middle;
    }
    const job = jobAt();
    await postOpen(job, least, { waitS: 4 * DAY_S });
    bc.now += 4 * DAY_S;
    await claim(job, true);
    bc.now += 600;
    await deliver(job, Math.floor((512 + 8 * UNITS.input) / 127) * 127);
    bc.now += 600;
    const ended = await answer(job, Math.floor((512 + 8 * UNITS.input + 16 * UNITS.output) / 127) * 127);
    const paid = (BigInt(UNITS.input) * PRICES[0] + BigInt(UNITS.output) * PRICES[2] + 999n) / 1000n;
    minima['post_open_job'] = { attached: Number(least - DEPOSIT), used: Number(least - DEPOSIT - (refund(ended, job) - (DEPOSIT - paid))) };
}
{
    const job = jobAt();
    const least = await getInt('minJobValue', DEPOSIT, UNITS.input + UNITS.cached, UNITS.output);
    await post(job, least, { waitS: 7 * DAY_S });
    bc.now += 7 * DAY_S;
    const foreseen = 512 + 8 * UNITS.input + 16 * UNITS.output;
    const ended = await answer(job, Math.floor(foreseen / 127) * 127);
    const paid = (BigInt(UNITS.input) * PRICES[0] + BigInt(UNITS.output) * PRICES[2] + 999n) / 1000n;
    const back = refund(ended, job) - (DEPOSIT - paid);
    minima['post_job'] = { attached: Number(least - DEPOSIT), used: Number(least - DEPOSIT - back) };
}
{
    const least = await getInt('minSessionValue', TON);
    const { job } = await session(TON, least, 14 * DAY_S, 7 * DAY_S);
    await redeem(job, 1, TON / 5n, false);
    bc.now += 14 * DAY_S;
    const ended = await redeem(job, 2, TON / 2n, true);
    const back = refund(ended, job) - TON / 2n;
    minima['open_session'] = { attached: Number(least - TON), used: Number(least - TON - back) };
}

const out = {
    about: 'nanoTON; @ton/sandbox, whole traces of V5R1 wallets',
    payload_bytes: PAYLOAD_BYTES,
    code_hashes: Object.fromEntries(['Model', 'Worker', 'Job', 'Platform'].map((name) => [name, code[name].hash().toString('hex')])),
    traces: Object.entries(rows).map(([what, row]) => ({ what, ...row })),
    minima: Object.entries(minima).map(([message, row]) => ({ message, ...row })),
};
writeFileSync(new URL('../snapshots/fees.json', import.meta.url), JSON.stringify(out, null, 2) + '\n');
process.exit(0);
