//! The ready-made network of a local chain with a data directory: funded wallets, a deployed Registry, a simulated TDX
//! platform, and the files that the other commands take.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chain::{ChainAccess, GlobalConfig, LiteserverChain, SenderTiming, Timing, Wallet, WalletSender};
use client::deploy;
use contracts::artifacts::{Contract, artifact, code, code_ref, libraries};
use contracts::network_file::{
    FORMAT, GenerationFile, Liteserver as LiteserverEntry, MeasurementEntry, NetworkFile, NetworkKind,
    QuoteRoot,
};
use contracts::{Network, StdAddr};
use localnet::{Liteserver, LocalnetHandle};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tdx_simulator::{Profile, SimulatedPlatform, TdIdentity};

use crate::evidence::{SIMULATED_IMAGE, measurement_of, simulated_attestor};
use crate::market::{local_generation, local_registry, now_s, random};
use crate::network::{COLLATERAL, read};

/// A simulated platform as a file: it follows from these two to the byte.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SimulatorFile {
    #[serde(with = "hex::serde")]
    seed: [u8; 32],
    /// Unix time; its collateral is good for a month from then.
    made_at_s: u64,
}

/// The platform's file, beside the network file.
pub(crate) const SIMULATOR: &str = "simulator.json";

impl SimulatorFile {
    /// The machine of this number that the file at `path` describes. All have one root and one collateral.
    pub(crate) fn machine(path: &Path, number: u32) -> anyhow::Result<SimulatedPlatform> {
        let file: Self = serde_json::from_str(&read(path, "simulated platform")?)
            .with_context(|| format!("{} does not describe a simulated platform", path.display()))?;
        let profile = Profile { machine: number, ..Profile::default() };
        Ok(SimulatedPlatform::with_profile(&file.seed, file.made_at_s, profile)?)
    }
}

