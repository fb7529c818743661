//! A whole market on an embedded local chain: contracts, parties with wallets, a model, a worker.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use chain::{
    ChainAccess, GlobalConfig, LiteserverChain, SenderTiming, Timing, Transfer, Wallet, WalletSender,
};
use client::{ClientError, WorkerView, deploy, read_worker};
use contracts::artifacts::{Contract, code, codes, libraries, library};
use contracts::attestor::{AttestorStorage, needs};
use contracts::model::Unit;
use contracts::registry::{PlatformPolicy, RegistryStorage};
use contracts::{Generation, HashBytes, Nanoton, Network, Params, Ref, StdAddr};
use localnet::{BlockMode, Clock, Liteserver, LocalnetHandle, LocalnetOptions};
use rand::RngExt;
use rand::rngs::StdRng;

/// Royalty that the demo's publisher asks, basis points.
pub(crate) const ROYALTY_BPS: u16 = 500;
const TON: u128 = 1_000_000_000;
const BLOCK_INTERVAL: Duration = Duration::from_millis(100);
const WORKER_READY: Duration = Duration::from_secs(60);

pub(crate) type Sender = WalletSender<LiteserverChain>;

/// The chain, the contracts' generation, and everybody's wallet.
pub(crate) struct Market {
    pub(crate) handle: LocalnetHandle,
    pub(crate) chain: Arc<LiteserverChain>,
    pub(crate) network: Network,
    pub(crate) supply_nanoton: u128,
    pub(crate) treasury: StdAddr,
    pub(crate) publisher: Sender,
    pub(crate) worker_owner: Sender,
    pub(crate) client: Sender,
}

impl Market {
    /// Starts the chain, funds the wallets, and deploys a Librarian, `attestor` and a Registry that admits `measurement`.
    pub(crate) async fn open(measurement: HashBytes, attestor: &AttestorStorage) -> anyhow::Result<Self> {
        let mut rng = random();
        let options = LocalnetOptions {
            seed: rng.random(),
            genesis_utime_s: u32::try_from(now_s())?,
            ..Default::default()
        };
        let (network_id, supply_nanoton) = (options.global_id, options.supply_nanoton);
        let handle = LocalnetHandle::new(options, BlockMode::Interval(BLOCK_INTERVAL), Clock::System)?;
        handle.advance()?;
        let server = Liteserver::bind_local(handle.clone()).await?;
        let config = GlobalConfig::from_json(&server.global_config_json()?)?;
        tokio::spawn(server.serve());
        let blocks = handle.clone();
        tokio::spawn(async move { blocks.run().await });
        let chain = Arc::new(LiteserverChain::new(&config, Timing::default()));

        let mut sender = |tons: u128| -> anyhow::Result<Sender> {
            let wallet = Wallet::from_seed(&rng.random(), network_id)?;
            handle.give(wallet.address(), tons * TON)?;
            Ok(WalletSender::new(wallet, chain.clone(), SenderTiming::default()))
        };
        let (owner, publisher, worker_owner, client) =
            (sender(1_000)?, sender(10)?, sender(100)?, sender(10)?);
        let treasury = Wallet::from_seed(&random().random(), network_id)?.address().clone();
        for wallet in [&owner, &publisher, &worker_owner, &client] {
            wait_for_balance(&handle, wallet.wallet().address()).await?;
        }

        let attestor = deploy::attestor(&code(Contract::Attestor), attestor)?;
        let generation = local_generation(network_id, treasury.clone(), attestor.to.clone())?;
        let registry = local_registry(owner.wallet().address().clone(), generation, measurement)?;
        let registry_code = code(Contract::Registry);
        let network = registry.network(registry.address(&registry_code)?);
        let librarian = deploy::librarian(&libraries())?;
        owner.send(&[librarian, attestor, deploy::registry(&registry_code, &registry)?]).await?;
        Ok(Self { handle, chain, network, supply_nanoton, treasury, publisher, worker_owner, client })
    }

