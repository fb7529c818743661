"""Writes the inference crate's golden files: small random models with the logits transformers computes for them.

usage: regenerate-logits-golden.py FOLDER SMOLLM2_GGUF

The weights of every format are what transformers multiplies: quantised ones are expanded to f32 first. GGUF files are
written by ggml's own Python package, so that the crate's reader is tested against another hand's writer.
"""

import io
import json
import math
import pathlib
import shutil
import sys

import gguf
import numpy as np
import sentencepiece
import torch
import transformers
from gguf import GGMLQuantizationType as Kind
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
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
FAMILY_TOKENS = 24
LONG_TOKENS = 200
SAMPLE_STEP = 3


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


def sampled(model, ids):
    """Every SAMPLE_STEP-th logit, to keep the files small."""
    return np.ascontiguousarray(logits_of(model, ids)[:, ::SAMPLE_STEP])


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
        part = name.split(".")[-2]
        of_kind = kind if isinstance(kind, Kind) else kind.get(part)
        stored_as = Kind.F32 if values.ndim == 1 else embedding_kind if "embed" in name else of_kind
        stored = quantize(values, stored_as)
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


# ---------------------------------------------------------------- quantised blocks


def pack_scales(scales, leasts):
    """Eight pairs of six-bit numbers in twelve bytes, as Q4_K and Q5_K have them."""
    out = np.zeros((len(scales), 12), dtype=np.uint8)
    out[:, 0:4] = (scales[:, 0:4] & 63) | ((scales[:, 4:8] >> 4) << 6)
    out[:, 4:8] = (leasts[:, 0:4] & 63) | ((leasts[:, 4:8] >> 4) << 6)
    out[:, 8:12] = (scales[:, 4:8] & 15) | ((leasts[:, 4:8] & 15) << 4)
    return out


def halves(values):
    return values.astype(np.float16).reshape(-1, 1).view(np.uint8)


def quantize_k(values, kind):
    """A plain quantiser: ggml's package has none for these types. What matters is that its blocks are valid."""
    rows, columns = values.shape
    x = values.astype(np.float32).reshape(-1, 8, 32)
    if kind == Kind.Q6_K:
        x = x.reshape(-1, 16, 16)
        part = np.abs(x).max(axis=2) / 31
        scale = (part.max(axis=1) / 127).astype(np.float16).astype(np.float32)
        scales = np.round(part / scale[:, None]).clip(1, 127).astype(np.int8)
        quants = np.round(x / (scale[:, None] * scales)[..., None]).clip(-32, 31).astype(np.int32) + 32
        quants = quants.reshape(-1, 2, 4, 32)
        low = (quants[:, :, 0:2] & 15) | ((quants[:, :, 2:4] & 15) << 4)
        high = sum((quants[:, :, index] >> 4) << (2 * index) for index in range(4))
        parts = [low.reshape(-1, 128), high.reshape(-1, 64)]
        blocks = np.concatenate(
            [part.astype(np.uint8) for part in parts] + [scales.view(np.uint8), halves(scale)], axis=1
        )
    else:
        most = 15 if kind == Kind.Q4_K else 31
        least = np.maximum(0, -x.min(axis=2))
        step = (x.max(axis=2) + least) / most
        of_steps = (step.max(axis=1) / 63).astype(np.float16).astype(np.float32)
        of_leasts = (least.max(axis=1) / 63).astype(np.float16).astype(np.float32)
        scales = np.round(step / of_steps[:, None]).clip(1, 63).astype(np.uint8)
        leasts = np.round(least / of_leasts[:, None]).clip(0, 63).astype(np.uint8)
        shifted = x + (of_leasts[:, None] * leasts)[..., None]
        quants = np.round(shifted / (of_steps[:, None] * scales)[..., None]).clip(0, most).astype(np.uint8)
        low = (quants[:, 0::2] & 15) | ((quants[:, 1::2] & 15) << 4)
        parts = [halves(of_steps), halves(of_leasts), pack_scales(scales, leasts)]
        if kind == Kind.Q5_K:
            parts.append(sum((quants[:, index] >> 4) << index for index in range(8)).astype(np.uint8))
        blocks = np.concatenate(parts + [low.reshape(-1, 128)], axis=1)
    return np.ascontiguousarray(blocks.reshape(rows, -1))


