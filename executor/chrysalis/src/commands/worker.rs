//! `chrysalis worker`.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, bail};
use chain::{LiteserverChain, SenderTiming, Timing, Wallet, WalletSender};
use clap::Args;
use contracts::StdAddr;
use contracts::artifacts::{Contract, code};
use contracts::config_file::{AttestationSource as Source, ConfigFile};
use contracts::network_file::{NetworkFile, NetworkKind};
use tdx_simulator::{SimulatedPlatform, TdIdentity};
use worker::tsm::Tsm;
use worker::{AttestationSource, Identity, Journal, Keys, OwnerWallet, Worker, WorkerConfig};

use crate::engine::BurnEngine;
use crate::evidence::{SIMULATED_IMAGE, SimulatedQuotes};
use crate::market::{global_config, now_s, random};

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
}

pub(crate) async fn run(arguments: WorkerArguments) -> anyhow::Result<bool> {
    let base = arguments.config.parent().unwrap_or(Path::new(".")).to_owned();
    let read = |path: &Path, what: &str| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read the {what} {}", path.display()))
    };
    let config: ConfigFile = toml::from_str(&read(&arguments.config, "configuration")?)
        .with_context(|| format!("{} is not a configuration", arguments.config.display()))?;
    let Some(section) = &config.worker else { bail!("the configuration has no [worker] section; add one") };
    let network_path = base.join(&config.network);
    let file = NetworkFile::parse(&read(&network_path, "network file")?)?;
    let network = file.network()?;
    let network_id = network.params.network_id;
    let chain = Arc::new(LiteserverChain::new(&global_config(&file, &network_path)?, Timing::default()));

    let mut wallet: Option<Arc<dyn OwnerWallet>> = None;
    let owner = match (&arguments.owner_mnemonic, &arguments.owner) {
        (Some(path), _) => {
            let words = read(path, "mnemonic")?;
            let signer =
                Wallet::from_mnemonic(&words, network_id).context("the mnemonic file is not usable")?;
            let owner = signer.address().clone();
            wallet = Some(Arc::new(WalletSender::new(signer, chain.clone(), SenderTiming::default())));
            owner
        }
        (None, Some(owner)) => {
            StdAddr::from_str(owner).context("--owner is no address; give WORKCHAIN:HEX")?
        }
        (None, None) => bail!("whose worker is it? pass --owner-mnemonic FILE or --owner ADDRESS"),
    };
    let attestation: Arc<dyn AttestationSource> = match section.attestation {
        Source::Tdx => Arc::new(Tsm::new()?),
        Source::Simulator if file.kind == NetworkKind::Localnet => {
            eprintln!("SIMULATED attestation: this worker protects nothing; local chain only");
            Arc::new(SimulatedQuotes {
                platform: SimulatedPlatform::new(&[0; 32], now_s())?,
                identity: TdIdentity::of_image(SIMULATED_IMAGE),
            })
        }
        Source::Simulator => {
            bail!("simulated attestation works on a local chain alone; set attestation = \"tdx\"")
        }
    };

    let data_dir = base.join(&config.data_dir);
    std::fs::create_dir_all(&data_dir)
        .with_context(|| format!("cannot make the data directory {}", data_dir.display()))?;
    let model = base.join(&section.model);
    let engine = tokio::task::spawn_blocking(move || BurnEngine::load(&model)).await??;
    let keys = Arc::new(Keys::load_or_create(&data_dir.join("keys"), &mut random())?);
    let identity = Identity::new(network.worker_address(&owner)?, network_id);
    let daemon = Worker {
        chain,
        network,
        worker_code: code(Contract::Worker),
        owner,
        keys,
        engine: Arc::new(engine),
        attestation,
        wallet,
        journal: Journal::open(&data_dir.join("journal.redb"), &identity)?,
        config: WorkerConfig::from(section),
        on_step: None,
        on_text: None,
    };
    daemon
        .run(async {
            let _ = tokio::signal::ctrl_c().await;
        })
        .await?;
    Ok(true)
}
