//! What a Librarian publishes, once and for everybody.

use contracts::{Cell, Nanoton, librarian};
use tests::Chain;
use tests::market::TON;
use tycho_types::cell::CellBuilder;
use tycho_types::models::{AccountState, StateInit};

/// A tree of so many different cells.
fn tree(cells: u32) -> Cell {
    fn branch(number: u32, cells: u32) -> Cell {
        let mut builder = CellBuilder::new();
        builder.store_u32(number).unwrap();
        for child in 4 * number + 1..=4 * number + 4 {
            if child < cells {
                builder.store_reference(branch(child, cells)).unwrap();
            }
        }
        builder.build().unwrap()
    }
    branch(0, cells)
}

fn state(chain: &Chain, libraries: &[Cell]) -> Option<StateInit> {
    let account = chain.account(&librarian::address(libraries).unwrap())?;
    match account.load_account().unwrap()?.state {
        AccountState::Active(state) => Some(state),
        _ => None,
    }
}

#[test]
fn anyone_may_publish_libraries_and_nothing_changes_them_afterwards() {
    let mut chain = Chain::new();
    let anybody = chain.person("anybody", Nanoton::new(100 * TON));
    let libraries = [tree(1), tree(30), tree(1_000)];
    let address = librarian::address(&libraries).unwrap();
    let init = librarian::initial_state(&libraries).unwrap();
    let published = librarian::published_state(&libraries).unwrap();
    for init in [Some(init.clone()), None, Some(init)] {
        let held = chain.balance(&address);
        let txs = chain.send(&anybody, &address, Nanoton::new(10 * TON), Cell::default(), init);
        assert!(txs[0].succeeded(), "{:?} {:?}", txs[0].exit_code, txs[0].action_code);
        assert!(txs[0].out.is_empty());
        assert!(chain.balance(&address) > held + u128::from(9 * TON));
        assert_eq!(state(&chain, &libraries).unwrap(), published);
    }
}

#[test]
fn a_library_that_the_network_does_not_keep_costs_little_more_than_the_attempt() {
    let mut chain = Chain::new();
    let anybody = chain.person("anybody", Nanoton::new(100 * TON));
    let libraries = [Cell::default(), tree(1_001)];
    let before = chain.balance(&anybody);
    let address = librarian::address(&libraries).unwrap();
    let init = librarian::initial_state(&libraries).unwrap();
    let txs = chain.send(&anybody, &address, Nanoton::new(50 * TON), Cell::default(), Some(init));
    assert!(!txs[0].succeeded());
    assert_eq!(state(&chain, &libraries).unwrap().libraries.get(libraries[1].repr_hash()).unwrap(), None);
    assert!(before - chain.balance(&anybody) < u128::from(TON), "the deployment's value did not come back");
}
