//! Who may claim a job that names its worker.

use contracts::errors::ContractError;
use contracts::job::{JobStatus, TakeJob};
use contracts::job_log::JobTaken;
use contracts::receipt::ClaimOrder;
use contracts::worker::{ClaimJob, PauseWorker, RequestUnbond, WithdrawEarnings};
use contracts::{Amount, Nanoton, SigningKey, StdAddr};
use tests::market::{
    FEES, PRICES, TON, assert_all_succeeded, assert_external_refused, assert_refused, cell, hash, import_fee,
    least_balance,
};
use tests::{Job, Market, Terms, Worker};

fn posted() -> (Market, Worker, StdAddr, Job) {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.post(&client, &worker, &Terms::default());
    (market, worker, client, job)
}

/// The job refused the claim: the bond is back among the owner's funds.
fn refused_by_the_job(market: &mut Market, worker: &Worker, job: &Job, order: ClaimOrder, code: i32) {
    let before = market.worker_state(worker).unwrap();
    let (free, job_before) = (market.free(worker), market.job_state(job));
    let held = market.chain.balance(&job.address);
    let txs = market.claim_with(worker, order).unwrap();
    let refusal = txs.iter().find(|tx| tx.account == job.address).unwrap();
    assert_eq!(refusal.exit_code, Some(code));
    let bounce = txs.last().unwrap();
    assert!(bounce.bounced && bounce.succeeded() && bounce.account == worker.address);
    let after = market.worker_state(worker).unwrap();
    assert_eq!(after.stake, before.stake);
    assert_eq!(after.claim_seqno, before.claim_seqno + 1);
    assert!(market.free(worker) + market.prices().claim().get() >= free, "a refused claim cost the bond");
    assert_eq!(market.job_state(job), job_before);
    // But for the rent of a moment.
    assert!(market.chain.balance(&job.address) + 1_000 >= held);
}

fn code(error: ContractError) -> i32 {
    error.code().into()
}

#[test]
fn the_attested_worker_may_claim_and_its_bond_travels() {
    let (mut market, worker, _, job) = posted();
    let before = market.worker_state(&worker).unwrap();
    let (held, free) = (market.chain.balance(&job.address), market.free(&worker));
    let txs = market.claim(&worker, &job).unwrap();
    assert_all_succeeded(&txs);
    let bond = Amount::new(TON / 2);
    let state = market.job_state(&job).unwrap();
    assert_eq!((state.status, state.bond), (JobStatus::Claimed, bond));
    assert_eq!(state.until, market.chain.now + job.seller.settle_within_s);
    let log: JobTaken = txs.iter().find_map(|tx| tx.logged()).unwrap();
    assert_eq!(log.worker, worker.address.address);
    assert_eq!((log.bond, log.until, log.prices), (bond, state.until, PRICES));
    let after = market.worker_state(&worker).unwrap();
    assert_eq!((after.stake, after.claim_seqno), (before.stake, before.claim_seqno + 1));
    let spent = free - market.free(&worker);
    assert!(spent <= bond.nanoton().get() + market.prices().claim().get(), "a claim cost {spent}");
    // The claim pays for itself.
    assert!(market.chain.balance(&job.address) >= held + bond.nanoton().get());
}

#[test]
fn an_order_is_worth_something_once_and_here_alone() {
    let (mut market, worker, _, job) = posted();
    let order = market.order(&worker, &job);
    let stranger = SigningKey::from_bytes(&[1; 32]);
    let forged = ClaimJob::signed(order.clone(), &stranger).unwrap();
    let sent = market.chain.external(&worker.address, cell(&forged));
    assert_external_refused(sent, ContractError::BadSignature);
    let mut flipped = ClaimJob::signed(order.clone(), &worker.key).unwrap();
    flipped.signature.0[10] ^= 1;
    let sent = market.chain.external(&worker.address, cell(&flipped));
    assert_external_refused(sent, ContractError::BadSignature);
    let min_bond = market.network.generation.min_bond;
    let less = Amount::try_from(min_bond.checked_sub(Nanoton::new(1)).unwrap()).unwrap();
    let cases = [
        (ClaimOrder { seqno: order.seqno + 1, ..order.clone() }, ContractError::WrongSeqno),
        (ClaimOrder { valid_until: market.chain.now - 1, ..order.clone() }, ContractError::TooLate),
        (ClaimOrder { model_id: hash("another model"), ..order.clone() }, ContractError::ModelNotOffered),
        (ClaimOrder { bond: less, ..order.clone() }, ContractError::BondTooLow),
        (ClaimOrder { bond: Amount::new(21 * TON), ..order.clone() }, ContractError::GasFloatTooLow),
    ];
    let held = market.chain.balance(&worker.address);
    for (order, error) in cases {
        assert_external_refused(market.claim_with(&worker, order), error);
    }
    assert_eq!(market.chain.balance(&worker.address), held);
    let other = market.worker("other worker");
    let astray = ClaimOrder { worker: other.address.address, ..order.clone() };
    assert_external_refused(market.claim_with(&worker, astray), ContractError::NotSibling);
    assert_all_succeeded(&market.claim_with(&worker, order.clone()).unwrap());
    assert_external_refused(market.claim_with(&worker, order), ContractError::WrongSeqno);
}

