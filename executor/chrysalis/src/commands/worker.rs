//! `chrysalis worker`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use chain::{LiteserverChain, SenderTiming, Wallet, WalletSender};
use clap::Args;
use collateral::{Pccs, Settings};
use contracts::artifacts::{Contract, code};
use contracts::config_file::{AttestationSource as Source, ConfigFile};
use contracts::money::Amount;
use contracts::network_file::NetworkKind;
use contracts::{Network, StdAddr};
use serde_json::json;
use tdx_simulator::TdIdentity;
use tokio::runtime::Handle;
use tokio::sync::watch;
use worker::sessions::{SessionConfig, SessionServer};
use worker::tsm::Tsm;
use worker::{
    AttestationSource, CollateralFile, CollateralSource, DataDir, Engine as _, Identity, Journal, KeyStore,
    Keys, OwnerWallet, Passphrase, PccsCollateral, Worker, WorkerConfig,
};
use zeroize::Zeroizing;

use crate::engine::{BurnEngine, EngineLimits};
use crate::evidence::{SIMULATED_IMAGE, SimulatedQuotes};
use crate::exit::Exit;
use crate::market::{now_s, random};
use crate::network::{COLLATERAL, OpenNetwork, address, read};
use crate::ready::{SIMULATOR, SimulatorFile};
use crate::stop;

/// How to run a worker.
#[derive(Args)]
pub(crate) struct WorkerArguments {
    #[command(flatten)]
    operator: OperatorArguments,
    /// Keep the keys in memory alone: a new start attests new ones, and gives up claims that were not answered.
    #[arg(long, conflicts_with = "key_passphrase_file")]
    ephemeral_keys: bool,
    /// Sell sessions too, to gateways that connect here, ADDRESS:PORT.
    #[arg(long, env = "CHRYSALIS_LISTEN")]
    listen: Option<SocketAddr>,
    /// Where gateways reach these sessions, HOST:PORT, as the worker's contract is to name it [default: the address of
    /// --listen].
    #[arg(long, env = "CHRYSALIS_ENDPOINT", requires = "listen")]
    endpoint: Option<String>,
    /// What may be earned in a session, in nanoTON, before it is redeemed; all of it is lost with the keys.
    #[arg(long, default_value_t = 1_000_000_000)]
    redeem_above_nanoton: u64,
}

/// Whose worker, and with what.
#[derive(Args)]
pub(crate) struct OperatorArguments {
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
    #[arg(long, env = "CHRYSALIS_KEY_PASSPHRASE_FILE")]
    key_passphrase_file: Option<PathBuf>,
    /// Collateral for the quotes of this machine, as a PCCS gives it (JSON); read again at each registration. Without it,
    /// the server named as `pccs_url`; without either, `collateral.json` beside the network file.
    #[arg(long)]
    collateral: Option<PathBuf>,
}

/// A worker's configuration, opened.
pub(crate) struct Operator {
    pub(crate) chain: Arc<LiteserverChain>,
    pub(crate) network: Network,
    pub(crate) owner: StdAddr,
    pub(crate) worker: StdAddr,
    /// The owner's wallet, where its words were given.
    pub(crate) sender: Option<WalletSender<LiteserverChain>>,
    pub(crate) attestation: Arc<dyn AttestationSource>,
    pub(crate) collateral: Arc<dyn CollateralSource>,
    pub(crate) config: WorkerConfig,
    model: PathBuf,
    kv_bytes: Option<u64>,
    source: Source,
    passphrase: Option<Passphrase>,
    data: DataDir,
}

pub(crate) async fn run(arguments: WorkerArguments) -> anyhow::Result<Exit> {
    let mut operator = Operator::open(&arguments.operator)?;
    let listening = || arguments.listen.map(|listen| listen.to_string());
    operator.config.endpoint = arguments.endpoint.clone().or_else(listening);
    let network_id = operator.network.id();
    let keys = Arc::new(operator.keys(arguments.ephemeral_keys)?);
    let model = operator.model.clone();
    let limits = EngineLimits { kv_bytes: operator.kv_bytes };
    let engine = tokio::task::spawn_blocking(move || BurnEngine::load(&model, limits)).await??;
    let identity = Identity::new(operator.worker.clone(), network_id);
    let facts = json!({
        "worker": identity.worker.to_string(),
        "owner": operator.owner.to_string(),
        "model_id": engine.info().model_id,
        "kv_bytes": engine.kv_bytes(),
        "receipt_key": keys.receipt_public(),
        "encryption_key": keys.encryption_public(),
    });
    println!("{facts}");
    let wallet = operator.sender.map(|sender| -> Arc<dyn OwnerWallet> { Arc::new(sender) });
    let engine = Arc::new(engine);
    let sessions = arguments.listen.map(|listen| SessionServer {
        chain: operator.chain.clone(),
        network: operator.network.clone(),
        owner: operator.owner.clone(),
        keys: keys.clone(),
        engine: engine.clone(),
        file: operator.data.file("sessions.redb"),
        config: SessionConfig {
            at_stake: Amount::new(arguments.redeem_above_nanoton),
            ..SessionConfig::at(listen)
        },
    });
    let daemon = Worker {
        chain: operator.chain,
        network: operator.network,
        worker_code: code(Contract::Worker),
        owner: operator.owner,
        keys,
        engine,
        attestation: operator.attestation,
        collateral: operator.collateral,
        wallet,
        journal: Journal::open(&operator.data.file("journal.redb"), &identity)?,
        config: operator.config,
        on_step: None,
        on_text: None,
    };
    let (tell, told) = watch::channel(false);
    let asked = tell.clone();
    tokio::spawn(async move {
        if let Err(error) = stop::asked().await {
            tracing::error!(%error, "the worker cannot be asked to stop; it stops");
        }
        asked.send_replace(true);
    });
    let stopped = |mut told: watch::Receiver<bool>| async move {
        // Without a sender there is nobody left to serve for.
        let _ = told.wait_for(|is_asked| *is_asked).await;
    };
    // Where one cannot go on, the other ends in order.
    let jobs = async {
        let ended = daemon.run(stopped(told.clone())).await;
        tell.send_replace(true);
        ended
    };
    let sessions = async {
        let ended = match sessions {
            Some(server) => server.run(stopped(told.clone())).await,
            None => return Ok(()),
        };
        tell.send_replace(true);
        ended
    };
    let (jobs, sessions) = tokio::join!(jobs, sessions);
    jobs?;
    sessions?;
    drop(operator.data);
    Ok(Exit::Success)
}

