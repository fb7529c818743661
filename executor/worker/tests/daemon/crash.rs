//! The process is killed at each of its steps in turn; started again, it finishes the job, once.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use contracts::Message;
use contracts::job::JobStatus;
use contracts::worker::ClaimJob;
use worker::Step;
use worker::machine::Effect;

use crate::market::{Market, Posted, Record, access, start_worker};

const CHAIN: &str = "CHRYSALIS_TEST_CHAIN";
const NETWORK_ID: &str = "CHRYSALIS_TEST_NETWORK_ID";
const DATA: &str = "CHRYSALIS_TEST_DATA";
const DIE_AT: &str = "CHRYSALIS_TEST_DIE_AT";
const AT_THE_STEP: &str = "at the step";
const STEPS: usize = 20;
const SMALL_STEPS: usize = 14;

/// The worker's own process. Does nothing unless [`kill_at_each_step`] starts it.
#[tokio::test(flavor = "multi_thread")]
async fn the_process_to_be_killed() {
    let Ok(config) = std::env::var(CHAIN) else { return };
    let network_id = std::env::var(NETWORK_ID).unwrap().parse().unwrap();
    let data = std::env::var(DATA).unwrap();
    let die_at: usize = std::env::var(DIE_AT).unwrap().parse().unwrap();
    let steps = AtomicUsize::new(0);
    let receipts = Path::new(&data).join("receipts");
    let on_step: worker::OnStep = Arc::new(move |step| {
        if let Step::Begun { effect: Effect::PostReceipt { key, receipt } } = step {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&receipts).unwrap();
            writeln!(file, "{} {}", key.job, hex::encode(&receipt.0)).unwrap();
        }
        if steps.fetch_add(1, Ordering::SeqCst) + 1 == die_at {
            println!("{AT_THE_STEP}");
            std::io::stdout().flush().unwrap();
            loop {
                std::thread::park();
            }
        }
    });
    let worker = start_worker(access(&config), network_id, Path::new(&data), Some(on_step));
    worker.run(std::future::pending()).await.unwrap();
}

fn start(market: &Market, data: &Path, die_at: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::the_process_to_be_killed", "--nocapture"])
        .env(CHAIN, &market.config_json)
        .env(NETWORK_ID, market.network_id().to_string())
        .env(DATA, data)
        .env(DIE_AT, die_at.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Waits until the process stands at its step; `false` when the job ended before.
async fn reaches_its_step(market: &Market, child: &mut Child, job: &Posted) -> bool {
    let output = BufReader::new(child.stdout.take().unwrap());
    let reading = tokio::task::spawn_blocking(move || {
        output.lines().map_while(Result::ok).any(|line| line.contains(AT_THE_STEP))
    });
    tokio::select! {
        reached = reading => reached.unwrap(),
        _ = market.wait_end(&job.address) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_at_each_step() {
    let market = Market::open().await;
    let dir = tempfile::tempdir().unwrap();
    let first = start(&market, dir.path(), usize::MAX);
    let key = market.wait_ready().await.attestation.unwrap().encryption_key;
    kill(first);

    let mut jobs = Vec::new();
    let mut killed = 0;
    // A job without a claim has fewer steps.
    for (die_at, large) in (1..=STEPS).map(|at| (at, true)).chain((1..=SMALL_STEPS).map(|at| (at, false))) {
        let job = market.post_of("one two three", &key, large).await;
        let mut child = start(&market, dir.path(), die_at);
        killed += usize::from(reaches_its_step(&market, &mut child, &job).await);
        kill(child);
        let again = start(&market, dir.path(), usize::MAX);
        let state = market.wait_end(&job.address).await;
        kill(again);
        assert_eq!(state.status, JobStatus::Settled, "killed at step {die_at}, large: {large}");
        jobs.push(job);
    }
    assert!(killed >= 22, "only {killed} of {} runs were killed at a step", STEPS + SMALL_STEPS);

    let client = market.client.wallet().address();
    let mut claimed = Vec::new();
    for transaction in market.transactions(&market.worker).await {
        let Some(message) = transaction.in_message().unwrap() else { continue };
        if let Ok(claim) = ClaimJob::from_cell(&message.body) {
            assert_eq!(claim.order.job_client, *client);
            claimed.push(claim.order.job_nonce);
        }
    }
    assert_eq!(claimed.len(), STEPS, "a job was claimed twice, or a small one at all");
    assert_eq!(claimed.iter().collect::<BTreeSet<_>>().len(), STEPS);
    let receipts = std::fs::read_to_string(dir.path().join("receipts")).unwrap();
    let distinct: BTreeSet<&str> = receipts.lines().collect();
    let answered: BTreeSet<&str> = receipts.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(distinct.len(), answered.len(), "two receipts for one job");
    assert_eq!(answered.len(), jobs.len());
    assert_eq!(market.record().await, Record { claims: STEPS, settled: jobs.len(), bonds_back: 0 });
}
