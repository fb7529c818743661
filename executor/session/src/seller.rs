//! The worker's ledger: what it serves, what it has written down, and what it may sign.
//!
//! A receipt is signed when what it says is durable: [`SellerLedger::finish`] makes an [`Entry`], [`write_all`] makes it
//! [`Written`], and only that signs. A worker that is killed between any two of these steps signs, after its restart, the
//! same receipt or a later one, and never another of the same sequence.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};

use contracts::job::{EQUIVOCATED, JobStatus};
use contracts::money::Amount;
use contracts::{HashBytes, Nanoton, Prices, SigningKey, Units, WireError};
use serde::{Deserialize, Serialize};

use crate::facts::SessionFacts;
use crate::ids::{RequestId, SessionId};
use crate::message::{AnsweredReport, MAX_REPORTED};
use crate::receipt::{Content, SessionReceipt};
use crate::refusal::{Reason, Refused};
use crate::units::{UnitBound, at_best, plus, sum};
use crate::voucher::SignedVoucher;

/// Bounds of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SellerLimits {
    /// Sessions at once.
    pub sessions: usize,
    /// Requests of one session at once.
    pub open_per_session: usize,
    /// Requests of one session in all; their names are kept as long as it lives.
    pub requests_per_session: usize,
    /// A session that ends sooner takes no new requests.
    pub margin_s: u32,
}

impl Default for SellerLimits {
    fn default() -> Self {
        Self { sessions: 4_096, open_per_session: 128, requests_per_session: 65_536, margin_s: 600 }
    }
}

/// What this worker sells, as its own records on chain have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Its account, in the basechain.
    pub worker: HashBytes,
    /// Its attested receipt key.
    pub receipt_key: HashBytes,
    /// Account of the Model.
    pub model: HashBytes,
    /// The least it takes.
    pub prices: Prices,
    /// Royalty and fee together.
    pub share_bps: u16,
    /// The least deposit.
    pub min_deposit: Nanoton,
    /// The least time between a client's wish to end a session and its end.
    pub min_settle_s: u32,
}

impl Offered {
    /// Whether a session that was opened is one that this worker serves.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, facts: &SessionFacts) -> Result<(), Refused> {
        if facts.worker != self.worker
            || facts.receipt_key != self.receipt_key
            || facts.model != self.model
            || facts.id.job.workchain != 0
        {
            return Err(Reason::OtherSeller.into());
        }
        if !self.prices.at_most(&facts.prices)
            || facts.share_bps != self.share_bps
            || facts.settle_within_s < self.min_settle_s
        {
            return Err(Reason::TermsBelowOffer.into());
        }
        if facts.deposit.nanoton() < self.min_deposit {
            let needed = Amount::try_from(self.min_deposit).unwrap_or(Amount::new(u64::MAX));
            return Err(Refused::needing(Reason::DepositTooLow, needed));
        }
        Ok(())
    }
}

/// A session as it is written down. Nothing of a prompt or an answer is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionRecord {
    /// As the chain had it when this was written.
    pub facts: SessionFacts,
    /// Of the newest receipt; 0 before the first.
    pub sequence: u32,
    /// The newest receipt ends the session.
    pub is_final: bool,
    /// Charged so far.
    pub units: Units,
    /// Of the newest receipt.
    pub content: Content,
    /// The highest so far.
    pub voucher: Option<SignedVoucher>,
}

impl SessionRecord {
    /// What `units` cost.
    pub fn amount(&self) -> Amount {
        amount_of(&self.facts.prices, &self.units).unwrap_or(Amount::new(u64::MAX))
    }
}

/// A request that was charged, as it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnsweredRecord {
    /// Which.
    pub request: RequestId,
    /// Of its receipt.
    pub sequence: u32,
    /// What it was charged.
    pub used: Units,
}

/// What has to be written down, whole or not at all. The session's record replaces the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    record: SessionRecord,
    answered: Option<AnsweredRecord>,
}

impl Entry {
    /// The session's new record.
    pub fn record(&self) -> &SessionRecord {
        &self.record
    }

    /// The request it charges, which is kept beside those before it.
    pub fn answered(&self) -> Option<&AnsweredRecord> {
        self.answered.as_ref()
    }
}

/// A record that is durable: what it says may be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written(SessionRecord);

