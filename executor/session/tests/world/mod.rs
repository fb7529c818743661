//! A session as the chain would show it, and a journal in memory.
#![allow(dead_code, clippy::unwrap_used, unreachable_pub)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;

use contracts::job::JobStatus;
use contracts::money::Amount;
use contracts::{HashBytes, Nanoton, Prices, SigningKey, StdAddr};
use session::{
    AnsweredRecord, Content, Entry, Offered, SellerLedger, SellerLimits, SessionFacts, SessionId,
    SessionJournal, SessionRecord,
};

pub const NOW_S: u32 = 1_795_000_000;

pub fn receipt_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub fn session_key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

pub fn shown() -> Option<[u8; 32]> {
    Some(session_key().verifying_key().to_bytes())
}

pub fn prices(input: u64, cached_input: u64, output: u64) -> Prices {
    Prices {
        input: Nanoton::new(input),
        cached_input: Nanoton::new(cached_input),
        output: Nanoton::new(output),
    }
}

pub fn facts(prices: Prices, deposit: u64) -> SessionFacts {
    SessionFacts {
        id: SessionId { job: StdAddr::new(0, HashBytes([3; 32])), posted_lt: 1_000 },
        client: StdAddr::new(0, HashBytes([4; 32])),
        worker: HashBytes([5; 32]),
        receipt_key: HashBytes(receipt_key().verifying_key().to_bytes()),
        model: HashBytes([6; 32]),
        session_key: HashBytes(session_key().verifying_key().to_bytes()),
        prices,
        share_bps: 500,
        settle_within_s: 3_600,
        deposit: Amount::new(deposit),
        paid: Amount::ZERO,
        sequence: 0,
        status: JobStatus::Session,
        until: NOW_S + 86_400,
    }
}

pub fn offered(facts: &SessionFacts) -> Offered {
    Offered {
        worker: facts.worker,
        receipt_key: facts.receipt_key,
        model: facts.model,
        prices: facts.prices,
        share_bps: facts.share_bps,
        min_deposit: Nanoton::ZERO,
        min_settle_s: 300,
    }
}

pub fn content(mark: u8) -> Content {
    Content { transcript: [mark; 32], engine: 2, dtype: 5 }
}

/// As a file would be.
#[derive(Default)]
pub struct Memory(RefCell<BTreeMap<SessionId, (SessionRecord, Vec<AnsweredRecord>)>>);

impl Memory {
    pub fn restore(&self, limits: SellerLimits) -> SellerLedger {
        SellerLedger::restore(limits, self.0.borrow().values().cloned())
    }
}

impl SessionJournal for Memory {
    type Error = Infallible;

    fn commit(&self, entries: &[Entry]) -> Result<(), Infallible> {
        for entry in entries {
            let record = entry.record().clone();
            let mut map = self.0.borrow_mut();
            let slot = map.entry(record.facts.id.clone()).or_insert_with(|| (record.clone(), Vec::new()));
            slot.0 = record;
            slot.1.extend(entry.answered().copied());
        }
        Ok(())
    }

    fn forget(&self, session: &SessionId) -> Result<(), Infallible> {
        self.0.borrow_mut().remove(session);
        Ok(())
    }
}
