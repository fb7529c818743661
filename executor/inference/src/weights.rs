//! A Llama-family model's shape and weights, from either kind of file, in one layout: that of Hugging Face.

use std::collections::HashMap;
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::error::LoadError;
use crate::files::{ModelFile, ModelFiles};
use crate::gguf::{Gguf, TensorKind};
use crate::matrix::{Bytes, Matrix};

/// The numbers that fix the architecture.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    pub(crate) architecture: String,
    pub(crate) name: String,
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) feed_forward: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_size: usize,
    pub(crate) vocabulary: usize,
    pub(crate) context: usize,
    pub(crate) rope_base: f32,
    pub(crate) norm_epsilon: f32,
}

/// All weights. `output` is absent where the embedding is used both ways.
#[derive(Debug)]
pub(crate) struct Weights {
    pub(crate) embedding: Matrix,
    pub(crate) layers: Vec<LayerWeights>,
    pub(crate) norm: Vec<f32>,
    pub(crate) output: Option<Matrix>,
}

#[derive(Debug)]
pub(crate) struct LayerWeights {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) q: Matrix,
    pub(crate) k: Matrix,
    pub(crate) v: Matrix,
    pub(crate) o: Matrix,
    pub(crate) feed_forward_norm: Vec<f32>,
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
}

impl Shape {
    /// Refuses sizes that cannot be, before anything is allocated for them.
    fn checked(self) -> Result<Self, String> {
        let within = |value: usize, most: usize| (1..=most).contains(&value);
        let sane = within(self.layers, 1_000)
            && within(self.hidden, 1 << 17)
            && within(self.feed_forward, 1 << 19)
            && within(self.heads, 1 << 10)
            && within(self.kv_heads, self.heads)
            && within(self.head_size, 1 << 10)
            && within(self.vocabulary, 1 << 21)
            && within(self.context, 1 << 22)
            && self.heads.is_multiple_of(self.kv_heads)
            && self.head_size.is_multiple_of(2)
            && self.rope_base.is_finite()
            && self.rope_base > 1.0
            && self.norm_epsilon.is_finite()
            && self.norm_epsilon > 0.0;
        if sane { Ok(self) } else { Err(format!("its dimensions cannot be: {self:?}")) }
    }
}

/// Where a tensor comes from: name → matrix. `None` where there is none of that name.
trait Source {
    fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Option<Matrix>, LoadError>;
    fn missing(&self, name: &str) -> LoadError;

    fn required(&self, name: &str, rows: usize, columns: usize) -> Result<Matrix, LoadError> {
        self.matrix(name, rows, columns)?.ok_or_else(|| self.missing(name))
    }

    fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>, LoadError> {
        Ok(self.required(name, 1, length)?.expand_all())
    }
}

/// The names of one kind of file.
struct Names {
    embedding: &'static str,
    norm: &'static str,
    output: &'static str,
    layer: &'static str,
    attention_norm: &'static str,
    q: &'static str,
    k: &'static str,
    v: &'static str,
    o: &'static str,
    feed_forward_norm: &'static str,
    gate: &'static str,
    up: &'static str,
    down: &'static str,
}

const GGUF_NAMES: Names = Names {
    embedding: "token_embd.weight",
    norm: "output_norm.weight",
    output: "output.weight",
    layer: "blk",
    attention_norm: "attn_norm.weight",
    q: "attn_q.weight",
    k: "attn_k.weight",
    v: "attn_v.weight",
    o: "attn_output.weight",
    feed_forward_norm: "ffn_norm.weight",
    gate: "ffn_gate.weight",
    up: "ffn_up.weight",
    down: "ffn_down.weight",
};

const HUGGING_FACE_NAMES: Names = Names {
    embedding: "model.embed_tokens.weight",
    norm: "model.norm.weight",
    output: "lm_head.weight",
    layer: "model.layers",
    attention_norm: "input_layernorm.weight",
    q: "self_attn.q_proj.weight",
    k: "self_attn.k_proj.weight",
    v: "self_attn.v_proj.weight",
    o: "self_attn.o_proj.weight",
    feed_forward_norm: "post_attention_layernorm.weight",
    gate: "mlp.gate_proj.weight",
    up: "mlp.up_proj.weight",
    down: "mlp.down_proj.weight",
};

/// Whether the embedding is also the output matrix.
#[derive(Clone, Copy)]
enum Tied {
    Always,
    Never,
    IfAbsent,
}