def quantize(values, kind):
    values = np.ascontiguousarray(values)
    if kind in (Kind.Q4_K, Kind.Q5_K, Kind.Q6_K):
        return quantize_k(values, kind)
    return gguf.quants.quantize(values, kind)


def write_blocks(path):
    """Random blocks of every type, and the numbers they stand for."""
    rng = np.random.default_rng(4)
    tensors = {}
    for kind in [Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K]:
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (512 // per_block, block_bytes), dtype=np.uint8)
        # The halves within must be finite.
        scale = rng.uniform(-0.1, 0.1, (len(blocks), 2)).astype(np.float16).view(np.uint8)
        if kind == Kind.Q6_K:
            blocks[:, -2:] = scale[:, :2]
        elif kind in (Kind.Q4_0, Kind.Q5_0, Kind.Q8_0):
            blocks[:, :2] = scale[:, :2]
        else:
            blocks[:, :4] = scale
        name = kind.name.lower()
        tensors[f"{name}.blocks"] = blocks.reshape(-1)
        tensors[f"{name}.numbers"] = gguf.quants.dequantize(blocks.reshape(1, -1), kind).reshape(-1)
    save_file(tensors, path)


# ---------------------------------------------------------------- tokenizers

WORDS = {
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
CHATML = """{%- for message in messages[::-1][::-1] %}
    {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if tools is defined and tools %}{{- tools | tojson }}{%- endif %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
TURNS = """{{- bos_token }}
{%- set ns = namespace(first=true) %}
{%- for message in messages %}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}
"""
MORE_TEXTS = TEXTS + [
    "I'LL don't We're",
    "a  b   c    \n \n\n d",
    "e\u0301 12345678 x=1;\r\n",
    "THE THE the ...!!!\n\n",
    "<0x41> <unk>",
]


class ByteLevelKit:
    """A byte-level BPE of the family's kind, in both formats."""

    def __init__(self, words):
        self.words = words
        tokenizer = Tokenizer(models.BPE(ignore_merges=words == "llama-bpe"))
        split = pre_tokenizers.Split(Regex(WORDS[words]), behavior="isolated")
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
        if words == "qwen2":
            tokenizer.normalizer = normalizers.NFC()
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY - 1,
            special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(CORPUS * 2, trainer)
        described = json.loads(tokenizer.to_str())["model"]
        self.tokens = [token for token, _ in sorted(described["vocab"].items(), key=lambda item: item[1])]
        self.merges = [" ".join(pair) for pair in described["merges"]]
        tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
        self.tokens.append("<think>")
        assert len(self.tokens) == VOCABULARY
        self.tokenizer, self.template, self.bos, self.eos = tokenizer, CHATML, "<|im_start|>", "<|im_end|>"

    def write_gguf(self, writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.words)
        writer.add_token_list(self.tokens)
        kind = lambda token: 3 if token in SPECIAL else 4 if token == "<think>" else 1
        writer.add_token_types([kind(token) for token in self.tokens])
        writer.add_token_merges(self.merges)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_chat_template(self.template)

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids


class SentencePieceKit:
    """A SentencePiece BPE, in GGUF with scores, for Hugging Face with merges; SentencePiece itself is the reference."""

    def __init__(self, prefix):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS * 2),
            model_writer=model,
            model_type="bpe",
            vocab_size=400,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=prefix,
            split_digits=True,
            character_coverage=0.99,
            user_defined_symbols=["\n\n"],
            control_symbols=["<start_of_turn>", "<end_of_turn>"],
            minloglevel=2,
        )
        self.prefix = prefix
        self.pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        count = self.pieces.get_piece_size()
        self.tokens = [self.pieces.id_to_piece(index) for index in range(count)]
        self.scores = [self.pieces.get_score(index) for index in range(count)]
        vocabulary = {token: index for index, token in enumerate(self.tokens)}
        from transformers.convert_slow_tokenizer import generate_merges

        merges = generate_merges(vocabulary, list(zip(self.tokens, self.scores)))
        tokenizer = Tokenizer(
            models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
        )
        replace = normalizers.Replace(" ", "\u2581")
        steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
        if prefix:
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), replace])
            steps.append(decoders.Strip(" ", 1, 0))
        else:
            tokenizer.normalizer = replace
        tokenizer.decoder = decoders.Sequence(steps)
        control = [self.pieces.id_to_piece(index) for index in range(count) if self.pieces.is_control(index)]
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
        tokenizer.add_tokens([AddedToken("\n\n", special=False, normalized=False)])
        self.control = control
        self.tokenizer, self.template, self.bos, self.eos = tokenizer, TURNS, "<s>", "<end_of_turn>"

    def write_gguf(self, writer):
        kind = lambda index: (
            2 if self.pieces.is_unknown(index)
            else 3 if self.pieces.is_control(index)
            else 6 if self.pieces.is_byte(index)
            else 4 if self.tokens[index] == "\n\n"
            else 1
        )
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(self.tokens)
        writer.add_token_scores(self.scores)
        writer.add_token_types([kind(index) for index in range(len(self.tokens))])
        writer.add_bos_token_id(self.tokens.index("<s>"))
        writer.add_eos_token_id(self.tokens.index("<end_of_turn>"))
        writer.add_unk_token_id(self.tokens.index("<unk>"))
        writer.add_add_space_prefix(self.prefix)
        writer.add_chat_template(self.template)

    def encode(self, text):
        # SentencePiece's own answer where no control token is spelled out, which it does not read in text.
        if any(token in text for token in self.control) or (self.prefix and "\n\n" in text):
            return self.tokenizer.encode(text, add_special_tokens=False).ids
        return self.pieces.encode(text)


