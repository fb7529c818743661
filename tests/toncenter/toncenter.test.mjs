// The stock client, `@ton/ton`'s TonClient, against the local chain.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Address, beginCell, external, internal, SendMode, storeMessage, toNano } from "@ton/core";
import { keyPairFromSeed } from "@ton/crypto";
import { TonClient, WalletContractV4, WalletContractV5R1 } from "@ton/ton";

import { start, until } from "./localnet.mjs";

let chain;
let client;

before(async () => {
  chain = await start();
  client = new TonClient({ endpoint: chain.endpoint });
});

after(() => chain.stop());

const receiver = Address.parse("0:" + "42".repeat(32));
const comment = (text) => beginCell().storeUint(0, 32).storeStringTail(text).endCell();

// Rent takes a few nanotons from an account that stands idle.
const rent = 1_000n;

async function balanceReaches(address, nanoton) {
  await until(async () => (await client.getBalance(address)) >= nanoton - rent);
}

const wallets = {
  V5R1: (publicKey) => WalletContractV5R1.create({ publicKey, walletId: { networkGlobalId: -3 } }),
  V4R2: (publicKey) => WalletContractV4.create({ publicKey, workchain: 0 }),
};

for (const [name, make] of Object.entries(wallets)) {
  test(`${name}: deploys, sends, answers getters, and its history reads back`, async () => {
    const keys = keyPairFromSeed(Buffer.alloc(32, name));
    const wallet = make(keys.publicKey);
    const opened = client.open(wallet);
    assert.equal(await client.isContractDeployed(wallet.address), false);
    assert.equal(await opened.getSeqno(), 0);

    await chain.give(wallet.address, toNano("10"));
    await balanceReaches(wallet.address, toNano("10"));
    assert.equal((await client.getContractState(wallet.address)).state, "uninitialized");

    const before = await client.getBalance(receiver);
    const transfer = (seqno, text) => ({
      seqno,
      secretKey: keys.secretKey,
      sendMode: SendMode.PAY_GAS_SEPARATELY,
      messages: [internal({ to: receiver, value: toNano("1"), bounce: false, body: comment(text) })],
    });
    await opened.sendTransfer(transfer(0, "first"));
    await balanceReaches(receiver, before + toNano("1"));
    await until(() => client.isContractDeployed(wallet.address));
    assert.equal(await opened.getSeqno(), 1);

    const fee = await client.estimateExternalMessageFee(wallet.address, {
      body: wallet.createTransfer(transfer(1, "second")),
      initCode: null,
      initData: null,
      ignoreSignature: true,
    });
    const { in_fwd_fee, storage_fee, gas_fee, fwd_fee } = fee.source_fees;
    const estimated = BigInt(in_fwd_fee + gas_fee + fwd_fee);
    assert.ok(in_fwd_fee > 0 && gas_fee > 0 && fwd_fee > 0 && storage_fee >= 0, JSON.stringify(fee));

    await opened.sendTransfer(transfer(1, "second"));
    await balanceReaches(receiver, before + toNano("2"));
    assert.equal(await opened.getSeqno(), 2);

    const history = await client.getTransactions(wallet.address, { limit: 10, archival: true });
    assert.equal(history.length, 3);
    assert.equal(history[0].prevTransactionLt, history[1].lt);
    assert.equal(history[2].inMessage.info.type, "internal");
    const paid = history[0].totalFees.coins - history[0].description.storagePhase.storageFeesCollected
      + history[0].outMessages.get(0).info.forwardFee;
    assert.equal(paid, estimated, "the estimate is what was paid");

    const newest = history[0];
    const hash = newest.hash().toString("base64");
    const again = await client.getTransaction(wallet.address, newest.lt.toString(), hash);
    assert.deepEqual(again.hash(), newest.hash());
    const older = await client.getTransactions(wallet.address, {
      limit: 10, lt: newest.lt.toString(), hash, archival: true,
    });
    assert.deepEqual(older.map((tx) => tx.lt), [history[1].lt, history[2].lt]);
    const recent = await client.getTransactions(wallet.address, {
      limit: 10, to_lt: history[1].lt.toString(), archival: true,
    });
    assert.deepEqual(recent.map((tx) => tx.lt), [newest.lt]);

    const message = newest.outMessages.get(0).info;
    const arrival = await client.tryLocateResultTx(wallet.address, receiver, message.createdLt.toString());
    assert.equal(arrival.inMessage.info.value.coins, toNano("1"));
    const departure = await client.tryLocateSourceTx(wallet.address, receiver, message.createdLt.toString());
    assert.equal(departure.lt, newest.lt);
  });
}

