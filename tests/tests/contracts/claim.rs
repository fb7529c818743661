use contracts::errors::ContractError;
use contracts::job::{Claim, JobStatus, TakeJob};
use contracts::receipt::{ClaimOrder, ClaimOrderBody, public_key};
use contracts::worker::{ClaimJob, RequestUnbond};
use contracts::{HashBytes, Nanoton, Ref, SigningKey};
use tests::market::{
    PRICES, ROYALTY_BPS, TON, assert_all_succeeded, assert_external_refused, assert_refused, cell, hash,
};
use tests::{Job, Market, Terms, Worker};

fn posted() -> (Market, Worker, Job) {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let job = market.post(&client, &worker, &Terms::default());
    (market, worker, job)
}

fn altered(order: &ClaimOrder, edit: impl FnOnce(&mut ClaimOrderBody)) -> ClaimOrder {
    let mut body = (*order.body).clone();
    edit(&mut body);
    ClaimOrder { body: Ref::new(body).unwrap(), ..order.clone() }
}

/// The job refused the claim: the bond is back and nothing is locked.
fn refused_by_the_job(
    market: &mut Market,
    worker: &Worker,
    job: &Job,
    order: ClaimOrder,
    error: ContractError,
) {
    let before = market.worker_state(worker).unwrap();
    let job_before = market.job_state(job);
    let txs = market.claim_with(worker, order).unwrap();
    let refusal = txs.iter().find(|tx| tx.account == job.address).unwrap();
    assert_eq!(refusal.exit_code, Some(i32::from(error.code())), "{error}");
    let bounce = txs.last().unwrap();
    assert!(bounce.bounced && bounce.succeeded() && bounce.account == worker.address);
    let after = market.worker_state(worker).unwrap();
    assert_eq!(after.locked, before.locked);
    assert_eq!(after.stake, before.stake);
    assert_eq!(after.claim_seqno, before.claim_seqno + 1);
    assert_eq!(market.job_state(job), job_before);
}

#[test]
fn the_attested_worker_may_claim_and_its_bond_travels() {
    let (mut market, worker, job) = posted();
    let before = market.worker_state(&worker).unwrap();
    let held = market.chain.balance(&job.address);
    assert_all_succeeded(&market.claim(&worker, &job).unwrap());
    let bond = Nanoton::new(TON / 2);
    let state = market.job_state(&job).unwrap();
    let claim = state.claim.unwrap();
    assert_eq!(state.status, JobStatus::Claimed);
    assert_eq!(claim.bond, bond);
    assert_eq!(claim.receipt_key, public_key(&worker.key));
    assert_eq!(claim.measurement, market.measurement);
    assert_eq!(claim.royalty_bps, ROYALTY_BPS);
    assert_eq!(claim.worker_owner, worker.owner);
    assert_eq!(*claim.prices, PRICES);
    assert_eq!(claim.settle_by, market.chain.now + 600);
    let after = market.worker_state(&worker).unwrap();
    assert_eq!(after.locked, bond);
    assert_eq!(before.stake.checked_sub(after.stake), Some(bond));
    assert_eq!(after.claim_seqno, before.claim_seqno + 1);
    assert!(market.chain.balance(&job.address) >= held + bond.get() - u128::from(TON / 50));
}

#[test]
fn an_order_is_worth_something_once_and_here_alone() {
    let (mut market, worker, job) = posted();
    let order = market.order(&worker, &job);
    let stranger = SigningKey::from_bytes(&[1; 32]);
    let forged = ClaimJob::signed(order.clone(), &stranger).unwrap();
    assert_external_refused(
        market.chain.external(&worker.address, cell(&forged)),
        ContractError::BadSignature,
    );
    let mut flipped = ClaimJob::signed(order.clone(), &worker.key).unwrap();
    flipped.signature.0[10] ^= 1;
    assert_external_refused(
        market.chain.external(&worker.address, cell(&flipped)),
        ContractError::BadSignature,
    );
    let cases = [
        (ClaimOrder { network_id: -239, ..order.clone() }, ContractError::WrongNetwork),
        (ClaimOrder { seqno: order.seqno + 1, ..order.clone() }, ContractError::WrongSeqno),
        (ClaimOrder { valid_until: market.chain.now - 1, ..order.clone() }, ContractError::TooLate),
        (altered(&order, |body| body.model_id = hash("another model")), ContractError::ModelNotOffered),
        (altered(&order, |body| body.bond = Nanoton::new(21 * TON)), ContractError::UnderStaked),
    ];
    for (order, error) in cases {
        assert_external_refused(market.claim_with(&worker, order), error);
    }
    assert_all_succeeded(&market.claim_with(&worker, order.clone()).unwrap());
    assert_external_refused(market.claim_with(&worker, order), ContractError::WrongSeqno);
}