#[test]
fn an_order_at_its_last_second_counts() {
    let (mut market, worker, _, job) = posted();
    let order = ClaimOrder { valid_until: market.chain.now, ..market.order(&worker, &job) };
    assert_all_succeeded(&market.claim_with(&worker, order).unwrap());
}

#[test]
fn a_worker_without_a_lasting_attestation_may_not_claim() {
    let mut market = Market::open();
    let bare = market.staked_worker("bare");
    market.fund_gas(&bare, Nanoton::new(TON));
    market.offer(&bare, PRICES);
    let client = market.person("client");
    let job = market.post(&client, &bare, &Terms::default());
    assert_external_refused(market.claim(&bare, &job), ContractError::NotAttested);

    let worker = market.worker("worker");
    market.chain.wait(market.network.generation.params.attestation_ttl_s - 1);
    let [first, second] = [(); 2].map(|()| market.post(&client, &worker, &Terms::default()));
    market.claim_well(&worker, &first);
    market.chain.wait(1);
    assert_external_refused(market.claim(&worker, &second), ContractError::NotAttested);
}

#[test]
fn a_worker_with_less_stake_than_the_least_may_not_claim() {
    let (mut market, worker, _, job) = posted();
    let unbond = RequestUnbond { query_id: 1, amount: Nanoton::new(10 * TON) };
    assert_all_succeeded(&market.tell(&worker.owner, &worker.address, Nanoton::new(FEES), &unbond));
    assert_all_succeeded(&market.claim(&worker, &job).unwrap());
    let unbond = RequestUnbond { query_id: 1, amount: Nanoton::new(1) };
    assert_all_succeeded(&market.tell(&worker.owner, &worker.address, Nanoton::new(FEES), &unbond));
    let client = job.client.clone();
    let job = market.post(&client, &worker, &Terms::default());
    assert_external_refused(market.claim(&worker, &job), ContractError::UnderStaked);
}

#[test]
fn a_paused_worker_claims_nothing_and_answers_what_it_has() {
    let (mut market, worker, client, job) = posted();
    let claimed = market.claimed(&client, &worker, &Terms::default());
    let pause = |paused| PauseWorker { query_id: 1, paused };
    assert_all_succeeded(&market.tell(&worker.owner, &worker.address, Nanoton::new(FEES), &pause(true)));
    assert_external_refused(market.claim(&worker, &job), ContractError::Paused);
    let receipt = market.receipt(&claimed, Default::default());
    assert_all_succeeded(&market.settle(&worker, &claimed, receipt).unwrap());
    assert_all_succeeded(&market.tell(&worker.owner, &worker.address, Nanoton::new(FEES), &pause(false)));
    assert_all_succeeded(&market.claim(&worker, &job).unwrap());
}

#[test]
fn a_claim_is_paid_out_of_the_owners_funds_and_never_out_of_the_stake() {
    for enough in [false, true] {
        let (mut market, worker, _, job) = posted();
        let bond = u128::from(market.order(&worker, &job).bond.get());
        let prices = market.prices();
        // Compared once the order has been imported.
        let import = prices.forward(contracts::fees::CLAIM_BITS, contracts::fees::CLAIM_CELLS).get();
        let kept =
            bond + prices.claim_cost().get() + prices.claim_value().get() + if enough { import } else { 0 };
        let amount = Nanoton::checked(market.free(&worker) - kept).unwrap();
        let withdraw = WithdrawEarnings { query_id: 1, amount };
        assert_all_succeeded(&market.tell(&worker.owner, &worker.address, Nanoton::new(FEES), &withdraw));
        assert_eq!(market.free(&worker), kept);
        let stake = market.worker_state(&worker).unwrap().stake.get();
        let claim = market.claim(&worker, &job);
        if enough {
            assert_all_succeeded(&claim.unwrap());
        } else {
            assert_external_refused(claim, ContractError::GasFloatTooLow);
            assert_eq!(market.free(&worker), kept);
        }
        assert!(market.chain.balance(&worker.address) >= stake);
    }
}

