"""Runs the engines in turn, round after round, and prints medians, ratios and their spread.

usage: bench-inference.py --model SMOLLM2_GGUF --ours BINARY --ours-serving BINARY [--only ours] [--rounds N]
                          [--threads N] [--contexts 128,2048] [--batches 1,8] [--kinds Q8_0,Q4_0,BF16]
                          [--shapes smollm2,qwen3] [--json FILE] [--update-docs]

--update-docs puts the table and the machine into docs/performance.md.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

OUTPUT = 48
DOCS = pathlib.Path(__file__).parent.parent / "docs" / "performance.md"
MARKS = "<!-- measured: bench-inference writes between these lines -->", "<!-- end of measured -->"
# What a token takes in our cache of keys and values, and the tokens of a block of it.
KV_BYTES = {"smollm2": 2 * 4 * 30 * 3 * 64, "qwen3": 2 * 4 * 28 * 8 * 128}
BLOCK = 32
# Qwen3-0.6B's sizes; its weights are random, which no engine's speed depends on.
QWEN3 = dict(layers=28, hidden=1024, wide=3072, heads=16, kv_heads=8, head=128, vocabulary=151936)


def copy_fields(reader, writer):
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind = field.types[0]
            of = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, of)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def smollm2(source, path, kind):
    """The real weights with their matrices as `kind`."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(path, "llama")
    copy_fields(reader, writer)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = values.reshape([int(size) for size in tensor.shape[::-1]]).astype(np.float32)
        stored_as = kind if values.ndim == 2 else Kind.F32
        writer.add_tensor(tensor.name, gguf.quants.quantize(values, stored_as), raw_dtype=stored_as)
    finish(writer)


def qwen3(source, path, kind):
    """Random weights in Qwen3-0.6B's shape, with SmolLM2's vocabulary filled up to its size."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(path, "qwen3")
    size = QWEN3
    writer.add_block_count(size["layers"])
    writer.add_context_length(4096)
    writer.add_embedding_length(size["hidden"])
    writer.add_feed_forward_length(size["wide"])
    writer.add_head_count(size["heads"])
    writer.add_head_count_kv(size["kv_heads"])
    writer.add_key_length(size["head"])
    writer.add_value_length(size["head"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    kinds = reader.fields["tokenizer.ggml.token_type"].contents()
    padding = [f"[PAD{index}]" for index in range(len(tokens), size["vocabulary"])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens + padding)
    writer.add_token_types(kinds + [5] * len(padding))
    writer.add_token_merges(reader.fields["tokenizer.ggml.merges"].contents())
    writer.add_eos_token_id(2)
    writer.add_chat_template(reader.fields["tokenizer.chat_template"].contents())
    rng = np.random.default_rng(1)

    def matrix(name, rows, columns):
        values = rng.standard_normal((rows, columns), dtype=np.float32) * 0.02
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    def norm(name, length):
        writer.add_tensor(name, np.ones(length, dtype=np.float32))

    hidden, q_rows, kv_rows = size["hidden"], size["heads"] * size["head"], size["kv_heads"] * size["head"]
    matrix("token_embd.weight", size["vocabulary"], hidden)
    norm("output_norm.weight", hidden)
    for layer in range(size["layers"]):
        name = lambda part: f"blk.{layer}.{part}.weight"
        norm(name("attn_norm"), hidden)
        norm(name("ffn_norm"), hidden)
        norm(name("attn_q_norm"), size["head"])
        norm(name("attn_k_norm"), size["head"])
        matrix(name("attn_q"), q_rows, hidden)
        matrix(name("attn_k"), kv_rows, hidden)
        matrix(name("attn_v"), kv_rows, hidden)
        matrix(name("attn_output"), hidden, q_rows)
        matrix(name("ffn_gate"), size["wide"], hidden)
        matrix(name("ffn_up"), size["wide"], hidden)
        matrix(name("ffn_down"), hidden, size["wide"])
    finish(writer)


WRITERS = {"smollm2": smollm2, "qwen3": qwen3}


def run_ours(options, model, context, batch):
    sizes = [str(model), str(context), str(OUTPUT), str(options.threads)]
    command = [options.ours, *sizes] if batch == 1 else [options.ours_serving, *sizes, str(batch)]
    out = subprocess.run(command, capture_output=True, text=True)
    if out.returncode != 0:
        print(f"ours failed: {out.stderr.strip()}", file=sys.stderr)
        return None
    return json.loads(out.stdout)


# Each other engine runs in a process of its own, so that its peak memory is its own. (A child's `ru_maxrss` begins with
# its parent's.)
LLAMA_CPP = """
import ctypes, json, sys, time
import llama_cpp as lib
model, context, output, threads, batch = sys.argv[1], *map(int, sys.argv[2:6])
quiet = lib.llama_log_callback(lambda level, text, data: None)
lib.llama_log_set(quiet, ctypes.c_void_p(0))
lib.llama_backend_init()
began = time.time()
model = lib.llama_model_load_from_file(model.encode(), lib.llama_model_default_params())
settings = lib.llama_context_default_params()
settings.n_ctx, settings.n_seq_max = batch * (context + output + 8), batch
settings.n_batch = 2048
settings.n_threads = settings.n_threads_batch = threads
state = lib.llama_init_from_model(model, settings)
load = time.time() - began
half = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model)) // 2
tokens = lib.llama_batch_init(2048, 0, 1)
def step(items):
    tokens.n_tokens = len(items)
    for at, (token, position, sequence, wanted) in enumerate(items):
        tokens.token[at], tokens.pos[at], tokens.logits[at] = token, position, wanted
        tokens.n_seq_id[at] = 1
        tokens.seq_id[at][0] = sequence
    if lib.llama_decode(state, tokens) != 0:
        raise SystemExit("llama_decode failed")
    lib.llama_get_logits(state)[0]
