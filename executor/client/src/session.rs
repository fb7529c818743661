//! Sessions from the wallet: open, top up, ask to end. What flows in one is off chain.

use chain::{ChainAccess, ChainError, McBlock, StackValue, Transfer, Wallet};
use contracts::job::{
    CloseSession, JobLimits, JobState, JobStorage, OpenSession, Seller, SessionTerms, TopUpJob,
};
use contracts::money::Amount;
use contracts::wire::Ref;
use contracts::worker::Offer;
use contracts::{HashBytes, Message, Nanoton, Network, SigningKey, StdAddr, Units};

use crate::amounts;
use crate::error::ClientError;

/// A session to be opened with a worker whose quote was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRequest {
    /// Address of the worker's contract.
    pub worker: StdAddr,
    /// Its attested receipt key.
    pub receipt_key: HashBytes,
    /// What it offers for the model.
    pub offer: Offer,
    /// What it can pay in all.
    pub deposit: Amount,
    /// How long it may live, seconds.
    pub lives_for_s: u32,
    /// How long the worker has for its last receipt after the wish to end it, seconds.
    pub settle_within_s: u32,
}

/// The key of a session at `job`, which signs vouchers: HKDF of the wallet's seed over the network and the address, so that
/// it is on no disk and survives a crash.
pub fn session_key(wallet: &Wallet, network_id: i32, job: &StdAddr) -> SigningKey {
    let mut purpose = b"chrysalis/session-key/v1".to_vec();
    purpose.extend_from_slice(&network_id.to_be_bytes());
    purpose.push(job.workchain.cast_unsigned());
    purpose.extend_from_slice(job.address.as_slice());
    SigningKey::from_bytes(&wallet.derive_secret(&purpose))
}

impl SessionRequest {
    /// The wallet message that deploys and opens the session. `value` is the deposit and the fees of opening and closing.
    ///
    /// # Errors
    /// [`ClientError::Request`] for terms that the contract would refuse; cell errors.
    pub fn transfer(
        &self,
        network: &Network,
        wallet: &Wallet,
        nonce: u64,
        now_s: u32,
        value: Nanoton,
    ) -> Result<Transfer, ClientError> {
        if !(1..=contracts::job::MAX_SESSION_S).contains(&self.lives_for_s) {
            return Err(ClientError::Request("a session lives for 1 second to 14 days".into()));
        }
        let settle = contracts::job::MIN_SETTLE_S..=contracts::job::MAX_SETTLE_S;
        if !settle.contains(&self.settle_within_s) {
            return Err(ClientError::Request(
                "the time to settle is not within 30 seconds and 7 days".into(),
            ));
        }
        if value < self.deposit.nanoton() {
            return Err(ClientError::Request("the message does not even bring the deposit".into()));
        }
        let client = wallet.address();
        let job = network.job_address(client, nonce)?;
        let key = session_key(wallet, network.id(), &job);
        let open = OpenSession {
            query_id: nonce,
            until: now_s.saturating_add(self.lives_for_s),
            deposit: self.deposit,
            // A session's receipts are bounded by its vouchers, and it is never claimed.
            limits: JobLimits { max_units: Units::default(), least_bond: Amount::ZERO },
            seller: Ref::new(Seller {
                worker: self.worker.address,
                receipt_key: self.receipt_key,
                model: self.offer.model,
                settle_within_s: self.settle_within_s,
                share_bps: network.generation.share_bps(self.offer.royalty_bps),
                prices: self.offer.prices,
            })?,
            terms: Ref::new(SessionTerms { session_key: HashBytes(key.verifying_key().to_bytes()) })?,
        };
        let init = network.job_state_init(client, nonce)?;
        Ok(Transfer::new(job, value.get(), open.to_cell()?).with_state_init(init))
    }
}

/// The wallet message that raises a session's deposit.
///
/// # Errors
/// Cell errors.
pub fn top_up_session(job: &StdAddr, amount: Amount) -> Result<Transfer, ClientError> {
    let value = amount.nanoton().get() + amounts::JOB_ACTION.get();
    Ok(Transfer::new(job.clone(), value, TopUpJob { query_id: 0, amount }.to_cell()?))
}

/// The wallet message that asks for a session's end.
///
/// # Errors
/// Cell errors.
pub fn close_session(job: &StdAddr) -> Result<Transfer, ClientError> {
    Ok(Transfer::new(job.clone(), amounts::JOB_ACTION.get(), CloseSession { query_id: 0 }.to_cell()?))
}

/// The least that `open_session` may bring: the getter `minSessionValue` of the contract of `worker`.
///
/// # Errors
/// A bad answer where the getter fails, or names fees above [`amounts::JOB_FEES_LIMIT`].
pub async fn least_session_value<C: ChainAccess + ?Sized>(
    chain: &C,
    worker: &StdAddr,
    deposit: Amount,
    at: &McBlock,
) -> Result<Nanoton, ClientError> {
    let bad = |detail: String| ChainError::BadAnswer { request: MIN_SESSION_VALUE, detail };
    let arguments = [StackValue::Int(deposit.get().into())];
    let result = chain.run_getter(worker, MIN_SESSION_VALUE, &arguments, at).await?;
    let exit_code = result.exit_code;
    let stack = result.success().map_err(|_| bad(format!("exit code {exit_code}")))?;
    let [StackValue::Int(least)] = stack.as_slice() else {
        return Err(bad("not one integer".into()).into());
    };
    let least = u128::try_from(*least).ok().and_then(Nanoton::checked);
    match least.and_then(|least| least.checked_sub(deposit.nanoton()).map(|fees| (least, fees))) {
        Some((least, fees)) if fees <= amounts::JOB_FEES_LIMIT => Ok(least),
        _ => Err(bad("fees that no session has".into()).into()),
    }
}

/// The job at `job` as of `at`, with the client named in its initial data; `None` where none was posted there, or it was
/// destroyed.
///
/// # Errors
/// [`ClientError::NotOurs`] where another contract is there.
pub async fn read_job<C: ChainAccess + ?Sized>(
    chain: &C,
    network: &Network,
    job: &StdAddr,
    at: &McBlock,
) -> Result<Option<(StdAddr, JobState)>, ClientError> {
    let view = chain.account(job, at).await?;
    let Some(data) = view.data() else { return Ok(None) };
    let not_ours =
        |reason: &str| ClientError::NotOurs { address: job.clone(), what: "job", reason: reason.to_owned() };
    if view.code().map(|code| *code.repr_hash()) != Some(*network.generation.job_code.repr_hash()) {
        return Err(not_ours("its code is another"));
    }
    let storage: JobStorage = contracts::wire::from_cell(data)?;
    if network.job_address(&storage.client, storage.nonce)? != *job {
        return Err(not_ours("its address is not that of its client and nonce"));
    }
    Ok(storage.state.map(|state| (storage.client, state)))
}

const MIN_SESSION_VALUE: &str = "minSessionValue";
