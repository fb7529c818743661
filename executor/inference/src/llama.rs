//! The Llama decoder on burn: norms, rotation, attention and activations are tensors of the backend; the weight
//! matrices stay as they are stored and are multiplied by [`crate::matrix`], or by the backend itself in the
//! reference path that tests compare with.

use burn_tensor::activation::{silu, softmax};
use burn_tensor::backend::Backend;
use burn_tensor::{Bool, Tensor, TensorData};

use crate::error::GenerateError;
use crate::matrix::Matrix;
use crate::weights::{Shape, Weights};

/// Tokens of a prompt that go through the layers together. Part of the engine's revision: another size may round
/// differently.
const PREFILL_CHUNK: usize = 128;

/// How weight matrices are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multiply {
    /// As stored, by this crate's kernels on the processor.
    Stored,
    /// Expanded to f32, by the backend. Slow and large: the reference.
    Reference,
}

/// A model on a backend.
pub(crate) struct Llama<B: Backend> {
    shape: Shape,
    device: B::Device,
    embedding: Matrix,
    layers: Vec<Layer<B>>,
    norm: Tensor<B, 1>,
    output: Option<Linear<B>>,
    tied_output: Option<Tensor<B, 2>>,
    /// Radians a position, of each pair of a head's numbers.
    frequencies: Vec<f32>,
}

struct Layer<B: Backend> {
    attention_norm: Tensor<B, 1>,
    q: Linear<B>,
    k: Linear<B>,
    v: Linear<B>,
    o: Linear<B>,
    feed_forward_norm: Tensor<B, 1>,
    gate: Linear<B>,
    up: Linear<B>,
    down: Linear<B>,
}

enum Linear<B: Backend> {
    Stored(Matrix),
    /// `[columns, rows]`.
    Reference(Tensor<B, 2>),
}

/// Keys and values of one sequence: `[kv_heads, tokens, head_size]` a layer.
pub(crate) struct Cache<B: Backend> {
    layers: Vec<Option<(Tensor<B, 3>, Tensor<B, 3>)>>,
    tokens: usize,
}

impl<B: Backend> Cache<B> {
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }
}

