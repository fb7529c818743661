// Forty calls of the unmodified `openai` package for JavaScript against a gateway. Prints HALFWAY after the twentieth and
// waits for a line on standard input.
// usage: node suite.mjs BASE_URL MODEL
import assert from 'node:assert/strict';
import { once } from 'node:events';
import OpenAI from 'openai';

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: 'unused', maxRetries: 0, timeout: 120_000 });
const messages = [{ role: 'user', content: 'Say hello in one word.' }];
const weather = {
    type: 'function',
    function: {
        name: 'weather',
        parameters: {
            type: 'object',
            properties: { place: { type: 'string', maxLength: 12 } },
            required: ['place'],
            additionalProperties: false,
        },
    },
};
const chat = (extra = {}) =>
    client.chat.completions.create({ model, messages, max_tokens: 8, temperature: 0, ...extra });
const collect = async (stream) => {
    const events = [];
    for await (const event of await stream) events.push(event);
    return events;
};
const streamed = (extra = {}) => collect(chat({ stream: true, ...extra }));
const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('');
const content = async (extra) => (await chat(extra)).choices[0].message.content;
const refused = async (status, param, extra) => {
    const error = await chat(extra).then(() => assert.fail(`${param} was not refused`), (error) => error);
    assert.equal(error.status, status, String(error));
    assert.equal(error.param, param);
    return error;
};
const responses = (extra = {}) =>
    client.responses.create({ model, input: 'Say hello.', max_output_tokens: 8, temperature: 0, ...extra });
const completions = (extra = {}) =>
    client.completions.create({ model, prompt: 'Once upon', max_tokens: 6, temperature: 0, ...extra });

