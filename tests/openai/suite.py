"""Forty calls of the unmodified `openai` package against a gateway. Prints HALFWAY after the twentieth and waits for a line
on standard input, so that whoever runs it can kill a worker in between.

usage: suite.py BASE_URL MODEL
"""

import json
import sys

import openai

BASE_URL, MODEL = sys.argv[1:3]
client = openai.OpenAI(base_url=BASE_URL, api_key="unused", max_retries=0, timeout=120)
HELLO = [{"role": "user", "content": "Say hello in one word."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather at a place",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string", "maxLength": 12}},
            "required": ["place"],
            "additionalProperties": False,
        },
    },
}
CALLS = []


def call(function):
    CALLS.append(function)
    return function


def chat(**extra):
    options = {"model": MODEL, "messages": HELLO, "max_tokens": 8, "temperature": 0} | extra
    return client.chat.completions.create(**options)


def streamed(**extra):
    return list(chat(stream=True, **extra))


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def refused(kind, param, **extra):
    try:
        chat(**extra)
    except kind as error:
        assert error.body["param"] == param, error.body
        return error
    raise AssertionError(f"{param} was not refused")


@call
def lists_models():
    models = client.models.list().data
    assert MODEL in [model.id for model in models], models
    assert models[0].chrysalis["workers"] >= 1


@call
def retrieves_a_model():
    assert client.models.retrieve(MODEL).id == MODEL


@call
def an_unknown_model_is_not_found():
    try:
        client.models.retrieve("nobody/sells-this")
    except openai.NotFoundError as error:
        assert error.body["code"] == "model_not_found"
        return
    raise AssertionError


@call
def answers_a_chat():
    answer = chat()
    assert answer.choices[0].message.content.strip()
    assert answer.usage.completion_tokens in range(1, 9)
    assert answer.usage.prompt_tokens > 5
    assert int(answer.chrysalis[0]["amount_nanoton"]) > 0


@call
def the_same_chat_has_the_same_answer():
    assert chat().choices[0].message.content == chat().choices[0].message.content


@call
def a_seed_fixes_a_sampled_answer():
    one, two, other = (
        chat(temperature=1, seed=seed, max_tokens=16).choices[0].message.content for seed in (5, 5, 6)
    )
    assert one == two != other


@call
def streams_what_it_answers_whole():
    assert text_of(streamed()) == chat().choices[0].message.content


@call
def a_stream_ends_with_a_reason():
    assert streamed(max_tokens=2)[-1].choices[0].finish_reason == "length"


@call
def a_stream_tells_its_usage_where_asked():
    last = streamed(stream_options={"include_usage": True})[-1]
    assert last.choices == [] and last.usage.total_tokens > 5


@call
def max_completion_tokens_is_honoured():
    assert chat(max_tokens=openai.omit, max_completion_tokens=3).usage.completion_tokens <= 3


@call
def several_choices():
    answer = chat(n=3, temperature=1, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]


@call
def several_choices_stream():
    chunks = streamed(n=2)
    assert {chunk.choices[0].index for chunk in chunks if chunk.choices} == {0, 1}


@call
def a_stop_string_is_not_in_the_answer():
    whole = chat(max_tokens=24, messages=[{"role": "user", "content": "Count: one two three"}])
    text = whole.choices[0].message.content
    stop = text.strip()[2:4]
    cut = chat(max_tokens=24, stop=stop, messages=[{"role": "user", "content": "Count: one two three"}])
    assert stop not in cut.choices[0].message.content and cut.choices[0].finish_reason == "stop"


@call
def logprobs_come_with_alternatives():
    content = chat(logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert content and all(len(entry.top_logprobs) == 3 and entry.logprob <= 0 for entry in content)


@call
def logprobs_stream():
    chunks = streamed(logprobs=True, max_tokens=4)
    assert any(chunk.choices and chunk.choices[0].logprobs for chunk in chunks)


@call
def a_json_object():
    answer = chat(response_format={"type": "json_object"}, max_tokens=64, temperature=0.7, seed=3)
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)
    else:
        assert answer.choices[0].message.content.lstrip().startswith("{")