impl<B: Backend> Llama<B> {
    pub(crate) fn new(shape: Shape, weights: Weights, multiply: Multiply, device: B::Device) -> Self {
        let vector = |values: Vec<f32>| Tensor::<B, 1>::from_data(values.as_slice(), &device);
        let linear = |matrix: Matrix| Linear::new(matrix, multiply, &device);
        let layers = weights
            .layers
            .into_iter()
            .map(|layer| Layer {
                attention_norm: vector(layer.attention_norm),
                q: linear(layer.q),
                k: linear(layer.k),
                v: linear(layer.v),
                o: linear(layer.o),
                feed_forward_norm: vector(layer.feed_forward_norm),
                gate: linear(layer.gate),
                up: linear(layer.up),
                down: linear(layer.down),
            })
            .collect();
        let norm = vector(weights.norm);
        let output = weights.output.map(linear);
        let tied_output = (output.is_none() && multiply == Multiply::Reference)
            .then(|| transposed(&weights.embedding, &device));
        let frequencies = (0..shape.head_size / 2)
            .map(|pair| {
                let exponent = (2 * pair) as f64 / shape.head_size as f64;
                f64::from(shape.rope_base).powf(exponent).recip() as f32
            })
            .collect();
        let embedding = weights.embedding;
        Self { shape, device, embedding, layers, norm, output, tied_output, frequencies }
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    pub(crate) fn empty_cache(&self) -> Cache<B> {
        Cache { layers: self.layers.iter().map(|_| None).collect(), tokens: 0 }
    }

    /// Appends `tokens` to the sequence of `cache` and returns the logits after the last of them, `[vocabulary]`.
    pub(crate) fn step(&self, tokens: &[u32], cache: &mut Cache<B>) -> Result<Vec<f32>, GenerateError> {
        // Once into the thread pool, instead of once for every matrix.
        rayon::scope(|_| self.step_here(tokens, cache))
    }

    fn step_here(&self, tokens: &[u32], cache: &mut Cache<B>) -> Result<Vec<f32>, GenerateError> {
        let mut last = Err(GenerateError::EmptyPrompt);
        for chunk in tokens.chunks(PREFILL_CHUNK) {
            last = Ok(self.hidden(chunk, cache)?);
        }
        let hidden = last?;
        let rows = hidden.dims()[0];
        self.logits(hidden.narrow(0, rows - 1, 1))
    }

    /// The logits after every token of a fresh sequence, `[tokens][vocabulary]`.
    pub(crate) fn all_logits(&self, tokens: &[u32]) -> Result<Vec<Vec<f32>>, GenerateError> {
        let mut cache = self.empty_cache();
        let mut rows = Vec::new();
        for chunk in tokens.chunks(PREFILL_CHUNK) {
            let flat = self.logits(self.hidden(chunk, &mut cache)?)?;
            rows.extend(flat.chunks_exact(self.shape.vocabulary).map(<[f32]>::to_vec));
        }
        Ok(rows)
    }

    fn logits(&self, hidden: Tensor<B, 2>) -> Result<Vec<f32>, GenerateError> {
        let normed = self.rms_norm(hidden, &self.norm);
        match (&self.output, &self.tied_output) {
            (Some(output), _) => values(output.apply(normed, &self.device)?),
            (None, Some(tied)) => values(normed.matmul(tied.clone())),
            (None, None) => Ok(self.embedding.multiply(&values(normed)?)),
        }
    }

    /// `[tokens, hidden]` after the last layer.
    fn hidden(&self, tokens: &[u32], cache: &mut Cache<B>) -> Result<Tensor<B, 2>, GenerateError> {
        let shape = &self.shape;
        let mut embedded = vec![0.0f32; tokens.len() * shape.hidden];
        for (token, out) in tokens.iter().zip(embedded.chunks_exact_mut(shape.hidden)) {
            let row = *token as usize;
            if row >= self.embedding.rows() {
                return Err(GenerateError::UnknownToken(*token));
            }
            self.embedding.expand_row(row, out);
        }
        let mut x = tensor(embedded, [tokens.len(), shape.hidden], &self.device);
        let rotation = self.rotation(cache.tokens, tokens.len());
        let mask = (tokens.len() > 1).then(|| self.mask(cache.tokens, tokens.len()));
        for (layer, cached) in self.layers.iter().zip(&mut cache.layers) {
            let normed = self.rms_norm(x.clone(), &layer.attention_norm);
            x = x + self.attention(layer, normed, cached, &rotation, mask.as_ref())?;
            let normed = self.rms_norm(x.clone(), &layer.feed_forward_norm);
            let gate = silu(layer.gate.apply(normed.clone(), &self.device)?);
            let up = layer.up.apply(normed, &self.device)?;
            x = x + layer.down.apply(gate * up, &self.device)?;
        }
        cache.tokens += tokens.len();
        Ok(x)
    }

    fn attention(
        &self,
        layer: &Layer<B>,
        x: Tensor<B, 2>,
        cached: &mut Option<(Tensor<B, 3>, Tensor<B, 3>)>,
        rotation: &(Tensor<B, 3>, Tensor<B, 3>),
        mask: Option<&Tensor<B, 3, Bool>>,
    ) -> Result<Tensor<B, 2>, GenerateError> {
        let Shape { heads, kv_heads, head_size, .. } = self.shape;
        let tokens = x.dims()[0];
        let split =
            |flat: Tensor<B, 2>, heads: usize| flat.reshape([tokens, heads, head_size]).swap_dims(0, 1);
        let q = rotate(split(layer.q.apply(x.clone(), &self.device)?, heads), rotation);
        let k = rotate(split(layer.k.apply(x.clone(), &self.device)?, kv_heads), rotation);
        let v = split(layer.v.apply(x, &self.device)?, kv_heads);
        let (k, v) = match cached.take() {
            Some((before_k, before_v)) => {
                (Tensor::cat(vec![before_k, k], 1), Tensor::cat(vec![before_v, v], 1))
            }
            None => (k, v),
        };
        *cached = Some((k.clone(), v.clone()));
        // The query heads that share a key head become further rows of it, so that keys are not repeated.
        let group = heads / kv_heads;
        let q = q.reshape([kv_heads, group * tokens, head_size]) * (head_size as f32).sqrt().recip();
        let mut scores = q.matmul(k.swap_dims(1, 2));
        if let Some(mask) = mask {
            scores = scores.mask_fill(mask.clone(), f32::NEG_INFINITY);
        }
        let mixed = softmax(scores, 2).matmul(v);
        let mixed =
            mixed.reshape([heads, tokens, head_size]).swap_dims(0, 1).reshape([tokens, heads * head_size]);
        layer.o.apply(mixed, &self.device)
    }

    /// RMSNorm (arXiv 1910.07467) over the last dimension.
    fn rms_norm(&self, x: Tensor<B, 2>, weight: &Tensor<B, 1>) -> Tensor<B, 2> {
        let mean_square = (x.clone() * x.clone()).mean_dim(1);
        let scale = (mean_square + self.shape.norm_epsilon).sqrt().recip();
        x * scale * weight.clone().unsqueeze()
    }

    /// Cosines and sines of positions `start..start + tokens`, `[1, tokens, head_size / 2]` each.
    fn rotation(&self, start: usize, tokens: usize) -> (Tensor<B, 3>, Tensor<B, 3>) {
        let half = self.shape.head_size / 2;
        let mut cosines = Vec::with_capacity(tokens * half);
        let mut sines = Vec::with_capacity(tokens * half);
        for position in start..start + tokens {
            for frequency in &self.frequencies {
                // The angle in f32, as the model was trained; its sine in f64, which the libraries of all systems
                // round to the same f32.
                let angle = f64::from(position as f32 * frequency);
                cosines.push(angle.cos() as f32);
                sines.push(angle.sin() as f32);
            }
        }
        let table = |values: Vec<f32>| tensor(values, [1, tokens, half], &self.device);
        (table(cosines), table(sines))
    }

    /// True where a query must not look: `[1, group × tokens, start + tokens]`.
    fn mask(&self, start: usize, tokens: usize) -> Tensor<B, 3, Bool> {
        let group = self.shape.heads / self.shape.kv_heads;
        let total = start + tokens;
        let mut hidden = Vec::with_capacity(group * tokens * total);
        for _ in 0..group {
            for query in 0..tokens {
                hidden.extend((0..total).map(|key| key > start + query));
            }
        }
        let data = TensorData::new(hidden, [1, group * tokens, total]);
        Tensor::<B, 3, Bool>::from_data(data, &self.device).expand([
            self.shape.kv_heads,
            group * tokens,
            total,
        ])
    }
}

impl<B: Backend> Linear<B> {
    fn new(matrix: Matrix, multiply: Multiply, device: &B::Device) -> Self {
        match multiply {
            Multiply::Stored => Self::Stored(matrix),
            Multiply::Reference => Self::Reference(transposed(&matrix, device)),
        }
    }

