//! [`Ground`] over a chain and a wallet.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chain::{ChainAccess, McBlock, Transfer, WalletError, WalletSender};
use client::{
    ClientError, QuoteJudge, SessionRequest, WorkerView, check_worker, close_session, least_session_value,
    read_job, read_model, read_worker, registered_workers, session_key, top_up_session,
};
use contracts::job::{ExpireJob, JobStatus, ReportEquivocation};
use contracts::model_metadata::ModelMetadata;
use contracts::money::Amount;
use contracts::worker::Offer;
use contracts::{CodeRef, HashBytes, Message, Network, SigningKey, StdAddr};
use ra_tls::evidence::ExpectedWorker;
use serde::Deserialize;
use session::{SessionFacts, SessionId};

use crate::ground::{Ground, GroundError, Opening, Seller};

/// A wallet, and the workers it may pay.
pub struct OnChain<C: ChainAccess + ?Sized> {
    sender: WalletSender<C>,
    directory: Directory<C>,
}

/// The workers of a network that satisfy a policy.
pub struct Directory<C: ChainAccess + ?Sized> {
    chain: Arc<C>,
    network: Network,
    registry_code: CodeRef,
    judge: Arc<dyn QuoteJudge>,
    /// Workers the user knows by address, with an endpoint that holds instead of the one on chain.
    known: Vec<KnownWorker>,
    /// Workers whose quote was judged well, by the attestation that was judged: a quote is judged once.
    judged: Mutex<HashMap<StdAddr, HashBytes>>,
}

/// A worker the user names.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownWorker {
    /// Its contract's address, WORKCHAIN:HEX.
    pub address: String,
    /// HOST:PORT, where the one on chain is not to be used.
    pub endpoint: Option<String>,
}

