//! Who may post a job, open a session or put a job on the market, with what, and for how much.

use contracts::errors::{ContractError, UNPOSTED_JOB};
use contracts::job::{
    JobNoticed, JobStatus, MAX_SESSION_S, MAX_SETTLE_S, MAX_WAIT_S, MIN_SETTLE_S, PostReceipt,
};
use contracts::job_log::JobOpened;
use contracts::receipt::ReceiptContent;
use contracts::wire::to_cell;
use contracts::worker::FundGas;
use contracts::{Amount, Message, Nanoton, StdAddr, Units};
use tests::market::{FEES, TON, assert_all_succeeded, assert_refused, cell, sealed};
use tests::{Job, Kind, Market, Terms, Tx, Worker};
use tycho_types::cell::CellBuilder;

type Draft = fn(&mut Market, &StdAddr, &Worker, &Terms) -> Job;

const KINDS: [Draft; 3] = [Market::draft, Market::draft_session, Market::draft_open];

fn market() -> (Market, Worker, StdAddr) {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    (market, worker, client)
}

fn own(txs: &[Tx], job: &Job) -> Tx {
    txs.iter().find(|tx| tx.account == job.address).unwrap().clone()
}

/// The least that the job's message may bring.
fn least(market: &Market, job: &Job) -> Nanoton {
    let fees = match job.kind {
        Kind::Session(_) => market.prices().session(),
        Kind::Directed => market.prices().posting(&job.limits.max_units),
        Kind::Market(_) => market.prices().market(&job.limits.max_units),
    };
    job.deposit.nanoton().checked_add(fees).unwrap()
}

#[test]
fn a_client_may_post_and_its_worker_is_noticed_without_gas() {
    let (mut market, worker, client) = market();
    for draft in KINDS {
        let job = draft(&mut market, &client, &worker, &Terms::default());
        let txs = market.post_draft(&client, &job, market.value_of(&job));
        let opened = own(&txs, &job);
        assert!(opened.succeeded());
        let state = market.job_state(&job).unwrap();
        let status = if matches!(job.kind, Kind::Session(_)) { JobStatus::Session } else { JobStatus::Open };
        assert_eq!((state.status, state.until, state.deposit), (status, job.until, job.deposit));
        assert_eq!((state.bond, state.paid, state.sequence), (Amount::ZERO, Amount::ZERO, 0));
        assert_eq!(state.posting.posted_lt, opened.lt);
        let asked = if let Kind::Market(_) = job.kind { Amount::ZERO } else { job.limits.least_bond };
        assert_eq!(
            (state.posting.limits.max_units, state.posting.limits.least_bond),
            (job.limits.max_units, asked)
        );
        let noticed = opened.sent::<JobNoticed>().unwrap();
        assert_eq!(noticed.query_id, job.nonce);
        let notice = txs.last().unwrap();
        assert_eq!((notice.exit_code, notice.gas_used, notice.value), (None, 0, 0));
        let log: JobOpened = opened.logged().unwrap();
        assert_eq!((log.until, log.deposit), (job.until, job.deposit));
        let (body, _) = market.opening(&job);
        assert_eq!(Some(log.opcode), contracts::wire::opcode_of(&body.as_slice().unwrap()));
        match &job.kind {
            Kind::Market(terms) => {
                assert_eq!(state.posting.seller, None);
                assert_eq!(state.posting.market().unwrap(), &**terms);
                assert_eq!(notice.account, market.model);
                assert_eq!(log.terms_hash, *to_cell(&**terms).unwrap().repr_hash());
            }
            _ => {
                assert_eq!(*state.posting.seller.unwrap(), job.seller);
                assert_eq!(notice.account, worker.address);
                assert_eq!(log.terms_hash, *to_cell(&job.seller).unwrap().repr_hash());
            }
        }
    }
}

