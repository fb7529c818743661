//! What the gateway asks of the chain and of the user's wallet.

use async_trait::async_trait;
use contracts::job::ReportEquivocation;
use contracts::money::Amount;
use contracts::{HashBytes, Prices, SigningKey, StdAddr};
use ra_tls::evidence::ExpectedWorker;
use session::{SessionFacts, SessionId};

/// The chain and the wallet, as far as sessions need them.
#[async_trait]
pub trait Ground: Send + Sync + 'static {
    /// Offers of workers whose registration, quote and measurement satisfy the user's policy, as of now.
    ///
    /// # Errors
    /// [`GroundError`] where the chain cannot be read. A worker that fails the policy is left out, not an error.
    async fn sellers(&self) -> Result<Vec<Seller>, GroundError>;

    /// Where a session with this nonce would be.
    ///
    /// # Errors
    /// [`GroundError`]; none is known to happen.
    fn job_address(&self, nonce: u64) -> Result<StdAddr, GroundError>;

    /// The key of a session, derived from the wallet so that it is on no disk.
    fn session_key(&self, job: &StdAddr) -> SigningKey;

    /// What opening a session brings beside its deposit: fees, of which the rest comes back.
    ///
    /// # Errors
    /// [`GroundError`].
    async fn opening_fees(&self, seller: &Seller, deposit: Amount) -> Result<Amount, GroundError>;

    /// The most that the wallet itself pays for sending one message.
    fn message_fee(&self) -> Amount;

    /// What a top-up, or a wish for a session's end, brings beside its amount.
    fn action_fees(&self) -> Amount;

    /// Opens a session by one wallet transaction. Final when this returns; the worker's contract may have refused it.
    ///
    /// # Errors
    /// [`GroundError`]; after [`GroundError::is_certain`] nothing has happened.
    async fn open(&self, opening: &Opening<'_>) -> Result<SessionFacts, GroundError>;

    /// Raises a session's deposit by `amount`. Final when this returns.
    ///
    /// # Errors
    /// [`GroundError`].
    async fn top_up(&self, session: &SessionId, amount: Amount) -> Result<SessionFacts, GroundError>;

    /// Asks on chain for a session's end: for a worker that does not answer.
    ///
    /// # Errors
    /// [`GroundError`].
    async fn ask_close(&self, session: &SessionId) -> Result<(), GroundError>;

    /// Ends a session whose notice is over.
    ///
    /// # Errors
    /// [`GroundError`].
    async fn expire(&self, session: &SessionId) -> Result<(), GroundError>;

    /// Shows the chain two receipts of one sequence.
    ///
    /// # Errors
    /// [`GroundError`].
    async fn report(&self, job: &StdAddr, report: &ReportEquivocation) -> Result<(), GroundError>;

    /// The session at `job`; `None` where there is none, or none any more.
    ///
    /// # Errors
    /// [`GroundError`].
    async fn facts(&self, job: &StdAddr) -> Result<Option<SessionFacts>, GroundError>;

    /// The chain's time, Unix seconds.
    ///
    /// # Errors
    /// [`GroundError`].
    async fn now_s(&self) -> Result<u32, GroundError>;
}

/// An offer of a worker that the policy accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seller {
    /// Whom a connection to it has to find.
    pub expected: ExpectedWorker,
    /// HOST:PORT.
    pub endpoint: String,
    /// Which model.
    pub model_id: HashBytes,
    /// Account of its Model, in the basechain.
    pub model: HashBytes,
    /// What the publisher calls it; empty where unknown.
    pub model_name: String,
    /// Likewise.
    pub licence: String,
    /// Tokens of prompt and answer together; 0 where unknown.
    pub context_tokens: u32,
    /// The publisher's address.
    pub publisher: String,
    /// When the model was registered, Unix seconds; 0 where unknown.
    pub registered_at_s: u64,
    /// nanoTON per 1 000 units.
    pub prices: Prices,
    /// Royalty and fee together.
    pub share_bps: u16,
    /// The publisher's part of it.
    pub royalty_bps: u16,
    /// The least deposit.
    pub min_deposit: Amount,
    /// Its stake: what it loses for signing two receipts of one sequence.
    pub stake: Amount,
}

/// A session to be opened.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// With whom.
    pub seller: &'a Seller,
    /// Makes its address unique among the client's.
    pub nonce: u64,
    /// What it can pay.
    pub deposit: Amount,
    /// What the message brings beside it.
    pub fees: Amount,
    /// How long it may live, seconds.
    pub lives_for_s: u32,
    /// How long the worker has for its last receipt, seconds.
    pub settle_within_s: u32,
}

/// The chain or the wallet failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct GroundError {
    /// Who is at fault and what to do.
    pub message: String,
    /// Nothing has happened and nothing will.
    pub is_certain: bool,
}
