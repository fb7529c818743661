//! The committed artefacts are sound and not older than their sources.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use contracts::HashBytes;
use contracts::artifacts::{ArtifactError, Contract, artifact, parse};
use sha2::{Digest, Sha256};

#[test]
fn no_source_is_newer_than_its_artefact() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = Vec::new();
    for contract in Contract::ALL {
        let artifact = artifact(contract);
        let entry = format!("{}.tolk", contract.name().to_lowercase());
        assert!(artifact.source_hashes.contains_key(&entry), "{entry}");
        for (name, hash) in &artifact.source_hashes {
            let source = std::fs::read(directory.join(name)).unwrap();
            assert_eq!(
                *hash,
                HashBytes(Sha256::digest(source).into()),
                "{name} changed after {} was compiled: run scripts/build-contracts",
                contract.name()
            );
            named.push(name.clone());
        }
    }
    for entry in std::fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".tolk") {
            assert!(named.contains(&name), "{name} is part of no artefact");
        }
    }
}

#[test]
fn one_compiler_built_all_of_them() {
    let compiler = &artifact(Contract::Job).compiler;
    for contract in Contract::ALL {
        assert_eq!(&artifact(contract).compiler, compiler);
    }
}

#[test]
fn a_damaged_artefact_is_refused() {
    assert_eq!(parse(Contract::Job, "{}").unwrap_err(), ArtifactError::Shape { contract: "Job" });
    let job = include_str!("../artifacts/Job.json");
    assert!(parse(Contract::Worker, job).is_err());
    let altered = job.replacen("\"code_hash\": \"", "\"code_hash\": \"00", 1);
    assert!(parse(Contract::Job, &altered).is_err());
    let hash = artifact(Contract::Job).code.repr_hash().to_string();
    let other = artifact(Contract::Worker).code.repr_hash().to_string();
    assert_eq!(
        parse(Contract::Job, &job.replace(&hash, &other)).unwrap_err(),
        ArtifactError::Hash { contract: "Job" }
    );
}