#[test]
fn a_stranger_may_not_post_in_the_clients_name() {
    let (mut market, worker, client) = market();
    let stranger = market.person("stranger");
    for draft in KINDS {
        let job = draft(&mut market, &client, &worker, &Terms::default());
        let txs = market.post_draft(&stranger, &job, Nanoton::new(2 * TON));
        assert_refused(&txs, &job.address, ContractError::NotClient);
        assert_eq!(market.status(&job), None);
        let value = market.value_of(&job);
        assert!(own(&market.post_draft(&client, &job, value), &job).succeeded());
    }
}

#[test]
fn a_job_is_posted_once_whatever_its_kind() {
    let (mut market, worker, client) = market();
    for first in KINDS {
        for second in KINDS {
            let job = first(&mut market, &client, &worker, &Terms::default());
            let value = market.value_of(&job);
            assert!(own(&market.post_draft(&client, &job, value), &job).succeeded());
            let before = market.job_state(&job).unwrap();
            let mut again = second(&mut market, &client, &worker, &Terms::default());
            (again.nonce, again.address) = (job.nonce, job.address.clone());
            let txs = market.post_draft(&client, &again, value);
            assert_refused(&txs, &job.address, ContractError::AlreadyInitialised);
            assert_eq!(market.job_state(&job).unwrap(), before);
        }
    }
}

#[test]
fn a_job_is_not_posted_again_once_closed_and_may_be_once_swept() {
    let (mut market, worker, client) = market();
    let mut job = market.post(&client, &worker, &Terms::default());
    let first = market.posted_lt(&job);
    market.cancel(&client, &job);
    let value = market.value_of(&job);
    assert_refused(&market.post_draft(&client, &job, value), &job.address, ContractError::AlreadyInitialised);
    market.chain.wait(contracts::job::AUDIT_WINDOW_S + 1);
    assert_all_succeeded(&market.sweep(&client, &job));
    job.until = market.chain.now + 10;
    assert!(own(&market.post_draft(&client, &job, value), &job).succeeded());
    assert!(market.posted_lt(&job) > first);
}

#[test]
fn one_nanoton_less_than_the_least_is_refused_and_the_money_returns() {
    let (mut market, worker, client) = market();
    for (deposit, input, output) in [(1, 0, 0), (TON, 1_000, 1_000), (3 * TON, u32::MAX, u32::MAX)] {
        let terms = Terms {
            deposit: Amount::new(deposit),
            max_units: Units { input, cached_input: 0, output },
            ..Terms::default()
        };
        for draft in KINDS {
            let job = draft(&mut market, &client, &worker, &terms);
            let least = least(&market, &job);
            let before = market.chain.balance(&client);
            let short = least.checked_sub(Nanoton::new(1)).unwrap();
            let txs = market.post_draft(&client, &job, short);
            assert_refused(&txs, &job.address, ContractError::ValueTooLow);
            let lost = before - market.chain.balance(&client);
            assert!(lost < u128::from(TON / 50), "{lost} nanoTON were lost");
            assert!(own(&market.post_draft(&client, &job, least), &job).succeeded());
            assert!(market.chain.balance(&job.address) >= job.deposit.nanoton().get());
        }
    }
}

#[test]
fn the_workers_getters_name_the_least_value_exactly() {
    let (mut market, worker, client) = market();
    for (deposit, input, output) in [(1, 0, 0), (TON, 1_000, 1_000), (3 * TON, 100_000, 4_000)] {
        let max_units = Units { input, cached_input: 0, output };
        let terms = Terms { deposit: Amount::new(deposit), max_units, ..Terms::default() };
        let directed = market.draft(&client, &worker, &terms);
        let arguments = [deposit.into(), input.into(), output.into()];
        let named = market.chain.get_int(&worker.address, "minJobValue", &arguments);
        assert_eq!(named, Some(least(&market, &directed).get()));
        let session = market.draft_session(&client, &worker, &terms);
        let named = market.chain.get_int(&worker.address, "minSessionValue", &[deposit.into()]);
        assert_eq!(named, Some(least(&market, &session).get()));
    }
}

