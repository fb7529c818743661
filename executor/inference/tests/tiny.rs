//! A tiny random Llama, written as a Hugging Face directory and as GGUF: both formats, both ways to multiply, and
//! corrupt files.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use inference::{
    ChatMessage, Device, Engine, FinishReason, GenerateError, GenerateParams, LoadError, ModelFiles, Multiply,
};
use safetensors::{Dtype, tensor::TensorView};
use tokenizers::Tokenizer;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

const HIDDEN: usize = 64;
const WIDE: usize = 96;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD: usize = HIDDEN / HEADS;
const LAYERS: usize = 2;
const CONTEXT: usize = 64;
const TEMPLATE: &str = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}\n{% endfor %}";

type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

/// Small numbers that look random and are the same everywhere.
fn numbers(count: usize, seed: &mut u64) -> Vec<f32> {
    (0..count)
        .map(|_| {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((*seed >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.5
        })
        .collect()
}

fn vocabulary() -> Vec<String> {
    let mut tokens: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    tokens.sort();
    tokens.push("<|im_end|>".into());
    tokens
}

fn tensors() -> Tensors {
    let mut seed = 7;
    let vocabulary = vocabulary().len();
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: Vec<usize>| {
        let count = shape.iter().product();
        tensors.push((name, shape, numbers(count, &mut seed)));
    };
    add("model.embed_tokens.weight".into(), vec![vocabulary, HIDDEN]);
    for layer in 0..LAYERS {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        add(name("input_layernorm"), vec![HIDDEN]);
        add(name("self_attn.q_proj"), vec![HIDDEN, HIDDEN]);
        add(name("self_attn.k_proj"), vec![KV_HEADS * HEAD, HIDDEN]);
        add(name("self_attn.v_proj"), vec![KV_HEADS * HEAD, HIDDEN]);
        add(name("self_attn.o_proj"), vec![HIDDEN, HIDDEN]);
        add(name("post_attention_layernorm"), vec![HIDDEN]);
        add(name("mlp.gate_proj"), vec![WIDE, HIDDEN]);
        add(name("mlp.up_proj"), vec![WIDE, HIDDEN]);
        add(name("mlp.down_proj"), vec![HIDDEN, WIDE]);
    }
    add("model.norm.weight".into(), vec![HIDDEN]);
    tensors
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn write_hugging_face(folder: &Path) {
    let config = serde_json::json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": LAYERS,
        "hidden_size": HIDDEN, "intermediate_size": WIDE, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "vocab_size": vocabulary().len(), "max_position_embeddings": CONTEXT,
        "rope_theta": 10_000.0, "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": true
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let tokens: HashMap<String, u32> = vocabulary().into_iter().zip(0..).collect();
    let bpe = BPE::builder().vocab_and_merges(tokens.into_iter().collect::<ahash::AHashMap<_, _>>(), vec![]);
    let mut tokenizer = Tokenizer::new(bpe.build().unwrap());
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    tokenizer.save(folder.join("tokenizer.json"), false).unwrap();
    let settings = serde_json::json!({ "chat_template": TEMPLATE, "eos_token": "<|im_end|>" });
    fs::write(folder.join("tokenizer_config.json"), settings.to_string()).unwrap();
    let data: Vec<_> =
        tensors().into_iter().map(|(name, shape, values)| (name, shape, bytes_of(&values))).collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}

/// ggml's name of a tensor, and its rows in ggml's order.
fn as_gguf(name: &str, shape: &[usize], values: &[f32]) -> (String, Vec<f32>) {
    let renamed = name
        .replace("model.embed_tokens", "token_embd")
        .replace("model.norm", "output_norm")
        .replace("model.layers", "blk")
        .replace("input_layernorm", "attn_norm")
        .replace("post_attention_layernorm", "ffn_norm")
        .replace("self_attn.q_proj", "attn_q")
        .replace("self_attn.k_proj", "attn_k")
        .replace("self_attn.v_proj", "attn_v")
        .replace("self_attn.o_proj", "attn_output")
        .replace("mlp.gate_proj", "ffn_gate")
        .replace("mlp.up_proj", "ffn_up")
        .replace("mlp.down_proj", "ffn_down");
    let mut out = values.to_vec();
    if name.contains("q_proj") || name.contains("k_proj") {
        // llama.cpp's converter: reshape(heads, 2, half, columns).swapaxes(1, 2).
        for row in 0..shape[0] {
            let (head, within) = (row / HEAD, row % HEAD);
            let source = head * HEAD + (within % 2) * (HEAD / 2) + within / 2;
            out[row * HIDDEN..(row + 1) * HIDDEN]
                .copy_from_slice(&values[source * HIDDEN..(source + 1) * HIDDEN]);
        }
    }
    (renamed, out)
}

fn gguf() -> Vec<u8> {
    fn text(out: &mut Vec<u8>, value: &str) {
        out.extend((value.len() as u64).to_le_bytes());
        out.extend(value.as_bytes());
    }
    let mut entries = Vec::new();
    let mut count = 0u64;
    let mut add = |key: &str, kind: u32, value: &[u8]| {
        text(&mut entries, key);
        entries.extend(kind.to_le_bytes());
        entries.extend(value);
        count += 1;
    };
    let string = |value: &str| {
        let mut out = Vec::new();
        text(&mut out, value);
        out
    };
    add("general.architecture", 8, &string("llama"));
    for (key, value) in [
        ("block_count", LAYERS),
        ("context_length", CONTEXT),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", WIDE),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV_HEADS),
        ("rope.dimension_count", HEAD),
    ] {
        add(&format!("llama.{key}"), 4, &(value as u32).to_le_bytes());
    }
    add("llama.rope.freq_base", 6, &10_000f32.to_le_bytes());
    add("llama.attention.layer_norm_rms_epsilon", 6, &1e-5f32.to_le_bytes());
    add("tokenizer.ggml.model", 8, &string("gpt2"));
    add("tokenizer.ggml.pre", 8, &string("smollm"));
    add("tokenizer.chat_template", 8, &string(TEMPLATE));
    let tokens = vocabulary();
    let mut array = 8u32.to_le_bytes().to_vec();
    array.extend((tokens.len() as u64).to_le_bytes());
    tokens.iter().for_each(|token| text(&mut array, token));
    add("tokenizer.ggml.tokens", 9, &array);
    let mut array = 5u32.to_le_bytes().to_vec();
    array.extend((tokens.len() as u64).to_le_bytes());
    for token in &tokens {
        array.extend(if token.starts_with("<|") { 3i32 } else { 1 }.to_le_bytes());
    }
    add("tokenizer.ggml.token_type", 9, &array);
    let mut none = 8u32.to_le_bytes().to_vec();
    none.extend(0u64.to_le_bytes());
    add("tokenizer.ggml.merges", 9, &none);
    add("tokenizer.ggml.eos_token_id", 4, &(tokens.len() as u32 - 1).to_le_bytes());

    let (mut heads, mut data) = (Vec::new(), Vec::new());
    let all = tensors();
    for (name, shape, values) in &all {
        let (name, values) = as_gguf(name, shape, values);
        text(&mut heads, &name);
        heads.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|dimension| heads.extend((*dimension as u64).to_le_bytes()));
        heads.extend(0u32.to_le_bytes());
        heads.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes_of(&values));
        data.resize(data.len().next_multiple_of(32), 0);
    }
    let mut file = b"GGUF".to_vec();
    file.extend(3u32.to_le_bytes());
    file.extend((all.len() as u64).to_le_bytes());
    file.extend(count.to_le_bytes());
    file.extend(entries);
    file.extend(heads);
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    file
}

struct Tiny {
    folder: tempfile::TempDir,
}

impl Tiny {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("hf")).unwrap();
        write_hugging_face(&folder.path().join("hf"));
        fs::write(folder.path().join("tiny.gguf"), gguf()).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn files(&self, name: &str) -> ModelFiles {
        ModelFiles::open(&self.path(name)).unwrap()
    }
}

