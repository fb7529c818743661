//! The decoder on the processor: [`crate::matrix`], [`crate::attention`] and [`crate::elements`] on plain numbers, the
//! work of each phase shared by a [`crate::team`]. It computes what [`crate::decoder`] does on a burn backend, which is
//! what tests compare it with.

use crate::aligned::Aligned;
use crate::attention::{BLOCK_TOKENS, HostCache, Look, Rows, exp};
use crate::elements;
use crate::error::GenerateError;
use crate::matrix::{Matrix, Positions, multiply_all, rows_per_task};
use crate::model::{Cache, Model, Span};
use crate::shape::{Experts, LayerShape, Rotation, Shape};
use crate::team::{Leader, with_team};
use crate::weights::{FeedForwardWeights, GatedWeights, LayerWeights, Projection, Weights};

/// Tokens below which their own work, between matrices, is not shared out.
const WORTH_SHARING: usize = 8;

/// A model in the processor's memory, its matrices as they are stored.
pub(crate) struct HostDecoder {
    shape: Shape,
    weights: Weights,
}

/// Sequences of one model.
struct Sequences<'a> {
    decoder: &'a HostDecoder,
    cache: HostCache,
    buffers: Buffers,
}

/// What a pass works on, kept for the next one. Of each token of a batch:
#[derive(Default)]
struct Buffers {
    /// `[hidden]`, the sum of all layers so far.
    x: Aligned,
    /// `[hidden]`.
    normed: Aligned,
    /// `[heads × head_size]`.
    q: Aligned,
    /// `[kv_heads × head_size]`.
    k: Aligned,
    /// `[kv_heads × head_size]`.
    v: Aligned,
    /// `[heads × head_size]`.
    mixed: Aligned,
    /// `[hidden]`: what a part of a layer adds.
    added: Aligned,
    /// `[feed_forward]`.
    wide: Aligned,
    /// For each rotation, `[head_size / 2]` cosines and sines.
    turns: Vec<(Vec<f32>, Vec<f32>)>,
}

impl HostDecoder {
    pub(crate) fn new(shape: Shape, weights: Weights) -> Self {
        Self { shape, weights }
    }

    fn embed(&self, leader: &Leader<'_>, tokens: &[u32], x: &mut Aligned) -> Result<(), GenerateError> {
        let Shape { hidden, embedding_scale: scale, .. } = self.shape;
        let embedding = &self.weights.embedding;
        if let Some(unknown) = tokens.iter().find(|token| **token as usize >= embedding.rows()) {
            return Err(GenerateError::UnknownToken(*unknown));
        }
        each_row(leader, x.room(tokens.len() * hidden), hidden, &|token, row| {
            embedding.expand_row(tokens[token] as usize, row);
            if scale != 1.0 {
                row.iter_mut().for_each(|value| *value *= scale);
            }
        });
        Ok(())
    }