    fn apply(&self, x: Tensor<B, 2>, device: &B::Device) -> Result<Tensor<B, 2>, GenerateError> {
        match self {
            Self::Stored(matrix) => {
                let tokens = x.dims()[0];
                Ok(tensor(matrix.multiply(&values(x)?), [tokens, matrix.rows()], device))
            }
            Self::Reference(weights) => Ok(x.matmul(weights.clone())),
        }
    }
}

fn transposed<B: Backend>(matrix: &Matrix, device: &B::Device) -> Tensor<B, 2> {
    tensor::<B, 2>(matrix.expand_all(), [matrix.rows(), matrix.columns()], device).transpose()
}

fn tensor<B: Backend, const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &B::Device,
) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<Vec<f32>, GenerateError> {
    tensor.into_data().convert::<f32>().into_vec().map_err(|_| GenerateError::Backend)
}

/// Rotary position embedding (arXiv 2104.09864) of `[heads, tokens, head_size]`, halves as in Hugging Face.
fn rotate<B: Backend>(x: Tensor<B, 3>, (cosines, sines): &(Tensor<B, 3>, Tensor<B, 3>)) -> Tensor<B, 3> {
    let [heads, tokens, size] = x.dims();
    let first = x.clone().slice([0..heads, 0..tokens, 0..size / 2]);
    let second = x.slice([0..heads, 0..tokens, size / 2..size]);
    let turned_first = first.clone() * cosines.clone() - second.clone() * sines.clone();
    let turned_second = second * cosines.clone() + first * sines.clone();
    Tensor::cat(vec![turned_first, turned_second], 2)
}
