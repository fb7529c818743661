//! Numbers that begin where a cache line does: vectors of a whole line that do not are twice the work to read.

use std::ops::{Deref, DerefMut};

const LINE: usize = 64;

/// A buffer to work in.
#[derive(Default)]
pub(crate) struct Aligned {
    numbers: Vec<f32>,
    start: usize,
    count: usize,
}

impl Aligned {
    pub(crate) fn new(count: usize) -> Self {
        let mut buffer = Self::default();
        buffer.room(count);
        buffer
    }

    /// Makes it `count` numbers long, whatever they are. In a new buffer they are zeros.
    pub(crate) fn room(&mut self, count: usize) -> &mut [f32] {
        let most_before = LINE / size_of::<f32>() - 1;
        if self.numbers.len() < count + most_before {
            self.numbers = vec![0.0; count + most_before];
            self.start = self.numbers.as_ptr().align_offset(LINE).min(most_before);
        }
        self.count = count;
        &mut self.numbers[self.start..self.start + count]
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.numbers[self.start..self.start + self.count]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.numbers[self.start..self.start + self.count]
    }
}

pub(crate) fn is_aligned(numbers: &[f32]) -> bool {
    numbers.as_ptr().align_offset(LINE) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_however_long() {
        let mut buffer = Aligned::default();
        for count in [0, 1, 1000, 17, 100_000, 3] {
            buffer.room(count).fill(count as f32);
            assert_eq!(buffer.len(), count);
            assert!(is_aligned(&buffer) && buffer.iter().all(|number| *number == count as f32));
        }
    }
}