fn collect(source: &impl Source, names: &Names, shape: &Shape, tied: Tied) -> Result<Weights, LoadError> {
    let (hidden, wide) = (shape.hidden, shape.feed_forward);
    let (q_rows, kv_rows) = (shape.heads * shape.head_size, shape.kv_heads * shape.head_size);
    let mut layers = Vec::new();
    for index in 0..shape.layers {
        let name = |part: &str| format!("{}.{index}.{part}", names.layer);
        layers.push(LayerWeights {
            attention_norm: source.vector(&name(names.attention_norm), hidden)?,
            q: source.required(&name(names.q), q_rows, hidden)?,
            k: source.required(&name(names.k), kv_rows, hidden)?,
            v: source.required(&name(names.v), kv_rows, hidden)?,
            o: source.required(&name(names.o), hidden, q_rows)?,
            feed_forward_norm: source.vector(&name(names.feed_forward_norm), hidden)?,
            gate: source.required(&name(names.gate), wide, hidden)?,
            up: source.required(&name(names.up), wide, hidden)?,
            down: source.required(&name(names.down), hidden, wide)?,
        });
    }
    Ok(Weights {
        embedding: source.required(names.embedding, shape.vocabulary, hidden)?,
        layers,
        norm: source.vector(names.norm, hidden)?,
        output: match tied {
            Tied::Always => None,
            Tied::Never => Some(source.required(names.output, shape.vocabulary, hidden)?),
            Tied::IfAbsent => source.matrix(names.output, shape.vocabulary, hidden)?,
        },
    })
}

// ---------------------------------------------------------------- GGUF

struct GgufSource<'a> {
    files: &'a ModelFiles,
    head: &'a Gguf,
    bytes: &'a Arc<Vec<u8>>,
}

impl Source for GgufSource<'_> {
    fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Option<Matrix>, LoadError> {
        let Some(info) = self.head.tensors.get(name) else { return Ok(None) };
        if let TensorKind::Other(code) = info.kind {
            return Err(LoadError::Unsupported { what: format!("the ggml type {code} of {name}") });
        }
        let expected = if rows == 1 { vec![columns] } else { vec![columns, rows] };
        if info.dimensions != expected {
            let detail = format!("{name} is {:?}, not {expected:?}", info.dimensions);
            return Err(self.files.corrupt("model.gguf", detail));
        }
        Bytes::new(self.bytes, info.bytes.clone())
            .and_then(|bytes| Matrix::new(rows, columns, info.kind, bytes))
            .map(Some)
            .ok_or_else(|| self.files.corrupt("model.gguf", format!("{name} has the wrong size")))
    }

    fn missing(&self, name: &str) -> LoadError {
        self.files.corrupt("model.gguf", format!("it has no tensor {name}"))
    }
}

/// Shape and weights of a GGUF `file` whose head is `head`.
pub(crate) fn from_gguf(
    files: &ModelFiles,
    file: &ModelFile,
    head: &Gguf,
) -> Result<(Shape, Weights), LoadError> {
    let corrupt = |detail: String| files.corrupt("model.gguf", detail);
    let architecture = head.text("general.architecture").unwrap_or_default();
    if architecture != "llama" {
        return Err(LoadError::Unsupported { what: format!("the architecture {architecture:?}") });
    }
    if head.metadata.contains_key("llama.rope.scaling.type") || head.tensors.contains_key("rope_freqs.weight")
    {
        return Err(LoadError::Unsupported { what: "RoPE scaling".into() });
    }
    if head.unsigned("llama.expert_count").unwrap_or(0) > 0 {
        return Err(LoadError::Unsupported { what: "a mixture of experts".into() });
    }
    let number = |key: &str| {
        head.unsigned(&format!("llama.{key}"))
            .and_then(|value| usize::try_from(value).ok())
            .ok_or_else(|| corrupt(format!("llama.{key} is missing or no number")))
    };
    let hidden = number("embedding_length")?;
    let heads = number("attention.head_count")?;
    let kv_heads = number("attention.head_count_kv").unwrap_or(heads);
    let head_size = number("rope.dimension_count").ok().unwrap_or(hidden / heads.max(1));
    let vocabulary = head.array("tokenizer.ggml.tokens").map_or(0, <[_]>::len);
    let shape = Shape {
        architecture: architecture.to_owned(),
        name: head.text("general.name").unwrap_or("unnamed").to_owned(),
        layers: number("block_count")?,
        hidden,
        feed_forward: number("feed_forward_length")?,
        heads,
        kv_heads,
        head_size,
        vocabulary,
        context: number("context_length")?,
        rope_base: head.float("llama.rope.freq_base").unwrap_or(10_000.0) as f32,
        norm_epsilon: head
            .float("llama.attention.layer_norm_rms_epsilon")
            .ok_or_else(|| corrupt("the norm's epsilon is missing".into()))? as f32,
    }
    .checked()
    .map_err(corrupt)?;
    let mut weights =
        collect(&GgufSource { files, head, bytes: &file.bytes }, &GGUF_NAMES, &shape, Tied::IfAbsent)?;
    // ggml rotates neighbours, Hugging Face halves: its converter interleaved each head's rows, this undoes it.
    let half = shape.head_size / 2;
    let source = |row: usize| {
        let (head, within) = (row / shape.head_size, row % shape.head_size);
        head * shape.head_size + (within % half) * 2 + within / half
    };
    for layer in &mut weights.layers {
        layer.q = layer.q.reordered(source);
        layer.k = layer.k.reordered(source);
    }
    Ok((shape, weights))
}

