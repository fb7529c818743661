"""Runs the engines in turn, round after round, and prints medians, ratios and their spread.

usage: bench-inference.py --model SMOLLM2_GGUF --ours BINARY [--only ours] [--rounds N] [--threads N]
                          [--contexts 128,2048] [--kinds Q8_0,Q4_0,BF16] [--shapes smollm2,qwen3] [--json FILE]
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


def prompt(context, vocabulary):
    return [(at * 7919 + 1000) % (vocabulary // 2) for at in range(context)]


def run_ours(binary, model, context, threads):
    out = subprocess.run(
        [binary, str(model), str(context), str(OUTPUT), str(threads)], capture_output=True, text=True, check=True
    )
    return json.loads(out.stdout)


# Each other engine runs in a process of its own, so that its peak memory is its own.
LLAMA_CPP = """
import json, resource, sys, time
from llama_cpp import Llama
model, context, output, threads = sys.argv[1], *map(int, sys.argv[2:5])
began = time.time()
llama = Llama(model, n_ctx=context + output + 8, n_threads=threads, n_threads_batch=threads, verbose=False)
load = time.time() - began
vocabulary = llama.n_vocab()
ids = [(at * 7919 + 1000) % (vocabulary // 2) for at in range(context)]
began = time.time()
llama.eval(ids)
prefill = time.time() - began
began = time.time()
for step in range(output):
    llama.eval([(step * 31 + 7) % (vocabulary // 2)])
decode = time.time() - began
print(json.dumps({"load_ms": load * 1e3, "prefill_tokens_per_s": context / prefill, "decode_tokens_per_s": output / decode,
    "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""
TRANSFORMERS = """
import json, resource, sys, time, torch
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
    began = time.time()
    out = model(ids, use_cache=True, logits_to_keep=1)
    prefill = time.time() - began
    began = time.time()
    for step in range(output):
        out = model(torch.tensor([[(step * 31 + 7) % half]]), past_key_values=out.past_key_values, use_cache=True)
    decode = time.time() - began
print(json.dumps({"load_ms": load * 1e3, "prefill_tokens_per_s": context / prefill, "decode_tokens_per_s": output / decode,
    "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


def run_python(code, first, context, threads):
    command = [sys.executable, "-c", code, str(first), str(context), str(OUTPUT), str(threads)]
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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--only")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--contexts", default="128,2048")
    parser.add_argument("--kinds", default="Q8_0,Q4_0,BF16")
    parser.add_argument("--shapes", default="smollm2,qwen3")
    parser.add_argument("--json")
    options = parser.parse_args()
    bandwidth = read_bandwidth(options.threads)
    load = os.getloadavg()[0]
    print(f"{cpu_name()}, {options.threads} threads, load {load:.1f} before the run, reads {bandwidth / 1e9:.1f} GB/s")
    print(f"{options.rounds} rounds, interleaved; medians, and the spread of the ratio to ours over rounds\n")
    print("| model | weights | context | engine | load ms | prefill t/s | decode t/s | ours / it, decode | of bandwidth | peak MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    kept = []
    with tempfile.TemporaryDirectory() as folder:
        for shape in options.shapes.split(","):
            for kind in options.kinds.split(","):
                model = pathlib.Path(folder) / f"{shape}-{kind}.gguf"
                WRITERS[shape](options.model, model, Kind[kind])
                for context in map(int, options.contexts.split(",")):
                    engines = {"ours": lambda: run_ours(options.ours, model, context, options.threads)}
                    if options.only != "ours":
                        engines["llama.cpp"] = lambda: run_python(LLAMA_CPP, model, context, options.threads)
                        if kind == "BF16":
                            engines["transformers"] = lambda: run_python(TRANSFORMERS, shape, context, options.threads)
                    rounds = [{name: run() for name, run in engines.items()} for _ in range(options.rounds)]
                    for name in engines:
                        results = [one[name] for one in rounds if one[name]]
                        if not results:
                            continue
                        middle = lambda key: statistics.median(result[key] for result in results)
                        ratios = [
                            one["ours"]["decode_tokens_per_s"] / one[name]["decode_tokens_per_s"]
                            for one in rounds
                            if one[name]
                        ]
                        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                        part = middle("decode_tokens_per_s") * model.stat().st_size / bandwidth
                        print(
                            f"| {shape} | {kind} | {context} | {name} | {middle('load_ms'):.0f} | "
                            f"{middle('prefill_tokens_per_s'):.0f} | {middle('decode_tokens_per_s'):.1f} | "
                            f"{'' if name == 'ours' else ratio} | {part:.0%} | {middle('peak_kib') / 1024:.0f} |",
                            flush=True,
                        )
                        kept.append(dict(shape=shape, kind=kind, context=context, engine=name, rounds=results))
                model.unlink()
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(kept, indent=1) + "\n")


main()