#[test]
fn a_claim_waits_until_the_worker_holds_its_stake_the_bond_and_what_the_claim_costs() {
    let (mut market, worker, _, job) = posted();
    let body = RequestUnbond { query_id: 1, amount: Nanoton::new(3 * TON) };
    assert_all_succeeded(&market.tell(&worker.owner, &worker.address, Nanoton::new(FEES), &body));
    let message = cell(&ClaimJob::signed(market.order(&worker, &job), &worker.key).unwrap());
    let least = least_balance(&market, &worker.address, &message, ContractError::GasFloatTooLow);
    let owed = u128::from(20 * TON + job.limits.least_bond.get());
    let cost = market.prices().claim_cost().get() + market.prices().claim_value().get();
    assert_eq!(least, owed + cost + import_fee(&market, &message));
}

#[test]
fn a_claim_that_the_job_cannot_take_costs_no_bond() {
    let (mut market, worker, client, job) = posted();
    let less = ClaimOrder { bond: Amount::new(TON / 2 - 1), ..market.order(&worker, &job) };
    refused_by_the_job(&mut market, &worker, &job, less, code(ContractError::BondTooLow));
    let other = market.worker("other worker");
    let order = market.order(&other, &job);
    refused_by_the_job(&mut market, &other, &job, order, code(ContractError::NotSibling));
    let bid = ClaimOrder { is_bid: true, ..market.order(&worker, &job) };
    refused_by_the_job(&mut market, &worker, &job, bid, code(ContractError::WrongState));
    let missed = market.post(&client, &worker, &Terms::default());
    market.chain.wait(120);
    assert_all_succeeded(&market.claim(&worker, &job).unwrap());
    market.chain.wait(1);
    let late = market.order(&worker, &missed);
    refused_by_the_job(&mut market, &worker, &missed, late, code(ContractError::TooLate));
    let again = market.order(&worker, &job);
    refused_by_the_job(&mut market, &worker, &job, again, code(ContractError::WrongState));
    let session = market.session(&client, &worker, &Terms::default());
    let order = market.order(&worker, &session);
    refused_by_the_job(&mut market, &worker, &session, order, code(ContractError::WrongState));
}

#[test]
fn a_claim_of_a_job_that_does_not_exist_comes_back() {
    let (mut market, worker, client, _) = posted();
    let ghost = market.draft(&client, &worker, &Terms::default());
    let free = market.free(&worker);
    let txs = market.claim(&worker, &ghost).unwrap();
    assert!(txs.last().unwrap().bounced);
    assert!(market.free(&worker) + market.prices().claim().get() >= free);
}

#[test]
fn a_stranger_may_not_take_a_job_by_saying_so() {
    let (mut market, _, _, job) = posted();
    let stranger = market.person("stranger");
    let amount = Amount::new(TON);
    let message = TakeJob { query_id: 1, bond: amount, stake: amount, bid: None };
    let txs = market.tell(&stranger, &job.address, Nanoton::new(2 * TON), &message);
    assert_refused(&txs, &job.address, ContractError::NotSibling);
    assert_eq!(market.status(&job), Some(JobStatus::Open));
}

#[test]
fn an_open_job_without_a_least_bond_takes_any() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.post(&client, &worker, &Terms { least_bond: Amount::ZERO, ..Terms::default() });
    market.claim_well(&worker, &job);
    assert_eq!(market.job_state(&job).unwrap().bond, Amount::new(TON / 10));
}

#[test]
fn a_claim_brings_a_bond_and_its_fees_to_the_nanoton() {
    let (mut market, worker, client, _) = posted();
    // Whom a client names need not be a Worker, nor keep to a Worker's rules.
    let anybody = market.person("anybody");
    let mut job = market.draft(&client, &worker, &Terms { least_bond: Amount::ZERO, ..Terms::default() });
    job.seller.worker = anybody.address;
    let value = market.value_of(&job);
    market.post_draft(&client, &job, value);
    let fees = market.prices().claim_value();
    for (bond, value, error) in [
        (0, Nanoton::new(FEES), Some(ContractError::BondTooLow)),
        (1, fees, Some(ContractError::ValueTooLow)),
        (1, fees.checked_add(Nanoton::new(1)).unwrap(), None),
    ] {
        let body = TakeJob { query_id: 1, bond: Amount::new(bond), stake: Amount::ZERO, bid: None };
        let txs = market.tell(&anybody, &job.address, value, &body);
        match error {
            Some(error) => assert_refused(&txs, &job.address, error),
            None => assert_all_succeeded(&txs),
        }
    }
    assert_eq!(market.status(&job), Some(JobStatus::Claimed));
}
