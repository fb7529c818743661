//! `chrysalis worker`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use chain::{SenderTiming, Wallet, WalletSender};
use clap::Args;
use contracts::artifacts::{Contract, code};
use contracts::config_file::{AttestationSource as Source, ConfigFile};
use contracts::StdAddr;
use contracts::network_file::NetworkKind;
use serde_json::json;
use tdx_simulator::TdIdentity;
use worker::tsm::Tsm;
use worker::{
    AttestationSource, CollateralFile, CollateralSource, DataDir, Engine as _, Identity, Journal, KeyStore, Keys, OwnerWallet, Passphrase,
    Worker, WorkerConfig,
};
use zeroize::Zeroizing;

use crate::engine::BurnEngine;
use crate::evidence::{SIMULATED_IMAGE, SimulatedQuotes};
use crate::exit::Exit;
use crate::market::random;
use crate::network::{COLLATERAL, OpenNetwork, address, read};
use crate::ready::{SIMULATOR, SimulatorFile};
use crate::stop;

/// How to run a worker.
#[derive(Args)]
pub(crate) struct WorkerArguments {
    /// The configuration file (TOML).
    #[arg(long, default_value = "chrysalis.toml")]
    config: PathBuf,
    /// Whose worker it is, WORKCHAIN:HEX. Needed without --owner-mnemonic.
    #[arg(long)]
    owner: Option<String>,
    /// A file with the owner wallet's 24 words (V5R1). Without it, what the owner has to send is logged.
    #[arg(long)]
    owner_mnemonic: Option<PathBuf>,
    /// A file whose first line is the passphrase of the key file. Without it, keys are kept in memory alone under TDX, and
    /// in an unencrypted file with simulated attestation.
    #[arg(long, env = "CHRYSALIS_KEY_PASSPHRASE_FILE", conflicts_with = "ephemeral_keys")]
    key_passphrase_file: Option<PathBuf>,
    /// Collateral for the quotes of this machine, as a PCCS gives it (JSON); read again at each registration. Without it,
    /// `collateral.json` beside the network file.
    #[arg(long)]
    collateral: Option<PathBuf>,
    /// Keep the keys in memory alone: a new start attests new ones, and gives up claims that were not answered.
    #[arg(long)]
    ephemeral_keys: bool,
}

pub(crate) async fn run(arguments: WorkerArguments) -> anyhow::Result<Exit> {
    let base = arguments.config.parent().unwrap_or(Path::new(".")).to_owned();
    let config: ConfigFile = toml::from_str(&read(&arguments.config, "configuration")?)
        .with_context(|| format!("{} is not a configuration", arguments.config.display()))?;
    let Some(section) = &config.worker else { bail!("the configuration has no [worker] section; add one") };
    let data = DataDir::open(&base.join(&config.data_dir))?;
    let OpenNetwork { file, path, network, chain } = OpenNetwork::read(&base.join(&config.network))?;
    let network_id = network.params.network_id;

    let mut wallet: Option<Arc<dyn OwnerWallet>> = None;
    let owner = match (&arguments.owner_mnemonic, &arguments.owner) {
        (Some(path), _) => {
            let words = Zeroizing::new(read(path, "mnemonic")?);
            let signer =
                Wallet::from_mnemonic(&words, network_id).context("the mnemonic file is not usable")?;
            let owner = signer.address().clone();
            wallet = Some(Arc::new(WalletSender::new(signer, chain.clone(), SenderTiming::default())));
            owner
        }
        (None, Some(owner)) => address(owner)?,
        (None, None) => bail!("whose worker is it? pass --owner-mnemonic FILE or --owner ADDRESS"),
    };
    let identity = Identity::new(network.worker_address(&owner)?, network_id);
    let (attestation, collateral): (Arc<dyn AttestationSource>, Arc<dyn CollateralSource>) = match section.attestation {
        Source::Tdx => {
            let beside = || path.parent().unwrap_or(Path::new(".")).join(COLLATERAL);
            let file = arguments.collateral.clone().unwrap_or_else(beside);
            (Arc::new(Tsm::new()?), Arc::new(CollateralFile(file)))
        }
        Source::Simulator if file.kind == NetworkKind::Localnet => {
            eprintln!("SIMULATED attestation: this worker protects nothing; local chain only");
            let simulator = path.parent().unwrap_or(Path::new(".")).join(SIMULATOR);
            let quotes = Arc::new(SimulatedQuotes {
                platform: SimulatorFile::machine(&simulator, machine_of(&identity.worker))?,
                identity: TdIdentity::of_image(SIMULATED_IMAGE),
            });
            (quotes.clone(), quotes)
        }
        Source::Simulator => {
            bail!("simulated attestation works on a local chain alone; set attestation = \"tdx\"")
        }
    };
    let keys = Arc::new(keys(&arguments, section.attestation, &data)?);
    let model = base.join(&section.model);
    let engine = tokio::task::spawn_blocking(move || BurnEngine::load(&model)).await??;
    let facts = json!({
        "worker": identity.worker.to_string(),
        "owner": owner.to_string(),
        "model_id": engine.info().model_id,
        "receipt_key": keys.receipt_public(),
        "encryption_key": keys.encryption_public(),
    });
    println!("{facts}");
    let daemon = Worker {
        chain,
        network,
        worker_code: code(Contract::Worker),
        owner,
        keys,
        engine: Arc::new(engine),
        attestation,
        collateral,
        wallet,
        journal: Journal::open(&data.file("journal.redb"), &identity)?,
        config: WorkerConfig::from(section),
        on_step: None,
        on_text: None,
    };
    daemon
        .run(async {
            if let Err(error) = stop::asked().await {
                tracing::error!(%error, "the worker cannot be asked to stop; it stops");
            }
        })
        .await?;
    drop(data);
    Ok(Exit::Success)
}

/// Each simulated worker has a machine of its own, as the network asks.
pub(crate) fn machine_of(worker: &StdAddr) -> u32 {
    let [a, b, c, d, ..] = worker.address.0;
    u32::from_be_bytes([a, b, c, d])
}

fn keys(arguments: &WorkerArguments, attestation: Source, data: &DataDir) -> anyhow::Result<Keys> {
    let file = data.file("keys");
    let rng = &mut random();
    if let Some(path) = &arguments.key_passphrase_file {
        let passphrase = Passphrase::read(path)?;
        return Ok(Keys::open(KeyStore::Sealed(&file, &passphrase), rng)?);
    }
    if !arguments.ephemeral_keys && attestation == Source::Simulator {
        return Ok(Keys::open(KeyStore::Plain(&file), rng)?);
    }
    if !arguments.ephemeral_keys {
        if file.exists() {
            bail!(
                "there is a key file {} and no passphrase; give --key-passphrase-file, or pass --ephemeral-keys to \
                 leave it unused",
                file.display()
            );
        }
        eprintln!(
            "the keys are kept in memory alone: a claim that is not answered when this process ends is lost, with its \
             bond; stop it with Ctrl-C, or pass --key-passphrase-file"
        );
    }
    Ok(Keys::open(KeyStore::Memory, rng)?)
}
