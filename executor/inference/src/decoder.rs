//! The decoder on a burn backend, all weights expanded to f32: for GPUs, and the reference that tests compare
//! [`crate::host`] with.

use burn_tensor::activation::{silu, softmax};
use burn_tensor::backend::Backend;
use burn_tensor::{Bool, Tensor, TensorData};

use crate::attention::{BLOCK_TOKENS, Rows};
use crate::error::GenerateError;
use crate::matrix::Matrix;
use crate::model::{Cache, Model, Span};
use crate::shape::{Activation, Experts, LayerShape, Rotation, Shape};
use crate::tensor_cache::TensorCache;
use crate::weights::{FeedForwardWeights, GatedWeights, Projection, Weights};

/// How weight matrices are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multiply {
    /// As stored, by this crate's kernels on the processor; attention too.
    Stored,
    /// Expanded to f32, by the backend; attention too. Large; on the processor also slow: the reference.
    Backend,
}

/// A model on a backend.
pub(crate) struct Decoder<B: Backend> {
    shape: Shape,
    device: B::Device,
    embedding: Matrix,
    layers: Vec<Layer<B>>,
    norm: Tensor<B, 1>,
    output: Linear<B>,
}

struct Layer<B: Backend> {
    attention_norm: Tensor<B, 1>,
    q: Biased<B>,
    k: Biased<B>,
    v: Biased<B>,
    o: Biased<B>,
    q_norm: Option<Tensor<B, 1>>,
    k_norm: Option<Tensor<B, 1>>,
    attention_outer_norm: Option<Tensor<B, 1>>,
    feed_forward_norm: Tensor<B, 1>,
    feed_forward_outer_norm: Option<Tensor<B, 1>>,
    feed_forward: FeedForward<B>,
}

struct Biased<B: Backend> {
    linear: Linear<B>,
    bias: Option<Tensor<B, 1>>,
}

/// `[columns, rows]`.
struct Linear<B: Backend>(Tensor<B, 2>);

enum FeedForward<B: Backend> {
    Dense(Gated<B>),
    Sparse { router: Linear<B>, experts: Vec<Gated<B>> },
}

struct Gated<B: Backend> {
    gate: Linear<B>,
    up: Linear<B>,
    down: Linear<B>,
}

/// True where a query must not look: `[kv_heads, group × tokens, keys]`.
type Mask<B> = Tensor<B, 3, Bool>;
/// The masks of a batch's sequences in layers of one window.
type Masks<B> = (Option<usize>, Vec<Option<Mask<B>>>);
/// Cosines and sines of the tokens' positions, `[1, tokens, head_size / 2]` each.
type Turns<B> = (Tensor<B, 3>, Tensor<B, 3>);

/// Sequences of one model.
struct Sequences<'a, B: Backend> {
    decoder: &'a Decoder<B>,
    cache: TensorCache<B>,
}

/// The tokens of a batch, as attention sees them.
struct Batch<'a, B: Backend> {
    rows: Vec<Rows<'a>>,
    /// One for each of the shape's rotations.
    turns: Vec<Turns<B>>,
    /// One for each of `rows` and each window of a layer.
    masks: Vec<Masks<B>>,
}

impl<B: Backend> Decoder<B> {
    pub(crate) fn new(shape: Shape, weights: Weights, device: B::Device) -> Self {
        let vector = |values: Vec<f32>| Tensor::<B, 1>::from_data(values.as_slice(), &device);
        let linear = |matrix: Matrix| Linear::new(&matrix, &device);
        let biased = |projection: Projection| Biased {
            linear: linear(projection.matrix),
            bias: projection.bias.map(vector),
        };
        let gated = |weights: GatedWeights| Gated {
            gate: linear(weights.gate),
            up: linear(weights.up),
            down: linear(weights.down),
        };
        let turned = |projection: Projection| {
            biased(if shape.neighbours { halves(&projection, shape.head_size) } else { projection })
        };
        let layers = weights
            .layers
            .into_iter()
            .map(|layer| Layer {
                attention_norm: vector(layer.attention_norm),
                q: turned(layer.q),
                k: turned(layer.k),
                v: biased(layer.v),
                o: biased(layer.o),
                q_norm: layer.q_norm.map(vector),
                k_norm: layer.k_norm.map(vector),
                attention_outer_norm: layer.attention_outer_norm.map(vector),
                feed_forward_norm: vector(layer.feed_forward_norm),
                feed_forward_outer_norm: layer.feed_forward_outer_norm.map(vector),
                feed_forward: match layer.feed_forward {
                    FeedForwardWeights::Dense(weights) => FeedForward::Dense(gated(weights)),
                    FeedForwardWeights::Sparse { router, experts } => FeedForward::Sparse {
                        router: linear(router),
                        experts: experts.into_iter().map(gated).collect(),
                    },
                },
            })
            .collect();
        let norm = vector(weights.norm);
        let output = Linear::new(weights.output.as_ref().unwrap_or(&weights.embedding), &device);
        Self { embedding: weights.embedding, shape, device, layers, norm, output }
    }

