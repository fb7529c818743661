//! Writes what the contracts were sent, for `tests/emulator/contracts.mjs` to ask the official emulator the same.

use serde_json::json;
use tests::chain;
use tycho_types::boc::Boc;

#[test]
#[ignore = "writes the file that CHRYSALIS_CASES names"]
fn write_the_cases() {
    let path = std::env::var("CHRYSALIS_CASES").unwrap();
    chain::record();
    crate::gas::every_operation();
    for seed in 1..=3 {
        crate::random::run(seed, 10_000);
    }
    let cases: Vec<_> = chain::recorded()
        .into_iter()
        .map(|case| {
            json!({
                "name": case.name,
                "now": case.now,
                "lt": case.lt.to_string(),
                "account": Boc::encode_base64(&case.account),
                "message": Boc::encode_base64(&case.message),
            })
        })
        .collect();
    println!("{} cases", cases.len());
    std::fs::write(path, serde_json::to_string_pretty(&cases).unwrap()).unwrap();
}
