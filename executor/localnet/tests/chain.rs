//! The chain by itself: order, links, conservation, determinism.
#![allow(clippy::unwrap_used)]

use localnet::{BlockMode, Clock, ExternalMessage, Localnet, LocalnetError, LocalnetHandle, LocalnetOptions};
use tycho_types::cell::{CellBuilder, HashBytes, Lazy};
use tycho_types::models::{
    AccountStatus, Block, ExtInMsgInfo, IntAddr, MsgInfo, OwnedMessage, ShardStateUnsplit, StdAddr,
};
use tycho_types::num::Tokens;

fn address(byte: u8) -> StdAddr {
    StdAddr::new(0, HashBytes([byte; 32]))
}

fn start() -> Localnet {
    Localnet::new(LocalnetOptions::default()).unwrap()
}

const TON: u128 = 1_000_000_000;

#[test]
fn the_giver_gives_exactly_and_nothing_is_lost() {
    let mut chain = start();
    let now = chain.options().genesis_utime_s;
    let supply = chain.options().supply_nanoton;
    assert_eq!(chain.supply().unwrap().total_nanoton(), supply);
    for byte in 1..=20 {
        chain.give(&address(byte), u128::from(byte) * TON, now).unwrap();
    }
    assert_eq!(chain.pool_len(), 20);
    let produced = chain.produce_block(now + 5).unwrap();
    assert!(produced.dropped.is_empty(), "{:?}", produced.dropped);
    assert_eq!(produced.transactions, 40);
    for byte in 1..=20 {
        let account = chain.account(&address(byte)).unwrap().account.load().unwrap();
        assert_eq!(account.status(), AccountStatus::Uninit);
        assert_eq!(account.balance().tokens.into_inner(), u128::from(byte) * TON);
    }
    let after = chain.supply().unwrap();
    assert_eq!(after.total_nanoton(), supply);
    assert!(after.fees_nanoton > 0);
    assert_eq!((after.messages_nanoton, after.stuck_nanoton), (0, 0));
    assert!(!chain.has_work());
}

#[test]
fn transactions_are_linked_and_their_times_rise() {
    let mut chain = start();
    let now = chain.options().genesis_utime_s;
    for round in 0..3 {
        for byte in 1..=3 {
            chain.give(&address(byte), TON, now + round).unwrap();
        }
        chain.produce_block(now + round).unwrap();
    }
    for account in [chain.giver().clone(), address(1)] {
        let mut previous = (0, HashBytes::ZERO);
        for record in chain.transactions(&account) {
            let transaction = record.load().unwrap();
            assert_eq!((transaction.prev_trans_lt, transaction.prev_trans_hash), previous);
            assert!(transaction.lt > previous.0);
            if let Some(message) = transaction.load_in_msg().unwrap()
                && let MsgInfo::Int(info) = message.info
            {
                assert!(transaction.lt > info.created_lt);
            }
            let block = chain.block(0, record.block_seqno).unwrap();
            assert!(block.start_lt <= record.lt && record.lt < block.end_lt);
            previous = (record.lt, record.hash);
        }
        let shard_account = chain.account(&account).unwrap();
        assert_eq!((shard_account.last_trans_lt, shard_account.last_trans_hash), previous);
    }
    let mut last = 0;
    for (_, lt) in &chain.block(0, 2).unwrap().transactions {
        assert!(*lt > 0);
        last = last.max(*lt);
    }
    assert!(last < chain.block(0, 3).unwrap().start_lt);
}

