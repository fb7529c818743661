//! A decoder's shape and weights from a GGUF file.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::error::LoadError;
use crate::family::{Family, GGUF};
use crate::files::{ModelFile, ModelFiles};
use crate::gguf::{Gguf, TensorKind, Value};
use crate::matrix::{Bytes, Matrix};
use crate::shape::{Experts, LayerShape, MAX_HEAD_SIZE, MAX_LAYERS, Rotation, Shape, Stretch};
use crate::weights::{Source, Tied, Weights, collect};

const FILE: &str = "model.gguf";
/// Divisors of the rotation's frequencies, as Llama 3.1 has them.
const ROTATION_DIVISORS: &str = "rope_freqs.weight";
/// Layers of Gemma 2 27B and Gemma 3 27B, whose queries are scaled by another size than their heads'.
const GEMMA2_27B_LAYERS: usize = 46;
const GEMMA3_27B_LAYERS: usize = 62;

/// Shape and weights of a GGUF `file` whose head is `head`.
///
/// # Errors
/// [`LoadError`]: corrupt, or a model that this engine does not run.
pub(crate) fn load(files: &ModelFiles, file: &ModelFile, head: &Gguf) -> Result<(Shape, Weights), LoadError> {
    let architecture = head.text("general.architecture").unwrap_or_default();
    let family = Family::of_gguf(architecture)
        .ok_or_else(|| LoadError::Unsupported { what: format!("the GGUF architecture {architecture:?}") })?;
    let source = GgufSource { files, head, bytes: &file.bytes, used: RefCell::default() };
    let metadata = Metadata { files, head, architecture };
    let shape = shape(&metadata, family, &source)?.checked().map_err(|detail| files.corrupt(FILE, detail))?;
    let weights = collect(&source, &GGUF, family, &shape, Tied::IfAbsent, 0.0)?;
    Ok((shape, weights))
}

struct Metadata<'a> {
    files: &'a ModelFiles,
    head: &'a Gguf,
    architecture: &'a str,
}

impl Metadata<'_> {
    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn optional(&self, key: &str) -> Result<Option<usize>, LoadError> {
        let key = self.key(key);
        match self.head.metadata.get(&key) {
            None => Ok(None),
            Some(Value::Array(_)) => {
                Err(LoadError::Unsupported { what: format!("{key} that differs between layers") })
            }
            Some(_) => self
                .head
                .unsigned(&key)
                .and_then(|value| usize::try_from(value).ok())
                .map(Some)
                .ok_or_else(|| self.files.corrupt(FILE, format!("{key} is no whole number"))),
        }
    }

    fn number(&self, key: &str) -> Result<usize, LoadError> {
        let missing = || self.files.corrupt(FILE, format!("{} is missing", self.key(key)));
        self.optional(key)?.ok_or_else(missing)
    }

    fn float(&self, key: &str) -> Option<f64> {
        self.head.float(&self.key(key))
    }
}

fn shape(metadata: &Metadata<'_>, family: Family, source: &GgufSource<'_>) -> Result<Shape, LoadError> {
    let Metadata { files, head, architecture } = *metadata;
    let unsupported =
        |what: &str| LoadError::Unsupported { what: format!("{what} in a {architecture} GGUF") };
    let hidden = metadata.number("embedding_length")?;
    let heads = metadata.number("attention.head_count")?;
    let head_size = match metadata.optional("attention.key_length")? {
        Some(size) => size,
        None => hidden / heads.max(1),
    };
    for key in ["attention.value_length", "rope.dimension_count"] {
        if metadata.optional(key)?.is_some_and(|size| size != head_size) {
            return Err(unsupported(&format!("{key} other than the heads' size")));
        }
    }
    let layer_count = metadata.number("block_count")?;
    if layer_count > MAX_LAYERS || head_size > MAX_HEAD_SIZE {
        let detail = format!("it claims {layer_count} layers and heads of {head_size} numbers");
        return Err(files.corrupt(FILE, detail));
    }
    let experts = match metadata.optional("expert_count")?.unwrap_or(0) {
        0 => None,
        _ if family != Family::Qwen3Moe => return Err(unsupported("a mixture of experts")),
        count => Some(Experts {
            count,
            used: metadata.number("expert_used_count")?,
            feed_forward: metadata.number("expert_feed_forward_length")?,
            normalised: true,
        }),
    };
    if experts.is_none() && family == Family::Qwen3Moe {
        return Err(files.corrupt(FILE, format!("{} is missing", metadata.key("expert_count"))));
    }
    let window = match family.full_attention_every() {
        Some(_) => Some(metadata.number("attention.sliding_window")?),
        None if metadata.optional("attention.sliding_window")?.is_some_and(|window| window > 0) => {
            return Err(unsupported("a sliding window"));
        }
        None => None,
    };
    let layers = (0..layer_count).map(|layer| {
        let sees_all = family.full_attention_every().is_none_or(|every| (layer + 1).is_multiple_of(every));
        LayerShape {
            window: window.filter(|_| !sees_all),
            rotation: usize::from(family == Family::Gemma3 && !sees_all),
            sparse: experts.is_some(),
        }
    });
    let rotation = |base: f64, stretch: &Stretch| {
        Rotation::new(head_size, base, stretch)
            .ok_or_else(|| files.corrupt(FILE, "its rotation (rope.*) is out of range"))
    };
    let default_base = if family == Family::Gemma3 { 1e6 } else { 1e4 };
    let base = metadata.float("rope.freq_base").unwrap_or(default_base);
    let mut rotations = vec![rotation(base, &stretch(metadata, source, head_size)?)?];
    if family == Family::Gemma3 {
        let base = metadata.float("rope.freq_base_swa").unwrap_or(1e4);
        rotations.push(rotation(base, &Stretch::None)?);
    }
    let queries_by_width = match family {
        Family::Gemma2 => layer_count == GEMMA2_27B_LAYERS,
        Family::Gemma3 => layer_count == GEMMA3_27B_LAYERS,
        _ => false,
    };
    let scaled_by = if queries_by_width { hidden / heads.max(1) } else { head_size };
    let cap = |key: &str| metadata.float(key).filter(|_| family == Family::Gemma2).map(|cap| cap as f32);
    Ok(Shape {
        architecture: architecture.to_owned(),
        name: head.text("general.name").unwrap_or("unnamed").to_owned(),
        hidden,
        feed_forward: metadata.number("feed_forward_length")?,
        heads,
        kv_heads: metadata.optional("attention.head_count_kv")?.unwrap_or(heads),
        head_size,
        vocabulary: head.array("tokenizer.ggml.tokens").map_or(0, <[_]>::len),
        context: metadata.number("context_length")?,
        norm_epsilon: metadata
            .float("attention.layer_norm_rms_epsilon")
            .ok_or_else(|| files.corrupt(FILE, "the norm's epsilon is missing"))?
            as f32,
        activation: family.activation(),
        embedding_scale: family.embedding_scale(hidden),
        attention_scale: (scaled_by as f32).sqrt().recip(),
        attention_cap: cap("attn_logit_softcapping"),
        logit_cap: cap("final_logit_softcapping"),
        rotations,
        neighbours: family.interleaved_in_gguf(),
        layers: layers.collect(),
        experts,
    })
}