test("blocks: the masterchain goes on, names its shard, and the shard lists transactions", async () => {
  const first = await client.getMasterchainInfo();
  await until(async () => (await client.getMasterchainInfo()).latestSeqno > first.latestSeqno);
  const wallet = wallets.V4R2(keyPairFromSeed(Buffer.alloc(32, 9)).publicKey);
  await chain.give(wallet.address, toNano("3"));
  await balanceReaches(wallet.address, toNano("3"));
  const [transaction] = await client.getTransactions(wallet.address, { limit: 1 });
  const { latestSeqno } = await client.getMasterchainInfo();
  let found;
  for (let seqno = latestSeqno; seqno > 0 && !found; seqno--) {
    for (const shard of await client.getWorkchainShards(seqno)) {
      const listed = await client.getShardTransactions(shard.workchain, shard.seqno, shard.shard);
      found ??= listed.find((tx) => tx.account.equals(wallet.address));
    }
  }
  assert.equal(found.lt, transaction.lt.toString());
  assert.equal(found.hash, transaction.hash().toString("base64"));
  const header = await chain.get(`/api/v2/lookupBlock?workchain=0&shard=-9223372036854775808&lt=${found.lt}`);
  assert.equal(header.ok, true);
});

test("getters: integers, cells and exit codes", async () => {
  const keys = keyPairFromSeed(Buffer.alloc(32, "V5R1"));
  const { address } = wallets.V5R1(keys.publicKey);
  const { stack } = await client.runMethod(address, "get_public_key");
  assert.equal(stack.readBigNumber(), BigInt("0x" + keys.publicKey.toString("hex")));
  const extensions = await client.runMethod(address, "get_extensions");
  assert.equal(extensions.stack.readCellOpt(), null);
  const missing = await client.runMethodWithError(address, "no_such_method");
  assert.equal(missing.exit_code, 11);
  const rest = await chain.post("/api/v2/runGetMethod", {
    address: address.toString(), method: "is_signature_allowed", stack: [],
  });
  assert.deepEqual(rest.result.stack, [["num", "-0x1"]]);
});

test("refusals: what is wrong is said, and nothing is kept", async () => {
  const keys = keyPairFromSeed(Buffer.alloc(32, "V4R2"));
  const wallet = wallets.V4R2(keys.publicKey);
  const stale = beginCell()
    .store(storeMessage(external({
      to: wallet.address,
      body: wallet.createTransfer({ seqno: 0, secretKey: keys.secretKey, messages: [] }),
    })))
    .endCell().toBoc().toString("base64");
  const refused = await chain.post("/api/v2/sendBoc", { boc: stale });
  assert.equal(refused.status, 500);
  assert.match(refused.error, /exitcode=33/);
  for (const [method, body, status] of [
    ["sendBoc", { boc: "AAAA" }, 422],
    ["sendBoc", {}, 422],
    ["getAddressInformation", { address: "nonsense" }, 422],
    ["getTransactions", { address: wallet.address.toString(), lt: "1" }, 404],
    ["shards", { seqno: 4_000_000_000 }, 404],
    ["noSuchMethod", {}, 404],
  ]) {
    const answer = await chain.post(`/api/v2/${method}`, body);
    assert.deepEqual([answer.ok, answer.status], [false, status], `${method}: ${JSON.stringify(answer)}`);
  }
  const large = await fetch(`${chain.http}/api/v2/sendBoc`, { method: "POST", body: "x".repeat(2 << 20) });
  assert.equal(large.status, 413);
});

test("a message sent twice counts once, and its hash comes back", async () => {
  const keys = keyPairFromSeed(Buffer.alloc(32, "V4R2"));
  const wallet = wallets.V4R2(keys.publicKey);
  const seqno = await client.open(wallet).getSeqno();
  const cell = beginCell()
    .store(storeMessage(external({
      to: wallet.address,
      body: wallet.createTransfer({
        seqno,
        secretKey: keys.secretKey,
        sendMode: SendMode.PAY_GAS_SEPARATELY,
        messages: [internal({ to: receiver, value: 1n, bounce: false })],
      }),
    })))
    .endCell();
  const boc = cell.toBoc().toString("base64");
  const [one, two] = await Promise.all([
    chain.post("/api/v2/sendBocReturnHash", { boc }),
    chain.post("/api/v2/sendBocReturnHash", { boc }),
  ]);
  const hashes = [one, two].filter((answer) => answer.ok).map((answer) => answer.result.hash);
  assert.ok(hashes.length >= 1);
  for (const hash of hashes) assert.equal(hash, cell.hash().toString("base64"));
  await until(async () => (await client.open(wallet).getSeqno()) === seqno + 1);
});

test("nothing is lost: accounts, messages and fees add up to the supply", async () => {
  const { result } = await chain.get("/localnet/status");
  const { genesis_nanoton, ...parts } = result.supply;
  const total = Object.values(parts).reduce((sum, part) => sum + BigInt(part), 0n);
  assert.equal(total, BigInt(genesis_nanoton));
  assert.ok(BigInt(parts.fees_nanoton) > 0n);
  assert.match(result.what, /no validator signatures/);
});