impl<C: ChainAccess + ?Sized + 'static> Directory<C> {
    /// `registry_code` is the code that the network file names for its Registry. Where `known` names workers, no other is
    /// asked.
    pub fn new(
        chain: Arc<C>,
        network: Network,
        registry_code: CodeRef,
        judge: Arc<dyn QuoteJudge>,
        known: Vec<KnownWorker>,
    ) -> Self {
        Self { chain, network, registry_code, judge, known, judged: Mutex::default() }
    }

    /// What they offer, as of now. A worker that fails the policy is left out.
    ///
    /// # Errors
    /// [`GroundError`] where the chain cannot be read.
    pub async fn sellers(&self) -> Result<Vec<Seller>, GroundError> {
        let head = self.chain().head().await.map_err(|error| reading(&error.into()))?;
        let mut sellers = Vec::new();
        for (worker, endpoint) in self.workers(&head).await.map_err(|error| reading(&error))? {
            match self.offers(&worker, endpoint, &head).await {
                Ok(offers) => sellers.extend(offers),
                Err(error) if error.is_transient() => return Err(reading(&error)),
                Err(error) => tracing::info!(%worker, %error, "a worker is left out"),
            }
        }
        Ok(sellers)
    }

    fn chain(&self) -> &C {
        &self.chain
    }

    async fn workers(&self, head: &McBlock) -> Result<Vec<(StdAddr, Option<String>)>, ClientError> {
        if self.known.is_empty() {
            let found = registered_workers(self.chain(), &self.network, WALK, head).await?;
            return Ok(found.into_iter().map(|worker| (worker, None)).collect());
        }
        self.known
            .iter()
            .map(|known| {
                let address = known.address.parse().map_err(|_| {
                    ClientError::Request(format!("{} is no address; give WORKCHAIN:HEX", known.address))
                })?;
                Ok((address, known.endpoint.clone()))
            })
            .collect()
    }

    /// The worker's record, where its quote satisfies the policy.
    async fn trusted(&self, address: &StdAddr, head: &McBlock) -> Result<WorkerView, ClientError> {
        let view = read_worker(self.chain(), &self.network, address, head).await?;
        let attestation = view.attestation().map_err(|reason| unfit(address, reason))?;
        let judged = *contracts::wire::to_cell(attestation)?.repr_hash();
        let known = lock(&self.judged).get(address).copied();
        if known == Some(judged) && attestation.expires_at > head.time_s {
            return Ok(view);
        }
        let trusted =
            check_worker(self.chain(), &self.network, &self.registry_code, address, self.judge.as_ref())
                .await?;
        let judged =
            *contracts::wire::to_cell(trusted.view.attestation().map_err(|reason| unfit(address, reason))?)?
                .repr_hash();
        lock(&self.judged).insert(address.clone(), judged);
        Ok(trusted.view)
    }

    async fn offers(
        &self,
        address: &StdAddr,
        endpoint: Option<String>,
        head: &McBlock,
    ) -> Result<Vec<Seller>, ClientError> {
        let view = self.trusted(address, head).await?;
        let Some(expected) = ExpectedWorker::of_state(self.network.id(), address.clone(), &view.state) else {
            return Ok(Vec::new());
        };
        let Some(endpoint) = endpoint.or_else(|| view.state.endpoint()) else { return Ok(Vec::new()) };
        if view.state.paused {
            return Ok(Vec::new());
        }
        let mut sellers = Vec::new();
        for entry in view.state.offers.iter().take(MAX_OFFERS) {
            let Ok((model_id, offer)) = entry else { break };
            if let Some(seller) =
                self.seller(&view, &expected, &endpoint, model_id, offer.into_value(), head).await?
            {
                sellers.push(seller);
            }
        }
        Ok(sellers)
    }

    /// An offer, where it is for a model of this network at the share that the chain names.
    async fn seller(
        &self,
        view: &WorkerView,
        expected: &ExpectedWorker,
        endpoint: &str,
        model_id: HashBytes,
        offer: Offer,
        head: &McBlock,
    ) -> Result<Option<Seller>, ClientError> {
        if self.network.model_address(&model_id)?.address != offer.model {
            return Ok(None);
        }
        let model = match read_model(self.chain(), &self.network, &offer.model, head).await {
            Ok(model) => model,
            Err(ClientError::NotOurs { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(state) = model.state else { return Ok(None) };
        // What is not of the usual form says nothing.
        let metadata = serde_json::from_slice::<ModelMetadata>(state.metadata.as_bytes()).ok();
        let text = |text: &str| text.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect::<String>();
        Ok(Some(Seller {
            expected: expected.clone(),
            endpoint: endpoint.to_owned(),
            model_id,
            model: offer.model,
            model_name: metadata.as_ref().map(|metadata| text(&metadata.name)).unwrap_or_default(),
            licence: metadata
                .as_ref()
                .and_then(|metadata| metadata.licence.as_deref())
                .map(text)
                .unwrap_or_default(),
            context_tokens: metadata
                .as_ref()
                .and_then(|metadata| metadata.context_tokens)
                .unwrap_or_default(),
            publisher: state.publisher.to_string(),
            registered_at_s: 0,
            prices: offer.prices,
            share_bps: self.network.generation.share_bps(offer.royalty_bps),
            royalty_bps: offer.royalty_bps,
            min_deposit: Amount::try_from(offer.min_deposit).unwrap_or(Amount::new(u64::MAX)),
            stake: Amount::try_from(view.state.stake).unwrap_or(Amount::new(u64::MAX)),
        }))
    }
}

impl<C: ChainAccess + ?Sized + 'static> OnChain<C> {
    /// `sender` is of the directory's chain.
    pub fn new(sender: WalletSender<C>, directory: Directory<C>) -> Self {
        Self { sender, directory }
    }

    fn chain(&self) -> &C {
        self.sender.chain()
    }

    fn network(&self) -> &Network {
        &self.directory.network
    }

    async fn send(&self, transfer: Transfer) -> Result<(), GroundError> {
        self.sender.send(&[transfer]).await.map(drop).map_err(wallet)
    }

    async fn read(&self, job: &StdAddr) -> Result<Option<SessionFacts>, ClientError> {
        let head = self.chain().head().await?;
        let read = read_job(self.chain(), self.network(), job, &head).await?;
        Ok(read.and_then(|(client, state)| SessionFacts::of_state(job.clone(), client, &state)))
    }
}

#[async_trait]
impl<C: ChainAccess + ?Sized + 'static> Ground for OnChain<C> {
    async fn sellers(&self) -> Result<Vec<Seller>, GroundError> {
        self.directory.sellers().await
    }

    fn job_address(&self, nonce: u64) -> Result<StdAddr, GroundError> {
        self.network()
            .job_address(self.sender.wallet().address(), nonce)
            .map_err(|error| reading(&error.into()))
    }

    fn session_key(&self, job: &StdAddr) -> SigningKey {
        session_key(self.sender.wallet(), self.network().id(), job)
    }

    async fn opening_fees(&self, seller: &Seller, deposit: Amount) -> Result<Amount, GroundError> {
        let fees = async {
            let head = self.chain().head().await?;
            let least = least_session_value(self.chain(), &seller.expected.worker, deposit, &head).await?;
            let fees = least.saturating_sub(deposit.nanoton()).get() + client::amounts::JOB_MARGIN.get();
            Ok(Amount::new(u64::try_from(fees).unwrap_or(u64::MAX)))
        };
        fees.await.map_err(|error: ClientError| reading(&error))
    }

    fn message_fee(&self) -> Amount {
        WALLET_FEE
    }

    fn action_fees(&self) -> Amount {
        Amount::try_from(client::amounts::JOB_ACTION).unwrap_or(WALLET_FEE)
    }

    async fn open(&self, opening: &Opening<'_>) -> Result<SessionFacts, GroundError> {
        let Opening { seller, nonce, deposit, fees, lives_for_s, settle_within_s } = *opening;
        let request = SessionRequest {
            worker: seller.expected.worker.clone(),
            receipt_key: seller.expected.receipt_key,
            offer: Offer {
                prices: seller.prices,
                min_deposit: seller.min_deposit.nanoton(),
                royalty_bps: seller.royalty_bps,
                model: seller.model,
            },
            deposit,
            lives_for_s,
            settle_within_s,
        };
        let value = deposit.nanoton().checked_add(fees.nanoton()).ok_or_else(|| GroundError {
            message: "client: the deposit is larger than any amount of TON".into(),
            is_certain: true,
        })?;
        let now_s = self.now_s().await?;
        let transfer = request
            .transfer(self.network(), self.sender.wallet(), nonce, now_s, value)
            .map_err(|error| GroundError { message: error.to_string(), is_certain: true })?;
        let job = transfer.to.clone();
        self.send(transfer).await?;
        // The wallet's transaction is final; the Job's own follows within some blocks.
        self.wait(&job, |facts| facts.status == JobStatus::Session || facts.status.is_closed()).await
    }

    async fn top_up(&self, session: &SessionId, amount: Amount) -> Result<SessionFacts, GroundError> {
        let before = self.read(&session.job).await.map_err(|error| reading(&error))?;
        let before = before.map_or(Amount::ZERO, |facts| facts.deposit);
        let transfer = top_up_session(&session.job, amount)
            .map_err(|error| GroundError { message: error.to_string(), is_certain: true })?;
        self.send(transfer).await?;
        self.wait(&session.job, |facts| facts.deposit > before || facts.status != JobStatus::Session).await
    }

    async fn ask_close(&self, session: &SessionId) -> Result<(), GroundError> {
        self.send(close_session(&session.job).map_err(|error| reading(&error))?).await
    }

    async fn expire(&self, session: &SessionId) -> Result<(), GroundError> {
        let body = ExpireJob { query_id: 0 }.to_cell().map_err(|error| reading(&error.into()))?;
        self.send(Transfer::new(session.job.clone(), client::amounts::JOB_ACTION.get(), body)).await
    }

    async fn report(&self, job: &StdAddr, report: &ReportEquivocation) -> Result<(), GroundError> {
        let body = report.to_cell().map_err(|error| reading(&error.into()))?;
        self.send(Transfer::new(job.clone(), client::amounts::ORDER.get(), body)).await
    }

    async fn facts(&self, job: &StdAddr) -> Result<Option<SessionFacts>, GroundError> {
        self.read(job).await.map_err(|error| reading(&error))
    }

    async fn now_s(&self) -> Result<u32, GroundError> {
        Ok(self.chain().head().await.map_err(|error| reading(&error.into()))?.time_s)
    }
}

