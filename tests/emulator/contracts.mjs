// Every action of the contracts, and every way we know to misuse them, in the official emulator.

import * as H from './market.mjs';
const { Market, TON, op, msg, signed, beginCell, Cell } = H;
let failed = 0, passed = 0;
const ok = (c, l) => { if (c) passed++; else { failed++; console.log('FAIL', l); } };
const eq = (a, b, l) => ok(a === b, `${l}: got ${a}, want ${b}`);
// exit code of the first transaction at `to`
const exitAt = (r, to) => { const t = r.transactions.filter((t) => t.inMessage.info.dest?.equals(to)); if (!t.length) return undefined; const d = t[0].description; return d.computePhase.type === 'vm' ? d.computePhase.exitCode : 'skipped'; };
const ext = async (f) => { try { const r = await f(); const d = r.transactions[0].description; return d.computePhase.exitCode + (d.actionPhase && d.actionPhase.resultCode ? 1000000 : 0); } catch (e) { if (/cannot pay for importing/.test(e.message)) return 'no import'; return e.exitCode ?? e.message.match(/exit.?code\D*(\d+)/i)?.[1] ?? e.message; } };
const flow = (r, m) => r.transactions.map((t) => m.name(t.inMessage.info.dest) + (t.inMessage.info.bounced ? '!' : '')).join(' ');
const values = (r, m, to) => r.transactions.filter((t) => t.inMessage.info.type === 'internal' && t.inMessage.info.dest?.equals(to)).map((t) => t.inMessage.info.value.coins);
const chk = (r, l) => { for (const t of r.transactions) { const d = t.description; if (d.aborted && !(d.computePhase.type === 'skipped')) ok(false, l + ' aborted ' + d.computePhase.exitCode + '/' + d.actionPhase?.resultCode); } };
const gas = {};
const noteGas = (r, m) => { for (const t of r.transactions) { const d = t.description; if (d.computePhase.type !== 'vm' || !t.inMessage.info.dest) continue; const n = m.name(t.inMessage.info.dest); if (!['job', 'worker', 'model', 'registry', 'platform'].includes(n)) continue; let s = t.inMessage.body.beginParse(); let p=''; if (t.inMessage.info.bounced) { s.loadUint(32); p='bounced '; } const o = s.remainingBits >= 32 ? H.opName[s.loadUint(32)] : '-'; const k = `${n} ${p}${o}`; const g = Number(d.computePhase.gasUsed); gas[k] = Math.max(gas[k] ?? 0, g); } };
const fresh = async (over) => { const m = await (await Market.open(over)).ready(); const so = m.send.bind(m), ex = m.externalTo.bind(m); m.send = async (...a) => { const r = await so(...a); noteGas(r, m); return r; }; m.externalTo = async (...a) => { const r = await ex(...a); noteGas(r, m); return r; }; return m; };

