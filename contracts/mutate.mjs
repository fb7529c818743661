// Mutation testing of the contracts: every small change of a source that still compiles must fail a test.
//
//     node mutate.mjs [--file job.tolk,…] [--rule drop,flip,…] [--only NAME,…] [--from N] [--count N] [--seed N] [--list]
//         [--slow] [--log FILE [--new]] --contracts BINARY --attestor BINARY --genuine BINARY --p256 BINARY
//
// The binaries are tests built with the feature `mutants`: artefacts in the folder that CHRYSALIS_ARTIFACTS names replace
// the committed ones. They run one test at a time, the quick ones first, and stop at the first that fails. A mutant that
// compiles to the same code changes nothing and is not run. Survivors listed in mutants.json with a reason are expected;
// any other makes the exit status 1. What the log says was killed is not run again where its code is the same, nor, with
// `--new`, where its line is.

import { createHash } from 'node:crypto';
import { spawn } from 'node:child_process';
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { runTolkCompiler } from '@ton/tolk-js';

const here = dirname(fileURLToPath(import.meta.url));
const CONTRACTS = {
    Registry: 'registry.tolk', Model: 'model.tolk', Worker: 'worker.tolk', Job: 'job.tolk', Platform: 'platform.tolk',
    Librarian: 'librarian.tolk', Attestor: 'attestor.tolk', P256Probe: 'testing/p256_probe.tolk',
};
// Storage and messages are layout alone, held by the golden tests.
const SOURCES = [
    'job.tolk', 'worker.tolk', 'model.tolk', 'registry.tolk', 'platform.tolk', 'librarian.tolk', 'siblings.tolk', 'excesses.tolk',
    'logs.tolk', 'comments.tolk', 'fees.tolk', 'storage.tolk', 'attestor.tolk', 'attestor_storage.tolk', 'quote.tolk', 'pck.tolk', 'crl.tolk',
    'certificate.tolk', 'tcb_info.tolk', 'qe_identity.tolk', 'p256.tolk', 'json.tolk', 'der.tolk', 'dates.tolk', 'pieces.tolk',
];

// What tells any other code from the committed one, by its hash or by exact gas, would hide what the rest misses.
const HASHES_AND_GAS = ['gas::gas_is_that', 'artefacts::', 'traces::', 'emulator::', 'steps::', 'gas_is_that_of_the_snapshot', 'for_the_stated_gas'];
const skip = (names) => [...HASHES_AND_GAS, ...names].flatMap((name) => ['--skip', name]);
// In order; each runs where one of its contracts changed.
const MARKET = ['Registry', 'Model', 'Worker', 'Job', 'Platform', 'Librarian'];
const STAGES = [
    { of: MARKET, binary: 'contracts', filter: skip(['random::']) },
    { of: MARKET, binary: 'contracts', filter: ['random::random_sequences'], env: { CHRYSALIS_SEED: '1' } },
    { of: ['P256Probe'], binary: 'p256', filter: skip(['random::', 'wycheproof::']) },
    { of: ['Attestor'], binary: 'genuine', filter: skip(['every_bit']) },
    { of: ['Attestor'], binary: 'attestor', filter: skip(['differential::', 'every_bit', 'noise_is']) },
    { of: ['Attestor'], binary: 'attestor', filter: ['differential::'], env: { CHRYSALIS_CASES: '300' } },
    { of: ['Attestor'], binary: 'attestor', filter: ['every_bit', 'noise_is'], slow: true },
    { of: ['Attestor'], binary: 'genuine', filter: ['every_bit'], slow: true },
    { of: ['P256Probe'], binary: 'p256', filter: ['random::', 'wycheproof::'], slow: true },
    { of: ['Attestor'], binary: 'attestor', filter: ['differential::'], env: { CHRYSALIS_CASES: '5000' }, slow: true },
];
const STAGE_LIMIT_MS = 240_000;
// Tests that killed a mutant of the same file run first.
const LIKELY = 12;
const SLOW = ['random::', 'wycheproof::', 'differential::', 'every_bit', 'noise_is'];

