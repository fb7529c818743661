//! BERT (arXiv 1810.04805) as an encoder of sentences: from token ids to one vector for each token.

use burn_tensor::Tensor;
use burn_tensor::activation::gelu;
use burn_tensor::backend::Backend;
use serde::Deserialize;

use crate::backend::Build;
use crate::decoder::Multiply;
use crate::error::{GenerateError, LoadError};
use crate::files::ModelFiles;
use crate::hugging_face::SafetensorsSource;
use crate::layers::{
    LayerNorm, Linear, LinearWeights, NormWeights, Sight, attend, split_heads, tensor, values,
};
use crate::matrix::Matrix;
use crate::shape::{MAX_HEAD_SIZE, MAX_LAYERS};
use crate::weights::Source;

const FILE: &str = "config.json";

/// A sentence encoder in memory.
pub(crate) trait Encoder: Send + Sync {
    /// `[tokens][hidden]`, row by row, for each of `texts`. A text's numbers do not depend on the others.
    ///
    /// # Errors
    /// [`GenerateError::UnknownToken`], [`GenerateError::Backend`].
    fn encode(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, GenerateError>;
}

/// The sizes of a `BertModel`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct BertShape {
    model_type: String,
    #[serde(rename = "hidden_size")]
    pub(crate) hidden: usize,
    intermediate_size: usize,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    #[serde(rename = "vocab_size")]
    pub(crate) vocabulary: usize,
    /// Tokens of a text.
    #[serde(rename = "max_position_embeddings")]
    pub(crate) positions: usize,
    #[serde(default = "two")]
    type_vocab_size: usize,
    layer_norm_eps: f32,
    hidden_act: String,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
}

/// Shape and weights of a BERT.
pub(crate) struct Bert {
    pub(crate) shape: BertShape,
    multiply: Multiply,
    words: Matrix,
    /// `[positions, hidden]`, the vector of the first sentence's type added to each.
    places: Vec<f32>,
    norm: NormWeights,
    layers: Vec<BertLayer>,
}

struct BertLayer {
    q: LinearWeights,
    k: LinearWeights,
    v: LinearWeights,
    o: LinearWeights,
    attention_norm: NormWeights,
    up: LinearWeights,
    down: LinearWeights,
    norm: NormWeights,
}

impl Bert {
    /// The type of its matrices, as [`crate::ModelInfo::dtype`] codes it.
    pub(crate) fn dtype(&self) -> u8 {
        self.layers.first().map_or(0, |layer| layer.up.matrix.kind().dtype())
    }