{ // unknown messages
    const m = await fresh(); const job = m.job(1n); await m.post(job);
    for (const [n, a] of [['registry', m.registry], ['model', m.model], ['worker', m.worker], ['job', job.address]]) {
        eq(exitAt(await m.send(m.stranger, a, TON, msg(0x12345678).endCell()), a), 65535, `${n} unknown`);
        eq(exitAt(await m.send(m.stranger, a, TON, beginCell().storeUint(1, 8).endCell()), a), 65535, `${n} short`);
        if (n !== 'registry') eq(exitAt(await m.send(m.stranger, a, TON, beginCell().endCell()), a), 65535, `${n} empty`);
        eq(exitAt(await m.send(m.stranger, a, TON, msg(op.fundGas).endCell()), a), 0, `${n} fund`);
    }
    // direct forgeries
    for (const [o, body] of [['jobPaid', msg(op.jobPaid).storeCoins(1n).storeCoins(1n).storeAddress(m.client.address).storeUint(1, 64)], ['jobReturned', msg(op.jobReturned).storeCoins(1n).storeAddress(m.client.address).storeUint(1, 64)], ['jobForfeited', msg(op.jobForfeited).storeCoins(1n).storeAddress(m.client.address).storeUint(1, 64)], ['jobPosted', msg(op.jobPosted).storeAddress(m.client.address).storeUint(1, 64)], ['quoted', msg(op.quoted).storeUint(m.modelId, 256).storeUint(1, 16).storeRef(H.pricesCell(m.prices))], ['revoked', msg(op.revoked).storeUint(m.measurement, 256)], ['registered', msg(op.registered).storeUint(m.ppid, 128).storeUint(1, 32).storeRef(H.attestationCell({ receiptKey: 1n, encryptionKey: 1n, measurement: 1n, expiresAt: 1 }))], ['certificateRevoked', msg(op.certificateRevoked).storeUint(1, 256).storeUint(7, 160)]])
        eq(exitAt(await m.send(m.stranger, m.worker, TON, body.endCell()), m.worker), 102, 'forged ' + o);
    for (const [o, body] of [['withdrawEarnings', msg(op.withdrawEarnings)], ['withdrawUnbonded', msg(op.withdrawUnbonded)], ['unbond', msg(op.unbond).storeCoins(1)], ['withdrawOffer', msg(op.withdrawOffer).storeUint(1, 256)], ['topUp', msg(op.topUp).storeCoins(1)], ['offer', msg(op.offer).storeUint(1, 256).storeRef(H.pricesCell(m.prices))]])
        eq(exitAt(await m.send(m.stranger, m.worker, TON, body.endCell()), m.worker), 100, 'stranger ' + o);
    eq(exitAt(await m.send(m.stranger, m.model, TON, msg(op.share).storeCoins(1).storeCoins(1).storeAddress(m.client.address).storeUint(1, 64).endCell()), m.model), 102, 'forged share');
    eq(exitAt(await m.send(m.stranger, m.model, TON, msg(op.ask).storeAddress(m.workerOwner.address).storeRef(H.pricesCell(m.prices)).endCell()), m.model), 102, 'forged ask');
    eq(exitAt(await m.send(m.stranger, job.address, TON, msg(op.take).storeCoins(TON).storeUint(m.modelId, 256).storeRef(beginCell().storeUint(1, 256).storeUint(1, 256).storeUint(0, 16).storeCoins(TON).storeUint(0, 32).storeAddress(m.workerOwner.address).storeRef(H.pricesCell(m.prices)).endCell()).endCell()), job.address), 102, 'forged take');
    eq(exitAt(await m.send(m.stranger, job.address, TON, msg(op.cancel).endCell()), job.address), 101, 'cancel by stranger');
    eq(exitAt(await m.send(m.stranger, job.address, TON, msg(op.sweep).endCell()), job.address), 106, 'sweep open');
    eq(exitAt(await m.send(m.stranger, job.address, TON, msg(op.expire).endCell()), job.address), 107, 'expire early');
    eq(exitAt(await m.post(job), job.address), 103, 'post twice');
}
{ // posting
    const m = await fresh();
    const bad = async (over, l) => { const j = m.job(100n, over); const before = await m.balance(m.client.address); const r = await m.post(j); eq(exitAt(r, j.address), 109, l); const left = before - await m.balance(m.client.address); ok(left < TON / 20n, l + ' refund ' + left); };
    await bad({ deposit: 0n }, 'deposit 0'); await bad({ claimBy: m.bc.now }, 'claim_by now'); await bad({ claimBy: m.bc.now + 31 * 86400 }, 'claim_by far');
    await bad({ settleWithinS: 29 }, 'settle short'); await bad({ settleWithinS: 7 * 86400 + 1 }, 'settle long');
    const j = m.job(1n);
    const least = (await m.get(m.worker, 'minJobValue', [{ type: 'int', value: TON }, { type: 'int', value: 2000n }, { type: "int", value: 1000n }, { type: "int", value: 720n }])).readBigNumber();
    console.log('least for 1 TON deposit, 1000/1000 units, 720 s', least);
    eq(exitAt(await m.post(j, least - 1n), j.address), 105, 'value too low');
    const r0 = await m.send(m.stranger, j.address, 3n * TON, msg(op.post).storeRef(H.termsCell(j.terms)).storeRef(j.input).endCell(), j.init);
    eq(exitAt(r0, j.address), 101, 'post by stranger');
    const r = await m.post(j, least); chk(r, 'post least'); eq((await m.jobState(j)).status, 1, 'open');
    eq((await m.jobState(j)).postedLt, j.postedLt, 'posted lt');
    await m.claim(j); eq((await m.jobState(j)).status, 2, 'claimed');
    m.bc.now += 590;
    // biggest result foreseen: 1536 + 8000 + 16000 bytes of ciphertext
    const r2 = await m.settle(j, { units: { input: 1000, cached: 0, output: 1000 } }, H.sealed(25000)); chk(r2, 'settle at least'); eq((await m.jobState(j)).status, 3, 'settled at least value');
    console.log('biggest result: import', r2.transactions[0].inMessage.info.importFee, 'client refund', values(r2, m, m.client.address));
    m.show(r2, 'settle at the limit');
}
{ // worker of nowhere: notice bounces, job stays open, cancel returns
    const m = await fresh(); const j = m.job(1n, { worker: H.contractAddress(0, { code: H.code.Worker, data: H.workerData(m.stranger.address, m.network) }) });
    const r = await m.post(j); eq((await m.jobState(j)).status, 1, 'open without worker'); ok(flow(r, m).includes('job!'), 'notice bounced ' + flow(r, m));
    const c = await m.send(m.client, j.address, TON / 10n, msg(op.cancel).endCell()); chk(c, 'cancel'); eq((await m.jobState(j)).status, 4, 'cancelled'); ok(values(c, m, m.client.address)[0] > TON, 'cancel refund');
    eq(exitAt(await m.send(m.client, j.address, TON / 10n, msg(op.cancel).endCell()), j.address), 106, 'cancel twice');
    eq(exitAt(await m.send(m.client, j.address, TON / 10n, msg(op.expire).endCell()), j.address), 106, 'expire cancelled');
    eq(exitAt(await m.send(m.client, j.address, TON / 10n, msg(op.sweep).endCell()), j.address), 107, 'sweep early');
    m.bc.now += 7 * 86400 + 1;
    const s = await m.send(m.stranger, j.address, TON / 10n, msg(op.sweep).endCell()); chk(s, 'sweep');
    eq((await m.bc.getContract(j.address)).accountState, undefined, 'destroyed');
    // the same address again
    const j2 = m.job(1n); await m.post(j2); eq((await m.jobState(j2)).status, 1, 'reposted'); ok(j2.postedLt !== j.postedLt, 'new lt');
}
{ // claims
    const m = await fresh(); const j = m.job(1n); await m.post(j);
    const E = async (want, l, over, key) => { const s = m.seqno; eq(await ext(() => m.claim(j, over, key)), want, 'claim ' + l); m.seqno = s; };
    await E(116, 'key', {}, H.keyPairFromSeed(Buffer.alloc(32, 9)));
    await E(117, 'network', { networkId: -239 }); await E(102, 'worker', { worker: m.model }); await E(119, 'seqno', { seqno: 5 }); await E(108, 'late', { validUntil: m.bc.now - 1 });
    await E(121, 'model', { modelId: 5n }); await E(115, 'bond', { bond: 1n }); await E(113, 'stake', { bond: 21n * TON });
    const tag = (() => { const c = m.order(j); const s = c.beginParse(); s.loadUintBig(64); return beginCell().storeUint(H.TAG.receipt, 64).storeSlice(s).endCell(); })();
    eq(await ext(() => m.externalTo(m.worker, signed(op.claim, tag, m.key))), 116, 'claim tag');
    eq(await ext(() => m.externalTo(m.worker, beginCell().storeUint(5, 32).endCell())), 63, 'claim opcode');
    // bond below the terms: bounces from the job
    const r = await m.claim(j, { bond: TON / 10n }); ok(flow(r, m).endsWith('worker!'), 'refused claim bounces ' + flow(r, m)); let w = await m.workerState(); eq(w.stake, 20n * TON, 'stake after bounce'); eq(w.locked, 0n, 'locked after bounce'); eq(w.claimSeqno, 1, 'seqno moved');
    const b1 = await m.balance(m.worker); 
    const r1 = await m.claim(j); chk(r1, 'claim'); w = await m.workerState(); eq(w.locked, TON / 5n, 'locked');
    const r3 = await m.claim(j); ok(flow(r3, m).endsWith('worker!'), 'claimed twice bounces'); w = await m.workerState(); eq(w.locked, TON / 5n, 'locked once'); m.show(r3, 'claim of a claimed job');
    // a job that is not there
    const ghost = m.job(999n); const r4 = await m.claim(ghost); ok(flow(r4, m).endsWith('worker!'), 'ghost bounces'); w = await m.workerState(); eq(w.locked, TON / 5n, 'locked after ghost');
    // terms
    for (const [over, l] of [[{ maxPrices: { input: 1n, cached: 1n, output: 1n } }, 'prices'], [{ measurement: 7n }, 'measurement']]) { const q = m.job(BigInt('0x' + Buffer.from(l).toString('hex').slice(0, 8)), over); await m.post(q); const x = await m.claim(q); ok(flow(x, m).endsWith('worker!'), 'refused for ' + l); eq((await m.jobState(q)).status, 1, 'still open ' + l); }
    const late = m.job(50n, { claimBy: m.bc.now + 10 }); await m.post(late); m.bc.now += 11; const x = await m.claim(late); eq(exitAt(x, late.address), 108, 'late claim');
    const e = await m.send(m.stranger, late.address, TON / 10n, msg(op.expire).endCell()); chk(e, 'expire open'); eq((await m.jobState(late)).status, 5, 'expired'); m.show(e, 'expire open');
    m.bc.now += 6 * 86400; eq(await ext(() => m.claim(j)), 112, 'attestation expired'); m.seqno--;
}
{ // receipts
    const m = await fresh(); const j = m.job(1n, { claimBy: m.bc.now + 10000 }); await m.post(j);
    eq(await ext(() => m.settle(j)), 106, 'receipt while open'); await m.claim(j);
    eq(exitAt(await m.send(m.client, j.address, TON, msg(op.cancel).endCell()), j.address), 106, 'cancel claimed');
    const E = async (want, l, over, res, key) => eq(await ext(() => m.settle(j, over, res, key)), want, 'receipt ' + l);
    await E(116, 'key', {}, undefined, H.keyPairFromSeed(Buffer.alloc(32, 9)));
    await E(117, 'network', { networkId: 1 }); await E(118, 'job', { job: m.worker }); await E(118, 'lt', { postedLt: j.postedLt - 1n }); await E(126, 'sequence', { sequence: 2 }); await E(126, 'final', { final: false });
    await E(123, 'result', { resultHash: 5n }); await E(120, 'units', { units: { input: 1001, cached: 0, output: 0 } }); await E(120, 'units', { units: { input: 0, cached: 1001, output: 0 } }); await E(120, 'units', { units: { input: 0, cached: 0, output: 1001 } });
    { const t = m.job(77n, { maxUnits: { input: 10, cached: 0, output: 10 } }); await m.post(t); await m.claim(t); const u = { units: { input: 1, cached: 0, output: 1 } }; eq(await ext(() => m.settle(t, u, H.sealed(25000))), 124, 'too big a result'); chk(await m.send(m.stranger, t.address, TON / 10n, msg(op.fundGas).endCell()), 'fund job'); eq(await ext(() => m.settle(t, u, H.sealed(25000))), 0, 'funded result'); }
    eq(await ext(() => m.externalTo(j.address, signed(op.receipt, H.rejectionCell({ networkId: -3, job: j.address, postedLt: j.postedLt }), m.key, H.sealed(1)))) !== 0, true, 'rejection as receipt');
    eq(await ext(() => m.externalTo(j.address, signed(op.rejection, m.receipt(j).cell, m.key))) !== 0, true, 'receipt as rejection');
    for (const [o, l] of [[{ networkId: 1 }, 117], [{ job: m.model }, 118], [{ postedLt: 1n }, 118]]) eq(await ext(() => m.reject(j, o)), l, 'rejection ' + l);
    eq(await ext(() => m.reject(j, {}, H.keyPairFromSeed(Buffer.alloc(32, 9)))), 116, 'rejection key');
    const r = m.receipt(j); const body = signed(op.receipt, r.cell, m.key, r.result); const x = await m.externalTo(j.address, body); chk(x, 'settle');
    eq(await ext(() => m.externalTo(j.address, body)), 'no import', 'replay');
    eq(await ext(() => m.reject(j)), 'no import', 'reject settled');
  { const c = await m.bc.getContract(j.address); c.balance = TON; eq(await ext(() => m.externalTo(j.address, body)), 106, 'replay with funds'); eq(await ext(() => m.reject(j)), 106, 'reject settled with funds'); }
    eq(exitAt(await m.send(m.stranger, j.address, TON, msg(op.expire).endCell()), j.address), 106, 'expire settled');
    const s = (await m.jobState(j)).settlement.beginParse(); s.loadUintBig(256); s.loadUintBig(256); eq(s.loadCoins(), 500_000n, 'paid = cost'); eq(s.loadCoins(), 25000n, 'royalty'); eq(s.loadCoins(), 5000n, 'fee');
    // clamps
    const c1 = m.job(2n); await m.post(c1); await m.claim(c1); await m.settle(c1, { amount: 7n }); const s1 = (await m.jobState(c1)).settlement.beginParse(); s1.loadUintBig(256); s1.loadUintBig(256); eq(s1.loadCoins(), 7n, 'clamp amount');
    const c2 = m.job(3n, { deposit: 1000n, maxUnits: { input: 4294967295, cached: 0, output: 0 } }); const r9 = await m.post(c2, 2000n * TON); await m.claim(c2); const r8 = await m.settle(c2, { units: { input: 4294967295, cached: 0, output: 0 }, amount: 10n ** 30n }); chk(r8, 'huge'); const s2 = (await m.jobState(c2)).settlement.beginParse(); s2.loadUintBig(256); s2.loadUintBig(256); eq(s2.loadCoins(), 1000n, 'clamp deposit');
    const c3 = m.job(4n); await m.post(c3); await m.claim(c3); const r7 = await m.settle(c3, { amount: 0n }); chk(r7, 'zero paid'); eq((await m.jobState(c3)).status, 3, 'settled for nothing');
    // late
    const l = m.job(5n, { claimBy: m.bc.now + 100 }); await m.post(l); await m.claim(l); m.bc.now += 601; eq(await ext(() => m.settle(l)), 108, 'late receipt'); eq(await ext(() => m.reject(l)), 108, 'late rejection');
    const w0 = await m.workerState(); const e = await m.send(m.stranger, l.address, TON / 10n, msg(op.expire).endCell()); chk(e, 'expire claimed'); m.show(e, 'expire claimed');
    const w1 = await m.workerState(); eq(w0.locked - w1.locked, TON / 5n, 'bond forfeited'); eq(w1.stake, w0.stake, 'stake same'); eq(w1.expired, 1, 'expired counted'); ok(values(e, m, m.client.address)[0] > TON + TON / 5n, 'client gets deposit and bond');
    // rejection
    const q = m.job(6n); await m.post(q); const wb = await m.balance(m.worker); await m.claim(q); const rr = await m.reject(q); chk(rr, 'reject'); m.show(rr, 'reject'); eq((await m.jobState(q)).status, 6, 'rejected'); const w2 = await m.workerState(); eq(w2.rejected, 1, 'rejected counted'); eq(w2.stake, w1.stake, 'bond back'); ok(values(rr, m, m.client.address)[0] > TON, 'deposit back');
    console.log('worker float over claim+reject', (await m.balance(m.worker)) - wb);
}
{ // payments that bounce
    const m = await fresh(); const j = m.job(1n); await m.post(j); await m.claim(j);
    const { createEmptyShardAccount } = await import('@ton/sandbox').then((x) => x.default ?? x).catch(() => ({}));
    await m.bc.setShardAccount(m.model, createEmptyShardAccount(m.model)); await m.bc.setShardAccount(m.worker, createEmptyShardAccount(m.worker));
    const r = await m.settle(j, { units: { input: 1000, cached: 0, output: 1000 } }); m.show(r, 'settle with model and worker gone'); eq((await m.jobState(j)).status, 3, 'settled anyway');
    eq(values(r, m, m.workerOwner.address).length, 1, 'owner paid'); eq(values(r, m, m.client.address).length, 2, 'client refunded twice');
}
{ // worker money
    const m = await fresh(); const S = (who, body, v = TON / 5n) => m.send(who, m.worker, v, body.endCell());
    eq(exitAt(await S(m.workerOwner, msg(op.unbond).storeCoins(21n * TON)), m.worker), 113, 'unbond too much'); eq(exitAt(await S(m.workerOwner, msg(op.withdrawUnbonded)), m.worker), 122, 'nothing unbonding'); eq(exitAt(await S(m.workerOwner, msg(op.withdrawEarnings)), m.worker), 122, 'no earnings');
    const j = m.job(1n); await m.post(j); await m.claim(j);
    chk(await S(m.workerOwner, msg(op.unbond).storeCoins(19_800_000_000n)), 'unbond'); eq(await ext(() => m.claim(m.job(7n))), 113, 'claim after unbond'); m.seqno--;
    eq(exitAt(await S(m.workerOwner, msg(op.withdrawUnbonded)), m.worker), 107, 'unbonding early');
    await m.settle(j, { units: { input: 1000, cached: 0, output: 1000 } });
    m.bc.now += 14 * 86400; const r = await S(m.workerOwner, msg(op.withdrawUnbonded)); chk(r, 'withdraw unbonded'); m.show(r, 'withdraw unbonded');
    const e = await S(m.workerOwner, msg(op.withdrawEarnings)); chk(e, 'earnings');
    chk(await S(m.workerOwner, msg(op.unbond).storeCoins(200_000_000n)), 'unbond rest'); m.bc.now += 14 * 86400; const z = await S(m.workerOwner, msg(op.withdrawUnbonded)); chk(z, 'last'); m.show(z, 'last withdrawal'); eq(await m.balance(m.worker), 0n, 'worker empty');
}
{ // float
    const m = await (await Market.open()).registerModel() && await fresh();
    const j = m.job(1n); await m.post(j);
    // stake everything the contract has: top up with amount = value - gas is allowed only with float, so drain by claims of nothing
    const m2 = await Market.open(); await m2.registerModel(); const least = 20n * TON; await m2.topUp(least, TON / 10n); await m2.attest(); await m2.offer();
    const g = m2.job(5n); let n = 0, code = 0; while (n < 60) { code = await ext(() => m2.claim(g)); if (code !== 0) break; n++; }
    eq(code, 124, 'float runs out'); m2.seqno--; const w = await m2.workerState(); eq(w.stake, least, 'stake untouched by drained float'); ok(await m2.balance(m2.worker) >= least, 'balance covers stake'); console.log('ghost claims a 0.1 TON float pays', n, 'balance', await m2.balance(m2.worker));
    // later, storage eats the rest: withdrawals are refused rather than failing in the action phase
    m2.bc.now += 86400 * 365 * 5; await m2.send(m2.workerOwner, m2.worker, TON / 10n, msg(op.unbond).storeCoins(TON).endCell()); m2.bc.now += 15 * 86400;
    eq(exitAt(await m2.send(m2.workerOwner, m2.worker, TON / 10n, msg(op.withdrawUnbonded).endCell()), m2.worker), 124, 'short balance'); chk(await m2.send(m2.stranger, m2.worker, TON, msg(op.fundGas).endCell()), 'fund'); chk(await m2.send(m2.workerOwner, m2.worker, TON / 10n, msg(op.withdrawUnbonded).endCell()), 'after funding');
}
{ // attestation
    const m = await Market.open(); await m.registerModel();
    eq(exitAt(await m.topUp(20n * TON, TON / 100n), m.worker), 105, 'first top up without rent');
    await m.topUp(5n * TON); eq(exitAt(await m.attest(), m.worker), 113, 'under min stake'); m.registrations = 0; await m.topUp(5n * TON); 
    const refusal = (r, to = m.workerOwner) => { const t = r.transactions.find((t) => t.inMessage?.info.dest?.equals?.(to.address)); const s = t.inMessage.body.beginParse(); return s.loadUint(32) === op.refused ? (s.loadUint(64), s.loadUint(16)) : 0; };
    const own = await m.balance(m.workerOwner.address); const r = await m.attest({ measurement: 3n }); m.show(r, 'unlisted'); eq(refusal(r), 111, 'unlisted'); ok(await m.balance(m.workerOwner.address) - own > TON * 9n / 10n, 'what a refused registration brought goes to the owner'); eq((await m.workerState()).attestation, null, 'none');
    eq(refusal(await m.attest({ needs: 1 })), 135, 'outdated platform'); eq(refusal(await m.attest({ advisories: 5n })), 135, 'advisories'); eq(refusal(await m.attest({ mcSeqno: 2200 - 1500 })), 108, 'old block'); eq(refusal(await m.attest({ requester: m.stranger.address }), m.stranger), 136, 'another owner'); eq(exitAt(await m.attest({ from: m.stranger }), m.registry), 102, 'a stranger as the Attestor');
    m.registrations = 0; await m.attest({ expiresAt: m.bc.now + 30 * 86400 }); let a = (await m.workerState()).attestation.beginParse(); a.skip(768); eq(a.loadUint(32), m.bc.now + 7 * 86400, 'ttl clamp'); const ev = a.loadRef().beginParse(); ev.skip(256 + 32); eq(ev.loadUint(32), m.bc.now, 'registered at');
    eq(exitAt(await m.attest({ registrationSeqno: 0 }), m.worker), 119, 'a quote twice'); m.registrations = 1;
    eq(exitAt(await m.send(m.stranger, m.worker, TON, msg(op.leavePlatform).storeUint(m.ppid, 128).endCell()), m.worker), 100, 'stranger leaves'); eq(exitAt(await m.send(m.stranger, m.platform, TON, msg(op.leaveWorker).endCell()), m.platform), 107, 'stranger frees'); chk(await m.send(m.workerOwner, m.worker, TON, msg(op.leavePlatform).storeUint(m.ppid, 128).endCell()), 'leave'); eq((await m.workerState()).attestation, null, 'left'); eq(await m.balance(m.platform), 0n, 'nothing stays'); chk(await m.attest(), 'back');
    chk(await m.send(m.attestor, m.worker, TON, msg(op.certificateRevoked).storeUint(H.h256('authority'), 256).storeUint(7, 160).endCell()), 'certificate revoked'); eq((await m.workerState()).attestation, null, 'no attestation'); chk(await m.attest(), 'again');
    for (const body of [msg(op.setNeeds).storeUint(1, 8), msg(op.allowAdvisories).storeUint(5, 256), msg(op.revokeAdvisories).storeUint(5, 256)]) { eq(exitAt(await m.send(m.stranger, m.registry, TON, body.endCell()), m.registry), 100, 'policy by stranger'); chk(await m.send(m.owner, m.registry, TON, body.endCell()), 'policy'); }
    m.bc.now += 3600; eq(refusal(await m.attest({ needs: 1 })), 0, 'accepted after the timelock');
    const o = await m.offer(5n); m.show(o, 'offer of unregistered model'); 
    await m.send(m.publisher, m.model, TON, msg(op.deprecate).endCell()); const d = await m.offer(); eq(exitAt(d, m.model), 125, 'deprecated'); m.show(d, 'deprecated');
    eq(exitAt(await m.registerModel(), m.model), 103, 'registered twice');
    eq(exitAt(await m.send(m.stranger, m.model, TON, msg(op.transferModel).storeAddress(m.stranger.address).endCell()), m.model), 100, 'transfer by stranger');
    chk(await m.send(m.publisher, m.model, TON, msg(op.transferModel).storeAddress(m.stranger.address).endCell()), 'transfer'); eq(exitAt(await m.send(m.publisher, m.model, TON, msg(op.deprecate).endCell()), m.model), 100, 'old publisher');
    eq(exitAt(await m.send(m.stranger, m.model, TON, msg(op.withdrawShares).endCell()), m.model), 122, 'no shares');
    const other = H.h256('other'); const init = { code: H.code.Model, data: H.modelData(other, m.network) }; const at = H.contractAddress(0, init);
    eq(exitAt(await m.send(m.publisher, at, TON, msg(op.registerModel).storeUint(1001, 16).storeUint(0, 8).storeRef(H.snake(Buffer.from('x'))).endCell(), init), at), 110, 'royalty cap');
    eq(exitAt(await m.send(m.publisher, at, TON / 100n, msg(op.registerModel).storeUint(1000, 16).storeUint(0, 8).storeRef(H.snake(Buffer.from('x'))).endCell(), init), at), 105, 'model rent');
    // registry
    const R = (who, body) => m.send(who, m.registry, TON / 5n, body.endCell());
    eq(exitAt(await R(m.stranger, msg(op.allow).storeUint(9, 256)), m.registry), 100, 'allow by stranger'); chk(await R(m.owner, msg(op.allow).storeUint(9, 256)), 'allow');
    eq((await m.get(m.registry, 'admittedFrom', [{ type: 'int', value: 9n }])).readNumber(), m.bc.now + 3600, 'timelock'); eq(refusal(await m.attest({ measurement: 9n })), 111, 'timelocked'); m.bc.now += 3600; chk(await R(m.owner, msg(op.allow).storeUint(9, 256)), 'allow again'); chk(await m.attest({ measurement: 9n }), 'after timelock');
    const E = () => R(m.stranger, msg(op.enforce).storeUint(9, 256).storeAddress(m.workerOwner.address));
    eq(exitAt(await E(), m.registry), 106, 'enforce admitted'); eq(exitAt(await R(m.stranger, msg(op.revoke).storeUint(9, 256)), m.registry), 100, 'revoke by stranger'); chk(await R(m.owner, msg(op.revoke).storeUint(9, 256)), 'revoke'); const en = await E(); chk(en, 'enforce'); m.show(en, 'enforce'); eq((await m.workerState()).attestation, null, 'attestation cleared'); noteGas(en, m);
    chk(await R(m.owner, msg(op.transferOwnership).storeBit(1).storeAddress(m.stranger.address)), 'offer ownership'); eq(exitAt(await R(m.client, msg(op.acceptOwnership)), m.registry), 100, 'accept by other'); chk(await R(m.stranger, msg(op.acceptOwnership)), 'accept'); eq(exitAt(await R(m.owner, msg(op.revoke).storeUint(9, 256)), m.registry), 100, 'old owner');
    chk(await R(m.stranger, msg(op.transferOwnership).storeBit(1).storeAddress(m.owner.address)), 'offer'); chk(await R(m.stranger, msg(op.transferOwnership).storeBit(0)), 'take offer back'); eq(exitAt(await R(m.owner, msg(op.acceptOwnership)), m.registry), 100, 'withdrawn offer');
    eq((await m.get(m.registry, 'network')).readCell().hash().toString('hex'), m.network.hash().toString('hex'), 'network cell');
}
{ // many offers: gas with a full dictionary
    const m = await fresh(); for (let i = 0; i < 64; i++) { const id = H.h256('m' + i); const init = { code: H.code.Model, data: H.modelData(id, m.network) }; await m.send(m.publisher, H.contractAddress(0, init), TON, msg(op.registerModel).storeUint(1, 16).storeUint(0, 8).storeRef(H.snake(Buffer.from('x'))).endCell(), init); chk(await m.offer(id), 'offer ' + i); }
    const j = m.job(1n); chk(await m.post(j), 'p'); chk(await m.claim(j), 'c'); chk(await m.settle(j), 's'); chk(await m.send(m.workerOwner, m.worker, TON, msg(op.withdrawOffer).storeUint(m.modelId, 256).endCell()), 'withdraw offer');
    chk(await m.send(m.stranger, m.model, TON / 10n, msg(op.withdrawShares).endCell()), 'shares'); chk(await m.attest(), 're-attest');
}
console.error(`contracts: ${passed} assertions held, ${failed} did not`);
if (failed) process.exit(1);
