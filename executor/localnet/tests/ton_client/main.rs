//! The `ton` crate's LiteClient against the liteserver of the local chain.
//!
//! Every public method of `LiteClient` is called: `builder`, `get_mc_info`, `lookup_mc_block`, `lookup_block`,
//! `get_block`, `get_block_state`, `get_account_state`, `get_libs`, `send_msg`, `exec`, the deprecated
//! `exec_with_timeout`, `metrics`. Of what they can do, the following cannot succeed here:
//! - `get_account_state` at seqno 0 asks for the zero state of the mainnet or of the testnet, whose ids the crate holds;
//!   the local chain must refuse it, and a test holds it to that;
//! - `get_account_state` of an account that does not exist: a liteserver answers with no state, and the crate cannot
//!   read an empty bag of cells;
//! - `get_libs` finds nothing, since these chains publish nothing on the masterchain;
//! - `exec` of `ListBlockTransactionsExt`: `ton_liteapi` cannot read its answer; the local chain's own tests ask for it;
//! - `exec` of requests that serve validators and proof chains (block proofs, validator statistics, message queues):
//!   there are no signatures to prove, and the local chain refuses them by name.
//!
//! Proofs are read with `everscale-types`, which the crate uses, rather than with the local chain's own cell library.

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use everscale_types::boc::Boc;
use everscale_types::cell::{Cell, CellFamily, HashBytes};
use everscale_types::merkle::MerkleProof;
use everscale_types::models::{ShardAccount, ShardStateUnsplit};
use support::{LocalChain, once, until};
use ton::block_tlb::{
    AccountState, BlockIdExt, CommonMsgInfo, CommonMsgInfoInt, ConfigParams, MaybeAccount, Msg, ShardIdent,
    TVMStack, Tx, TxDescr,
};
use ton::errors::TonError;
use ton::lite_client::{LiteClient, MasterchainInfo};
use ton::ton_core::cell::{BoC, TonCell, TonHash};
use ton::ton_core::traits::tlb::TLB;
use ton::ton_core::types::TonAddress;
use ton::ton_core::types::tlb_core::TLBCoins;
use ton::ton_wallet::{KeyPair, TonWallet, WALLET_ID_DEFAULT, WALLET_V5R1_ID_DEFAULT_TESTNET, WalletVersion};
use ton_liteapi::tl::common::{AccountId, BlockId, Int256};
use ton_liteapi::tl::request::{
    GetAccountState, GetAllShardsInfo, GetBlockHeader, GetBlockOutMsgQueueSize, GetBlockProof, GetConfigAll,
    GetConfigParams, GetDispatchQueueInfo, GetDispatchQueueMessages, GetLibrariesWithProof,
    GetMasterchainInfoExt, GetOneTransaction, GetOutMsgQueueSizes, GetShardBlockProof, GetShardInfo,
    GetTransactions, GetValidatorStats, ListBlockTransactions, LookupBlock, LookupBlockWithProof, Request,
    RunSmcMethod,
};
use ton_liteapi::tl::response::{
    AccountState as AccountAnswer, BlockHeader, ConfigInfo, Response, RunMethodResult, TransactionList,
};