#[test]
fn the_least_value_of_a_post_pays_for_the_whole_life_of_the_job() {
    let (mut market, worker, client) = market();
    let full = Units { input: 1_000, cached_input: 1_000, output: 1_000 };
    // The largest result that the reserve foresees: 512 + 8 × 2 000 + 16 × 1 000 bytes.
    for (units, result_bytes) in [(Units::default(), 2 * 127), (full, 255 * 127)] {
        for claimed in [false, true] {
            let terms = Terms { wait_s: MAX_WAIT_S, settle_within_s: MAX_SETTLE_S, ..Terms::default() };
            let job = market.draft(&client, &worker, &terms);
            let least = least(&market, &job);
            assert!(own(&market.post_draft(&client, &job, least), &job).succeeded());
            market.chain.wait(MAX_WAIT_S);
            market.attest(&worker);
            if claimed {
                market.claim_well(&worker, &job);
                market.chain.wait(MAX_SETTLE_S);
            }
            let result = sealed("result", result_bytes);
            let result_hash = *to_cell(&result).unwrap().repr_hash();
            let content = ReceiptContent { result_hash, ..market.content() };
            let mut receipt = market.receipt(&job, units);
            receipt.content_hash = content.hash().unwrap();
            let message = PostReceipt::signed(receipt, content, &result, &worker.key).unwrap();
            assert_all_succeeded(&market.chain.external(&job.address, cell(&message)).unwrap());
            assert_eq!(market.status(&job), Some(JobStatus::Settled));
        }
    }
}

#[test]
fn the_least_value_of_a_session_pays_for_its_close_after_two_weeks() {
    let (mut market, worker, client) = market();
    let terms = Terms { wait_s: MAX_SESSION_S, settle_within_s: MAX_SETTLE_S, ..Terms::default() };
    let job = market.draft_session(&client, &worker, &terms);
    let least = least(&market, &job);
    assert!(own(&market.post_draft(&client, &job, least), &job).succeeded());
    for sequence in 1..=20 {
        let receipt = market.session_receipt(&job, sequence, u64::from(sequence) * TON / 40, false);
        assert_all_succeeded(&market.redeem(&worker, &job, receipt, TON).unwrap());
    }
    market.chain.wait(MAX_SESSION_S);
    let last = market.session_receipt(&job, 21, TON, true);
    assert_all_succeeded(&market.redeem(&worker, &job, last, TON).unwrap());
    assert_eq!(market.status(&job), Some(JobStatus::Settled));
}

#[test]
fn terms_that_nobody_can_meet_are_refused() {
    let (mut market, worker, client) = market();
    type Edit = fn(&mut Job, u32);
    fn settle(job: &mut Job, settle_within_s: u32) {
        job.seller.settle_within_s = settle_within_s;
    }
    let all: [(&str, Edit); 4] = [
        ("no time", |job, now| job.until = now),
        ("no deposit", |job, _| job.deposit = Amount::ZERO),
        ("too short to settle", |job, _| settle(job, MIN_SETTLE_S - 1)),
        ("too long to settle", |job, _| settle(job, MAX_SETTLE_S + 1)),
    ];
    let directed: [(&str, Edit); 2] = [
        ("too long to wait", |job, now| job.until = now + MAX_WAIT_S + 1),
        ("a share over the whole", |job, _| job.seller.share_bps = 10_001),
    ];
    let session: [(&str, Edit); 2] = [
        ("too long a session", |job, now| job.until = now + MAX_SESSION_S + 1),
        ("a share over the whole", |job, _| job.seller.share_bps = 10_001),
    ];
    let open: [(&str, Edit); 3] = [
        ("no time", |job, now| job.until = now),
        ("no deposit", |job, _| job.deposit = Amount::ZERO),
        ("too long to wait", |job, now| job.until = now + MAX_WAIT_S + 1),
    ];
    let cases = [
        (KINDS[0], all.iter().chain(directed.as_slice()).collect::<Vec<_>>()),
        (KINDS[1], all.iter().chain(session.as_slice()).collect()),
        // What else a market's terms say is looked at by whoever takes the job.
        (KINDS[2], open.iter().collect()),
    ];
    for (draft, edits) in cases {
        for (what, edit) in edits {
            let mut job = draft(&mut market, &client, &worker, &Terms::default());
            edit(&mut job, market.chain.now);
            let txs = market.post_draft(&client, &job, Nanoton::new(3 * TON));
            assert_eq!(own(&txs, &job).exit_code, Some(i32::from(ContractError::BadTerms.code())), "{what}");
            assert_eq!(market.status(&job), None, "{what}");
        }
    }
}

