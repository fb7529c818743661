//! Library cells and the Librarian's states.
#![allow(clippy::unwrap_used)]

use contracts::artifacts::{Contract, code};
use contracts::wire::to_cell;
use contracts::{Cell, CodeRef, librarian};
use tycho_types::cell::CellType;

#[test]
fn a_library_cell_is_a_tag_and_the_hash_of_what_it_stands_for() {
    let job = code(Contract::Job);
    let cell = librarian::library_cell(&job);
    assert_eq!(cell.cell_type(), CellType::LibraryReference);
    assert_eq!((cell.bit_len(), cell.reference_count()), (264, 0));
    let mut slice = cell.as_slice_allow_exotic();
    assert_eq!(slice.load_u8().unwrap(), 2);
    assert_eq!(slice.load_u256().unwrap(), *job.repr_hash());
    assert_eq!(librarian::library_hash(&cell), Some(*job.repr_hash()));
    assert_eq!(librarian::library_hash(&job), None);
    assert_eq!((CodeRef::of(&cell).hash, CodeRef::of(&cell).depth), (*cell.repr_hash(), 0));
}

#[test]
fn a_librarian_lives_in_the_masterchain_at_the_hash_of_what_it_publishes() {
    let libraries = [code(Contract::Job), code(Contract::Worker)];
    let address = librarian::address(&libraries).unwrap();
    assert_eq!(address.workchain, -1);
    let state = librarian::initial_state(&libraries).unwrap();
    assert_eq!(address.address, *to_cell(&state).unwrap().repr_hash());
    assert_ne!(address, librarian::address(&libraries[..1]).unwrap());
    let published = librarian::published_state(&libraries).unwrap();
    assert_eq!(published.data, Some(Cell::default()));
    assert_eq!(published.libraries.keys().count(), 2);
    assert_ne!(published, state);
}

#[test]
fn more_libraries_than_a_cell_has_references_are_refused() {
    let five = vec![code(Contract::Job); librarian::MAX_LIBRARIES + 1];
    assert!(librarian::initial_state(&five).is_err());
    assert!(librarian::initial_state(&five[1..]).is_ok());
}
