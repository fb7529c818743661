"""Writes the golden files of embeddings and speech: small random models, and what transformers computes with them;
for the real models that scripts/fetch-encoders fetches, only what it computes.

usage: regenerate-encoders-golden.py FOLDER MODELS
"""

import json
import pathlib
import shutil
import struct
import sys
import wave

import numpy as np
import torch
from ctranslate2.converters.transformers import WhisperLoader
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and then the other dog jumps over the fox.",
    "What is the capital of France? The capital of France is Paris.",
    "Unless to be rather cold hearted and rather selfish is to be ill disposed.",
    "Привет, мир. Straße, café, naïve.",
]
TEXTS = [
    "",
    "Hello there",
    "The capital of France is Paris.",
    "A confidential market for inference settles on a public chain.",
    "Le café de la Straße était NAÏVE, 你好 👋!",
    "tabs\tand\n\n  newlines  \r\n",
    "the quick brown fox " * 20,
]
# Every so many numbers of large tensors are kept.
SAMPLE_STEP = 7
SAMPLES_PER_S = 16_000


def main():
    folder, real = map(pathlib.Path, sys.argv[1:])
    torch.manual_seed(7)
    torch.set_num_threads(2)
    write_bert(folder)
    write_minilm(folder, real / "all-MiniLM-L6-v2")
    write_whisper(folder)
    write_transcripts(folder, real)


# ---------------------------------------------------------------- embeddings


