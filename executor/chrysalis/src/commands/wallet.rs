//! `chrysalis wallet`: a wallet's words as a file, and what it holds. Words are never an argument: those show in the list
//! of processes.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use chain::{ChainAccess as _, Wallet, new_mnemonic};
use clap::{Args, Subcommand};
use serde_json::json;
use zeroize::Zeroizing;

use crate::exit::Exit;
use crate::market::random;
use crate::network::{NetworkArguments, WalletArguments, read};

/// What to do with a wallet.
#[derive(Subcommand)]
pub(crate) enum WalletCommand {
    /// Make a new wallet (V5R1) and write its 24 words to a file.
    New(WriteArguments),
    /// Read 24 words from standard input, check them, and write them to a file.
    Import(WriteArguments),
    /// Show a wallet's address and balance.
    Balance(BalanceArguments),
}

/// Where words go.
#[derive(Args)]
pub(crate) struct WriteArguments {
    /// The file; it must not exist yet, and only its owner can read it.
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    network: NetworkArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Whose.
#[derive(Args)]
pub(crate) struct BalanceArguments {
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    wallet: WalletArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(command: WalletCommand) -> anyhow::Result<Exit> {
    match command {
        WalletCommand::New(arguments) => keep(&new_mnemonic(&mut random()), &arguments),
        WalletCommand::Import(arguments) => {
            let mut words = Zeroizing::new(String::new());
            std::io::stdin()
                .take(MAX_WORDS_BYTES)
                .read_to_string(&mut words)
                .context("standard input is no text")?;
            keep(&words, &arguments)
        }
        WalletCommand::Balance(arguments) => {
            let at = arguments.network.open()?;
            let sender = arguments.wallet.sender(&at)?;
            let address = sender.wallet().address();
            let head = at.chain.head().await?;
            let balance_nanoton = at.chain.account(address, &head).await?.balance_nanoton();
            match arguments.json {
                true => println!(
                    "{}",
                    json!({ "address": address.to_string(), "balance_nanoton": balance_nanoton.to_string() })
                ),
                false => println!("{address} holds {balance_nanoton} nanoTON"),
            }
            Ok(Exit::Success)
        }
    }
}

fn keep(words: &Zeroizing<String>, arguments: &WriteArguments) -> anyhow::Result<Exit> {
    let at = arguments.network.open()?;
    let wallet = Wallet::from_mnemonic(words, at.network.id()).context("these words are no wallet")?;
    write_secret(&arguments.out, words)?;
    // What was written is what will be read.
    let again = Zeroizing::new(read(&arguments.out, "mnemonic")?);
    if Wallet::from_mnemonic(&again, at.network.id())?.address() != wallet.address() {
        bail!("{} does not hold what was written to it", arguments.out.display());
    }
    let address = wallet.address().to_string();
    match arguments.json {
        true => println!("{}", json!({ "address": address, "mnemonic": arguments.out })),
        false => println!(
            "{address}: its words are in {}; whoever has them has its money",
            arguments.out.display()
        ),
    }
    Ok(Exit::Success)
}

fn write_secret(path: &Path, words: &str) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options
        .open(path)
        .with_context(|| format!("cannot make {}; a file that exists is not written over", path.display()))?;
    writeln!(file, "{}", words.trim())
        .and_then(|()| file.sync_all())
        .context("the words could not be written")
}

const MAX_WORDS_BYTES: u64 = 4096;
