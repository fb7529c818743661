//! Replays what the official emulator made of each message (`tests/emulator`) and compares.
//!
//! Gas, exit codes, fees, balance, messages sent and the account's whole state have to be equal. The transaction's hash
//! has to be equal too, but for the fixtures that `differences.txt` names, whose reasons are in `DIFFERENCES.md`.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use serde::Deserialize;
use tvm_executor::{Environment, PrevBlocks, TvmError, Vm};
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, HashBytes};
use tycho_types::models::{
    Account, AccountState, BlockId, ComputePhase, CurrencyCollection, IntAddr, Message, MsgInfo,
    OptionalAccount, ShardAccount, StateInit, StdAddr, StorageInfo, Transaction, TxInfo,
};

#[derive(Deserialize)]
struct Fixture {
    name: String,
    now: u32,
    lt: String,
    account: String,
    message: String,
    prev_blocks: Option<PrevBlockIds>,
    libraries: Option<String>,
    expect: Expected,
}

/// A get-method without arguments.
#[derive(Deserialize)]
struct GetterFixture {
    name: String,
    now: u32,
    libraries: Option<String>,
    getter: Getter,
}

#[derive(Deserialize)]
struct Getter {
    address: String,
    code: String,
    data: String,
    method: u32,
    exit_code: i32,
    gas_used: u64,
    stack: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Recorded {
    Transaction(Box<Fixture>),
    Getter(GetterFixture),
}

/// Each id is `workchain:shard:seqno:root_hash:file_hash`.
#[derive(Deserialize)]
struct PrevBlockIds {
    last_16: Vec<String>,
    key_block: String,
    last_16_by_100: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Expected {
    Refused { refused: i32 },
    Applied { transaction: String, account: String },
}

fn fixtures() -> Vec<Fixture> {
    let mut all: Vec<Fixture> = Vec::new();
    all.extend(of_libraries().into_iter().filter_map(|recorded| match recorded {
        Recorded::Transaction(fixture) => Some(*fixture),
        Recorded::Getter(_) => None,
    }));
    for text in [
        include_str!("../../../tests/emulator/fixtures/wallets.json"),
        include_str!("../../../tests/emulator/fixtures/contracts.json"),
        include_str!("../../../tests/emulator/fixtures/opcodes.json"),
        include_str!("../../../tests/emulator/fixtures/attestor.json"),
    ] {
        all.extend(serde_json::from_str::<Vec<Fixture>>(text).unwrap());
    }
    all
}

fn of_libraries() -> Vec<Recorded> {
    serde_json::from_str(include_str!("../../../tests/emulator/fixtures/libraries.json")).unwrap()
}

fn cell(base64: &str) -> Cell {
    Boc::decode_base64(base64).unwrap()
}

fn prev_blocks(ids: &PrevBlockIds) -> PrevBlocks {
    let id = |text: &String| text.parse::<BlockId>().unwrap();
    PrevBlocks {
        last_16: ids.last_16.iter().map(id).collect(),
        key_block: id(&ids.key_block),
        last_16_by_100: ids.last_16_by_100.iter().flatten().map(id).collect(),
    }
}

fn destination(message: &Cell) -> (StdAddr, bool) {
    match message.parse::<Message<'_>>().unwrap().info {
        MsgInfo::Int(info) => (info.dst.as_std().unwrap().clone(), false),
        MsgInfo::ExtIn(info) => (info.dst.as_std().unwrap().clone(), true),
        MsgInfo::ExtOut(_) => panic!("an outbound message"),
    }
}

/// What must be equal, in words that a failure shows.
fn essence(transaction: &Transaction) -> String {
    let TxInfo::Ordinary(info) = transaction.load_info().unwrap() else { panic!("a tick-tock") };
    let compute = match info.compute_phase {
        ComputePhase::Executed(run) => {
            format!("exit {} gas {} fees {}", run.exit_code, run.gas_used, run.gas_fees)
        }
        ComputePhase::Skipped(skipped) => format!("skipped {:?}", skipped.reason),
    };
    let action = info.action_phase.map(|action| {
        format!(
            "action {} fees {:?} {:?} messages {}",
            action.result_code, action.total_fwd_fees, action.total_action_fees, action.messages_created
        )
    });
    let storage = info.storage_phase.map(|storage| {
        format!(
            "{} due {:?} {:?}",
            storage.storage_fees_collected, storage.storage_fees_due, storage.status_change
        )
    });
    let out: Vec<String> =
        transaction.out_msgs.values().map(|message| message.unwrap().repr_hash().to_string()).collect();
    format!(
        "{compute}; {action:?}; storage {storage:?}; aborted {} destroyed {}; total {}; {:?} to {:?}; out {out:?}",
        info.aborted,
        info.destroyed,
        transaction.total_fees.tokens,
        transaction.orig_status,
        transaction.end_status
    )
}

/// The account without what only accounting of storage statistics says.
fn state(account: &ShardAccount) -> String {
    match account.account.load().unwrap() {
        OptionalAccount(None) => "none".to_owned(),
        OptionalAccount(Some(account)) => {
            format!("{} {:?} {:?}", account.address, account.balance, account.state)
        }
    }
}

#[test]
fn the_official_emulator_makes_the_same_of_every_message() {
    let vm = Vm::new(-3).unwrap();
    let all = fixtures();
    assert!(all.len() >= 1_000, "{} fixtures", all.len());
    let named: BTreeSet<&str> = include_str!("../differences.txt").lines().collect();
    let mut wrong = Vec::new();
    let mut other_hash = BTreeSet::new();
    for fixture in &all {
        let account = cell(&fixture.account).parse::<ShardAccount>().unwrap();
        let message = cell(&fixture.message);
        let (address, external) = destination(&message);
        let lt: u64 = fixture.lt.parse().unwrap();
        let environment = Environment {
            utime: fixture.now,
            block_lt: lt,
            rand_seed: HashBytes::ZERO,
            prev_blocks: fixture.prev_blocks.as_ref().map(prev_blocks).unwrap_or_default(),
            libraries: fixture.libraries.as_deref().map(cell),
        };
        let done = vm.execute(&environment, lt, &address, &account, &message, external);
        match (&fixture.expect, done) {
            (Expected::Refused { refused }, Err(TvmError::NotAccepted { exit_code })) => {
                if *refused != exit_code {
                    wrong.push(format!("{}: refused with {exit_code}, not {refused}", fixture.name));
                }
            }
            (Expected::Applied { transaction, account }, Ok(done)) => {
                let expected_cell = cell(transaction);
                let expected = expected_cell.parse::<Transaction>().unwrap();
                let made = done.transaction.load().unwrap();
                let (expected_text, made_text) = (essence(&expected), essence(&made));
                if expected_text != made_text {
                    wrong.push(format!(
                        "{}:\n  expected {expected_text}\n  made     {made_text}",
                        fixture.name
                    ));
                    continue;
                }
                let expected_account = cell(account).parse::<ShardAccount>().unwrap();
                if state(&expected_account) != state(&done.account) {
                    wrong.push(format!("{}: another account", fixture.name));
                }
                if expected_cell.repr_hash() != done.transaction.inner().repr_hash() {
                    other_hash.insert(fixture.name.as_str());
                }
            }
            (_, Ok(_)) => wrong.push(format!("{}: applied, but the emulator refuses it", fixture.name)),
            (_, Err(error)) => wrong.push(format!("{}: {error}", fixture.name)),
        }
    }
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        let text = other_hash.iter().map(|name| format!("{name}\n")).collect::<String>();
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/differences.txt"), text).unwrap();
    } else {
        assert_eq!(other_hash, named, "fixtures whose transaction hash differs");
    }
    println!("{} fixtures, {} with another transaction hash", all.len(), other_hash.len());
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), all.len(), wrong.join("\n"));
}

