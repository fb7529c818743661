//! A developer's wallet at work: post, follow, cancel, expire, sweep.

use std::time::Duration;

use chain::{ChainAccess, ChainError, Confirmed, McBlock, StackValue, Transfer, Wallet, WalletSender};
use contracts::job::JobStatus;
use contracts::sealing::DecryptionKey;
use contracts::{CodeRef, HashBytes, Nanoton, Network, StdAddr};
use rand_core::CryptoRng;
use tokio::time::{Instant, sleep};

use crate::amounts;
use crate::error::ClientError;
use crate::follow::{Follower, Progress};
use crate::model::read_model;
use crate::order;
use crate::outcome::{Outcome, outcome};
use crate::reply_key::reply_key;
use crate::request::{JobRequest, JobTerms, Posting, SealedJob};
use crate::story::{JobEvent, JobStory};
use crate::trust::{QuoteJudge, TrustedWorker, check_worker};

/// A client of one network with one wallet.
pub struct Client<C: ChainAccess + ?Sized> {
    sender: WalletSender<C>,
    network: Network,
    registry_code: CodeRef,
    /// How long the chain may stay unreadable before following gives up.
    patience: Duration,
}

/// The end of a job and the steps to it.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// Its steps.
    pub story: JobStory,
}

impl<C: ChainAccess + ?Sized> Client<C> {
    /// A client. `registry_code` is the code that the network's Registry has to run.
    pub fn new(sender: WalletSender<C>, network: Network, registry_code: CodeRef) -> Self {
        Self { sender, network, registry_code, patience: DEFAULT_PATIENCE }
    }

