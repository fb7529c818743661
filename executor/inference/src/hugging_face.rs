//! A decoder's shape and weights from a Hugging Face directory.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::Value;

use crate::error::LoadError;
use crate::family::{Family, hugging_face_names};
use crate::files::ModelFiles;
use crate::gguf::TensorKind;
use crate::matrix::{Bytes, Matrix};
use crate::shape::{Experts, LayerShape, MAX_HEAD_SIZE, MAX_LAYERS, Rotation, Shape, Stretch};
use crate::weights::{Source, Tied, Weights, collect};

const FILE: &str = "config.json";

/// Shape and weights of a Hugging Face directory.
///
/// # Errors
/// [`LoadError`]: corrupt, or a model that this engine does not run.
pub(crate) fn load(files: &ModelFiles) -> Result<(Shape, Weights), LoadError> {
    let file = files.find(FILE).ok_or_else(|| files.corrupt(FILE, "it is missing"))?;
    let config: Config = serde_json::from_slice(&file.bytes).map_err(|error| files.corrupt(FILE, error))?;
    let family = Family::of_hugging_face(&config.model_type).ok_or_else(|| LoadError::Unsupported {
        what: format!("the model type {:?} {:?}", config.model_type, config.architectures),
    })?;
    let shape = shape(files, &config, family)?.checked().map_err(|detail| files.corrupt(FILE, detail))?;
    let source = SafetensorsSource::open(files)?;
    let tied = config.tie_word_embeddings.unwrap_or(family.tied_by_default());
    let tied = if tied { Tied::Always } else { Tied::Never };
    let names = hugging_face_names(family);
    let weights = collect(&source, &names, family, &shape, tied, family.norm_offset())?;
    Ok((shape, weights))
}

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
    rope_theta: Option<f64>,
    rope_local_base_freq: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
    rms_norm_eps: f32,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    tie_word_embeddings: Option<bool>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    layer_types: Option<Vec<String>>,
    sliding_window: Option<usize>,
    sliding_window_pattern: Option<usize>,
    #[serde(default)]
    use_sliding_window: bool,
    #[serde(default)]
    use_bidirectional_attention: Option<bool>,
    query_pre_attn_scalar: Option<f32>,
    attn_logit_softcapping: Option<f32>,
    final_logit_softcapping: Option<f32>,
    #[serde(alias = "num_local_experts")]
    num_experts: Option<usize>,
    num_experts_per_tok: Option<usize>,
    moe_intermediate_size: Option<usize>,
    #[serde(default)]
    norm_topk_prob: bool,
    #[serde(default)]
    mlp_only_layers: Vec<usize>,
    decoder_sparse_step: Option<usize>,
    quantization_config: Option<Value>,
}

