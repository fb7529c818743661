//! The gateway's ledger: what it has promised, what it has been charged, and what it can prove.
//!
//! Before a voucher leaves, [`BuyerLedger::record`] has to be durable: a gateway that is killed then promises no more than
//! its budget after its restart.

use std::collections::{BTreeMap, BTreeSet};

use contracts::money::Amount;
use contracts::receipt::SignedReceipt;
use contracts::{Units, WireError};
use serde::{Deserialize, Serialize};

use crate::facts::SessionFacts;
use crate::ids::{RequestId, SessionId};
use crate::message::{AnsweredReport, CloseReport, Done, SessionReport};
use crate::receipt::SessionReceipt;
use crate::refusal::{Reason, Refused};
use crate::seller::amount_of;
use crate::units::{UnitBound, plus, sum};

/// What a gateway counted of an answer itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Tokens, or other units, of what it sent; `None` where it cannot count them: the bound holds then.
    pub input: Option<u32>,
    /// Of what it received.
    pub output: u32,
}

/// A session as its gateway writes it down. Nothing of a prompt or an answer is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuyerRecord {
    /// As the chain had it.
    pub facts: SessionFacts,
    /// What the user allows this session.
    pub budget: Amount,
    /// The highest voucher signed.
    pub promised: Amount,
    /// Charged and checked.
    pub units: Units,
    /// The newest receipt of that.
    pub receipt: Option<SessionReceipt>,
    /// Asked, and not settled.
    pub open: Vec<OpenRequest>,
}

/// Of [`BuyerRecord::open`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenRequest {
    /// Which.
    pub request: RequestId,
    /// The most it may be charged.
    pub bound: UnitBound,
}

/// A request cannot be made. The gateway's own matter; nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuyerError {
    /// Budget or deposit.
    #[error(
        "client: this request may bring the session to {needed}, and {limit} are allowed; raise the budget or the deposit"
    )]
    OverBudget {
        /// With this request, at most.
        needed: Amount,
        /// The smaller of budget and deposit.
        limit: Amount,
    },
    /// The session's counters end.
    #[error("client: the session has had as many units as one may; open another")]
    Full,
    /// Asked already.
    #[error("client: a request of this name is under way; draw another name")]
    Repeated,
    /// The worker has shown itself dishonest.
    #[error("worker: {0}; nothing more is promised to it")]
    Faulty(Fault),
}

/// What a worker did wrong. Some of it is proven by its own signature: [`BuyerLedger::proof`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fault {
    /// Not under the attested key, or of another session.
    #[error("its receipt does not verify for this session")]
    BadReceipt,
    /// 0, or beyond what a session has.
    #[error("its receipt has a sequence that no session has")]
    BadSequence,
    /// Not what the units cost.
    #[error("its receipt states another amount than its units cost")]
    WrongAmount,
    /// Two receipts of one sequence and different content.
    #[error("it signed two receipts of one sequence")]
    Equivocation,
    /// More than the gateway counted or allowed.
    #[error("it charges more units than there were")]
    Overcharge,
    /// Another sum than that of the requests.
    #[error("its receipt is not the sum of the requests")]
    WrongSum,
    /// Above what the session key promised.
    #[error("its receipt is over the voucher")]
    OverVoucher,
    /// An answer to what was not asked.
    #[error("it charges a request that is not under way")]
    Unasked,
    /// A final receipt where none was asked for, or none where one was.
    #[error("its receipt ends the session when it should not, or does not when it should")]
    WrongEnd,
}

/// Signed by the worker's attested key: what it did wrong, for whoever wants to check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// What.
    pub fault: Fault,
    /// The session, with its prices and keys.
    pub facts: SessionFacts,
    /// The receipt at fault.
    pub receipt: SessionReceipt,
    /// What it contradicts: the other of the same sequence, or the one before it.
    pub other: Option<SessionReceipt>,
    /// What the gateway counted itself; the proof is as good as its word there.
    pub counted: Option<Units>,
}

impl Proof {
    /// Both receipts, as the contract's `report_equivocation` takes them. `None` where the fault is another.
    ///
    /// # Errors
    /// [`WireError`]; none is known to happen.
    pub fn equivocation(&self) -> Result<Option<(SignedReceipt, SignedReceipt)>, WireError> {
        match self.other.filter(|_| self.fault == Fault::Equivocation) {
            Some(other) => {
                Ok(Some((self.receipt.to_signed(&self.facts.id)?, other.to_signed(&self.facts.id)?)))
            }
            None => Ok(None),
        }
    }
}

