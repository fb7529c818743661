// Chrysalis in the official emulator: encoders and a market.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
const require = createRequire(import.meta.url);
export const { Blockchain } = require('@ton/sandbox');
export const { beginCell, Cell, Address, Dictionary, contractAddress, external, internal, toNano, storeStateInit } = require('@ton/core');
export const { keyPairFromSeed, sign } = require('@ton/crypto');

const ART = new URL('../../contracts/artifacts', import.meta.url).pathname;
export const code = Object.fromEntries(['Registry', 'Model', 'Worker', 'Job', 'Platform'].map((n) =>
    [n, Cell.fromBase64(JSON.parse(readFileSync(`${ART}/${n}.json`, 'utf8')).code_boc64)]));
export const h256 = (s) => BigInt('0x' + createHash('sha256').update(s).digest('hex'));
export const TON = 1_000_000_000n;

const b = beginCell;
const codeRef = (c) => (x) => x.storeUint(BigInt('0x' + c.hash().toString('hex')), 256).storeUint(c.depth(), 16);
export const codesCell = () => { const x = b(); codeRef(code.Worker)(x); codeRef(code.Model)(x); codeRef(code.Job)(x); return x.endCell(); };
export const paramsCell = (p) => b().storeInt(p.networkId, 32).storeAddress(p.treasury).storeUint(p.feeBps, 16).storeUint(p.royaltyCapBps, 16)
    .storeCoins(p.minStake).storeCoins(p.minBond).storeUint(p.bondBps, 16)
    .storeUint(p.unbondingS, 32).storeUint(p.auditWindowS, 32).storeRef(codesCell())
    .storeRef((() => { const x = b().storeAddress(p.attestor).storeUint(p.attestationTtlS, 32); codeRef(code.Platform)(x); return x.endCell(); })()).endCell();
export const networkCell = (registry, params) => b().storeAddress(registry).storeRef(params).endCell();
export const snake = (buf) => {
    const parts = []; for (let i = 0; i < Math.max(buf.length, 1); i += 127) parts.push(buf.subarray(i, i + 127));
    let next = null;
    for (const p of parts.reverse()) { const x = b().storeBuffer(p); if (next) x.storeRef(next); next = x.endCell(); }
    return next;
};
export const sealed = (bytes) => b().storeUint(h256('enc' + bytes), 256).storeRef(snake(Buffer.alloc(bytes, 7))).endCell();
export const registryData = (owner, salt, timelockS, params, measurements) => {
    const d = Dictionary.empty(Dictionary.Keys.BigUint(256), Dictionary.Values.Uint(32));
    for (const m of measurements) d.set(m, 0);
    return b().storeAddress(owner).storeBit(0).storeUint(salt, 64).storeUint(timelockS, 32).storeRef(params).storeDict(d)
        .storeRef(b().storeUint(0, 8).storeUint(0, 8).storeUint(0, 32).storeBit(0).endCell()).storeRef(code.Platform).endCell();
};
export const modelData = (id, network) => b().storeUint(id, 256).storeRef(network).storeBit(0).endCell();
export const workerData = (owner, network) => b().storeAddress(owner).storeRef(network).storeBit(0).endCell();
export const jobData = (client, nonce, network) => b().storeAddress(client).storeUint(nonce, 64).storeRef(network).storeBit(0).endCell();
const prices = (x, p) => x.storeCoins(p.input).storeCoins(p.cached).storeCoins(p.output);
export const pricesCell = (p) => prices(b(), p).endCell();
const units = (x, u) => x.storeUint(u.input, 32).storeUint(u.cached, 32).storeUint(u.output, 32);
export const limitsCell = (l) => units(prices(b(), l.maxPrices), l.maxUnits).storeCoins(l.deposit).endCell();
export const termsCell = (t) => b().storeAddress(t.worker).storeUint(t.modelId, 256).storeUint(t.measurement, 256)
    .storeUint(t.claimBy, 32).storeUint(t.settleWithinS, 32).storeRef(limitsCell(t)).endCell();
export const attestationCell = (a) => b().storeUint(a.receiptKey, 256).storeUint(a.encryptionKey, 256).storeUint(a.measurement, 256).storeUint(a.expiresAt, 32)
    .storeRef(b().storeUint(h256('quote'), 256).storeUint(77, 32).storeUint(0, 32).storeUint(h256('authority'), 256).storeUint(7, 160).storeUint(a.ppid ?? 1n, 128).endCell()).endCell();