# ---------------------------------------------------------------- families

SIZES = dict(
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=256,
    rms_norm_eps=1e-5,
)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=10000.0,
    factor=4.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
# name: (transformers' class, GGUF architecture, tokenizer, what differs from SIZES)
FAMILIES = {
    "llama2": ("Llama", "llama", "spm", dict(num_key_value_heads=4, tie_word_embeddings=False, rms_norm_eps=1e-6)),
    "llama3": ("Llama", "llama", "llama-bpe", dict(rope_parameters=LLAMA3, attention_bias=True)),
    "mistral": ("Mistral", None, "spm", dict(sliding_window=8, tie_word_embeddings=False)),
    "qwen2": ("Qwen2", "qwen2", "qwen2", dict(tie_word_embeddings=True)),
    "qwen3": ("Qwen3", "qwen3", "qwen2", dict(head_dim=16, tie_word_embeddings=True)),
    "qwen3_moe": (
        "Qwen3Moe",
        "qwen3moe",
        "qwen2",
        dict(
            head_dim=16,
            num_experts=6,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            norm_topk_prob=True,
            tie_word_embeddings=False,
        ),
    ),
    "gemma": ("Gemma", "gemma", "spm-no-prefix", dict(head_dim=16, num_key_value_heads=1)),
    "gemma2": (
        "Gemma2",
        "gemma2",
        "spm-no-prefix",
        dict(
            head_dim=16,
            query_pre_attn_scalar=16,
            sliding_window=8,
            attn_logit_softcapping=5.0,
            final_logit_softcapping=4.0,
        ),
    ),
    "gemma3": (
        "Gemma3",
        "gemma3",
        "spm-no-prefix",
        dict(
            head_dim=16,
            num_key_value_heads=1,
            num_hidden_layers=7,
            query_pre_attn_scalar=16,
            sliding_window=8,
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        ),
    ),
}
FAMILY_NAMES = NAMES | {
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "mlp.gate": "ffn_gate_inp",
}


def family_name(name, outer_norms):
    """GGUF's name of a tensor."""
    if name in FAMILY_NAMES:
        return FAMILY_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    stem, suffix = rest.rsplit(".", 1)
    if outer_norms and stem == "post_attention_layernorm":
        return f"blk.{layer}.post_attention_norm.{suffix}"
    return f"blk.{layer}.{FAMILY_NAMES[stem]}.{suffix}"