fn shape(files: &ModelFiles, config: &Config, family: Family) -> Result<Shape, LoadError> {
    let corrupt = |detail: &str| files.corrupt(FILE, detail);
    let (hidden, heads, layer_count) =
        (config.hidden_size, config.num_attention_heads, config.num_hidden_layers);
    check_supported(config, family)?;
    let head_size = match config.head_dim {
        Some(size) => size,
        None if matches!(family, Family::Llama | Family::Mistral | Family::Qwen2) => hidden / heads.max(1),
        None => return Err(corrupt("head_dim is missing")),
    };
    if layer_count > MAX_LAYERS || head_size > MAX_HEAD_SIZE {
        return Err(corrupt("num_hidden_layers or head_dim is beyond what a model has"));
    }
    let experts = match (family, config.num_experts) {
        (Family::Qwen3Moe, Some(count)) => Some(Experts {
            count,
            used: config.num_experts_per_tok.ok_or_else(|| corrupt("num_experts_per_tok is missing"))?,
            feed_forward: config
                .moe_intermediate_size
                .ok_or_else(|| corrupt("moe_intermediate_size is missing"))?,
            normalised: config.norm_topk_prob,
        }),
        (Family::Qwen3Moe, None) => return Err(corrupt("num_experts is missing")),
        _ => None,
    };
    let sparse_step = config.decoder_sparse_step.unwrap_or(1);
    let layers = windows(files, config, family)?.into_iter().enumerate().map(|(layer, window)| LayerShape {
        window,
        rotation: usize::from(family == Family::Gemma3 && window.is_some()),
        sparse: experts.is_some()
            && !config.mlp_only_layers.contains(&layer)
            && sparse_step > 0
            && (layer + 1).is_multiple_of(sparse_step),
    });
    let scaled_by = match family {
        Family::Gemma2 | Family::Gemma3 => {
            config.query_pre_attn_scalar.ok_or_else(|| corrupt("query_pre_attn_scalar is missing"))?
        }
        _ => head_size as f32,
    };
    Ok(Shape {
        architecture: config.model_type.clone(),
        name: files.path().file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        hidden,
        feed_forward: config.intermediate_size,
        heads,
        kv_heads: config.num_key_value_heads.unwrap_or(heads),
        head_size,
        vocabulary: config.vocab_size,
        context: config.max_position_embeddings,
        norm_epsilon: config.rms_norm_eps,
        activation: family.activation(),
        embedding_scale: family.embedding_scale(hidden),
        attention_scale: scaled_by.sqrt().recip(),
        attention_cap: config.attn_logit_softcapping,
        logit_cap: config.final_logit_softcapping,
        rotations: rotations(files, config, family, head_size)?,
        neighbours: false,
        layers: layers.collect(),
        experts,
    })
}

fn check_supported(config: &Config, family: Family) -> Result<(), LoadError> {
    let refuse =
        |what: &str| Err(LoadError::Unsupported { what: format!("{what} in a {} model", config.model_type) });
    if config.quantization_config.is_some() {
        return refuse("quantization_config (GGUF files may be quantised, safetensors not)");
    }
    if config.mlp_bias || (config.attention_bias && family != Family::Llama) {
        return refuse("a bias");
    }
    if config.use_bidirectional_attention == Some(true) {
        return refuse("bidirectional attention");
    }
    let activation = if family.is_gemma() {
        config.hidden_activation.as_deref().or(config.hidden_act.as_deref())
    } else {
        config.hidden_act.as_deref()
    };
    // "gelu" in a Gemma is an old slip for its approximation by tanh; transformers reads it so too.
    let known = match activation {
        None => true,
        Some("silu") => !family.is_gemma(),
        Some("gelu_pytorch_tanh" | "gelu") => family.is_gemma(),
        Some(_) => false,
    };
    if known { Ok(()) } else { refuse(&format!("the activation {activation:?}")) }
}

/// The window of each layer.
fn windows(files: &ModelFiles, config: &Config, family: Family) -> Result<Vec<Option<usize>>, LoadError> {
    let count = config.num_hidden_layers;
    let window =
        || config.sliding_window.ok_or_else(|| files.corrupt(FILE, "sliding_window is missing")).map(Some);
    if let Some(kinds) = &config.layer_types {
        if kinds.len() != count {
            return Err(files.corrupt(FILE, "layer_types has another length than num_hidden_layers"));
        }
        return kinds
            .iter()
            .map(|kind| match kind.as_str() {
                "full_attention" => Ok(None),
                "sliding_attention" => window(),
                other => Err(LoadError::Unsupported { what: format!("layers of type {other:?}") }),
            })
            .collect();
    }
    if let Some(usual) = family.full_attention_every() {
        let every = config.sliding_window_pattern.unwrap_or(usual);
        let sees_all = |layer: usize| every > 0 && (layer + 1).is_multiple_of(every);
        return (0..count).map(|layer| if sees_all(layer) { Ok(None) } else { window() }).collect();
    }
    if config.use_sliding_window {
        return Err(LoadError::Unsupported { what: "use_sliding_window without layer_types".into() });
    }
    let all = config.sliding_window.filter(|_| family == Family::Mistral);
    Ok(vec![all; count])
}