#[test]
fn blocks_and_states_parse_and_name_one_another() {
    let mut chain = start();
    let now = chain.options().genesis_utime_s;
    chain.give(&address(9), TON, now).unwrap();
    for step in 0..3 {
        chain.produce_block(now + step).unwrap();
    }
    for workchain in [-1, 0] {
        let blocks = chain.blocks(workchain);
        assert_eq!(blocks.len(), 4);
        for pair in blocks.windows(2) {
            let cell = pair[1].block.clone().unwrap();
            assert_eq!(*cell.repr_hash(), pair[1].id.root_hash);
            let block: Block = cell.parse().unwrap();
            let info = block.load_info().unwrap();
            assert_eq!(info.seqno, pair[1].id.seqno);
            let tycho_types::models::PrevBlockRef::Single(prev) = info.load_prev_ref().unwrap() else {
                panic!("merged");
            };
            assert_eq!(prev.root_hash, pair[0].id.root_hash);
            assert_eq!(prev.file_hash, pair[0].id.file_hash);
            assert!(block.load_value_flow().unwrap().validate().unwrap());
            let update = block.load_state_update().unwrap();
            assert_eq!(update.old_hash, *pair[0].state.as_ref().unwrap().repr_hash());
            assert_eq!(update.new_hash, *pair[1].state.as_ref().unwrap().repr_hash());
            let in_block: usize = block
                .load_extra()
                .unwrap()
                .account_blocks
                .load()
                .unwrap()
                .values()
                .map(|entry| entry.unwrap().1.transactions.values().count())
                .sum();
            assert_eq!(in_block, pair[1].transactions.len());
        }
    }
    let (record, state) = chain.state_at(-1, 3).unwrap();
    let state: ShardStateUnsplit = state.parse().unwrap();
    assert_eq!(state.seqno, record.id.seqno);
    let extra = state.load_custom().unwrap().unwrap();
    let (ident, shard) = extra.shards.iter().next().unwrap().unwrap();
    assert_eq!(shard.as_block_id(ident), chain.block(0, 3).unwrap().id);
    assert_eq!(extra.prev_blocks.values().count(), 3);
    assert_eq!(extra.global_balance.tokens.into_inner(), chain.supply().unwrap().accounts_nanoton);
}

#[test]
fn equal_inputs_make_equal_chains() {
    let run = || {
        let mut chain = start();
        let now = chain.options().genesis_utime_s;
        for step in 0..4 {
            chain.give(&address(5), TON, now).unwrap();
            chain.produce_block(now + step).unwrap();
        }
        chain.newest().id
    };
    assert_eq!(run(), run());
    let mut other = Localnet::new(LocalnetOptions { seed: [8; 32], ..LocalnetOptions::default() }).unwrap();
    other.produce_block(0).unwrap();
    let mut same = start();
    same.produce_block(0).unwrap();
    assert_ne!(other.newest().id, same.newest().id);
}

#[test]
fn a_message_between_the_chains_arrives() {
    let mut chain = start();
    let now = chain.options().genesis_utime_s;
    let there = StdAddr::new(-1, HashBytes([3; 32]));
    chain.give(&there, 7 * TON, now).unwrap();
    chain.produce_block(now).unwrap();
    assert_eq!(chain.account(&there).unwrap().account.load().unwrap().balance().tokens, Tokens::new(7 * TON));
    assert_eq!(chain.supply().unwrap().total_nanoton(), chain.options().supply_nanoton);
}

#[test]
fn what_no_account_accepts_is_refused_at_the_door() {
    let mut chain = start();
    let now = chain.options().genesis_utime_s;
    let message = OwnedMessage {
        info: MsgInfo::ExtIn(ExtInMsgInfo {
            src: None,
            dst: IntAddr::Std(address(1)),
            import_fee: Tokens::ZERO,
        }),
        init: None,
        body: Default::default(),
        layout: None,
    };
    let cell = CellBuilder::build_from(&message).unwrap();
    let error = chain.send(ExternalMessage::from_cell(cell).unwrap(), now).unwrap_err();
    assert!(matches!(error, LocalnetError::NoCode { .. }), "{error}");
    let to_giver = OwnedMessage {
        info: MsgInfo::ExtIn(ExtInMsgInfo {
            src: None,
            dst: IntAddr::Std(chain.giver().clone()),
            import_fee: Tokens::ZERO,
        }),
        ..message
    };
    let cell = CellBuilder::build_from(&to_giver).unwrap();
    let error = chain.send(ExternalMessage::from_cell(cell).unwrap(), now);
    assert!(error.is_ok() || matches!(error, Err(LocalnetError::NotAccepted { .. })), "{error:?}");
    assert!(ExternalMessage::from_boc(b"rubbish").is_err());
    let huge = chain.give(&address(1), chain.options().supply_nanoton, now).unwrap_err();
    assert!(matches!(huge, LocalnetError::BadRequest(_)), "{huge}");
}

#[test]
fn the_pool_is_bounded_and_holds_no_message_twice() {
    let options = LocalnetOptions { max_pool: 2, ..LocalnetOptions::default() };
    let mut chain = Localnet::new(options).unwrap();
    let now = chain.options().genesis_utime_s;
    chain.give(&address(1), TON, now).unwrap();
    chain.give(&address(1), TON, now).unwrap();
    assert!(matches!(chain.give(&address(1), TON, now), Err(LocalnetError::PoolFull { limit: 2 })));
}