/// One session of a gateway.
#[derive(Debug)]
pub struct BuyerLedger {
    facts: SessionFacts,
    budget: Amount,
    promised: Amount,
    /// Sequence and units up to which every receipt is explained.
    sequence: u32,
    units: Units,
    newest: Option<SessionReceipt>,
    open: BTreeMap<RequestId, UnitBound>,
    /// Receipts whose turn has not come, with the request each charges.
    waiting: BTreeMap<u32, Waiting>,
    /// Receipts seen, to notice another of the same sequence.
    seen: BTreeMap<u32, SessionReceipt>,
    proof: Option<Proof>,
    fault: Option<Fault>,
}

impl BuyerLedger {
    /// A session that was opened, with what the user allows it.
    pub fn new(facts: SessionFacts, budget: Amount) -> Self {
        Self::restore(BuyerRecord {
            facts,
            budget,
            promised: Amount::ZERO,
            units: Units::default(),
            receipt: None,
            open: Vec::new(),
        })
    }

    /// From what was written down.
    pub fn restore(record: BuyerRecord) -> Self {
        let sequence = record.receipt.map_or(0, |receipt| receipt.sequence);
        Self {
            facts: record.facts,
            budget: record.budget,
            promised: record.promised,
            sequence,
            units: record.units,
            newest: record.receipt,
            open: record.open.iter().map(|open| (open.request, open.bound)).collect(),
            waiting: BTreeMap::new(),
            seen: record.receipt.iter().map(|receipt| (receipt.sequence, *receipt)).collect(),
            proof: None,
            fault: None,
        }
    }

    /// To be written down before the next voucher leaves.
    pub fn record(&self) -> BuyerRecord {
        BuyerRecord {
            facts: self.facts.clone(),
            budget: self.budget,
            promised: self.promised,
            units: self.units,
            receipt: self.newest,
            open: self
                .open
                .iter()
                .map(|(request, bound)| OpenRequest { request: *request, bound: *bound })
                .collect(),
        }
    }

    /// Which session.
    pub fn session(&self) -> &SessionId {
        &self.facts.id
    }

    /// As the chain had it.
    pub fn facts(&self) -> &SessionFacts {
        &self.facts
    }

    /// The chain has been read again, or the user has changed the budget. A budget below what is promised already only
    /// stops further requests.
    pub fn update(&mut self, facts: &SessionFacts, budget: Amount) {
        self.facts.deposit = facts.deposit;
        self.facts.paid = facts.paid;
        self.facts.sequence = facts.sequence;
        self.facts.status = facts.status;
        self.facts.until = facts.until;
        self.budget = budget;
    }

    /// Reserves the bound of a new request. The answer is the amount of the voucher to send with it.
    ///
    /// # Errors
    /// [`BuyerError`]; nothing is reserved.
    pub fn promise(&mut self, request: RequestId, bound: UnitBound) -> Result<Amount, BuyerError> {
        if let Some(fault) = self.fault {
            return Err(BuyerError::Faulty(fault));
        }
        if self.open.contains_key(&request) {
            return Err(BuyerError::Repeated);
        }
        let most = self.most_units(Some(&bound)).ok_or(BuyerError::Full)?;
        let needed = amount_of(&self.facts.prices, &most).ok_or(BuyerError::Full)?;
        let limit = self.budget.min(self.facts.deposit);
        if needed > limit {
            return Err(BuyerError::OverBudget { needed, limit });
        }
        self.promised = self.promised.max(needed);
        self.open.insert(request, bound);
        Ok(self.promised)
    }

    /// The newest sequence that was seen, to be sent with a request.
    pub fn seen_sequence(&self) -> u32 {
        self.seen.keys().next_back().copied().unwrap_or(0)
    }

    /// The worker did not serve a request. It stays reserved where it may have been charged all the same, until
    /// [`BuyerLedger::report`].
    pub fn refused(&mut self, request: RequestId, refused: &Refused) {
        let is_uncertain = matches!(refused.reason, Reason::JournalFailed | Reason::AnswerGone);
        if !is_uncertain && !self.waiting.values().any(|waiting| waiting.request == request) {
            self.open.remove(&request);
        }
    }

    /// A request has been answered to its end.
    ///
    /// # Errors
    /// What the worker did wrong. Nothing more is promised to it then; what it may draw stays what was promised.
    pub fn done(&mut self, done: &Done, counted: &Counted) -> Result<(), Fault> {
        self.check_receipt(&done.receipt)?;
        if done.receipt.is_final {
            return Err(self.faulty(Fault::WrongEnd, Some(done.receipt), None));
        }
        let Some(bound) = self.open.get(&done.request).copied() else {
            // Settled already, from a report.
            if done.again || self.seen_before(done) {
                return Ok(());
            }
            return Err(self.faulty(Fault::Unasked, Some(done.receipt), None));
        };
        if done.again {
            // Charged before, under a receipt that another answer or a report brings.
            return Ok(());
        }
        let used = &done.used;
        let input = u64::from(used.input) + u64::from(used.cached_input);
        let is_over = used.output > counted.output
            || counted.input.is_some_and(|counted| input > u64::from(counted))
            || !bound.covers(used);
        if is_over {
            let counted = Units {
                input: counted.input.unwrap_or(bound.input),
                cached_input: 0,
                output: counted.output.min(bound.output),
            };
            return Err(self.faulty(Fault::Overcharge, Some(done.receipt), Some(counted)));
        }
        self.await_turn(done.request, *used, done.receipt)
    }