// ---------------------------------------------------------------- Hugging Face

#[derive(Deserialize)]
struct Config {
    model_type: String,
    #[serde(default)]
    architectures: Vec<String>,
    num_hidden_layers: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: usize,
    rope_theta: Option<f32>,
    rope_scaling: Option<serde_json::Value>,
    rope_parameters: Option<serde_json::Value>,
    rms_norm_eps: f32,
    hidden_act: Option<String>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
}

struct SafetensorsSource<'a> {
    files: &'a ModelFiles,
    tensors: HashMap<String, (TensorKind, Vec<usize>, Bytes)>,
}

impl Source for SafetensorsSource<'_> {
    fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Option<Matrix>, LoadError> {
        let Some((kind, dimensions, bytes)) = self.tensors.get(name) else { return Ok(None) };
        let expected = if rows == 1 { vec![columns] } else { vec![rows, columns] };
        if *dimensions != expected {
            let detail = format!("{name} is {dimensions:?}, not {expected:?}");
            return Err(self.files.corrupt("*.safetensors", detail));
        }
        Matrix::new(rows, columns, *kind, bytes.clone())
            .map(Some)
            .ok_or_else(|| self.files.corrupt("*.safetensors", format!("{name} has the wrong size")))
    }

    fn missing(&self, name: &str) -> LoadError {
        self.files.corrupt("*.safetensors", format!("there is no tensor {name}"))
    }
}

/// Shape and weights of a Hugging Face directory.
pub(crate) fn from_safetensors(files: &ModelFiles) -> Result<(Shape, Weights), LoadError> {
    let unsupported = |what: String| LoadError::Unsupported { what };
    let config = files.find("config.json").ok_or_else(|| files.corrupt("config.json", "it is missing"))?;
    let config: Config =
        serde_json::from_slice(&config.bytes).map_err(|error| files.corrupt("config.json", error))?;
    if config.model_type != "llama" {
        return Err(unsupported(format!(
            "the model type {:?} {:?}",
            config.model_type, config.architectures
        )));
    }
    let default_rope = |value: &serde_json::Value| {
        value.is_null() || value.get("rope_type").is_none_or(|kind| kind == "default")
    };
    if !config.rope_scaling.as_ref().is_none_or(default_rope)
        || !config.rope_parameters.as_ref().is_none_or(default_rope)
    {
        return Err(unsupported("RoPE scaling".into()));
    }
    if config.attention_bias
        || config.mlp_bias
        || config.hidden_act.as_deref().is_some_and(|act| act != "silu")
    {
        return Err(unsupported("a bias or another activation than SiLU".into()));
    }
    let in_parameters = config
        .rope_parameters
        .as_ref()
        .and_then(|parameters| parameters.get("rope_theta"))
        .and_then(serde_json::Value::as_f64)
        .map(|base| base as f32);
    let shape = Shape {
        architecture: config.model_type,
        name: files.path().file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        layers: config.num_hidden_layers,
        hidden: config.hidden_size,
        feed_forward: config.intermediate_size,
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads.unwrap_or(config.num_attention_heads),
        head_size: config.head_dim.unwrap_or(config.hidden_size / config.num_attention_heads.max(1)),
        vocabulary: config.vocab_size,
        context: config.max_position_embeddings,
        rope_base: config.rope_theta.or(in_parameters).unwrap_or(10_000.0),
        norm_epsilon: config.rms_norm_eps,
    }
    .checked()
    .map_err(|detail| files.corrupt("config.json", detail))?;
    let mut tensors = HashMap::new();
    for file in files.files().iter().filter(|file| file.name.ends_with(".safetensors")) {
        let parsed =
            SafeTensors::deserialize(&file.bytes).map_err(|error| files.corrupt(&file.name, error))?;
        for (name, view) in parsed.iter() {
            let kind = match view.dtype() {
                Dtype::F32 => TensorKind::F32,
                Dtype::F16 => TensorKind::F16,
                Dtype::BF16 => TensorKind::Bf16,
                other => return Err(unsupported(format!("the type {other:?} of {name}"))),
            };
            let start = view.data().as_ptr().addr() - file.bytes.as_ptr().addr();
            let bytes = Bytes::new(&file.bytes, start..start + view.data().len())
                .ok_or_else(|| files.corrupt(&file.name, format!("{name} lies outside it")))?;
            if tensors.insert(name.to_owned(), (kind, view.shape().to_vec(), bytes)).is_some() {
                return Err(files.corrupt(&file.name, format!("the tensor {name} stands twice")));
            }
        }
    }
    // Where the config ties them, a stored output matrix is a leftover that transformers ignores too.
    let tied = if config.tie_word_embeddings { Tied::Always } else { Tied::Never };
    let weights = collect(&SafetensorsSource { files, tensors }, &HUGGING_FACE_NAMES, &shape, tied)?;
    Ok((shape, weights))
}