    /// Reads shape and weights of a Hugging Face directory whose `model_type` is `bert`.
    ///
    /// # Errors
    /// [`LoadError`]: corrupt, or a BERT of a kind this engine does not run.
    pub(crate) fn load(files: &ModelFiles, multiply: Multiply) -> Result<Self, LoadError> {
        let file = files.find(FILE).ok_or_else(|| files.corrupt(FILE, "it is missing"))?;
        let shape: BertShape =
            serde_json::from_slice(&file.bytes).map_err(|error| files.corrupt(FILE, error))?;
        shape.check(files)?;
        let source = SafetensorsSource::open(files)?;
        // Written by BertModel, or by a model around it.
        let prefix = if source.has("bert.embeddings.word_embeddings.weight") { "bert." } else { "" };
        let name = |part: &str| format!("{prefix}{part}");
        let (hidden, wide) = (shape.hidden, shape.intermediate_size);
        let linear = |part: String, rows: usize, columns: usize| -> Result<LinearWeights, LoadError> {
            Ok(LinearWeights {
                matrix: source.required(&name(&format!("{part}.weight")), rows, columns)?,
                bias: Some(source.vector(&name(&format!("{part}.bias")), rows)?),
            })
        };
        let norm = |part: String| -> Result<NormWeights, LoadError> {
            Ok(NormWeights {
                weight: source.vector(&name(&format!("{part}.weight")), hidden)?,
                bias: source.vector(&name(&format!("{part}.bias")), hidden)?,
            })
        };
        let words = source.required(&name("embeddings.word_embeddings.weight"), shape.vocabulary, hidden)?;
        let mut places = source
            .required(&name("embeddings.position_embeddings.weight"), shape.positions, hidden)?
            .expand_all();
        let types = &[shape.type_vocab_size, hidden];
        let types = source.flattened(&name("embeddings.token_type_embeddings.weight"), types)?.expand_all();
        for place in places.chunks_exact_mut(hidden) {
            place.iter_mut().zip(&types).for_each(|(place, kind)| *place += kind);
        }
        let layers = (0..shape.num_hidden_layers)
            .map(|index| {
                let part = |part: &str| format!("encoder.layer.{index}.{part}");
                Ok(BertLayer {
                    q: linear(part("attention.self.query"), hidden, hidden)?,
                    k: linear(part("attention.self.key"), hidden, hidden)?,
                    v: linear(part("attention.self.value"), hidden, hidden)?,
                    o: linear(part("attention.output.dense"), hidden, hidden)?,
                    attention_norm: norm(part("attention.output.LayerNorm"))?,
                    up: linear(part("intermediate.dense"), wide, hidden)?,
                    down: linear(part("output.dense"), hidden, wide)?,
                    norm: norm(part("output.LayerNorm"))?,
                })
            })
            .collect::<Result<_, LoadError>>()?;
        let norm = norm("embeddings.LayerNorm".into())?;
        // The pooler feeds the next-sentence head, which sentence vectors do not use.
        let ignored = |left: &str| left.strip_prefix(prefix).is_some_and(|left| left.starts_with("pooler."));
        if let Some(left) = source.left(ignored) {
            return Err(LoadError::Unsupported { what: format!("the tensor {left} in a bert model") });
        }
        Ok(Self { shape, multiply, words, places, norm, layers })
    }
}

impl Build for Bert {
    type Model = Box<dyn Encoder>;

    fn build<B: Backend>(self, device: B::Device) -> Box<dyn Encoder> {
        let Self { shape, multiply, words, places, norm, layers } = self;
        let linear = |weights: LinearWeights| Linear::<B>::new(weights, multiply, &device);
        let layer_norm = |weights: NormWeights| LayerNorm::<B>::new(weights, shape.layer_norm_eps, &device);
        let layers = layers.into_iter().map(|layer| Layer {
            q: linear(layer.q),
            k: linear(layer.k),
            v: linear(layer.v),
            o: linear(layer.o),
            attention_norm: layer_norm(layer.attention_norm),
            up: linear(layer.up),
            down: linear(layer.down),
            norm: layer_norm(layer.norm),
        });
        let layers = layers.collect();
        let norm = layer_norm(norm);
        Box::new(OnBackend { heads: shape.num_attention_heads, words, places, norm, layers, device })
    }
}

impl BertShape {
    fn check(&self, files: &ModelFiles) -> Result<(), LoadError> {
        let refuse = |what: &str| Err(LoadError::Unsupported { what: format!("{what} in a bert model") });
        if self.model_type != "bert" {
            let what = format!("embeddings by the model type {:?}", self.model_type);
            return Err(LoadError::Unsupported { what });
        }
        if self.hidden_act != "gelu" {
            return refuse(&format!("the activation {:?}", self.hidden_act));
        }
        if self.position_embedding_type.as_deref().is_some_and(|kind| kind != "absolute") {
            return refuse("a position_embedding_type other than absolute");
        }
        if self.is_decoder {
            return refuse("is_decoder");
        }
        for (field, value, most) in [
            ("hidden_size", self.hidden, 1 << 14),
            ("intermediate_size", self.intermediate_size, 1 << 16),
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS),
            ("num_attention_heads", self.num_attention_heads, self.hidden),
            ("vocab_size", self.vocabulary, 1 << 21),
            ("max_position_embeddings", self.positions, 1 << 16),
            ("type_vocab_size", self.type_vocab_size, 1 << 8),
        ] {
            if !(1..=most).contains(&value) {
                return Err(files.corrupt(FILE, format!("{field} is {value}, not in 1..={most}")));
            }
        }
        if !self.hidden.is_multiple_of(self.num_attention_heads)
            || self.hidden / self.num_attention_heads > MAX_HEAD_SIZE
        {
            let heads = self.num_attention_heads;
            let detail = format!("hidden_size {} does not divide into {heads} heads", self.hidden);
            return Err(files.corrupt(FILE, detail));
        }
        if !(self.layer_norm_eps.is_finite() && self.layer_norm_eps > 0.0) {
            return Err(files.corrupt(FILE, "layer_norm_eps is out of range"));
        }
        Ok(())
    }
}