#[test]
fn a_full_block_leaves_the_rest_to_the_next() {
    let options = LocalnetOptions { max_block_transactions: 4, ..LocalnetOptions::default() };
    let mut chain = Localnet::new(options).unwrap();
    let now = chain.options().genesis_utime_s;
    for byte in 1..=5 {
        chain.give(&address(byte), TON, now).unwrap();
    }
    let mut transactions = 0;
    let mut blocks = 0;
    while chain.has_work() {
        let produced = chain.produce_block(now).unwrap();
        assert!(produced.transactions <= 4);
        transactions += produced.transactions;
        blocks += 1;
        assert_eq!(chain.supply().unwrap().total_nanoton(), chain.options().supply_nanoton);
    }
    assert_eq!((transactions, blocks), (10, 3));
}

#[test]
fn old_states_are_forgotten_and_transactions_are_not() {
    let options = LocalnetOptions { kept_blocks: 2, ..LocalnetOptions::default() };
    let mut chain = Localnet::new(options).unwrap();
    let now = chain.options().genesis_utime_s;
    chain.give(&address(1), TON, now).unwrap();
    for _ in 0..5 {
        chain.produce_block(now).unwrap();
    }
    assert!(chain.account_at(&address(1), 5).is_ok());
    assert!(matches!(chain.account_at(&address(1), 1), Err(LocalnetError::UnknownBlock { .. })));
    assert!(matches!(chain.account_at(&address(1), 77), Err(LocalnetError::UnknownBlock { .. })));
    assert_eq!(chain.transactions(&address(1)).len(), 1);
    assert_eq!(chain.block(-1, 1).unwrap().id.seqno, 1);
}

#[tokio::test]
async fn a_handle_makes_blocks_on_demand() {
    let handle =
        LocalnetHandle::new(LocalnetOptions::default(), BlockMode::OnDemand, Clock::Virtual).unwrap();
    handle.give(&address(1), 3 * TON).unwrap();
    assert_eq!(handle.balance(&address(1)).unwrap(), 3 * TON);
    assert_eq!(handle.newest().seqno, 2);
    let waits = handle.clone();
    let waiting = tokio::spawn(async move { waits.wait_block(3, std::time::Duration::from_secs(5)).await });
    handle.skip_time(60);
    handle.advance().unwrap();
    assert!(waiting.await.unwrap());
    assert!(!handle.wait_block(99, std::time::Duration::from_millis(10)).await);
    let utime = handle.read(|chain| chain.newest().utime_s);
    assert_eq!(utime, LocalnetOptions::default().genesis_utime_s + 60);
}

#[test]
fn lazy_accounts_of_nobody_are_empty() {
    let chain = start();
    let account = chain.account(&address(77)).unwrap();
    assert_eq!(account.last_trans_lt, 0);
    assert_eq!(account.account, Lazy::new(&tycho_types::models::OptionalAccount::EMPTY).unwrap());
}

#[test]
fn a_chain_goes_on_from_its_journal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let open =
        |options: LocalnetOptions| LocalnetHandle::open(options, BlockMode::Manual, Clock::Virtual, &path);
    let first = open(LocalnetOptions::default()).unwrap();
    for byte in 1..=3 {
        first.give(&address(byte), TON).unwrap();
        first.skip_time(10);
        first.advance().unwrap();
    }
    first.give(&address(4), TON).unwrap();
    let newest = first.newest();
    drop(first);

    let second = open(LocalnetOptions::default()).unwrap();
    assert_eq!(second.newest(), newest);
    assert_eq!(second.read(Localnet::pool_len), 1);
    assert_eq!(second.now_s(), LocalnetOptions::default().genesis_utime_s + 30);
    second.advance().unwrap();
    assert_eq!(second.balance(&address(4)).unwrap(), TON);
    let newest = second.newest();
    drop(second);

    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&bytes[..], &[2, 0, 0]].concat()).unwrap();
    assert_eq!(open(LocalnetOptions::default()).unwrap().newest(), newest);
    assert_eq!(std::fs::read(&path).unwrap(), bytes);

    let other = LocalnetOptions { seed: [9; 32], ..LocalnetOptions::default() };
    assert!(matches!(open(other), Err(LocalnetError::Options(_))));
}