def rotation_divisors(config):
    """llama.cpp's tensor of what Llama 3.1's rule does to each frequency."""
    parameters = config.rope_parameters
    out = []
    for pair in range(0, config.head_dim, 2):
        turns_length = 2 * math.pi * parameters["rope_theta"] ** (pair / config.head_dim)
        original = parameters["original_max_position_embeddings"]
        low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
        if turns_length < original / high:
            out.append(1.0)
        elif turns_length > original / low:
            out.append(parameters["factor"])
        else:
            smooth = (original / turns_length - low) / (high - low)
            out.append(1 / ((1 - smooth) / parameters["factor"] + smooth))
    return np.array(out, dtype=np.float32)


def write_family_gguf(path, name, architecture, config, state, kit):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(f"tiny random {name}")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    parameters = config.rope_parameters
    if "full_attention" in parameters:
        parameters = parameters["full_attention"]
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(parameters["factor"])
    writer.add_rope_freq_base(parameters["rope_theta"])
    if parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", rotation_divisors(config))
    if architecture in ("gemma2", "gemma3"):
        writer.add_sliding_window(config.sliding_window)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if architecture == "qwen3moe":
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    kit.write_gguf(writer)
    experts = {}
    for tensor, values in state.items():
        values = values.float().numpy()
        heads = heads_of(tensor, config) if architecture == "llama" else None
        if heads:
            values = interleave(values, heads)
        if architecture.startswith("gemma") and tensor.endswith("norm.weight"):
            values = values + 1
        if ".experts." in tensor:
            _, _, layer, _, _, expert, part, _ = tensor.split(".")
            experts.setdefault((layer, part), {})[int(expert)] = values
            continue
        stored_as = Kind.F32 if values.ndim == 1 or "mlp.gate.weight" in tensor else Kind.BF16
        target = family_name(tensor, architecture in ("gemma2", "gemma3"))
        writer.add_tensor(target, quantize(values, stored_as), raw_dtype=stored_as)
    for (layer, part), matrices in experts.items():
        stacked = np.stack([matrices[expert] for expert in range(len(matrices))])
        stored = quantize(stacked.reshape(-1, stacked.shape[-1]), Kind.BF16).reshape(*stacked.shape[:2], -1)
        target = f"blk.{layer}.{FAMILY_NAMES['mlp.' + part]}_exps.weight"
        writer.add_tensor(target, stored, raw_dtype=Kind.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def scaled_randn(name, shape, gemma):
    values = torch.randn(shape)
    if "norm" in name:
        return 0.2 * values + (0 if gemma else 1)
    if name.endswith("bias"):
        return 0.3 * values
    if "embed" in name:
        return values * (0.2 if gemma else 1.0)
    return values * (1.0 if "mlp.gate.weight" in name else 0.2)


def write_families(folder):
    kits = {
        "llama-bpe": ByteLevelKit("llama-bpe"),
        "qwen2": ByteLevelKit("qwen2"),
        "spm": SentencePieceKit(True),
        "spm-no-prefix": SentencePieceKit(False),
    }
    logits, described = {}, {}
    for name, (kind, architecture, kit_name, differences) in FAMILIES.items():
        kit = kits[kit_name]
        config_class = getattr(transformers, f"{kind}TextConfig" if kind == "Gemma3" else f"{kind}Config")
        model_class = getattr(transformers, f"{kind}ForCausalLM")
        sizes = SIZES | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}} | differences
        config = config_class(
            **sizes,
            vocab_size=len(kit.tokens),
            bos_token_id=kit.tokens.index(kit.bos),
            eos_token_id=kit.tokens.index(kit.eos),
        )
        torch.manual_seed(21)
        model = model_class(config).eval()
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                parameter.copy_(scaled_randn(parameter_name, parameter.shape, kind.startswith("Gemma")))
        target = folder / name
        model.to(torch.bfloat16).save_pretrained(target)
        fast = PreTrainedTokenizerFast(tokenizer_object=kit.tokenizer, bos_token=kit.bos, eos_token=kit.eos)
        fast.chat_template = kit.template
        fast.save_pretrained(target, save_jinja_files=False)
        model = model_class.from_pretrained(target, dtype=torch.float32, attn_implementation="eager").eval()
        ids = np.random.default_rng(5).integers(0, len(kit.tokens), FAMILY_TOKENS).tolist()
        logits[f"{name}.ids"] = np.array(ids, dtype=np.uint32)
        logits[name] = sampled(model, ids)
        # Longer than the engine's pieces of a prompt, and than every window.
        long = np.random.default_rng(6).integers(0, len(kit.tokens), LONG_TOKENS).tolist()
        logits[f"{name}.long.ids"] = np.array(long, dtype=np.uint32)
        logits[f"{name}.long"] = np.ascontiguousarray(sampled(model, long)[-1])
        # What is on disk, under its names there: transformers fuses experts in memory.
        from safetensors.torch import load_file

        state = load_file(target / "model.safetensors")
        if architecture:
            write_family_gguf(folder / f"{name}.gguf", name, architecture, model.config, state, kit)
        described[name] = {
            "gguf": architecture is not None,
            "greedy": greedy(model, ids, kit.tokens.index(kit.eos), 24),
            "texts": [{"text": text, "ids": kit.encode(text)} for text in MORE_TEXTS],
            "chats": [
                {
                    "messages": chat,
                    "ids": fast.apply_chat_template(chat, add_generation_prompt=True, return_dict=False),
                }
                for chat in CHATS
            ],
        }
    save_file(logits, folder / "logits.safetensors")
    (folder / "families.json").write_text(json.dumps(described, ensure_ascii=False, indent=None) + "\n")