export const platformData = (ppid, network) => b().storeUint(ppid, 128).storeRef(network).storeBit(0).endCell();
// The masterchain blocks that contracts see.
const NEWEST = 2345;
const mcHash = (seqno) => createHash('sha256').update(`mc block root ${seqno}`).digest();
const mcBlock = (seqno) => ({ workchain: -1, shard: 1n << 63n, seqno, rootHash: mcHash(seqno), fileHash: mcHash(seqno) });
const prevBlocks = { lastMcBlocks: Array.from({ length: 16 }, (_, i) => mcBlock(NEWEST - i)), prevKeyBlock: mcBlock(0), lastMcBlocks100: Array.from({ length: 16 }, (_, i) => mcBlock(2300 - 100 * i)) };
// What the Attestor tells the Registry: `report` as verified, `payload` as the worker asks.
const int = (x, bytes) => Buffer.from(BigInt.asUintN(bytes * 8, BigInt(x)).toString(16).padStart(bytes * 2, '0'), 'hex');
export const verifiedCells = (v) => {
    const data = createHash('sha256').update(Buffer.concat([Buffer.from('chrysalis/report-data/v1'), int(v.networkId, 4), int(0, 1), v.worker.hash, int(v.receiptKey, 32), int(v.encryptionKey, 32), int(v.registrationSeqno, 4), int(v.mcSeqno, 4), mcHash(v.mcSeqno)])).digest();
    const origin = b().storeUint(h256('quote'), 256).storeUint(v.advisories ?? 0n, 256).storeUint(h256('authority'), 256).storeUint(v.ppid, 128).storeUint(0x53494d544458n, 48).endCell();
    const report = b().storeUint(v.measurement, 256).storeBuffer(data).storeUint(0, 256).storeUint(v.needs ?? 0, 8).storeUint(v.expiresAt, 32).storeUint(7, 160).storeRef(origin).endCell();
    const payload = b().storeUint(v.receiptKey, 256).storeUint(v.encryptionKey, 256).storeUint(v.registrationSeqno, 32).storeUint(v.mcSeqno, 32).storeBuffer(mcHash(v.mcSeqno)).endCell();
    return { report, payload };
};

export const op = {
    allow: 0x43480101, revoke: 0x43480102, transferOwnership: 0x43480103, acceptOwnership: 0x43480104, enforce: 0x43480107, revoked: 0x43480108, setNeeds: 0x43480109, allowAdvisories: 0x4348010a, revokeAdvisories: 0x4348010b, refused: 0x4348010c, verified: 0x43480502, certificateRevoked: 0x43480508, serve: 0x43480601, leaveWorker: 0x43480602,
    registerModel: 0x43480201, ask: 0x43480202, quoted: 0x43480203, share: 0x43480204, withdrawShares: 0x43480205, transferModel: 0x43480206, deprecate: 0x43480207,
    topUp: 0x43480301, registered: 0x43480302, offer: 0x43480303, withdrawOffer: 0x43480304, unbond: 0x43480305, withdrawUnbonded: 0x43480306, withdrawEarnings: 0x43480307, fundGas: 0x43480308, claim: 0x43480309, leavePlatform: 0x4348030a,
    post: 0x43480401, take: 0x43480402, cancel: 0x43480403, expire: 0x43480404, sweep: 0x43480405, receipt: 0x43480406, rejection: 0x43480407,
    jobPaid: 0x43480410, jobReturned: 0x43480411, jobForfeited: 0x43480412, jobRefund: 0x43480413, jobPosted: 0x43480414, payout: 0x43480420, excesses: 0xd53276db,
};
export const opName = Object.fromEntries(Object.entries(op).map(([k, v]) => [v, k]));
export const msg = (o, q = 1n) => b().storeUint(o, 32).storeUint(q, 64);
export const TAG = { receipt: 0x6368727972637074n, rejection: 0x6368727972656a74n, order: 0x636872796f726472n };
export const receiptCell = (r) => units(b().storeUint(TAG.receipt, 64).storeInt(r.networkId, 32).storeAddress(r.job).storeUint(r.postedLt, 64).storeUint(r.sequence ?? 1, 32).storeBit(r.final ?? true), r.units)
    .storeCoins(r.amount).storeRef(b().storeUint(r.resultHash, 256).storeUint(h256('transcript'), 256).storeUint(1, 32).storeUint(0, 8).endCell()).endCell();
export const rejectionCell = (r) => b().storeUint(TAG.rejection, 64).storeInt(r.networkId, 32).storeAddress(r.job).storeUint(r.postedLt, 64).storeUint(r.reason ?? 1, 16).endCell();
export const orderCell = (o) => b().storeUint(TAG.order, 64).storeInt(o.networkId, 32).storeAddress(o.worker).storeUint(o.seqno, 32).storeUint(o.validUntil, 32)
    .storeAddress(o.jobClient).storeUint(o.jobNonce, 64).storeRef(b().storeUint(o.modelId, 256).storeCoins(o.bond).endCell()).endCell();
