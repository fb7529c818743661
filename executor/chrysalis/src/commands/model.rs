//! `chrysalis model`.

use std::path::PathBuf;

use clap::Args;
use inference::ModelFiles;
use serde_json::json;

use crate::engine::{id_of, manifest};

/// Which model.
#[derive(Args)]
pub(crate) struct ModelArguments {
    /// A GGUF file or a Hugging Face directory.
    path: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &ModelArguments) -> anyhow::Result<bool> {
    let files = ModelFiles::open(&arguments.path)?;
    let (id, files) = (id_of(&files)?, manifest(&files));
    if arguments.json {
        println!("{:#}", json!({ "model_id": id, "files": files }));
    } else {
        println!("{id}");
        for file in files {
            println!("  {}  {:>12}  {}", file.sha256, file.size_bytes, file.name);
        }
    }
    Ok(true)
}