fn stretch(metadata: &Metadata<'_>, source: &GgufSource<'_>, head_size: usize) -> Result<Stretch, LoadError> {
    let divisors = source.matrix(ROTATION_DIVISORS, 1, head_size / 2)?.map(|divisors| divisors.expand_all());
    let kind = metadata.head.text(&metadata.key("rope.scaling.type"));
    match (kind, divisors) {
        (None | Some("none"), None) => Ok(Stretch::None),
        (None | Some("none"), Some(divisors)) => Ok(Stretch::Divisors(divisors)),
        (Some("linear"), None) => {
            let factor = metadata.float("rope.scaling.factor").unwrap_or(1.0);
            Ok(Stretch::Linear { factor })
        }
        (Some(other), _) => Err(LoadError::Unsupported { what: format!("RoPE scaling of type {other:?}") }),
    }
}

struct GgufSource<'a> {
    files: &'a ModelFiles,
    head: &'a Gguf,
    bytes: &'a Arc<Vec<u8>>,
    used: RefCell<HashSet<String>>,
}

impl GgufSource<'_> {
    /// The type and the bytes of a tensor of `dimensions`, the fastest first.
    fn find(
        &self,
        name: &str,
        dimensions: &[usize],
    ) -> Result<Option<(TensorKind, Range<usize>)>, LoadError> {
        let Some(info) = self.head.tensors.get(name) else { return Ok(None) };
        self.used.borrow_mut().insert(name.to_owned());
        if let TensorKind::Other(code) = info.kind {
            return Err(LoadError::Unsupported { what: format!("the ggml type {code} of {name}") });
        }
        if info.dimensions != dimensions {
            let detail = format!("{name} is {:?}, not {dimensions:?}", info.dimensions);
            return Err(self.files.corrupt(FILE, detail));
        }
        Ok(Some((info.kind, info.bytes.clone())))
    }

    fn part(
        &self,
        name: &str,
        rows: usize,
        columns: usize,
        kind: TensorKind,
        bytes: Range<usize>,
    ) -> Result<Matrix, LoadError> {
        Bytes::new(self.bytes, bytes)
            .and_then(|bytes| Matrix::new(rows, columns, kind, bytes))
            .ok_or_else(|| self.files.corrupt(FILE, format!("{name} has the wrong size")))
    }
}

impl Source for GgufSource<'_> {
    fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Option<Matrix>, LoadError> {
        let dimensions = [columns, rows];
        // A vector has one dimension.
        let dimensions = if rows == 1 { &dimensions[..1] } else { &dimensions };
        self.find(name, dimensions)?
            .map(|(kind, bytes)| self.part(name, rows, columns, kind, bytes))
            .transpose()
    }

    fn experts(
        &self,
        layer: &str,
        part: &str,
        count: usize,
        rows: usize,
        columns: usize,
    ) -> Result<Vec<Matrix>, LoadError> {
        let name = format!("{layer}{part}_exps.weight");
        let (kind, bytes) = self.find(&name, &[columns, rows, count])?.ok_or_else(|| self.missing(&name))?;
        let each = bytes.len() / count;
        (0..count)
            .map(|expert| {
                let start = bytes.start + expert * each;
                self.part(&name, rows, columns, kind, start..start + each)
            })
            .collect()
    }

    fn dense_prefix(&self) -> &'static str {
        ""
    }

    fn missing(&self, name: &str) -> LoadError {
        self.files.corrupt(FILE, format!("it has no tensor {name}"))
    }

    fn left_over(&self, ignored: Option<&str>) -> Option<String> {
        let used = self.used.borrow();
        let left = self.head.tensors.keys().filter(|name| !used.contains(*name) && Some(&***name) != ignored);
        left.min().cloned()
    }
}