    /// `buffers.added` is what attention adds.
    fn attention(
        &self,
        leader: &Leader<'_>,
        index: usize,
        layer: &LayerWeights,
        cache: &mut HostCache,
        batch: &[Rows<'_>],
        buffers: &mut Buffers,
    ) -> Result<(), GenerateError> {
        let Shape { hidden, heads, kv_heads, head_size, norm_epsilon, .. } = self.shape;
        let LayerShape { window, rotation, .. } =
            *self.shape.layers.get(index).ok_or(GenerateError::Backend)?;
        let Buffers { normed, q, k, v, mixed, added, turns, .. } = buffers;
        let (cosines, sines) = turns.get(rotation).ok_or(GenerateError::Backend)?;
        let tokens = normed.len() / hidden;
        let (q_width, kv_width) = (heads * head_size, kv_heads * head_size);
        let (q, k, v) = (q.room(tokens * q_width), k.room(tokens * kv_width), v.room(tokens * kv_width));
        multiply_all(
            leader,
            &mut [(&layer.q.matrix, &mut *q), (&layer.k.matrix, &mut *k), (&layer.v.matrix, &mut *v)],
            &Positions::new(normed, hidden),
        );
        let half = head_size / 2;
        let ready = |of: &mut [f32], width: usize, projection: &Projection, norm: Option<&Vec<f32>>| {
            each_row(leader, of, width, &|token, row| {
                if let Some(bias) = &projection.bias {
                    elements::add(row, bias);
                }
                if let Some(norm) = norm {
                    for head in row.chunks_exact_mut(head_size) {
                        elements::rms_norm_in_place(head, norm, norm_epsilon);
                    }
                }
                let turn = token * half..(token + 1) * half;
                elements::rotate(row, &cosines[turn.clone()], &sines[turn], self.shape.neighbours);
            });
        };
        ready(q, q_width, &layer.q, layer.q_norm.as_ref());
        ready(k, kv_width, &layer.k, layer.k_norm.as_ref());
        if let Some(bias) = &layer.v.bias {
            each_row(leader, v, kv_width, &|_, row| elements::add(row, bias));
        }
        cache.append(index, k, v, batch);
        let look = Look { scale: self.shape.attention_scale, cap: self.shape.attention_cap, window };
        let mixed = mixed.room(tokens * q_width);
        cache.attend(leader, index, (q, heads), batch, look, mixed);
        let added = added.room(tokens * hidden);
        multiply_all(leader, &mut [(&layer.o.matrix, &mut *added)], &Positions::new(mixed, q_width));
        if let Some(bias) = &layer.o.bias {
            each_row(leader, added, hidden, &|_, row| elements::add(row, bias));
        }
        Ok(())
    }

    /// `buffers.added` is what the feed-forward network adds.
    fn feed_forward(
        &self,
        leader: &Leader<'_>,
        layer: &LayerWeights,
        buffers: &mut Buffers,
    ) -> Result<(), GenerateError> {
        let Buffers { normed, added, wide, .. } = buffers;
        let added = added.room(normed.len());
        match (&layer.feed_forward, self.shape.experts) {
            (FeedForwardWeights::Dense(gated), _) => {
                self.gated(leader, gated, normed, wide, added);
                Ok(())
            }
            (FeedForwardWeights::Sparse { router, experts }, Some(choice)) => {
                self.mixture(leader, router, experts, choice, normed, wide, added);
                Ok(())
            }
            (FeedForwardWeights::Sparse { .. }, None) => Err(GenerateError::Backend),
        }
    }

    fn gated(
        &self,
        leader: &Leader<'_>,
        gated: &GatedWeights,
        x: &[f32],
        wide: &mut Aligned,
        out: &mut [f32],
    ) {
        let GatedWeights { gate, up, down } = gated;
        let positions = Positions::new(x, gate.columns());
        let (n, width) = (positions.count(), gate.rows());
        let wide = wide.room(n * width);
        let chunk = rows_per_task(2 * width, leader.threads());
        leader.strips(&mut [(&mut *wide, width)], chunk, &|_, strip| {
            let rows = strip.columns();
            let mut ups = vec![0.0f32; n * rows.len()];
            up.times(rows.clone(), &positions, |position, at, products| {
                ups[position * rows.len() + at..][..products.len()].copy_from_slice(products);
            });
            gate.times(rows.clone(), &positions, |position, at, products| {
                strip.row(position)[at..at + products.len()].copy_from_slice(products);
            });
            for (position, up) in ups.chunks_exact(rows.len()).enumerate() {
                elements::gate(self.shape.activation, strip.row(position), up);
            }
        });
        multiply_all(leader, &mut [(down, out)], &Positions::new(wide, width));
    }

    /// Each token through the experts its router chose. A token's sum runs over the experts in their order, so that
    /// it does not depend on the other tokens.
    #[allow(clippy::too_many_arguments, reason = "a layer's weights, its input, its output and room to work")]
    fn mixture(
        &self,
        leader: &Leader<'_>,
        router: &Matrix,
        experts: &[GatedWeights],
        choice: Experts,
        x: &[f32],
        wide: &mut Aligned,
        out: &mut [f32],
    ) {
        let hidden = self.shape.hidden;
        let mut scores = vec![0.0f32; x.len() / hidden * experts.len()];
        multiply_all(leader, &mut [(router, &mut scores)], &Positions::new(x, hidden));
        let mut chosen: Vec<Vec<(usize, f32)>> = vec![Vec::new(); experts.len()];
        for (token, scores) in scores.chunks_exact_mut(experts.len()).enumerate() {
            softmax(scores);
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
            order.truncate(choice.used);
            let whole: f32 =
                if choice.normalised { order.iter().map(|expert| scores[*expert]).sum() } else { 1.0 };
            for expert in order {
                chosen[expert].push((token, scores[expert] / whole));
            }
        }
        out.fill(0.0);
        for (expert, tokens) in experts.iter().zip(&chosen).filter(|(_, tokens)| !tokens.is_empty()) {
            let rows: Vec<f32> = tokens
                .iter()
                .flat_map(|(token, _)| &x[token * hidden..(token + 1) * hidden])
                .copied()
                .collect();
            let mut answers = vec![0.0f32; rows.len()];
            self.gated(leader, expert, &rows, wide, &mut answers);
            for ((token, weight), answer) in tokens.iter().zip(answers.chunks_exact(hidden)) {
                let out = &mut out[token * hidden..(token + 1) * hidden];
                out.iter_mut().zip(answer).for_each(|(out, value)| *out += weight * value);
            }
        }
    }

    /// The logits after the tokens numbered `wanted` of `x`, `[tokens, hidden]`.
    fn logits(&self, leader: &Leader<'_>, x: &[f32], wanted: &[usize]) -> Vec<f32> {
        let Shape { hidden, vocabulary, norm_epsilon, .. } = self.shape;
        let mut normed = Aligned::new(wanted.len() * hidden);
        let rows = normed.room(wanted.len() * hidden).chunks_exact_mut(hidden);
        for (token, out) in wanted.iter().zip(rows) {
            let row = &x[token * hidden..(token + 1) * hidden];
            elements::rms_norm(row, &self.weights.norm, norm_epsilon, out);
        }
        let mut logits = vec![0.0f32; wanted.len() * vocabulary];
        let output = self.weights.output.as_ref().unwrap_or(&self.weights.embedding);
        multiply_all(leader, &mut [(output, &mut logits)], &Positions::new(&normed, hidden));
        if let Some(cap) = self.shape.logit_cap {
            logits.iter_mut().for_each(|logit| *logit = (*logit / cap).tanh() * cap);
        }
        logits
    }
}

impl Model for HostDecoder {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn cache(&self, _: usize) -> Box<dyn Cache + '_> {
        let Shape { kv_heads, head_size, .. } = self.shape;
        let cache = HostCache::new(self.weights.layers.len(), kv_heads, head_size);
        Box::new(Sequences { decoder: self, cache, buffers: Buffers::default() })
    }
}

