//! `liteServer.getLibraries`: public libraries by their hashes.

use std::collections::BTreeMap;

use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, HashBytes};

use super::methods::Failure;
use super::tl::Writer;
use crate::chain::Localnet;

/// `liteServer.libraryResult` with those there are of the first 16 named, by hash.
pub(super) fn answer(chain: &Localnet, wanted: &[HashBytes]) -> Result<Vec<u8>, Failure> {
    let mut found = BTreeMap::new();
    for hash in wanted.iter().take(MAX_LIBRARIES) {
        if let Some(library) = chain.library(hash)? {
            found.insert(*hash, library);
        }
    }
    Ok(result(found))
}

fn result(found: BTreeMap<HashBytes, Cell>) -> Vec<u8> {
    let mut writer = Writer::new(LIBRARY_RESULT);
    writer.u32(u32::try_from(found.len()).unwrap_or_default());
    for (hash, library) in found {
        writer.hash(&hash);
        writer.bytes(&Boc::encode(library));
    }
    writer.finish()
}

/// As the reference node has it.
const MAX_LIBRARIES: usize = 16;
const LIBRARY_RESULT: u32 = 0x117a_b96b;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tycho_types::cell::CellBuilder;

    use super::*;

    #[test]
    fn each_entry_is_a_hash_and_a_bag_of_cells() {
        let library = CellBuilder::build_from(7_u32).unwrap();
        let hash = *library.repr_hash();
        let boc = Boc::encode(&library);
        let mut expected = LIBRARY_RESULT.to_le_bytes().to_vec();
        expected.extend(1_u32.to_le_bytes());
        expected.extend(hash.0);
        expected.push(u8::try_from(boc.len()).unwrap());
        expected.extend(&boc);
        expected.resize(expected.len().next_multiple_of(4), 0);
        assert_eq!(result(BTreeMap::from([(hash, library)])), expected);
        assert_eq!(result(BTreeMap::new()), [LIBRARY_RESULT.to_le_bytes(), [0; 4]].concat());
    }
}