#[test]
fn an_order_for_another_worker_is_refused() {
    let (mut market, worker, job) = posted();
    let other = market.worker("other worker");
    let order = ClaimOrder { worker: other.address.clone(), ..market.order(&worker, &job) };
    assert!(market.claim_with(&worker, order).is_err());
}

#[test]
fn a_worker_without_an_attestation_may_not_claim() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    market.fund_gas(&worker, Nanoton::new(TON));
    market.offer(&worker, PRICES);
    let client = market.person("client");
    let job = market.post(&client, &worker, &Terms::default());
    assert_external_refused(market.claim(&worker, &job), ContractError::NotAttested);
}

#[test]
fn a_worker_whose_attestation_expired_may_not_claim() {
    let (mut market, worker, _) = posted();
    market.chain.wait(market.network.params.attestation.ttl_s + 1);
    let client = market.person("client");
    let job = market.post(&client, &worker, &Terms::default());
    assert_external_refused(market.claim(&worker, &job), ContractError::NotAttested);
    market.attest(&worker);
    assert_all_succeeded(&market.claim(&worker, &job).unwrap());
}

#[test]
fn an_under_staked_worker_may_not_claim() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let unbond = RequestUnbond { query_id: 1, amount: Nanoton::new(11 * TON) };
    assert_all_succeeded(&market.tell(&worker.owner, &worker.address, Nanoton::new(TON / 2), &unbond));
    let client = market.person("client");
    let job = market.post(&client, &worker, &Terms::default());
    assert_external_refused(market.claim(&worker, &job), ContractError::UnderStaked);
}

#[test]
fn a_worker_may_not_lock_the_same_stake_twice() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let terms = Terms { deposit: Nanoton::new(30 * TON), ..Terms::default() };
    market.claimed(&client, &worker, &terms);
    let second = market.post(&client, &worker, &terms);
    assert_external_refused(market.claim(&worker, &second), ContractError::UnderStaked);
}

#[test]
fn a_claim_is_not_paid_out_of_the_stake() {
    let mut market = Market::open();
    let worker = market.staked_worker("worker");
    assert_all_succeeded(&market.attest(&worker));
    assert_all_succeeded(&market.offer(&worker, PRICES));
    let client = market.person("client");
    let terms = Terms { deposit: Nanoton::new(TON / 1_000), ..Terms::default() };
    for _ in 0..100 {
        let job = market.post(&client, &worker, &terms);
        let before = market.worker_state(&worker).unwrap();
        let Err(refused) = market.claim(&worker, &job) else {
            continue;
        };
        assert_eq!(refused.exit_code, Some(i32::from(ContractError::GasFloatTooLow.code())));
        assert_eq!(market.worker_state(&worker).unwrap(), before);
        assert!(market.chain.balance(&worker.address) >= before.stake.get());
        assert_all_succeeded(&market.fund_gas(&worker, Nanoton::new(TON / 10)));
        assert_all_succeeded(&market.claim(&worker, &job).unwrap());
        return;
    }
    panic!("a hundred claims were paid out of half a TON");
}

#[test]
fn a_claim_above_the_clients_price_is_refused() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let edits: [fn(&mut contracts::Prices); 3] = [
        |p| p.input = Nanoton::new(1_999_999),
        |p| p.cached_input = Nanoton::new(999_999),
        |p| p.output = Nanoton::new(5_999_999),
    ];
    for edit in edits {
        let mut terms = Terms::default();
        edit(&mut terms.max_prices);
        let job = market.post(&client, &worker, &terms);
        let order = market.order(&worker, &job);
        refused_by_the_job(&mut market, &worker, &job, order, ContractError::PriceOverTerms);
    }
}