def write_bert(folder):
    target = fresh(folder / "bert")
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=specials))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # Of these two, transformers' users clear both.
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=128,
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        initializer_range=0.3,
    )
    model = BertModel(config).eval()
    randomise_norms(model)
    model.save_pretrained(target)
    tokenizer.save(str(target / "tokenizer.json"))
    modules = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize")]
    write_json(
        target / "modules.json",
        [
            {"idx": index, "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (name, path, kind) in enumerate(modules)
        ],
    )
    write_json(target / "sentence_bert_config.json", {"max_seq_length": 100, "do_lower_case": False})
    (target / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 48, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    write_json(target / "1_Pooling" / "config.json", pooling)
    write_vectors(folder / "bert.safetensors", model, tokenizer)


def write_minilm(folder, source):
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    write_vectors(folder / "minilm.safetensors", BertModel.from_pretrained(source).eval(), tokenizer)


def write_vectors(path, model, tokenizer):
    """Each text's ids, and the mean of its tokens' vectors, made of length 1."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    out = {}
    for index, text in enumerate(TEXTS):
        ids = tokenizer.encode(text).ids
        with torch.no_grad():
            hidden = model(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).last_hidden_state[0]
        vector = torch.nn.functional.normalize(hidden.mean(0), dim=0)
        out[f"ids.{index}"] = np.array(ids, np.uint32)
        out[f"vector.{index}"] = vector.numpy()
    save_file(out, path, {"texts": json.dumps(TEXTS)})


# ---------------------------------------------------------------- speech


def write_whisper(folder):
    """Windows of 2 seconds instead of 30, so that the files stay small."""
    target = fresh(folder / "whisper")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    names = ["endoftext", "startoftranscript", "en", "de", "fr", "translate", "transcribe", "startoflm", "startofprev"]
    names += ["nospeech", "notimestamps"] + [f"{step * 0.02:.2f}" for step in range(101)]
    tokenizer.add_special_tokens([AddedToken(f"<|{name}|>", special=True, normalized=False) for name in names])
    ids = {name: tokenizer.token_to_id(f"<|{name}|>") for name in names}
    config = WhisperConfig(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=48,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=3,
        decoder_attention_heads=3,
        encoder_ffn_dim=96,
        decoder_ffn_dim=96,
        max_source_positions=100,
        max_target_positions=64,
        num_mel_bins=80,
        init_std=0.2,
        bos_token_id=ids["endoftext"],
        eos_token_id=ids["endoftext"],
        pad_token_id=ids["endoftext"],
        decoder_start_token_id=ids["startoftranscript"],
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config).eval()
    randomise_norms(model)
    # As CTranslate2 stores it, so that both directories say the same.
    model = model.half().float()
    suppressed = [1, 2, 7, 40, 41, 42] + [ids[name] for name in names[1:11]]
    begin = [tokenizer.token_to_id("\u0120"), ids["endoftext"]]
    model.half().save_pretrained(target)
    model.float()
    generation = {
        "is_multilingual": True,
        "suppress_tokens": suppressed,
        "begin_suppress_tokens": begin,
        "lang_to_id": {f"<|{name}|>": ids[name] for name in ("en", "de", "fr")},
    }
    write_json(target / "generation_config.json", generation)
    tokenizer.save(str(target / "tokenizer.json"))
    samples = synthetic(5 * SAMPLES_PER_S + 1_234)
    mel = windows(samples, seconds=2)
    out = {}
    texts = []
    for index, window in enumerate(mel):
        with torch.no_grad():
            encoded = model.model.encoder(window[None]).last_hidden_state
            first = model(decoder_input_ids=torch.tensor([[ids["startoftranscript"]]]), encoder_outputs=(encoded,))
            languages = [ids[name] for name in ("en", "de", "fr")]
            language = max(languages, key=lambda id: first.logits[0, -1, id].item())
            prompt = [ids["startoftranscript"], ids["de"], ids["transcribe"], ids["notimestamps"]]
            forced = prompt + [(i * 37 + index) % 300 for i in range(20)]
            logits = model(decoder_input_ids=torch.tensor([forced]), encoder_outputs=(encoded,)).logits[0]
        greedy = greedy_ids(model, encoded, prompt, ids, suppressed, begin, 64)
        out[f"mel.{index}"] = window.numpy().reshape(-1)[::SAMPLE_STEP].copy()
        out[f"encoded.{index}"] = encoded.numpy().reshape(-1)[::SAMPLE_STEP].copy()
        out[f"forced.{index}"] = np.array(forced, np.uint32)
        out[f"logits.{index}"] = logits.numpy().reshape(-1)[::SAMPLE_STEP].copy()
        out[f"language.{index}"] = np.array([language], np.uint32)
        out[f"greedy.{index}"] = np.array(greedy, np.uint32)
        texts.append(tokenizer.decode(greedy))
    save_file(out, folder / "whisper.safetensors", {"texts": json.dumps(texts)})
    write_ctranslate2(folder / "whisper-ct2", target, model, suppressed, begin)


def greedy_ids(model, encoded, prompt, ids, suppressed, begin, most):
    out = []
    while len(prompt) + len(out) < most:
        with torch.no_grad():
            inputs = torch.tensor([prompt + out])
            logits = model(decoder_input_ids=inputs, encoder_outputs=(encoded,)).logits[0, -1]
        logits[suppressed] = -torch.inf
        logits[ids["notimestamps"] + 1 :] = -torch.inf
        if not out:
            logits[begin] = -torch.inf
        token = int(logits.argmax())
        if token == ids["endoftext"]:
            break
        out.append(token)
    return out


def write_ctranslate2(target, source, model, suppressed, begin):
    """With CTranslate2's own writer."""
    spec = WhisperLoader().get_model_spec(model)
    spec.register_vocabulary([str(id) for id in range(model.config.vocab_size)])
    spec.validate()
    spec.optimize(quantization="float16")
    fresh(target)
    spec._serialize(str(target / "model.bin"))
    write_json(target / "config.json", {"suppress_ids": suppressed, "suppress_ids_begin": begin})
    shutil.copy(source / "tokenizer.json", target)


def write_transcripts(folder, real):
    """What transformers hears in the recordings, with the weights of the CTranslate2 packages in f32."""
    recordings = {path.stem[-4:]: read_wav(path) for path in sorted((real / "recordings").glob("*.wav"))}
    # More than one window.
    recordings["all"] = np.concatenate(list(recordings.values()) * 2)
    out = {}
    for name in ("whisper-tiny.en", "whisper-base"):
        model, tokenizer = read_ctranslate2(real / name)
        out[name] = {}
        for recording, samples in recordings.items():
            heard = [
                model.generate(window[None], max_length=448)[0].tolist() for window in windows(samples, seconds=30)
            ]
            heard = [[id for id in ids if id < tokenizer.token_to_id("<|endoftext|>")] for ids in heard]
            text = "".join(tokenizer.decode(ids) for ids in heard).strip()
            out[name][recording] = {"ids": heard, "text": text}
            print(name, recording, text)
    write_json(folder / "transcripts.json", out)


def read_wav(path):
    with wave.open(str(path)) as file:
        assert file.getparams()[:3] == (1, 2, SAMPLES_PER_S), path
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32_768


def read_ctranslate2(folder):
    """A model.bin as a model of transformers."""
    data = (folder / "model.bin").read_bytes()
    at = 0

    def take(form):
        nonlocal at
        values = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return values[0] if len(values) == 1 else values

    def text():
        length = take("H")
        return take(f"{length}s")[:-1].decode()

    assert (take("I"), text(), take("I")) == (6, "WhisperSpec", 3)
    variables = {}
    for _ in range(take("I")):
        name = text()
        shape = [take("I") for _ in range(take("B"))]
        kind = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}[take("B")]
        size = take("I")
        variables[name] = np.frombuffer(data, kind, size // kind().itemsize, at).reshape(shape)
        at += size
    weights = {}

    def put(target, source, part=0, of=1):
        for ours, theirs in (("weight", "weight"), ("bias", "bias")):
            whole = torch.from_numpy(variables[f"{source}/{theirs}"].astype(np.float32))
            weights[f"{target}.{ours}"] = whole.chunk(of)[part]

    def norm(target, source):
        weights[f"{target}.weight"] = torch.from_numpy(variables[f"{source}/layer_norm/gamma"].astype(np.float32))
        weights[f"{target}.bias"] = torch.from_numpy(variables[f"{source}/layer_norm/beta"].astype(np.float32))

    layers = {}
    for part in ("encoder", "decoder"):
        layers[part] = len({name.split("/")[1] for name in variables if name.startswith(f"{part}/layer_")} - {"layer_norm"})
        ours = f"model.{part}"
        places = variables[f"{part}/position_encodings/encodings"].astype(np.float32)
        weights[f"{ours}.embed_positions.weight"] = torch.from_numpy(places)
        norm(f"{ours}.layer_norm", part)
        for layer in range(layers[part]):
            theirs, target = f"{part}/layer_{layer}", f"{ours}.layers.{layer}"
            norm(f"{target}.self_attn_layer_norm", f"{theirs}/self_attention")
            for index, name in enumerate(("q_proj", "k_proj", "v_proj")):
                put(f"{target}.self_attn.{name}", f"{theirs}/self_attention/linear_0", index, 3)
            put(f"{target}.self_attn.out_proj", f"{theirs}/self_attention/linear_1")
            if part == "decoder":
                norm(f"{target}.encoder_attn_layer_norm", f"{theirs}/attention")
                put(f"{target}.encoder_attn.q_proj", f"{theirs}/attention/linear_0")
                put(f"{target}.encoder_attn.k_proj", f"{theirs}/attention/linear_1", 0, 2)
                put(f"{target}.encoder_attn.v_proj", f"{theirs}/attention/linear_1", 1, 2)
                put(f"{target}.encoder_attn.out_proj", f"{theirs}/attention/linear_2")
            norm(f"{target}.final_layer_norm", f"{theirs}/ffn")
            put(f"{target}.fc1", f"{theirs}/ffn/linear_0")
            put(f"{target}.fc2", f"{theirs}/ffn/linear_1")
    put("model.encoder.conv1", "encoder/conv1")
    put("model.encoder.conv2", "encoder/conv2")
    words = torch.from_numpy(variables["decoder/embeddings/weight"].astype(np.float32))
    weights["model.decoder.embed_tokens.weight"] = weights["proj_out.weight"] = words
    for name in [name for name in weights if name.endswith("k_proj.bias")]:
        assert not weights.pop(name).any(), name
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    id = lambda name: tokenizer.token_to_id(f"<|{name}|>")
    width = words.shape[1]
    config = WhisperConfig(
        vocab_size=words.shape[0],
        d_model=width,
        encoder_layers=layers["encoder"],
        decoder_layers=layers["decoder"],
        encoder_attention_heads=int(variables["encoder/num_heads"]),
        decoder_attention_heads=int(variables["decoder/num_heads"]),
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        bos_token_id=id("endoftext"),
        eos_token_id=id("endoftext"),
        pad_token_id=id("endoftext"),
        decoder_start_token_id=id("startoftranscript"),
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config).eval()
    print(model.load_state_dict(weights, strict=True))
    settings = json.loads((folder / "config.json").read_text())
    generation = GenerationConfig(
        bos_token_id=id("endoftext"),
        eos_token_id=id("endoftext"),
        pad_token_id=id("endoftext"),
        decoder_start_token_id=id("startoftranscript"),
        no_timestamps_token_id=id("notimestamps"),
        suppress_tokens=settings["suppress_ids"],
        begin_suppress_tokens=settings["suppress_ids_begin"],
        max_length=448,
        return_timestamps=False,
    )
    generation.is_multilingual = words.shape[0] >= 51_865
    if generation.is_multilingual:
        ids = range(id("startoftranscript") + 1, id("translate"))
        generation.lang_to_id = {tokenizer.id_to_token(language): language for language in ids}
        generation.task_to_id = {"transcribe": id("transcribe"), "translate": id("translate")}
        generation.task = "transcribe"
    model.generation_config = generation
    return model, tokenizer


def synthetic(count):
    """Integers, so that every language makes the same: a sweeping triangle wave and noise."""
    state, phase, samples = 1, 0, []
    for index in range(count):
        state = (state * 1_103_515_245 + 12_345) & 0x7FFF_FFFF
        phase = (phase + 300 + (index // 16) % 4_000) & 0xFFFF
        triangle = abs(phase - 0x8000) - 0x4000
        samples.append((triangle + (state >> 18) - 4_096) // 2)
    return np.array(samples, np.float32) / 32_768


def windows(samples, seconds):
    """Log-mel of each window, the last one filled up with silence: [80, frames]."""
    extractor = WhisperFeatureExtractor(chunk_length=seconds)
    size = seconds * SAMPLES_PER_S
    cut = [samples[start : start + size] for start in range(0, len(samples), size)]
    return [
        extractor(piece, sampling_rate=SAMPLES_PER_S, return_tensors="pt", device="cpu").input_features[0]
        for piece in cut
    ]


# ---------------------------------------------------------------- both


def randomise_norms(model):
    """Fresh norms multiply by one and add nothing, which would hide a swapped pair; biases too."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias") or "norm" in name.lower():
                base = 1.0 if name.endswith("weight") else 0.0
                value.copy_(base + 0.2 * torch.randn_like(value))


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main()
