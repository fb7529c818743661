//! Transactions per second on one core: replays one of the emulator's fixtures for a few seconds.
//!
//! `bench_tvm [PART_OF_A_NAME]`: the fixtures whose name contains it, a settled receipt by default.

use std::time::{Duration, Instant};

use serde_json::Value;
use tvm_executor::{Environment, Vm};
use tycho_types::boc::Boc;
use tycho_types::cell::HashBytes;
use tycho_types::models::{Message, MsgInfo, ShardAccount};

const FOR: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wanted = std::env::args().nth(1).unwrap_or_else(|| "external-in 43480406 0 0".into());
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/emulator/fixtures");
    let vm = Vm::new(-3)?;
    for file in ["wallets.json", "contracts.json"] {
        let fixtures: Vec<Value> =
            serde_json::from_str(&std::fs::read_to_string(format!("{folder}/{file}"))?)?;
        for fixture in fixtures {
            let text = |key: &str| fixture[key].as_str().unwrap_or_default().to_owned();
            if !text("name").contains(&wanted) || fixture["expect"].get("transaction").is_none() {
                continue;
            }
            let account = Boc::decode_base64(text("account"))?.parse::<ShardAccount>()?;
            let message = Boc::decode_base64(text("message"))?;
            let (address, external) = match message.parse::<Message<'_>>()?.info {
                MsgInfo::Int(info) => (info.dst, false),
                MsgInfo::ExtIn(info) => (info.dst, true),
                MsgInfo::ExtOut(_) => continue,
            };
            let Some(address) = address.as_std().cloned() else { continue };
            let lt = text("lt").parse()?;
            let environment = Environment {
                utime: u32::try_from(fixture["now"].as_u64().unwrap_or_default())?,
                block_lt: lt,
                rand_seed: HashBytes::ZERO,
                ..Environment::default()
            };
            let began = Instant::now();
            let mut count = 0u32;
            while began.elapsed() < FOR {
                vm.execute(&environment, lt, &address, &account, &message, external)?;
                count += 1;
            }
            let per_second = f64::from(count) / began.elapsed().as_secs_f64();
            println!("{per_second:>9.0} transactions/s  {}", text("name"));
        }
    }
    Ok(())
}
