//! `liteServer.getLibraries`: public libraries by their hashes.

use tycho_types::boc::Boc;
use tycho_types::cell::HashBytes;

use super::methods::Failure;
use super::tl::Writer;
use crate::chain::Localnet;

/// `liteServer.libraryResult` with those there are of the first 16 named, by hash.
pub(super) fn answer(chain: &Localnet, wanted: &[HashBytes]) -> Result<Vec<u8>, Failure> {
    let mut wanted = wanted.get(..MAX_LIBRARIES).unwrap_or(wanted).to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    let mut found = Vec::new();
    for hash in wanted {
        if let Some(library) = chain.library(&hash)? {
            found.push((hash, library));
        }
    }
    let mut writer = Writer::new(LIBRARY_RESULT);
    writer.u32(u32::try_from(found.len()).unwrap_or_default());
    for (hash, library) in found {
        writer.hash(&hash);
        writer.bytes(&Boc::encode(library));
    }
    Ok(writer.finish())
}

/// As the reference node has it.
const MAX_LIBRARIES: usize = 16;
const LIBRARY_RESULT: u32 = 0x117a_b96b;
