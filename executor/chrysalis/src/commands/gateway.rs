//! `chrysalis gateway`: an OpenAI-compatible server on this machine, paid from the user's wallet.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use chain::{LiteserverChain, SenderTiming, Wallet, WalletSender};
use clap::Args;
use contracts::config_file::{ConfigFile, GatewaySection};
use contracts::money::Amount;
use contracts::{Nanoton, Prices};
use gateway::http::{HttpSettings, serve};
use gateway::link::LinkLimits;
use gateway::store::Store;
use gateway::{
    Directory, KnownWorker, Market as _, MarketParts, NoCounter, OnChain, SessionMarket, Spending,
};
use serde_json::json;
use tokio::net::TcpListener;
use zeroize::Zeroizing;

use crate::exit::Exit;
use crate::network::{OpenNetwork, QuoteArguments, read};
use crate::stop;

/// How to run a gateway. Each setting is taken from its flag, else from its variable, else from the file.
#[derive(Args)]
pub(crate) struct GatewayArguments {
    #[command(flatten)]
    market: MarketArguments,
    /// Where to listen [default: 127.0.0.1:8080].
    #[arg(long, env = "CHRYSALIS_LISTEN", value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// A file with the key that callers show in `Authorization: Bearer`. Without it, whoever reaches the port may ask.
    #[arg(long, env = "CHRYSALIS_API_KEY_FILE", value_name = "FILE")]
    api_key: Option<PathBuf>,
    /// Print where it listens as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Which network, whose wallet, and what it may spend.
#[derive(Args)]
pub(crate) struct MarketArguments {
    /// The configuration file (TOML); its `[gateway]` is read.
    #[arg(long, env = "CHRYSALIS_CONFIG")]
    config: Option<PathBuf>,
    /// The network file, `deployments/NETWORK.json`.
    #[arg(long, env = "CHRYSALIS_NETWORK")]
    network: Option<PathBuf>,
    /// A file with the wallet's 24 words (V5R1).
    #[arg(long, env = "CHRYSALIS_MNEMONIC")]
    mnemonic: Option<PathBuf>,
    /// Where sessions are written down [default: the file's `data_dir`, else `gateway-data`].
    #[arg(long, env = "CHRYSALIS_GATEWAY_DATA", value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// The most that may leave the wallet for good, over all sessions of the data folder, nanoTON [default: 2 TON].
    #[arg(long, env = "CHRYSALIS_MAX_SPEND", value_name = "NANOTON")]
    max_spend: Option<Nanoton>,
    /// What a session is opened with, and topped up by, nanoTON [default: 0.2 TON].
    #[arg(long, env = "CHRYSALIS_DEPOSIT", value_name = "NANOTON")]
    deposit: Option<Nanoton>,
    /// Refuse workers that ask more for 1 000 prompt tokens, nanoTON.
    #[arg(long, value_name = "NANOTON", requires = "max_output_nanoton_per_1k")]
    max_input_nanoton_per_1k: Option<Nanoton>,
    /// Refuse workers that ask more for 1 000 answer tokens, nanoTON.
    #[arg(long, value_name = "NANOTON", requires = "max_input_nanoton_per_1k")]
    max_output_nanoton_per_1k: Option<Nanoton>,
    /// The least stake of a worker, nanoTON.
    #[arg(long, value_name = "NANOTON")]
    min_stake: Option<Nanoton>,
    /// A worker to use, and no others but those named so: ADDRESS, or ADDRESS@HOST:PORT where its record names no
    /// endpoint.
    #[arg(long = "worker", value_name = "ADDRESS[@HOST:PORT]")]
    workers: Vec<String>,
    #[command(flatten)]
    quote: QuoteArguments,
}

/// A market that is open, and what it was opened with.
pub(crate) struct OpenMarket {
    pub(crate) market: SessionMarket,
    pub(crate) section: GatewaySection,
    pub(crate) network: OpenNetwork,
}

pub(crate) async fn run(arguments: GatewayArguments) -> anyhow::Result<Exit> {
    let OpenMarket { market, section, network } = arguments.market.open().await?;
    let listen = arguments.listen.or(section.listen).unwrap_or_else(|| DEFAULT_LISTEN.into());
    let api_key_file = arguments.api_key.or(section.api_key.map(PathBuf::from));
    let api_key = match &api_key_file {
        Some(path) => Some(first_line(path, "API key")?.to_string()),
        None => None,
    };
    let defaults = HttpSettings::default();
    let settings = HttpSettings {
        api_key,
        allowed_origins: section.allowed_origins,
        allowed_hosts: section.allowed_hosts,
        default_max_tokens: section.default_max_tokens.unwrap_or(defaults.default_max_tokens),
        max_under_way: section.max_under_way.unwrap_or(defaults.max_under_way),
    };
    let listener = TcpListener::bind(&listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let at = listener.local_addr()?;
    if !at.ip().is_loopback() && settings.api_key.is_none() {
        bail!(
            "listening on {at} would let others spend your wallet's money; set an API key with --api-key, or listen on 127.0.0.1"
        );
    }
    let base_url = format!("http://{at}/v1");
    let committed = market.committed()?;
    match arguments.json {
        true => println!(
            "{}",
            json!({ "base_url": base_url, "network": network.file.name, "committed_nanoton": committed })
        ),
        false => println!("listening on {base_url}"),
    }
    if network.file.quote_root.simulated {
        eprintln!("warning: this network's workers are simulated; nothing here is confidential");
    }
    match market.models().await {
        Ok(models) if models.is_empty() => {
            eprintln!("warning: nobody sells a model within your policy just now")
        }
        Ok(models) => {
            for model in models {
                eprintln!("on sale: {} from {} worker(s)", model.name, model.workers);
            }
        }
        Err(error) => eprintln!("warning: {error}"),
    }
    let stopping = async {
        if let Err(error) = stop::asked().await {
            tracing::error!(%error, "signals cannot be heard");
        }
    };
    serve(listener, Arc::new(market.clone()), settings, stopping).await?;
    eprintln!("closing sessions");
    market.close().await;
    Ok(Exit::Success)
}

impl MarketArguments {
    /// Reads the file, then what flags and variables say instead, and takes up the sessions of earlier runs.
    pub(crate) async fn open(self) -> anyhow::Result<OpenMarket> {
        let (file, folder) = match &self.config {
            Some(path) => {
                let file: ConfigFile = toml::from_str(&read(path, "configuration")?)
                    .with_context(|| format!("{} is not a configuration", path.display()))?;
                (Some(file), path.parent().unwrap_or(Path::new(".")).to_owned())
            }
            None => (None, PathBuf::from(".")),
        };
        let of_file = |path: &str| folder.join(path);
        let mut section = file.as_ref().and_then(|file| file.gateway.clone()).unwrap_or_default();
        let network = self.network.or(file.as_ref().map(|file| of_file(&file.network)));
        let network = network.context("no network: give --network, or name it in the configuration file")?;
        let network = OpenNetwork::read(&network)?;
        let mnemonic = self.mnemonic.or(section.mnemonic.as_deref().map(of_file));
        let mnemonic = mnemonic.context("no wallet: give --mnemonic, or name its file in [gateway]")?;
        section.api_key = section.api_key.map(|path| of_file(&path).to_string_lossy().into_owned());
        let data = self.data.or(file.as_ref().map(|file| of_file(&file.data_dir)));
        let data = data.unwrap_or_else(|| DEFAULT_DATA.into());
        std::fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;

        let words = Zeroizing::new(read(&mnemonic, "mnemonic")?);
        let wallet =
            Wallet::from_mnemonic(&words, network.network.id()).context("the mnemonic file is not usable")?;
        let sender: WalletSender<LiteserverChain> =
            WalletSender::new(wallet, network.chain.clone(), SenderTiming::default());
        let workers = if self.workers.is_empty() { section.workers.clone() } else { self.workers };
        let known = workers.iter().map(|text| known_worker(text)).collect();
        let judge = Arc::new(self.quote.judge(&network)?);
        let directory = Directory::new(
            network.chain.clone(),
            network.network.clone(),
            network.file.registry_code,
            judge,
            known,
        );
        let ground = OnChain::new(sender, directory);
        let of_flags = match (self.max_input_nanoton_per_1k, self.max_output_nanoton_per_1k) {
            (Some(input), Some(output)) => Some(Prices { input, cached_input: input, output }),
            _ => None,
        };
        let amount = |flag: Option<Nanoton>, of_file: Option<Nanoton>, default: Amount| match flag.or(of_file)
        {
            Some(nanoton) => Amount::try_from(nanoton).context("more than any amount of TON"),
            None => Ok(default),
        };
        let spending = Spending {
            max_spend: amount(self.max_spend, section.max_spend_nanoton, DEFAULT_MAX_SPEND)?,
            deposit: amount(self.deposit, section.deposit_nanoton, DEFAULT_DEPOSIT)?,
            max_prices: of_flags.or(section.max_prices_nanoton_per_1k),
            min_stake: amount(self.min_stake, section.min_stake_nanoton, Amount::ZERO)?,
            session_s: section.session_s.unwrap_or(DEFAULT_SESSION_S),
            settle_within_s: DEFAULT_SETTLE_WITHIN_S,
        };
        let store = Arc::new(Store::open(&data.join("gateway.redb"))?);
        let market = SessionMarket::start(MarketParts {
            ground: Arc::new(ground),
            store,
            spending,
            limits: LinkLimits::default(),
            counter: Arc::new(NoCounter),
        })
        .await?;
        Ok(OpenMarket { market, section, network })
    }
}

fn known_worker(text: &str) -> KnownWorker {
    match text.split_once('@') {
        Some((address, endpoint)) => {
            KnownWorker { address: address.to_owned(), endpoint: Some(endpoint.to_owned()) }
        }
        None => KnownWorker { address: text.to_owned(), endpoint: None },
    }
}

fn first_line(path: &Path, what: &str) -> anyhow::Result<Zeroizing<String>> {
    let text = Zeroizing::new(read(path, what)?);
    match text.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
        _ => bail!("the {what} file {} is empty", path.display()),
    }
}

const DEFAULT_LISTEN: &str = "127.0.0.1:8080";
const DEFAULT_DATA: &str = "gateway-data";
const DEFAULT_MAX_SPEND: Amount = Amount::new(2_000_000_000);
const DEFAULT_DEPOSIT: Amount = Amount::new(200_000_000);
const DEFAULT_SESSION_S: u32 = 7 * 86_400;
const DEFAULT_SETTLE_WITHIN_S: u32 = 3_600;
