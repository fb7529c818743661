//! `chrysalis model`.

use std::path::{Path, PathBuf};

use chain::{ChainAccess, WalletSender};
use clap::{Args, Subcommand, ValueEnum};
use client::deploy;
use contracts::HashBytes;
use contracts::artifacts::{Contract, code};
use contracts::model::Unit;
use contracts::model_manifest::ModelFile;
use inference::ModelFiles;
use serde_json::json;

use crate::engine::{id_of, manifest};
use crate::exit::Exit;
use crate::network::{NetworkArguments, WalletArguments};

/// What to do with a model.
#[derive(Subcommand)]
pub(crate) enum ModelCommand {
    /// Show a model's id and files.
    Show(ShowArguments),
    /// Register a model; whoever does it first is its publisher.
    Register(RegisterArguments),
}

/// Which model.
#[derive(Args)]
pub(crate) struct ShowArguments {
    /// A GGUF file or a Hugging Face directory.
    path: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Which model, as whom, for how much.
#[derive(Args)]
pub(crate) struct RegisterArguments {
    /// A GGUF file or a Hugging Face directory.
    path: PathBuf,
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    wallet: WalletArguments,
    /// Royalty in basis points of what clients pay.
    #[arg(long, default_value_t = 0)]
    royalty_bps: u16,
    /// What is counted.
    #[arg(long, value_enum, default_value_t = UnitName::Token)]
    unit: UnitName,
    /// A name for people.
    #[arg(long, default_value = "")]
    name: String,
    /// Its licence, an SPDX expression such as Apache-2.0.
    #[arg(long)]
    licence: Option<String>,
    /// Tokens of prompt and answer together.
    #[arg(long)]
    context_tokens: Option<u32>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum UnitName {
    Token,
    AudioSecond,
    Image,
}

impl From<UnitName> for Unit {
    fn from(name: UnitName) -> Self {
        match name {
            UnitName::Token => Self::Token,
            UnitName::AudioSecond => Self::AudioSecond,
            UnitName::Image => Self::Image,
        }
    }
}

pub(crate) async fn run(command: ModelCommand) -> anyhow::Result<Exit> {
    match command {
        ModelCommand::Show(arguments) => show(&arguments),
        ModelCommand::Register(arguments) => register(arguments).await,
    }
}

fn show(arguments: &ShowArguments) -> anyhow::Result<Exit> {
    let (id, files) = identify(&arguments.path)?;
    if arguments.json {
        println!("{:#}", json!({ "model_id": id, "files": files }));
    } else {
        println!("{id}");
        for file in files {
            println!("  {}  {:>12}  {}", file.sha256, file.size_bytes, file.name);
        }
    }
    Ok(Exit::Success)
}

async fn register(arguments: RegisterArguments) -> anyhow::Result<Exit> {
    let at = arguments.network.open()?;
    let cap_bps = at.network.generation.params.royalty_cap_bps;
    if arguments.royalty_bps > cap_bps {
        anyhow::bail!("the network's royalty cap is {cap_bps} basis points; ask for less");
    }
    let path = arguments.path.clone();
    let (id, _) = tokio::task::spawn_blocking(move || identify(&path)).await??;
    let sender: WalletSender<_> = arguments.wallet.sender(&at)?;
    let metadata = json!({
        "name": arguments.name, "licence": arguments.licence, "context_tokens": arguments.context_tokens,
    })
    .to_string();
    let transfer = deploy::register_model(
        &at.network,
        &code(Contract::Model),
        &id,
        arguments.royalty_bps,
        arguments.unit.into(),
        &metadata,
    )?;
    let model = transfer.to.clone();
    let head = at.chain.head().await?;
    if at.chain.account(&model, &head).await?.code().is_some() {
        anyhow::bail!("the model {id} is registered already, at {model}");
    }
    sender.send(&[transfer]).await?;
    if arguments.json {
        println!("{:#}", json!({ "model_id": id, "model": model.to_string() }));
    } else {
        println!("{id} at {model}");
    }
    Ok(Exit::Success)
}

fn identify(path: &Path) -> anyhow::Result<(HashBytes, Vec<ModelFile>)> {
    let files = ModelFiles::open(path)?;
    Ok((id_of(&files)?, manifest(&files)))
}
