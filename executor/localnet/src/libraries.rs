//! The chain's public libraries: what accounts of the masterchain publish, by hash, with who publishes each. They are
//! the `libraries` of the masterchain's state, and serve every account from the next block on.

use std::collections::BTreeMap;

use tycho_types::cell::{Cell, HashBytes};
use tycho_types::dict::Dict;
use tycho_types::error::Error;
use tycho_types::models::{AccountState, LibDescr, OptionalAccount, ShardAccount, ShardStateUnsplit};

/// `HashmapE 256 LibDescr`.
pub(crate) type PublicLibraries = Dict<HashBytes, LibDescr>;

/// The public libraries of a masterchain state.
pub(crate) fn of_state(state: &Cell) -> Result<PublicLibraries, Error> {
    Ok(state.parse::<ShardStateUnsplit>()?.libraries)
}

/// Takes over what an account of the masterchain publishes after a transaction and did not before, and the reverse. A
/// library that nobody publishes any more is gone.
pub(crate) fn update(
    libraries: &mut PublicLibraries,
    account: &HashBytes,
    before: &ShardAccount,
    after: &ShardAccount,
) -> Result<(), Error> {
    let (before, after) = (published(before)?, published(after)?);
    for hash in before.keys().filter(|hash| !after.contains_key(*hash)) {
        let Some(mut library) = libraries.get(hash)? else { continue };
        library.publishers.remove(account)?;
        if library.publishers.is_empty() {
            libraries.remove(hash)?;
        } else {
            libraries.set(hash, library)?;
        }
    }
    for (hash, lib) in after.iter().filter(|(hash, _)| !before.contains_key(*hash)) {
        let held = libraries.get(hash)?;
        let mut library = held.unwrap_or_else(|| LibDescr { lib: lib.clone(), publishers: Dict::new() });
        library.publishers.set(account, ())?;
        libraries.set(hash, library)?;
    }
    Ok(())
}

/// An active account's public libraries. One under another hash than its own is none, nor is what cannot be read.
fn published(account: &ShardAccount) -> Result<BTreeMap<HashBytes, Cell>, Error> {
    let OptionalAccount(Some(account)) = account.account.load()? else { return Ok(BTreeMap::new()) };
    let AccountState::Active(state) = account.state else { return Ok(BTreeMap::new()) };
    let mut published = BTreeMap::new();
    for (hash, library) in state.libraries.iter().map_while(Result::ok) {
        if library.public && *library.root.repr_hash() == hash {
            published.insert(hash, library.root);
        }
    }
    Ok(published)
}
