//! The self-audit page names nothing that is not there.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../../docs/self-audit.md");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The cells of each row of the tables that name places and tests.
fn rows() -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    let rows = PAGE.lines().filter(|line| line.starts_with("| ")).map(cells);
    rows.filter(|cells| cells.len() == 4 && cells[3].contains('`') && cells[0].parse::<u32>().is_err())
        .collect()
}

/// What stands between backticks.
fn named(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn sources(folder: &Path, ext: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !["target", "node_modules"].contains(&name.as_str()) && !name.starts_with('.') {
            sources(&path, ext, found);
        } else if path.extension().is_some_and(|found| found == ext) {
            found.push(path);
        }
    }
}

#[test]
fn every_place_that_the_self_audit_names_exists() {
    let rows = rows();
    assert!(rows.len() > 40, "{} rows", rows.len());
    for row in &rows {
        assert!(!named(&row[2]).is_empty(), "no place for {}", row[0]);
        for place in row[2].split(';') {
            let mut names = named(place).into_iter();
            let file = names.next().unwrap();
            let text = std::fs::read_to_string(root().join("contracts").join(file))
                .unwrap_or_else(|_| panic!("{}: there is no contracts/{file}", row[0]));
            for name in names {
                let defined = text.lines().any(|line| {
                    let line = line.trim_start();
                    let function = line.strip_prefix("fun ").or_else(|| line.strip_prefix("get fun "));
                    let function = function
                        .and_then(|rest| rest.split('(').next()?.rsplit('.').next()?.split('<').next());
                    function == Some(name)
                        || line == format!("{name} => {{")
                        || line.starts_with(&format!("const {name} "))
                });
                assert!(defined, "{}: {file} has no {name}", row[0]);
            }
        }
    }
}

#[test]
fn every_test_that_the_self_audit_names_exists() {
    let mut files = Vec::new();
    for folder in ["tests", "contracts", "verifier", "executor"] {
        sources(&root().join(folder), "rs", &mut files);
    }
    let mut tests = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let mut marked = false;
        for line in text.lines().map(str::trim) {
            if let (true, Some(rest)) = (marked, line.split("fn ").nth(1)) {
                tests.insert(rest.split('(').next().unwrap().to_owned());
            }
            marked = line.starts_with("#[test]")
                || line.starts_with("#[tokio::test")
                || (marked && line.starts_with("#["));
        }
    }
    let rows = rows();
    let wanted: Vec<_> = rows.iter().flat_map(|row| named(&row[3])).collect();
    assert!(wanted.len() > 80, "{} tests", wanted.len());
    for name in wanted {
        assert!(tests.contains(name), "there is no test {name}");
    }
}

#[test]
fn every_finding_that_a_row_refers_to_is_listed() {
    let findings: BTreeSet<_> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()?.parse::<u32>().ok())
        .collect();
    for line in PAGE.lines().filter(|line| line.starts_with("| ")) {
        for mention in line.split("finding").skip(1) {
            let digits = |c: char| !c.is_ascii_digit() && c != ' ';
            let first = mention.trim_start_matches('s').split(digits).next().unwrap();
            for number in first.split_whitespace().filter_map(|number| number.parse::<u32>().ok()) {
                assert!(findings.contains(&number), "no finding {number}: {line}");
            }
        }
    }
}
