//! Two receipts of one sequence: who may show them, what is no evidence, and what it costs the worker.

use contracts::errors::ContractError;
use contracts::job::{AUDIT_WINDOW_S, EQUIVOCATED, JobEquivocated, JobStatus, Payout, ReportEquivocation};
use contracts::job_log::EquivocationShown;
use contracts::receipt::{Receipt, SignedReceipt};
use contracts::worker::{
    FundGas, MAX_JOB_LIFE_S, MAX_RECEIPT_KEYS, REPORTER_PART_BPS, RequestUnbond, TREASURY_PART_BPS,
    WithdrawEarnings, WithdrawUnbonded,
};
use contracts::{Amount, Nanoton, Ref, SigningKey, StdAddr, Units};
use tests::market::{FEES, TON, assert_all_succeeded, assert_external_refused, assert_refused, hash};
use tests::{Job, Market, Terms, Tx, Worker};

const UNITS: Units = Units { input: 100, cached_input: 7, output: 333 };

struct Case {
    market: Market,
    worker: Worker,
    client: StdAddr,
    reporter: StdAddr,
    job: Job,
}

fn case() -> Case {
    case_of(Market::post, &Terms::default())
}

fn case_of(post: fn(&mut Market, &StdAddr, &Worker, &Terms) -> Job, terms: &Terms) -> Case {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let reporter = market.person("reporter");
    let job = post(&mut market, &client, &worker, terms);
    Case { market, worker, client, reporter, job }
}

impl Case {
    fn two(&self) -> (Receipt, Receipt) {
        let one = self.market.receipt(&self.job, UNITS);
        let other = Receipt { content_hash: hash("another answer"), ..one.clone() };
        (one, other)
    }

    fn evidence(&self) -> ReportEquivocation {
        let (one, other) = self.two();
        self.market.equivocation(&self.worker, one, other)
    }

    fn report(&mut self, report: &ReportEquivocation) -> Vec<Tx> {
        let (reporter, job) = (self.reporter.clone(), self.job.clone());
        self.market.report(&reporter, &job, report)
    }

    /// What of a penalty the treasury and the client got to the nanoTON; the rest, above the fees of the report, is the
    /// reporter's.
    fn assert_split(&self, txs: &[Tx], penalty: u128) {
        let treasury = penalty * u128::from(TREASURY_PART_BPS) / 10_000;
        let reward = penalty * u128::from(REPORTER_PART_BPS) / 10_000;
        assert!(payout(txs, &self.market.treasury) >= treasury);
        assert_eq!(payout(txs, &self.client) + payout(txs, &self.market.treasury), penalty - reward);
        let rewarded = payout(txs, &self.reporter);
        assert!(rewarded >= reward && rewarded <= reward + u128::from(FEES), "{rewarded}");
    }

    fn stakes(&self) -> (u128, u128, u32) {
        let state = self.market.worker_state(&self.worker).unwrap();
        (state.stake.get(), state.unbonding.get(), state.slashed)
    }
}

fn payout(txs: &[Tx], to: &StdAddr) -> u128 {
    let sent = txs.iter().flat_map(|tx| &tx.out);
    sent.filter(|sent| sent.to == *to && sent.read::<Payout>().is_some()).map(|sent| sent.value).sum()
}

