// What the Attestor makes of genuine and simulated quotes and collateral. The accounts and messages are those that
// `UPDATE_SNAPSHOTS=1 cargo test -p tests --test attestor emulator` has written into fixtures/attestor.json.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { label } from './label.mjs';
const require = createRequire(import.meta.url);
const { Blockchain, Executor } = require('@ton/sandbox');
const { Cell, loadMessage } = require('@ton/core');

const { configBase64 } = await Blockchain.create();
const executor = await Executor.create();
for (const { name, now, lt, account, message } of JSON.parse(readFileSync(new URL('fixtures/attestor.json', import.meta.url)))) {
    const cell = Cell.fromBase64(message);
    label.address = loadMessage(cell.beginParse()).info.dest.toString();
    label.name = name;
    const done = await executor.runTransaction({
        config: configBase64,
        libs: null,
        verbosity: 'short',
        shardAccount: account,
        message: cell,
        now,
        lt: BigInt(lt),
        randomSeed: null,
        ignoreChksig: false,
        debugEnabled: false,
    });
    if (!done.result.success) console.log('FAIL', name, done.result.error);
    label.address = null;
}
