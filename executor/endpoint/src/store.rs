//! The ledger on disk: what was charged and promised, and nothing of what was asked or answered.

use std::path::{Path, PathBuf};

use contracts::{HashBytes, StdAddr, Units};
use redb::{
    Builder, Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
    WriteTransaction,
};
use serde::{Deserialize, Serialize};
use session::{AnsweredRecord, Entry, RequestId, SessionId, SessionJournal, SessionRecord};

/// The file of one worker. Only one process can have it open.
#[derive(Debug)]
pub struct RedbStore {
    db: Database,
    place: PathBuf,
    since_lt: u64,
}

/// Whose file it is; that of another worker, key or network is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreIdentity {
    /// Of the file's layout.
    pub format: u32,
    /// The Worker contract.
    pub worker: StdAddr,
    /// The network.
    pub network_id: i32,
}

impl StoreIdentity {
    /// Of a worker, in the present format.
    pub fn new(worker: StdAddr, network_id: i32) -> Self {
        Self { format: FORMAT, worker, network_id }
    }
}

/// A session as the file has it, with the requests it was charged for.
pub type StoredSession = (SessionRecord, Vec<AnsweredRecord>);

/// The file cannot be used. No session is served and nothing is signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system refused to read or write.
    #[error(
        "worker: the sessions' file {place} cannot be read or written ({detail}); check free space and permissions, then \
         start again"
    )]
    Io {
        /// The file.
        place: PathBuf,
        /// The system's words.
        detail: String,
    },
    /// The contents are damaged.
    #[error(
        "worker: the sessions' file {place} is damaged ({detail}); without it no session that is open now can be served: \
         redeem nothing by hand, let them end, then move it away"
    )]
    Corrupt {
        /// The file.
        place: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Another process has it.
    #[error(
        "worker: the sessions' file {place} is in use by another process; run one worker per data directory"
    )]
    InUse {
        /// The file.
        place: PathBuf,
    },
    /// It belongs to another worker.
    #[error("worker: the sessions' file {place} belongs to {found}; use another data directory")]
    OtherWorker {
        /// The file.
        place: PathBuf,
        /// Whose it is.
        found: String,
    },
}

impl RedbStore {
    /// Opens or creates the file at `path`, and reads it. `now_lt`: the logical time of the Worker's newest transaction. A
    /// new file keeps it, see [`RedbStore::since_lt`].
    ///
    /// # Errors
    /// [`StoreError`]; the file is left as it was.
    pub fn open(
        path: &Path,
        identity: &StoreIdentity,
        now_lt: u64,
    ) -> Result<(Self, Vec<StoredSession>), StoreError> {
        let fault = Fault { place: path };
        let db = Database::create(path).map_err(|error| fault.of(error))?;
        Self::start(db, path, identity, now_lt)
    }