def make_wide_model():
    """Wide enough for blocks of 256."""
    torch.manual_seed(22)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.2 if parameter.dim() == 1 else 0.5 if "embed" in name else 0.08
            parameter.copy_(torch.randn(parameter.shape) * scale + (1 if parameter.dim() == 1 else 0))
    return model


# The types of a file as llama.cpp mixes them.
MIXED = {
    "q_proj": Kind.Q4_K,
    "k_proj": Kind.Q4_K,
    "v_proj": Kind.Q6_K,
    "o_proj": Kind.Q5_K,
    "gate_proj": Kind.Q5_0,
    "up_proj": Kind.Q5_1,
    "down_proj": Kind.Q6_K,
}


PATTERNS = [
    "What is {}?",
    "Write one sentence about {}.",
    "Why do people like {}?",
    "Explain {} to a child.",
    "Name three facts about {}.",
    "Write a short poem about {}.",
    "What colour is {}?",
    "How would you draw {}?",
    "Translate '{}' into Spanish.",
    "Tell me a joke about {}.",
]
SUBJECTS = [
    "the moon", "a river", "bread", "the number seven", "a violin", "winter", "a bicycle", "gold", "a library",
    "the colour blue", "chess", "rain", "a lighthouse", "tea", "an owl", "a bridge", "sleep", "a volcano", "money", "salt",
]


def write_greedy(path, model, fast):
    """What transformers answers to 200 questions, the most likely token each time."""
    answers = []
    for question in (pattern.format(subject) for subject in SUBJECTS for pattern in PATTERNS):
        chat = [{"role": "user", "content": question}]
        prompt = fast.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        answers.append({"question": question, "output_ids": greedy(model, prompt, 2, 24)})
    lines = ",\n".join(json.dumps(answer) for answer in answers)
    path.write_text(f"[\n{lines}\n]\n")


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
    logits["hf"] = sampled(model, ids)
    greedy_ids = {"hf": greedy(model, ids, 2, 32)}
    for kind, tied in [(Kind.Q8_0, False), (Kind.Q4_0, True), (Kind.Q4_1, True)]:
        name = kind.name.lower()
        model = make_model(tied)
        write_gguf(folder / f"{name}.gguf", model, tokenizer, kind, Kind.Q8_0)
        logits[name] = sampled(model, ids)
        greedy_ids[name] = greedy(model, ids, 2, 32)
    model = make_wide_model()
    write_gguf(folder / "mixed.gguf", model, tokenizer, MIXED, Kind.Q6_K)
    logits["mixed"] = sampled(model, ids)
    greedy_ids["mixed"] = greedy(model, ids, 2, 32)
    save_file(logits, folder / "logits.safetensors")
    write_blocks(folder / "blocks.safetensors")
    (folder / "families").mkdir()
    write_families(folder / "families")

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
    write_greedy(folder / "smollm2_greedy.json", model, fast)


main()
