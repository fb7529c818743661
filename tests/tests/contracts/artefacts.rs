//! The contracts of a market carry the code of the committed artefacts.

use contracts::artifacts::{Contract, artifact};
use tests::Market;
use tycho_types::models::AccountState;

#[test]
fn what_is_deployed_is_what_is_committed() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    for (address, contract) in [
        (&market.registry, Contract::Registry),
        (&market.model, Contract::Model),
        (&worker.address, Contract::Worker),
    ] {
        let account = market.chain.account(address).unwrap();
        let account = account.load_account().unwrap().unwrap();
        let AccountState::Active(init) = account.state else {
            panic!("{contract:?} is not active");
        };
        assert_eq!(init.code.as_ref(), Some(&artifact(contract).code));
    }
}