export const signed = (o, cell, key, ...refs) => { const x = b().storeUint(o, 32).storeBuffer(sign(cell.hash(), key.secretKey)).storeRef(cell); refs.forEach((r) => x.storeRef(r)); return x.endCell(); };
export const hashOf = (c) => BigInt('0x' + c.hash().toString('hex'));

export class Market {
    static async open(over = {}) {
        const m = new Market();
        const bc = m.bc = await Blockchain.create();
        bc.now = m.t0 = 1_800_000_000; bc.prevBlocks = prevBlocks;
        for (const n of ['owner', 'treasury', 'publisher', 'workerOwner', 'client', 'stranger', 'attestor']) m[n] = await bc.treasury(n, { balance: 10_000n * TON });
        m.networkId = -3; m.measurement = h256('measurement'); m.modelId = h256('model');
        m.p = { networkId: -3, treasury: m.treasury.address, attestor: m.attestor.address, feeBps: 100, royaltyCapBps: 1000, minStake: 10n * TON, minBond: TON / 10n, bondBps: 2000, attestationTtlS: 7 * 86400, unbondingS: 86400 * 14, auditWindowS: 7 * 86400, ...over };
        m.params = paramsCell(m.p);
        const rd = registryData(m.owner.address, 1n, 3600, m.params, [m.measurement]);
        m.registry = contractAddress(0, { code: code.Registry, data: rd });
        m.network = networkCell(m.registry, m.params);
        m.modelInit = { code: code.Model, data: modelData(m.modelId, m.network) };
        m.model = contractAddress(0, m.modelInit);
        m.workerInit = { code: code.Worker, data: workerData(m.workerOwner.address, m.network) };
        m.worker = contractAddress(0, m.workerInit);
        m.key = keyPairFromSeed(Buffer.alloc(32, 5));
        m.seqno = 0;
        m.ppid = 0x1234n; m.platform = contractAddress(0, { code: code.Platform, data: platformData(m.ppid, m.network) });
        m.names = new Map([[m.platform, 'platform'], [m.registry, 'registry'], [m.model, 'model'], [m.worker, 'worker']].map(([a, n]) => [a.toString(), n]));
        for (const n of ['owner', 'treasury', 'publisher', 'workerOwner', 'client', 'stranger', 'attestor']) m.names.set(m[n].address.toString(), n);
        m.deployRegistry = await m.send(m.owner, m.registry, TON, b().endCell(), { code: code.Registry, data: rd });
        return m;
    }
    async send(from, to, value, body, init, bounce = true) {
        return await from.send({ to, value, body, init, bounce, sendMode: 1 });
    }
    async externalTo(to, body) { return await this.bc.sendMessage(external({ to, body })); }
    async balance(a) { return (await this.bc.getContract(a)).balance; }
    async get(a, name, args = []) { return (await this.bc.runGetMethod(a, name, args)).stackReader; }
    async registerModel(royaltyBps = 500, value = TON) {
        return this.send(this.publisher, this.model, value, msg(op.registerModel).storeUint(royaltyBps, 16).storeUint(0, 8).storeRef(snake(Buffer.from('{"name":"m","licence":"MIT","context":2048}'))).endCell(), this.modelInit);
    }
    async topUp(amount = 20n * TON, extra = TON) { return this.send(this.workerOwner, this.worker, amount + extra, msg(op.topUp).storeCoins(amount).endCell(), this.workerInit); }
    // A treasury speaks in the Attestor's place.
    async attest(over = {}, value = TON) {
        const v = { networkId: -3, worker: this.worker, receiptKey: BigInt('0x' + this.key.publicKey.toString('hex')), encryptionKey: h256('x25519'), registrationSeqno: this.registrations ?? 0, mcSeqno: 2300, measurement: this.measurement, expiresAt: this.bc.now + 86400 * 5, ppid: this.ppid, requester: this.workerOwner.address, ...over };
        const { report, payload } = verifiedCells(v);
        const result = await this.send(over.from ?? this.attestor, this.registry, value, msg(op.verified).storeAddress(v.requester).storeRef(report).storeRef(payload).endCell());
        const last = result.transactions.find((t) => t.inMessage?.info.dest?.equals?.(this.worker));
        if (last?.description.computePhase.exitCode === 0) this.registrations = v.registrationSeqno + 1;
        return result;
    }
    prices = { input: 2_000_000n, cached: 1_000_000n, output: 6_000_000n };
    async offer(modelId = this.modelId, value = TON) { return this.send(this.workerOwner, this.worker, value, msg(op.offer).storeUint(modelId, 256).storeRef(pricesCell(this.prices)).endCell()); }
    async ready() { await this.registerModel(); await this.topUp(); await this.attest(); await this.offer(); return this; }
    job(nonce, over = {}) {
        const init = { code: code.Job, data: jobData(this.client.address, nonce, this.network) };
        const address = contractAddress(0, init);
        this.names.set(address.toString(), 'job');
        return { nonce, init, address, input: sealed(1024), terms: { worker: this.worker, modelId: this.modelId, measurement: 0n, claimBy: this.bc.now + 120, settleWithinS: 600,
            maxPrices: this.prices, maxUnits: { input: 1000, cached: 1000, output: 1000 }, deposit: TON, ...over } };
    }
    async post(job, value = undefined, from = this.client) {
        const r = await this.send(from, job.address, value ?? job.terms.deposit + TON, msg(op.post).storeRef(termsCell(job.terms)).storeRef(job.input).endCell(), job.init);
        const tx = r.transactions.find((t) => t.inMessage?.info.type === 'internal' && t.inMessage.info.dest.equals(job.address));
        job.postedLt = tx.lt;
        return r;
    }
    order(job, over = {}) { return orderCell({ networkId: this.networkId, worker: this.worker, seqno: this.seqno, validUntil: this.bc.now + 60, jobClient: this.client.address, jobNonce: job.nonce, modelId: this.modelId, bond: TON / 5n, ...over }); }
    async claim(job, over = {}, key = this.key) { const r = await this.externalTo(this.worker, signed(op.claim, this.order(job, over), key)); this.seqno += 1; return r; }
    receipt(job, over = {}, result = sealed(2048)) {
        return { result, cell: receiptCell({ networkId: this.networkId, job: job.address, postedLt: job.postedLt, units: { input: 100, cached: 0, output: 50 }, amount: TON, resultHash: hashOf(result), ...over }) };
    }
    async settle(job, over = {}, result = sealed(2048), key = this.key) { const r = this.receipt(job, over, result); return this.externalTo(job.address, signed(op.receipt, r.cell, key, r.result)); }
    async reject(job, over = {}, key = this.key) { return this.externalTo(job.address, signed(op.rejection, rejectionCell({ networkId: this.networkId, job: job.address, postedLt: job.postedLt, ...over }), key)); }
    async workerState() {
        const t = (await this.get(this.worker, 'workerState'));
        const s = { stake: t.readBigNumber(), locked: t.readBigNumber(), earnings: t.readBigNumber(), unbonding: t.readBigNumber(), unbondingUntil: t.readNumber(), claimSeqno: t.readNumber(), registrationSeqno: t.readNumber(), settled: t.readNumber(), rejected: t.readNumber(), expired: t.readNumber(), attestation: t.readCellOpt(), offers: t.readCellOpt() };
        return s;
    }
    // status, closedAt and so on of a job
    async jobState(job) {
        const t = await this.get(job.address, 'jobState');
        const s = { status: t.readNumber(), postedLt: t.readBigNumber(), postedAt: t.readNumber(), closedAt: t.readNumber(), inputHash: t.readBigNumber(), terms: t.readCell(), claim: t.readCellOpt(), settlement: t.readCellOpt() };
        return s;
    }
    name(a) { return this.names.get(a.toString()) ?? a.toString().slice(0, 6); }
    // one line a transaction: who, opcode, exit, gas, fees
    show(r, label = '') {
        if (label) console.log(`-- ${label}`);
        for (const t of r.transactions) {
            const i = t.inMessage; const d = t.description;
            const to = i.info.dest ? this.name(i.info.dest) : '?';
            if (/owner|client|publisher|stranger|treasury|workerOwner/.test(to) && !process.env.ALL && i.info.type !== 'internal') continue;
            let s = i.body.beginParse(); let bounced = i.info.bounced ? 'BOUNCED ' : '';
            if (bounced && s.remainingBits >= 32) s.loadUint(32);
            const o = s.remainingBits >= 32 ? s.loadUint(32) : undefined;
            const cp = d.computePhase;
            console.log(`   ${i.info.type === 'internal' ? this.name(i.info.src) : 'ext'} -> ${to}  ${bounced}${opName[o] ?? o}  value ${i.info.value?.coins ?? ''}  exit ${cp?.type === 'vm' ? cp.exitCode : 'skipped'} action ${d.actionPhase?.resultCode ?? '-'} gas ${cp?.type === 'vm' ? cp.gasUsed : 0}  fees ${t.totalFees.coins}${i.info.importFee ? ' import ' + i.info.importFee : ''}`);
        }
    }
}
