//! A model's weights, collected from either kind of file into one layout: that of Hugging Face.

use crate::error::LoadError;
use crate::family::{Family, Names, Presence};
use crate::matrix::Matrix;
use crate::shape::Shape;

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
    pub(crate) q: Projection,
    pub(crate) k: Projection,
    pub(crate) v: Projection,
    pub(crate) o: Projection,
    pub(crate) q_norm: Option<Vec<f32>>,
    pub(crate) k_norm: Option<Vec<f32>>,
    pub(crate) attention_outer_norm: Option<Vec<f32>>,
    pub(crate) feed_forward_norm: Vec<f32>,
    pub(crate) feed_forward_outer_norm: Option<Vec<f32>>,
    pub(crate) feed_forward: FeedForwardWeights,
}

/// `x · Wᵀ + b`.
#[derive(Debug)]
pub(crate) struct Projection {
    pub(crate) matrix: Matrix,
    pub(crate) bias: Option<Vec<f32>>,
}

#[derive(Debug)]
pub(crate) enum FeedForwardWeights {
    Dense(GatedWeights),
    Sparse {
        /// `[experts, hidden]`.
        router: Matrix,
        experts: Vec<GatedWeights>,
    },
}

/// `down(act(gate(x)) × up(x))`.
#[derive(Debug)]
pub(crate) struct GatedWeights {
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
}

/// Whether the embedding is also the output matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tied {
    Always,
    Never,
    IfAbsent,
}

/// Where tensors come from.
pub(crate) trait Source {
    /// The matrix `name`. `None` where there is none of that name.
    ///
    /// # Errors
    /// [`LoadError`] where it has another shape or a type this engine does not read.
    fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Option<Matrix>, LoadError>;

    /// The matrices of one part (`gate`, `up` or `down`) of all experts of a layer, whose name ends in a dot.
    ///
    /// # Errors
    /// [`LoadError`] where one is missing or as for [`Source::matrix`].
    fn experts(
        &self,
        layer: &str,
        part: &str,
        count: usize,
        rows: usize,
        columns: usize,
    ) -> Result<Vec<Matrix>, LoadError>;

    /// What stands before a part of a layer's one feed-forward network.
    fn dense_prefix(&self) -> &'static str;

    /// The error for a tensor that is not there.
    fn missing(&self, name: &str) -> LoadError;

    /// A tensor other than `ignored` that nothing asked for, so that the model's answers would lack it.
    fn left_over(&self, ignored: Option<&str>) -> Option<String>;

    /// The matrix `name`, which must be there.
    ///
    /// # Errors
    /// As [`Source::matrix`].
    fn required(&self, name: &str, rows: usize, columns: usize) -> Result<Matrix, LoadError> {
        self.matrix(name, rows, columns)?.ok_or_else(|| self.missing(name))
    }

    /// The vector `name`, which must be there, in f32.
    ///
    /// # Errors
    /// As [`Source::matrix`].
    fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>, LoadError> {
        Ok(self.required(name, 1, length)?.expand_all())
    }
}

/// Collects the weights of a `family`'s model. `norm_offset` is added to the weights of every norm.
///
/// # Errors
/// [`LoadError`] where a tensor is missing, has another shape, or is one that this engine would ignore.
pub(crate) fn collect(
    source: &impl Source,
    names: &Names,
    family: Family,
    shape: &Shape,
    tied: Tied,
    norm_offset: f32,
) -> Result<Weights, LoadError> {
    let hidden = shape.hidden;
    let (q_rows, kv_rows) = (shape.heads * shape.head_size, shape.kv_heads * shape.head_size);
    let norm = |name: String, length: usize| -> Result<Vec<f32>, LoadError> {
        let mut weights = source.vector(&format!("{name}.weight"), length)?;
        weights.iter_mut().for_each(|weight| *weight += norm_offset);
        Ok(weights)
    };
    let projection = |name: String, rows: usize, columns: usize, bias: Presence| {
        let bias_name = format!("{name}.bias");
        let bias = match bias {
            Presence::Required => Some(source.vector(&bias_name, rows)?),
            Presence::Optional => source.matrix(&bias_name, 1, rows)?.map(|bias| bias.expand_all()),
            Presence::Absent => None,
        };
        Ok::<_, LoadError>(Projection {
            matrix: source.required(&format!("{name}.weight"), rows, columns)?,
            bias,
        })
    };
    let mut layers = Vec::new();
    for (index, layer) in shape.layers.iter().enumerate() {
        let name = |part: &str| format!("{}.{index}.{part}", names.layer);
        let head_norm =
            |part: &str| family.has_head_norms().then(|| norm(name(part), shape.head_size)).transpose();
        let outer_norm = |part: &str| family.has_outer_norms().then(|| norm(name(part), hidden)).transpose();
        let feed_forward = match shape.experts.filter(|_| layer.sparse) {
            Some(experts) => {
                let wide = experts.feed_forward;
                let part =
                    |part: &str, rows, columns| source.experts(&name(""), part, experts.count, rows, columns);
                let gates = part(names.gate, wide, hidden)?;
                let ups = part(names.up, wide, hidden)?;
                let downs = part(names.down, hidden, wide)?;
                let experts_of = gates.into_iter().zip(ups).zip(downs);
                FeedForwardWeights::Sparse {
                    router: source.required(
                        &format!("{}.weight", name(names.router)),
                        experts.count,
                        hidden,
                    )?,
                    experts: experts_of.map(|((gate, up), down)| GatedWeights { gate, up, down }).collect(),
                }
            }
            None => {
                let wide = shape.feed_forward;
                let part = |part: &str, rows, columns| {
                    let name = format!("{}{part}.weight", name(source.dense_prefix()));
                    source.required(&name, rows, columns)
                };
                FeedForwardWeights::Dense(GatedWeights {
                    gate: part(names.gate, wide, hidden)?,
                    up: part(names.up, wide, hidden)?,
                    down: part(names.down, hidden, wide)?,
                })
            }
        };
        layers.push(LayerWeights {
            attention_norm: norm(name(names.attention_norm), hidden)?,
            q: projection(name(names.q), q_rows, hidden, family.input_bias())?,
            k: projection(name(names.k), kv_rows, hidden, family.input_bias())?,
            v: projection(name(names.v), kv_rows, hidden, family.input_bias())?,
            o: projection(name(names.o), hidden, q_rows, family.output_bias())?,
            q_norm: head_norm(names.q_norm)?,
            k_norm: head_norm(names.k_norm)?,
            attention_outer_norm: outer_norm(names.attention_outer_norm)?,
            feed_forward_norm: norm(name(names.feed_forward_norm), hidden)?,
            feed_forward_outer_norm: outer_norm(names.feed_forward_outer_norm)?,
            feed_forward,
        });
    }
    let output = format!("{}.weight", names.output);
    let weights = Weights {
        embedding: source.required(&format!("{}.weight", names.embedding), shape.vocabulary, hidden)?,
        layers,
        norm: norm(names.norm.to_owned(), hidden)?,
        output: match tied {
            // Where they are tied, a stored output matrix is a leftover that transformers ignores too.
            Tied::Always => None,
            Tied::Never => Some(source.required(&output, shape.vocabulary, hidden)?),
            Tied::IfAbsent => source.matrix(&output, shape.vocabulary, hidden)?,
        },
    };
    match source.left_over((tied == Tied::Always).then_some(&*output)) {
        Some(name) => Err(LoadError::Unsupported {
            what: format!("the tensor {name} in a {} model", shape.architecture),
        }),
        None => Ok(weights),
    }
}