impl Sequences<'_> {
    /// Puts a batch through all layers, into `buffers.x`.
    fn pass(&mut self, leader: &Leader<'_>, tokens: &[u32], batch: &[Rows<'_>]) -> Result<(), GenerateError> {
        let (decoder, buffers) = (self.decoder, &mut self.buffers);
        let Shape { hidden, norm_epsilon, ref rotations, .. } = decoder.shape;
        decoder.embed(leader, tokens, &mut buffers.x)?;
        buffers.turns.resize_with(rotations.len(), Default::default);
        for (rotation, turns) in rotations.iter().zip(&mut buffers.turns) {
            fill_turns(rotation, batch, turns);
        }
        self.cache.reserve(batch);
        let normalise = |x: &[f32], weight: &[f32], normed: &mut Aligned| {
            each_row(leader, normed.room(x.len()), hidden, &|token, out| {
                elements::rms_norm(&x[token * hidden..(token + 1) * hidden], weight, norm_epsilon, out);
            });
        };
        let join = |x: &mut [f32], added: &mut [f32], outer_norm: Option<&Vec<f32>>| {
            if let Some(norm) = outer_norm {
                each_row(leader, added, hidden, &|_, row| {
                    elements::rms_norm_in_place(row, norm, norm_epsilon);
                });
            }
            let added = &*added;
            each_row(leader, x, hidden, &|token, row| {
                elements::add(row, &added[token * hidden..(token + 1) * hidden]);
            });
        };
        for (index, layer) in decoder.weights.layers.iter().enumerate() {
            normalise(&buffers.x, &layer.attention_norm, &mut buffers.normed);
            decoder.attention(leader, index, layer, &mut self.cache, batch, buffers)?;
            join(&mut buffers.x, &mut buffers.added, layer.attention_outer_norm.as_ref());
            normalise(&buffers.x, &layer.feed_forward_norm, &mut buffers.normed);
            decoder.feed_forward(leader, layer, buffers)?;
            join(&mut buffers.x, &mut buffers.added, layer.feed_forward_outer_norm.as_ref());
        }
        Ok(())
    }
}

