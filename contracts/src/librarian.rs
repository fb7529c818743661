//! The Librarian: a contract of the masterchain that publishes cells as libraries, and the library cells that stand for
//! them elsewhere.

use tycho_types::cell::{Cell, CellBuilder, CellType, HashBytes};
use tycho_types::dict::Dict;
use tycho_types::models::{SimpleLib, StateInit, StdAddr};

use crate::artifacts::{Contract, code};
use crate::network::state_init;
use crate::wire::{WireError, to_cell};

/// The workchain whose accounts can publish.
pub const WORKCHAIN: i8 = -1;
/// Libraries of one Librarian at most: as many as a cell has references.
pub const MAX_LIBRARIES: usize = 4;

/// The cell of 264 bits that stands for `cell` wherever it is published.
pub fn library_cell(cell: &Cell) -> Cell {
    library_cell_of(cell.repr_hash())
}

/// The library cell of the cell with this hash.
pub fn library_cell_of(hash: &HashBytes) -> Cell {
    CellBuilder::build_library(hash)
}

/// The hash a library cell names, or nothing where `cell` is no library cell.
pub fn library_hash(cell: &Cell) -> Option<HashBytes> {
    if cell.cell_type() != CellType::LibraryReference || cell.bit_len() != 264 {
        return None;
    }
    let mut slice = cell.as_slice_allow_exotic();
    slice.skip_first(8, 0).ok()?;
    slice.load_u256().ok()
}

/// What a Librarian that publishes `libraries` is deployed with.
///
/// # Errors
/// [`WireError::Build`] where they are more than [`MAX_LIBRARIES`].
pub fn initial_state(libraries: &[Cell]) -> Result<StateInit, WireError> {
    let mut data = CellBuilder::new();
    for library in libraries {
        data.store_reference(library.clone()).map_err(build)?;
    }
    Ok(state_init(code(Contract::Librarian), data.build().map_err(build)?))
}

/// The state of that Librarian once it has published: what wakes it after it froze for lack of rent.
///
/// # Errors
/// As [`initial_state`].
pub fn published_state(libraries: &[Cell]) -> Result<StateInit, WireError> {
    let mut state = initial_state(libraries)?;
    state.data = Some(Cell::default());
    let mut published = Dict::new();
    for root in libraries {
        published.set(root.repr_hash(), SimpleLib { public: true, root: root.clone() }).map_err(build)?;
    }
    state.libraries = published;
    Ok(state)
}

/// Address of the Librarian that publishes `libraries`.
///
/// # Errors
/// As [`initial_state`].
pub fn address(libraries: &[Cell]) -> Result<StdAddr, WireError> {
    Ok(StdAddr::new(WORKCHAIN, *to_cell(&initial_state(libraries)?)?.repr_hash()))
}

fn build(source: tycho_types::error::Error) -> WireError {
    WireError::Build { what: "the Librarian's libraries", source }
}