@call
def json_of_a_schema():
    schema = {
        "type": "object",
        "properties": {"yes": {"type": "boolean"}},
        "required": ["yes"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    answer = chat(response_format=wanted, max_tokens=32)
    assert set(json.loads(answer.choices[0].message.content)) == {"yes"}


@call
def a_forced_tool_is_called():
    forced = {"type": "function", "function": {"name": "weather"}}
    answer = chat(tools=[WEATHER], tool_choice=forced, max_tokens=48)
    calls = answer.choices[0].message.tool_calls
    assert calls[0].function.name == "weather" and "place" in json.loads(calls[0].function.arguments)
    assert answer.choices[0].finish_reason == "tool_calls"


@call
def a_tool_call_streams():
    chunks = streamed(tools=[WEATHER], tool_choice="required", max_tokens=48)
    calls = [chunk.choices[0].delta.tool_calls for chunk in chunks if chunk.choices]
    assert any(call and call[0].function.name == "weather" for call in calls)


@call
def a_tools_answer_is_taken():
    turns = HELLO + [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Oslo"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "It rains."},
    ]
    assert chat(messages=turns, tools=[WEATHER], tool_choice="none").choices[0].message.content is not None


@call
def a_long_conversation():
    turns = [{"role": "system", "content": "Be brief."}]
    for at in range(6):
        turns += [{"role": "user", "content": f"Number {at}?"}, {"role": "assistant", "content": str(at)}]
    assert chat(messages=turns + HELLO).usage.prompt_tokens > 60


@call
def content_in_parts():
    parts = [{"type": "text", "text": "Say "}, {"type": "text", "text": "hello in one word."}]
    answer = chat(messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == chat().choices[0].message.content


@call
def a_completion():
    answer = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=6, temperature=0)
    assert answer.choices[0].text and answer.usage.completion_tokens <= 6


@call
def a_completion_streams():
    chunks = list(
        client.completions.create(model=MODEL, prompt="Once upon", max_tokens=6, temperature=0, stream=True)
    )
    whole = client.completions.create(model=MODEL, prompt="Once upon", max_tokens=6, temperature=0)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text


@call
def completions_of_several_prompts():
    answer = client.completions.create(model=MODEL, prompt=["One", "Two"], max_tokens=3, temperature=0)
    assert [choice.index for choice in answer.choices] == [0, 1]


@call
def a_response():
    answer = client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=8, temperature=0)
    assert answer.output_text and answer.usage.output_tokens <= 8


@call
def a_response_streams():
    events = list(
        client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=8, temperature=0, stream=True)
    )
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[0].type == "response.created" and events[-1].type in ("response.completed", "response.incomplete")
    assert text == events[-1].response.output_text


@call
def a_response_with_instructions():
    answer = client.responses.create(
        model=MODEL, instructions="Answer in one word.", input=[{"role": "user", "content": "Sky?"}], max_output_tokens=4
    )
    assert answer.status in ("completed", "incomplete")


@call
def a_repeated_prompt_is_found_computed():
    long = [{"role": "user", "content": "The quick brown fox jumps over the lazy dog. " * 12}]
    chat(messages=long, max_tokens=1)
    assert chat(messages=long, max_tokens=1).usage.prompt_tokens_details.cached_tokens > 32


@call
def concurrent_requests():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda at: chat(seed=at).choices[0].message.content, range(8)))
    assert len(set(answers)) == 1


@call
def a_broken_off_stream_does_no_harm():
    stream = chat(stream=True, max_tokens=200)
    next(iter(stream))
    stream.close()
    assert chat().choices


@call
def an_unknown_parameter_is_refused():
    error = refused(openai.BadRequestError, "nonsense", extra_body={"nonsense": 1})
    assert error.body["code"] == "unknown_parameter"


@call
def an_image_is_refused():
    content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    refused(openai.BadRequestError, "messages[0].content.type", messages=[{"role": "user", "content": content}])


@call
def a_temperature_out_of_range_is_refused():
    refused(openai.BadRequestError, "temperature", temperature=3)


@call
def logit_bias_is_refused():
    refused(openai.BadRequestError, "logit_bias", logit_bias={"5": 1})


@call
def storing_is_refused():
    refused(openai.BadRequestError, "store", store=True)


@call
def an_empty_conversation_is_refused():
    refused(openai.BadRequestError, "messages", messages=[])


@call
def a_chat_with_an_unknown_model_is_refused():
    refused(openai.NotFoundError, "model", model="nobody/sells-this")


@call
def a_prompt_beyond_the_context_is_refused():
    long = [{"role": "user", "content": "word " * 20_000}]
    try:
        chat(messages=long)
    except openai.APIStatusError as error:
        assert "word word" not in str(error.body)
        return
    raise AssertionError


@call
def a_message_without_content_is_refused():
    refused(openai.BadRequestError, "messages[0].content", messages=[{"role": "user", "content": None}])


assert len(CALLS) >= 40, len(CALLS)
for at, one in enumerate(CALLS):
    if at == len(CALLS) // 2:
        print("HALFWAY", flush=True)
        sys.stdin.readline()
    try:
        one()
    except BaseException:
        print(f"call {at + 1}, {one.__name__}, failed", file=sys.stderr)
        raise
print(f"{len(CALLS)} calls of openai {openai.__version__} for Python passed", flush=True)
