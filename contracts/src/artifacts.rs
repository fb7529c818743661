//! The compiled contracts, as committed in `contracts/artifacts`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, HashBytes};

use crate::librarian::library_cell;
use crate::network::{CodeRef, Codes};

/// Which contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Contract {
    Registry,
    Model,
    Worker,
    Job,
    Attestor,
    Platform,
    Librarian,
}

impl Contract {
    pub const ALL: [Self; 7] = [
        Self::Registry,
        Self::Model,
        Self::Worker,
        Self::Job,
        Self::Attestor,
        Self::Platform,
        Self::Librarian,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Registry => "Registry",
            Self::Model => "Model",
            Self::Worker => "Worker",
            Self::Job => "Job",
            Self::Attestor => "Attestor",
            Self::Platform => "Platform",
            Self::Librarian => "Librarian",
        }
    }
}

/// One compiled contract.
#[derive(Debug, Clone)]
pub struct Artifact {
    pub contract: Contract,
    pub code: Cell,
    /// Name and version.
    pub compiler: String,
    /// Source file in `contracts/` → SHA-256 of what was compiled.
    pub source_hashes: BTreeMap<String, HashBytes>,
}

/// An artefact is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    #[error("the artefact of {contract} is not of the expected shape; run scripts/build-contracts")]
    Shape { contract: &'static str },
    #[error(
        "the code in the artefact of {contract} is not the one its hash names; run scripts/build-contracts"
    )]
    Hash { contract: &'static str },
}

/// The committed artefact.
pub fn artifact(contract: Contract) -> &'static Artifact {
    static ALL: LazyLock<[Artifact; 7]> = LazyLock::new(|| {
        Contract::ALL.map(|contract| {
            // The files are part of this program and its tests read each of them.
            parse(contract, &text(contract)).expect("the committed artefacts are sound")
        })
    });
    &ALL[contract as usize]
}

/// The code cell.
pub fn code(contract: Contract) -> Cell {
    artifact(contract).code.clone()
}

/// Hash and depth of the code.
pub fn code_ref(contract: Contract) -> CodeRef {
    CodeRef::of(&artifact(contract).code)
}

/// The library cell of the code, for the contracts whose code travels so: Job and Platform.
pub fn library(contract: Contract) -> Cell {
    library_cell(&artifact(contract).code)
}

/// The codes a Librarian has to publish before the first Job and the first Platform.
pub fn libraries() -> [Cell; 2] {
    [code(Contract::Job), code(Contract::Platform)]
}

/// The children's codes, as [`crate::Generation`] wants them.
pub fn codes() -> Codes {
    Codes {
        worker: code_ref(Contract::Worker),
        model: code_ref(Contract::Model),
        platform: *library(Contract::Platform).repr_hash(),
    }
}

/// Reads an artefact and checks the code against its hash.
pub fn parse(contract: Contract, json: &str) -> Result<Artifact, ArtifactError> {
    let shape = ArtifactError::Shape { contract: contract.name() };
    let file: ArtifactFile = serde_json::from_str(json).map_err(|_| shape.clone())?;
    let code = Boc::decode_base64(&file.code_boc64).map_err(|_| shape.clone())?;
    if file.name != contract.name() {
        return Err(shape);
    }
    if *code.repr_hash() != file.code_hash {
        return Err(ArtifactError::Hash { contract: contract.name() });
    }
    Ok(Artifact { contract, code, compiler: file.compiler, source_hashes: file.source_hashes })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArtifactFile {
    name: String,
    compiler: String,
    code_hash: HashBytes,
    code_boc64: String,
    source_hashes: BTreeMap<String, HashBytes>,
}

/// The committed text or, in a build for mutation testing, that of the folder in `CHRYSALIS_ARTIFACTS`.
fn text(contract: Contract) -> std::borrow::Cow<'static, str> {
    #[cfg(feature = "mutants")]
    if let Some(folder) = std::env::var_os("CHRYSALIS_ARTIFACTS") {
        let path = std::path::Path::new(&folder).join(contract.name()).with_extension("json");
        if let Ok(mutant) = std::fs::read_to_string(path) {
            return mutant.into();
        }
    }
    committed(contract).into()
}

fn committed(contract: Contract) -> &'static str {
    match contract {
        Contract::Registry => include_str!("../artifacts/Registry.json"),
        Contract::Model => include_str!("../artifacts/Model.json"),
        Contract::Worker => include_str!("../artifacts/Worker.json"),
        Contract::Job => include_str!("../artifacts/Job.json"),
        Contract::Attestor => include_str!("../artifacts/Attestor.json"),
        Contract::Platform => include_str!("../artifacts/Platform.json"),
        Contract::Librarian => include_str!("../artifacts/Librarian.json"),
    }
}
