//! What outlives the process: jobs, their sealed inputs, and how far the Worker's account has been read.
//!
//! One write transaction holds everything that an observation changed, cursor included, and is durable before any effect
//! of it runs. A job's phase is its write-ahead record: it names the effect under way, and the next phase its completion.
//! The file holds ciphertext and public data only. Its integrity is redb's (checksummed pages, two roots).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chain::TxId;
use contracts::{HashBytes, StdAddr};
use redb::{Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::machine::{Job, JobKey, Phase};

/// The open journal of one worker. Only one process can have it open.
#[derive(Debug)]
pub struct Journal {
    db: Database,
    place: PathBuf,
}

/// Whose journal it is; a journal of another worker or network is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Of the file's layout.
    pub format: u32,
    /// The Worker contract.
    pub worker: StdAddr,
    /// The network.
    pub network_id: i32,
}

impl Identity {
    /// Of a worker, in the present format.
    pub fn new(worker: StdAddr, network_id: i32) -> Self {
        Self { format: FORMAT, worker, network_id }
    }
}

/// What a journal held when it was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// By posting.
    pub jobs: BTreeMap<JobKey, Job>,
    /// The newest transaction of the Worker's account that has been dealt with.
    pub cursor: Option<TxId>,
}

/// One atomic change.
#[derive(Debug, Default)]
pub struct Change<'a> {
    /// New state of a job, or nothing where it is forgotten.
    pub jobs: Vec<(&'a JobKey, Option<&'a Job>)>,
    /// Sealed inputs, as bags of cells.
    pub inputs: Vec<(&'a JobKey, &'a [u8])>,
    /// Where the account has been read to, if it moved.
    pub cursor: Option<TxId>,
}

/// The journal cannot be used. The worker claims nothing more and stops.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The system refused to read or write.
    #[error(
        "worker: the journal {place} cannot be read or written ({detail}); check free space and permissions, then start \
         again: nothing that was promised is lost"
    )]
    Io {
        /// The file.
        place: PathBuf,
        /// The system's words.
        detail: String,
    },
    /// The contents are damaged.
    #[error(
        "worker: the journal {place} is damaged ({detail}); move it away and start again: open jobs are found on the \
         chain, claims in flight are given back"
    )]
    Corrupt {
        /// The file.
        place: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Another process has it.
    #[error("worker: the journal {place} is in use by another process; run one worker per data directory")]
    InUse {
        /// The file.
        place: PathBuf,
    },
    /// It belongs to another worker.
    #[error(
        "worker: the journal {place} belongs to {found}; use that worker's keys or another data directory"
    )]
    OtherWorker {
        /// The file.
        place: PathBuf,
        /// Whose it is.
        found: String,
    },
}

impl Journal {
    /// Opens or creates the journal at `path`, and reads it.
    ///
    /// # Errors
    /// [`JournalError`]; the file is left as it was.
    pub fn open(path: &Path, identity: &Identity) -> Result<(Self, Recovered), JournalError> {
        let fault = Fault { place: path };
        let db = Database::create(path).map_err(|error| fault.of(error))?;
        Self::start(db, path, identity)
    }