/// The network's files.
pub(crate) struct Ready {
    folder: PathBuf,
    network: Network,
    wallets: Vec<(&'static str, StdAddr)>,
}

impl Ready {
    /// For programs: where things are.
    pub(crate) fn json(&self) -> Value {
        let wallets = self.wallets.iter().map(|(name, address)| {
            let words = self.folder.join(format!("{name}.words"));
            ((*name).to_owned(), json!({ "address": address.to_string(), "mnemonic": words }))
        });
        json!({
            "network": self.folder.join(NETWORK),
            "registry": self.network.registry.to_string(),
            "wallets": Value::Object(wallets.collect()),
        })
    }
}

/// Brings the chain of `handle` to where jobs can be posted, and writes the files into `folder`. What is there already
/// stays; the chain's blocks are being made and `liteserver`, of which `served` tells where, answers.
pub(crate) async fn prepare(
    handle: &LocalnetHandle,
    served: &Served,
    folder: &Path,
) -> anyhow::Result<Ready> {
    let chain = Arc::new(LiteserverChain::new(&GlobalConfig::from_json(&served.config)?, Timing::default()));
    let network_id = handle.read(|chain| chain.options().global_id);
    let simulator = folder.join(SIMULATOR);
    if !simulator.exists() {
        let file = SimulatorFile { seed: random().random(), made_at_s: now_s() };
        write(&simulator, &serde_json::to_string_pretty(&file)?)?;
    }
    let platform = SimulatorFile::machine(&simulator, 0)?;
    write(&folder.join(COLLATERAL), &serde_json::to_string_pretty(platform.collateral())?)?;

    let mut wallets = Vec::new();
    let mut senders = Vec::new();
    for (name, words) in WALLETS {
        let wallet = Wallet::from_mnemonic(words, network_id)?;
        let address = wallet.address().clone();
        if handle.balance(&address)? < LEAST_NANOTON {
            handle.give(&address, FUNDS_NANOTON)?;
        }
        write(&folder.join(format!("{name}.words")), words)?;
        wallets.push((name, address));
        senders.push(WalletSender::new(wallet, chain.clone(), SenderTiming::default()));
    }
    for (_, address) in &wallets {
        wait_for(|| Ok(handle.balance(address)? >= LEAST_NANOTON)).await?;
    }
    let (Some(owner), Some(treasury)) = (senders.first(), wallets.first()) else {
        bail!("the local chain has no wallets");
    };
    let attestor = deploy::attestor(&code(Contract::Attestor), &simulated_attestor(&platform)?)?;
    let generation = local_generation(network_id, treasury.1.clone(), attestor.to.clone())?;
    let measurement = measurement_of(&platform, &TdIdentity::of_image(SIMULATED_IMAGE));
    let storage = local_registry(owner.wallet().address().clone(), generation, measurement)?;
    let registry_code = code(Contract::Registry);
    let network = storage.network(storage.address(&registry_code)?);
    let librarian = deploy::librarian(&libraries())?;
    let published_at = librarian.to.clone();
    let head = chain.head().await?;
    if chain.account(&network.registry, &head).await?.code().is_none() {
        owner.send(&[librarian, attestor, deploy::registry(&registry_code, &storage)?]).await?;
        wait_for(|| Ok(!handle.read(localnet::Localnet::has_work))).await?;
    }
    let file = NetworkFile {
        format: FORMAT,
        name: "localnet".into(),
        kind: NetworkKind::Localnet,
        registry: network.registry.clone(),
        generation: GenerationFile::of(&network.generation, code_ref(Contract::Platform).hash)?,
        registry_code: code_ref(Contract::Registry),
        librarian: published_at,
        measurements: vec![MeasurementEntry { measurement, image: SIMULATED_IMAGE.into() }],
        quote_root: QuoteRoot::from_der(platform.root_der(), true),
        global_config: None,
        liteservers: vec![served.entry.clone()],
        compiler: artifact(Contract::Registry).compiler.clone(),
        commit: format!("chrysalis {}", env!("CARGO_PKG_VERSION")),
    };
    file.check()?;
    // Last, so that whoever finds it finds a network that works.
    write(&folder.join(NETWORK), &file.to_json()?)?;
    Ok(Ready { folder: folder.to_owned(), network, wallets })
}

/// Where the chain's liteserver answers.
pub(crate) struct Served {
    config: String,
    entry: LiteserverEntry,
}

impl Served {
    pub(crate) fn by(liteserver: &Liteserver) -> anyhow::Result<Self> {
        Ok(Self {
            config: liteserver.global_config_json()?,
            entry: LiteserverEntry {
                address: liteserver.address()?.to_string(),
                public_key: STANDARD.encode(liteserver.public_key()),
            },
        })
    }
}

const NETWORK: &str = "network.json";
const FUNDS_NANOTON: u128 = 10_000_000_000_000;
const LEAST_NANOTON: u128 = 1_000_000_000_000;

/// **Everybody knows these words.** They are for local chains alone: whoever sends anything of worth to their addresses
/// on another network gives it away. The first owns the Registry and is the treasury.
const WALLETS: [(&str, &str); 4] = [
    (
        "owner",
        "scene economy pigeon heavy mosquito put love short sing mesh genius coconut thunder assist relief split excuse \
         physical wrap canyon mirror alpha reduce future",
    ),
    (
        "publisher",
        "dynamic duty horn spoil audit vintage scheme segment cake resist early system gospel giant alien grid oyster \
         move slot unusual avoid average evoke away",
    ),
    (
        "worker",
        "melody still uphold alter rent pulse crunch output turn trial fire shaft general escape snow castle provide \
         endless gorilla thank penalty dash offer lumber",
    ),
    (
        "client",
        "city armor strategy sniff mutual grid truly federal demand work rural abuse sing utility dwarf powder document \
         fatal swallow feed case toast unusual lady",
    ),
];

/// Writes beside the place and renames, so that a reader finds the whole file or the one before.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    let written = fs::File::create(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&beside, path));
    written.with_context(|| format!("cannot write {}", path.display()))
}

async fn wait_for(mut done: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    for _ in 0..600 {
        if done()? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the local chain did nothing for 30 s")
}