    fn logits(&self, hidden: Tensor<B, 2>) -> Result<Vec<f32>, GenerateError> {
        let normed = self.rms_norm(hidden, &self.norm);
        let mut logits = values(self.output.apply(normed))?;
        if let Some(cap) = self.shape.logit_cap {
            logits.iter_mut().for_each(|logit| *logit = (*logit / cap).tanh() * cap);
        }
        Ok(logits)
    }

    fn embed(&self, tokens: &[u32]) -> Result<Tensor<B, 2>, GenerateError> {
        let hidden = self.shape.hidden;
        let mut embedded = vec![0.0f32; tokens.len() * hidden];
        for (token, out) in tokens.iter().zip(embedded.chunks_exact_mut(hidden)) {
            let row = *token as usize;
            if row >= self.embedding.rows() {
                return Err(GenerateError::UnknownToken(*token));
            }
            self.embedding.expand_row(row, out);
        }
        let scale = self.shape.embedding_scale;
        if scale != 1.0 {
            embedded.iter_mut().for_each(|value| *value *= scale);
        }
        Ok(tensor(embedded, [tokens.len(), hidden], &self.device))
    }

    fn attention(
        &self,
        index: usize,
        layer: &Layer<B>,
        x: Tensor<B, 2>,
        cache: &mut TensorCache<B>,
        batch: &Batch<'_, B>,
    ) -> Result<Tensor<B, 2>, GenerateError> {
        let Shape { heads, kv_heads, head_size, .. } = self.shape;
        let LayerShape { window, rotation, .. } =
            *self.shape.layers.get(index).ok_or(GenerateError::Backend)?;
        let turns = batch.turns.get(rotation).ok_or(GenerateError::Backend)?;
        let tokens = x.dims()[0];
        let normed = |flat: Tensor<B, 2>, heads: usize, norm: Option<&Tensor<B, 1>>| match norm {
            Some(norm) => self
                .rms_norm(flat.reshape([tokens * heads, head_size]), norm)
                .reshape([tokens, heads * head_size]),
            None => flat,
        };
        let q = normed(layer.q.apply(x.clone()), heads, layer.q_norm.as_ref());
        let k = normed(layer.k.apply(x.clone()), kv_heads, layer.k_norm.as_ref());
        let v = layer.v.apply(x);
        let split =
            |flat: Tensor<B, 2>, heads: usize| flat.reshape([tokens, heads, head_size]).swap_dims(0, 1);
        let (q, k) = (rotate(split(q, heads), turns), rotate(split(k, kv_heads), turns));
        let v = split(v, kv_heads);
        let masks = batch.masks.iter().find(|(of, _)| *of == window).map(|(_, masks)| masks);
        let masks = masks.ok_or(GenerateError::Backend)?;
        let mut mixed = Vec::with_capacity(batch.rows.len());
        for (rows, mask) in batch.rows.iter().zip(masks) {
            let of = |heads| [0..heads, rows.first..rows.first + rows.count, 0..head_size];
            let (k, v) =
                cache.append(index, k.clone().slice(of(kv_heads)), v.clone().slice(of(kv_heads)), rows);
            mixed.push(self.attend(q.clone().slice(of(heads)), k, v, mask.as_ref()));
        }
        Ok(layer.o.apply(Tensor::cat(mixed, 0)))
    }

    /// What `q`, `[heads, tokens, head_size]`, sees of `[kv_heads, keys, head_size]`: `[tokens, heads × head_size]`.
    fn attend(
        &self,
        q: Tensor<B, 3>,
        k: Tensor<B, 3>,
        v: Tensor<B, 3>,
        mask: Option<&Mask<B>>,
    ) -> Tensor<B, 2> {
        let Shape { heads, kv_heads, head_size, .. } = self.shape;
        let tokens = q.dims()[1];
        // The query heads that share a key head become further rows of it, so that keys are not repeated.
        let group = heads / kv_heads;
        let q = q.reshape([kv_heads, group * tokens, head_size]) * self.shape.attention_scale;
        let mut scores = q.matmul(k.swap_dims(1, 2));
        if let Some(cap) = self.shape.attention_cap {
            scores = (scores / cap).tanh() * cap;
        }
        if let Some(mask) = mask {
            scores = scores.mask_fill(mask.clone(), f32::NEG_INFINITY);
        }
        let mixed = softmax(scores, 2).matmul(v);
        mixed.reshape([heads, tokens, head_size]).swap_dims(0, 1).reshape([tokens, heads * head_size])
    }