impl Operator {
    pub(crate) fn open(arguments: &OperatorArguments) -> anyhow::Result<Self> {
        let base = arguments.config.parent().unwrap_or(Path::new(".")).to_owned();
        let config: ConfigFile = toml::from_str(&read(&arguments.config, "configuration")?)
            .with_context(|| format!("{} is not a configuration", arguments.config.display()))?;
        let Some(section) = &config.worker else {
            bail!("the configuration has no [worker] section; add one")
        };
        let data = DataDir::open(&base.join(&config.data_dir))?;
        let at = OpenNetwork::read(&base.join(&config.network))?;
        let network_id = at.network.id();

        let mut sender = None;
        let owner = match (&arguments.owner_mnemonic, &arguments.owner) {
            (Some(path), _) => {
                let words = Zeroizing::new(read(path, "mnemonic")?);
                let wallet =
                    Wallet::from_mnemonic(&words, network_id).context("the mnemonic file is not usable")?;
                let owner = wallet.address().clone();
                sender = Some(WalletSender::new(wallet, at.chain.clone(), SenderTiming::default()));
                owner
            }
            (None, Some(owner)) => address(owner)?,
            (None, None) => bail!("whose worker is it? pass --owner-mnemonic FILE or --owner ADDRESS"),
        };
        let worker = at.network.worker_address(&owner)?;
        let (attestation, simulated) = sources(&at, section.attestation, &worker)?;
        let collateral: Arc<dyn CollateralSource> =
            match (&arguments.collateral, &section.pccs_url, simulated) {
                (Some(file), _, _) => Arc::new(CollateralFile(file.clone())),
                (None, Some(url), _) => {
                    let settings = Settings {
                        authority_file: section.pccs_authority.as_ref().map(|path| base.join(path)),
                        cache: Some(data.file("collateral")),
                        ..Settings::of(url.parse()?)
                    };
                    let pccs = Pccs::new(settings, &at.file.quote_root.der()?)?;
                    Arc::new(PccsCollateral::new(pccs, attestation.clone(), Handle::current(), now_s))
                }
                (None, None, Some(simulated)) => simulated,
                (None, None, None) => Arc::new(CollateralFile(at.beside(COLLATERAL))),
            };
        let passphrase = arguments.key_passphrase_file.as_deref().map(Passphrase::read).transpose()?;
        Ok(Self {
            chain: at.chain,
            network: at.network,
            owner,
            worker,
            sender,
            attestation,
            collateral,
            config: WorkerConfig::from(section),
            model: base.join(&section.model),
            kv_bytes: section.kv_bytes,
            source: section.attestation,
            passphrase,
            data,
        })
    }

    /// Keys that the next start finds again.
    pub(crate) fn lasting_keys(&self) -> anyhow::Result<Keys> {
        if self.passphrase.is_none() && self.source != Source::Simulator {
            bail!("keys in memory alone end with this command; give --key-passphrase-file");
        }
        self.keys(false)
    }

    fn keys(&self, ephemeral: bool) -> anyhow::Result<Keys> {
        let file = self.data.file("keys");
        let rng = &mut random();
        if let Some(passphrase) = &self.passphrase {
            return Ok(Keys::open(KeyStore::Sealed(&file, passphrase), rng)?);
        }
        if !ephemeral && self.source == Source::Simulator {
            return Ok(Keys::open(KeyStore::Plain(&file), rng)?);
        }
        if !ephemeral {
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
}

/// What makes quotes and, where it also has their collateral, the same for that.
type Sources = (Arc<dyn AttestationSource>, Option<Arc<dyn CollateralSource>>);

fn sources(at: &OpenNetwork, source: Source, worker: &StdAddr) -> anyhow::Result<Sources> {
    match source {
        Source::Tdx => Ok((Arc::new(Tsm::new()?), None)),
        Source::Simulator if at.file.kind == NetworkKind::Localnet => {
            eprintln!("SIMULATED attestation: this worker protects nothing; local chain only");
            let quotes = Arc::new(SimulatedQuotes {
                platform: SimulatorFile::machine(&at.beside(SIMULATOR), machine_of(worker))?,
                identity: TdIdentity::of_image(SIMULATED_IMAGE),
            });
            Ok((quotes.clone(), Some(quotes)))
        }
        Source::Simulator => {
            bail!("simulated attestation works on a local chain alone; set attestation = \"tdx\"")
        }
    }
}

/// Each simulated worker has a machine of its own, as the network asks.
fn machine_of(worker: &StdAddr) -> u32 {
    let [a, b, c, d, ..] = worker.address.0;
    u32::from_be_bytes([a, b, c, d])
}