    /// Registers the model; the publisher of the market becomes its publisher.
    pub(crate) async fn register_model(
        &self,
        model_id: &HashBytes,
        name: &str,
        context: usize,
    ) -> anyhow::Result<()> {
        let metadata = serde_json::json!({ "name": name, "context_tokens": context }).to_string();
        let transfer = deploy::register_model(
            &self.network,
            &code(Contract::Model),
            model_id,
            ROYALTY_BPS,
            Unit::Token,
            &metadata,
        )?;
        self.publisher.send(&[transfer]).await?;
        Ok(())
    }

    /// Waits until the worker is attested and offers the model.
    pub(crate) async fn wait_for_worker(
        &self,
        address: &StdAddr,
        model_id: &HashBytes,
    ) -> anyhow::Result<WorkerView> {
        let until = tokio::time::Instant::now() + WORKER_READY;
        while tokio::time::Instant::now() < until {
            let head = self.chain.head().await?;
            match read_worker(&*self.chain, &self.network, address, &head).await {
                Ok(view) if view.attestation().is_ok() && view.offer(model_id).is_ok() => return Ok(view),
                Ok(_) | Err(ClientError::NotOurs { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(BLOCK_INTERVAL).await;
        }
        bail!(
            "the worker was not ready within {} s; run with CHRYSALIS_LOG=info to see why",
            WORKER_READY.as_secs()
        )
    }

    /// Sends and waits until the messages it caused have been delivered.
    pub(crate) async fn send_and_settle(&self, sender: &Sender, transfer: Transfer) -> anyhow::Result<()> {
        sender.send(&[transfer]).await?;
        self.quiet().await
    }

    /// Waits until nothing is under way.
    pub(crate) async fn quiet(&self) -> anyhow::Result<()> {
        for _ in 0..200 {
            if !self.handle.read(localnet::Localnet::has_work) {
                return Ok(());
            }
            tokio::time::sleep(BLOCK_INTERVAL / 2).await;
        }
        bail!("the local chain is still busy after 10 s")
    }

    /// Genesis supply less everything that can be found: zero, or money was lost or made.
    pub(crate) fn unaccounted_nanoton(&self) -> anyhow::Result<i128> {
        let found = i128::try_from(self.handle.supply()?.total_nanoton())?;
        Ok(i128::try_from(self.supply_nanoton)? - found)
    }
}

/// The generation of contracts of every network on a local chain.
pub(crate) fn local_generation(
    network_id: i32,
    treasury: StdAddr,
    attestor: StdAddr,
) -> anyhow::Result<Generation> {
    let params = Params {
        treasury,
        royalty_cap_bps: 2_000,
        min_stake: Nanoton::new(5_000_000_000),
        unbonding_s: 28 * 86_400,
        attestor,
        attestation_ttl_s: 7 * 86_400,
    };
    Ok(Generation {
        network_id,
        fee_bps: 100,
        bond_bps: 2_000,
        min_bond: Nanoton::new(100_000_000),
        job_code: library(Contract::Job),
        codes: Ref::new(codes())?,
        params: Ref::new(params)?,
    })
}

/// The Registry of every network on a local chain: no timelock, platforms that are up to date, or need hardening in
/// software alone.
pub(crate) fn local_registry(
    owner: StdAddr,
    generation: Generation,
    measurement: HashBytes,
) -> anyhow::Result<RegistryStorage> {
    let policy = PlatformPolicy::initial(needs::SW_HARDENING);
    let platform_code = library(Contract::Platform);
    Ok(RegistryStorage::initial(owner, 0, 0, generation, &[measurement], policy, platform_code)?)
}

/// Unix time.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A generator seeded by the system.
pub(crate) fn random() -> StdRng {
    rand::make_rng()
}

async fn wait_for_balance(handle: &LocalnetHandle, address: &StdAddr) -> anyhow::Result<()> {
    for _ in 0..100 {
        if handle.balance(address)? > 0 {
            return Ok(());
        }
        tokio::time::sleep(BLOCK_INTERVAL / 2).await;
    }
    bail!("the faucet did not pay {address}")
}
