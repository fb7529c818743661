//! Whisper (arXiv 2212.04356): an encoder of 30-second windows and a decoder of text, on any backend.

use burn_tensor::Tensor;
use burn_tensor::activation::gelu;
use burn_tensor::backend::Backend;

use crate::backend::Build;
use crate::decoder::Multiply;
use crate::error::GenerateError;
use crate::layers::{
    LayerNorm, Linear, LinearWeights, NormWeights, Sight, attend, split_heads, tensor, values,
};
use crate::matrix::Matrix;
use crate::shape::{MAX_HEAD_SIZE, MAX_LAYERS};

const NORM_EPSILON: f32 = 1e-5;

/// A speech model in memory.
pub(crate) trait Speech: Send + Sync {
    /// Hears a window: `[2 × positions, bands]`.
    ///
    /// # Errors
    /// [`GenerateError::Backend`].
    fn hear(&self, mel: &[f32]) -> Result<Box<dyn Heard + '_>, GenerateError>;
}

/// A window that was heard, and the text that is being written for it.
pub(crate) trait Heard {
    /// Appends `tokens` and returns the logits after each of them, `[tokens][vocabulary]`.
    ///
    /// # Errors
    /// [`GenerateError::UnknownToken`], [`GenerateError::Backend`].
    fn append(&mut self, tokens: &[u32]) -> Result<Vec<f32>, GenerateError>;

    /// Forgets the tokens, not the window.
    fn restart(&mut self);

    /// What the encoder made of the window, `[positions, width]`.
    ///
    /// # Errors
    /// [`GenerateError::Backend`].
    #[cfg(test)]
    fn encoded(&self) -> Result<Vec<f32>, GenerateError>;
}

/// The sizes of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WhisperShape {
    pub(crate) width: usize,
    pub(crate) encoder_layers: usize,
    pub(crate) encoder_heads: usize,
    pub(crate) encoder_feed_forward: usize,
    pub(crate) decoder_layers: usize,
    pub(crate) decoder_heads: usize,
    pub(crate) decoder_feed_forward: usize,
    /// Mel bands.
    pub(crate) bands: usize,
    /// Places of a window after the encoder; 50 a second.
    pub(crate) source_positions: usize,
    /// Tokens of a window's text, its prompt among them.
    pub(crate) target_positions: usize,
    pub(crate) vocabulary: usize,
}

impl WhisperShape {
    /// Refuses sizes that cannot be, before anything is allocated for them.
    pub(crate) fn checked(self) -> Result<Self, String> {
        for (what, value, most) in [
            ("d_model", self.width, 1 << 13),
            ("encoder_layers", self.encoder_layers, MAX_LAYERS),
            ("decoder_layers", self.decoder_layers, MAX_LAYERS),
            ("encoder_attention_heads", self.encoder_heads, self.width),
            ("decoder_attention_heads", self.decoder_heads, self.width),
            ("encoder_ffn_dim", self.encoder_feed_forward, 1 << 15),
            ("decoder_ffn_dim", self.decoder_feed_forward, 1 << 15),
            ("num_mel_bins", self.bands, 256),
            ("max_source_positions", self.source_positions, 1_500),
            ("max_target_positions", self.target_positions, 4_096),
            ("vocab_size", self.vocabulary, 1 << 18),
        ] {
            if !(1..=most).contains(&value) {
                return Err(format!("{what} is {value}, not in 1..={most}"));
            }
        }
        for heads in [self.encoder_heads, self.decoder_heads] {
            if !self.width.is_multiple_of(heads) || self.width / heads > MAX_HEAD_SIZE {
                return Err(format!("d_model {} does not divide into {heads} heads", self.width));
            }
        }
        Ok(self)
    }
}

/// Shape and weights.
pub(crate) struct Whisper {
    pub(crate) shape: WhisperShape,
    /// `[width, bands × 3]` and `[width, width × 3]`.
    pub(crate) convolutions: [LinearWeights; 2],
    /// `[source_positions, width]`.
    pub(crate) encoder_places: Vec<f32>,
    pub(crate) encoder: Vec<EncoderLayerWeights>,
    pub(crate) encoder_norm: NormWeights,
    /// `[vocabulary, width]`, the output matrix too.
    pub(crate) words: Matrix,
    /// `[target_positions, width]`.
    pub(crate) decoder_places: Vec<f32>,
    pub(crate) decoder: Vec<DecoderLayerWeights>,
    pub(crate) decoder_norm: NormWeights,
}

impl Whisper {
    /// The type of its matrices, as [`crate::ModelInfo::dtype`] codes it.
    pub(crate) fn dtype(&self) -> u8 {
        self.encoder.first().map_or(0, |layer| layer.own.q.matrix.kind().dtype())
    }
}

pub(crate) struct EncoderLayerWeights {
    pub(crate) own: AttentionWeights,
    pub(crate) feed_forward: FeedForwardWeights,
}