impl Cache for Sequences<'_> {
    fn step(&mut self, spans: &[Span<'_>]) -> Result<Vec<f32>, GenerateError> {
        let mut tokens = Vec::with_capacity(spans.iter().map(|span| span.tokens.len()).sum());
        let mut batch = Vec::with_capacity(spans.len());
        let mut wanted = Vec::new();
        for span in spans {
            let (first, count) = (tokens.len(), span.tokens.len());
            if span.blocks.len() * BLOCK_TOKENS < span.start + count {
                return Err(GenerateError::Backend);
            }
            wanted.extend(first + span.from.min(count)..first + count);
            batch.push(Rows { first, count, start: span.start, blocks: span.blocks });
            tokens.extend_from_slice(span.tokens);
        }
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        with_team(|leader| {
            self.pass(leader, &tokens, &batch)?;
            if wanted.is_empty() {
                return Ok(Vec::new());
            }
            Ok(self.decoder.logits(leader, &self.buffers.x, &wanted))
        })
    }

    fn held_bytes(&self) -> usize {
        self.cache.held_bytes()
    }

    fn vocabulary(&self) -> usize {
        self.decoder.shape.vocabulary
    }
}

/// Runs `work` for each row of `width` numbers of `data`, with its number.
fn each_row(leader: &Leader<'_>, data: &mut [f32], width: usize, work: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    let rows = data.len() / width;
    if rows < WORTH_SHARING {
        data.chunks_exact_mut(width).enumerate().for_each(|(row, data)| work(row, data));
        return;
    }
    let together = rows.div_ceil(leader.threads() * 4);
    leader.chunks(data, together * width, &|chunk, data| {
        for (row, data) in data.chunks_exact_mut(width).enumerate() {
            work(chunk * together + row, data);
        }
    });
}

/// Cosines and sines of the positions of `batch`, `[tokens, head_size / 2]` each.
fn fill_turns(rotation: &Rotation, batch: &[Rows<'_>], (cosines, sines): &mut (Vec<f32>, Vec<f32>)) {
    cosines.clear();
    sines.clear();
    for position in batch.iter().flat_map(|rows| rows.start..rows.start + rows.count) {
        for frequency in &rotation.frequencies {
            // The angle in f32, as the model was trained; its sine in f64, which the libraries of all systems round
            // to the same f32.
            let (sine, cosine) = f64::from(position as f32 * frequency).sin_cos();
            cosines.push(cosine as f32);
            sines.push(sine as f32);
        }
    }
}

fn softmax(scores: &mut [f32]) {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|score| *score = exp(*score - most));
    let share = scores.iter().sum::<f32>().recip();
    scores.iter_mut().for_each(|score| *score *= share);
}