fn rotations(
    files: &ModelFiles,
    config: &Config,
    family: Family,
    head_size: usize,
) -> Result<Vec<Rotation>, LoadError> {
    let rotation = |base: f64, stretch: &Stretch| {
        Rotation::new(head_size, base, stretch)
            .ok_or_else(|| files.corrupt(FILE, "rope_theta or rope_scaling is out of range"))
    };
    // Newer files keep everything in rope_parameters, by layer type where types differ.
    let parameters = |kind: &str| {
        let all = config.rope_parameters.as_ref().or(config.rope_scaling.as_ref())?;
        Some(all.get(kind).unwrap_or(all)).filter(|value| !value.is_null())
    };
    let base_of = |parameters: Option<&Value>| parameters?.get("rope_theta")?.as_f64();
    let full = parameters("full_attention");
    let default_base = if family == Family::Gemma3 { 1e6 } else { 1e4 };
    let base = config.rope_theta.or(base_of(full)).unwrap_or(default_base);
    let mut rotations = vec![rotation(base, &stretch(files, full)?)?];
    if family == Family::Gemma3 {
        let sliding = config.rope_parameters.as_ref().and_then(|all| all.get("sliding_attention"));
        let base = config.rope_local_base_freq.or(base_of(sliding)).unwrap_or(1e4);
        rotations.push(rotation(base, &stretch(files, sliding)?)?);
    }
    Ok(rotations)
}

fn stretch(files: &ModelFiles, parameters: Option<&Value>) -> Result<Stretch, LoadError> {
    let Some(parameters) = parameters else { return Ok(Stretch::None) };
    let number = |key: &str| {
        let value = parameters.get(key).and_then(Value::as_f64);
        value.ok_or_else(|| files.corrupt(FILE, format!("RoPE's {key} is missing")))
    };
    if parameters.get("partial_rotary_factor").and_then(Value::as_f64).is_some_and(|part| part != 1.0) {
        return Err(LoadError::Unsupported { what: "a rotation of part of each head".into() });
    }
    let kind = parameters.get("rope_type").or_else(|| parameters.get("type"));
    match kind.map_or(Some("default"), Value::as_str) {
        Some("default") => Ok(Stretch::None),
        Some("linear") => Ok(Stretch::Linear { factor: number("factor")? }),
        Some("llama3") => Ok(Stretch::Llama3 {
            factor: number("factor")?,
            low_frequency_factor: number("low_freq_factor")?,
            high_frequency_factor: number("high_freq_factor")?,
            original_context: number("original_max_position_embeddings")?,
        }),
        other => Err(LoadError::Unsupported { what: format!("RoPE scaling of type {other:?}") }),
    }
}

struct Stored {
    file: String,
    kind: TensorKind,
    dimensions: Vec<usize>,
    bytes: Bytes,
}

/// The tensors of a directory's safetensors files.
pub(crate) struct SafetensorsSource<'a> {
    files: &'a ModelFiles,
    tensors: HashMap<String, Stored>,
    used: RefCell<HashSet<String>>,
}

