//! Layers that encoders and speech models share, on any backend: weights with biases, LayerNorm, attention over heads.
//! As in [`crate::decoder`], stored weights are multiplied by [`crate::matrix`], so that a token's numbers do not
//! depend on what else is in the batch.

use burn_tensor::activation::softmax;
use burn_tensor::backend::Backend;
use burn_tensor::{Bool, Tensor, TensorData};

use crate::decoder::Multiply;
use crate::error::GenerateError;
use crate::matrix::Matrix;

/// `x · Wᵀ + b`.
pub(crate) struct Linear<B: Backend> {
    weights: Weights<B>,
    bias: Option<Tensor<B, 1>>,
    device: B::Device,
}

enum Weights<B: Backend> {
    Stored(Matrix),
    /// `[columns, rows]`.
    Backend(Tensor<B, 2>),
}

/// LayerNorm (arXiv 1607.06450) over the last dimension.
pub(crate) struct LayerNorm<B: Backend> {
    weight: Tensor<B, 1>,
    bias: Tensor<B, 1>,
    epsilon: f32,
}

/// A matrix and, where there is one, its bias.
#[derive(Debug, Clone)]
pub(crate) struct LinearWeights {
    pub(crate) matrix: Matrix,
    pub(crate) bias: Option<Vec<f32>>,
}

/// Weight and bias of a LayerNorm.
#[derive(Debug, Clone)]
pub(crate) struct NormWeights {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl<B: Backend> Linear<B> {
    pub(crate) fn new(weights: LinearWeights, multiply: Multiply, device: &B::Device) -> Self {
        let LinearWeights { matrix, bias } = weights;
        let bias = bias.map(|bias| vector(bias, device));
        let weights = match multiply {
            Multiply::Stored => Weights::Stored(matrix),
            Multiply::Backend => {
                let shape = [matrix.rows(), matrix.columns()];
                Weights::Backend(tensor(matrix.expand_all(), shape, device).transpose())
            }
        };
        Self { weights, bias, device: device.clone() }
    }

    /// `x` is `[n, columns]`, the result `[n, rows]`.
    pub(crate) fn apply(&self, x: Tensor<B, 2>) -> Result<Tensor<B, 2>, GenerateError> {
        let product = match &self.weights {
            Weights::Stored(matrix) => {
                let n = x.dims()[0];
                tensor(matrix.multiply(&values(x)?), [n, matrix.rows()], &self.device)
            }
            Weights::Backend(weights) => x.matmul(weights.clone()),
        };
        Ok(match &self.bias {
            Some(bias) => product + bias.clone().unsqueeze(),
            None => product,
        })
    }
}

impl<B: Backend> LayerNorm<B> {
    pub(crate) fn new(weights: NormWeights, epsilon: f32, device: &B::Device) -> Self {
        let NormWeights { weight, bias } = weights;
        Self { weight: vector(weight, device), bias: vector(bias, device), epsilon }
    }

    pub(crate) fn apply(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let centred = x.clone() - x.mean_dim(1);
        let variance = (centred.clone() * centred.clone()).mean_dim(1);
        let scale = (variance + self.epsilon).sqrt().recip();
        centred * scale * self.weight.clone().unsqueeze() + self.bias.clone().unsqueeze()
    }
}

/// `[n, heads × size]` as `[heads, n, size]`.
pub(crate) fn split_heads<B: Backend>(flat: Tensor<B, 2>, heads: usize) -> Tensor<B, 3> {
    let [n, width] = flat.dims();
    flat.reshape([n, heads, width / heads]).swap_dims(0, 1)
}

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    All,
    /// The queries are the last tokens of the keys; each sees those up to itself.
    Causal,
}

/// `softmax(q · kᵀ / √size) · v` of `[heads, queries, size]` and twice `[heads, keys, size]`, as `[queries, width]`.
pub(crate) fn attend<B: Backend>(
    q: Tensor<B, 3>,
    k: Tensor<B, 3>,
    v: Tensor<B, 3>,
    sight: Sight,
) -> Tensor<B, 2> {
    let [heads, queries, size] = q.dims();
    let keys = k.dims()[1];
    let q = q * (size as f32).sqrt().recip();
    let mut scores = q.matmul(k.swap_dims(1, 2));
    if sight == Sight::Causal && queries > 1 {
        let before = keys - queries;
        let hidden: Vec<bool> =
            (0..queries).flat_map(|query| (0..keys).map(move |key| key > before + query)).collect();
        let data = TensorData::new(hidden, [1, queries, keys]);
        let mask = Tensor::<B, 3, Bool>::from_data(data, &scores.device()).expand([heads, queries, keys]);
        scores = scores.mask_fill(mask, f32::NEG_INFINITY);
    }
    softmax(scores, 2).matmul(v).swap_dims(0, 1).reshape([queries, heads * size])
}

pub(crate) fn vector<B: Backend>(values: Vec<f32>, device: &B::Device) -> Tensor<B, 1> {
    Tensor::from_data(values.as_slice(), device)
}

pub(crate) fn tensor<B: Backend, const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &B::Device,
) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

pub(crate) fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Result<Vec<f32>, GenerateError> {
    tensor.into_data().convert::<f32>().into_vec().map_err(|_| GenerateError::Backend)
}