    /// What the worker says of the session, as after a crash of either side. Requests that are neither `in_flight` on a
    /// connection of the gateway nor known to the worker are freed.
    ///
    /// # Errors
    /// As [`BuyerLedger::done`].
    pub fn report(&mut self, report: &SessionReport, in_flight: &BTreeSet<RequestId>) -> Result<(), Fault> {
        let Some(receipt) = report.receipt else {
            // None, although one was seen before.
            if self.sequence > 0 {
                return Err(self.faulty(Fault::WrongSum, self.newest, None));
            }
            self.free_unknown(report, in_flight);
            return Ok(());
        };
        self.check_receipt(&receipt)?;
        if receipt.sequence > self.sequence {
            self.explain(&report.answered, &receipt)?;
        }
        self.free_unknown(report, in_flight);
        Ok(())
    }

    /// The session's last receipt, after a wish to close it.
    ///
    /// # Errors
    /// As [`BuyerLedger::done`].
    pub fn closed(&mut self, report: &CloseReport) -> Result<(), Fault> {
        let receipt = report.receipt;
        self.check_receipt(&receipt)?;
        if !receipt.is_final {
            return Err(self.faulty(Fault::WrongEnd, Some(receipt), None));
        }
        // What is still open may have been charged under receipts in between, and nothing else.
        self.check_sum(&receipt)?;
        if receipt.sequence == self.sequence + 1 && receipt.units != self.units {
            let units = self.units;
            return Err(self.faulty(Fault::WrongSum, Some(receipt), Some(units)));
        }
        self.settle(receipt);
        Ok(())
    }

    /// Charged so far, as far as every receipt is explained.
    pub fn spent(&self) -> Amount {
        amount_of(&self.facts.prices, &self.units).unwrap_or(self.promised)
    }

    /// The most that the worker can draw.
    pub fn promised(&self) -> Amount {
        self.promised
    }

    /// Units charged so far.
    pub fn units(&self) -> Units {
        self.units
    }

    /// The newest receipt that is explained: with the session's voucher, anyone can redeem it.
    pub fn newest(&self) -> Option<&SessionReceipt> {
        self.newest.as_ref()
    }

    /// Asked, and not settled.
    pub fn open_requests(&self) -> impl Iterator<Item = RequestId> {
        self.open.keys().copied()
    }

    /// What the worker did wrong first.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// What proves it, where its own signature does.
    pub fn proof(&self) -> Option<&Proof> {
        self.proof.as_ref()
    }

    /// Signature, sequence, amount and voucher; and that no other was seen of this sequence.
    fn check_receipt(&mut self, receipt: &SessionReceipt) -> Result<(), Fault> {
        if receipt.verify(&self.facts.id, &self.facts.receipt_key).is_err() {
            // Whoever may have made it: no proof.
            self.fault.get_or_insert(Fault::BadReceipt);
            return Err(Fault::BadReceipt);
        }
        if !(1..contracts::job::EQUIVOCATED).contains(&receipt.sequence) {
            return Err(self.faulty(Fault::BadSequence, Some(*receipt), None));
        }
        if let Some(other) = self.seen.get(&receipt.sequence).copied()
            && other != *receipt
        {
            let fault = self.faulty(Fault::Equivocation, Some(*receipt), None);
            if let Some(proof) = &mut self.proof {
                proof.other.get_or_insert(other);
            }
            return Err(fault);
        }
        if amount_of(&self.facts.prices, &receipt.units) != Some(receipt.amount) {
            return Err(self.faulty(Fault::WrongAmount, Some(*receipt), None));
        }
        if receipt.amount > self.promised {
            return Err(self.faulty(Fault::OverVoucher, Some(*receipt), None));
        }
        self.seen.insert(receipt.sequence, *receipt);
        if self.seen.len() > MAX_SEEN {
            self.seen.pop_first();
        }
        Ok(())
    }

    /// Whether this is the answer of a request that is settled, once more.
    fn seen_before(&self, done: &Done) -> bool {
        done.receipt.sequence <= self.sequence
    }