#[test]
fn the_official_emulator_gives_the_same_from_every_getter() {
    let vm = Vm::new(-3).unwrap();
    let mut wrong = Vec::new();
    let mut count = 0;
    for fixture in of_libraries() {
        let Recorded::Getter(GetterFixture { name, now, libraries, getter }) = fixture else { continue };
        count += 1;
        let state = StateInit {
            code: Some(cell(&getter.code)),
            data: Some(cell(&getter.data)),
            ..StateInit::default()
        };
        let account = Account {
            address: IntAddr::Std(getter.address.parse().unwrap()),
            storage_stat: StorageInfo::default(),
            last_trans_lt: 0,
            balance: CurrencyCollection::ZERO,
            state: AccountState::Active(state),
        };
        let environment =
            Environment { utime: now, libraries: libraries.as_deref().map(cell), ..Environment::default() };
        let output = vm.run_getter(&environment, &account, getter.method, &no_arguments()).unwrap();
        let expected = (getter.exit_code, getter.gas_used);
        if expected != (output.exit_code, output.gas_used) {
            let made = (output.exit_code, output.gas_used);
            wrong.push(format!("{name}: exit code and gas {made:?}, not {expected:?}"));
        } else if cell(&getter.stack).repr_hash() != output.stack.repr_hash() {
            wrong.push(format!("{name}: another stack"));
        }
    }
    assert!(count >= 10, "{count} get-methods");
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// `VmStack` of depth 0.
fn no_arguments() -> Cell {
    let mut builder = CellBuilder::new();
    builder.store_uint(0, 24).unwrap();
    builder.build().unwrap()
}
