// What the official emulator makes of messages to our contracts. The messages and the accounts they met come from the
// contract tests (`CHRYSALIS_CASES=file cargo test -p tests --test contracts -- --ignored write_the_cases`, then this
// with the same variable); without that file they are the committed fixtures' own.

import { createRequire } from 'node:module';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
const require = createRequire(import.meta.url);
const { Blockchain } = require('@ton/sandbox');
const { beginCell, Cell, Dictionary } = require('@ton/core');

const source = process.env.CHRYSALIS_CASES ?? new URL('fixtures/contracts.json', import.meta.url);
const cases = JSON.parse(readFileSync(source));
const bc = await Blockchain.create();

const libraries = Dictionary.empty(Dictionary.Keys.BigUint(256), Dictionary.Values.Cell());
for (const name of ['Job', 'Platform']) {
    const { code_boc64 } = JSON.parse(readFileSync(new URL(`../../contracts/artifacts/${name}.json`, import.meta.url)));
    const code = Cell.fromBase64(code_boc64);
    libraries.set(BigInt('0x' + code.hash().toString('hex')), code);
}
const libs = beginCell().storeDictDirect(libraries).endCell();

// The masterchain blocks that every message of the contract tests sees.
const NEWEST = 2345;
const hashOf = (what, seqno) => createHash('sha256').update(`${what} ${seqno}`).digest();
const block = (seqno) => ({ workchain: -1, shard: 1n << 63n, seqno, rootHash: hashOf('mc block root', seqno), fileHash: hashOf('mc block file', seqno) });
const last = Array.from({ length: 16 }, (_, i) => NEWEST - i);
const hundreds = Array.from({ length: 16 }, (_, i) => 2300 - 100 * i);
const prevBlocksInfo = { lastMcBlocks: last.map(block), prevKeyBlock: block(0), lastMcBlocks100: hundreds.map(block) };
const id = ({ workchain, shard, seqno, rootHash, fileHash }) => [workchain, shard.toString(16), seqno, rootHash.toString('hex'), fileHash.toString('hex')].join(':');
const prev_blocks = { last_16: prevBlocksInfo.lastMcBlocks.map(id), key_block: id(prevBlocksInfo.prevKeyBlock), last_16_by_100: prevBlocksInfo.lastMcBlocks100.map(id) };

export const fixtures = [];
for (const { name, now, lt, account, message } of cases) {
    const { result } = await bc.executor.runTransaction({
        config: bc.configBase64,
        libs,
        verbosity: 'short',
        shardAccount: account,
        message: Cell.fromBase64(message),
        now,
        lt: BigInt(lt),
        randomSeed: Buffer.alloc(32),
        ignoreChksig: false,
        debugEnabled: false,
        prevBlocksInfo,
    });
    if (!result.success && !result.vmResults) throw new Error(`${name}: ${result.error}`);
    fixtures.push({
        name,
        now,
        lt,
        account,
        message,
        // Only what a registration needs reads them.
        prev_blocks: name.includes('quote_verified') ? prev_blocks : undefined,
        libraries: /^(Job|Platform)|post_job|open_session|post_open_job|serve_worker/.test(name) ? libs.toBoc().toString('base64') : undefined,
        expect: result.success
            ? { transaction: result.transaction, account: result.shardAccount }
            : { refused: Number(result.vmResults.vmExitCode) },
    });
}