    /// As [`RedbStore::open`], on storage of the caller's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn on_backend(
        backend: impl StorageBackend,
        identity: &StoreIdentity,
        now_lt: u64,
    ) -> Result<(Self, Vec<StoredSession>), StoreError> {
        let place = Path::new("(given storage)");
        let db = Builder::new().create_with_backend(backend).map_err(|error| Fault { place }.of(error))?;
        Self::start(db, place, identity, now_lt)
    }

    /// A session that was opened no later than this is served only if it is in the file: nobody knows what was signed for
    /// it under an earlier one.
    pub fn since_lt(&self) -> u64 {
        self.since_lt
    }

    /// How far the Worker's account has been read for sessions: logical time and hash of a transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn cursor(&self) -> Result<Option<(u64, HashBytes)>, StoreError> {
        let fault = self.fault();
        let read = self.db.begin_read().map_err(|error| fault.of(error))?;
        let meta = read.open_table(META).map_err(|error| fault.of(error))?;
        let Some(value) = meta.get(CURSOR).map_err(|error| fault.of(error))? else { return Ok(None) };
        let cursor = value
            .value()
            .split_first_chunk::<8>()
            .and_then(|(lt, hash)| Some((u64::from_be_bytes(*lt), HashBytes(hash.try_into().ok()?))));
        cursor.map(Some).ok_or_else(|| fault.corrupt("a cursor of another length"))
    }

    /// Keeps the cursor; whatever came before it has to be durable already.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_cursor(&self, lt: u64, hash: &HashBytes) -> Result<(), StoreError> {
        let fault = self.fault();
        let write = self.begin()?;
        {
            let mut meta = write.open_table(META).map_err(|error| fault.of(error))?;
            let value = [lt.to_be_bytes().as_slice(), hash.as_slice()].concat();
            meta.insert(CURSOR, value.as_slice()).map_err(|error| fault.of(error))?;
        }
        write.commit().map_err(|error| fault.of(error))
    }

    fn start(
        db: Database,
        place: &Path,
        identity: &StoreIdentity,
        now_lt: u64,
    ) -> Result<(Self, Vec<StoredSession>), StoreError> {
        let mut store = Self { db, place: place.to_owned(), since_lt: now_lt };
        let fault = Fault { place };
        let mut since_lt = now_lt;
        let write = store.begin()?;
        {
            write.open_table(SESSIONS).map_err(|error| fault.of(error))?;
            write.open_table(ANSWERED).map_err(|error| fault.of(error))?;
            let mut meta = write.open_table(META).map_err(|error| fault.of(error))?;
            let wanted = serde_json::to_vec(identity).map_err(|error| fault.of_record(&error))?;
            let found = meta.get(IDENTITY).map_err(|error| fault.of(error))?;
            let found = found.map(|value| value.value().to_vec());
            match found {
                None => {
                    meta.insert(IDENTITY, wanted.as_slice()).map_err(|error| fault.of(error))?;
                    let since = now_lt.to_be_bytes();
                    meta.insert(SINCE_LT, since.as_slice()).map_err(|error| fault.of(error))?;
                }
                Some(found) if found != wanted => {
                    let found = String::from_utf8_lossy(&found).into_owned();
                    return Err(StoreError::OtherWorker { place: place.to_owned(), found });
                }
                Some(_) => {
                    let since = meta.get(SINCE_LT).map_err(|error| fault.of(error))?;
                    let since = since.and_then(|value| value.value().try_into().ok());
                    since_lt = u64::from_be_bytes(since.ok_or_else(|| fault.corrupt("no beginning"))?);
                }
            }
        }
        write.commit().map_err(|error| fault.of(error))?;
        store.since_lt = since_lt;
        let sessions = store.read()?;
        Ok((store, sessions))
    }

    fn read(&self) -> Result<Vec<StoredSession>, StoreError> {
        let fault = self.fault();
        let read = self.db.begin_read().map_err(|error| fault.of(error))?;
        let sessions = read.open_table(SESSIONS).map_err(|error| fault.of(error))?;
        let answered = read.open_table(ANSWERED).map_err(|error| fault.of(error))?;
        let mut found = Vec::new();
        for entry in sessions.iter().map_err(|error| fault.of(error))? {
            let (key, value) = entry.map_err(|error| fault.of(error))?;
            let record: SessionRecord =
                serde_json::from_slice(value.value()).map_err(|error| fault.of_record(&error))?;
            if key_of(&record.facts.id) != key.value() {
                return Err(fault.corrupt("a session under another's key"));
            }
            let mut requests = Vec::new();
            let (from, to) = range_of(&record.facts.id);
            let range = answered.range(from.as_slice()..=to.as_slice()).map_err(|error| fault.of(error))?;
            for entry in range {
                let (key, value) = entry.map_err(|error| fault.of(error))?;
                let answered = answered_of(key.value(), value.value())
                    .ok_or_else(|| fault.corrupt("a request of another shape"))?;
                if answered.sequence > record.sequence {
                    return Err(fault.corrupt("a request after its session's last receipt"));
                }
                requests.push(answered);
            }
            found.push((record, requests));
        }
        Ok(found)
    }

    fn begin(&self) -> Result<WriteTransaction, StoreError> {
        let fault = self.fault();
        let mut write = self.db.begin_write().map_err(|error| fault.of(error))?;
        write.set_durability(Durability::Immediate).map_err(|error| fault.of(error))?;
        Ok(write)
    }

    fn fault(&self) -> Fault<'_> {
        Fault { place: &self.place }
    }
}

impl SessionJournal for RedbStore {
    type Error = StoreError;

