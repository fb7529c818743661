// Writes fixtures/*.json: what the official emulator makes of one message, for each kind of message and outcome.
// `npm ci && npm run generate`, or `npm run generate opcodes` for one of them.

import { createRequire } from 'node:module';
import { mkdirSync, writeFileSync } from 'node:fs';
import { label } from './label.mjs';
const require = createRequire(import.meta.url);
const { Executor } = require('@ton/sandbox');
const { Cell, loadMessage, loadShardAccount, loadTransaction } = require('@ton/core');

const PER_KIND = 2;
const seen = new Map();
const fixtures = [];
const run = Executor.prototype.runTransaction;
Executor.prototype.runTransaction = async function (args) {
    const done = await run.call(this, args);
    // What has libraries keeps its own list.
    if (!args.ignoreChksig && args.libs == null) record(args, done.result);
    return done;
};

function record(args, result) {
    const message = loadMessage(args.message.beginParse());
    const account = loadShardAccount(Cell.fromBase64(args.shardAccount).beginParse()).account;
    const body = message.body.beginParse();
    const bounced = message.info.type === 'internal' && message.info.bounced;
    if (bounced && body.remainingBits >= 32) body.loadUint(32);
    const opcode = body.remainingBits >= 32 ? body.loadUint(32).toString(16) : 'none';
    const state = account?.storage.state;
    const code = state?.type === 'active' && state.state.code ? state.state.code.hash().toString('hex').slice(0, 8) : state?.type ?? 'nothing';
    let outcome = `refused ${result.vmResults?.vmExitCode ?? ''}`;
    if (result.success) {
        const { description } = loadTransaction(Cell.fromBase64(result.transaction).beginParse());
        const compute = description.computePhase;
        outcome = `${compute.type === 'vm' ? compute.exitCode : compute.reason} ${description.actionPhase?.resultCode ?? '-'} ${description.bouncePhase?.type ?? ''}`;
    } else if (!result.vmResults) {
        return;
    }
    const kind = [code, message.init ? 'init' : '', message.info.type, bounced ? 'bounced' : '', opcode, outcome].join(' ').replace(/ +/g, ' ').trim();
    const labelled = message.info.type === 'internal' && message.info.dest.toString() === label.address;
    if (label.address && !labelled) return;
    const count = seen.get(kind) ?? 0;
    seen.set(kind, count + 1);
    if (count >= PER_KIND && !labelled) return;
    fixtures.push({
        name: labelled ? label.name : `${kind} #${count}`,
        now: args.now,
        lt: args.lt.toString(),
        account: args.shardAccount,
        message: args.message.toBoc().toString('base64'),
        prev_blocks: args.prevBlocksInfo && prevBlocks(args.prevBlocksInfo),
        expect: result.success
            ? { transaction: result.transaction, account: result.shardAccount }
            : { refused: Number(result.vmResults.vmExitCode) },
    });
}

function prevBlocks({ lastMcBlocks, prevKeyBlock, lastMcBlocks100 }) {
    const id = (block) => [block.workchain, block.shard.toString(16), block.seqno, block.rootHash.toString('hex'), block.fileHash.toString('hex')].join(':');
    return { last_16: lastMcBlocks.map(id), key_block: id(prevKeyBlock), last_16_by_100: lastMcBlocks100?.map(id) };
}

const folder = new URL('fixtures/', import.meta.url);
mkdirSync(folder, { recursive: true });
const wanted = process.argv.slice(2);
for (const name of ['wallets', 'contracts', 'opcodes', 'attestor']) {
    if (wanted.length > 0 && !wanted.includes(name)) continue;
    seen.clear();
    const own = await import(`./${name}.mjs`);
    const list = own.fixtures ?? fixtures;
    list.sort((a, b) => (a.name < b.name ? -1 : 1));
    writeFileSync(new URL(`${name}.json`, folder), JSON.stringify(list, null, 1) + '\n');
    console.error(`${name}: ${list.length} fixtures`);
    fixtures.length = 0;
}
process.exit(0);
