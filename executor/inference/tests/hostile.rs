//! Files made to hurt: each is an error that names the file and what is wrong with it, soon, without a panic and
//! without memory out of proportion to the file.
#![allow(clippy::unwrap_used)]
#![allow(unsafe_code, reason = "an allocator that counts can only be written so")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use inference::{
    Audio, ChatMessage, Embedder, Engine, GenerateError, GenerateParams, LoadError, ModelFiles,
    TranscribeParams, Transcriber,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Memory that a load may take beside the file's own size: burn's, rayon's and the tokenizer's own.
const BESIDE_BYTES: usize = 48 << 20;
/// Bytes a load may take for each byte of the file: a vocabulary in hash maps is the worst of it.
const PER_FILE_BYTE: usize = 48;
const SOON: Duration = Duration::from_secs(20);

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);
/// Tests that count run one after another.
static ONE: Mutex<()> = Mutex::new(());

// SAFETY: every call goes on to the system's allocator; counting touches two atomics and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `pointer` came from `System.alloc` with this layout, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Loads what is at `path`, answers a little with it if it loads, and holds both to time and memory.
fn load(path: &Path) -> Result<(), LoadError> {
    measured(path, |files| {
        let engine = Engine::load(files)?;
        let prompt = engine.tokenize("hello there").unwrap_or_default();
        let _ = engine.tokenize_chat(&[ChatMessage { role: "user".into(), content: "hello".into() }]);
        let _ = engine.generate(&prompt, &GenerateParams::greedy(2), &mut |_| ControlFlow::Continue(()));
        Ok(())
    })
}

/// What `answer` makes of the files at `path`, within bounds of time and memory.
fn measured(path: &Path, answer: impl FnOnce(&ModelFiles) -> Result<(), LoadError>) -> Result<(), LoadError> {
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let began = Instant::now();
    let files = ModelFiles::open(path)?;
    let size: u64 = files.files().iter().map(|file| file.size_bytes).sum();
    let outcome = answer(&files);
    let most = MOST.load(Ordering::Relaxed) - before;
    let allowed = BESIDE_BYTES + PER_FILE_BYTE * usize::try_from(size).unwrap();
    assert!(most <= allowed, "{most} bytes for a file of {size}: {:?}", outcome.err());
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    outcome
}