const calls = {
    'lists models': async () => assert((await client.models.list()).data.some((one) => one.id === model)),
    'retrieves a model': async () => assert.equal((await client.models.retrieve(model)).id, model),
    'an unknown model is not found': () =>
        assert.rejects(client.models.retrieve('nobody/sells-this'), OpenAI.NotFoundError),
    'answers a chat': async () => assert((await content()).trim()),
    'tells its cost': async () => assert(Number((await chat()).chrysalis[0].amount_nanoton) > 0),
    'tells its usage': async () => assert((await chat()).usage.completion_tokens <= 8),
    'the same chat has the same answer': async () => assert.equal(await content(), await content()),
    'a seed fixes a sampled answer': async () => {
        const sampled = (seed) => content({ temperature: 1, seed, max_tokens: 16 });
        assert.equal(await sampled(5), await sampled(5));
        assert.notEqual(await sampled(5), await sampled(6));
    },
    'streams what it answers whole': async () => assert.equal(textOf(await streamed()), await content()),
    'a stream ends with a reason': async () =>
        assert.equal((await streamed({ max_tokens: 2 })).at(-1).choices[0].finish_reason, 'length'),
    'a stream tells its usage where asked': async () => {
        const last = (await streamed({ stream_options: { include_usage: true } })).at(-1);
        assert.deepEqual(last.choices, []);
        assert(last.usage.total_tokens > 5);
    },
    'the stream helper gathers the answer': async () => {
        const stream = client.chat.completions.stream({ model, messages, max_tokens: 8, temperature: 0 });
        assert.equal((await stream.finalChatCompletion()).choices[0].message.content, await content());
    },
    'several choices': async () => assert.equal((await chat({ n: 3, temperature: 1 })).choices.length, 3),
    'several choices stream': async () => {
        const chunks = await streamed({ n: 2 });
        assert.equal(new Set(chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.index))).size, 2);
    },
    'max_completion_tokens is honoured': async () =>
        assert((await chat({ max_tokens: undefined, max_completion_tokens: 3 })).usage.completion_tokens <= 3),
    'logprobs': async () => {
        const entries = (await chat({ logprobs: true, top_logprobs: 2 })).choices[0].logprobs.content;
        assert(entries.length > 0 && entries.every((entry) => entry.top_logprobs.length === 2));
    },
    'JSON of a schema': async () => {
        const schema = {
            type: 'object',
            properties: { yes: { type: 'boolean' } },
            required: ['yes'],
            additionalProperties: false,
        };
        const response_format = { type: 'json_schema', json_schema: { name: 'answer', schema, strict: true } };
        assert.deepEqual(Object.keys(JSON.parse(await content({ response_format, max_tokens: 32 }))), ['yes']);
    },
    'a forced tool is called': async () => {
        const tool_choice = { type: 'function', function: { name: 'weather' } };
        const answer = await chat({ tools: [weather], tool_choice, max_tokens: 48 });
        assert('place' in JSON.parse(answer.choices[0].message.tool_calls[0].function.arguments));
    },
    'a tool call streams': async () => {
        const chunks = await streamed({ tools: [weather], tool_choice: 'required', max_tokens: 48 });
        assert(chunks.some((chunk) => chunk.choices[0]?.delta.tool_calls?.[0].function.name === 'weather'));
    },
    'the parse helper reads a call': async () => {
        const answer = await client.chat.completions.parse({
            model, messages, max_tokens: 48, temperature: 0, tool_choice: 'required',
            tools: [{ ...weather, function: { ...weather.function, strict: true } }],
        });
        assert('place' in answer.choices[0].message.tool_calls[0].function.parsed_arguments);
    },
    'a system message': async () =>
        assert(await content({ messages: [{ role: 'system', content: 'Be brief.' }, ...messages] })),
    'a developer message': async () =>
        assert(await content({ messages: [{ role: 'developer', content: 'Be brief.' }, ...messages] })),
    'content in parts': async () => {
        const parts = [{ type: 'text', text: 'Say hello ' }, { type: 'text', text: 'in one word.' }];
        assert.equal(await content({ messages: [{ role: 'user', content: parts }] }), await content());
    },
    'a completion': async () => assert((await completions()).choices[0].text),
    'a completion streams': async () => {
        const chunks = await collect(completions({ stream: true }));
        const text = chunks.map((chunk) => chunk.choices[0]?.text ?? '').join('');
        assert.equal(text, (await completions()).choices[0].text);
    },
    'completions of several prompts': async () =>
        assert.equal((await completions({ prompt: ['One', 'Two'] })).choices.length, 2),
    'a response': async () => assert((await responses()).output_text),
    'a response streams': async () => {
        const events = await collect(responses({ stream: true }));
        assert.equal(events[0].type, 'response.created');
        const text = events.filter((event) => event.type === 'response.output_text.delta');
        assert.equal(text.map((event) => event.delta).join(''), (await responses()).output_text);
    },
    'a response calls a tool': async () => {
        const tools = [{ type: 'function', ...weather.function, strict: true }];
        const answer = await responses({ tools, tool_choice: 'required', max_output_tokens: 48 });
        assert.equal(answer.output.at(-1).type, 'function_call');
    },
    'concurrent requests': async () => {
        const answers = await Promise.all(Array.from({ length: 8 }, () => content()));
        assert.equal(new Set(answers).size, 1);
    },
    'a broken-off stream does no harm': async () => {
        const stream = await chat({ stream: true, max_tokens: 200 });
        for await (const _ of stream) break;
        assert(await content());
    },
    'an unknown parameter is refused': async () =>
        assert.equal((await refused(400, 'nonsense', { nonsense: 1 })).code, 'unknown_parameter'),
    'a temperature out of range is refused': () => refused(400, 'temperature', { temperature: 3 }),
    'no answer is refused': () => refused(400, 'n', { n: 0 }),
    'logit_bias is refused': () => refused(400, 'logit_bias', { logit_bias: { 5: 1 } }),
    'metadata is refused': () => refused(400, 'metadata', { metadata: { a: 'b' } }),
    'audio is refused': () => refused(400, 'modalities', { modalities: ['text', 'audio'] }),
    'an unknown model is refused': () => refused(404, 'model', { model: 'nobody/sells-this' }),
    'a tool choice without tools is refused': () => refused(400, 'tool_choice', { tool_choice: 'required' }),
    'a tool message out of place is refused': () =>
        refused(400, 'messages[0].tool_call_id', { messages: [{ role: 'tool', content: 'x' }] }),
    'an answer after all that': async () => assert(await content()),
};

const names = Object.keys(calls);
assert(names.length >= 40, String(names.length));
for (const [at, name] of names.entries()) {
    if (at === Math.floor(names.length / 2)) {
        console.log('HALFWAY');
        await once(process.stdin, 'data');
    }
    try {
        await calls[name]();
    } catch (error) {
        console.error(`call ${at + 1}, ${name}, failed`);
        throw error;
    }
}
console.log(`${names.length} calls of openai for JavaScript passed`);
process.exit(0);
