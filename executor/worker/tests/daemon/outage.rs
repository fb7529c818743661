//! The liteserver goes away in the middle of a job, at each of its steps in turn, and comes back: the job is paid for, once.

use std::sync::Arc;
use std::time::Duration;

use contracts::job::JobStatus;
use worker::Step;

use crate::market::{Market, start_worker};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_outlives_the_liteserver_at_each_of_its_steps() {
    let market = Market::open().await;
    let dir = tempfile::tempdir().unwrap();
    for (done, goes_at) in ["submit_claim", "open_input", "infer", "post_receipt"].into_iter().enumerate() {
        let server = market.server.clone();
        let armed = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let is_armed = armed.clone();
        let on_step: worker::OnStep = Arc::new(move |step| {
            if let Step::Begun { effect } = step
                && effect.name() == goes_at
                && is_armed.swap(false, std::sync::atomic::Ordering::SeqCst)
            {
                server.go_away();
            }
        });
        let daemon = start_worker(
            crate::market::access(&market.config_json),
            market.network_id(),
            dir.path(),
            Some(on_step),
        );
        let running = tokio::spawn(daemon.run(std::future::pending()));
        let key = market.wait_ready().await.attestation.unwrap().encryption_key;
        armed.store(true, std::sync::atomic::Ordering::SeqCst);
        let job = market.post_of("one two three", &key, goes_at == "submit_claim").await;
        for _ in 0..600 {
            if market.server.is_away() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(market.server.is_away(), "the job never came to {goes_at}");
        // Longer than one read is tried for.
        tokio::time::sleep(Duration::from_secs(4)).await;
        market.server.come_back();
        assert_eq!(market.wait_end(&job.address).await.status, JobStatus::Settled, "away at {goes_at}");
        running.abort();
        // The journal is free once the aborted task is gone.
        let _ = running.await;
        let record = market.record().await;
        assert!(record.settled <= done + 1 && record.claims <= done + 1 && record.bonds_back == 0);
    }
}