const TON: u128 = 1_000_000_000;
const MASTERCHAIN: i32 = -1;
const BASECHAIN: i32 = 0;
const WHOLE_SHARD: u64 = 1 << 63;
/// What the reference node answers where it gives no code of its own.
const ERROR: i32 = -400;
/// `ErrorCode::notready` and `ErrorCode::timeout` of the reference node.
const NOT_READY: i32 = 651;
const TIMEOUT: i32 = 652;
const PROTOCOL_VIOLATION: i32 = 621;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_v5r1_wallet_lives_its_life() {
    wallet_lives(WalletVersion::V5R1, WALLET_V5R1_ID_DEFAULT_TESTNET).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_v4r2_wallet_lives_its_life() {
    wallet_lives(WalletVersion::V4R2, WALLET_ID_DEFAULT).await;
}

async fn wallet_lives(version: WalletVersion, wallet_id: i32) {
    let chain = LocalChain::start().await;
    let client = chain.client();
    let wallet = wallet(version, wallet_id, 1);
    let receiver = TonAddress::new(BASECHAIN, TonHash::from([0x42; 32]));

    let missing = client.get_account_state(&wallet.address, newest(&client).await.seqno, None).await;
    assert!(
        missing.is_err(),
        "the crate reads the empty state of an account that does not exist: {missing:?}"
    );
    assert_eq!(seqno_of(&client, &wallet.address).await, Err(NO_CODE));

    chain.give(&wallet.address, 10 * TON);
    let funded = until("the giver's coins arrive", async || account(&client, &wallet.address).await).await;
    assert_eq!(funded.get_balance().map(TLBCoins::to_u128), Some(10 * TON));
    assert!(matches!(state(&funded), AccountState::Uninit(_)), "nothing is deployed yet");
    assert_eq!(seqno_of(&client, &wallet.address).await, Err(NO_CODE));

    for seqno in 0..2 {
        let before = balance(&client, &wallet.address).await;
        let message = transfer(&wallet, seqno, &receiver, TON, seqno == 0);
        assert_eq!(client.send_msg(message.clone(), Some(once())).await.expect("the wallet accepts it"), 1);
        until("the seqno grows", async || {
            (seqno_of(&client, &wallet.address).await == Ok(i64::from(seqno) + 1)).then_some(())
        })
        .await;
        let replayed = client.send_msg(message, Some(once())).await;
        let (code, reason) = refusal(replayed);
        assert_eq!(code, 0);
        assert!(reason.starts_with("cannot apply external message to current state : "), "{reason}");
        let received = TON * u128::from(seqno + 1);
        until("the receiver is paid", async || {
            let paid = account(&client, &receiver).await?.get_balance()?.to_u128();
            (paid > received - RENT && paid <= received).then_some(())
        })
        .await;

        let (last_lt, last_hash) = last_transaction(&client, &wallet.address).await;
        let newest = history(&client, &wallet.address, last_lt, last_hash, 1).await;
        let [(_, sent)] = &newest[..] else { panic!("one transaction was asked for") };
        let [payment] = &sent.msgs.out_msgs[..] else { panic!("one message was sent") };
        let CommonMsgInfo::Int(payment) = &payment.info else { panic!("the payment is internal") };
        assert_eq!(payment.value.coins.to_u128(), TON);
        assert_eq!(TonAddress::from_msg_address(payment.dst.clone()).expect("it goes somewhere"), receiver);
        let costs = sent.total_fees.coins.to_u128() + payment.fwd_fee.to_u128();
        assert_eq!(
            before - TON - costs,
            balance(&client, &wallet.address).await,
            "every nanoton is accounted for"
        );
    }

    let active = account(&client, &wallet.address).await.expect("the wallet exists");
    assert!(matches!(state(&active), AccountState::Active(_)));
    let code = WalletVersion::get_code(version).expect("the crate has its code");
    assert_eq!(
        active.get_code().map(|cell| *cell.hash().expect("a hash")),
        Some(*code.hash().expect("a hash"))
    );

    let (lt, hash) = last_transaction(&client, &wallet.address).await;
    let all = history(&client, &wallet.address, lt, hash, 16).await;
    assert_eq!(all.len(), 3, "the giver's payment and two of the wallet's own");
    for pair in all.windows(2) {
        let [(_, newer), (older_cell, older)] = pair else { panic!("windows of two") };
        assert_eq!((newer.prev_tx_lt, newer.prev_tx_hash), (older.lt, *older_cell.hash().expect("a hash")));
    }
    for (_, transaction) in &all {
        assert_eq!(transaction.account_addr, wallet.address.hash);
        let TxDescr::Ord(ordinary) = &*transaction.descr else { panic!("only ordinary transactions") };
        assert!(!ordinary.destroyed);
    }
    assert!(matches!(
        all[2].1.msgs.in_msg.as_ref().map(|message| &message.info),
        Some(CommonMsgInfo::Int(_))
    ));
    assert!(matches!(
        all[0].1.msgs.in_msg.as_ref().map(|message| &message.info),
        Some(CommonMsgInfo::ExtIn(_))
    ));

    let (cell, newest_transaction) = &all[0];
    one_transaction_is_found_in_its_block(&client, &wallet.address, cell, newest_transaction).await;
}

/// What an idle account may lose in a test, nanoton.
const RENT: u128 = 1_000;
/// Exit code of a get-method where no code runs.
const NO_CODE: i32 = -256;

async fn one_transaction_is_found_in_its_block(
    client: &LiteClient,
    address: &TonAddress,
    cell: &TonCell,
    transaction: &Tx,
) {
    let header = lookup(client, BASECHAIN, None, Some(transaction.lt), None).await;
    let request =
        GetOneTransaction { id: header.id.clone(), account: account_id(address), lt: transaction.lt };
    let answer = client.exec(Request::GetOneTransaction(request), None, None).await;
    let Ok(Response::TransactionInfo(found)) = answer else { panic!("a transaction: {answer:?}") };
    assert_eq!(found.id, header.id);
    assert_eq!(&TonCell::from_boc(found.transaction).expect("a cell"), cell);
    assert_eq!(proven(&found.proof, 0).repr_hash().0, header.id.root_hash.0);

    for (bits, wanted) in [((None, None), false), ((Some(()), None), false), ((None, Some(())), true)] {
        let request = ListBlockTransactions {
            id: header.id.clone(),
            mode: (),
            count: 100,
            after: None,
            reverse_order: bits.0,
            want_proof: bits.1,
        };
        let answer = client.exec(Request::ListBlockTransactions(request), None, None).await;
        let Ok(Response::BlockTransactions(list)) = answer else { panic!("a list: {answer:?}") };
        assert_eq!((list.id, list.req_count, list.incomplete), (header.id.clone(), 100, false));
        assert!(!list.ids.is_empty());
        if wanted {
            assert_eq!(proven(&list.proof, 0).repr_hash().0, header.id.root_hash.0);
        } else {
            assert!(list.proof.is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_masterchain_is_followed_block_by_block() {
    let chain = LocalChain::start().await;
    let client = chain.client();
    let MasterchainInfo { last, init, .. } = client.get_mc_info().await.expect("masterchain info");
    assert_eq!(last.shard_ident, ShardIdent::new(MASTERCHAIN, WHOLE_SHARD));
    assert_eq!(init.workchain, MASTERCHAIN);

    assert_eq!(client.lookup_mc_block(last.seqno).await.expect("the newest block"), last);
    let mut previous = last.clone();
    for seqno in last.seqno + 1..last.seqno + 4 {
        let id = client.lookup_mc_block(seqno).await.expect("the next block, once there is one");
        let block = client.get_block(id.clone(), None).await.expect("the block is there");
        assert_eq!(block.id, id);
        assert_eq!(block.data.info.seqno, seqno);
        assert!(!block.data.info.not_master);
        assert_eq!(block.data.info.prev_block_ids().expect("one before it"), [previous]);
        let shards = block.data.extra.mc_block_extra.as_ref().expect("a masterchain block").shard_ids();
        let [shard] = &shards[..] else { panic!("one shard: {shards:?}") };
        let named = client.get_block(shard.clone(), None).await.expect("the block it names");
        assert!(named.data.info.not_master);
        assert_eq!(named.data.info.shard, ShardIdent::new(BASECHAIN, WHOLE_SHARD));
        let found =
            client.lookup_block(BASECHAIN, WHOLE_SHARD, shard.seqno).await.expect("it is found by seqno");
        assert_eq!(&found, shard);
        state_is_the_one_of(&client, shard, named.data.state_update.new_hash).await;
        state_is_the_one_of(&client, &id, block.data.state_update.new_hash).await;
        previous = id;
    }

    let zero_id = BlockIdExt {
        shard_ident: ShardIdent::new(MASTERCHAIN, WHOLE_SHARD),
        seqno: 0,
        root_hash: init.root_hash,
        file_hash: init.file_hash,
    };
    let zero = client.get_block_state(zero_id.clone(), None).await.expect("the zero state");
    assert_eq!(
        (zero.root_hash.0, zero.file_hash.0),
        (*zero_id.root_hash.as_slice_sized(), *zero_id.file_hash.as_slice_sized())
    );
    assert_eq!(Boc::decode(&zero.data).expect("a cell").repr_hash().0, zero.root_hash.0);
    assert_eq!(Boc::file_hash(&zero.data).0, zero.file_hash.0);

    let far = client.lookup_mc_block(previous.seqno + 50).await;
    assert_eq!(refusal(far).0, TIMEOUT, "a block that is not due is waited for");
    let farther = client.lookup_mc_block(u32::MAX / 2).await;
    assert_eq!(refusal(farther).0, NOT_READY, "a block that is not due for long is not waited for");
    assert_eq!(refusal(client.lookup_block(BASECHAIN, WHOLE_SHARD, u32::MAX / 2).await).0, NOT_READY);
    let forged = BlockIdExt { root_hash: TonHash::ZERO, ..previous.clone() };
    assert_eq!(refusal(client.get_block(forged, None).await).0, NOT_READY);
    let nobody = TonAddress::new(BASECHAIN, TonHash::from([5; 32]));
    let other_network = client.get_account_state(&nobody, 0, None).await;
    assert_eq!(refusal(other_network).0, NOT_READY, "the crate asks for the mainnet's zero state");

    let libraries = client.get_libs(&[TonHash::from([1; 32]), TonHash::from([2; 32])], None).await;
    assert!(libraries.expect("an answer").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_requests_are_answered_as_a_node_does() {
    let chain = LocalChain::start().await;
    let client = chain.client();
    let wallet = wallet(WalletVersion::V5R1, WALLET_V5R1_ID_DEFAULT_TESTNET, 2);
    chain.give(&wallet.address, TON);
    until("the giver's coins arrive", async || account(&client, &wallet.address).await).await;
    let head = newest(&client).await;
    let head_id: ton_liteapi::tl::common::BlockIdExt = head.clone().into();
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();

    #[allow(deprecated)]
    let time = client.exec_with_timeout(Request::GetTime, None, None).await;
    let Ok(Response::CurrentTime(time)) = time else { panic!("a time: {time:?}") };
    assert!(now_s.abs_diff(time.now.into()) <= 5);
    let version = client.exec(Request::GetVersion, None, None).await;
    assert!(matches!(&version, Ok(Response::Version(version)) if version.version == 0x101), "{version:?}");
    for mode in [0, 1] {
        let request = Request::GetMasterchainInfoExt(GetMasterchainInfoExt { mode });
        let info = client.exec(request, None, None).await;
        let Ok(Response::MasterchainInfoExt(info)) = info else { panic!("masterchain info: {info:?}") };
        assert!(info.last.seqno >= head.seqno && info.now >= info.last_utime);
    }
    let request = Request::GetMasterchainInfoExt(GetMasterchainInfoExt { mode: 2 });
    assert_eq!(refusal(client.exec(request, None, None).await).0, ERROR);
    let waited = client.exec(Request::GetTime, Some(head.seqno + 5), None).await;
    assert!(matches!(waited, Ok(Response::CurrentTime(_))), "{waited:?}");
    assert!(newest(&client).await.seqno >= head.seqno + 5, "the wait came before the answer");

    headers_hold_what_was_asked_for(&client, &head_id).await;
    shards_are_told_and_proven(&client, &head_id).await;
    config_is_told_and_proven(&client, &head_id).await;
    getters_answer(&client, &wallet.address).await;
    transactions_are_refused_or_none(&client, &wallet.address).await;
    pruned_state_has_no_code(&client, &wallet).await;
    what_needs_validators_is_refused(&client, &head_id).await;

    let rubbish = client.send_msg(vec![1, 2, 3], Some(once())).await;
    assert_eq!(refusal(rubbish).0, 0);
    assert!(matches!(client.exec(Request::GetTime, None, None).await, Ok(Response::CurrentTime(_))));

    let metrics = client.metrics();
    assert_eq!(
        (metrics.known_nodes_count, metrics.connections_per_node, metrics.ongoing_requests),
        (1, 1, 0)
    );
    assert!(
        metrics.requests_ok.values().sum::<u64>() > 20 && metrics.requests_failed.values().sum::<u64>() > 5
    );
    assert!(metrics.retries_count_total.values().all(|retries| *retries == 0));
}

async fn headers_hold_what_was_asked_for(client: &LiteClient, id: &ton_liteapi::tl::common::BlockIdExt) {
    let bare = GetBlockHeader {
        id: id.clone(),
        mode: (),
        with_state_update: None,
        with_value_flow: None,
        with_extra: None,
        with_shard_hashes: None,
        with_prev_blk_signatures: None,
    };
    let full = GetBlockHeader {
        with_state_update: Some(()),
        with_value_flow: Some(()),
        with_extra: Some(()),
        with_shard_hashes: Some(()),
        with_prev_blk_signatures: Some(()),
        ..bare.clone()
    };
    for request in [bare, full.clone()] {
        let answer = client.exec(Request::GetBlockHeader(request.clone()), None, None).await;
        let Ok(Response::BlockHeader(header)) = answer else { panic!("a header: {answer:?}") };
        assert_eq!(&header.id, id);
        assert_eq!(header.with_extra, request.with_extra);
        assert_eq!(header.with_prev_blk_signatures, request.with_prev_blk_signatures);
        let block = proven(&header.header_proof, 0);
        assert_eq!(block.repr_hash().0, id.root_hash.0);
        if request.with_extra.is_some() {
            let block: everscale_types::models::Block = block.parse().expect("a block");
            let extra = block.load_extra().expect("the extra is in the proof");
            let extra =
                extra.load_custom().expect("so is what is of the masterchain").expect("a masterchain block");
            assert_eq!(extra.shards.iter().filter_map(Result::ok).count(), 1);
        }
    }

    let by_seqno = lookup(client, MASTERCHAIN, Some(id.seqno), None, None).await;
    assert_eq!(&by_seqno.id, id);
    let by_time = lookup(client, MASTERCHAIN, None, None, Some(u32::MAX)).await;
    assert!(by_time.id.seqno >= id.seqno);
    let with_extra =
        LookupBlock { with_extra: Some(()), ..lookup_request(MASTERCHAIN, Some(id.seqno), None, None) };
    let answer = client.exec(Request::LookupBlock(with_extra), None, None).await;
    let Ok(Response::BlockHeader(header)) = answer else { panic!("a header: {answer:?}") };
    assert_eq!(header.with_extra, Some(()), "a lookup's answer speaks of its modes as a header's does");
    let without_a_key = lookup_request(MASTERCHAIN, None, None, None);
    assert_eq!(refusal(client.exec(Request::LookupBlock(without_a_key), None, None).await).0, ERROR);
    let two_keys = lookup_request(MASTERCHAIN, Some(1), Some(1), None);
    assert_eq!(refusal(client.exec(Request::LookupBlock(two_keys), None, None).await).0, ERROR);
}

async fn shards_are_told_and_proven(client: &LiteClient, id: &ton_liteapi::tl::common::BlockIdExt) {
    let request = GetShardInfo { id: id.clone(), workchain: BASECHAIN, shard: WHOLE_SHARD, exact: true };
    let answer = client.exec(Request::GetShardInfo(request.clone()), None, None).await;
    let Ok(Response::ShardInfo(shard)) = answer else { panic!("a shard: {answer:?}") };
    let description: ton::block_tlb::ShardDescr = TLB::from_boc(shard.shard_descr).expect("a description");
    assert_eq!(description.seqno, shard.shardblk.seqno);
    assert_eq!(*description.root_hash.as_slice_sized(), shard.shardblk.root_hash.0);
    assert_eq!(proven(&shard.shard_proof, 0).repr_hash().0, id.root_hash.0);

    for missing in [
        GetShardInfo { workchain: 7, ..request.clone() },
        GetShardInfo { shard: WHOLE_SHARD >> 1, ..request.clone() },
    ] {
        let answer = client.exec(Request::GetShardInfo(missing), None, None).await;
        let Ok(Response::ShardInfo(none)) = answer else { panic!("an answer without a shard: {answer:?}") };
        assert!(none.shard_descr.is_empty());
        assert_eq!((none.shardblk.workchain, none.shardblk.seqno), (i32::MIN, 0));
    }
    let inexact = GetShardInfo { shard: WHOLE_SHARD >> 1, exact: false, ..request };
    let answer = client.exec(Request::GetShardInfo(inexact), None, None).await;
    assert!(
        matches!(&answer, Ok(Response::ShardInfo(found)) if found.shardblk == shard.shardblk),
        "{answer:?}"
    );

    let answer =
        client.exec(Request::GetAllShardsInfo(GetAllShardsInfo { id: id.clone() }), None, None).await;
    let Ok(Response::AllShardsInfo(all)) = answer else { panic!("shards: {answer:?}") };
    assert!(BoC::from_bytes(all.proof.clone()).expect("a bag").get_root(1).is_none(), "one root: the block");
    let block = proven(&all.proof, 0);
    assert_eq!(block.repr_hash().0, id.root_hash.0);
    let child = |cell: Cell, at| cell.reference_cloned(at).expect("in the proof");
    let of_masterchain = child(child(block, 3), 3);
    let dictionary = child(of_masterchain, 0);
    let data = Boc::decode(&all.data).expect("a cell");
    assert_eq!(dictionary.repr_hash(), child(data, 0).repr_hash(), "the block holds these shards");
}

async fn config_is_told_and_proven(client: &LiteClient, id: &ton_liteapi::tl::common::BlockIdExt) {
    let answer = client.exec(Request::GetConfigAll(config_request(id)), None, None).await;
    let Ok(Response::ConfigInfo(all)) = answer else { panic!("a config: {answer:?}") };
    let params = crate_config(&all);
    let version = params.global_version().expect("parameter 8");
    assert!(version.version >= 4 && version.capabilities != 0);
    let prices = params.storage_prices().expect("parameter 18");
    assert!(prices.get_first().expect("one entry").bit_price_ps > 0);
    assert_eq!(proven(&all.state_proof, 0).repr_hash().0, id.root_hash.0);
    let state: ShardStateUnsplit = proven(&all.config_proof, 0).parse().expect("a state");
    assert_eq!(state.seqno, id.seqno);

    let GetConfigAll { id, .. } = config_request(id);
    let request = GetConfigParams {
        mode: (),
        id,
        param_list: vec![8, 18],
        with_state_root: None,
        with_libraries: None,
        with_state_extra_root: None,
        with_shard_hashes: None,
        with_validator_set: None,
        with_special_smc: None,
        with_accounts_root: None,
        with_prev_blocks: None,
        with_workchain_info: None,
        with_capabilities: None,
        extract_from_key_block: None,
    };
    let answer = client.exec(Request::GetConfigParams(request.clone()), None, None).await;
    let Ok(Response::ConfigInfo(some)) = answer else { panic!("a config: {answer:?}") };
    let state: ShardStateUnsplit = proven(&some.config_proof, 0).parse().expect("a state");
    let extra = state.load_custom().expect("in the proof").expect("a masterchain state");
    assert_eq!(extra.config.get_global_version().expect("parameter 8").version, version.version);
    assert!(extra.config.get_storage_prices().is_ok(), "parameter 18");
    assert!(extra.config.get_gas_prices(false).is_err(), "what was not asked for is pruned");
    assert!(some.config_proof.len() < all.config_proof.len());
    let answer = client.exec(
        Request::GetConfigParams(GetConfigParams { param_list: vec![999], ..request }),
        None,
        None,
    );
    assert!(matches!(answer.await, Ok(Response::ConfigInfo(_))), "a parameter that is not there is no error");
}

async fn getters_answer(client: &LiteClient, address: &TonAddress) {
    let head = newest(client).await;
    let request = RunSmcMethod {
        mode: 0x17,
        id: head.clone().into(),
        account: account_id(address),
        method_id: method_id("seqno"),
        params: TVMStack::EMPTY_BOC.to_vec(),
    };
    let answer = client.exec(Request::RunSmcMethod(request.clone()), None, None).await;
    let Ok(Response::RunMethodResult(result)) = answer else { panic!("a result: {answer:?}") };
    assert_eq!(result.exit_code, NO_CODE);
    assert_eq!(result.result.as_deref(), Some(&[][..]), "nothing ran, nothing is on the stack");
    assert_eq!(
        proven(result.proof.as_deref().expect("asked for"), 0).repr_hash().0,
        result.shardblk.root_hash.0
    );
    let account = proven(result.state_proof.as_deref().expect("asked for"), 0);
    assert_eq!(
        account.repr_hash(),
        shard_account(&proven(result.proof.as_deref().expect("asked for"), 1), address)
            .account
            .inner()
            .repr_hash()
    );
    assert_eq!(result.lib_extras.as_deref(), Some(&[][..]));

    for (mode, params) in [(0x40, vec![]), (4, vec![0; 70_000]), (4, vec![1, 2, 3])] {
        let bad = RunSmcMethod { mode, params, ..request.clone() };
        assert_eq!(refusal(client.exec(Request::RunSmcMethod(bad), None, None).await).0, ERROR);
    }
}

async fn transactions_are_refused_or_none(client: &LiteClient, address: &TonAddress) {
    let (lt, hash) = last_transaction(client, address).await;
    assert!(history(client, address, lt, hash, 0).await.is_empty(), "none are asked for");
    assert!(
        history(client, address, 0, TonHash::ZERO, 10).await.is_empty(),
        "before the first there are none"
    );
    let ask = async |lt, hash: TonHash| {
        let account = account_id(address);
        let request = GetTransactions { count: 1, account, lt, hash: Int256(*hash.as_slice_sized()) };
        refusal(client.exec(Request::GetTransactions(request), None, None).await)
    };
    assert_eq!(ask(lt, TonHash::ZERO).await, (ERROR, "transaction hash mismatch".into()));
    assert_eq!(ask(lt + 1, hash).await.0, ERROR);
}

async fn pruned_state_has_no_code(client: &LiteClient, wallet: &TonWallet) {
    let message = transfer(wallet, 0, &wallet.address, 1, true);
    client.send_msg(message, Some(once())).await.expect("the wallet accepts it");
    until("the wallet is deployed", async || account(client, &wallet.address).await?.as_active().map(|_| ()))
        .await;
    let request = GetAccountState { id: newest(client).await.into(), account: account_id(&wallet.address) };
    let whole = account_answer(client, Request::GetAccountState(request.clone())).await;
    let pruned = account_answer(client, Request::GetAccountStatePrunned(request)).await;
    assert!(pruned.state.len() < whole.state.len() / 2);
    let virtual_root = proven(&pruned.state, 0);
    let root = Boc::decode(&whole.state).expect("a cell");
    assert_eq!(virtual_root.repr_hash(), root.repr_hash());
    let (whole, pruned) = (root.data(), virtual_root.data());
    assert_eq!(whole, pruned);

    let by_shard =
        GetAccountState { id: whole_shard_block(client).await, account: account_id(&wallet.address) };
    let answer = account_answer(client, Request::GetAccountState(by_shard.clone())).await;
    assert_eq!(
        (&answer.id, &answer.shardblk),
        (&by_shard.id, &by_shard.id),
        "a shard's own block proves by itself"
    );
    assert!(answer.shard_proof.is_empty() && !answer.state.is_empty());
    let nowhere = AccountId { workchain: 7, id: Int256([1; 32]) };
    let request = GetAccountState { id: newest(client).await.into(), account: nowhere };
    let answer = account_answer(client, Request::GetAccountState(request)).await;
    assert!(answer.state.is_empty() && answer.proof.is_empty(), "no workchain, no state");
    assert_eq!(answer.shardblk.workchain, i32::MIN);
}

async fn what_needs_validators_is_refused(client: &LiteClient, id: &ton_liteapi::tl::common::BlockIdExt) {
    let zero = Int256([0; 32]);
    let requests = [
        Request::LookupBlockWithProof(LookupBlockWithProof {
            mode: (),
            id: BlockId { workchain: BASECHAIN, shard: WHOLE_SHARD, seqno: 1 },
            mc_block_id: id.clone(),
            seqno: Some(()),
            lt: None,
            utime: None,
            with_state_update: None,
            with_value_flow: None,
            with_extra: None,
            with_shard_hashes: None,
            with_prev_blk_signatures: None,
        }),
        Request::GetBlockProof(GetBlockProof {
            mode: (),
            known_block: id.clone(),
            target_block: None,
            allow_weak_target: None,
            base_block_from_request: None,
        }),
        Request::GetValidatorStats(GetValidatorStats {
            mode: (),
            id: id.clone(),
            limit: 1,
            start_after: None,
            modified_after: None,
        }),
        Request::GetLibrariesWithProof(GetLibrariesWithProof {
            id: id.clone(),
            mode: (),
            library_list: vec![zero.clone()],
        }),
        Request::GetShardBlockProof(GetShardBlockProof { id: id.clone() }),
        Request::GetOutMsgQueueSizes(GetOutMsgQueueSizes { mode: (), shard_id: None }),
        Request::GetBlockOutMsgQueueSize(GetBlockOutMsgQueueSize {
            mode: (),
            id: id.clone(),
            want_proof: None,
        }),
        Request::GetDispatchQueueInfo(GetDispatchQueueInfo {
            mode: (),
            id: id.clone(),
            want_proof: None,
            after_addr: None,
            max_accounts: 1,
        }),
        Request::GetDispatchQueueMessages(GetDispatchQueueMessages {
            mode: (),
            id: id.clone(),
            addr: zero,
            after_lt: 0,
            max_messages: 1,
            want_proof: None,
            one_account: None,
            message_boc: None,
        }),
    ];
    for request in requests {
        let (code, reason) = refusal(client.exec(request.clone(), None, None).await);
        assert_eq!(code, PROTOCOL_VIOLATION, "{request:?}");
        assert!(reason.starts_with("unknown method"), "{reason}");
    }
}

fn wallet(version: WalletVersion, wallet_id: i32, seed: u8) -> TonWallet {
    let key = SigningKey::from_bytes(&[seed; 32]);
    let key_pair = KeyPair { public_key: key.verifying_key().to_bytes(), secret_key: key.to_keypair_bytes() };
    TonWallet::new_with_params(version, key_pair, BASECHAIN, wallet_id).expect("a wallet")
}

fn transfer(wallet: &TonWallet, seqno: u32, to: &TonAddress, nanoton: u128, deploys: bool) -> Vec<u8> {
    let info = CommonMsgInfoInt {
        bounce: false,
        ..CommonMsgInfoInt::new(to.to_msg_address(), TLBCoins::new(nanoton))
    };
    let payment = Msg::new(CommonMsgInfo::Int(info), TonCell::empty().clone()).to_cell().expect("a message");
    let expire_at =
        SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970") + Duration::from_secs(60);
    let expire_at = u32::try_from(expire_at.as_secs()).expect("before 2106");
    let message = wallet.create_ext_in_msg(vec![payment], seqno, expire_at, deploys).expect("signed");
    message.to_boc().expect("a bag of cells")
}

async fn newest(client: &LiteClient) -> BlockIdExt {
    client.get_mc_info().await.expect("masterchain info").last
}

async fn account(client: &LiteClient, address: &TonAddress) -> Option<MaybeAccount> {
    client.get_account_state(address, newest(client).await.seqno, None).await.ok()
}

async fn balance(client: &LiteClient, address: &TonAddress) -> u128 {
    account(client, address)
        .await
        .and_then(|account| Some(account.get_balance()?.to_u128()))
        .expect("it exists")
}

fn state(account: &MaybeAccount) -> &AccountState {
    &account.as_account().expect("it exists").storage.state
}

/// The seqno that the wallet's get-method tells, or the exit code with which it ended.
async fn seqno_of(client: &LiteClient, address: &TonAddress) -> Result<i64, i32> {
    let request = RunSmcMethod {
        mode: 4,
        id: newest(client).await.into(),
        account: account_id(address),
        method_id: method_id("seqno"),
        params: TVMStack::EMPTY_BOC.to_vec(),
    };
    let answer = client.exec(Request::RunSmcMethod(request), None, None).await;
    let Ok(Response::RunMethodResult(RunMethodResult { exit_code, result, .. })) = answer else {
        panic!("a result: {answer:?}")
    };
    if exit_code != 0 {
        return Err(exit_code);
    }
    let mut stack = TVMStack::from_boc(result.expect("asked for")).expect("a stack");
    let seqno = stack.pop_tiny_int().expect("a number");
    stack.ensure_empty().expect("nothing else");
    Ok(seqno)
}

fn method_id(name: &'static str) -> u64 {
    let id = ton::contracts::TVMGetMethodID::from(name).to_id();
    u64::try_from(id).expect("it is positive")
}

/// Logical time and hash of an account's last transaction: `get_account_state` drops them, the proof has them.
async fn last_transaction(client: &LiteClient, address: &TonAddress) -> (u64, TonHash) {
    let request = GetAccountState { id: newest(client).await.into(), account: account_id(address) };
    let answer = account_answer(client, Request::GetAccountState(request)).await;
    let [shard_header, shard_state] = [0, 1].map(|root| proven(&answer.proof, root));
    assert_eq!(shard_header.repr_hash().0, answer.shardblk.root_hash.0);
    let block: everscale_types::models::Block = shard_header.parse().expect("a block");
    let update = block.load_state_update().expect("in the proof");
    assert_eq!(&update.new_hash, shard_state.repr_hash(), "the block leads to this state");
    assert_eq!(proven(&answer.shard_proof, 0).repr_hash().0, answer.id.root_hash.0);
    let found = shard_account(&shard_state, address);
    let account = Boc::decode(&answer.state).expect("a cell");
    assert_eq!(found.account.inner().repr_hash(), account.repr_hash(), "the state holds this account");
    (found.last_trans_lt, TonHash::from(found.last_trans_hash.0))
}

fn shard_account(shard_state: &Cell, address: &TonAddress) -> ShardAccount {
    let state: ShardStateUnsplit = shard_state.parse().expect("a state");
    let accounts = state.load_accounts().expect("in the proof");
    let (_, found) = accounts
        .get(HashBytes(*address.hash.as_slice_sized()))
        .expect("its branch is in the proof")
        .expect("it exists");
    found
}

async fn account_answer(client: &LiteClient, request: Request) -> AccountAnswer {
    match client.exec(request, None, None).await {
        Ok(Response::AccountState(answer)) => answer,
        other => panic!("an account's state: {other:?}"),
    }
}

/// Transactions from `lt` back, each with its cell.
async fn history(
    client: &LiteClient,
    address: &TonAddress,
    lt: u64,
    hash: TonHash,
    count: u32,
) -> Vec<(TonCell, Tx)> {
    let hash = Int256(*hash.as_slice_sized());
    let request = GetTransactions { count, account: account_id(address), lt, hash };
    let answer = client.exec(Request::GetTransactions(request), None, None).await;
    let Ok(Response::TransactionList(TransactionList { ids, transactions })) = answer else {
        panic!("a list: {answer:?}")
    };
    if ids.is_empty() {
        assert!(transactions.is_empty());
        return Vec::new();
    }
    let bag = BoC::from_bytes(transactions).expect("a bag of cells");
    assert!(bag.get_root(ids.len()).is_none(), "as many roots as blocks");
    let root = |at| bag.get_root(at).expect("as many roots as blocks");
    (0..ids.len()).map(|at| (root(at).clone(), Tx::from_cell(root(at)).expect("a transaction"))).collect()
}

async fn lookup(
    client: &LiteClient,
    workchain: i32,
    seqno: Option<u32>,
    lt: Option<u64>,
    utime: Option<u32>,
) -> BlockHeader {
    let answer =
        client.exec(Request::LookupBlock(lookup_request(workchain, seqno, lt, utime)), None, None).await;
    let Ok(Response::BlockHeader(header)) = answer else { panic!("a header: {answer:?}") };
    assert_eq!(proven(&header.header_proof, 0).repr_hash().0, header.id.root_hash.0);
    header
}

fn lookup_request(workchain: i32, seqno: Option<u32>, lt: Option<u64>, utime: Option<u32>) -> LookupBlock {
    LookupBlock {
        mode: (),
        id: BlockId { workchain, shard: WHOLE_SHARD, seqno: seqno.unwrap_or_default() },
        seqno: seqno.map(|_| ()),
        lt,
        utime,
        with_state_update: None,
        with_value_flow: None,
        with_extra: None,
        with_shard_hashes: None,
        with_prev_blk_signatures: None,
    }
}

async fn whole_shard_block(client: &LiteClient) -> ton_liteapi::tl::common::BlockIdExt {
    let id = newest(client).await.into();
    let request = GetShardInfo { id, workchain: BASECHAIN, shard: WHOLE_SHARD, exact: true };
    match client.exec(Request::GetShardInfo(request), None, None).await {
        Ok(Response::ShardInfo(shard)) => shard.shardblk,
        other => panic!("a shard: {other:?}"),
    }
}

async fn state_is_the_one_of(client: &LiteClient, block: &BlockIdExt, hash: TonHash) {
    let state = client.get_block_state(block.clone(), None).await.expect("the state is there");
    assert_eq!(BlockIdExt::from(state.id), *block);
    assert_eq!(state.root_hash.0, *hash.as_slice_sized());
    assert_eq!(Boc::decode(&state.data).expect("a cell").repr_hash().0, state.root_hash.0);
    assert_eq!(Boc::file_hash(&state.data).0, state.file_hash.0);
}

fn config_request(id: &ton_liteapi::tl::common::BlockIdExt) -> GetConfigAll {
    GetConfigAll {
        mode: (),
        id: id.clone(),
        with_state_root: None,
        with_libraries: None,
        with_state_extra_root: None,
        with_shard_hashes: None,
        with_validator_set: None,
        with_special_smc: None,
        with_accounts_root: None,
        with_prev_blocks: None,
        with_workchain_info: None,
        with_capabilities: None,
        extract_from_key_block: None,
    }
}

/// The config as the `ton` crate reads it: `McStateExtra` is the fourth child of a masterchain state, and the config
/// follows its tag and the dictionary of shards.
fn crate_config(answer: &ConfigInfo) -> ConfigParams {
    let proof = TonCell::from_boc(answer.config_proof.clone()).expect("a proof");
    let state = &proof.refs()[0];
    let mut extra = state.refs()[3].parser();
    extra.read_bits(16).expect("a tag");
    if extra.read_bit().expect("a dictionary") {
        extra.read_next_ref().expect("its root");
    }
    ConfigParams::read(&mut extra).expect("the crate reads the config")
}

/// The cell that a root of a proof stands for. The crate's own reader checks the hashes of the whole bag first.
fn proven(bag: &[u8], root: usize) -> Cell {
    let bag = BoC::from_bytes(bag.to_vec()).expect("the crate reads the proof");
    let root = bag.get_root(root).expect("a root").to_boc().expect("a bag of cells");
    let proof: MerkleProof = Boc::decode(root).expect("a cell").parse().expect("a Merkle proof");
    Cell::virtualize(proof.cell)
}

fn account_id(address: &TonAddress) -> AccountId {
    AccountId { workchain: address.workchain, id: Int256(*address.hash.as_slice_sized()) }
}

/// Code and words with which the server refused.
fn refusal<T: std::fmt::Debug>(answer: Result<T, TonError>) -> (i32, String) {
    match answer {
        Err(TonError::LiteClientErrorResponse(error)) => (error.code, error.message.to_string()),
        other => panic!("a refusal: {other:?}"),
    }
}
