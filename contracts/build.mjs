// Compiles the contracts with @ton/tolk-js. An artefact names the compiler and the hash of every source it came from,
// so that a test without node can tell when it is older than its sources.

import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { getTolkCompilerVersion, runTolkCompiler } from '@ton/tolk-js';

const CONTRACTS = {
    Registry: 'registry.tolk',
    Model: 'model.tolk',
    Worker: 'worker.tolk',
    Job: 'job.tolk',
    Attestor: 'attestor.tolk',
    Platform: 'platform.tolk',
    Librarian: 'librarian.tolk',
    P256Probe: 'testing/p256_probe.tolk',
};
const here = dirname(fileURLToPath(import.meta.url));
const check = process.argv.includes('--check');
const compiler = `tolk-js ${await getTolkCompilerVersion()}`;
let stale = 0;

mkdirSync(join(here, 'artifacts'), { recursive: true });
for (const [name, entry] of Object.entries(CONTRACTS)) {
    const sources = {};
    const result = await runTolkCompiler({
        entrypointFileName: entry,
        fsReadCallback: (path) => {
            const file = path.replace(/^\.?\//, '');
            const text = readFileSync(join(here, file), 'utf8');
            sources[file] = createHash('sha256').update(text).digest('hex');
            return text;
        },
        optimizationLevel: 2,
        withStackComments: false,
    });
    if (result.status === 'error') {
        console.error(`error: ${entry}: ${result.message}`);
        process.exit(1);
    }
    const artefact = {
        name,
        compiler,
        code_hash: result.codeHashHex.toLowerCase(),
        code_boc64: result.codeBoc64,
        source_hashes: Object.fromEntries(Object.entries(sources).sort()),
    };
    const text = JSON.stringify(artefact, null, 2) + '\n';
    const path = join(here, 'artifacts', `${name}.json`);
    if (check) {
        let committed = '';
        try { committed = readFileSync(path, 'utf8'); } catch { /* reported as stale below */ }
        if (committed !== text) {
            console.error(`stale: artifacts/${name}.json; run scripts/build-contracts and commit the result`);
            stale += 1;
        }
    } else {
        writeFileSync(path, text);
        console.error(`${name}  ${artefact.code_hash}`);
    }
}
process.exit(stale === 0 ? 0 : 1);
