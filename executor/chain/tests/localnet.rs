//! The whole crate against the local chain's liteserver: proofs, history, wallet, watcher.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use chain::{
    ChainAccess, ChainError, GlobalConfig, LiteserverChain, SenderTiming, StackValue, Timing, Transfer, TxId,
    Wallet, WalletError, WalletSender, Watcher,
};
use localnet::{BlockMode, Clock, Liteserver, LocalnetHandle, LocalnetOptions};
use tycho_types::cell::HashBytes;
use tycho_types::models::{AccountStatus, StdAddr};

const TON: u128 = 1_000_000_000;

struct World {
    handle: LocalnetHandle,
    chain: Arc<LiteserverChain>,
    network_id: i32,
}

impl World {
    async fn new(mode: BlockMode) -> Self {
        Self::with_timing(mode, Timing::default()).await
    }

    async fn with_timing(mode: BlockMode, timing: Timing) -> Self {
        let options = LocalnetOptions::default();
        let network_id = options.global_id;
        let handle = LocalnetHandle::new(options, mode, Clock::Virtual).unwrap();
        handle.advance().unwrap();
        let server = Liteserver::bind_local(handle.clone()).await.unwrap();
        let config = GlobalConfig::from_json(&server.global_config_json().unwrap()).unwrap();
        tokio::spawn(server.serve());
        let runner = handle.clone();
        tokio::spawn(async move { runner.run().await });
        let timing = Timing { retry_for: Duration::from_secs(3), ..timing };
        Self { handle, chain: Arc::new(LiteserverChain::new(&config, timing)), network_id }
    }

    async fn running() -> Self {
        Self::new(BlockMode::Interval(Duration::from_millis(20))).await
    }

    fn wallet(&self, seed: u8) -> WalletSender<LiteserverChain> {
        let wallet = Wallet::from_seed(&[seed; 32], self.network_id).unwrap();
        WalletSender::new(wallet, self.chain.clone(), SenderTiming::default())
    }

    async fn give(&self, to: &StdAddr, amount: u128) {
        self.handle.give(to, amount).unwrap();
        let newest = self.handle.newest().seqno;
        self.chain.wait_block(newest + 3, Duration::from_secs(10)).await.unwrap();
    }
}