// Each rule: a pattern in the code, and what replaces what it finds. Statements are dropped beside these.
const RULES = [
    ['flip', / <= /, ' < '], ['flip', / >= /, ' > '], ['flip', / < /, ' <= '], ['flip', / > /, ' >= '],
    ['flip', / == /, ' != '], ['flip', / != /, ' == '],
    ['logic', / & (?=\(|!|\w+[.(])/, ' | '], ['logic', / \| (?=\(|\w+[.(])/, ' & '], ['logic', / && /, ' || '], ['logic', / \|\| /, ' && '],
    ['logic', /(?<![\w)\]])!(?=[\w(])/, ''],
    ['arithmetic', / \+ /, ' - '], ['arithmetic', / - /, ' + '], ['arithmetic', / \* /, ' + '], ['arithmetic', / \/ /, ' * '],
    ['arithmetic', / << /, ' >> '], ['arithmetic', / >> /, ' << '], ['arithmetic', / \+= /, ' -= '], ['arithmetic', / -= /, ' += '],
    ['bound', /\bmin\(/, 'max('], ['bound', /\bmax\(/, 'min('],
    ['mode', /SEND_MODE_PAY_FEES_SEPARATELY/, 'SEND_MODE_REGULAR'],
    ['mode', /SEND_MODE_CARRY_ALL_BALANCE/, 'SEND_MODE_CARRY_ALL_REMAINING_MESSAGE_VALUE'],
    ['mode', /SEND_MODE_CARRY_ALL_REMAINING_MESSAGE_VALUE/, 'SEND_MODE_REGULAR'],
    ['mode', / \| SEND_MODE_DESTROY/, ''], ['mode', / \| SEND_MODE_IGNORE_ERRORS/, ''],
    ['mode', /RESERVE_MODE_AT_MOST/, 'RESERVE_MODE_EXACT_AMOUNT'],
    ['bounce', /BounceMode\.Only256BitsOfBody/, 'BounceMode.NoBounce'], ['bounce', /BounceMode\.NoBounce/, 'BounceMode.Only256BitsOfBody'],
    ['address', /\bin\.senderAddress/, 'contract.getAddress()'], ['address', /\bst\.client\b/, 'in.senderAddress'],
    ['address', /\bst\.owner\b/, 'in.senderAddress'], ['address', /\bseller\.worker\b/, 'seller.model'],
    ['address', /\bseller\.model\b/, 'seller.worker'], ['address', /\bparties\.client\b/, 'parties.reporter'],
    ['address', /\bparties\.reporter\b/, 'parties.client'], ['address', /\bstate\.publisher\b/, 'in.senderAddress'],
    ['address', /\bstate\.workerOwner\b/, 'in.senderAddress'], ['address', /\bmsg\.workerOwner\b/, 'in.senderAddress'],
    ['amount', /\bst\.deposit\b/, 'st.paid'], ['amount', /\bst\.bond\b/, '0'], ['amount', /\bshareNow\b/, 'shareBefore'],
    ['amount', /\bin\.valueCoins\b/, '0'], ['amount', /\bcontract\.getOriginalBalance\(\)/, 'in.valueCoins'],
    ['constant', /\bOUTCOME_SETTLED\b/, 'OUTCOME_REJECTED'], ['constant', /\bOUTCOME_(?!SETTLED)\w+/, 'OUTCOME_SETTLED'],
    ['constant', /\bJOB_SETTLED\b/, 'JOB_CANCELLED'], ['constant', /\bJOB_(CANCELLED|EXPIRED|REJECTED)\b/, 'JOB_SETTLED'],
    ['constant', /\bJOB_OPEN\b/, 'JOB_CLAIMED'], ['constant', /\bJOB_(CLAIMED|AWAITING|SESSION|CLOSING)\b/, 'JOB_OPEN'],
    ['constant', /\btrue\b/, 'false'], ['constant', /\bfalse\b/, 'true'],
    ['role', /\bROLE_PCK_ISSUER\b/, 'ROLE_TCB_SIGNER'], ['role', /\bROLE_TCB_SIGNER\b/, 'ROLE_PCK_ISSUER'],
    ['time', /\.notBefore\b/, '.notAfter'], ['time', /\.notAfter\b/, '.notBefore'], ['time', /\.nextUpdate\b/, '.thisUpdate'],
    ['number', /(?<=[=<>&|+*/^-] |\()(?:[1-9]\d*)\b(?= [=<>&|+*/^-]|\)|;| as )/, (n) => String(Number(n) + 1)],
    ['condition', /\bif \((?=.*\) \{$)/m, null], ['condition', /\bwhile \((?=.*\) \{$)/m, null],
];

const sources = Object.fromEntries(SOURCES.map((file) => [file, readFileSync(join(here, file), 'utf8')]));

// The same text with spaces for comments, strings, imports, types, structures and signatures: code alone is changed.
function codeOf(text) {
    const blank = (found) => found.replace(/[^\n]/g, ' ');
    return text
        .replace(/\/\/[^\n]*/g, blank).replace(/"(?:\\.|[^"\\\n])*"/g, blank)
        .replace(/^(import|type) [^\n]*(\n +\|[^\n]*)*/gm, blank)
        .replace(/^struct [^{]*\{[^}]*\}/gm, blank)
        .replace(/^(get )?fun [^{]*?(\{|asm)(?=\s)/gm, (found) => blank(found.slice(0, -1)) + found.at(-1));
}

// Where the parenthesis at this place is closed.
function closing(code, open) {
    let depth = 0;
    for (let at = open; at < code.length; at += 1) {
        if ('([{'.includes(code[at])) depth += 1;
        if (')]}'.includes(code[at]) && (depth -= 1) === 0) return at;
    }
    return -1;
}

// Whole statements without which the source may still compile.
function statements(code) {
    const found = [];
    for (const start of code.matchAll(/(?<=^ +|; |\{ )(?=[\w(])(?!(val|var|return|if|else|while|do|repeat|match|fun|const|@)\b)/gm)) {
        let depth = 0;
        for (let at = start.index; at < code.length; at += 1) {
            if ('([{'.includes(code[at])) depth += 1;
            else if (')]}'.includes(code[at])) depth -= 1;
            if (depth < 0 || (depth > 0 && at - start.index > 3000)) break;
            if (depth === 0 && code[at] === ';') {
                const text = code.slice(start.index, at + 1);
                if (/^(assert \(|throw |[\w.!]+ (=|\+=|-=|\|=|&=) |[\w.!<>]+\()/.test(text) && !text.includes('=> {')) found.push([start.index, at + 1]);
                break;
            }
            if (depth === 0 && code[at] === ',') break;
        }
    }
    return found;
}

function mutantsOf(file) {
    const text = sources[file];
    const code = codeOf(text);
    const all = [];
    const add = (rule, from, to, by) => {
        const [start, end] = [text.lastIndexOf('\n', from - 1) + 1, text.indexOf('\n', to)];
        const before = text.slice(0, start);
        const functions = [...before.matchAll(/^(?:get )?fun ([\w.<>]+)/gm)];
        const within = functions.at(-1)?.[1] ?? '';
        const arms = [...before.slice(functions.at(-1)?.index ?? 0).matchAll(/^ {8}(\w+) => \{$/gm)];
        const line = text.slice(start, end).replace(/\s+/g, ' ').trim();
        const changed = (text.slice(start, from) + by + text.slice(to, end)).replace(/\s+/g, ' ').trim();
        if (changed === line) return;
        all.push({
            file, rule, in: arms.length ? `${within} ${arms.at(-1)[1]}` : within, line, changed,
            at: before.split('\n').length, text: text.slice(0, from) + by + text.slice(to),
        });
    };
    for (const [from, to] of statements(code)) add('drop', from, to, '');
    for (const [rule, pattern, by] of RULES) {
        for (const found of code.matchAll(new RegExp(pattern, `g${pattern.flags}`))) {
            const end = found.index + found[0].length;
            if (by === null) {
                const close = closing(code, end - 1);
                if (close < 0) continue;
                for (const value of rule === 'condition' && found[0].startsWith('while') ? ['false'] : ['true', 'false']) add(rule, end, close, value);
            } else {
                add(rule, found.index, end, typeof by === 'function' ? by(found[0]) : by);
            }
        }
    }
    // The name outlives changes elsewhere in the file.
    const seen = new Map();
    for (const mutant of all) {
        const key = [mutant.file, mutant.in, mutant.line, mutant.changed].join('\n');
        const times = seen.get(key) ?? 0;
        seen.set(key, times + 1);
        mutant.name = createHash('sha256').update(times ? `${key}\n${times}` : key).digest('hex').slice(0, 12);
    }
    return all.sort((a, b) => a.at - b.at);
}

// The compiler's module is made ready once: to compile it anew for each contract takes longer than the contract.
const { instantiate } = WebAssembly;
let compiler;
WebAssembly.instantiate = async (bytes, imports) => {
    compiler ??= await WebAssembly.compile(bytes);
    return { module: compiler, instance: await instantiate(compiler, imports) };
};

// `read` by `{ file: text }` in place of the sources. The artefact and the files it came from, or null.
async function compile(contract, read) {
    const files = new Set();
    const result = await runTolkCompiler({
        entrypointFileName: CONTRACTS[contract],
        fsReadCallback: (path) => {
            const file = path.replace(/^\.?\//, '');
            files.add(file);
            return read[file] ?? readFileSync(join(here, file), 'utf8');
        },
        optimizationLevel: 2,
        withStackComments: false,
    });
    if (result.status === 'error') return null;
    const hash = result.codeHashHex.toLowerCase();
    return { files, hash, text: JSON.stringify({ name: contract, compiler: 'mutant', code_hash: hash, code_boc64: result.codeBoc64, source_hashes: {} }) };
}

const folder = mkdtempSync(join(tmpdir(), 'mutants-'));
const running = new Set();
const end = (code) => {
    for (const child of running) child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
    process.exit(code);
};
process.on('SIGINT', () => end(130));
process.on('SIGTERM', () => end(143));

// The first test of the stage that fails, or null.
function firstFailure({ binary, filter, env }, artefacts) {
    return new Promise((resolve) => {
        const child = spawn(binaries[binary], ['--test-threads=1', ...filter], {
            env: { ...process.env, ...env, CHRYSALIS_ARTIFACTS: artefacts, RUST_BACKTRACE: '0' },
            stdio: ['ignore', 'pipe', 'ignore'],
        });
        running.add(child);
        let failed = null;
        const stop = (reason) => {
            failed ??= reason;
            child.kill('SIGKILL');
        };
        const limit = setTimeout(() => stop(`${binary} time limit`), STAGE_LIMIT_MS);
        createInterface({ input: child.stdout }).on('line', (line) => {
            const found = /^test (\S+) .*FAILED$/.exec(line);
            if (found) stop(`${binary} ${found[1]}`);
        });
        child.on('close', (status) => {
            clearTimeout(limit);
            running.delete(child);
            if (status !== 0) failed ??= `${binary} exit status ${status}`;
            resolve(failed);
        });
    });
}

// What killed mutants of the same file before, newest first: it is likely to kill the next one too.
const killers = new Map();
function remember(file, by) {
    // Slow tests have stages of their own.
    if (!by?.includes('::') || SLOW.some((name) => by.includes(name))) return;
    const before = (killers.get(file) ?? []).filter((other) => other !== by);
    killers.set(file, [by, ...before].slice(0, LIKELY));
}

async function killer(compiled, changed, file) {
    const target = join(folder, 'artefacts');
    rmSync(target, { recursive: true, force: true });
    mkdirSync(target);
    for (const contract of changed) writeFileSync(join(target, `${contract}.json`), compiled[contract].text);
    const stages = STAGES.filter(({ of, slow }) => of.some((contract) => changed.includes(contract)) && (!slow || isSlow));
    for (const binary of new Set(stages.map((stage) => stage.binary))) {
        const likely = (killers.get(file) ?? []).map((by) => by.split(' ')).filter(([of]) => of === binary).map(([, test]) => test);
        const failed = likely.length ? await firstFailure({ binary, filter: ['--exact', ...likely] }, target) : null;
        if (failed) return failed;
    }
    for (const stage of stages) {
        const failed = await firstFailure(stage, target);
        if (failed) return failed;
    }
    return null;
}

function option(name, otherwise) {
    const at = process.argv.indexOf(name);
    return at < 0 ? otherwise : process.argv[at + 1];
}

const isNew = process.argv.includes('--new');
const isSlow = process.argv.includes('--slow');
const only = option('--only', null)?.split(',');
const files = option('--file', null)?.split(',') ?? SOURCES;
const every = SOURCES.flatMap(mutantsOf);
const expected = JSON.parse(readFileSync(join(here, 'mutants.json'), 'utf8'));
const names = new Set(every.map(({ name }) => name));
const stale = Object.keys(expected).filter((name) => !names.has(name));
for (const name of stale) console.log(`stale: mutants.json has a reason for ${name}, a mutant that is no more`);

const rules = option('--rule', null)?.split(',');
let chosen = every.filter(({ file, rule, name }) => (only ? only.includes(name) : files.includes(file) && (rules?.includes(rule) ?? true)));
// In an order of its own, so that a part of the whole is a fair sample.
const seed = option('--seed', null);
if (seed) {
    const key = ({ name }) => createHash('sha256').update(`${seed}:${name}`).digest('hex');
    chosen = chosen.map((mutant) => [key(mutant), mutant]).sort(([a], [b]) => (a < b ? -1 : 1)).map(([, mutant]) => mutant);
}
const from = Number(option('--from', 0));
chosen = chosen.slice(from, from + Number(option('--count', chosen.length)));
const show = ({ name, file, at, rule, in: within, line, changed }) => `${name}  ${file}:${at}  ${rule}, in ${within}\n  - ${line}\n  + ${changed}`;
if (process.argv.includes('--list')) {
    // What is not written yet when the process ends would be lost.
    await new Promise((resolve) => process.stdout.write(`${[...chosen.map(show), chosen.length].join('\n')}\n`, resolve));
    end(stale.length ? 1 : 0);
}

const binaries = Object.fromEntries(['contracts', 'attestor', 'genuine', 'p256'].map((name) => [name, option(`--${name}`, null)]));
if (Object.values(binaries).some((path) => !path)) {
    console.error('error: name the test binaries; scripts/mutate-contracts does');
    end(2);
}

// What the sources compile to. The control: on code that is other, by a get-method nobody calls, the tests do not fail.
const original = {};
for (const contract of Object.keys(CONTRACTS)) original[contract] = await compile(contract, {});
if (!process.argv.includes('--no-control')) {
    const used = Object.keys(CONTRACTS).filter((contract) => chosen.some(({ file }) => original[contract].files.has(file)));
    const control = {};
    for (const contract of used) {
        const entry = CONTRACTS[contract];
        const text = `${readFileSync(join(here, entry), 'utf8')}\nget fun unheardOf(): int {\n    return 1;\n}\n`;
        control[contract] = await compile(contract, { [entry]: text });
        if (!control[contract] || control[contract].hash === original[contract].hash) {
            console.error(`error: the control of ${contract} is not other code`);
            end(2);
        }
    }
    const failed = await killer(control, used);
    if (failed) {
        console.error(`error: ${failed} fails on code that does the same as the committed one`);
        end(2);
    }
}

const log = option('--log', null);

// By what they compile to, and by their names while the contracts they are part of are the same.
const known = new Map();
if (log && existsSync(log)) {
    for (const line of readFileSync(log, 'utf8').split('\n').filter(Boolean)) {
        const { name, of, code, by } = JSON.parse(line);
        if (by) known.set(code, by).set(`${name} ${of}`, by).set(name, by);
    }
}
const digest = (text) => createHash('sha256').update(text).digest('hex').slice(0, 16);
const count = { killed: 0, invalid: 0, same: 0, expected: 0, survived: 0 };
const survivors = [];
const started = performance.now();
for (const [index, mutant] of chosen.entries()) {
    const parts = Object.keys(CONTRACTS).filter((name) => original[name].files.has(mutant.file));
    const of = digest(parts.map((contract) => original[contract].hash).join());
    let by = known.get(`${mutant.name} ${of}`) ?? (isNew ? known.get(mutant.name) : null) ?? null;
    if (!by) {
        const compiled = {};
        const changed = [];
        let code = null;
        for (const contract of parts) {
            compiled[contract] = await compile(contract, { [mutant.file]: mutant.text });
            if (!compiled[contract]) { by = 'invalid'; break; }
            if (compiled[contract].hash !== original[contract].hash) changed.push(contract);
        }
        if (!by && !changed.length) by = 'same';
        if (!by) {
            code = digest(changed.map((contract) => contract + compiled[contract].hash).join());
            by = known.get(code) ?? (await killer(compiled, changed, mutant.file));
            if (by) known.set(code, by);
        }
        if (log) appendFileSync(log, `${JSON.stringify({ name: mutant.name, of, code, by })}\n`);
    }
    remember(mutant.file, by);
    const verdict = by === 'invalid' || by === 'same' ? by : by ? 'killed' : mutant.name in expected ? 'expected' : 'survived';
    count[verdict] += 1;
    if (verdict === 'survived') {
        survivors.push(mutant);
        console.log(show(mutant));
    }
    const seconds = ((performance.now() - started) / 1000 / (index + 1)).toFixed(2);
    process.stderr.write(`\r${index + 1}/${chosen.length} ${JSON.stringify(count)} ${seconds} s each   `);
}
console.error();
console.log(JSON.stringify(count));
end(survivors.length || stale.length ? 1 : 0);
