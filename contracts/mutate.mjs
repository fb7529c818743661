// Mutation testing of the contracts: every small change of a source that still compiles must fail a test.
//
//     node mutate.mjs [--contract Job] [--from N] [--count N] [--seed N] -- TEST_COMMAND...
//
// The command is run once for each mutant, with CHRYSALIS_ARTIFACTS naming a folder of artefacts that replace the
// committed ones; the crate `contracts` reads it when built with its feature `mutants`. A mutant on which the command
// succeeds has survived. Those listed in mutants.json with a reason are expected to; any other makes the exit status 1.

import { createHash } from 'node:crypto';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runTolkCompiler } from '@ton/tolk-js';

const here = dirname(fileURLToPath(import.meta.url));
const CONTRACTS = { Registry: 'registry.tolk', Model: 'model.tolk', Worker: 'worker.tolk', Job: 'job.tolk', Platform: 'platform.tolk' };
// Sources whose lines are changed; storage and messages are held by the golden tests.
const SOURCES = ['job.tolk', 'worker.tolk', 'model.tolk', 'registry.tolk', 'platform.tolk', 'siblings.tolk', 'excesses.tolk', 'fees.tolk', 'comments.tolk'];

// Each rule: a pattern found in a line of code, and what replaces it.
const RULES = [
    ['drop assert', /^\s*assert \(.*\) throw Errors\.\w+;$/, () => ''],
    ['drop statement', /^\s*(st|state|self|history|market|posting|policy|upgrades)(\.\w+)+ (=|\+=|-=) .*;$/, () => ''],
    ['drop save', /^\s*(st|self)\.save\(.*\);$/, () => ''],
    ['drop send', /^\s*\w+\.send\(.*\);$/, () => ''],
    ['drop reserve', /^\s*reserveToncoinsOnBalance\(.*\);$/, () => ''],
    ['drop call', /^\s*(payWorker|payShare|payOut|returnExcesses|returnAbove|notify|emit|note|split|stake|unbond|pause|withdrawAll|withdrawShares)\(.*\);$/, () => ''],
    ['flip', / <= /, () => ' < '], ['flip', / >= /, () => ' > '], ['flip', / < /, () => ' <= '], ['flip', / > /, () => ' >= '],
    ['flip', / == /, () => ' != '], ['flip', / != /, () => ' == '],
    ['logic', / & \(/, () => ' | ('], ['logic', / \| \(/, () => ' & ('], ['logic', / && /, () => ' || '], ['logic', / \|\| /, () => ' && '],
    ['arithmetic', / \+ /, () => ' - '], ['arithmetic', / - /, () => ' + '], ['arithmetic', / \* /, () => ' + '],
    ['bound', /\bmin\(/, () => 'max('], ['bound', /\bmax\(/, () => 'min('],
    ['mode', /SEND_MODE_PAY_FEES_SEPARATELY/, () => 'SEND_MODE_REGULAR'],
    ['mode', /SEND_MODE_CARRY_ALL_BALANCE/, () => 'SEND_MODE_CARRY_ALL_REMAINING_MESSAGE_VALUE'],
    ['mode', /SEND_MODE_CARRY_ALL_REMAINING_MESSAGE_VALUE/, () => 'SEND_MODE_REGULAR'],
    ['mode', / \| SEND_MODE_DESTROY/, () => ''], ['mode', / \| SEND_MODE_IGNORE_ERRORS/, () => ''],
    ['bounce', /BounceMode\.Only256BitsOfBody/, () => 'BounceMode.NoBounce'],
    ['address', /in\.senderAddress/, () => 'contract.getAddress()'], ['address', /st\.client\b/, () => 'in.senderAddress'],
    ['address', /st\.owner\b/, () => 'in.senderAddress'], ['address', /seller\.worker\b/, () => 'seller.model'],
    ['address', /seller\.model\b/, () => 'seller.worker'], ['address', /parties\.client\b/, () => 'parties.reporter'],
    ['amount', /st\.deposit\b/, () => 'st.paid'], ['amount', /st\.bond\b/, () => '0'], ['amount', /\bshareNow\b/, () => 'shareBefore'],
    ['constant', /OUTCOME_SETTLED/, () => 'OUTCOME_REJECTED'], ['constant', /JOB_SETTLED/, () => 'JOB_CANCELLED'],
    ['constant', /JOB_OPEN\b/, () => 'JOB_CLAIMED'], ['constant', /JOB_CLAIMED\b/, () => 'JOB_OPEN'], ['constant', /true/, () => 'false'],
    ['constant', /false/, () => 'true'],
];

const sources = Object.fromEntries(SOURCES.map((file) => [file, readFileSync(join(here, file), 'utf8').split('\n')]));

function mutants() {
    const all = [];
    for (const [file, lines] of Object.entries(sources)) {
        lines.forEach((line, at) => {
            const code = line.trim();
            if (code.startsWith('//') || code.startsWith('import ') || code.startsWith('get fun') || code.startsWith('fun ')) return;
            for (const [rule, pattern, replacement] of RULES) {
                if (rule.startsWith('drop')) {
                    // A statement over several lines is not dropped in part.
                    if (pattern.test(line)) all.push({ rule, file, at, line, changed: '' });
                    continue;
                }
                for (const found of line.matchAll(new RegExp(pattern, 'g'))) {
                    const changed = line.slice(0, found.index) + replacement() + line.slice(found.index + found[0].length);
                    if (changed !== line) all.push({ rule, file, at, line, changed });
                }
            }
        });
    }
    return all;
}

// The name of a mutant outlives changes elsewhere in its file.
function nameOf({ file, line, changed }) {
    return createHash('sha256').update(`${file}\n${line.trim()}\n${changed.trim()}`).digest('hex').slice(0, 12);
}

async function compile(entry, mutant) {
    const result = await runTolkCompiler({
        entrypointFileName: entry,
        fsReadCallback: (path) => {
            const file = path.replace(/^\.?\//, '');
            if (file !== mutant.file) return readFileSync(join(here, file), 'utf8');
            return sources[file].map((line, at) => (at === mutant.at ? mutant.changed : line)).join('\n');
        },
        optimizationLevel: 2,
        withStackComments: false,
    });
    return result.status === 'error' ? null : result;
}

function option(name, otherwise) {
    const at = process.argv.indexOf(name);
    return at < 0 ? otherwise : process.argv[at + 1];
}

const split = process.argv.indexOf('--');
if (split < 0 || split === process.argv.length - 1) {
    console.error('error: name the test command after --');
    process.exit(2);
}
const command = process.argv.slice(split + 1);
const only = option('--contract', null);
const expected = JSON.parse(readFileSync(join(here, 'mutants.json'), 'utf8'));
const folder = mkdtempSync(join(tmpdir(), 'mutants-'));
let chosen = mutants().filter((mutant) => !only || mutant.file === CONTRACTS[only]);
// In an order of its own, so that a part of the whole is a fair sample.
const seed = option('--seed', null);
if (seed) {
    const key = (mutant) => createHash('sha256').update(`${seed}:${mutant.file}:${mutant.at}:${mutant.changed}`).digest('hex');
    chosen = chosen.map((mutant) => [key(mutant), mutant]).sort(([a], [b]) => (a < b ? -1 : 1)).map(([, mutant]) => mutant);
}
const from = Number(option('--from', 0));
chosen = chosen.slice(from, from + Number(option('--count', chosen.length)));

const count = { killed: 0, invalid: 0, same: 0, expected: 0, survived: 0 };
for (const [index, mutant] of chosen.entries()) {
    const name = nameOf(mutant);
    const target = join(folder, name);
    mkdirSync(target, { recursive: true });
    let valid = true;
    let differs = false;
    for (const [contract, entry] of Object.entries(CONTRACTS)) {
        const committed = JSON.parse(readFileSync(join(here, 'artifacts', `${contract}.json`), 'utf8'));
        if (!(mutant.file in committed.source_hashes)) {
            writeFileSync(join(target, `${contract}.json`), JSON.stringify(committed));
            continue;
        }
        const compiled = await compile(entry, mutant);
        if (!compiled) { valid = false; break; }
        differs ||= compiled.codeHashHex.toLowerCase() !== committed.code_hash;
        writeFileSync(join(target, `${contract}.json`), JSON.stringify({
            name: contract, compiler: 'mutant', code_hash: compiled.codeHashHex.toLowerCase(), code_boc64: compiled.codeBoc64, source_hashes: {},
        }));
    }
    let verdict = 'killed';
    if (!valid) verdict = 'invalid';
    else if (!differs) verdict = 'same';
    else {
        const run = spawnSync(command[0], command.slice(1), { env: { ...process.env, CHRYSALIS_ARTIFACTS: target }, stdio: 'ignore', timeout: 600_000 });
        if (run.status === 0) verdict = name in expected ? 'expected' : 'survived';
    }
    rmSync(target, { recursive: true });
    count[verdict] += 1;
    if (verdict === 'survived') {
        console.log(`${name}  ${mutant.file}:${mutant.at + 1}  ${mutant.rule}\n  - ${mutant.line.trim()}\n  + ${mutant.changed.trim()}`);
    }
    process.stderr.write(`\r${index + 1}/${chosen.length} ${JSON.stringify(count)}   `);
}
rmSync(folder, { recursive: true });
console.error();
console.log(JSON.stringify(count));
process.exit(count.survived === 0 ? 0 : 1);