impl Written {
    /// The record.
    pub fn record(&self) -> &SessionRecord {
        &self.0
    }

    /// The receipt. Always the same bytes for the same record. `None` before the session's first.
    ///
    /// # Errors
    /// [`WireError`]; none is known to happen.
    pub fn sign(&self, receipt_key: &SigningKey) -> Result<Option<SessionReceipt>, WireError> {
        let record = &self.0;
        if record.sequence == 0 {
            return Ok(None);
        }
        let signed = SessionReceipt::sign(
            &record.facts.id,
            record.sequence,
            record.is_final,
            record.units,
            record.amount(),
            record.content,
            receipt_key,
        );
        signed.map(Some)
    }
}

/// Where entries become durable.
pub trait SessionJournal {
    /// What goes wrong.
    type Error;

    /// Writes all of them, in this order, or none; durable when this returns.
    ///
    /// # Errors
    /// Whether anything was written is then not known: the ledger is told so by [`SellerLedger::fail`].
    fn commit(&self, entries: &[Entry]) -> Result<(), Self::Error>;

    /// Removes what is over.
    ///
    /// # Errors
    /// As [`SessionJournal::commit`].
    fn forget(&self, session: &SessionId) -> Result<(), Self::Error>;
}

/// Writes entries down.
///
/// # Errors
/// Those of the journal; nothing may be signed then.
pub fn write_all<J: SessionJournal + ?Sized>(
    journal: &J,
    entries: Vec<Entry>,
) -> Result<Vec<Written>, J::Error> {
    journal.commit(&entries)?;
    Ok(entries.into_iter().map(|entry| Written(entry.record)).collect())
}

/// A request, as the ledger sees it.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Which session pays.
    pub session: &'a SessionId,
    /// The key that the connection has proven.
    pub shown_key: Option<[u8; 32]>,
    /// Its name.
    pub request: RequestId,
    /// See [`crate::message::StartRequest::voucher`].
    pub voucher: &'a SignedVoucher,
    /// See [`crate::message::StartRequest::seen_sequence`].
    pub seen_sequence: u32,
    /// The most it may be charged.
    pub bound: UnitBound,
}

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Serve it; its bound is reserved until [`SellerLedger::finish`] or [`SellerLedger::abandon`].
    Start,
    /// It is under way.
    Running,
    /// It was answered and charged in this life of the worker: the answer is held, or gone.
    Answered,
    /// It was charged in an earlier life, and its answer died with that: serve it once more within what it was charged,
    /// until [`SellerLedger::served_again`].
    Again {
        /// What it was charged.
        within: UnitBound,
    },
}

/// The engine's numbers, or the order of calls, cannot be right. Nothing was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SellerError {
    /// Not one that is under way.
    #[error("program: no such request is under way; report this")]
    NotOpen,
    /// More than was reserved.
    #[error("worker: the engine used more than the request's bound; nothing is charged; report this")]
    OverBound,
    /// The journal has failed before.
    #[error("worker: the journal has failed; nothing more is signed before a restart")]
    Failed,
}

/// All sessions of a worker.
#[derive(Debug)]
pub struct SellerLedger {
    limits: SellerLimits,
    accounts: BTreeMap<SessionId, Account>,
    failed: bool,
}

impl SellerLedger {
    /// What the journal held, each session with its answered requests.
    pub fn restore(
        limits: SellerLimits,
        records: impl IntoIterator<Item = (SessionRecord, Vec<AnsweredRecord>)>,
    ) -> Self {
        let accounts = records.into_iter().map(|(record, answered)| {
            let answered = answered
                .into_iter()
                .map(|answered| (answered.request, Answered { record: answered, earlier: true }))
                .collect();
            (record.facts.id.clone(), Account::new(record, answered))
        });
        Self { limits, accounts: accounts.collect(), failed: false }
    }