#[test]
fn anyone_may_show_two_receipts_of_one_sequence_and_the_stake_pays() {
    let mut case = case();
    let (stake, free) = (case.stakes().0, case.market.free(&case.worker));
    let held = case.market.chain.balance(&case.job.address);
    let evidence = case.evidence();
    let txs = case.report(&evidence);
    assert_all_succeeded(&txs);
    let penalty = u128::from(2 * TON);
    assert_eq!(case.stakes(), (stake - penalty, 0, 1));
    case.assert_split(&txs, penalty);
    assert_eq!(payout(&txs, &case.market.treasury), penalty / 2);
    assert_eq!(payout(&txs, &case.client), penalty * 2 / 5);
    // What the report brought too much comes back with the reward.
    assert!(payout(&txs, &case.reporter) > penalty / 10 + u128::from(FEES) * 9 / 10);
    assert_eq!(case.market.free(&case.worker), free, "the owner got or paid a part of the report");
    let state = case.market.job_state(&case.job).unwrap();
    assert_eq!(state.sequence, EQUIVOCATED);
    assert_eq!(case.market.chain.balance(&case.job.address), held, "the job paid for the report");
    let log: EquivocationShown = txs[0].logged().unwrap();
    assert_eq!((log.sequence, log.penalty), (1, Amount::new(2 * TON)));
    assert_refused(&case.report(&evidence), &case.job.address, ContractError::WrongState);
}

#[test]
fn the_penalty_is_the_least_bond_where_that_is_between_twice_and_ten_times_the_deposit() {
    for (deposit, least_bond, penalty) in [
        (TON, 2 * TON - 1, 2 * TON),
        (TON, 3 * TON, 3 * TON),
        (TON, 10 * TON, 10 * TON),
        (TON, u64::MAX, 10 * TON),
        (1, 0, 2),
        (9, u64::MAX, 90),
        // Never above the stake.
        (11 * TON, 0, 20 * TON),
        (2 * TON, 20 * TON + 1, 20 * TON),
    ] {
        let terms =
            Terms { deposit: Amount::new(deposit), least_bond: Amount::new(least_bond), ..Terms::default() };
        let mut case = case_of(Market::post, &terms);
        let evidence = case.evidence();
        let txs = case.report(&evidence);
        assert_all_succeeded(&txs);
        assert_eq!(case.stakes(), (u128::from(20 * TON - penalty), 0, 1));
        case.assert_split(&txs, u128::from(penalty));
    }
}

