//! A panic over a prompt shows where it happened and nothing of the prompt.
#![allow(clippy::unwrap_used)]

use std::process::Command;

const CANARY: &str = "panic-canary-77aé";
const CHILD: &str = "CHRYSALIS_TEST_PANIC";

#[test]
fn the_process_that_panics() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    worker::panics::hide_messages();
    let thread = std::thread::spawn(|| CANARY[..CANARY.len() - 1].len());
    assert!(thread.join().is_err());
}

#[test]
fn a_panic_shows_no_text() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_process_that_panics", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(output.status.success());
    let shown = [output.stdout, output.stderr].concat();
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("tests/panics.rs"), "{shown}");
    assert!(!shown.contains("panic-canary"), "{shown}");
}