#[test]
fn a_session_that_names_no_key_for_vouchers_is_refused() {
    let (mut market, worker, client) = market();
    let job = market.draft_session(&client, &worker, &Terms::default());
    let other = market.draft_open(&client, &worker, &Terms::default());
    let (body, init) = market.opening(&job);
    let Kind::Market(terms) = other.kind else { unreachable!() };
    let mut altered = CellBuilder::new();
    altered.store_slice(body.as_slice().unwrap().get_prefix(body.bit_len(), 1)).unwrap();
    altered.store_reference(to_cell(&*terms).unwrap()).unwrap();
    let value = market.value_of(&job);
    let txs = market.chain.send(&client, &job.address, value, altered.build().unwrap(), Some(init));
    assert!(!own(&txs, &job).succeeded());
    assert_eq!(market.status(&job), None);
}

#[test]
fn terms_at_their_bounds_are_taken() {
    let (mut market, worker, client) = market();
    for (draft, wait_s) in KINDS.into_iter().zip([MAX_WAIT_S, MAX_SESSION_S, MAX_WAIT_S]) {
        for settle_within_s in [MIN_SETTLE_S, MAX_SETTLE_S] {
            let terms = Terms {
                wait_s,
                settle_within_s,
                share_bps: 10_000,
                bid_for_s: wait_s,
                deliver_within_s: settle_within_s,
                compensation: Terms::default().deposit,
                ..Terms::default()
            };
            let job = draft(&mut market, &client, &worker, &terms);
            let value = market.value_of(&job);
            assert!(own(&market.post_draft(&client, &job, value), &job).succeeded());
        }
    }
}

#[test]
fn an_unposted_job_takes_nothing_else() {
    let (mut market, worker, client) = market();
    let job = market.draft(&client, &worker, &Terms::default());
    let (_, init) = market.opening(&job);
    let body = cell(&FundGas { query_id: 1 });
    let txs = market.chain.send(&client, &job.address, Nanoton::new(TON), body, Some(init));
    assert_eq!(own(&txs, &job).exit_code, Some(UNPOSTED_JOB));
    assert_eq!(market.status(&job), None);
    let value = market.value_of(&job);
    assert!(own(&market.post_draft(&client, &job, value), &job).succeeded());
}

#[test]
fn an_unknown_message_is_refused() {
    let (mut market, worker, client) = market();
    let job = market.post(&client, &worker, &Terms::default());
    let body = contracts::worker::WithdrawUnbonded { query_id: 1 }.to_cell().unwrap();
    let txs = market.chain.send(&client, &job.address, Nanoton::new(FEES), body, None);
    assert_refused(&txs, &job.address, ContractError::UnknownMessage);
}

#[test]
fn a_job_for_a_worker_that_does_not_exist_ends_like_any_other() {
    let mut market = Market::open();
    let worker = market.unborn_worker("worker");
    let client = market.person("client");
    let before = market.chain.balance(&client);
    for draft in KINDS {
        let job = draft(&mut market, &client, &worker, &Terms::default());
        let value = market.value_of(&job);
        let txs = market.post_draft(&client, &job, value);
        assert!(own(&txs, &job).succeeded());
        market.chain.wait(121);
        let stranger = market.person("stranger");
        assert_all_succeeded(&market.expire(&stranger, &job));
        assert!(market.status(&job).unwrap().is_closed());
    }
    assert!(before - market.chain.balance(&client) < u128::from(TON / 20));
}
