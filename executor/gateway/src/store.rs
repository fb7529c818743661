//! What the gateway must not forget: its sessions, what it has promised in them, and proofs against workers. No prompt,
//! no answer and no key is in it.

use std::path::Path;

use contracts::money::Amount;
use contracts::{HashBytes, StdAddr};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::{Deserialize, Serialize};
use session::{BuyerRecord, Proof};

/// Sessions by the address of their job; JSON.
const SESSIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sessions");
/// Proofs in the order they were made; JSON.
const PROOFS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("proofs");

/// A session as it is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredSession {
    /// Its address.
    pub job: StdAddr,
    /// With which worker.
    pub worker: StdAddr,
    /// For which model.
    pub model_id: HashBytes,
    /// What the wallet has sent for it, or is about to.
    pub money: Money,
    /// Where it is.
    pub stage: Stage,
}

/// The wallet's money in a session, fees included. All of it is written down before the wallet is asked to send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// Sent for good, or about to be.
    pub sent: Amount,
    /// Set aside for asking on chain for its end.
    pub reserve: Amount,
    /// A top-up that the chain has not shown yet.
    pub top_up: Option<TopUp>,
}

/// See [`Money::top_up`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopUp {
    /// With fees.
    pub sent: Amount,
    /// The deposit it makes.
    pub deposit: Amount,
    /// Unix time after which the wallet's message can no longer be taken.
    pub until_s: u32,
}

impl Money {
    /// All of it.
    pub fn committed(&self) -> Amount {
        let top_up = self.top_up.map_or(Amount::ZERO, |top_up| top_up.sent);
        plus(plus(self.sent, self.reserve), top_up)
    }

    /// The top-up shows on chain.
    pub fn top_up_landed(&mut self) {
        if let Some(top_up) = self.top_up.take() {
            self.sent = plus(self.sent, top_up.sent);
        }
    }

    /// What was set aside is sent.
    pub fn spend_reserve(&mut self) {
        self.sent = plus(self.sent, std::mem::take(&mut self.reserve));
    }
}

/// A proof, and what has to be said beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptProof {
    /// Signed by the worker.
    pub proof: Proof,
    /// Of the registration whose key signed.
    pub registration_seqno: u32,
}

/// Where a session is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The wallet was, or is about to be, asked to open it. The chain tells whether it did.
    Opening {
        /// Unix time after which the wallet's message can no longer be taken.
        until_s: u32,
    },
    /// It is open.
    Open(Box<BuyerRecord>),
    /// It is over, and cost this at most.
    Over {
        /// What did not come back.
        spent: Amount,
    },
}

impl StoredSession {
    /// What of the user's money it has taken, or may yet take.
    pub fn committed(&self) -> Amount {
        match &self.stage {
            Stage::Opening { .. } | Stage::Open(_) => self.money.committed(),
            Stage::Over { spent } => *spent,
        }
    }
}

fn plus(one: Amount, other: Amount) -> Amount {
    one.checked_add(other).unwrap_or(Amount::new(u64::MAX))
}

/// The store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another gateway has it.
    #[error("gateway: another process uses its data directory; stop that one, or name another with --data")]
    Locked,
    /// The disk or the file.
    #[error("gateway: its store failed: {0}; check the disk")]
    Database(#[from] redb::Error),
    /// Not written by this program.
    #[error("gateway: its store holds something that this version does not read: {0}")]
    Foreign(#[from] serde_json::Error),
}

/// A file on this machine.
pub struct Store(Database);

impl Store {
    /// Opens or makes it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::create(path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => StoreError::Locked,
            error => StoreError::Database(error.into()),
        })?;
        let store = Self(database);
        store.write(|transaction| {
            transaction.open_table(SESSIONS)?;
            transaction.open_table(PROOFS)?;
            Ok(())
        })?;
        Ok(store)
    }

    /// Writes a session; durable when this returns.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put(&self, session: &StoredSession) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(session)?;
        self.write(|transaction| {
            transaction.open_table(SESSIONS)?.insert(session.job.to_string().as_str(), bytes.as_slice())?;
            Ok(())
        })
    }

    /// Forgets a session that never was.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove(&self, job: &StdAddr) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(SESSIONS)?.remove(job.to_string().as_str())?;
            Ok(())
        })
    }

    /// All of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sessions(&self) -> Result<Vec<StoredSession>, StoreError> {
        let read = || -> Result<Vec<Vec<u8>>, redb::Error> {
            let transaction = self.0.begin_read()?;
            let table = transaction.open_table(SESSIONS)?;
            table.iter()?.map(|entry| Ok(entry?.1.value().to_vec())).collect()
        };
        Ok(read()?.iter().map(|bytes| serde_json::from_slice(bytes)).collect::<Result<_, _>>()?)
    }

    /// Keeps a proof.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keep_proof(&self, proof: &KeptProof) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(proof)?;
        self.write(|transaction| {
            let mut table = transaction.open_table(PROOFS)?;
            let next = table.last()?.map_or(0, |(key, _)| key.value() + 1);
            table.insert(next, bytes.as_slice())?;
            Ok(())
        })
    }

    /// All that are kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn proofs(&self) -> Result<Vec<KeptProof>, StoreError> {
        let read = || -> Result<Vec<Vec<u8>>, redb::Error> {
            let transaction = self.0.begin_read()?;
            let table = transaction.open_table(PROOFS)?;
            table.iter()?.map(|entry| Ok(entry?.1.value().to_vec())).collect()
        };
        Ok(read()?.iter().map(|bytes| serde_json::from_slice(bytes)).collect::<Result<_, _>>()?)
    }

    fn write(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StoreError> {
        let commit = || -> Result<(), redb::Error> {
            let transaction = self.0.begin_write()?;
            change(&transaction)?;
            transaction.commit()?;
            Ok(())
        };
        Ok(commit()?)
    }
}
