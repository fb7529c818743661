//! A paged cache of keys and values in the backend's tensors.

use std::ops::Range;

use burn_tensor::backend::Backend;
use burn_tensor::{Int, Tensor, TensorData};

use crate::attention::{BLOCK_TOKENS, Rows};

/// Keys and values of any number of sequences, in all layers. Block `b` is the tokens from `b × BLOCK_TOKENS` on.
pub(crate) struct TensorCache<B: Backend> {
    /// `[kv_heads, blocks × BLOCK_TOKENS, size]` of keys and of values.
    layers: Vec<Option<(Tensor<B, 3>, Tensor<B, 3>)>>,
    blocks: usize,
    most_blocks: usize,
    kv_heads: usize,
    size: usize,
    device: B::Device,
}

impl<B: Backend> TensorCache<B> {
    /// It takes room for more than `most_blocks` only where a sequence has a block beyond them.
    pub(crate) fn new(
        layers: usize,
        kv_heads: usize,
        size: usize,
        most_blocks: usize,
        device: B::Device,
    ) -> Self {
        let layers = (0..layers).map(|_| None).collect();
        Self { layers, blocks: 0, most_blocks, kv_heads, size, device }
    }

    /// Bytes of its tensors.
    pub(crate) fn held_bytes(&self) -> usize {
        2 * self.layers.len() * self.kv_heads * self.blocks * BLOCK_TOKENS * self.size * size_of::<f32>()
    }

    /// Makes sure that the blocks of `batch` are there.
    pub(crate) fn reserve(&mut self, batch: &[Rows<'_>]) {
        let highest = batch.iter().flat_map(|rows| rows.blocks).max().map_or(0, |block| *block as usize + 1);
        if highest <= self.blocks {
            return;
        }
        let grown = highest.max(self.most_blocks.min(self.blocks + self.blocks / 2));
        let shape = [self.kv_heads, (grown - self.blocks) * BLOCK_TOKENS, self.size];
        for layer in &mut self.layers {
            let more = || Tensor::<B, 3>::zeros(shape, &self.device);
            *layer = Some(match layer.take() {
                Some((keys, values)) => {
                    (Tensor::cat(vec![keys, more()], 1), Tensor::cat(vec![values, more()], 1))
                }
                None => (more(), more()),
            });
        }
        self.blocks = grown;
    }

    /// Puts `[kv_heads, rows, size]` to the sequence's and returns all keys and values of it.
    pub(crate) fn append(
        &mut self,
        layer: usize,
        k: Tensor<B, 3>,
        v: Tensor<B, 3>,
        rows: &Rows<'_>,
    ) -> (Tensor<B, 3>, Tensor<B, 3>) {
        let Some((mut keys, mut values)) = self.layers[layer].take() else { return (k, v) };
        let (kv_heads, size) = (self.kv_heads, self.size);
        let mut done = 0;
        for place in places(rows.blocks, rows.start..rows.start + rows.count) {
            let from = [0..kv_heads, done..done + place.len(), 0..size];
            done += place.len();
            let to = [0..kv_heads, place, 0..size];
            keys = keys.slice_assign(to.clone(), k.clone().slice(from.clone()));
            values = values.slice_assign(to, v.clone().slice(from));
        }
        let all = places(rows.blocks, 0..rows.start + rows.count);
        let read = match all.as_slice() {
            [place] => {
                let place = [0..kv_heads, place.clone(), 0..size];
                (keys.clone().slice(place.clone()), values.clone().slice(place))
            }
            _ => {
                let tokens: Vec<i64> = all.into_iter().flatten().map(|token| token as i64).collect();
                let count = tokens.len();
                let data = TensorData::new(tokens, [count]);
                let tokens = Tensor::<B, 1, Int>::from_data(data, &self.device);
                (keys.clone().select(1, tokens.clone()), values.clone().select(1, tokens))
            }
        };
        self.layers[layer] = Some((keys, values));
        read
    }
}

/// Where the tokens of `range` lie, in as few pieces as there are.
fn places(blocks: &[u32], range: Range<usize>) -> Vec<Range<usize>> {
    let mut places: Vec<Range<usize>> = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let until = range.end.min((at / BLOCK_TOKENS + 1) * BLOCK_TOKENS);
        let place = blocks[at / BLOCK_TOKENS] as usize * BLOCK_TOKENS + at % BLOCK_TOKENS;
        match places.last_mut() {
            Some(last) if last.end == place => last.end = place + until - at,
            _ => places.push(place..place + until - at),
        }
        at = until;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_lie_where_their_blocks_say() {
        let size = BLOCK_TOKENS;
        assert_eq!(places(&[0, 1, 2], 5..3 * size), std::slice::from_ref(&(5..3 * size)));
        assert_eq!(
            places(&[4, 2, 3], size - 1..2 * size + 1),
            [5 * size - 1..5 * size, 2 * size..3 * size + 1]
        );
        assert!(places(&[4], 7..7).is_empty());
    }
}