/// The error of a file, which must name `path` (where it is corrupt) and `what`.
fn refused(path: &Path, what: &str) {
    let error = match load(path) {
        Ok(()) => panic!("{what}: it was accepted"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains(what), "{error:?} does not name {what:?}");
    let named = path.file_name().unwrap().to_str().unwrap();
    assert!(error.contains(named) || error.contains("not supported"), "{error:?} does not name {named:?}");
}

// ---------------------------------------------------------------- GGUF

#[derive(Clone)]
enum Meta {
    U32(u32),
    F32(f32),
    Text(String),
    Texts(Vec<String>),
    Floats(Vec<f32>),
    Ints(Vec<i32>),
    /// Type and value as they stand.
    Raw(u32, Vec<u8>),
}

#[derive(Clone)]
struct Tensor {
    name: String,
    dimensions: Vec<u64>,
    kind: u32,
    offset: u64,
}

/// A GGUF file under our hands.
#[derive(Clone)]
struct Forged {
    metadata: Vec<(String, Meta)>,
    tensors: Vec<Tensor>,
    data_bytes: usize,
}

impl Forged {
    /// One layer of Llama that loads.
    fn honest() -> Self {
        let mut tokens: Vec<String> = (0..94u8).map(|letter| char::from(33 + letter).to_string()).collect();
        tokens.push("\u{120}".into());
        tokens.push("<|im_end|>".into());
        let mut kinds = vec![1; tokens.len()];
        kinds[95] = 3;
        let text = |text: &str| Meta::Text(text.into());
        let metadata = [
            ("general.architecture", text("llama")),
            ("llama.block_count", Meta::U32(1)),
            ("llama.context_length", Meta::U32(64)),
            ("llama.embedding_length", Meta::U32(8)),
            ("llama.feed_forward_length", Meta::U32(8)),
            ("llama.attention.head_count", Meta::U32(2)),
            ("llama.attention.head_count_kv", Meta::U32(1)),
            ("llama.attention.layer_norm_rms_epsilon", Meta::F32(1e-5)),
            ("tokenizer.ggml.model", text("gpt2")),
            ("tokenizer.ggml.pre", text("smollm")),
            ("tokenizer.ggml.tokens", Meta::Texts(tokens)),
            ("tokenizer.ggml.token_type", Meta::Ints(kinds)),
            ("tokenizer.ggml.merges", Meta::Texts(vec![])),
            ("tokenizer.ggml.eos_token_id", Meta::U32(95)),
            ("tokenizer.chat_template", text("{{ messages[0].content }}")),
        ];
        let mut forged = Self {
            metadata: metadata.map(|(key, value)| (key.to_owned(), value)).into(),
            tensors: vec![],
            data_bytes: 0,
        };
        for (name, dimensions) in [
            ("token_embd.weight", vec![8, 96]),
            ("output_norm.weight", vec![8]),
            ("blk.0.attn_norm.weight", vec![8]),
            ("blk.0.attn_q.weight", vec![8, 8]),
            ("blk.0.attn_k.weight", vec![8, 4]),
            ("blk.0.attn_v.weight", vec![8, 4]),
            ("blk.0.attn_output.weight", vec![8, 8]),
            ("blk.0.ffn_norm.weight", vec![8]),
            ("blk.0.ffn_gate.weight", vec![8, 8]),
            ("blk.0.ffn_up.weight", vec![8, 8]),
            ("blk.0.ffn_down.weight", vec![8, 8]),
        ] {
            let offset = forged.data_bytes as u64;
            forged.data_bytes += 4 * dimensions.iter().product::<u64>() as usize;
            forged.data_bytes = forged.data_bytes.next_multiple_of(32);
            forged.tensors.push(Tensor { name: name.into(), dimensions, kind: 0, offset });
        }
        forged
    }

    fn set(mut self, key: &str, value: Meta) -> Self {
        self.metadata.retain(|(other, _)| other != key);
        self.metadata.push((key.into(), value));
        self
    }

    fn without(mut self, key: &str) -> Self {
        self.metadata.retain(|(other, _)| other != key);
        self
    }

    fn tensor(mut self, name: &str, change: impl Fn(&mut Tensor)) -> Self {
        self.tensors.iter_mut().filter(|tensor| tensor.name == name).for_each(change);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        fn text(out: &mut Vec<u8>, text: &str) {
            out.extend((text.len() as u64).to_le_bytes());
            out.extend(text.as_bytes());
        }
        fn array(out: &mut Vec<u8>, kind: u32, count: usize) {
            out.extend(9u32.to_le_bytes());
            out.extend(kind.to_le_bytes());
            out.extend((count as u64).to_le_bytes());
        }
        for (key, value) in &self.metadata {
            text(&mut out, key);
            match value {
                Meta::U32(value) => {
                    out.extend(4u32.to_le_bytes());
                    out.extend(value.to_le_bytes());
                }
                Meta::F32(value) => {
                    out.extend(6u32.to_le_bytes());
                    out.extend(value.to_le_bytes());
                }
                Meta::Text(value) => {
                    out.extend(8u32.to_le_bytes());
                    text(&mut out, value);
                }
                Meta::Texts(values) => {
                    array(&mut out, 8, values.len());
                    values.iter().for_each(|value| text(&mut out, value));
                }
                Meta::Floats(values) => {
                    array(&mut out, 6, values.len());
                    values.iter().for_each(|value| out.extend(value.to_le_bytes()));
                }
                Meta::Ints(values) => {
                    array(&mut out, 5, values.len());
                    values.iter().for_each(|value| out.extend(value.to_le_bytes()));
                }
                Meta::Raw(kind, bytes) => {
                    out.extend(kind.to_le_bytes());
                    out.extend(bytes);
                }
            }
        }
        for tensor in &self.tensors {
            text(&mut out, &tensor.name);
            out.extend((tensor.dimensions.len() as u32).to_le_bytes());
            tensor.dimensions.iter().for_each(|dimension| out.extend(dimension.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(32), 0);
        // Zeros but for the sign of a small number here and there.
        out.extend((0..self.data_bytes).map(|at| if at % 4 == 3 { (at % 5) as u8 + 0x3c } else { 0 }));
        out
    }

    fn load(&self) -> Result<(), LoadError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forged.gguf");
        fs::write(&path, self.bytes()).unwrap();
        load(&path)
    }

    fn refused(&self, what: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forged.gguf");
        fs::write(&path, self.bytes()).unwrap();
        refused(&path, what);
    }
}

#[test]
fn the_forge_makes_files_that_load() {
    Forged::honest().load().unwrap();
}

#[test]
fn shapes_that_cannot_be_are_refused_by_name() {
    let honest = Forged::honest;
    let norm = "blk.0.attn_norm.weight";
    for (forged, what) in [
        (honest().set("llama.block_count", Meta::U32(u32::MAX)), "layers"),
        (honest().set("llama.block_count", Meta::U32(0)), "layers"),
        (honest().set("llama.block_count", Meta::U32(2)), "blk.1."),
        (honest().set("llama.embedding_length", Meta::U32(u32::MAX)), "head"),
        (honest().set("llama.embedding_length", Meta::U32(0)), "hidden size"),
        (honest().set("llama.feed_forward_length", Meta::U32(1 << 30)), "feed-forward"),
        (honest().set("llama.attention.head_count", Meta::U32(0)), "heads"),
        (honest().set("llama.attention.head_count", Meta::U32(3)), "attn_q"),
        (honest().set("llama.attention.head_count_kv", Meta::U32(0)), "key heads"),
        (honest().set("llama.attention.head_count_kv", Meta::U32(1 << 31)), "key heads"),
        (honest().set("llama.attention.head_count", Meta::Ints(vec![2; 4])), "head_count"),
        (honest().set("llama.attention.key_length", Meta::U32(1 << 31)), "heads of"),
        (honest().set("llama.attention.layer_norm_rms_epsilon", Meta::F32(f32::NAN)), "out of range"),
        (honest().without("llama.attention.layer_norm_rms_epsilon"), "epsilon"),
        (honest().without("llama.block_count"), "block_count"),
        (honest().set("llama.rope.freq_base", Meta::F32(f32::INFINITY)), "rotation"),
        (honest().set("llama.rope.scaling.type", Meta::Text("yarn".into())), "yarn"),
        (honest().set("llama.expert_count", Meta::U32(8)), "mixture of experts"),
        (honest().set("general.architecture", Meta::Text("mamba".into())), "mamba"),
        (honest().set("general.alignment", Meta::U32(0)), "alignment"),
        (honest().set("general.alignment", Meta::U32(1 << 31)), "alignment"),
        (honest().tensor(norm, |tensor| tensor.dimensions = vec![1 << 30, 1 << 30]), norm),
        (honest().tensor(norm, |tensor| tensor.dimensions = vec![1 << 40, 1 << 40]), norm),
        (honest().tensor(norm, |tensor| tensor.dimensions = vec![0]), norm),
        (honest().tensor(norm, |tensor| tensor.dimensions = vec![1; 9]), norm),
        (honest().tensor(norm, |tensor| tensor.dimensions = vec![]), norm),
        (honest().tensor(norm, |tensor| tensor.dimensions = vec![4]), norm),
        (honest().tensor(norm, |tensor| tensor.kind = 12), norm),
        (honest().tensor(norm, |tensor| tensor.kind = 999), norm),
        (honest().tensor(norm, |tensor| tensor.offset = 0), "overlaps"),
        (honest().tensor(norm, |tensor| tensor.offset = u64::MAX), norm),
        (honest().tensor(norm, |tensor| tensor.offset = 1 << 40), norm),
        (honest().tensor(norm, |tensor| tensor.name = "blk.0.surprise".into()), norm),
        (honest().tensor(norm, |tensor| tensor.name = "output_norm.weight".into()), "twice"),
    ] {
        forged.refused(what);
    }
    let mut more = honest();
    let extra = Tensor { name: "blk.0.attn_q.scale".into(), dimensions: vec![8], kind: 0, offset: 0 };
    more.tensors.push(Tensor { offset: more.data_bytes as u64, ..extra });
    more.data_bytes += 32;
    more.refused("blk.0.attn_q.scale");
}

#[test]
fn metadata_that_lies_about_its_size_is_refused() {
    let huge_array = |of: u32, count: u64| {
        let mut bytes = of.to_le_bytes().to_vec();
        bytes.extend(count.to_le_bytes());
        Meta::Raw(9, bytes)
    };
    let nested = |levels: usize| {
        let mut bytes = Vec::new();
        for _ in 0..levels {
            bytes.extend(9u32.to_le_bytes());
            bytes.extend(1u64.to_le_bytes());
        }
        Meta::Raw(9, bytes)
    };
    for (value, what) in [
        (huge_array(8, u64::MAX), "array elements"),
        (huge_array(0, 1 << 40), "array elements"),
        (Meta::Raw(8, u64::MAX.to_le_bytes().to_vec()), "overflows"),
        (Meta::Raw(8, (1u64 << 33).to_le_bytes().to_vec()), "inside its head"),
        (Meta::Raw(77, vec![]), "unknown type"),
        (nested(200_000), "unknown type"),
    ] {
        Forged::honest().set("general.name", value).refused(what);
    }
    let many =
        Meta::Raw(9, [vec![0, 0, 0, 0], 5_000_000u64.to_le_bytes().into(), vec![1; 5_000_000]].concat());
    Forged::honest().set("general.name", many).refused("array elements in all");
}

#[test]
fn vocabularies_that_cannot_be_are_refused() {
    let honest = Forged::honest;
    let tokens = |count: usize| (0..count).map(|index| format!("t{index}")).collect::<Vec<_>>();
    let scored = |tokens: Vec<String>| {
        let count = tokens.len();
        honest()
            .set("tokenizer.ggml.model", Meta::Text("llama".into()))
            .set("tokenizer.ggml.scores", Meta::Floats(vec![0.0; count]))
            .set("tokenizer.ggml.token_type", Meta::Ints(vec![1; count]))
            .set("tokenizer.ggml.tokens", Meta::Texts(tokens))
            .tensor("token_embd.weight", |tensor| {
                tensor.dimensions = vec![8, count as u64];
                tensor.offset = 1 << 14;
            })
    };
    let runs = |letters: &str| -> Vec<String> {
        letters
            .chars()
            .flat_map(|letter| (1..600).map(move |times| letter.to_string().repeat(times)))
            .collect()
    };
    let mut in_many_ways = scored(runs("abcdefgh"));
    in_many_ways.data_bytes = (1 << 14) + 8 * 4 * 8 * 599;
    let mut one_score = in_many_ways.clone().set("tokenizer.ggml.scores", Meta::Floats(vec![0.0]));
    one_score.data_bytes = in_many_ways.data_bytes;
    for (forged, what) in [
        (in_many_ways, "too many ways"),
        (one_score, "scores"),
        (honest().set("tokenizer.ggml.tokens", Meta::Texts(tokens(95))), "token_embd"),
        (honest().set("tokenizer.ggml.tokens", Meta::Texts(vec!["same".into(); 96])), "twice"),
        (honest().set("tokenizer.ggml.tokens", Meta::Ints(vec![1; 96])), "tokens"),
        (honest().set("tokenizer.ggml.token_type", Meta::Ints(vec![1; 5])), "token_type"),
        (honest().set("tokenizer.ggml.merges", Meta::Texts(vec!["ab".into()])), "merges"),
        (honest().set("tokenizer.ggml.merges", Meta::Texts(vec!["q not-there".into()])), "merges"),
        (honest().set("tokenizer.ggml.pre", Meta::Text("klingon".into())), "klingon"),
        (honest().set("tokenizer.ggml.model", Meta::Text("bert".into())), "bert"),
        (honest().without("tokenizer.chat_template"), "chat template"),
        (honest().set("tokenizer.chat_template", Meta::Text("{% for".into())), "template"),
        (honest().set("tokenizer.chat_template", Meta::Text("x".repeat(2 << 20))), "template"),
    ] {
        forged.refused(what);
    }
    let mut long = tokens(96);
    long[7] = "x".repeat(5_000);
    honest().set("tokenizer.ggml.tokens", Meta::Texts(long)).refused("5000 bytes");
}

#[test]
fn template_bombs_run_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.gguf");
    for bomb in [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% for a in range(100000) %}{{ 'x' * 4096 }}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ 'x' * 10000000000 }}",
        "{{ messages[0].content * 1000000 }}",
        "{{ raise_exception('no') }}",
        "{% include 'chat' %}",
    ] {
        let forged = Forged::honest().set("tokenizer.chat_template", Meta::Text(bomb.into()));
        fs::write(&path, forged.bytes()).unwrap();
        let engine = Engine::load(&ModelFiles::open(&path).unwrap()).unwrap();
        let began = Instant::now();
        let chat = [ChatMessage { role: "user".into(), content: "hello".into() }];
        let outcome = engine.tokenize_chat(&chat);
        assert!(matches!(outcome, Err(GenerateError::Template)), "{bomb}");
        assert!(began.elapsed() < SOON, "{bomb} took {:?}", began.elapsed());
    }
}

