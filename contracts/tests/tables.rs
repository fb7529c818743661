//! The tables of `docs/protocol.md` and `chrysalis.tlb` say what the code says.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use contracts::errors::{ContractError, Party, RejectionReason};
use contracts::opcodes;

const TLB: &str = include_str!("../chrysalis.tlb");
const PROTOCOL: &str = include_str!("../../docs/protocol.md");

#[test]
fn opcodes_are_those_of_the_tlb_and_unique() {
    let mut expected = BTreeMap::new();
    for line in TLB.lines() {
        let Some((name, rest)) = line.split_once('#') else {
            continue;
        };
        let digits: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
        if digits.len() == 8 && name.chars().all(|c| c == '_' || c.is_ascii_lowercase()) {
            let code = u32::from_str_radix(&digits, 16).unwrap();
            assert_eq!(expected.insert(code, name), None, "{digits} twice");
        }
    }
    let actual: BTreeMap<u32, &str> = opcodes::ALL.iter().copied().collect();
    assert_eq!(actual.len(), opcodes::ALL.len());
    assert_eq!(actual, expected);
}

#[test]
fn error_codes_are_those_of_the_protocol() {
    let mut documented = BTreeSet::new();
    for line in PROTOCOL.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, code, name, party, ..] = cells[..] else {
            continue;
        };
        let Ok(code) = code.parse::<i32>() else {
            continue;
        };
        let Some(error) = ContractError::from_code(code) else {
            continue;
        };
        assert_eq!(error.name(), name);
        let expected = match error.party() {
            Party::Sender => "sender",
            Party::Client => "client",
            Party::Worker => "worker",
            Party::Publisher => "publisher",
        };
        assert!(party.starts_with(expected), "{name}: {party}");
        assert!(documented.insert(code), "{code} twice");
    }
    assert_eq!(documented.len(), ContractError::ALL.len());
}

#[test]
fn rejection_reasons_are_those_of_the_protocol() {
    let line = PROTOCOL.split("## Rejection reasons").nth(1).unwrap().trim().lines().next().unwrap();
    let expected: Vec<String> = RejectionReason::ALL
        .iter()
        .map(|reason| format!("{} {}", reason.code(), reason.description()))
        .collect();
    assert_eq!(line.split(" · ").collect::<Vec<_>>(), expected);
    for reason in RejectionReason::ALL {
        assert_eq!(RejectionReason::from_code(reason.code()), Some(*reason));
    }
}