impl<'a> SafetensorsSource<'a> {
    pub(crate) fn open(files: &'a ModelFiles) -> Result<Self, LoadError> {
        let mut tensors = HashMap::new();
        for file in files.files().iter().filter(|file| file.name.ends_with(".safetensors")) {
            let parsed =
                SafeTensors::deserialize(&file.bytes).map_err(|error| files.corrupt(&file.name, error))?;
            for (name, view) in parsed.iter() {
                // Old exporters stored the numbers from 0 up, as integers.
                if name.ends_with("position_ids") {
                    continue;
                }
                let kind = match view.dtype() {
                    Dtype::F32 => TensorKind::F32,
                    Dtype::F16 => TensorKind::F16,
                    Dtype::BF16 => TensorKind::Bf16,
                    other => {
                        return Err(LoadError::Unsupported { what: format!("the type {other:?} of {name}") });
                    }
                };
                let start = view.data().as_ptr().addr().wrapping_sub(file.bytes.as_ptr().addr());
                let end = start.checked_add(view.data().len());
                let bytes = end
                    .and_then(|end| Bytes::new(&file.bytes, start..end))
                    .ok_or_else(|| files.corrupt(&file.name, format!("{name} lies outside it")))?;
                let stored =
                    Stored { file: file.name.clone(), kind, dimensions: view.shape().to_vec(), bytes };
                if tensors.insert(name.to_owned(), stored).is_some() {
                    return Err(files.corrupt(&file.name, format!("the tensor {name} stands twice")));
                }
            }
        }
        Ok(Self { files, tensors, used: RefCell::default() })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The tensor `name`, which must be there with these `dimensions`, as the matrix of its first dimension's rows.
    ///
    /// # Errors
    /// [`LoadError`] where it is missing or has another shape.
    pub(crate) fn flattened(&self, name: &str, dimensions: &[usize]) -> Result<Matrix, LoadError> {
        let stored = self.tensors.get(name).ok_or_else(|| self.missing(name))?;
        self.used.borrow_mut().insert(name.to_owned());
        if stored.dimensions != dimensions {
            let detail = format!("{name} is {:?}, not {dimensions:?}", stored.dimensions);
            return Err(self.files.corrupt(&stored.file, detail));
        }
        let (rows, columns) = match dimensions {
            [] => (1, 1),
            [rows, columns @ ..] => (*rows, columns.iter().product()),
        };
        Matrix::new(rows, columns, stored.kind, stored.bytes.clone())
            .ok_or_else(|| self.files.corrupt(&stored.file, format!("{name} has the wrong size")))
    }

    /// The first tensor by name that nothing asked for and that is not to be ignored.
    pub(crate) fn left(&self, ignored: impl Fn(&str) -> bool) -> Option<&str> {
        let used = self.used.borrow();
        let names = self.tensors.keys().map(String::as_str);
        names.filter(|name| !used.contains(*name) && !ignored(name)).min()
    }
}

impl Source for SafetensorsSource<'_> {
    fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Option<Matrix>, LoadError> {
        let Some(stored) = self.tensors.get(name) else { return Ok(None) };
        self.used.borrow_mut().insert(name.to_owned());
        let expected = [rows, columns];
        let expected = if rows == 1 { &expected[1..] } else { &expected };
        if stored.dimensions != expected {
            let detail = format!("{name} is {:?}, not {expected:?}", stored.dimensions);
            return Err(self.files.corrupt(&stored.file, detail));
        }
        Matrix::new(rows, columns, stored.kind, stored.bytes.clone())
            .map(Some)
            .ok_or_else(|| self.files.corrupt(&stored.file, format!("{name} has the wrong size")))
    }

    fn experts(
        &self,
        layer: &str,
        part: &str,
        count: usize,
        rows: usize,
        columns: usize,
    ) -> Result<Vec<Matrix>, LoadError> {
        (0..count)
            .map(|expert| self.required(&format!("{layer}mlp.experts.{expert}.{part}.weight"), rows, columns))
            .collect()
    }

    fn dense_prefix(&self) -> &'static str {
        "mlp."
    }

    fn missing(&self, name: &str) -> LoadError {
        self.files.corrupt("*.safetensors", format!("there is no tensor {name}"))
    }

    fn left_over(&self, ignored: Option<&str>) -> Option<String> {
        let used = self.used.borrow();
        let left = self.tensors.keys().filter(|name| {
            // Old exporters stored the rotation's frequencies, which follow from the config.
            !used.contains(*name) && Some(&***name) != ignored && !name.ends_with(".rotary_emb.inv_freq")
        });
        left.min().cloned()
    }
}
