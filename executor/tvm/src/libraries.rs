//! Library cells (exotic cells of 8 tag bits and a hash): where the machine finds what they name, and how the actions
//! `SETLIBCODE` and `CHANGELIB` change an account's own libraries.

use tycho_executor::{OwnedExtStorageStat, StorageStatLimits};
use tycho_types::cell::{Cell, CellBuilder, CellSlice, CellType, DynCell, HashBytes};
use tycho_types::dict::{Dict, RawDict};
use tycho_types::error::Error;
use tycho_types::models::{ChangeLibraryMode, LibRef, SimpleLib, SizeLimitsConfig, StateInit};
use tycho_vm::LibraryProvider;

/// What a library cell may name, in the order it is looked for: what the message brought, what the account holds, and
/// what the masterchain publishes. Each is the root of a dictionary from hash to a value whose first reference is the
/// library. As in the reference, what cannot be read or has another hash than its key is not there.
pub(crate) struct Libraries {
    collections: [RawDict<256>; 3],
}

impl Libraries {
    pub(crate) fn new(message: Option<Cell>, account: Option<Cell>, masterchain: Option<Cell>) -> Self {
        Self { collections: [message.into(), account.into(), masterchain.into()] }
    }

    fn values<'a>(&'a self, hash: &HashBytes) -> impl Iterator<Item = CellSlice<'a>> {
        let key = CellBuilder::build_from(hash);
        self.collections.iter().filter_map(move |dictionary| {
            let key = key.as_ref().ok()?.as_slice().ok()?;
            dictionary.get(key).ok().flatten()
        })
    }
}

impl LibraryProvider for Libraries {
    fn find(&self, hash: &HashBytes) -> Result<Option<Cell>, Error> {
        let mut found = self.values(hash).filter_map(|value| value.get_reference_cloned(0).ok());
        Ok(found.find(|library| library.repr_hash() == hash))
    }

    fn find_ref<'a>(&'a self, hash: &HashBytes) -> Result<Option<&'a DynCell>, Error> {
        let mut found = self.values(hash).filter_map(|value| value.get_reference(0).ok());
        Ok(found.find(|library| library.repr_hash() == hash))
    }
}

/// What a transaction's machine begins with: of a library cell the library, which costs no gas; else as
/// [`code_root`].
pub(crate) fn resolved_code(code: Cell, libraries: &Libraries) -> Result<Cell, Error> {
    if code.cell_type() == CellType::LibraryReference {
        let mut slice = code.as_slice_allow_exotic();
        slice.skip_first(LIBRARY_TAG_BITS, 0)?;
        if let Some(library) = libraries.find(&slice.load_u256()?)?
            && !library.is_exotic()
        {
            return Ok(library);
        }
    }
    code_root(code)
}

/// What a get-method's machine begins with: code that is no ordinary cell is reached by a reference, which costs gas.
pub(crate) fn code_root(code: Cell) -> Result<Cell, Error> {
    if !code.is_exotic() {
        return Ok(code);
    }
    let mut builder = CellBuilder::new();
    builder.store_reference(code)?;
    builder.build()
}

/// Carries out one library action; `Err` with the action's result code where it fails.
pub(crate) fn change(
    libraries: &mut Dict<HashBytes, SimpleLib>,
    mode: ChangeLibraryMode,
    library: LibRef,
    limits: &SizeLimitsConfig,
) -> Result<(), i32> {
    let public = match mode.difference(ChangeLibraryMode::BOUNCE_ON_ERROR) {
        ChangeLibraryMode::REMOVE => None,
        ChangeLibraryMode::ADD_PRIVATE => Some(false),
        ChangeLibraryMode::ADD_PUBLIC => Some(true),
        _ => return Err(INVALID_ACTION),
    };
    let (hash, mut root) = match library {
        LibRef::Cell(root) => (*root.repr_hash(), Some(root)),
        LibRef::Hash(hash) => (hash, None),
    };
    let Some(public) = public else {
        return libraries.remove(hash).map(|_| ()).map_err(|_| BAD_LIBRARIES);
    };
    if let Some(held) = libraries.get(hash).map_err(|_| BAD_LIBRARIES)?
        && *held.root.repr_hash() == hash
    {
        if held.public == public {
            return Ok(());
        }
        root = Some(held.root);
    }
    let root = root.ok_or(NO_LIBRARY)?;
    let mut size = OwnedExtStorageStat::with_limits(StorageStatLimits {
        bit_count: u32::MAX,
        cell_count: limits.max_library_cells,
    });
    if !size.add_cell(root.clone()) {
        return Err(LIBRARY_TOO_LARGE);
    }
    libraries.set(hash, SimpleLib { public, root }).map(|_| ()).map_err(|_| BAD_LIBRARIES)
}

/// Whether an account of this state is within the limits of size.
pub(crate) fn fits(state: &StateInit, limits: &SizeLimitsConfig, is_masterchain: bool) -> bool {
    let mut size = OwnedExtStorageStat::with_limits(StorageStatLimits {
        bit_count: limits.max_acc_state_bits,
        cell_count: limits.max_acc_state_cells,
    });
    let roots = [&state.code, &state.data, state.libraries.root()];
    if !roots.into_iter().flatten().all(|root| size.add_cell(root.clone())) {
        return false;
    }
    let most = if is_masterchain { limits.max_acc_public_libraries as usize } else { usize::MAX };
    let public =
        state.libraries.values().filter(|library| library.as_ref().is_ok_and(|library| library.public));
    public.count() <= most
}

/// Result code of an action of a mode there is not.
pub(crate) const INVALID_ACTION: i32 = 34;
/// Result code of an action phase that leaves too large a state.
pub(crate) const STATE_TOO_LARGE: i32 = 50;
const NO_LIBRARY: i32 = 41;
const BAD_LIBRARIES: i32 = 42;
const LIBRARY_TOO_LARGE: i32 = 43;
const LIBRARY_TAG_BITS: u16 = 8;