    /// The wallet and its sender.
    pub fn sender(&self) -> &WalletSender<C> {
        &self.sender
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    fn chain(&self) -> &C {
        self.sender.chain()
    }

    /// Reads the worker at `address`, finds the quote it published, and has it judged. Nothing of a job is
    /// needed or sent.
    ///
    /// # Errors
    /// [`ClientError::QuoteRefused`] with the failed checks; [`ClientError::Unfit`] where it has no quote, or the
    /// Registry on chain does not admit its image.
    pub async fn check_worker(
        &self,
        address: &StdAddr,
        judge: &dyn QuoteJudge,
    ) -> Result<TrustedWorker, ClientError> {
        check_worker(self.chain(), &self.network, &self.registry_code, address, judge).await
    }

    /// Builds the job of `request` for a worker whose quote was checked, at the prices that it asks.
    ///
    /// # Errors
    /// [`ClientError::Unfit`] where the worker would not serve it; request, sealing errors.
    pub async fn seal(
        &self,
        request: &JobRequest,
        worker: &TrustedWorker,
        nonce: u64,
        rng: &mut (impl CryptoRng + Send),
    ) -> Result<SealedJob, ClientError> {
        let wallet = self.sender.wallet();
        seal(self.chain(), &self.network, wallet.address(), wallet, request, worker, nonce, rng).await
    }

    /// Posts a sealed job by one wallet transaction, final when this returns.
    ///
    /// # Errors
    /// [`ClientError::Wallet`]; after `Expired` nothing has happened.
    pub async fn post(&self, job: &SealedJob) -> Result<Confirmed, ClientError> {
        Ok(self.sender.send(std::slice::from_ref(&job.transfer)).await?)
    }

    /// Follows `job` to its end, telling each step, and opens the answer. With `expire_when_overdue`, sends
    /// `expire_job` once a deadline has passed.
    ///
    /// Survives a chain that goes away for less than the client's patience.
    ///
    /// # Errors
    /// [`ClientError::PostingRefused`] where the contract did not take the job; [`ClientError::NoJob`] where
    /// none appears, or the account was destroyed before its end was seen.
    pub async fn follow(
        &self,
        job: &StdAddr,
        expire_when_overdue: bool,
        mut on_step: impl FnMut(&JobEvent) + Send,
    ) -> Result<Finished, ClientError> {
        let key = reply_key(self.sender.wallet(), self.network.id(), job)?;
        let mut follower = Follower::new(job.clone(), self.sender.wallet().address().clone());
        let mut readable_at = Instant::now();
        let mut expired_at_s = None;
        let mut told = 0;
        loop {
            let progress = match self.advance(&mut follower, &key).await {
                Ok(progress) => progress,
                Err(ClientError::Chain(error))
                    if error.is_transient() && readable_at.elapsed() < self.patience =>
                {
                    tracing::debug!(%error, "following a job");
                    sleep(RETRY_PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            readable_at = Instant::now();
            let story = follower.story();
            let events = story.events();
            events.iter().skip(told).for_each(&mut on_step);
            told = events.len();
            match progress {
                (_, Some(outcome)) => return Ok(Finished { outcome, story: story.clone() }),
                (Progress::Gone, None) => return Err(ClientError::NoJob(job.clone())),
                (Progress::Refused(exit_code), None) => {
                    return Err(ClientError::PostingRefused { job: job.clone(), exit_code });
                }
                (Progress::Overdue, None) if expire_when_overdue => {
                    let now_s = follower.time_s();
                    if expired_at_s.is_none_or(|at_s| now_s > at_s + EXPIRE_AGAIN_S) {
                        expired_at_s = Some(now_s);
                        self.expire(job).await?;
                    }
                }
                (Progress::Overdue | Progress::Nothing | Progress::Stepped, None) => {}
            }
        }
    }

    /// The next block, and how the job ended once it has.
    async fn advance(
        &self,
        follower: &mut Follower,
        key: &DecryptionKey,
    ) -> Result<(Progress, Option<Outcome>), ClientError> {
        // A job that is over may have been read by a call that then failed.
        let is_over = |follower: &Follower| follower.story().status().is_some_and(JobStatus::is_closed);
        let progress = match is_over(follower) {
            true => Progress::Nothing,
            false => follower.advance(self.chain()).await?,
        };
        if !is_over(follower) {
            return Ok((progress, None));
        }
        let model_id = model_of(self.chain(), &self.network, follower.story()).await?;
        Ok((progress, outcome(follower.story(), &self.network, key, model_id.as_ref())?))
    }

    /// Takes an open job back; the job refuses once it is claimed or answered.
    ///
    /// # Errors
    /// [`ClientError::Wallet`]; that the job took it shows in its history.
    pub async fn cancel(&self, job: &StdAddr) -> Result<Confirmed, ClientError> {
        self.send(order::cancel(job)?).await
    }

    /// Ends a job whose deadline has passed; anyone may.
    ///
    /// # Errors
    /// [`ClientError::Wallet`].
    pub async fn expire(&self, job: &StdAddr) -> Result<Confirmed, ClientError> {
        self.send(order::expire(job)?).await
    }

    /// Destroys a job that ended an audit window ago. It pays out nothing: a closed job keeps nothing.
    ///
    /// # Errors
    /// [`ClientError::Wallet`].
    pub async fn sweep(&self, job: &StdAddr) -> Result<Confirmed, ClientError> {
        self.send(order::sweep(job)?).await
    }

    async fn send(&self, transfer: Transfer) -> Result<Confirmed, ClientError> {
        Ok(self.sender.send(&[transfer]).await?)
    }
}

/// Builds the job of `request` for the account `client` and a worker whose quote was checked, at the prices that the
/// worker asks. The key of its answer is derived from the secret of `reply_keys`.
///
/// # Errors
/// [`ClientError::Unfit`] where the worker would not serve it; request, sealing errors.
#[allow(clippy::too_many_arguments)]
pub async fn seal<C: ChainAccess + ?Sized>(
    chain: &C,
    network: &Network,
    client: &StdAddr,
    reply_keys: &Wallet,
    request: &JobRequest,
    worker: &TrustedWorker,
    nonce: u64,
    rng: &mut (impl CryptoRng + Send),
) -> Result<SealedJob, ClientError> {
    if worker.view.address != request.worker {
        return Err(ClientError::Request("the checked worker is not the one of the request".into()));
    }
    let head = chain.head().await?;
    let unfit = |reason| ClientError::Unfit { address: worker.view.address.clone(), reason };
    let offer = worker.view.offer(&request.model_id).map_err(unfit)?;
    let terms = request.terms(network, &worker.receipt_key, &offer, head.time_s)?;
    worker.view.check_fit(network, request, &terms).map_err(unfit)?;
    let value = least_job_value(chain, &worker.view.address, &terms, &head)
        .await?
        .checked_add(amounts::JOB_MARGIN)
        .ok_or_else(|| ClientError::Request("the deposit is larger than any amount of TON".into()))?;
    let encryption_key = &worker.encryption_key;
    let posting = Posting { network, client, reply_keys, encryption_key, nonce, value };
    request.seal(terms, &posting, rng)
}

/// The id of the model that a job was posted for; `None` where what it names is no Model of this network.
///
/// # Errors
/// What reading the chain meets.
pub async fn model_of<C: ChainAccess + ?Sized>(
    chain: &C,
    network: &Network,
    story: &JobStory,
) -> Result<Option<HashBytes>, ClientError> {
    let Some(account) = story.life().and_then(|life| {
        let posting = &life.state().posting;
        let wanted = || posting.market().map(|market| market.model);
        posting.seller.as_ref().map(|seller| seller.model).or_else(wanted)
    }) else {
        return Ok(None);
    };
    let head = chain.head().await?;
    match read_model(chain, network, &account, &head).await {
        Ok(model) => Ok(Some(model.model_id)),
        Err(ClientError::NotOurs { .. } | ClientError::Wire(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

impl ClientError {
    /// Whether the same call may succeed later without a change.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Chain(error) => ChainError::is_transient(error),
            Self::Wallet(chain::WalletError::Chain(error)) => error.is_transient(),
            Self::Wallet(chain::WalletError::Expired { .. }) => true,
            _ => false,
        }
    }
}

/// The least that `post_job` may bring for these terms: the getter `minJobValue` of the contract of `worker`.
///
/// # Errors
/// A bad answer where the getter fails, or names fees above [`amounts::JOB_FEES_LIMIT`].
pub async fn least_job_value<C: ChainAccess + ?Sized>(
    chain: &C,
    worker: &StdAddr,
    terms: &JobTerms,
    at: &McBlock,
) -> Result<Nanoton, ClientError> {
    let bad = |detail: String| ChainError::BadAnswer { request: MIN_JOB_VALUE, detail };
    let units = &terms.limits.max_units;
    // The getter counts both kinds of input as one.
    let input = i128::from(units.input) + i128::from(units.cached_input);
    let arguments = [
        StackValue::Int(terms.deposit.get().into()),
        StackValue::Int(input.min(u32::MAX.into())),
        StackValue::Int(units.output.into()),
    ];
    let result = chain.run_getter(worker, MIN_JOB_VALUE, &arguments, at).await?;
    let exit_code = result.exit_code;
    let stack = result.success().map_err(|_| bad(format!("exit code {exit_code}")))?;
    let [StackValue::Int(least)] = stack.as_slice() else {
        return Err(bad("not one integer".into()).into());
    };
    let least = u128::try_from(*least).ok().and_then(Nanoton::checked);
    match least.and_then(|least| least.checked_sub(terms.deposit.nanoton()).map(|fees| (least, fees))) {
        Some((least, fees)) if fees <= amounts::JOB_FEES_LIMIT => Ok(least),
        _ => Err(bad("fees that no job has".into()).into()),
    }
}

const MIN_JOB_VALUE: &str = "minJobValue";
const DEFAULT_PATIENCE: Duration = Duration::from_secs(300);
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// An `expire_job` that was lost is sent again after this long.
const EXPIRE_AGAIN_S: u32 = 120;
