//! What most commands begin with: the network file, the chain behind it, a wallet, and what quotes are judged by.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, bail};
use chain::{GlobalConfig, LiteserverChain, SenderTiming, Timing, Wallet, WalletSender};
use clap::Args;
use client::Client;
use contracts::network_file::NetworkFile;
use contracts::{Network, StdAddr};
use verifier::{AttestorTrust, Collateral, QuotePolicy};
use zeroize::Zeroizing;

use crate::evidence::{Judge, attestor_under};

/// Which network.
#[derive(Args)]
pub(crate) struct NetworkArguments {
    /// The network file, `deployments/NETWORK.json`.
    #[arg(long, env = "CHRYSALIS_NETWORK")]
    network: PathBuf,
}

/// Whose wallet.
#[derive(Args)]
pub(crate) struct WalletArguments {
    /// A file with the wallet's 24 words (V5R1).
    #[arg(long, env = "CHRYSALIS_MNEMONIC")]
    mnemonic: PathBuf,
}

/// What a quote is judged by.
#[derive(Args)]
pub(crate) struct QuoteArguments {
    /// Collateral for the worker's quote, as a PCCS gives it (JSON). Without it, `collateral.json` beside the network
    /// file.
    #[arg(long)]
    collateral: Option<PathBuf>,
    /// Accept the simulator's root that the network file names. Proves nothing about hardware.
    #[arg(long)]
    dangerous_accept_simulated: bool,
}

/// A network whose file was read.
pub(crate) struct OpenNetwork {
    pub(crate) file: NetworkFile,
    pub(crate) path: PathBuf,
    pub(crate) network: Network,
    pub(crate) chain: Arc<LiteserverChain>,
}

impl NetworkArguments {
    pub(crate) fn open(&self) -> anyhow::Result<OpenNetwork> {
        OpenNetwork::read(&self.network)
    }
}

impl WalletArguments {
    pub(crate) fn sender(&self, at: &OpenNetwork) -> anyhow::Result<WalletSender<LiteserverChain>> {
        let words = Zeroizing::new(read(&self.mnemonic, "mnemonic")?);
        let wallet =
            Wallet::from_mnemonic(&words, at.network.id()).context("the mnemonic file is not usable")?;
        Ok(WalletSender::new(wallet, at.chain.clone(), SenderTiming::default()))
    }
}

impl QuoteArguments {
    pub(crate) fn policy(&self, at: &OpenNetwork) -> anyhow::Result<QuotePolicy> {
        let file = &at.file;
        let measurements = file.measurements.iter().map(|entry| entry.measurement).collect();
        match (file.quote_root.simulated, self.dangerous_accept_simulated) {
            (false, _) => Ok(QuotePolicy::production(measurements)),
            (true, true) => Ok(QuotePolicy::dangerous_simulated(file.quote_root.der()?, measurements)),
            (true, false) => bail!(
                "network {} trusts a simulator; its quotes prove nothing about hardware. \
                 Pass --dangerous-accept-simulated to check them all the same",
                file.name
            ),
        }
    }

    pub(crate) fn collateral(&self, at: &OpenNetwork) -> anyhow::Result<Collateral> {
        at.collateral(self.collateral.as_deref())
    }

    pub(crate) fn judge(&self, at: &OpenNetwork) -> anyhow::Result<Judge> {
        Ok(Judge { policy: self.policy(at)?, collateral: self.collateral(at)?, attestor: at.attestor()? })
    }
}

impl OpenNetwork {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let file = NetworkFile::parse(&read(path, "network file")?)?;
        let network = file.network()?;
        let chain = Arc::new(LiteserverChain::new(&global_config(&file, path)?, Timing::default()));
        Ok(Self { file, path: path.to_owned(), network, chain })
    }

    /// What the network's Attestor has to be.
    pub(crate) fn attestor(&self) -> anyhow::Result<AttestorTrust> {
        Ok(attestor_under(self.file.quote_root.der()?))
    }

    /// Collateral of a file; without one, of that beside the network file.
    pub(crate) fn collateral(&self, path: Option<&Path>) -> anyhow::Result<Collateral> {
        let beside = self.beside(COLLATERAL);
        let path = path.unwrap_or(&beside);
        let text = read(path, "collateral")?;
        serde_json::from_str(&text).with_context(|| format!("{} is not a PCCS answer", path.display()))
    }

    /// A file in the network file's folder.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new(".")).join(name)
    }

    pub(crate) fn client(&self, sender: WalletSender<LiteserverChain>) -> Client<LiteserverChain> {
        Client::new(sender, self.network.clone(), self.file.registry_code)
    }
}

/// An address in the raw form.
pub(crate) fn address(text: &str) -> anyhow::Result<StdAddr> {
    StdAddr::from_str(text).with_context(|| format!("{text} is no address; give WORKCHAIN:HEX"))
}

/// A file's text; an error that names it.
pub(crate) fn read(path: &Path, what: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read the {what} {}", path.display()))
}

/// Collateral that lies beside the network file.
pub(crate) const COLLATERAL: &str = "collateral.json";

/// The liteservers a network file names, or those of the global config beside it.
fn global_config(file: &NetworkFile, path: &Path) -> anyhow::Result<GlobalConfig> {
    if let Some(name) = &file.global_config {
        let path = path.parent().unwrap_or(Path::new(".")).join(name);
        return Ok(GlobalConfig::from_json(&read(&path, "global config")?)?);
    }
    let named = file.liteservers.iter().map(|server| (server.address.as_str(), server.public_key.as_str()));
    Ok(GlobalConfig::from_liteservers(named)?)
}