struct OnBackend<B: Backend> {
    heads: usize,
    words: Matrix,
    places: Vec<f32>,
    norm: LayerNorm<B>,
    layers: Vec<Layer<B>>,
    device: B::Device,
}

struct Layer<B: Backend> {
    q: Linear<B>,
    k: Linear<B>,
    v: Linear<B>,
    o: Linear<B>,
    attention_norm: LayerNorm<B>,
    up: Linear<B>,
    down: Linear<B>,
    norm: LayerNorm<B>,
}

impl<B: Backend> Encoder for OnBackend<B> {
    fn encode(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, GenerateError> {
        let hidden = self.words.columns();
        let mut x = self.embed(texts)?;
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        if x.dims()[0] == 0 {
            return Ok(vec![Vec::new(); texts.len()]);
        }
        for layer in &self.layers {
            let mixed = self.attention(layer, x.clone(), &lengths)?;
            x = layer.attention_norm.apply(x + mixed);
            let fed = layer.down.apply(gelu(layer.up.apply(x.clone())?))?;
            x = layer.norm.apply(x + fed);
        }
        let mut all = values(x)?.into_iter();
        Ok(lengths.iter().map(|length| all.by_ref().take(length * hidden).collect()).collect())
    }
}

impl<B: Backend> OnBackend<B> {
    /// `[tokens of all texts, hidden]`.
    fn embed(&self, texts: &[&[u32]]) -> Result<Tensor<B, 2>, GenerateError> {
        let hidden = self.words.columns();
        let tokens: usize = texts.iter().map(|text| text.len()).sum();
        let mut embedded = vec![0.0f32; tokens * hidden];
        let places = texts.iter().flat_map(|text| text.iter().enumerate());
        for ((place, token), out) in places.zip(embedded.chunks_exact_mut(hidden)) {
            let row = *token as usize;
            if row >= self.words.rows() {
                return Err(GenerateError::UnknownToken(*token));
            }
            self.words.expand_row(row, out);
            let place =
                self.places.get(place * hidden..(place + 1) * hidden).ok_or(GenerateError::Backend)?;
            out.iter_mut().zip(place).for_each(|(out, place)| *out += place);
        }
        Ok(self.norm.apply(tensor(embedded, [tokens, hidden], &self.device)))
    }

    /// Weights see all tokens at once; a text attends to itself alone.
    fn attention(
        &self,
        layer: &Layer<B>,
        x: Tensor<B, 2>,
        lengths: &[usize],
    ) -> Result<Tensor<B, 2>, GenerateError> {
        let [q, k, v] = [layer.q.apply(x.clone())?, layer.k.apply(x.clone())?, layer.v.apply(x)?];
        let mut start = 0;
        let mut mixed = Vec::with_capacity(lengths.len());
        for length in lengths.iter().copied().filter(|length| *length > 0) {
            let own = |all: &Tensor<B, 2>| split_heads(all.clone().narrow(0, start, length), self.heads);
            mixed.push(attend(own(&q), own(&k), own(&v), Sight::All));
            start += length;
        }
        layer.o.apply(Tensor::cat(mixed, 0))
    }
}

fn two() -> usize {
    2
}