    fn feed_forward(&self, layer: &Layer<B>, x: Tensor<B, 2>) -> Result<Tensor<B, 2>, GenerateError> {
        match (&layer.feed_forward, self.shape.experts) {
            (FeedForward::Dense(gated), _) => Ok(self.gated(gated, x)),
            (FeedForward::Sparse { router, experts }, Some(choice)) => {
                self.mixture(router, experts, choice, x)
            }
            (FeedForward::Sparse { .. }, None) => Err(GenerateError::Backend),
        }
    }

    fn gated(&self, gated: &Gated<B>, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let gate = gated.gate.apply(x.clone());
        let gate = match self.shape.activation {
            Activation::Silu => silu(gate),
            Activation::GeluTanh => gelu_tanh(gate),
        };
        gated.down.apply(gate * gated.up.apply(x))
    }

    /// Each token through the experts its router chose. A token's sum runs over the experts in their order, so that
    /// it does not depend on the other tokens.
    fn mixture(
        &self,
        router: &Linear<B>,
        experts: &[Gated<B>],
        choice: Experts,
        x: Tensor<B, 2>,
    ) -> Result<Tensor<B, 2>, GenerateError> {
        let [tokens, hidden] = x.dims();
        let scores = values(softmax(router.apply(x.clone()), 1))?;
        let x = values(x)?;
        let mut chosen: Vec<Vec<(usize, f32)>> = vec![Vec::new(); experts.len()];
        for (token, scores) in scores.chunks_exact(experts.len()).enumerate() {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
            order.truncate(choice.used);
            let whole: f32 =
                if choice.normalised { order.iter().map(|expert| scores[*expert]).sum() } else { 1.0 };
            for expert in order {
                chosen[expert].push((token, scores[expert] / whole));
            }
        }
        let mut out = vec![0.0f32; tokens * hidden];
        for (expert, tokens) in experts.iter().zip(&chosen).filter(|(_, tokens)| !tokens.is_empty()) {
            let rows: Vec<f32> = tokens
                .iter()
                .flat_map(|(token, _)| &x[token * hidden..(token + 1) * hidden])
                .copied()
                .collect();
            let answers = values(self.gated(expert, tensor(rows, [tokens.len(), hidden], &self.device)))?;
            for ((token, weight), answer) in tokens.iter().zip(answers.chunks_exact(hidden)) {
                let out = &mut out[token * hidden..(token + 1) * hidden];
                out.iter_mut().zip(answer).for_each(|(out, value)| *out += weight * value);
            }
        }
        Ok(tensor(out, [tokens, hidden], &self.device))
    }

    /// RMSNorm (arXiv 1910.07467) over the last dimension.
    fn rms_norm(&self, x: Tensor<B, 2>, weight: &Tensor<B, 1>) -> Tensor<B, 2> {
        let mean_square = (x.clone() * x.clone()).mean_dim(1);
        let scale = (mean_square + self.shape.norm_epsilon).sqrt().recip();
        x * scale * weight.clone().unsqueeze()
    }

