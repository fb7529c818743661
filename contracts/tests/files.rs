//! Network and configuration files.
#![allow(clippy::unwrap_used)]

use contracts::config_file::{AttestationSource, ConfigFile};
use contracts::network_file::*;
use contracts::*;

fn file() -> NetworkFile {
    let code = |byte| CodeRef { hash: HashBytes([byte; 32]), depth: 3 };
    NetworkFile {
        format: FORMAT,
        name: "local".into(),
        kind: NetworkKind::Localnet,
        registry: StdAddr::new(0, HashBytes([1; 32])),
        generation: GenerationFile {
            network_id: -3,
            fee_bps: 100,
            bond_bps: 3,
            min_bond_nanoton: Nanoton::new(2),
            job_code_hash: HashBytes([3; 32]),
            platform_code_hash: HashBytes([5; 32]),
            worker_code: code(1),
            model_code: code(2),
            treasury: StdAddr::new(0, HashBytes([2; 32])),
            royalty_cap_bps: 2000,
            min_stake_nanoton: Nanoton::new(1),
            unbonding_s: 5,
            attestor: StdAddr::new(0, HashBytes([8; 32])),
            attestation_ttl_s: 4,
        },
        registry_code: code(4),
        librarian: StdAddr::new(-1, HashBytes([6; 32])),
        measurements: vec![MeasurementEntry { measurement: HashBytes([5; 32]), image: "simulated".into() }],
        quote_root: QuoteRoot::from_der(&[7; 100], true),
        global_config: None,
        liteservers: vec![Liteserver { address: "127.0.0.1:4924".into(), public_key: "aaaa".into() }],
        compiler: "tolk 1.3.0".into(),
        commit: "0".repeat(40),
    }
}

#[test]
fn a_network_file_reads_back() {
    let text = file().to_json().unwrap();
    let read = NetworkFile::parse(&text).unwrap();
    assert_eq!(read, file());
    let network = read.network().unwrap();
    assert_eq!(network.registry, read.registry);
    let platform = read.generation.platform_code_hash;
    assert_eq!(GenerationFile::of(&network.generation, platform).unwrap(), read.generation);
    assert_eq!(GenerationFile::of(&network.generation, HashBytes([4; 32])), Err(NetworkFileError::Library));
    assert_eq!(read.quote_root.der().unwrap(), [7; 100]);
}

#[test]
fn a_network_file_that_contradicts_itself_is_refused() {
    let refused = |edit: fn(&mut NetworkFile)| {
        let mut other = file();
        edit(&mut other);
        NetworkFile::parse(&other.to_json().unwrap()).unwrap_err()
    };
    assert!(matches!(refused(|f| f.format = 1), NetworkFileError::Format { found: 1 }));
    assert!(matches!(refused(|f| f.kind = NetworkKind::Mainnet), NetworkFileError::SimulatedRoot { .. }));
    assert!(matches!(refused(|f| f.quote_root.sha256.0[0] ^= 1), NetworkFileError::RootHash));
    assert!(matches!(refused(|f| f.quote_root.pem = "x".into()), NetworkFileError::RootPem));
    assert!(matches!(refused(|f| f.generation.fee_bps = 9000), NetworkFileError::Shares { .. }));
    assert!(matches!(refused(|f| f.librarian.workchain = 0), NetworkFileError::Librarian { .. }));
    assert!(matches!(refused(|f| f.liteservers.clear()), NetworkFileError::NoLiteserver));
    let unknown = file().to_json().unwrap().replacen("\"name\"", "\"nmae\": 1, \"name\"", 1);
    assert!(matches!(NetworkFile::parse(&unknown), Err(NetworkFileError::Shape { .. })));
}

#[test]
fn a_configuration_reads() {
    let text = r#"
network = "deployments/localnet.json"
data_dir = "data"

[worker]
model = "model.gguf"
attestation = "simulator"
prices_nanoton_per_1k = { input = 10000, cached_input = 5000, output = "20000" }
stake_nanoton = 20000000000
gas_float_nanoton = 1000000000

[client]
max_prices_nanoton_per_1k = { input = 10000, cached_input = 5000, output = 20000 }
"#;
    let config: ConfigFile = toml::from_str(text).unwrap();
    let worker = config.worker.clone().unwrap();
    assert_eq!(worker.attestation, AttestationSource::Simulator);
    assert_eq!(worker.claim_above_nanoton, Nanoton::new(1_000_000_000));
    assert_eq!(worker.prices_nanoton_per_1k.output, Nanoton::new(20_000));
    assert_eq!(config.client.clone().unwrap().max_output_tokens, 256);
    let written = toml::to_string(&config).unwrap();
    assert_eq!(toml::from_str::<ConfigFile>(&written).unwrap(), config);
    assert!(toml::from_str::<ConfigFile>(&text.replace("data_dir", "datadir")).is_err());
}
