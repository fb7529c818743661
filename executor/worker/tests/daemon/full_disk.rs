//! The disk fills up while a job is in flight: the worker stops with an error, and the job is paid for once.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use contracts::job::JobStatus;
use redb::StorageBackend;
use redb::backends::FileBackend;
use worker::machine::Effect;
use worker::{Identity, Journal, JournalError, Step, WorkerError};

use crate::market::{Market, start_worker};

/// A file that takes nothing more once `full` is set.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn open(path: &Path, full: Arc<AtomicBool>) -> Self {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        Self { file: FileBackend::new(file).unwrap(), full }
    }

    fn check(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_worker_and_loses_no_payment() {
    let market = Market::open().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("limited.redb");
    let identity = Identity::new(market.worker.clone(), market.network_id());
    let is_infer = |effect: &Effect| matches!(effect, Effect::Infer { .. });
    let is_post = |effect: &Effect| matches!(effect, Effect::PostReceipt { .. });
    let mut ended = 0;
    for fills_at in [is_infer as fn(&Effect) -> bool, is_post] {
        let full = Arc::new(AtomicBool::new(false));
        let fill = full.clone();
        let on_step: worker::OnStep = Arc::new(move |step| {
            if let Step::Begun { effect } = step
                && fills_at(effect)
            {
                fill.store(true, Ordering::SeqCst);
            }
        });
        let mut daemon = start_worker(market.chain.clone(), market.network_id(), dir.path(), Some(on_step));
        daemon.journal = Journal::on_backend(Disk::open(&path, full), &identity).unwrap();
        let running = tokio::spawn(daemon.run(std::future::pending()));
        let key = market.wait_ready().await.attestation.unwrap().encryption_key;
        let job = market.post("one two three", &key).await;
        let stopped = running.await.unwrap();
        assert!(matches!(stopped, Err(WorkerError::Journal(JournalError::Io { .. }))), "{stopped:?}");

        let mut again = start_worker(market.chain.clone(), market.network_id(), dir.path(), None);
        again.journal = Journal::open(&path, &identity).unwrap();
        let running = tokio::spawn(again.run(std::future::pending()));
        assert_eq!(market.wait_end(&job.address).await.status, JobStatus::Settled);
        running.abort();
        // The journal is free once the aborted task is gone.
        let _ = running.await;
        ended += 1;
        let record = market.record().await;
        assert!(record.settled <= ended && record.claims == 0 && record.bonds_back == 0, "{record:?}");
    }
}