    /// The turns of the positions of `batch`.
    fn turns(&self, rotation: &Rotation, batch: &[Rows<'_>]) -> Turns<B> {
        let half = rotation.frequencies.len();
        let positions = batch.iter().flat_map(|rows| rows.start..rows.start + rows.count);
        let tokens = batch.iter().map(|rows| rows.count).sum();
        let mut cosines = Vec::with_capacity(tokens * half);
        let mut sines = Vec::with_capacity(tokens * half);
        for position in positions {
            for frequency in &rotation.frequencies {
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

    /// True where a query must not look: `[kv_heads, group × tokens, start + tokens]`. None where it may everywhere.
    fn mask(&self, window: Option<usize>, start: usize, tokens: usize) -> Option<Mask<B>> {
        let group = self.shape.heads / self.shape.kv_heads;
        let total = start + tokens;
        if tokens == 1 && window.is_none_or(|window| total <= window) {
            return None;
        }
        let mut hidden = Vec::with_capacity(group * tokens * total);
        for _ in 0..group {
            for query in start..total {
                let first = window.map_or(0, |window| (query + 1).saturating_sub(window));
                hidden.extend((0..total).map(|key| key > query || key < first));
            }
        }
        let data = TensorData::new(hidden, [1, group * tokens, total]);
        let mask = Tensor::<B, 3, Bool>::from_data(data, &self.device);
        Some(mask.expand([self.shape.kv_heads, group * tokens, total]))
    }
}

impl<B: Backend> Model for Decoder<B>
where
    Self: Send + Sync,
{
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn cache(&self, most_blocks: usize) -> Box<dyn Cache + '_> {
        let Shape { kv_heads, head_size, .. } = self.shape;
        let device = self.device.clone();
        let cache = TensorCache::new(self.layers.len(), kv_heads, head_size, most_blocks, device);
        Box::new(Sequences { decoder: self, cache })
    }
}

impl<B: Backend> Sequences<'_, B> {
    /// `[tokens, hidden]` after the last layer.
    fn hidden(&mut self, tokens: &[u32], rows: Vec<Rows<'_>>) -> Result<Tensor<B, 2>, GenerateError> {
        let decoder = self.decoder;
        let shape = &decoder.shape;
        let mut x = decoder.embed(tokens)?;
        let turns = shape.rotations.iter().map(|rotation| decoder.turns(rotation, &rows)).collect();
        let mut masks: Vec<Masks<B>> = Vec::new();
        self.cache.reserve(&rows);
        for LayerShape { window, .. } in &shape.layers {
            if masks.iter().all(|(of, _)| of != window) {
                let of = |rows: &Rows<'_>| decoder.mask(*window, rows.start, rows.count);
                masks.push((*window, rows.iter().map(of).collect()));
            }
        }
        let batch = Batch { rows, turns, masks };
        for (index, layer) in decoder.layers.iter().enumerate() {
            let normed = decoder.rms_norm(x.clone(), &layer.attention_norm);
            let mut mixed = decoder.attention(index, layer, normed, &mut self.cache, &batch)?;
            if let Some(norm) = &layer.attention_outer_norm {
                mixed = decoder.rms_norm(mixed, norm);
            }
            x = x + mixed;
            let normed = decoder.rms_norm(x.clone(), &layer.feed_forward_norm);
            let mut fed = decoder.feed_forward(layer, normed)?;
            if let Some(norm) = &layer.feed_forward_outer_norm {
                fed = decoder.rms_norm(fed, norm);
            }
            x = x + fed;
        }
        Ok(x)
    }

    fn logits(&mut self, spans: &[Span<'_>]) -> Result<Vec<f32>, GenerateError> {
        let mut tokens = Vec::with_capacity(spans.iter().map(|span| span.tokens.len()).sum());
        let mut rows = Vec::with_capacity(spans.len());
        let mut wanted = Vec::new();
        for span in spans {
            let (first, count) = (tokens.len(), span.tokens.len());
            if span.blocks.len() * BLOCK_TOKENS < span.start + count {
                return Err(GenerateError::Backend);
            }
            wanted.extend(first + span.from.min(count)..first + count);
            rows.push(Rows { first, count, start: span.start, blocks: span.blocks });
            tokens.extend_from_slice(span.tokens);
        }
        let all = tokens.len();
        if all == 0 {
            return Ok(Vec::new());
        }
        let hidden = self.hidden(&tokens, rows)?;
        match (wanted.first(), wanted.last()) {
            (Some(first), Some(last)) if last - first + 1 == wanted.len() => {
                self.decoder.logits(hidden.narrow(0, *first, wanted.len()))
            }
            (Some(_), Some(_)) => {
                let hidden = wanted.iter().map(|row| hidden.clone().narrow(0, *row, 1)).collect();
                self.decoder.logits(Tensor::cat(hidden, 0))
            }
            _ => Ok(Vec::new()),
        }
    }
}

impl<B: Backend> Cache for Sequences<'_, B>
where
    Decoder<B>: Sync,
{
    fn step(&mut self, spans: &[Span<'_>]) -> Result<Vec<f32>, GenerateError> {
        self.logits(spans)
    }

    fn held_bytes(&self) -> usize {
        self.cache.held_bytes()
    }

    fn vocabulary(&self) -> usize {
        self.decoder.shape.vocabulary
    }
}

impl<B: Backend> Biased<B> {
    fn apply(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let product = self.linear.apply(x);
        match &self.bias {
            Some(bias) => product + bias.clone().unsqueeze(),
            None => product,
        }
    }
}

impl<B: Backend> Linear<B> {
    fn new(matrix: &Matrix, device: &B::Device) -> Self {
        Self(tensor::<B, 2>(matrix.expand_all(), [matrix.rows(), matrix.columns()], device).transpose())
    }

    fn apply(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        x.matmul(self.0.clone())
    }
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

fn gelu_tanh<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    const ROOT_2_OVER_PI: f32 = 0.797_884_6;
    let cubed = x.clone() * x.clone() * x.clone();
    let inner = (x.clone() + cubed * 0.044_715) * ROOT_2_OVER_PI;
    x * 0.5 * (inner.tanh() + 1.0)
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

/// Rows whose numbers are rotated as neighbours, put as halves of each head.
fn halves(projection: &Projection, head_size: usize) -> Projection {
    let half = head_size / 2;
    let source = |row: usize| {
        let (head, within) = (row / head_size, row % head_size);
        head * head_size + (within % half) * 2 + within / half
    };
    let bias = projection.bias.as_ref().map(|bias| (0..bias.len()).map(|row| bias[source(row)]).collect());
    Projection { matrix: projection.matrix.reordered(source), bias }
}
