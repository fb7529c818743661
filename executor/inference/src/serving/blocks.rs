//! The blocks of a paged cache: who holds them, and which hold tokens that another request may begin with too.
//!
//! A full block can be published under a [`Key`], which commits to the model, to who may find it, and to every token
//! from the start of the sequence to the end of the block. Published blocks stay after their last holder until another
//! needs the room, the least recently used first. Keys are SHA-256 hashes: equal keys are equal tokens.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest, Sha256};

/// What a published block is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 32]);

impl Key {
    /// The key before the first token.
    pub(crate) fn root(model: &[u8; 32], scope: &[u8]) -> Self {
        let mut hash = Sha256::new_with_prefix(b"chrysalis prefix 1");
        hash.update(model);
        hash.update(scope);
        Self(hash.finalize().into())
    }

    /// The key after a further block of `tokens`.
    pub(crate) fn after(&self, tokens: &[u32]) -> Self {
        let mut hash = Sha256::new_with_prefix(self.0);
        for token in tokens {
            hash.update(token.to_le_bytes());
        }
        Self(hash.finalize().into())
    }
}

/// Blocks `0..capacity`.
#[derive(Debug)]
pub(crate) struct Blocks {
    capacity: usize,
    /// Of the blocks that were ever taken; the first `blocks.len()` of all.
    blocks: Vec<Block>,
    /// Held by none and not published.
    free: Vec<u32>,
    /// Held by none and published, by when they were last held.
    idle: BTreeMap<u64, u32>,
    published: HashMap<Key, u32>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Block {
    holders: u32,
    key: Option<Key>,
    /// Where it is in `idle`.
    idle_since: u64,
}

impl Blocks {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            // Numbers of blocks are 32 bits wide.
            capacity: capacity.min(u32::MAX as usize),
            blocks: Vec::new(),
            free: Vec::new(),
            idle: BTreeMap::new(),
            published: HashMap::new(),
            clock: 0,
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many can be taken.
    pub(crate) fn available(&self) -> usize {
        self.capacity - self.blocks.len() + self.free.len() + self.idle.len()
    }

    /// Takes a block that nobody else holds; one that was published only where no other is left.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let block = if let Some(block) = self.free.pop() {
            block
        } else if self.blocks.len() < self.capacity {
            self.blocks.push(Block::default());
            u32::try_from(self.blocks.len() - 1).ok()?
        } else {
            let (_, block) = self.idle.pop_first()?;
            self.withdraw(block);
            block
        };
        self.at(block).holders = 1;
        Some(block)
    }

    /// Takes the block that is published under `key`, beside others who hold it.
    pub(crate) fn find(&mut self, key: &Key) -> Option<u32> {
        let block = *self.published.get(key)?;
        let found = self.at(block);
        found.holders += 1;
        if found.holders == 1 {
            let since = found.idle_since;
            self.idle.remove(&since);
        }
        Some(block)
    }

    /// Lets others find a full block, whose content must not change from now on. Where an equal one is published
    /// already, that one stays.
    pub(crate) fn publish(&mut self, block: u32, key: Key) {
        if self.at(block).key.is_none() && !self.published.contains_key(&key) {
            self.published.insert(key, block);
            self.at(block).key = Some(key);
        }
    }

    /// Gives up a sequence's blocks. Its last are the first to be used for something else, since those before them are
    /// of use without them.
    pub(crate) fn release(&mut self, blocks: Vec<u32>) {
        for block in blocks.into_iter().rev() {
            self.clock += 1;
            let clock = self.clock;
            let given_up = self.at(block);
            given_up.holders -= 1;
            if given_up.holders > 0 {
                continue;
            }
            given_up.idle_since = clock;
            if given_up.key.is_some() {
                self.idle.insert(clock, block);
            } else {
                self.free.push(block);
            }
        }
    }

    /// Makes published blocks that nobody holds unfindable, and those in use too.
    pub(crate) fn forget_all(&mut self) {
        self.published.clear();
        self.free.extend(std::mem::take(&mut self.idle).into_values());
        self.blocks.iter_mut().for_each(|block| block.key = None);
    }

    fn withdraw(&mut self, block: u32) {
        if let Some(key) = self.at(block).key.take() {
            self.published.remove(&key);
        }
    }

    fn at(&mut self, block: u32) -> &mut Block {
        &mut self.blocks[block as usize]
    }

    /// Holders of each block ever taken, for tests.
    #[cfg(test)]
    pub(crate) fn holders(&self) -> Vec<(u32, bool)> {
        self.blocks.iter().map(|block| (block.holders, block.key.is_some())).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_say_model_scope_and_every_token() {
        let root = Key::root(&[1; 32], b"a");
        assert_ne!(root, Key::root(&[2; 32], b"a"));
        assert_ne!(root, Key::root(&[1; 32], b"b"));
        let chain = root.after(&[1, 2]).after(&[3, 4]);
        assert_eq!(chain, Key::root(&[1; 32], b"a").after(&[1, 2]).after(&[3, 4]));
        assert_ne!(chain, root.after(&[1, 9]).after(&[3, 4]));
        assert_ne!(chain, root.after(&[3, 4]));
    }

    #[test]
    fn published_blocks_are_found_until_their_room_is_needed_the_oldest_and_last_first() {
        let keys: Vec<Key> = (0..4).map(|n| Key::root(&[n; 32], b"")).collect();
        let mut blocks = Blocks::new(4);
        let first = vec![blocks.take().unwrap(), blocks.take().unwrap()];
        let second = vec![blocks.take().unwrap(), blocks.take().unwrap()];
        assert_eq!((blocks.take(), blocks.available()), (None, 0));
        for (block, key) in first.iter().chain(&second[..1]).zip(&keys) {
            blocks.publish(*block, *key);
        }
        // Another block of the same content changes nothing.
        blocks.publish(second[1], keys[0]);
        blocks.release(first.clone());
        blocks.release(second.clone());
        assert_eq!(blocks.available(), 4);
        assert_eq!(blocks.find(&keys[0]), Some(first[0]));
        assert_eq!(blocks.find(&keys[0]), Some(first[0]));
        assert_eq!(blocks.available(), 3);
        assert_eq!(blocks.take(), Some(second[1]), "the one without a key first");
        assert_eq!(blocks.take(), Some(first[1]), "then the least recently used");
        assert_eq!(blocks.find(&keys[1]), None);
        assert_eq!(blocks.take(), Some(second[0]));
        assert_eq!(blocks.take(), None, "held blocks are nobody else's");
        blocks.release(vec![first[0]]);
        assert_eq!(blocks.take(), None);
        blocks.release(vec![first[0]]);
        blocks.forget_all();
        assert_eq!((blocks.find(&keys[0]), blocks.available()), (None, 1));
    }
}