    /// Takes a receipt's turn, now or when those before it have come.
    fn await_turn(&mut self, request: RequestId, used: Units, receipt: SessionReceipt) -> Result<(), Fault> {
        if receipt.sequence <= self.sequence {
            // Explained already: what was charged for it, if anything, is in that sum.
            self.open.remove(&request);
            return Ok(());
        }
        self.check_sum(&receipt)?;
        if let Some(other) = self.waiting.insert(receipt.sequence, Waiting { request, used, receipt })
            && other.request != request
        {
            return Err(self.faulty(Fault::WrongSum, Some(receipt), Some(used)));
        }
        while let Some(next) = self.waiting.remove(&(self.sequence + 1)) {
            if plus(&self.units, &next.used) != Some(next.receipt.units) {
                let counted = plus(&self.units, &next.used);
                return Err(self.faulty(Fault::WrongSum, Some(next.receipt), counted));
            }
            self.open.remove(&next.request);
            self.settle(next.receipt);
        }
        Ok(())
    }

    /// Reads a receipt ahead of its turn from what the worker says of the requests behind it.
    fn explain(&mut self, answered: &[AnsweredReport], receipt: &SessionReceipt) -> Result<(), Fault> {
        let mut sum = self.units;
        let (mut settled, mut sequences) = (BTreeSet::new(), BTreeSet::new());
        for answer in answered {
            if answer.sequence <= self.sequence {
                continue;
            }
            let Some(bound) = self.open.get(&answer.request).copied() else {
                return Err(self.faulty(Fault::Unasked, Some(*receipt), None));
            };
            if !bound.covers(&answer.used) || answer.sequence > receipt.sequence {
                return Err(self.faulty(Fault::Overcharge, Some(*receipt), Some(bound.units())));
            }
            let is_new = settled.insert(answer.request) && sequences.insert(answer.sequence);
            sum = match plus(&sum, &answer.used).filter(|_| is_new) {
                Some(sum) => sum,
                None => return Err(self.faulty(Fault::WrongSum, Some(*receipt), None)),
            };
        }
        let steps = settled.len() as u64 + u64::from(receipt.is_final);
        let is_whole = u64::from(receipt.sequence - self.sequence) == steps;
        if !is_whole {
            // More than a report names: within the bounds of what was asked, and no further.
            self.check_sum(receipt)?;
        } else if sum != receipt.units {
            return Err(self.faulty(Fault::WrongSum, Some(*receipt), Some(sum)));
        }
        for request in settled {
            self.open.remove(&request);
        }
        self.settle(*receipt);
        Ok(())
    }

    /// What is explained, and at most the bounds of what is open.
    fn check_sum(&mut self, receipt: &SessionReceipt) -> Result<(), Fault> {
        let input = |units: &Units| u64::from(units.input) + u64::from(units.cached_input);
        let grows = self.units.at_most(&receipt.units);
        let is_within = self
            .most_units(None)
            .is_none_or(|most| input(&receipt.units) <= input(&most) && receipt.units.output <= most.output);
        match grows && is_within {
            true => Ok(()),
            false => {
                let counted = self.most_units(None);
                Err(self.faulty(Fault::WrongSum, Some(*receipt), counted))
            }
        }
    }

    fn settle(&mut self, receipt: SessionReceipt) {
        self.sequence = receipt.sequence;
        self.units = receipt.units;
        self.newest = Some(receipt);
        let behind = self.waiting.keys().take_while(|sequence| **sequence <= receipt.sequence);
        for sequence in behind.copied().collect::<Vec<_>>() {
            if let Some(waiting) = self.waiting.remove(&sequence) {
                self.open.remove(&waiting.request);
            }
        }
    }

    fn free_unknown(&mut self, report: &SessionReport, in_flight: &BTreeSet<RequestId>) {
        let waiting: BTreeSet<RequestId> = self.waiting.values().map(|waiting| waiting.request).collect();
        self.open.retain(|request, _| {
            in_flight.contains(request) || report.open.contains(request) || waiting.contains(request)
        });
    }

    /// What may have been charged at most, with this.
    fn most_units(&self, bound: Option<&UnitBound>) -> Option<Units> {
        let open: Vec<Units> = self.open.values().chain(bound).map(UnitBound::units).collect();
        plus(&self.units, &sum(&open)?)
    }

    fn faulty(&mut self, fault: Fault, receipt: Option<SessionReceipt>, counted: Option<Units>) -> Fault {
        self.fault.get_or_insert(fault);
        if let (Some(receipt), None) = (receipt, &self.proof) {
            let facts = self.facts.clone();
            let other = self.newest.filter(|newest| newest.sequence != receipt.sequence);
            let other = other.filter(|_| fault != Fault::Equivocation);
            self.proof = Some(Proof { fault, facts, receipt, other, counted });
        }
        fault
    }
}

#[derive(Debug)]
struct Waiting {
    request: RequestId,
    used: Units,
    receipt: SessionReceipt,
}

/// Receipts remembered.
const MAX_SEEN: usize = 4_096;