    fn commit(&self, entries: &[Entry]) -> Result<(), StoreError> {
        let fault = self.fault();
        let write = self.begin()?;
        {
            let mut sessions = write.open_table(SESSIONS).map_err(|error| fault.of(error))?;
            let mut answered = write.open_table(ANSWERED).map_err(|error| fault.of(error))?;
            for entry in entries {
                let record = entry.record();
                let key = key_of(&record.facts.id);
                let value = serde_json::to_vec(record).map_err(|error| fault.of_record(&error))?;
                sessions.insert(key.as_slice(), value.as_slice()).map_err(|error| fault.of(error))?;
                if let Some(request) = entry.answered() {
                    let (key, value) = (request_key(&key, &request.request), answered_bytes(request));
                    answered.insert(key.as_slice(), value.as_slice()).map_err(|error| fault.of(error))?;
                }
            }
        }
        write.commit().map_err(|error| fault.of(error))
    }

    fn forget(&self, session: &SessionId) -> Result<(), StoreError> {
        let fault = self.fault();
        let write = self.begin()?;
        {
            let mut sessions = write.open_table(SESSIONS).map_err(|error| fault.of(error))?;
            let mut answered = write.open_table(ANSWERED).map_err(|error| fault.of(error))?;
            sessions.remove(key_of(session).as_slice()).map_err(|error| fault.of(error))?;
            let (from, to) = range_of(session);
            answered
                .retain_in(from.as_slice()..=to.as_slice(), |_, _| false)
                .map_err(|error| fault.of(error))?;
        }
        write.commit().map_err(|error| fault.of(error))
    }
}

const FORMAT: u32 = 1;
const SESSIONS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("sessions");
const ANSWERED: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("answered");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const IDENTITY: &str = "identity";
const SINCE_LT: &str = "since_lt";
const CURSOR: &str = "cursor";
const KEY_BYTES: usize = 1 + 32 + 8;
const REQUEST_BYTES: usize = 16;

/// Workchain, address, logical time; big-endian.
fn key_of(session: &SessionId) -> Vec<u8> {
    let HashBytes(address) = &session.job.address;
    [&[session.job.workchain as u8], address.as_slice(), &session.posted_lt.to_be_bytes()].concat()
}

fn request_key(session: &[u8], request: &RequestId) -> Vec<u8> {
    [session, &request.0].concat()
}

/// The first and the last key that a request of the session can have.
fn range_of(session: &SessionId) -> (Vec<u8>, Vec<u8>) {
    let key = key_of(session);
    let end = |byte| request_key(&key, &RequestId([byte; REQUEST_BYTES]));
    (end(0), end(0xff))
}

/// Sequence, input, cached input, output; u32 big-endian.
fn answered_bytes(answered: &AnsweredRecord) -> Vec<u8> {
    let Units { input, cached_input, output } = answered.used;
    [answered.sequence, input, cached_input, output].iter().flat_map(|count| count.to_be_bytes()).collect()
}

fn answered_of(key: &[u8], value: &[u8]) -> Option<AnsweredRecord> {
    let request = RequestId(key.get(KEY_BYTES..)?.try_into().ok()?);
    let (counts, []) = value.as_chunks::<4>() else { return None };
    let [sequence, input, cached_input, output] =
        counts.try_into().ok().map(|counts: [[u8; 4]; 4]| counts.map(u32::from_be_bytes))?;
    Some(AnsweredRecord { request, sequence, used: Units { input, cached_input, output } })
}

/// Sorts redb's errors by what their reader has to do.
struct Fault<'a> {
    place: &'a Path,
}

impl Fault<'_> {
    fn of(&self, error: impl Into<redb::Error>) -> StoreError {
        let place = self.place.to_owned();
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => StoreError::InUse { place },
            redb::Error::Corrupted(detail) => StoreError::Corrupt { place, detail },
            redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                StoreError::Corrupt { place, detail: error.to_string() }
            }
            redb::Error::UpgradeRequired(_)
            | redb::Error::TableDoesNotExist(_)
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::RepairAborted => self.corrupt("not a sessions' file of this program"),
            error => StoreError::Io { place, detail: error.to_string() },
        }
    }

    fn of_record(&self, error: &serde_json::Error) -> StoreError {
        self.corrupt(&format!("a record of another shape, {:?} error", error.classify()))
    }

    fn corrupt(&self, detail: &str) -> StoreError {
        StoreError::Corrupt { place: self.place.to_owned(), detail: detail.to_owned() }
    }
}