    /// Takes a session that was opened. The entry has to be written before it is served.
    ///
    /// # Errors
    /// Why it is not served. A session that is known already is no error: see [`SellerLedger::update`].
    pub fn open(&mut self, offered: &Offered, facts: SessionFacts) -> Result<Entry, Refused> {
        offered.judge(&facts)?;
        if facts.status != JobStatus::Session {
            return Err(Reason::SessionEnded.into());
        }
        // Receipts that this journal does not know of have been redeemed.
        if facts.sequence != 0 || !facts.paid.is_zero() {
            return Err(Reason::BeforeJournal.into());
        }
        if self.accounts.len() >= self.limits.sessions {
            return Err(Reason::Busy.into());
        }
        match self.accounts.entry(facts.id.clone()) {
            Slot::Occupied(known) => Ok(Entry { record: known.get().record.clone(), answered: None }),
            Slot::Vacant(place) => {
                let record = SessionRecord {
                    facts,
                    sequence: 0,
                    is_final: false,
                    units: Units::default(),
                    content: Content::NOTHING,
                    voucher: None,
                };
                let account = place.insert(Account::new(record, BTreeMap::new()));
                Ok(Entry { record: account.record.clone(), answered: None })
            }
        }
    }

    /// The chain has been read again: deposit, payments, status and end of a known session.
    pub fn update(&mut self, facts: &SessionFacts) {
        let Some(account) = self.accounts.get_mut(&facts.id) else { return };
        let known = &mut account.record.facts;
        known.deposit = facts.deposit;
        known.paid = facts.paid;
        known.sequence = facts.sequence;
        known.status = facts.status;
        known.until = facts.until;
        if facts.sequence % EQUIVOCATED > account.record.sequence || facts.sequence >= EQUIVOCATED {
            account.behind = true;
        }
    }

    /// The session is over and nothing of it is needed any more. Returns whether it was known.
    pub fn forget(&mut self, session: &SessionId) -> bool {
        self.accounts.remove(session).is_some()
    }

    /// Judges a request before any work is done for it.
    ///
    /// # Errors
    /// Why it is not served; nothing has changed.
    pub fn admit(&mut self, ask: &Ask<'_>, now_s: u32) -> Result<Admission, Refused> {
        let limits = self.limits;
        let failed = self.failed;
        let account = self.accounts.get_mut(ask.session).ok_or(Reason::UnknownSession)?;
        account.check_key(ask.shown_key)?;
        if account.open.contains_key(&ask.request) || account.again.contains(&ask.request) {
            return Ok(Admission::Running);
        }
        let earlier = account.answered.get(&ask.request).map(|answered| answered.earlier);
        if earlier == Some(false) {
            return Ok(Admission::Answered);
        }
        if failed {
            return Err(Reason::JournalFailed.into());
        }
        if account.open.len() + account.again.len() >= limits.open_per_session {
            return Err(Reason::TooManyOpen.into());
        }
        if let Some(answered) = account.answered.get_mut(&ask.request) {
            answered.earlier = false;
            let used = answered.record.used;
            account.again.insert(ask.request);
            let input = used.input.saturating_add(used.cached_input);
            return Ok(Admission::Again { within: UnitBound { input, output: used.output } });
        }
        account.check_serving(limits.margin_s, now_s)?;
        if ask.seen_sequence > account.record.sequence || account.behind {
            return Err(Reason::BehindReceipt.into());
        }
        let requests = account.answered.len() + account.open.len();
        let receipts = u64::from(account.record.sequence) + account.open.len() as u64 + 2;
        if requests >= limits.requests_per_session || receipts >= u64::from(EQUIVOCATED) {
            return Err(Reason::SessionFull.into());
        }
        let needed = account.cost_with(Some(&ask.bound)).ok_or(Reason::SessionFull)?;
        if needed > account.record.facts.deposit {
            return Err(Refused::needing(Reason::DepositTooLow, needed));
        }
        account.take_voucher(ask.voucher, needed)?;
        account.open.insert(ask.request, ask.bound);
        Ok(Admission::Start)
    }

    /// Charges a request that was answered. The entry has to be written, and its receipt signed, before the answer's end
    /// leaves.
    ///
    /// # Errors
    /// [`SellerError`]; nothing is charged, and a request that was over its bound is under way no more.
    pub fn finish(
        &mut self,
        session: &SessionId,
        request: RequestId,
        used: Units,
        content: Content,
    ) -> Result<Entry, SellerError> {
        if self.failed {
            return Err(SellerError::Failed);
        }
        let account = self.accounts.get_mut(session).ok_or(SellerError::NotOpen)?;
        let bound = account.open.remove(&request).ok_or(SellerError::NotOpen)?;
        if !bound.covers(&used) {
            return Err(SellerError::OverBound);
        }
        let used = at_best(&account.record.facts.prices, used);
        let record = &mut account.record;
        record.units = plus(&record.units, &used).ok_or(SellerError::OverBound)?;
        record.sequence += 1;
        record.content = content;
        let answered = AnsweredRecord { request, sequence: record.sequence, used };
        account.answered.insert(request, Answered { record: answered, earlier: false });
        Ok(Entry { record: record.clone(), answered: Some(answered) })
    }