    /// As [`Journal::open`], on storage of the caller's.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn on_backend(
        backend: impl StorageBackend,
        identity: &Identity,
    ) -> Result<(Self, Recovered), JournalError> {
        let place = Path::new("(given storage)");
        let fault = Fault { place };
        let db = Builder::new().create_with_backend(backend).map_err(|error| fault.of(error))?;
        Self::start(db, place, identity)
    }

    /// Writes a change; durable when this returns.
    ///
    /// # Errors
    /// [`JournalError`]; nothing of the change was written.
    pub fn commit(&self, change: &Change<'_>) -> Result<(), JournalError> {
        let fault = self.fault();
        let write = self.db.begin_write().map_err(|error| fault.of(error))?;
        {
            let mut jobs = write.open_table(JOBS).map_err(|error| fault.of(error))?;
            let mut inputs = write.open_table(INPUTS).map_err(|error| fault.of(error))?;
            for (key, input) in &change.inputs {
                inputs.insert(key_bytes(key).as_slice(), *input).map_err(|error| fault.of(error))?;
            }
            for (key, job) in &change.jobs {
                let id = key_bytes(key);
                match job {
                    Some(job) => {
                        let value = serde_json::to_vec(job).map_err(|error| fault.of_record(&error))?;
                        jobs.insert(id.as_slice(), value.as_slice()).map_err(|error| fault.of(error))?;
                    }
                    None => {
                        jobs.remove(id.as_slice()).map_err(|error| fault.of(error))?;
                    }
                }
                if job.is_none_or(|job| matches!(job.phase, Phase::Closed { .. })) {
                    inputs.remove(id.as_slice()).map_err(|error| fault.of(error))?;
                }
            }
            if let Some(cursor) = change.cursor {
                let mut meta = write.open_table(META).map_err(|error| fault.of(error))?;
                let mut value = cursor.lt.to_be_bytes().to_vec();
                value.extend_from_slice(&cursor.hash.0);
                meta.insert(CURSOR, value.as_slice()).map_err(|error| fault.of(error))?;
            }
        }
        write.commit().map_err(|error| fault.of(error))
    }

    /// The sealed input of a job, as a bag of cells.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn input(&self, key: &JobKey) -> Result<Option<Vec<u8>>, JournalError> {
        let fault = self.fault();
        let read = self.db.begin_read().map_err(|error| fault.of(error))?;
        let inputs = read.open_table(INPUTS).map_err(|error| fault.of(error))?;
        let found = inputs.get(key_bytes(key).as_slice()).map_err(|error| fault.of(error))?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    fn start(db: Database, place: &Path, identity: &Identity) -> Result<(Self, Recovered), JournalError> {
        let journal = Self { db, place: place.to_owned() };
        let fault = journal.fault();
        let write = journal.db.begin_write().map_err(|error| fault.of(error))?;
        {
            write.open_table(JOBS).map_err(|error| fault.of(error))?;
            write.open_table(INPUTS).map_err(|error| fault.of(error))?;
            let mut meta = write.open_table(META).map_err(|error| fault.of(error))?;
            let wanted = serde_json::to_vec(identity).map_err(|error| fault.of_record(&error))?;
            let found =
                meta.get(IDENTITY).map_err(|error| fault.of(error))?.map(|value| value.value().to_vec());
            match found {
                None => {
                    meta.insert(IDENTITY, wanted.as_slice()).map_err(|error| fault.of(error))?;
                }
                Some(found) if found != wanted => {
                    let found = String::from_utf8_lossy(&found).into_owned();
                    return Err(JournalError::OtherWorker { place: place.to_owned(), found });
                }
                Some(_) => {}
            }
        }
        write.commit().map_err(|error| fault.of(error))?;
        let recovered = journal.read()?;
        Ok((journal, recovered))
    }

    fn read(&self) -> Result<Recovered, JournalError> {
        let fault = self.fault();
        let read = self.db.begin_read().map_err(|error| fault.of(error))?;
        let table = read.open_table(JOBS).map_err(|error| fault.of(error))?;
        let mut jobs = BTreeMap::new();
        for entry in table.iter().map_err(|error| fault.of(error))? {
            let (id, value) = entry.map_err(|error| fault.of(error))?;
            let job: Job = serde_json::from_slice(value.value()).map_err(|error| fault.of_record(&error))?;
            if key_bytes(&job.posted.key) != id.value() {
                return Err(fault.corrupt("a job under another job's key".into()));
            }
            jobs.insert(job.posted.key.clone(), job);
        }
        let meta = read.open_table(META).map_err(|error| fault.of(error))?;
        let cursor = match meta.get(CURSOR).map_err(|error| fault.of(error))? {
            None => None,
            Some(value) => Some(
                cursor_of(value.value()).ok_or_else(|| fault.corrupt("a cursor of another length".into()))?,
            ),
        };
        Ok(Recovered { jobs, cursor })
    }

    fn fault(&self) -> Fault<'_> {
        Fault { place: &self.place }
    }
}

const FORMAT: u32 = 2;
const JOBS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("jobs");
const INPUTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("inputs");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const IDENTITY: &str = "identity";
const CURSOR: &str = "cursor";

/// Workchain, address, logical time; big-endian.
fn key_bytes(key: &JobKey) -> Vec<u8> {
    let mut bytes = vec![key.job.workchain as u8];
    bytes.extend_from_slice(&key.job.address.0);
    bytes.extend_from_slice(&key.posted_lt.to_be_bytes());
    bytes
}

fn cursor_of(bytes: &[u8]) -> Option<TxId> {
    let (lt, hash) = bytes.split_first_chunk::<8>()?;
    Some(TxId { lt: u64::from_be_bytes(*lt), hash: HashBytes(hash.try_into().ok()?) })
}

/// Sorts redb's errors by what their reader has to do.
struct Fault<'a> {
    place: &'a Path,
}

impl Fault<'_> {
    fn of(&self, error: impl Into<redb::Error>) -> JournalError {
        let place = self.place.to_owned();
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => JournalError::InUse { place },
            redb::Error::Corrupted(detail) => JournalError::Corrupt { place, detail },
            redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                JournalError::Corrupt { place, detail: error.to_string() }
            }
            redb::Error::UpgradeRequired(_)
            | redb::Error::TableDoesNotExist(_)
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::RepairAborted => {
                JournalError::Corrupt { place, detail: "not a journal of this program".into() }
            }
            error => JournalError::Io { place, detail: error.to_string() },
        }
    }

    /// The record's text stays out of the error.
    fn of_record(&self, error: &serde_json::Error) -> JournalError {
        self.corrupt(format!("a record of another shape, {:?} error", error.classify()))
    }

    fn corrupt(&self, detail: String) -> JournalError {
        JournalError::Corrupt { place: self.place.to_owned(), detail }
    }
}

#[cfg(test)]
mod tests;