fn somebody(byte: u8) -> StdAddr {
    StdAddr::new(0, HashBytes([byte; 32]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_deploys_itself_with_its_first_message_and_sends_again() {
    let world = World::running().await;
    let sender = world.wallet(1);
    world.give(sender.wallet().address(), 10 * TON).await;
    let first = sender.send(&[Transfer::payment(somebody(9), TON)]).await.unwrap();
    let pair = [Transfer::payment(somebody(9), TON), Transfer::payment(somebody(8), 2 * TON)];
    let second = sender.send(&pair).await.unwrap();
    assert_eq!(second.transaction.previous(), Some(first.transaction.id));
    assert_eq!(second.transaction.out_messages().unwrap().len(), 2);
    assert!(second.transaction.result().unwrap().succeeded);

    let newest = world.handle.newest().seqno;
    let block = world.chain.wait_block(newest + 2, Duration::from_secs(10)).await.unwrap();
    let paid = world.chain.account(&somebody(9), &block).await.unwrap();
    assert_eq!(paid.balance_nanoton(), 2 * TON);
    assert_eq!(paid.status(), AccountStatus::Uninit);
    let missing = world.chain.account(&somebody(7), &block).await.unwrap();
    assert_eq!((missing.status(), missing.last), (AccountStatus::NotExists, None));

    let wallet = sender.wallet().address();
    let seqno = world.chain.run_getter(wallet, "seqno", &[], &block).await.unwrap();
    assert_eq!(seqno.success().unwrap(), [StackValue::Int(2)]);
    let failed = world.chain.run_getter(wallet, "no_such_method", &[], &block).await.unwrap();
    assert_eq!(failed.exit_code, 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_sends_take_turns() {
    let world = World::running().await;
    let sender = Arc::new(world.wallet(1));
    world.give(sender.wallet().address(), 10 * TON).await;
    let sends = (0..5_u8).map(|turn| {
        let sender = sender.clone();
        tokio::spawn(async move { sender.send(&[Transfer::payment(somebody(turn), TON / 10)]).await })
    });
    let mut seen = Vec::new();
    for send in sends.collect::<Vec<_>>() {
        seen.push(send.await.unwrap().unwrap().transaction.id);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_wallet_cannot_do_is_said_before_or_after_with_its_reason() {
    let world = World::running().await;
    let sender = world.wallet(1);
    let poor = sender.send(&[Transfer::payment(somebody(9), TON)]).await.unwrap_err();
    assert!(matches!(poor, WalletError::InsufficientFunds { balance_nanoton: 0, .. }), "{poor}");
    world.give(sender.wallet().address(), 10 * TON).await;

    let (mine, before) = sender.prepare(&[Transfer::payment(somebody(9), TON)]).await.unwrap();
    let (rival, _) = sender.prepare(&[Transfer::payment(somebody(8), TON)]).await.unwrap();
    sender.submit(&rival).await.unwrap();
    sender.confirm(&rival, before).await.unwrap();
    let taken = sender.confirm(&mine, before).await.unwrap_err();
    assert!(matches!(taken, WalletError::SeqnoTaken { seqno: 0 }), "{taken}");
    let refused = sender.submit(&mine).await.unwrap_err();
    let WalletError::Chain(ChainError::Refused { exit_code, .. }) = &refused else { panic!("{refused}") };
    assert_eq!(*exit_code, Some(133));
    // A confirmed message is confirmed again, as after a restart.
    assert_eq!(sender.confirm(&rival, before).await.unwrap().transaction.tx.out_msg_count.into_inner(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_never_arrived_expires() {
    let world = World::running().await;
    let sender = world.wallet(1);
    world.give(sender.wallet().address(), 10 * TON).await;
    let (lost, before) = sender.prepare(&[Transfer::payment(somebody(9), TON)]).await.unwrap();
    world.handle.skip_time(91);
    let expired = sender.confirm(&lost, before).await.unwrap_err();
    assert!(matches!(expired, WalletError::Expired { .. }), "{expired}");
    assert!(sender.submit(&lost).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unconfirmed_message_is_handed_over_again() {
    let world = World::running().await;
    let sender = Arc::new(world.wallet(1));
    world.give(sender.wallet().address(), 10 * TON).await;
    let (lost, before) = sender.prepare(&[Transfer::payment(somebody(9), TON)]).await.unwrap();
    let confirming = tokio::spawn({
        let sender = sender.clone();
        async move { sender.confirm(&lost, before).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.handle.skip_time(20);
    confirming.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_every_transaction_once_and_resumes_at_its_cursor() {
    let world = World::running().await;
    let sender = world.wallet(1);
    let address = sender.wallet().address().clone();
    let mut watcher = Watcher::new(1_000);
    watcher.watch(address.clone(), None);
    world.give(&address, 100 * TON).await;
    let mut expected = Vec::new();
    for turn in 0..20 {
        expected.push(sender.send(&[Transfer::payment(somebody(turn), TON)]).await.unwrap().transaction.id);
        if turn == 10 {
            // The process stops here; the cursor was stored.
            let seen = drain(&mut watcher, &world).await;
            assert_eq!(seen.len(), 1 + 11);
            assert_eq!(seen[1..], expected[..]);
            let cursor = watcher.cursors().next().unwrap().1;
            assert_eq!(cursor, expected.last().copied());
            watcher = Watcher::new(1_000);
            watcher.watch(address.clone(), cursor);
        }
    }
    assert_eq!(drain(&mut watcher, &world).await, expected[11..]);

    let head = world.chain.head().await.unwrap();
    let newest = world.chain.account(&address, &head).await.unwrap().last.unwrap();
    let all = world.chain.transactions(&address, newest, None, 100).await.unwrap();
    assert_eq!(all.len(), 21);
    let bounded = world.chain.transactions(&address, newest, None, 20).await.unwrap_err();
    assert!(matches!(bounded, ChainError::HistoryTooLong { max: 20 }));
    let stranger = TxId { lt: all[3].id.lt, hash: HashBytes([1; 32]) };
    let mismatch = world.chain.transactions(&address, newest, Some(stranger), 100).await.unwrap_err();
    assert!(matches!(mismatch, ChainError::HistoryMismatch { cursor } if cursor == stranger));
    let last = world.chain.latest_transactions(&address, newest, 3).await.unwrap();
    assert_eq!(last.iter().map(|tx| tx.id).collect::<Vec<_>>(), [all[20].id, all[19].id, all[18].id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_are_found_by_number_and_waited_for() {
    let world = World::new(BlockMode::Manual).await;
    let head = world.chain.head().await.unwrap();
    assert_eq!(world.chain.block(head.seqno).await.unwrap(), head);
    let late = world.chain.wait_block(head.seqno + 1, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(late, ChainError::Timeout { .. }), "{late}");
    let waiting = tokio::spawn({
        let chain = world.chain.clone();
        async move { chain.wait_block(head.seqno + 1, Duration::from_secs(10)).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.handle.advance().unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().seqno, head.seqno + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_may_wait_for_a_block() {
    let timing = Timing { query_timeout: Duration::from_millis(500), ..Timing::default() };
    let world = World::with_timing(BlockMode::Manual, timing).await;
    let head = world.chain.head().await.unwrap();
    let wait_all = |timeout| {
        let chain = world.chain.clone();
        let waits = (0..40).map(move |_| {
            let chain = chain.clone();
            tokio::spawn(async move { chain.wait_block(head.seqno + 1, timeout).await })
        });
        futures_util::future::join_all(waits.collect::<Vec<_>>())
    };
    for late in wait_all(Duration::from_millis(2_500)).await {
        assert!(matches!(late.unwrap(), Err(ChainError::Timeout { request: "waitMasterchainSeqno", .. })));
    }
    let waiting = wait_all(Duration::from_secs(30));
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.handle.advance().unwrap();
    for found in waiting.await {
        assert_eq!(found.unwrap().unwrap().seqno, head.seqno + 1);
    }
}

async fn drain(watcher: &mut Watcher, world: &World) -> Vec<TxId> {
    let mut seen = Vec::new();
    for _ in 0..3 {
        let tick = watcher.next(world.chain.as_ref(), Duration::from_secs(10)).await.unwrap().unwrap();
        for update in tick.updates {
            assert_eq!(update.cursor, update.transactions.last().map(|tx| tx.id));
            seen.extend(update.transactions.into_iter().map(|tx| tx.id));
        }
    }
    seen
}