def timed(work):
    began, cpu = time.time(), time.process_time()
    work()
    return time.time() - began, time.process_time() - cpu
def prefill():
    for sequence in range(batch):
        for first in range(0, context, 512):
            step([((at * 7919 + sequence * 131 + 1000) % half, at, sequence, at == context - 1)
                for at in range(first, min(context, first + 512))])
def decode():
    for at in range(output):
        step([((at * 31 + 7 + sequence) % half, context + at, sequence, True) for sequence in range(batch)])
(prefill_s, prefill_cpu_s), (decode_s, decode_cpu_s) = timed(prefill), timed(decode)
print(json.dumps({"load_ms": load * 1e3,
    "prefill_tokens_per_s": batch * context / prefill_s, "prefill_tokens_per_cpu_s": batch * context / prefill_cpu_s,
    "decode_tokens_per_s": batch * output / decode_s, "decode_tokens_per_cpu_s": batch * output / decode_cpu_s,
    "peak_kib": next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))}))
"""
TRANSFORMERS = """
import json, sys, time, torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM
shape, context, output, threads = sys.argv[1], *map(int, sys.argv[2:5])
torch.set_num_threads(threads)
began = time.time()
if shape == "smollm2":
    config = LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True)
    model = LlamaForCausalLM(config)
else:
    config = Qwen3Config(vocab_size=151936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
        num_attention_heads=16, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True)
    model = Qwen3ForCausalLM(config)
model = model.eval().to(torch.bfloat16)
load = time.time() - began
half = config.vocab_size // 2
with torch.inference_mode():
    ids = torch.tensor([[(at * 7919 + 1000) % half for at in range(context)]])
    began, cpu = time.time(), time.process_time()
    out = model(ids, use_cache=True, logits_to_keep=1)
    prefill, prefill_cpu = time.time() - began, time.process_time() - cpu
    began, cpu = time.time(), time.process_time()
    for step in range(output):
        out = model(torch.tensor([[(step * 31 + 7) % half]]), past_key_values=out.past_key_values, use_cache=True)
    decode, decode_cpu = time.time() - began, time.process_time() - cpu
print(json.dumps({"load_ms": load * 1e3,
    "prefill_tokens_per_s": context / prefill, "prefill_tokens_per_cpu_s": context / prefill_cpu,
    "decode_tokens_per_s": output / decode, "decode_tokens_per_cpu_s": output / decode_cpu, "peak_kib": next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))}))