impl<C: ChainAccess + ?Sized + 'static> OnChain<C> {
    async fn wait(
        &self,
        job: &StdAddr,
        is_there: impl Fn(&SessionFacts) -> bool + Send,
    ) -> Result<SessionFacts, GroundError> {
        let mut block = self.chain().head().await.map_err(|error| reading(&error.into()))?;
        let last = block.seqno.saturating_add(WAIT_BLOCKS);
        loop {
            let read =
                read_job(self.chain(), self.network(), job, &block).await.map_err(|error| reading(&error))?;
            let facts = read.and_then(|(client, state)| SessionFacts::of_state(job.clone(), client, &state));
            if let Some(facts) = facts.filter(&is_there) {
                return Ok(facts);
            }
            if block.seqno >= last {
                return Err(GroundError {
                    message: format!(
                        "chain: the Job {job} did not take the wallet's message; see its transactions"
                    ),
                    is_certain: false,
                });
            }
            block = self
                .chain()
                .wait_block(block.seqno + 1, WAIT)
                .await
                .map_err(|error| reading(&error.into()))?;
        }
    }
}

fn unfit(address: &StdAddr, reason: client::Unfit) -> ClientError {
    ClientError::Unfit { address: address.clone(), reason }
}

fn reading(error: &ClientError) -> GroundError {
    GroundError { message: error.to_string(), is_certain: false }
}

fn wallet(error: WalletError) -> GroundError {
    let is_certain = matches!(error, WalletError::Expired { .. } | WalletError::InsufficientFunds { .. });
    GroundError { message: error.to_string(), is_certain }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For a wallet's own transaction of one message: an upper bound, not a price.
const WALLET_FEE: Amount = Amount::new(15_000_000);
/// How far back in the Registry's history workers are looked for.
const WALK: usize = 2_000;
const MAX_OFFERS: usize = 64;
const MAX_NAME: usize = 128;
const WAIT_BLOCKS: u32 = 40;
const WAIT: std::time::Duration = std::time::Duration::from_secs(60);