pub(crate) struct DecoderLayerWeights {
    pub(crate) own: AttentionWeights,
    pub(crate) cross: AttentionWeights,
    pub(crate) feed_forward: FeedForwardWeights,
}

/// An attention and the norm before it.
pub(crate) struct AttentionWeights {
    pub(crate) norm: NormWeights,
    pub(crate) q: LinearWeights,
    pub(crate) k: LinearWeights,
    pub(crate) v: LinearWeights,
    pub(crate) o: LinearWeights,
}

/// A feed-forward network and the norm before it.
pub(crate) struct FeedForwardWeights {
    pub(crate) norm: NormWeights,
    pub(crate) up: LinearWeights,
    pub(crate) down: LinearWeights,
}

/// How a model is put on a backend.
pub(crate) struct Placed {
    pub(crate) whisper: Whisper,
    pub(crate) multiply: Multiply,
}

impl Build for Placed {
    type Model = Box<dyn Speech>;

    fn build<B: Backend>(self, device: B::Device) -> Box<dyn Speech> {
        let Self { whisper, multiply } = self;
        let linear = |weights: LinearWeights| Linear::<B>::new(weights, multiply, &device);
        let norm = |weights: NormWeights| LayerNorm::<B>::new(weights, NORM_EPSILON, &device);
        let attention = |weights: AttentionWeights| Attention {
            norm: norm(weights.norm),
            q: linear(weights.q),
            k: linear(weights.k),
            v: linear(weights.v),
            o: linear(weights.o),
        };
        let feed_forward = |weights: FeedForwardWeights| FeedForward {
            norm: norm(weights.norm),
            up: linear(weights.up),
            down: linear(weights.down),
        };
        let encoder = whisper.encoder.into_iter();
        let encoder = encoder.map(|layer| (attention(layer.own), feed_forward(layer.feed_forward))).collect();
        let decoder = whisper.decoder.into_iter().map(|layer| DecoderLayer {
            own: attention(layer.own),
            cross: attention(layer.cross),
            feed_forward: feed_forward(layer.feed_forward),
        });
        let decoder = decoder.collect();
        let output = linear(LinearWeights { matrix: whisper.words.clone(), bias: None });
        Box::new(OnBackend {
            convolutions: whisper.convolutions.map(linear),
            encoder_places: tensor(
                whisper.encoder_places,
                [whisper.shape.source_positions, whisper.shape.width],
                &device,
            ),
            encoder,
            encoder_norm: norm(whisper.encoder_norm),
            words: whisper.words,
            decoder_places: whisper.decoder_places,
            decoder,
            decoder_norm: norm(whisper.decoder_norm),
            output,
            shape: whisper.shape,
            device,
        })
    }
}

struct OnBackend<B: Backend> {
    shape: WhisperShape,
    convolutions: [Linear<B>; 2],
    encoder_places: Tensor<B, 2>,
    encoder: Vec<(Attention<B>, FeedForward<B>)>,
    encoder_norm: LayerNorm<B>,
    words: Matrix,
    decoder_places: Vec<f32>,
    decoder: Vec<DecoderLayer<B>>,
    decoder_norm: LayerNorm<B>,
    output: Linear<B>,
    device: B::Device,
}

struct DecoderLayer<B: Backend> {
    own: Attention<B>,
    cross: Attention<B>,
    feed_forward: FeedForward<B>,
}

struct Attention<B: Backend> {
    norm: LayerNorm<B>,
    q: Linear<B>,
    k: Linear<B>,
    v: Linear<B>,
    o: Linear<B>,
}

struct FeedForward<B: Backend> {
    norm: LayerNorm<B>,
    up: Linear<B>,
    down: Linear<B>,
}

/// Keys and values, `[heads, tokens, size]` each.
type KeysAndValues<B> = (Tensor<B, 3>, Tensor<B, 3>);

impl<B: Backend> Attention<B> {
    fn keys_and_values(&self, x: Tensor<B, 2>, heads: usize) -> Result<KeysAndValues<B>, GenerateError> {
        Ok((split_heads(self.k.apply(x.clone())?, heads), split_heads(self.v.apply(x)?, heads)))
    }

    /// What `x`, normed already, takes from keys and values.
    fn look(
        &self,
        x: Tensor<B, 2>,
        (k, v): KeysAndValues<B>,
        heads: usize,
        sight: Sight,
    ) -> Result<Tensor<B, 2>, GenerateError> {
        let q = split_heads(self.q.apply(x)?, heads);
        self.o.apply(attend(q, k, v, sight))
    }
}

impl<B: Backend> FeedForward<B> {
    fn apply(&self, x: Tensor<B, 2>) -> Result<Tensor<B, 2>, GenerateError> {
        let fed = self.down.apply(gelu(self.up.apply(self.norm.apply(x.clone()))?))?;
        Ok(x + fed)
    }
}