fn furthest(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn both_formats_and_both_multiplications_give_the_same_logits() {
    let tiny = Tiny::new();
    let ids: Vec<u32> = (0..20).map(|i| (i * 13) % 250).collect();
    let stored = Engine::load(&tiny.files("hf")).unwrap().logits(&ids).unwrap();
    let load = |name: &str, multiply| Engine::load_on(&tiny.files(name), Device::Cpu, multiply).unwrap();
    let reference = load("hf", Multiply::Backend).logits(&ids).unwrap();
    let gguf = load("tiny.gguf", Multiply::Stored).logits(&ids).unwrap();
    assert!(stored.iter().flatten().any(|logit| logit.abs() > 0.1), "the logits say something");
    assert!(furthest(&stored, &reference) < 1e-4, "{}", furthest(&stored, &reference));
    // A GGUF's queries and keys have their rows in another order, and so have the sums over them.
    assert!(furthest(&stored, &gguf) < 1e-5, "{}", furthest(&stored, &gguf));
}

#[test]
fn a_prompt_in_one_piece_or_token_by_token_gives_the_same_answer() {
    let tiny = Tiny::new();
    let engine = Engine::load(&tiny.files("hf")).unwrap();
    let prompt =
        engine.tokenize_chat(&[ChatMessage { role: "user".into(), content: "hello".into() }]).unwrap();
    let params = GenerateParams::greedy(8);
    let mut streamed = Vec::new();
    let answer = engine
        .generate(&prompt, &params, &mut |token| {
            streamed.extend(token.id);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(streamed, answer.output_ids);
    // The logits of a whole sequence name each next token.
    let mut sequence = prompt.clone();
    for id in &answer.output_ids {
        let logits = engine.logits(&sequence).unwrap().pop().unwrap();
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        assert_eq!(best as u32, *id);
        sequence.push(*id);
    }
}

#[test]
fn limits_are_kept_and_named() {
    let tiny = Tiny::new();
    let engine = Engine::load(&tiny.files("hf")).unwrap();
    let run = |ids: &[u32], most: usize| {
        let params = GenerateParams::greedy(most);
        engine.generate(ids, &params, &mut |_| ControlFlow::Continue(()))
    };
    assert!(matches!(run(&[], 1), Err(GenerateError::EmptyPrompt)));
    assert!(matches!(run(&[0; CONTEXT], 1), Err(GenerateError::PromptTooLong { .. })));
    assert!(matches!(run(&[9_999], 1), Err(GenerateError::UnknownToken(9_999))));
    let answer = run(&[1; CONTEXT - 3], 100).unwrap();
    assert!(answer.output_ids.len() <= 3);
    let params = GenerateParams::greedy(5);
    let broken = engine.generate(&[1, 2], &params, &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!((broken.finish_reason, broken.output_ids.len()), (FinishReason::Cancelled, 1));
}

#[test]
fn debug_shows_no_text() {
    let message = ChatMessage { role: "user".into(), content: "canary".into() };
    assert!(!format!("{message:?}").contains("canary"));
}

#[test]
fn truncated_and_flipped_files_are_errors_not_panics() {
    let tiny = Tiny::new();
    let whole = fs::read(tiny.path("tiny.gguf")).unwrap();
    let path = tiny.path("broken.gguf");
    let data_begins = whole.len() - tensors().iter().map(|(_, _, values)| values.len() * 4).sum::<usize>();
    for length in (0..whole.len()).step_by(4_099).chain([data_begins - 1, whole.len() - 40]) {
        fs::write(&path, &whole[..length]).unwrap();
        let outcome = Engine::load(&ModelFiles::open(&path).unwrap());
        assert!(matches!(outcome, Err(LoadError::Corrupt { .. })), "{length} bytes");
    }
    let mut refused = 0;
    for position in (0..data_begins).step_by(37) {
        let mut flipped = whole.clone();
        flipped[position] ^= 0x40;
        fs::write(&path, flipped).unwrap();
        refused += usize::from(Engine::load(&ModelFiles::open(&path).unwrap()).is_err());
    }
    assert!(refused > 20);
    let weights = fs::read(tiny.path("hf/model.safetensors")).unwrap();
    fs::write(tiny.path("hf/model.safetensors"), &weights[..weights.len() - 100]).unwrap();
    assert!(matches!(Engine::load(&tiny.files("hf")), Err(LoadError::Corrupt { .. })));
}

#[test]
fn what_is_no_model_says_so() {
    let tiny = Tiny::new();
    assert!(matches!(ModelFiles::open(&tiny.path("missing.gguf")), Err(LoadError::Read { .. })));
    fs::write(tiny.path("notes.txt"), "x").unwrap();
    assert!(matches!(ModelFiles::open(&tiny.path("notes.txt")), Err(LoadError::NotAModel(_))));
    let config = fs::read_to_string(tiny.path("hf/config.json")).unwrap().replace("\"llama\"", "\"mamba\"");
    fs::write(tiny.path("hf/config.json"), config).unwrap();
    assert!(matches!(Engine::load(&tiny.files("hf")), Err(LoadError::Unsupported { .. })));
}