/// The owner is client and reporter of its own jobs, with as much money as it likes, and has the key of its machine: half
/// of what leaves the stake at once is the treasury's.
#[test]
fn a_worker_cannot_take_its_stake_out_by_slashing_itself_at_less_than_half_its_loss() {
    let posts = [Market::post, Market::claimed, Market::session, Market::awaiting];
    for (deposit, least_bond) in [(20 * TON, 0), (10 * TON, 0), (2 * TON, 20 * TON), (TON / 100, 0), (7, 69)]
    {
        for post in posts {
            let mut market = Market::open();
            let worker = market.worker("worker");
            market.chain.person("worker", Nanoton::new(5_000 * TON));
            market.fund_gas(&worker, Nanoton::new(100 * TON));
            let me = worker.owner.clone();
            let treasury = market.treasury.clone();
            let stake = |market: &Market| {
                let state = market.worker_state(&worker).unwrap();
                state.stake.get() + state.unbonding.get()
            };
            // A part of it may be on its way out already.
            let unbond = RequestUnbond { query_id: 1, amount: Nanoton::new(5 * TON) };
            assert_all_succeeded(&market.tell(&me, &worker.address, Nanoton::new(FEES), &unbond));
            let terms = Terms {
                deposit: Amount::new(deposit),
                least_bond: Amount::new(least_bond),
                share_bps: 0,
                compensation: Amount::ZERO,
                ..Terms::default()
            };
            // A claim needs the least stake.
            while stake(&market) >= u128::from(15 * TON) {
                let (staked, fined) = (stake(&market), market.chain.balance(&treasury));
                let held = market.chain.balance(&me) + market.free(&worker);
                let job = post(&mut market, &me, &worker, &terms);
                let one = market.receipt(&job, UNITS);
                let other = Receipt { content_hash: hash("another answer"), ..one.clone() };
                let evidence = market.equivocation(&worker, one, other);
                assert_all_succeeded(&market.report(&me, &job, &evidence));
                // Then all else that is in the job is back with its owner.
                market.chain.now = market.job_state(&job).unwrap().until + 1;
                assert_all_succeeded(&market.expire(&me, &job));
                let lost = staked - stake(&market);
                let gained = (market.chain.balance(&me) + market.free(&worker)).saturating_sub(held);
                assert!(2 * gained <= lost, "{gained} of {lost} came out at once");
                assert!(2 * (market.chain.balance(&treasury) - fined) >= lost);
                assert!(lost > 0);
                if deposit < TON {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_worker_that_reports_itself_first_keeps_its_client_from_nothing_but_the_reward() {
    let mut case = case();
    let evidence = case.evidence();
    case.reporter = case.worker.owner.clone();
    let txs = case.report(&evidence);
    assert_all_succeeded(&txs);
    case.assert_split(&txs, u128::from(2 * TON));
}

#[test]
fn what_is_unbonding_pays_after_the_stake() {
    let terms = Terms { deposit: Amount::new(15 * TON / 2), ..Terms::default() };
    let mut case = case_of(Market::post, &terms);
    let unbond = RequestUnbond { query_id: 1, amount: Nanoton::new(12 * TON) };
    let (owner, address) = (case.worker.owner.clone(), case.worker.address.clone());
    assert_all_succeeded(&case.market.tell(&owner, &address, Nanoton::new(FEES), &unbond));
    let evidence = case.evidence();
    assert_all_succeeded(&case.report(&evidence));
    assert_eq!(case.stakes(), (0, u128::from(5 * TON), 1));
}

#[test]
fn a_stake_that_storage_has_eaten_of_still_pays() {
    let terms = Terms { deposit: Amount::new(30 * TON), ..Terms::default() };
    let mut case = case_of(Market::post, &terms);
    let (owner, address) = (case.worker.owner.clone(), case.worker.address.clone());
    let amount = Nanoton::checked(case.market.free(&case.worker)).unwrap();
    let withdraw = WithdrawEarnings { query_id: 1, amount };
    assert_all_succeeded(&case.market.tell(&owner, &address, Nanoton::new(FEES), &withdraw));
    let evidence = case.evidence();
    case.market.chain.wait(3 * 365 * 86_400);
    let txs = case.report(&evidence);
    assert_all_succeeded(&txs);
    // The reporter's tenth goes out with what its report brought.
    let taken = payout(&txs, &case.client) + payout(&txs, &case.market.treasury);
    assert!(taken < u128::from(18 * TON) && taken > u128::from(17 * TON), "{taken}");
    assert_eq!(case.stakes().2, 1);
}

#[test]
fn a_job_in_any_state_with_a_seller_takes_evidence_and_a_closed_one_too() {
    let terms = Terms::default();
    for post in [Market::post, Market::claimed, Market::session, Market::awaiting] {
        let mut case = case_of(post, &terms);
        let before = case.market.job_state(&case.job).unwrap();
        let evidence = case.evidence();
        assert_all_succeeded(&case.report(&evidence));
        let after = case.market.job_state(&case.job).unwrap();
        assert_eq!((after.status, after.until, after.bond), (before.status, before.until, before.bond));
        assert_eq!(case.stakes().2, 1);
    }
    for settle in [false, true] {
        let mut case = case();
        let evidence = case.evidence();
        let job = case.job.clone();
        if settle {
            let (one, _) = case.two();
            assert_all_succeeded(&case.market.settle(&case.worker, &job, one).unwrap());
        } else {
            case.market.cancel(&case.client, &job);
        }
        assert_eq!(case.market.chain.balance(&job.address), 0);
        case.market.chain.wait(AUDIT_WINDOW_S);
        assert_all_succeeded(&case.report(&evidence));
        assert_eq!(case.stakes().2, 1);
        assert_refused(&case.report(&evidence), &job.address, ContractError::WrongState);
        case.market.chain.wait(1);
        assert_all_succeeded(&case.market.sweep(&case.reporter.clone(), &job));
    }
}

#[test]
fn an_answer_after_the_report_leaves_the_mark() {
    let mut case = case();
    let evidence = case.evidence();
    assert_all_succeeded(&case.report(&evidence));
    let (one, _) = case.two();
    let job = case.job.clone();
    assert_all_succeeded(&case.market.settle(&case.worker, &job, one).unwrap());
    assert_eq!(case.market.job_state(&job).unwrap().sequence, EQUIVOCATED + 1);
    assert_refused(&case.report(&evidence), &job.address, ContractError::WrongState);
    assert_eq!(case.stakes().2, 1);
}

#[test]
fn a_session_pays_a_worker_that_equivocated_nothing_more() {
    let mut case = case_of(Market::session, &Terms::default());
    let job = case.job.clone();
    let receipt = case.market.session_receipt(&job, 1, TON / 4, false);
    assert_all_succeeded(&case.market.redeem(&case.worker, &job, receipt, TON).unwrap());
    let one = case.market.session_receipt(&job, 2, TON / 3, false);
    let other = case.market.session_receipt(&job, 2, TON / 2, false);
    let evidence = case.market.equivocation(&case.worker, one, other.clone());
    assert_all_succeeded(&case.report(&evidence));
    assert_eq!(case.market.job_state(&job).unwrap().sequence, EQUIVOCATED + 1);
    for receipt in [other, case.market.session_receipt(&job, 9, TON, true)] {
        let sent = case.market.redeem(&case.worker, &job, receipt, TON);
        assert_external_refused(sent, ContractError::WrongSequence);
    }
    case.market.chain.now = job.until + 1;
    assert_all_succeeded(&case.market.expire(&case.reporter.clone(), &job));
    assert_eq!(case.market.status(&job), Some(JobStatus::Settled));
}

#[test]
fn what_is_no_evidence_is_refused_and_slashes_nothing() {
    let mut case = case();
    let (one, other) = case.two();
    let client = case.client.clone();
    let second = case.market.post(&client, &case.worker, &Terms::default());
    let elsewhere = case.market.receipt(&second, UNITS);
    let impostor = Worker { key: SigningKey::from_bytes(&[5; 32]), ..case.worker.clone() };
    let signed = |receipt: &Receipt, worker: &Worker| {
        Ref::new(SignedReceipt::new(receipt.clone(), &worker.key).unwrap()).unwrap()
    };
    let worker = case.worker.clone();
    let wrong = [
        (signed(&one, &worker), signed(&one, &worker), ContractError::WrongSequence),
        (
            signed(&one, &worker),
            signed(&Receipt { sequence: 2, ..other.clone() }, &worker),
            ContractError::WrongSequence,
        ),
        (signed(&one, &worker), signed(&other, &impostor), ContractError::BadSignature),
        (signed(&one, &impostor), signed(&other, &worker), ContractError::BadSignature),
        (signed(&one, &worker), signed(&elsewhere, &worker), ContractError::WrongJob),
        (
            signed(&Receipt { posted_lt: one.posted_lt - 1, ..one.clone() }, &worker),
            signed(&other, &worker),
            ContractError::WrongJob,
        ),
    ];
    let before = case.stakes();
    for (one, other, error) in wrong {
        let report = ReportEquivocation { query_id: 1, registration_seqno: 0, one, other };
        let address = case.job.address.clone();
        assert_refused(&case.report(&report), &address, error);
    }
    assert_eq!(case.stakes(), before);
    assert_eq!(case.market.job_state(&case.job).unwrap().sequence, 0);
    let evidence = case.evidence();
    assert_all_succeeded(&case.report(&evidence));
}

#[test]
fn one_nanoton_less_than_a_report_costs_is_refused() {
    let mut case = case();
    let evidence = case.evidence();
    let least = case.market.prices().equivocation();
    let short = least.checked_sub(Nanoton::new(1)).unwrap();
    let (reporter, job) = (case.reporter.clone(), case.job.address.clone());
    let txs = case.market.tell(&reporter, &job, short, &evidence);
    assert_refused(&txs, &job, ContractError::ValueTooLow);
    assert_all_succeeded(&case.market.tell(&reporter, &job, least, &evidence));
    assert_eq!(case.stakes().2, 1);
}

#[test]
fn a_report_that_names_another_registration_keeps_nobody_from_the_right_one() {
    let mut case = case();
    let honest = case.evidence();
    for settled in [false, true] {
        for registration_seqno in [1, 7, u32::MAX] {
            let wrong = ReportEquivocation { registration_seqno, ..honest.clone() };
            let txs = case.report(&wrong);
            let refusal = txs.iter().find(|tx| tx.account == case.worker.address).unwrap();
            assert_eq!(refusal.exit_code, Some(i32::from(ContractError::BadSignature.code())));
            let state = case.market.job_state(&case.job).unwrap();
            assert_eq!(state.sequence, u32::from(settled));
            assert_eq!(case.stakes().2, 0);
        }
        if !settled {
            let (one, _) = case.two();
            let job = case.job.clone();
            case.market.settle(&case.worker, &job, one).unwrap();
        }
    }
    assert_all_succeeded(&case.report(&honest));
    assert_eq!(case.stakes().2, 1);
}

#[test]
fn a_key_that_the_worker_never_registered_is_nothing_against_it() {
    let mut case = case();
    let key = SigningKey::from_bytes(&[9; 32]);
    let framed = Worker { key, ..case.worker.clone() };
    let client = case.client.clone();
    case.job = case.market.post(&client, &framed, &Terms::default());
    let (one, other) = case.two();
    let evidence = case.market.equivocation(&framed, one, other);
    let txs = case.report(&evidence);
    let refusal = txs.iter().find(|tx| tx.account == case.worker.address).unwrap();
    assert_eq!(refusal.exit_code, Some(i32::from(ContractError::BadSignature.code())));
    assert_eq!(case.stakes().2, 0);
}

#[test]
fn nobody_but_a_job_may_accuse() {
    let mut case = case();
    let evidence = case.evidence();
    let txs = case.report(&evidence);
    let accusation: JobEquivocated = txs[0].sent().unwrap();
    let before = case.stakes();
    let (client, worker) = (case.client.clone(), case.worker.address.clone());
    for sender in [client, case.worker.owner.clone(), case.reporter.clone()] {
        let txs = case.market.tell(&sender, &worker, Nanoton::new(FEES), &accusation);
        assert_refused(&txs, &worker, ContractError::NotSibling);
    }
    assert_eq!(case.stakes(), before);
}

#[test]
fn a_key_before_the_newest_is_remembered_while_it_can_be_held_against_the_stake() {
    let mut case = case();
    let evidence = case.evidence();
    let renewed = Worker { key: SigningKey::from_bytes(&[6; 32]), ..case.worker.clone() };
    assert_all_succeeded(&case.market.attest(&renewed));
    assert_all_succeeded(&case.report(&evidence));
    assert_eq!(case.stakes().2, 1);
}

#[test]
fn a_key_is_remembered_to_the_last_second_that_it_can_be_held_against_the_stake() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let kept = |market: &Market| -> Vec<u32> {
        let keys = market.worker_state(&worker).unwrap().history.receipt_keys.clone();
        keys.keys().map(|seqno| seqno.unwrap()).collect()
    };
    let until = |market: &Market, seqno: u32| {
        market.worker_state(&worker).unwrap().history.receipt_keys.get(seqno).unwrap().unwrap().until
    };
    market.chain.wait(1);
    assert_all_succeeded(&market.attest(&worker));
    assert_eq!(kept(&market), [0, 1]);
    market.chain.now = until(&market, 0);
    assert_all_succeeded(&market.attest(&worker));
    assert_eq!(kept(&market), [0, 1, 2]);
    market.chain.now = until(&market, 1);
    assert_all_succeeded(&market.attest(&worker));
    assert_eq!(kept(&market), [1, 2, 3]);
}

#[test]
fn a_slash_is_not_undone_by_receivers_that_are_dear_to_reach() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let money = Nanoton::new(100 * TON);
    let client = market.chain.person_in(-1, "client", money);
    let reporter = market.chain.person_in(-1, "reporter", money);
    let job = market.post(&client, &worker, &Terms::default());
    let mut case = Case { market, worker, client, reporter, job };
    // All that the Worker holds is stake, and the penalty takes all of it.
    let (owner, address) = (case.worker.owner.clone(), case.worker.address.clone());
    let amount = Nanoton::new(20 * TON - TON / 100);
    let unbond = RequestUnbond { query_id: 1, amount };
    let evidence = case.evidence();
    assert_all_succeeded(&case.market.tell(&owner, &address, Nanoton::new(FEES), &unbond));
    case.market.chain.wait(MAX_JOB_LIFE_S);
    assert_all_succeeded(&case.market.tell(
        &owner,
        &address,
        Nanoton::new(FEES),
        &WithdrawUnbonded { query_id: 1 },
    ));
    let earnings = WithdrawEarnings { query_id: 1, amount: Nanoton::ZERO };
    case.market.tell(&owner, &address, Nanoton::new(FEES), &earnings);
    let txs = case.report(&evidence);
    assert!(txs.iter().find(|tx| tx.account == address).unwrap().succeeded());
    assert_eq!(case.stakes(), (0, 0, 1));
}

#[test]
fn a_worker_that_has_nothing_left_pays_nothing() {
    let mut case = case();
    let evidence = case.evidence();
    let (owner, worker) = (case.worker.owner.clone(), case.worker.address.clone());
    let amount = Nanoton::new(20 * TON);
    let unbond = RequestUnbond { query_id: 1, amount };
    assert_all_succeeded(&case.market.tell(&owner, &worker, Nanoton::new(FEES), &unbond));
    case.market.chain.wait(MAX_JOB_LIFE_S);
    let take = WithdrawUnbonded { query_id: 1 };
    assert_all_succeeded(&case.market.tell(&owner, &worker, Nanoton::new(FEES), &take));
    let txs = case.report(&evidence);
    assert_all_succeeded(&txs);
    let slash = txs.iter().find(|tx| tx.account == worker).unwrap();
    // What the report did not use goes back, and nothing else leaves.
    let receivers: Vec<_> = slash.out.iter().map(|sent| &sent.to).collect();
    assert_eq!(receivers, [&case.reporter]);
    assert_eq!(case.stakes(), (0, 0, 1));
}

#[test]
fn old_keys_are_flushed_and_a_worker_keeps_no_more_than_so_many() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let keys = |market: &Market| {
        let state = market.worker_state(&worker).unwrap();
        state.history.receipt_keys.iter().count()
    };
    for _ in 1..MAX_RECEIPT_KEYS {
        assert_all_succeeded(&market.attest(&worker));
    }
    assert_eq!(keys(&market), MAX_RECEIPT_KEYS as usize);
    let txs = market.attest(&worker);
    assert_refused(&txs, &worker.address, ContractError::TooEarly);
    market.chain.wait(31 * 86_400);
    // Two of the oldest go for each that comes.
    for left in (64..MAX_RECEIPT_KEYS as usize).rev() {
        assert_all_succeeded(&market.attest(&worker));
        assert_eq!(keys(&market), left);
    }
    assert_all_succeeded(&market.attest(&worker));
    assert_eq!(keys(&market), 65);
    let fund = FundGas { query_id: 1 };
    assert_all_succeeded(&market.tell(&worker.owner, &worker.address, Nanoton::new(FEES), &fund));
}