#[test]
fn prompts_beyond_every_context_are_refused_before_they_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("forged.gguf");
    fs::write(&path, Forged::honest().bytes()).unwrap();
    let engine = Engine::load(&ModelFiles::open(&path).unwrap()).unwrap();
    let text = "x".repeat((16 << 20) + 1);
    assert!(matches!(engine.tokenize(&text), Err(GenerateError::Parameter("prompt"))));
    let chat = [ChatMessage { role: "user".into(), content: text }];
    assert!(matches!(engine.tokenize_chat(&chat), Err(GenerateError::Parameter("messages"))));
}

// ---------------------------------------------------------------- Hugging Face

fn directory(change: impl Fn(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden("families/qwen3_moe"), folder.path());
    change(folder.path());
    folder
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn edit(folder: &Path, file: &str, change: impl Fn(&mut Value)) {
    let path = folder.join(file);
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

fn refused_directory(what: &str, change: impl Fn(&Path)) {
    let folder = directory(change);
    let error = match load(folder.path()) {
        Ok(()) => panic!("{what}: it was accepted"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains(what), "{error:?} does not name {what:?}");
}

#[test]
fn configs_that_cannot_be_are_refused_by_name() {
    load(directory(|_| ()).path()).unwrap();
    for (key, value, what) in [
        ("num_hidden_layers", json!(1_000_000_000u64), "num_hidden_layers"),
        ("num_hidden_layers", json!(-1), "config.json"),
        ("num_hidden_layers", json!(3), "layers.2."),
        ("hidden_size", json!(1u64 << 60), "config.json"),
        ("hidden_size", json!(17), "is ["),
        ("head_dim", json!(1u64 << 40), "head_dim"),
        ("head_dim", json!(7), "config.json"),
        ("num_attention_heads", json!(0), "heads"),
        ("num_experts", json!(1u64 << 40), "duplicate"),
        ("num_local_experts", json!(1u64 << 40), "experts"),
        ("num_local_experts", json!(7), "experts.6"),
        ("num_experts_per_tok", json!(7), "experts a token uses"),
        ("vocab_size", json!(0), "vocabulary"),
        ("vocab_size", json!(200), "embed_tokens"),
        ("rms_norm_eps", json!(0.0), "out of range"),
        ("rope_parameters", json!({ "rope_type": "yarn", "factor": 4.0 }), "yarn"),
        ("rope_parameters", json!({ "rope_type": "linear", "factor": 0.0 }), "rope"),
        ("rope_parameters", json!({ "rope_theta": -5.0 }), "rope"),
        ("hidden_act", json!("relu"), "relu"),
        ("model_type", json!("mamba"), "mamba"),
        ("layer_types", json!(["linear_attention", "full_attention"]), "linear_attention"),
        ("quantization_config", json!({ "bits": 4 }), "quantization_config"),
    ] {
        refused_directory(what, |folder| edit(folder, "config.json", |config| config[key] = value.clone()));
    }
    refused_directory("config.json", |folder| {
        fs::write(folder.join("config.json"), "[".repeat(1 << 20)).unwrap();
    });
}

#[test]
fn safetensors_that_cannot_be_are_refused_by_name() {
    let with_head = |head: &str, data: usize| {
        let head = head.to_owned();
        move |folder: &Path| {
            let mut file = (head.len() as u64).to_le_bytes().to_vec();
            file.extend(head.as_bytes());
            file.resize(file.len() + data, 0);
            fs::write(folder.join("model.safetensors"), file).unwrap();
        }
    };
    let name = "model.safetensors";
    refused_directory(name, |folder| fs::write(folder.join(name), u64::MAX.to_le_bytes()).unwrap());
    refused_directory(name, |folder| fs::write(folder.join(name), (1u64 << 26).to_le_bytes()).unwrap());
    refused_directory(name, |folder| fs::write(folder.join(name), b"").unwrap());
    refused_directory(name, with_head("{", 0));
    let one = |shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    refused_directory(name, with_head(&one("[1000000000000]", "[0,4]"), 4));
    refused_directory(name, with_head(&one("[4294967296,4294967296,4294967296]", "[0,4]"), 4));
    refused_directory(name, with_head(&one("[1]", "[0,4000000000]"), 4));
    refused_directory(name, with_head(&one("[1]", "[4,0]"), 4));
    refused_directory(
        name,
        with_head(
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
            12,
        ),
    );
    refused_directory("I64", with_head(r#"{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}"#, 8));
    refused_directory("twice", |folder| {
        fs::copy(folder.join(name), folder.join("model-2.safetensors")).unwrap();
    });
}

#[test]
fn tokenizers_made_to_hurt_are_refused() {
    let name = "tokenizer.json";
    let many = |step: Value, key: &str| json!({ "type": "Sequence", key: vec![step; 64] });
    let replace = json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "aa" });
    let bytes =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    for (key, value) in [
        ("normalizer", many(replace.clone(), "normalizers")),
        ("pre_tokenizer", many(bytes, "pretokenizers")),
        ("decoder", many(replace, "decoders")),
        ("normalizer", json!({ "type": "Precompiled", "precompiled_charsmap": "AAAA/////w==" })),
        ("normalizer", json!({ "type": "Unheard" })),
        (
            "pre_tokenizer",
            json!({ "type": "Split", "pattern": { "Regex": "(((a{1000}){1000}){1000})" }, "behavior": "Isolated", "invert": false }),
        ),
        ("model", json!({ "type": "BPE", "vocab": { "a": 0 }, "merges": [["a", "b"]] })),
        ("model", json!({ "type": "BPE", "vocab": { "a": 4_000_000_000u32 }, "merges": [] })),
        ("model", Value::Null),
    ] {
        refused_directory(name, |folder| edit(folder, name, |file| file[key] = value.clone()));
    }
    refused_directory("5000 bytes", |folder| {
        edit(folder, name, |file| file["model"]["vocab"]["x".repeat(5_000)] = json!(3));
    });
    refused_directory(name, |folder| fs::write(folder.join(name), "{\"a\":".repeat(1 << 18)).unwrap());
    refused_directory(name, |folder| fs::remove_file(folder.join(name)).unwrap());
    // A pattern that takes for ever on the wrong text gives up.
    let slow = directory(|folder| {
        edit(folder, name, |file| {
            file["pre_tokenizer"] = json!({ "type": "Split", "pattern": { "Regex": "(?=(x+x+)+y)x" }, "behavior": "Isolated", "invert": false });
        });
    });
    let engine = Engine::load(&ModelFiles::open(slow.path()).unwrap()).unwrap();
    let began = Instant::now();
    let _ = engine.tokenize(&"x".repeat(2_000));
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
}

#[test]
#[cfg(unix)]
fn what_has_no_end_is_not_read() {
    let folder = directory(|folder| {
        fs::remove_file(folder.join("model.safetensors")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", folder.join("model.safetensors")).unwrap();
    });
    assert!(matches!(load(folder.path()), Err(LoadError::Read { .. })));
}

// ---------------------------------------------------------------- at random

fn mutated(original: &[u8], edits: &[(usize, u8, u8)], cut: usize) -> Vec<u8> {
    let mut bytes = original.to_vec();
    // The head is where a change matters.
    let reach = bytes.len().min(24_000);
    for (at, how, value) in edits {
        let at = at % reach;
        match how % 4 {
            0 => bytes[at] = *value,
            1 => bytes[at] ^= 1 << (value % 8),
            2 => {
                let end = (at + 8).min(bytes.len());
                bytes[at..end].fill(if value % 2 == 0 { 0xff } else { 0 });
            }
            _ => {
                bytes.insert(at, *value);
            }
        }
    }
    if cut.is_multiple_of(3) {
        bytes.truncate(cut % (bytes.len() + 1));
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_gguf_files_never_panic(
        which in 0usize..4,
        edits in prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..12),
        cut in any::<usize>(),
    ) {
        let name = ["q8_0.gguf", "families/llama2.gguf", "families/qwen3_moe.gguf", "families/gemma3.gguf"][which];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mutated.gguf");
        fs::write(&path, mutated(&fs::read(golden(name)).unwrap(), &edits, cut)).unwrap();
        let _ = load(&path);
    }

    #[test]
    fn mutated_directories_never_panic(
        which in 0usize..4,
        edits in prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..6),
        cut in any::<usize>(),
    ) {
        let name = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"][which];
        let folder = directory(|folder| {
            let path = folder.join(name);
            fs::write(&path, mutated(&fs::read(&path).unwrap(), &edits, cut)).unwrap();
        });
        let _ = load(folder.path());
    }

    #[test]
    fn mutated_encoders_never_panic(
        which in 0usize..11,
        edits in prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..6),
        cut in any::<usize>(),
    ) {
        let (model, name) = [
            ("bert", "config.json"),
            ("bert", "model.safetensors"),
            ("bert", "tokenizer.json"),
            ("bert", "modules.json"),
            ("bert", "1_Pooling/config.json"),
            ("whisper", "config.json"),
            ("whisper", "generation_config.json"),
            ("whisper", "model.safetensors"),
            ("whisper", "tokenizer.json"),
            ("whisper-ct2", "config.json"),
            ("whisper-ct2", "model.bin"),
        ][which];
        let folder = tempfile::tempdir().unwrap();
        copy(&golden(model), folder.path());
        let path = folder.path().join(name);
        fs::write(&path, mutated(&fs::read(&path).unwrap(), &edits, cut)).unwrap();
        let _ = measured(folder.path(), |files| {
            if model == "bert" {
                let _ = Embedder::load(files)?.embed(&["hello there", ""]);
            } else {
                let audio = Audio::from_samples(vec![0.25; 800], 16_000).unwrap();
                let params = TranscribeParams::default();
                let _ = Transcriber::load(files)?.transcribe(&audio, &params, &mut |_| ControlFlow::Continue(()));
            }
            Ok(())
        });
    }
}
