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

/// Constructor → its definition, in one line without comments.
fn definitions(text: &str) -> BTreeMap<String, String> {
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap()).collect();
    code.join("\n")
        .split(';')
        .map(|definition| definition.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter_map(|definition| Some((constructor(&definition)?.to_owned(), definition)))
        .collect()
}

/// The name before a `#`, where a line begins with a definition.
fn constructor(line: &str) -> Option<&str> {
    let (name, tag) = line.split_once('#')?;
    let tag = tag.split(' ').next()?;
    let is_name =
        !name.is_empty() && name.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit());
    (is_name && (tag == "_" || tag.chars().all(|c| c.is_ascii_hexdigit()))).then_some(name)
}

/// Fields of a definition, in order.
fn field_names(definition: &str) -> Vec<String> {
    let names =
        definition.split(' ').filter_map(|word| word.split_once(':')).map(|(name, _)| name.to_owned());
    names.collect()
}

/// `timelockS` is `timelock_s`.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[test]
fn every_tolk_structure_is_that_of_the_tlb() {
    let tlb = definitions(TLB);
    let mut compared = BTreeSet::new();
    for entry in std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "tolk") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let Some(name) = line.strip_prefix("// ").and_then(constructor) else {
                continue;
            };
            let mut stated = line[3..].to_owned();
            while !stated.contains(';')
                && let Some(more) = lines.next_if(|line| line.starts_with("//"))
            {
                stated.push_str(&more[2..]);
            }
            // Its two states have a definition each; in the TL-B it has a `Maybe`.
            if name == "job_storage" {
                continue;
            }
            let stated = stated.split(';').next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(tlb.get(name), Some(&stated), "{}", path.display());
            compared.insert(name.to_owned());

            let Some(head) = lines.find(|line| !line.starts_with("//")) else {
                panic!("{name} has no structure");
            };
            let tag = stated[name.len() + 1..].split(' ').next().unwrap();
            if tag != "_" {
                assert!(head.starts_with(&format!("struct (0x{tag}) ")), "{name}: {head}");
            }
            let fields: Vec<String> = lines
                .by_ref()
                .take_while(|line| *line != "}")
                .filter_map(|line| line.trim_start().split_once(": "))
                .filter(|(name, _)| !name.starts_with("//"))
                // A word of Tolk's own.
                .map(
                    |(name, _)| {
                        if name == "operatorAccount" { "operator".to_owned() } else { snake_case(name) }
                    },
                )
                .collect();
            assert_eq!(fields, field_names(&stated), "{name}");
        }
    }
    assert!(compared.len() > 100, "{}", compared.len());
}
