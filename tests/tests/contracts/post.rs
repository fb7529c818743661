use contracts::errors::ContractError;
use contracts::job::{JobPosted, JobStatus, PostReceipt};
use contracts::receipt::ReceiptBody;
use contracts::{HashBytes, Nanoton, Ref, Units};
use tests::market::{FEES, TON, assert_all_succeeded, assert_refused, cell, sealed};
use tests::{Market, Terms, Worker};

fn market() -> (Market, Worker, contracts::StdAddr) {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    (market, worker, client)
}

#[test]
fn a_client_may_post_a_job_and_its_worker_hears_of_it() {
    let (mut market, worker, client) = market();
    let (job, txs) = market.try_post(&client, &worker, &Terms::default());
    assert_all_succeeded(&txs);
    let state = market.job_state(&job).unwrap();
    assert_eq!(state.status, JobStatus::Open);
    assert_eq!(*state.terms, job.terms);
    assert_eq!(state.posted_at, market.chain.now);
    assert_eq!(state.posted_lt, txs[0].lt);
    assert_eq!(state.closed_at, 0);
    let notice: JobPosted = txs[0].sent().unwrap();
    assert_eq!((notice.client, notice.nonce), (client.clone(), job.nonce));
    assert_eq!(txs[1].account, worker.address);
}

#[test]
fn a_stranger_may_not_post_in_the_clients_name() {
    let (mut market, worker, client) = market();
    let stranger = market.person("stranger");
    let job = market.draft(&client, &worker, &Terms::default());
    let txs = market.post_draft(&stranger, &job, Nanoton::new(2 * TON));
    assert_refused(&txs, &job.address, ContractError::NotClient);
    assert_eq!(market.status(&job), None);
}

#[test]
fn a_job_is_posted_once() {
    let (mut market, worker, client) = market();
    let job = market.post(&client, &worker, &Terms::default());
    let before = market.job_state(&job).unwrap();
    let txs = market.post_draft(&client, &job, Nanoton::new(2 * TON));
    assert_refused(&txs, &job.address, ContractError::AlreadyInitialised);
    assert_eq!(market.job_state(&job).unwrap(), before);
}

#[test]
fn a_job_that_brings_too_little_is_refused_and_the_money_returns() {
    let (mut market, worker, client) = market();
    let before = market.chain.balance(&client);
    let job = market.draft(&client, &worker, &Terms::default());
    let txs = market.post_draft(&client, &job, Nanoton::new(TON));
    assert_refused(&txs, &job.address, ContractError::ValueTooLow);
    let lost = before - market.chain.balance(&client);
    assert!(lost < u128::from(TON / 50), "{lost} nanoTON were lost");
}

#[test]
fn the_least_value_that_posts_a_job_pays_for_its_whole_life() {
    let (mut market, worker, client) = market();
    let (mut low, mut high) = (TON, TON + FEES);
    while high - low > 1 {
        let middle = low.midpoint(high);
        let job = market.draft(&client, &worker, &Terms::default());
        if market.post_draft(&client, &job, Nanoton::new(middle)).iter().all(|tx| tx.succeeded()) {
            high = middle;
        } else {
            low = middle;
        }
    }
    // The most units, the largest result the reserve foresees, at the last second of each deadline.
    let full = Units { input: 1_000, cached_input: 1_000, output: 1_000 };
    for (units, result_bytes) in [(Units::default(), 272), (full, 1_536 + 24 * 1_000)] {
        let job = market.draft(&client, &worker, &Terms::default());
        assert_all_succeeded(&market.post_draft(&client, &job, Nanoton::new(high)));
        market.chain.wait(120);
        assert_all_succeeded(&market.claim(&worker, &job).unwrap());
        market.chain.wait(600);
        let result = sealed("result", result_bytes);
        let mut receipt = market.receipt(&job, units);
        receipt.body = Ref::new(ReceiptBody {
            result_hash: Ref::new(result.clone()).unwrap().hash(),
            ..(*receipt.body).clone()
        })
        .unwrap();
        let paid = receipt.amount;
        let message = PostReceipt::signed(receipt, &result, &worker.key).unwrap();
        let txs = market.chain.external(&job.address, cell(&message)).unwrap();
        assert_all_succeeded(&txs);
        let settlement = market.job_state(&job).unwrap().settlement.unwrap();
        assert_eq!(settlement.paid, paid);
        market.chain.wait(market.network.params.audit_window_s + 1);
        assert_all_succeeded(&market.sweep(&client, &job));
        market.attest(&worker);
    }
}

