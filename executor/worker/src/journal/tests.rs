#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use contracts::money::Amount;
use contracts::{Prices, Units};
use redb::backends::InMemoryBackend;

use super::*;
use crate::machine::{Due, End, PostedJob, SignedReceipt};

fn identity() -> Identity {
    Identity::new(StdAddr::new(0, HashBytes([9; 32])), -3)
}

fn job(byte: u8, phase: Phase) -> Job {
    let posted = PostedJob {
        key: JobKey { job: StdAddr::new(0, HashBytes([byte; 32])), posted_lt: 5 },
        client: StdAddr::new(0, HashBytes([7; 32])),
        nonce: 1,
        until: 100,
        deposit: Amount::new(u64::MAX),
        max_units: Units::default(),
        least_bond: Amount::ZERO,
        worker: HashBytes([9; 32]),
        receipt_key: HashBytes([2; 32]),
        model: HashBytes([1; 32]),
        settle_within_s: 100,
        share_bps: 600,
        prices: Prices::default(),
    };
    Job { posted, phase, sent_at_s: None }
}

fn posting(bytes: usize) -> Phase {
    let due = Due { claimed: true, by_s: 200 };
    Phase::Posting { due, receipt: SignedReceipt(vec![0xa5; bytes]) }
}

fn put(journal: &Journal, job: &Job, cursor: Option<TxId>) -> Result<(), JournalError> {
    let key = &job.posted.key;
    journal.commit(&Change { jobs: vec![(key, Some(job))], inputs: vec![(key, b"sealed")], cursor })
}

#[test]
fn what_is_committed_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.redb");
    let (journal, recovered) = Journal::open(&path, &identity()).unwrap();
    assert!(recovered.jobs.is_empty() && recovered.cursor.is_none());
    let cursor = TxId { lt: 77, hash: HashBytes([6; 32]) };
    let first = job(1, Phase::Waiting);
    let second = job(2, posting(100));
    put(&journal, &first, Some(cursor)).unwrap();
    put(&journal, &second, None).unwrap();
    assert!(matches!(Journal::open(&path, &identity()), Err(JournalError::InUse { .. })));
    drop(journal);
    let (journal, recovered) = Journal::open(&path, &identity()).unwrap();
    assert_eq!(recovered.cursor, Some(cursor));
    assert_eq!(recovered.jobs[&first.posted.key], first);
    assert_eq!(recovered.jobs[&second.posted.key], second);
    assert_eq!(journal.input(&first.posted.key).unwrap().as_deref(), Some(&b"sealed"[..]));
    let closed = job(1, Phase::Closed { end: End::Settled, forget_at_s: 1 });
    let key = &closed.posted.key;
    journal.commit(&Change { jobs: vec![(key, Some(&closed))], ..Change::default() }).unwrap();
    assert_eq!(journal.input(key).unwrap(), None, "an input goes with the end of its job");
    journal.commit(&Change { jobs: vec![(key, None)], ..Change::default() }).unwrap();
    drop(journal);
    assert_eq!(Journal::open(&path, &identity()).unwrap().1.jobs.len(), 1);
}

#[test]
fn another_workers_journal_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.redb");
    drop(Journal::open(&path, &identity()).unwrap());
    let other = Identity::new(StdAddr::new(0, HashBytes([8; 32])), -3);
    assert!(matches!(Journal::open(&path, &other), Err(JournalError::OtherWorker { .. })));
}

#[test]
fn a_damaged_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.redb");
    std::fs::write(&path, vec![0x5a; 8192]).unwrap();
    assert!(matches!(Journal::open(&path, &identity()), Err(JournalError::Corrupt { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), vec![0x5a; 8192], "left as it was");
}

/// Memory that is full at some length.
#[derive(Debug)]
struct Full {
    inner: InMemoryBackend,
    room: Arc<AtomicU64>,
}

impl StorageBackend for Full {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > self.room.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.room.load(Ordering::SeqCst) == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.write(offset, data)
    }
}

#[test]
fn a_full_disk_is_an_error_and_keeps_what_was_committed() {
    let room = Arc::new(AtomicU64::new(u64::MAX));
    let backend = Full { inner: InMemoryBackend::new(), room: room.clone() };
    let (journal, _) = Journal::on_backend(backend, &identity()).unwrap();
    let kept = job(1, posting(1_000));
    put(&journal, &kept, None).unwrap();
    room.store(0, Ordering::SeqCst);
    let error = put(&journal, &job(2, posting(60_000)), None).unwrap_err();
    assert!(matches!(&error, JournalError::Io { .. }), "{error}");
    assert!(error.to_string().contains("free space"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_device_without_room_is_an_error() {
    // /dev/full refuses every write as a full disk does.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.redb");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    assert!(Journal::open(&path, &identity()).is_err());
}
