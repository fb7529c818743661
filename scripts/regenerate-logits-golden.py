"""Writes the inference crate's golden files: small random Llamas with the logits transformers computes for them.

usage: regenerate-logits-golden.py FOLDER SMOLLM2_GGUF

The weights of every format are what transformers multiplies: quantised ones are expanded to f32 first. GGUF files are
written by ggml's own Python package, so that the crate's reader is tested against another hand's writer.
"""

import json
import pathlib
import shutil
import sys

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and then the other dog jumps over the fox.",
    "What is the capital of France? The capital of France is Paris.",
    "It's 1234 o'clock; they're here, we'll see, I'd go.",
    "Привет, мир. Привет, тон.",
    "你好，世界。你好，你好。",
    "fn main() {\n    println!(\"hello\");\n}\n",
]
TEXTS = [
    "",
    " ",
    "Hello there",
    "The capital of France is Paris.",
    "1234567 and 3.14",
    "tabs\tand\n\n  newlines  \r\n",
    "Привет, 你好 👩‍🚀🇫🇷 café é",
    "I'm sure they've said: we'll go",
    "<|im_start|>user\nnested<|im_end|>\n",
    "<|im_start|> <|im_en d|>",
]
CHATS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "  Привет 👋  "},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "1234"},
    ],
]
TEMPLATE = """{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message['role'] not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('unknown role') }}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content.strip() + eos_token + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = 320
TOKENS = 40


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY
    return tokenizer


def make_model(tied):
    torch.manual_seed(20)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.copy_(1 + 0.2 * torch.randn(parameter.shape))
            else:
                parameter.copy_(torch.randn(parameter.shape) * (1.0 if "embed" in name else 0.15))
    return model


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].float().numpy()


def set_weight(model, name, values):
    with torch.no_grad():
        model.get_parameter(name).copy_(torch.from_numpy(np.array(values, dtype=np.float32)))


NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    if name in NAMES:
        return NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def interleave(values, heads):
    """ggml's order of the rows of Q and K, as llama.cpp's converter makes it."""
    shape = values.shape
    return values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def deinterleave(values, heads):
    shape = values.shape
    return values.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def heads_of(name, config):
    if "q_proj" in name:
        return config.num_attention_heads
    return config.num_key_value_heads if "k_proj" in name else None


def write_gguf(path, model, tokenizer, kind, embedding_kind):
    """Writes `model` with its matrices as `kind`, and leaves in `model` what the file says."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny random Llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    described = json.loads(tokenizer.to_str())
    tokens = sorted(described["model"]["vocab"].items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_types([3 if token in SPECIAL else 1 for token, _ in tokens])
    writer.add_token_merges([" ".join(pair) for pair in described["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        heads = heads_of(name, config)
        if heads:
            values = interleave(values, heads)
        stored_as = Kind.F32 if values.ndim == 1 else embedding_kind if "embed" in name else kind
        stored = gguf.quants.quantize(np.ascontiguousarray(values), stored_as)
        writer.add_tensor(gguf_name(name), stored, raw_dtype=stored_as)
        expanded = gguf.quants.dequantize(stored, stored_as).reshape(values.shape)
        set_weight(model, name, deinterleave(expanded, heads) if heads else expanded)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def smollm2(path):
    """The real model's weights, expanded to f32, in transformers; and its tokenizer."""
    reader = gguf.GGUFReader(path)
    field = lambda key: reader.fields[key].contents()
    config = LlamaConfig(
        vocab_size=len(field("tokenizer.ggml.tokens")),
        hidden_size=field("llama.embedding_length"),
        intermediate_size=field("llama.feed_forward_length"),
        num_hidden_layers=field("llama.block_count"),
        num_attention_heads=field("llama.attention.head_count"),
        num_key_value_heads=field("llama.attention.head_count_kv"),
        max_position_embeddings=field("llama.context_length"),
        rope_parameters={"rope_type": "default", "rope_theta": field("llama.rope.freq_base")},
        rms_norm_eps=field("llama.attention.layer_norm_rms_epsilon"),
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    for name, parameter in model.named_parameters():
        tensor = tensors[gguf_name(name)]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(tuple(parameter.shape))
        heads = heads_of(name, config)
        set_weight(model, name, deinterleave(values, heads) if heads else values)
    merges = [tuple(pair.split(" ")) for pair in field("tokenizer.ggml.merges")]
    vocabulary = {token: index for index, token in enumerate(field("tokenizer.ggml.tokens"))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = field("tokenizer.ggml.token_type")
    tokenizer.add_special_tokens([token for token, index in vocabulary.items() if kinds[index] == 3])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    fast.chat_template = field("tokenizer.chat_template")
    return model, fast


def greedy(model, ids, stop, most):
    out = []
    past, current = None, torch.tensor([ids])
    with torch.no_grad():
        while len(out) < most:
            result = model(current, past_key_values=past, use_cache=True)
            past = result.past_key_values
            best = int(result.logits[0, -1].argmax())
            if best == stop:
                break
            out.append(best)
            current = torch.tensor([[best]])
    return out


def main():
    folder, real = pathlib.Path(sys.argv[1]), sys.argv[2]
    torch.use_deterministic_algorithms(True)
    shutil.rmtree(folder, ignore_errors=True)
    hugging_face = folder / "hf"
    hugging_face.mkdir(parents=True)
    rng = np.random.default_rng(3)
    ids = [int(token) for token in rng.integers(0, VOCABULARY, TOKENS)]
    logits = {"ids": np.array(ids, dtype=np.uint32)}

    tokenizer = make_tokenizer()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(hugging_face, save_jinja_files=False)

    make_model(tied=True).to(torch.bfloat16).save_pretrained(hugging_face, max_shard_size="100KB")
    assert len(list(hugging_face.glob("*.safetensors"))) > 1
    model = LlamaForCausalLM.from_pretrained(hugging_face, dtype=torch.float32).eval()
    logits["hf"] = logits_of(model, ids)
    greedy_ids = {"hf": greedy(model, ids, 2, 32)}
    for kind, tied in [(Kind.Q8_0, False), (Kind.Q4_0, True), (Kind.Q4_1, True)]:
        name = kind.name.lower()
        model = make_model(tied)
        write_gguf(folder / f"{name}.gguf", model, tokenizer, kind, Kind.Q8_0)
        logits[name] = logits_of(model, ids)
        greedy_ids[name] = greedy(model, ids, 2, 32)
    save_file(logits, folder / "logits.safetensors")

    text = {
        "texts": [{"text": text, "ids": fast.encode(text, add_special_tokens=False)} for text in TEXTS],
        "chats": [
            {"messages": chat, "ids": fast.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)}
            for chat in CHATS
        ],
        "greedy": greedy_ids,
    }
    (folder / "text.json").write_text(json.dumps(text, ensure_ascii=False, indent=1) + "\n")

    model, fast = smollm2(real)
    answers = []
    for question in ["What is the capital of France?", "Name three colours. Привет 👋 1234"]:
        chat = [{"role": "user", "content": question}]
        prompt = fast.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        last = logits_of(model, prompt)[-1]
        sample = list(range(0, len(last), 97))
        answer = greedy(model, prompt, 2, 48)
        answers.append(
            {
                "question": question,
                "prompt_ids": prompt,
                "output_ids": answer,
                "text": fast.decode(answer, skip_special_tokens=True),
                "sample_step": 97,
                "sample_logits": [float(last[index]) for index in sample],
            }
        )
    (folder / "smollm2.json").write_text(json.dumps(answers, ensure_ascii=False) + "\n")


main()