#[test]
fn terms_that_nobody_can_meet_are_refused() {
    let (mut market, worker, client) = market();
    let limit = |edit: fn(&mut Terms)| {
        let mut terms = Terms::default();
        edit(&mut terms);
        terms
    };
    let bad = [
        ("no time to claim", limit(|t| t.claim_within_s = 0)),
        ("no time to settle", limit(|t| t.settle_within_s = 0)),
        ("no deposit", limit(|t| t.deposit = Nanoton::ZERO)),
    ];
    for (what, terms) in bad {
        let (job, txs) = market.try_post(&client, &worker, &terms);
        assert_eq!(txs[0].exit_code, Some(i32::from(ContractError::BadTerms.code())), "{what}");
        assert_eq!(market.status(&job), None);
    }
}

#[test]
fn the_hash_of_the_input_is_kept() {
    let (mut market, worker, client) = market();
    let job = market.post(&client, &worker, &Terms::default());
    let (posting, _) = market.posting(&job);
    assert_eq!(market.job_state(&job).unwrap().input_hash, posting.input_hash());
    assert_ne!(posting.input_hash(), HashBytes::ZERO);
}

#[test]
fn an_unknown_message_is_refused() {
    let (mut market, worker, client) = market();
    let job = market.post(&client, &worker, &Terms::default());
    let body = cell(&contracts::worker::WithdrawEarnings { query_id: 1 });
    let txs = market.chain.send(&client, &job.address, Nanoton::new(FEES), body, None);
    assert_refused(&txs, &job.address, ContractError::UnknownMessage);
}

#[test]
fn a_job_for_a_worker_that_does_not_exist_ends_like_any_other() {
    let mut market = Market::open();
    let worker = market.unborn_worker("worker");
    let client = market.person("client");
    let before = market.chain.balance(&client);
    let (job, txs) = market.try_post(&client, &worker, &Terms::default());
    assert!(txs[0].succeeded());
    let bounce = txs.last().unwrap();
    assert!(bounce.bounced && bounce.succeeded() && bounce.account == job.address);
    assert_eq!(market.status(&job), Some(JobStatus::Open));
    market.chain.wait(121);
    let stranger = market.person("stranger");
    assert_all_succeeded(&market.expire(&stranger, &job));
    assert!(before - market.chain.balance(&client) < u128::from(TON / 20));
}

#[test]
fn the_getter_names_the_least_value_exactly() {
    let (mut market, worker, client) = market();
    for (deposit, max_input, max_output, settle_within_s) in
        [(1, 0, 0, 30), (TON, 1_000, 1_000, 600), (3 * TON, 100_000, 4_000, 86_400)]
    {
        let terms = Terms {
            deposit: Nanoton::new(deposit),
            max_units: Units { input: max_input, cached_input: 0, output: max_output },
            settle_within_s,
            ..Terms::default()
        };
        let life_s = terms.claim_within_s + settle_within_s;
        let arguments = [deposit.into(), max_input.into(), max_output.into(), life_s.into()];
        let least = market.chain.get_int(&worker.address, "minJobValue", &arguments).unwrap();
        let least = Nanoton::checked(least).unwrap();
        let job = market.draft(&client, &worker, &terms);
        let short = least.checked_sub(Nanoton::new(1)).unwrap();
        let txs = market.post_draft(&client, &job, short);
        assert_refused(&txs, &job.address, ContractError::ValueTooLow);
        assert_all_succeeded(&market.post_draft(&client, &job, least));
    }
}
