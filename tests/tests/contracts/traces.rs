//! The tables of `docs/fees.md` are those of the committed snapshot, and the snapshot is of the committed contracts.
//! `npm run fees` in `tests/emulator` measures anew, `UPDATE_SNAPSHOTS=1` writes the tables.

use std::collections::BTreeMap;
use std::fmt::Write;

use contracts::artifacts::{Contract, artifact};
use serde_json::Value;

type Table = fn(&Value) -> String;

const SNAPSHOT: &str = include_str!("../../snapshots/fees.json");
const PAGE: &str = include_str!("../../../docs/fees.md");
const PAGE_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/fees.md");
const TABLES: [(&str, Table); 2] = [("traces", traces), ("minima", minima)];

fn ton(nanoton: u64) -> String {
    format!("{:.4}", nanoton as f64 / 1e9)
}

fn traces(snapshot: &Value) -> String {
    let mut table = "| what | transactions | gas | fees, TON |\n| --- | --- | --- | --- |\n".to_owned();
    for row in snapshot["traces"].as_array().unwrap() {
        let what = row["what"].as_str().unwrap();
        let fees = ton(row["fees"].as_u64().unwrap());
        writeln!(table, "| {what} | {} | {} | {fees} |", row["transactions"], row["gas"]).unwrap();
    }
    table
}

fn minima(snapshot: &Value) -> String {
    let mut table =
        "| message | least above the deposit, TON | used of it, TON | above |\n| --- | --- | --- | --- |\n"
            .to_owned();
    for row in snapshot["minima"].as_array().unwrap() {
        let message = row["message"].as_str().unwrap();
        let (attached, used) = (row["attached"].as_u64().unwrap(), row["used"].as_u64().unwrap());
        let above = (attached - used) as f64 * 100.0 / used as f64;
        let (attached, used) = (ton(attached), ton(used));
        writeln!(table, "| `{message}` | {attached} | {used} | {above:.0} % |").unwrap();
    }
    table
}

#[test]
fn the_snapshot_is_of_the_committed_contracts() {
    let snapshot: Value = serde_json::from_str(SNAPSHOT).unwrap();
    let hashes: BTreeMap<String, String> = serde_json::from_value(snapshot["code_hashes"].clone()).unwrap();
    let committed = [Contract::Model, Contract::Worker, Contract::Job, Contract::Platform]
        .map(|contract| (contract.name().to_owned(), artifact(contract).code.repr_hash().to_string()));
    assert_eq!(hashes, BTreeMap::from(committed), "run `npm run fees` in tests/emulator");
}

#[test]
fn the_page_shows_the_snapshot() {
    let snapshot: Value = serde_json::from_str(SNAPSHOT).unwrap();
    let mut page = PAGE.to_owned();
    for (name, table) in TABLES {
        let (start, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
        let from = page.find(&start).unwrap() + start.len();
        let to = page.find(&end).unwrap();
        page.replace_range(from..to, &table(&snapshot));
    }
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(PAGE_FILE, &page).unwrap();
    } else {
        assert_eq!(page, PAGE, "run this test with UPDATE_SNAPSHOTS=1 and commit docs/fees.md");
    }
}

#[test]
fn the_least_value_is_at_most_three_tenths_above_what_is_used() {
    let snapshot: Value = serde_json::from_str(SNAPSHOT).unwrap();
    for row in snapshot["minima"].as_array().unwrap() {
        let message = row["message"].as_str().unwrap();
        let (attached, used) = (row["attached"].as_u64().unwrap(), row["used"].as_u64().unwrap());
        assert!(used <= attached && 10 * attached <= 13 * used, "{message}: {used} of {attached}");
    }
}