"""


def run_python(code, first, context, threads, batch):
    command = [sys.executable, "-c", code, str(first), str(context), str(OUTPUT), str(threads), str(batch)]
    out = subprocess.run(command, capture_output=True, text=True)
    if out.returncode != 0:
        print(f"an engine failed: {out.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(out.stdout.strip().splitlines()[-1])


def read_bandwidth(threads):
    """Bytes a second that `threads` threads read from memory, the best of a few passes."""
    from concurrent.futures import ThreadPoolExecutor

    parts = [np.ones(1 << 25, dtype=np.float64) for _ in range(threads)]
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            began = time.time()
            list(pool.map(np.sum, parts))
            best = max(best, sum(part.nbytes for part in parts) / (time.time() - began))
    return best


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def machine(options, bandwidth):
    model = cpu_name()
    flags = next((line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    widest = "AVX-512" if "avx512bw" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    memory = next(line for line in pathlib.Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return (
        f"{model} ({widest}), {os.cpu_count()} processors, {options.threads} threads, "
        f"{int(memory.split()[1]) / (1 << 20):.0f} GiB, reads {bandwidth / 1e9:.1f} GB/s, "
        f"load {os.getloadavg()[0]:.1f} before the run, {time.strftime('%Y-%m-%d')}. "
        f"{options.rounds} rounds, interleaved; medians, and the ratio's least and most over rounds."
    )


HEAD = (
    "| model | weights | context | at once | engine | load ms | prefill t/s | decode t/s | t / CPU s, prefill, decode | "
    "ours / it, prefill | ours / it, decode | of bandwidth | peak MiB (of file + KV) |"
)


def row(options, bandwidth, shape, kind, context, batch, name, rounds, size):
    results = [one[name] for one in rounds if one[name]]
    if not results:
        return None
    middle = lambda key: statistics.median(result[key] for result in results)

    def ratio(key):
        ratios = [one["ours"][key] / one[name][key] for one in rounds if one[name] and one["ours"]]
        if name == "ours" or not ratios:
            return ""
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"

    load = f"{middle('load_ms'):.0f}" if "load_ms" in results[0] else ""
    peak = ""
    if "peak_kib" in results[0]:
        tokens = batch * -(-(context + OUTPUT + 1) // BLOCK) * BLOCK
        whole = size + KV_BYTES[shape] * tokens
        peak = f"{middle('peak_kib') / 1024:.0f} ({middle('peak_kib') * 1024 / whole:.2f})"
    # One pass over the weights a step, whatever the batch.
    part = middle("decode_tokens_per_s") / batch * size / bandwidth
    return (
        f"| {shape} | {kind} | {context} | {batch} | {name} | {load} | {middle('prefill_tokens_per_s'):.0f} | "
        f"{middle('decode_tokens_per_s'):.1f} | {middle('prefill_tokens_per_cpu_s'):.0f}, "
        f"{middle('decode_tokens_per_cpu_s'):.1f} | {ratio('prefill_tokens_per_s')} | "
        f"{ratio('decode_tokens_per_s')} | {part:.0%} | {peak} |"
    )


def update_docs(lines):
    text = DOCS.read_text()
    before, rest = text.split(MARKS[0], 1)
    after = rest.split(MARKS[1], 1)[1]
    DOCS.write_text(before + MARKS[0] + "\n" + "\n".join(lines) + "\n" + MARKS[1] + after)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--ours-serving", required=True)
    parser.add_argument("--only")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--contexts", default="128,2048")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--kinds", default="Q8_0,Q4_0,BF16")
    parser.add_argument("--shapes", default="smollm2,qwen3")
    parser.add_argument("--json")
    parser.add_argument("--update-docs", action="store_true")
    options = parser.parse_args()
    bandwidth = read_bandwidth(options.threads)
    described = machine(options, bandwidth)
    lines = [described, "", HEAD, "| --- " * HEAD.count(" | ") + "| --- |"]
    print("\n".join(lines), flush=True)
    kept = []
    with tempfile.TemporaryDirectory() as folder:
        for shape in options.shapes.split(","):
            for kind in options.kinds.split(","):
                model = pathlib.Path(folder) / f"{shape}-{kind}.gguf"
                WRITERS[shape](options.model, model, Kind[kind])
                size = model.stat().st_size
                for context in map(int, options.contexts.split(",")):
                    for batch in map(int, options.batches.split(",")):
                        engines = {"ours": lambda: run_ours(options, model, context, batch)}
                        if options.only != "ours":
                            engines["llama.cpp"] = lambda: run_python(
                                LLAMA_CPP, model, context, options.threads, batch
                            )
                            if kind == "BF16" and batch == 1:
                                engines["transformers"] = lambda: run_python(
                                    TRANSFORMERS, shape, context, options.threads, batch
                                )
                        rounds = [{name: run() for name, run in engines.items()} for _ in range(options.rounds)]
                        for name in engines:
                            line = row(options, bandwidth, shape, kind, context, batch, name, rounds, size)
                            if line:
                                print(line, flush=True)
                                lines.append(line)
                        kept.append(dict(shape=shape, kind=kind, context=context, batch=batch, rounds=rounds))
                model.unlink()
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(kept, indent=1) + "\n")
    if options.update_docs:
        update_docs(lines)


main()