    /// Ends a request without a charge.
    pub fn abandon(&mut self, session: &SessionId, request: RequestId) {
        if let Some(account) = self.accounts.get_mut(session) {
            account.open.remove(&request);
        }
    }

    /// A request of [`Admission::Again`] has come to its end. Where it failed, it may be asked for once more.
    pub fn served_again(&mut self, session: &SessionId, request: RequestId, failed: bool) {
        if let Some(account) = self.accounts.get_mut(session)
            && account.again.remove(&request)
            && let Some(answered) = account.answered.get_mut(&request)
        {
            answered.earlier = failed;
        }
    }

    /// What a request was charged.
    pub fn answered(&self, session: &SessionId, request: RequestId) -> Option<AnsweredRecord> {
        Some(self.accounts.get(session)?.answered.get(&request)?.record)
    }

    /// The client wants the session to end.
    ///
    /// # Errors
    /// Why it cannot end now; nothing has changed.
    pub fn close(
        &mut self,
        session: &SessionId,
        shown_key: Option<[u8; 32]>,
        voucher: &SignedVoucher,
    ) -> Result<Option<Entry>, Refused> {
        let account = self.accounts.get_mut(session).ok_or(Reason::UnknownSession)?;
        account.check_key(shown_key)?;
        let needed = account.cost_with(None).ok_or(Reason::SessionFull)?;
        account.take_voucher(voucher, needed)?;
        self.finalise(session)
    }

    /// Ends the session with a final receipt, to be written before it is signed. `None` where that is there already.
    ///
    /// # Errors
    /// Why it cannot end now.
    pub fn finalise(&mut self, session: &SessionId) -> Result<Option<Entry>, Refused> {
        if self.failed {
            return Err(Reason::JournalFailed.into());
        }
        let account = self.accounts.get_mut(session).ok_or(Reason::UnknownSession)?;
        if account.record.is_final {
            return Ok(None);
        }
        if account.behind {
            return Err(Reason::BehindReceipt.into());
        }
        if !account.open.is_empty() {
            return Err(Reason::TooManyOpen.into());
        }
        if !account.record.facts.status.is_session() || account.record.sequence + 1 >= EQUIVOCATED {
            return Err(Reason::SessionEnded.into());
        }
        let record = &mut account.record;
        record.sequence += 1;
        record.is_final = true;
        record.content = Content::NOTHING;
        Ok(Some(Entry { record: record.clone(), answered: None }))
    }

    /// An entry is durable.
    pub fn written(&mut self, written: &Written) {
        if let Some(account) = self.accounts.get_mut(&written.0.facts.id)
            && account.written.as_ref().is_none_or(|known| known.0.sequence <= written.0.sequence)
        {
            account.written = Some(written.clone());
        }
    }

    /// The journal could not be written: nothing is served, charged or signed any more.
    pub fn fail(&mut self) {
        self.failed = true;
    }

    /// See [`SellerLedger::fail`].
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// The newest that is durable.
    pub fn newest(&self, session: &SessionId) -> Option<&Written> {
        self.accounts.get(session)?.written.as_ref()
    }

    /// A session as it stands, written or not.
    pub fn record(&self, session: &SessionId) -> Option<&SessionRecord> {
        Some(&self.accounts.get(session)?.record)
    }

    /// The sessions.
    pub fn sessions(&self) -> impl Iterator<Item = &SessionRecord> {
        self.accounts.values().map(|account| &account.record)
    }

    /// The session with this key, checked as a request's is.
    ///
    /// # Errors
    /// [`Reason::UnknownSession`], [`Reason::WrongKey`].
    pub fn check_key(&self, session: &SessionId, shown_key: Option<[u8; 32]>) -> Result<(), Refused> {
        self.accounts.get(session).ok_or(Reason::UnknownSession)?.check_key(shown_key)
    }

