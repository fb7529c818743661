//! The journal is lost and the keys are not: what may have been signed before is given back, what comes after is served.

use contracts::Message;
use contracts::errors::RejectionReason;
use contracts::job::{JobStatus, PostRejection};

use crate::market::{Market, start_worker};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_its_journal_gives_older_jobs_back_and_serves_newer_ones() {
    let market = Market::open().await;
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let daemon = start_worker(market.chain.clone(), market.network_id(), dir.path(), None);
        tokio::spawn(daemon.run(std::future::pending()))
    };
    let running = start();
    let key = market.wait_ready().await.attestation.unwrap().encryption_key;
    running.abort();
    // The journal is free once the aborted task is gone.
    let _ = running.await;

    let with_journal = market.post("one two", &key).await;
    let running = start();
    assert_eq!(market.wait_end(&with_journal.address).await.status, JobStatus::Settled);
    running.abort();
    let _ = running.await;

    let older = market.post("one two", &key).await;
    std::fs::remove_file(dir.path().join("journal.redb")).unwrap();
    let running = start();
    assert_eq!(market.wait_end(&older.address).await.status, JobStatus::Rejected);
    let transactions = market.transactions(&older.address).await;
    let rejection = transactions
        .iter()
        .find_map(|tx| PostRejection::from_cell(&tx.in_message().unwrap()?.body).ok())
        .unwrap();
    assert_eq!(rejection.rejection.reason, RejectionReason::EngineFailure.code());
    let newer = market.post("one two", &key).await;
    assert_eq!(market.wait_end(&newer.address).await.status, JobStatus::Settled);
    running.abort();
}
