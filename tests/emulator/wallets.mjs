// Stock wallets and small contracts of raw cells in the official emulator: externals, send modes, P-256, bounces.

import { createRequire } from 'node:module';
const require = createRequire(import.meta.url);
const { Blockchain } = require('@ton/sandbox');
const { beginCell, Cell, contractAddress, external, internal, SendMode, storeStateInit, toNano } = require('@ton/core');
const { keyPairFromSeed } = require('@ton/crypto');
const { WalletContractV4, WalletContractV5R1 } = require('@ton/ton');

const bc = await Blockchain.create();
bc.now = 1_800_000_000;
const giver = await bc.treasury('giver', { balance: toNano(1000) });
const key = keyPairFromSeed(Buffer.alloc(32, 9));
const other = keyPairFromSeed(Buffer.alloc(32, 8));
const attempt = async (work) => { try { await work(); } catch (error) { if (!/not accept|exit|execution/i.test(error.message)) throw error; } };

for (const wallet of [
    WalletContractV5R1.create({ publicKey: key.publicKey, walletId: { networkGlobalId: -3 } }),
    WalletContractV4.create({ workchain: 0, publicKey: key.publicKey }),
]) {
    await giver.send({ to: wallet.address, value: toNano(10), bounce: false });
    const send = (seqno, over = {}) => attempt(async () => {
        const body = wallet.createTransfer({
            seqno,
            secretKey: key.secretKey,
            sendMode: SendMode.PAY_GAS_SEPARATELY,
            timeout: bc.now + 60,
            messages: [internal({ to: giver.address, value: toNano('0.1'), bounce: false, body: 'hello' })],
            ...over,
        });
        await bc.sendMessage(external({ to: wallet.address, init: seqno === 0 ? wallet.init : undefined, body }));
    });
    await send(0);
    await send(1);
    await send(1);
    await send(7);
    await send(2, { timeout: bc.now - 1 });
    await send(2, { secretKey: other.secretKey });
    await send(2, { messages: [1, 2, 3].map((n) => internal({ to: giver.address, value: toNano('0.01') * BigInt(n), bounce: true })) });
    await send(3, { sendMode: SendMode.CARRY_ALL_REMAINING_BALANCE });
    await send(4, { messages: [internal({ to: giver.address, value: toNano(999), bounce: true })] });
}

// Contracts of raw opcodes: each runs once with a message of the value given.
const code = (build) => { const cell = beginCell(); build(cell); return cell.endCell(); };
const hex = (text) => (cell) => cell.storeBuffer(Buffer.from(text.replace(/ /g, ''), 'hex'));
// SETCP0 is implied; the stack holds balance, value, message, body, selector.
const raw = {
    nothing: hex(''),
    throw42: hex('f22a'),
    endless: (cell) => cell.storeBuffer(Buffer.from('8b0890ea', 'hex')),
    stackUnderflow: hex('30 30 30 30 30 30 30'),
    accept: hex('f800'),
};
let nonce = 0;
for (const [, build] of Object.entries(raw)) {
    for (const value of ['0.5', '0.002', '0.0001']) {
        for (const bounce of [true, false]) {
            const init = { code: code(build), data: beginCell().storeUint(nonce++, 32).endCell() };
            await giver.send({ to: contractAddress(0, init), value: toNano(value), init, bounce });
        }
    }
}

// Sends what its data holds: SENDRAWMSG with the mode and the message of the data cell.
const sender = code(hex('ed44 d0 d307 01 d4 d1 fb00'.replace(/ /g, '')));
const target = contractAddress(0, { code: beginCell().endCell(), data: beginCell().storeUint(999, 32).endCell() });
for (const mode of [0, 1, 2, 3, 16, 64, 65, 66, 128, 130, 128 + 32, 64 + 32, 4]) {
    for (const amount of ['0.05', '5']) {
        const message = beginCell()
            .storeUint(0x18, 6).storeAddress(target).storeCoins(mode & 192 ? 0n : toNano(amount)).storeUint(0, 1 + 4 + 4 + 64 + 32 + 1 + 1)
            .endCell();
        const init = { code: sender, data: beginCell().storeUint(mode, 8).storeRef(message).storeUint(nonce++, 32).endCell() };
        await giver.send({ to: contractAddress(0, init), value: toNano('0.5'), init, bounce: true });
    }
}

// Storage: an account left alone for years pays, freezes, and is told so.
const idle = { code: code(hex('f800')), data: beginCell().storeUint(77, 32).storeRef(beginCell().storeBuffer(Buffer.alloc(120)).endCell()).endCell() };
await giver.send({ to: contractAddress(0, idle), value: toNano('0.01'), init: idle, bounce: false });
for (const years of [1, 20, 40]) {
    bc.now += years * 365 * 86_400;
    await giver.send({ to: contractAddress(0, idle), value: toNano('0.001'), bounce: true });
}