    /// Whether a session names this key.
    pub fn knows_key(&self, shown_key: &[u8; 32]) -> bool {
        self.accounts.values().any(|account| account.record.facts.session_key.0 == *shown_key)
    }

    /// Under way.
    pub fn open_requests(&self, session: &SessionId) -> Vec<RequestId> {
        let Some(account) = self.accounts.get(session) else { return Vec::new() };
        account.open.keys().chain(&account.again).copied().collect()
    }

    /// The newest that were answered and are durable; `held` says whose answers can be had again.
    pub fn answered_reports(
        &self,
        session: &SessionId,
        held: impl Fn(&RequestId) -> bool,
    ) -> Vec<AnsweredReport> {
        let Some(account) = self.accounts.get(session) else { return Vec::new() };
        let durable = account.written.as_ref().map_or(0, |written| written.0.sequence);
        let mut all: Vec<_> = account.answered.values().map(|answered| answered.record).collect();
        all.retain(|answered| answered.sequence <= durable);
        all.sort_unstable_by_key(|answered| std::cmp::Reverse(answered.sequence));
        all.truncate(MAX_REPORTED);
        let report = |answered: AnsweredRecord| AnsweredReport {
            request: answered.request,
            sequence: answered.sequence,
            used: answered.used,
            held: held(&answered.request),
        };
        all.into_iter().map(report).collect()
    }
}

#[derive(Debug)]
struct Account {
    /// As it stands; what is signed is `written`.
    record: SessionRecord,
    written: Option<Written>,
    /// Bounds of what is under way.
    open: BTreeMap<RequestId, UnitBound>,
    /// Under way a second time, without a charge.
    again: BTreeSet<RequestId>,
    answered: BTreeMap<RequestId, Answered>,
    /// There are receipts that the journal does not know.
    behind: bool,
}

#[derive(Debug)]
struct Answered {
    record: AnsweredRecord,
    /// In a life of the worker before this one.
    earlier: bool,
}

impl Account {
    /// From what is, or is about to be, in the journal.
    fn new(record: SessionRecord, answered: BTreeMap<RequestId, Answered>) -> Self {
        let behind = record.facts.sequence > record.sequence;
        // A session that was just opened has nothing to sign.
        let written = Some(Written(record.clone()));
        Self { record, written, open: BTreeMap::new(), again: BTreeSet::new(), answered, behind }
    }

    fn check_key(&self, shown: Option<[u8; 32]>) -> Result<(), Refused> {
        if shown == Some(self.record.facts.session_key.0) { Ok(()) } else { Err(Reason::WrongKey.into()) }
    }

    fn check_serving(&self, margin_s: u32, now_s: u32) -> Result<(), Refused> {
        let facts = &self.record.facts;
        let is_over = facts.status != JobStatus::Session
            || self.record.is_final
            || facts.until <= now_s.saturating_add(margin_s);
        if is_over { Err(Reason::SessionEnded.into()) } else { Ok(()) }
    }

    /// What is settled, under way, and this would cost together. `None` where counts or amount are too large.
    fn cost_with(&self, bound: Option<&UnitBound>) -> Option<Amount> {
        let open: Vec<Units> = self.open.values().chain(bound).map(UnitBound::units).collect();
        let units = plus(&self.record.units, &sum(&open)?)?;
        amount_of(&self.record.facts.prices, &units)
    }

    /// Keeps the voucher where it is higher than the one before and holds.
    fn take_voucher(&mut self, voucher: &SignedVoucher, needed: Amount) -> Result<(), Refused> {
        let known = self.record.voucher.map_or(Amount::ZERO, |known| known.amount);
        if voucher.amount.max(known) < needed {
            return Err(Refused::needing(Reason::VoucherTooLow, needed));
        }
        if self.record.voucher.is_none() || voucher.amount > known {
            let facts = &self.record.facts;
            voucher.verify(&facts.id, &facts.session_key).map_err(|_| Reason::BadVoucher)?;
            self.record.voucher = Some(*voucher);
        }
        Ok(())
    }
}

pub(crate) fn amount_of(prices: &Prices, units: &Units) -> Option<Amount> {
    Amount::try_from(prices.cost(units)).ok()
}