#[test]
fn a_bond_below_the_networks_share_is_refused() {
    let (mut market, worker, job) = posted();
    let order = altered(&market.order(&worker, &job), |body| {
        body.bond = Nanoton::new(TON / 2 - 1);
    });
    refused_by_the_job(&mut market, &worker, &job, order, ContractError::BondTooLow);
}

#[test]
fn a_claim_after_claim_by_is_refused() {
    let (mut market, worker, job) = posted();
    market.chain.wait(121);
    let order = market.order(&worker, &job);
    refused_by_the_job(&mut market, &worker, &job, order, ContractError::TooLate);
}

#[test]
fn a_job_that_asks_for_another_measurement_refuses() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let terms = Terms { measurement: hash("another image"), ..Terms::default() };
    let job = market.post(&client, &worker, &terms);
    let order = market.order(&worker, &job);
    refused_by_the_job(&mut market, &worker, &job, order, ContractError::MeasurementNotAdmitted);
    let terms = Terms { measurement: market.measurement, ..Terms::default() };
    market.claimed(&client, &worker, &terms);
}

#[test]
fn a_directed_job_is_for_its_worker_alone() {
    let (mut market, worker, job) = posted();
    let other = market.worker("other worker");
    let order = market.order(&other, &job);
    refused_by_the_job(&mut market, &other, &job, order, ContractError::NotSibling);
    assert_all_succeeded(&market.claim(&worker, &job).unwrap());
    let order = market.order(&other, &job);
    let txs = market.claim_with(&other, order).unwrap();
    let refusal = txs.iter().find(|tx| tx.account == job.address).unwrap();
    assert!(refusal.aborted);
}

#[test]
fn a_job_is_claimed_once() {
    let (mut market, worker, job) = posted();
    assert_all_succeeded(&market.claim(&worker, &job).unwrap());
    let order = market.order(&worker, &job);
    refused_by_the_job(&mut market, &worker, &job, order, ContractError::WrongState);
}

#[test]
fn a_claim_of_a_job_that_does_not_exist_bounces() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let before = market.worker_state(&worker).unwrap();
    let job = market.draft(&client, &worker, &Terms::default());
    let txs = market.claim(&worker, &job).unwrap();
    assert!(txs.last().unwrap().bounced);
    let after = market.worker_state(&worker).unwrap();
    assert_eq!((after.stake, after.locked), (before.stake, before.locked));
}

#[test]
fn a_stranger_may_not_take_a_job_by_saying_so() {
    let (mut market, worker, job) = posted();
    let stranger = market.person("stranger");
    let claim = Claim {
        receipt_key: HashBytes([1; 32]),
        measurement: market.measurement,
        royalty_bps: 0,
        bond: Nanoton::new(TON),
        settle_by: 0,
        worker_owner: worker.owner.clone(),
        prices: Ref::new(PRICES).unwrap(),
    };
    let message = TakeJob {
        query_id: 1,
        bond: Nanoton::new(TON),
        model_id: market.model_id,
        claim: Ref::new(claim).unwrap(),
    };
    let txs = market.tell(&stranger, &job.address, Nanoton::new(2 * TON), &message);
    assert_refused(&txs, &job.address, ContractError::NotSibling);
    assert_eq!(market.status(&job), Some(JobStatus::Open));
}

#[test]
fn one_models_offer_does_not_claim_a_job_for_another() {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let client = market.person("client");
    let cheap = hash("a model without royalty");
    assert_all_succeeded(&market.register_model(&worker.owner, cheap, 0));
    assert_all_succeeded(&market.offer_of(&worker, cheap, PRICES));
    let job = market.post(&client, &worker, &Terms::default());
    let order = altered(&market.order(&worker, &job), |body| body.model_id = cheap);
    refused_by_the_job(&mut market, &worker, &job, order, ContractError::ModelNotOffered);
}