impl<B: Backend> OnBackend<B> {
    /// `[positions, width]` of `[2 × positions, bands]`.
    fn encode(&self, mel: &[f32]) -> Result<Tensor<B, 2>, GenerateError> {
        let WhisperShape { bands, width, source_positions, encoder_heads, .. } = self.shape;
        if mel.len() != 2 * source_positions * bands {
            return Err(GenerateError::Backend);
        }
        let [first, second] = &self.convolutions;
        let x = gelu(first.apply(tensor(
            unfolded(mel, bands, 1),
            [2 * source_positions, 3 * bands],
            &self.device,
        ))?);
        let x = tensor(unfolded(&values(x)?, width, 2), [source_positions, 3 * width], &self.device);
        let mut x = gelu(second.apply(x)?) + self.encoder_places.clone();
        for (attention, feed_forward) in &self.encoder {
            let normed = attention.norm.apply(x.clone());
            let keys_and_values = attention.keys_and_values(normed.clone(), encoder_heads)?;
            x = x + attention.look(normed, keys_and_values, encoder_heads, Sight::All)?;
            x = feed_forward.apply(x)?;
        }
        Ok(self.encoder_norm.apply(x))
    }
}

impl<B: Backend> Speech for OnBackend<B> {
    fn hear(&self, mel: &[f32]) -> Result<Box<dyn Heard + '_>, GenerateError> {
        let encoded = self.encode(mel)?;
        let heads = self.shape.decoder_heads;
        let cross = self
            .decoder
            .iter()
            .map(|layer| layer.cross.keys_and_values(encoded.clone(), heads))
            .collect::<Result<_, _>>()?;
        let own = self.decoder.iter().map(|_| None).collect();
        Ok(Box::new(Window { model: self, encoded, cross, own, tokens: 0 }))
    }
}

struct Window<'a, B: Backend> {
    model: &'a OnBackend<B>,
    #[cfg_attr(not(test), expect(dead_code, reason = "tests compare it"))]
    encoded: Tensor<B, 2>,
    cross: Vec<KeysAndValues<B>>,
    own: Vec<Option<KeysAndValues<B>>>,
    tokens: usize,
}

impl<B: Backend> Heard for Window<'_, B> {
    fn append(&mut self, tokens: &[u32]) -> Result<Vec<f32>, GenerateError> {
        let model = self.model;
        let WhisperShape { width, decoder_heads: heads, .. } = model.shape;
        let mut embedded = vec![0.0f32; tokens.len() * width];
        for ((place, token), out) in (self.tokens..).zip(tokens).zip(embedded.chunks_exact_mut(width)) {
            let row = *token as usize;
            if row >= model.words.rows() {
                return Err(GenerateError::UnknownToken(*token));
            }
            model.words.expand_row(row, out);
            let place = model.decoder_places.get(place * width..(place + 1) * width);
            let place = place.ok_or(GenerateError::Backend)?;
            out.iter_mut().zip(place).for_each(|(out, place)| *out += place);
        }
        let mut x = tensor::<B, 2>(embedded, [tokens.len(), width], &model.device);
        for ((layer, cross), own) in model.decoder.iter().zip(&self.cross).zip(&mut self.own) {
            let normed = layer.own.norm.apply(x.clone());
            let (k, v) = layer.own.keys_and_values(normed.clone(), heads)?;
            let (k, v) = match own.take() {
                Some((keys, values)) => (Tensor::cat(vec![keys, k], 1), Tensor::cat(vec![values, v], 1)),
                None => (k, v),
            };
            *own = Some((k.clone(), v.clone()));
            x = x + layer.own.look(normed, (k, v), heads, Sight::Causal)?;
            let normed = layer.cross.norm.apply(x.clone());
            x = x + layer.cross.look(normed, cross.clone(), heads, Sight::All)?;
            x = layer.feed_forward.apply(x)?;
        }
        self.tokens += tokens.len();
        values(model.output.apply(model.decoder_norm.apply(x))?)
    }

    fn restart(&mut self) {
        self.own.fill_with(|| None);
        self.tokens = 0;
    }

    #[cfg(test)]
    fn encoded(&self) -> Result<Vec<f32>, GenerateError> {
        values(self.encoded.clone())
    }
}

/// Rows of `[n, channels]` as a convolution of 3 places, every `stride` of them, sees them: `[n / stride, channels × 3]`,
/// with silence beyond both ends.
fn unfolded(x: &[f32], channels: usize, stride: usize) -> Vec<f32> {
    let n = x.len() / channels;
    let mut out = Vec::with_capacity(n / stride * channels * 3);
    for centre in (0..n).step_by(stride) {
        for channel in 0..channels {
            for place in [centre.checked_sub(1), Some(centre), Some(centre + 1).filter(|place| *place < n)] {
                out.push(place.map_or(0.0, |place| x[place * channels + channel]));
            }
        }
    }
    out
}
