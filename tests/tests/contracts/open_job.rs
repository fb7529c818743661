//! Jobs of the market: who may take one, which bid wins, and how the input gets to the winner.

use contracts::errors::ContractError;
use contracts::job::{Bid, DeliverInput, JobPaid, JobStatus, Outcome, Seller, TakeJob};
use contracts::job_log::{InputDelivered, JobTaken};
use contracts::receipt::{ClaimOrder, ClaimOrderBody, MarketOrder};
use contracts::wire::to_cell;
use contracts::{Amount, Nanoton, Prices, Ref, StdAddr, Units};
use tests::market::{
    PRICES, SHARE_BPS, TON, assert_all_succeeded, assert_external_refused, assert_refused, hash,
};
use tests::{Job, Market, Terms, Tx, Worker};

const BIDDING_S: u32 = 60;

fn setup() -> (Market, Worker, Worker, StdAddr) {
    let mut market = Market::open();
    let worker = market.worker("worker");
    let other = market.worker("other");
    let client = market.person("client");
    (market, worker, other, client)
}

fn with_bids() -> Terms {
    Terms { bid_for_s: BIDDING_S, ..Terms::default() }
}

fn cheaper(by: u64) -> Prices {
    Prices { output: Nanoton::checked(PRICES.output.get() - u128::from(by)).unwrap(), ..PRICES }
}

fn at(txs: &[Tx], job: &Job) -> Tx {
    txs.iter().find(|tx| tx.account == job.address).unwrap().clone()
}

/// The job refused the bid: its bond is back, and the job is as it was.
fn bid_refused(market: &mut Market, worker: &Worker, job: &Job, error: ContractError) {
    let order = market.order(worker, job);
    order_refused(market, worker, job, order, error);
}

fn order_refused(market: &mut Market, worker: &Worker, job: &Job, order: ClaimOrder, error: ContractError) {
    let (free, before) = (market.free(worker), market.job_state(job));
    let txs = market.claim_with(worker, order).unwrap();
    assert_eq!(at(&txs, job).exit_code, Some(i32::from(error.code())), "expected {error}");
    assert!(txs.last().unwrap().bounced);
    assert_eq!(market.job_state(job), before);
    assert!(market.free(worker) + market.prices().claim().get() >= free);
}

/// Who holds the job.
fn holder(market: &Market, job: &Job) -> Seller {
    market.job_state(job).unwrap().posting.seller.unwrap().into_value()
}

#[test]
fn any_worker_of_the_network_may_take_a_job_of_the_market_on_the_terms_of_its_offer() {
    let (mut market, worker, _, client) = setup();
    let job = market.open_job(&client, &worker, &with_bids());
    let txs = market.claim(&worker, &job).unwrap();
    assert_all_succeeded(&txs);
    let state = market.job_state(&job).unwrap();
    assert_eq!((state.status, state.bond), (JobStatus::Awaiting, Amount::new(TON / 2)));
    assert_eq!(state.until, market.chain.now + BIDDING_S + 300);
    assert_eq!(holder(&market, &job), Seller { share_bps: SHARE_BPS, prices: PRICES, ..job.seller.clone() });
    assert_eq!(state.posting.market().unwrap().best_stake, Amount::new(20 * TON));
    let log: JobTaken = at(&txs, &job).logged().unwrap();
    assert_eq!((log.worker, log.until, log.prices), (worker.address.address, state.until, PRICES));
}

#[test]
fn a_cheaper_bid_wins_and_the_one_before_has_its_bond_back() {
    let (mut market, worker, other, client) = setup();
    let job = market.open_job(&client, &worker, &with_bids());
    market.claim_well(&worker, &job);
    assert_all_succeeded(&market.offer(&other, cheaper(1_000)));
    let free = market.free(&worker);
    market.chain.wait(BIDDING_S);
    let before = market.chain.balance(&job.address);
    let txs = market.claim(&other, &job).unwrap();
    assert_all_succeeded(&txs);
    assert_eq!(at(&txs, &job).sent::<JobPaid>().unwrap().outcome, Outcome::Outbid as u8);
    assert!(market.free(&worker) >= free + u128::from(TON / 2));
    assert_eq!(holder(&market, &job).worker, other.address.address);
    let rent = 1_000;
    assert!(market.chain.balance(&job.address) + rent >= before, "a bid was paid for by the client");
    // And back again, cheaper still.
    assert_all_succeeded(&market.offer(&worker, cheaper(2_000)));
    market.claim_well(&worker, &job);
    assert_eq!(holder(&market, &job).worker, worker.address.address);
    bid_refused(&mut market, &other, &job, ContractError::PriceOverTerms);
}

#[test]
fn among_equal_prices_more_stake_wins() {
    let (mut market, worker, other, client) = setup();
    let job = market.open_job(&client, &worker, &with_bids());
    market.claim_well(&worker, &job);
    bid_refused(&mut market, &other, &job, ContractError::PriceOverTerms);
    assert_all_succeeded(&market.stake(&other, Nanoton::new(1)));
    market.claim_well(&other, &job);
    assert_eq!(holder(&market, &job).worker, other.address.address);
    bid_refused(&mut market, &worker, &job, ContractError::PriceOverTerms);
    bid_refused(&mut market, &other, &job, ContractError::PriceOverTerms);
}

#[test]
fn a_dearer_bid_with_more_stake_loses() {
    let (mut market, worker, other, client) = setup();
    let terms = Terms { prices: Prices { output: Nanoton::new(7_000_000), ..PRICES }, ..with_bids() };
    let job = market.open_job(&client, &worker, &terms);
    market.claim_well(&worker, &job);
    market.offer(&other, Prices { output: Nanoton::new(6_000_001), ..PRICES });
    market.stake(&other, Nanoton::new(100 * TON));
    bid_refused(&mut market, &other, &job, ContractError::PriceOverTerms);
}

#[test]
fn a_bid_after_the_bidding_is_refused_and_so_is_a_first_claim_after_the_end() {
    let (mut market, worker, other, client) = setup();
    let job = market.open_job(&client, &worker, &with_bids());
    let [late, later] = [(); 2].map(|()| market.open_job(&client, &worker, &with_bids()));
    market.claim_well(&worker, &job);
    market.offer(&other, cheaper(5_000));
    market.chain.wait(BIDDING_S + 1);
    bid_refused(&mut market, &other, &job, ContractError::TooLate);
    market.chain.now = late.until;
    market.claim_well(&other, &late);
    market.chain.wait(1);
    bid_refused(&mut market, &other, &later, ContractError::TooLate);
}

#[test]
fn a_job_that_its_client_called_off_takes_no_bid_while_bids_would_be_taken() {
    let (mut market, worker, _, client) = setup();
    let job = market.open_job(&client, &worker, &with_bids());
    assert_all_succeeded(&market.cancel(&client, &job));
    bid_refused(&mut market, &worker, &job, ContractError::WrongState);
}

#[test]
fn a_bid_must_meet_what_the_client_asked() {
    let (mut market, worker, _, client) = setup();
    let edits: [fn(&mut Prices); 3] = [
        |p| p.input = Nanoton::new(1_999_999),
        |p| p.cached_input = Nanoton::new(999_999),
        |p| p.output = Nanoton::new(5_999_999),
    ];
    for edit in edits {
        let mut terms = Terms::default();
        edit(&mut terms.prices);
        let job = market.open_job(&client, &worker, &terms);
        bid_refused(&mut market, &worker, &job, ContractError::PriceOverTerms);
    }
    let elsewhere = Terms { measurement: hash("another image"), ..Terms::default() };
    let job = market.open_job(&client, &worker, &elsewhere);
    bid_refused(&mut market, &worker, &job, ContractError::MeasurementNotAdmitted);
    let here = Terms { measurement: market.measurement, ..Terms::default() };
    let job = market.open_job(&client, &worker, &here);
    market.claim_well(&worker, &job);

    let job = market.open_job(&client, &worker, &Terms::default());
    let order = market.order(&worker, &job);
    let with = |edit: &dyn Fn(&mut ClaimOrderBody)| {
        let mut body = (*order.body).clone();
        edit(&mut body);
        ClaimOrder { body: Ref::new(body).unwrap(), ..order.clone() }
    };
    let cases = [
        (with(&|body| body.bond = Nanoton::new(TON / 2 - 1)), ContractError::BondTooLow),
        (with(&|body| body.market = None), ContractError::WrongState),
        (with(&|body| body.market = Some(MarketOrder { settle_within_s: 601 })), ContractError::BadTerms),
    ];
    for (mut order, error) in cases {
        order.seqno = market.worker_state(&worker).unwrap().claim_seqno;
        order_refused(&mut market, &worker, &job, order, error);
    }
}

#[test]
fn one_models_offer_does_not_take_a_job_for_another() {
    let (mut market, worker, _, client) = setup();
    let cheap = hash("a model without royalty");
    assert_all_succeeded(&market.register_model(&worker.owner, cheap, 0));
    assert_all_succeeded(&market.offer_of(&worker, cheap, PRICES));
    let job = market.open_job(&client, &worker, &Terms::default());
    let mut order = market.order(&worker, &job);
    order.body = Ref::new(ClaimOrderBody { model_id: cheap, ..(*order.body).clone() }).unwrap();
    order_refused(&mut market, &worker, &job, order, ContractError::ModelNotOffered);
}

#[test]
fn nobody_takes_a_job_of_the_market_by_saying_so() {
    let (mut market, worker, _, client) = setup();
    let job = market.open_job(&client, &worker, &Terms::default());
    let stranger = market.person("stranger");
    let amount = Amount::new(TON);
    for (owner, seller) in [
        (worker.owner.clone(), job.seller.clone()),
        (stranger.clone(), Seller { worker: stranger.address, ..job.seller.clone() }),
        (
            stranger.clone(),
            Seller {
                worker: market.network.worker_address(&stranger).unwrap().address,
                ..job.seller.clone()
            },
        ),
    ] {
        let bid = Bid { worker_owner: owner, seller: Ref::new(seller).unwrap() };
        let bid = Some(Ref::new(bid).unwrap());
        let measurement = market.measurement;
        let body = TakeJob { query_id: 1, bond: amount, stake: amount, measurement, bid };
        let txs = market.tell(&stranger, &job.address, Nanoton::new(2 * TON), &body);
        assert_refused(&txs, &job.address, ContractError::NotSibling);
    }
    assert_eq!(market.status(&job), Some(JobStatus::Open));
}

#[test]
fn a_job_of_the_market_is_not_answered_before_it_is_taken_and_has_its_input() {
    let (mut market, worker, _, client) = setup();
    let job = market.open_job(&client, &worker, &Terms::default());
    let receipt = market.receipt(&job, Units::default());
    assert!(market.settle(&worker, &job, receipt.clone()).is_err());
    market.claim_well(&worker, &job);
    assert_external_refused(market.settle(&worker, &job, receipt.clone()), ContractError::WrongState);
    market.chain.wait(1);
    assert_all_succeeded(&market.deliver(&client, &job));
    assert_all_succeeded(&market.settle(&worker, &job, receipt).unwrap());
    assert_eq!(market.status(&job), Some(JobStatus::Settled));
}

#[test]
fn the_client_alone_delivers_the_input_after_the_bidding_and_in_time() {
    let (mut market, worker, _, client) = setup();
    let terms = Terms { deliver_within_s: 1_000, ..with_bids() };
    let job = market.awaiting(&client, &worker, &terms);
    let stranger = market.person("stranger");
    market.chain.wait(BIDDING_S);
    assert_refused(&market.deliver(&client, &job), &job.address, ContractError::TooEarly);
    market.chain.wait(1);
    assert_refused(&market.deliver(&stranger, &job), &job.address, ContractError::NotClient);
    let missed = market.awaiting(&client, &worker, &Terms::default());
    market.chain.now = market.job_state(&missed).unwrap().until + 1;
    assert_refused(&market.deliver(&client, &missed), &missed.address, ContractError::TooLate);
    let until = market.job_state(&job).unwrap().until;
    market.chain.now = until;
    let body = DeliverInput::new(1, &job.input).unwrap();
    let least = market.prices().delivery();
    let short = least.checked_sub(Nanoton::new(1)).unwrap();
    let txs = market.tell(&client, &job.address, short, &body);
    assert_refused(&txs, &job.address, ContractError::ValueTooLow);
    let held = market.chain.balance(&job.address);
    let txs = market.tell(&client, &job.address, least, &body);
    assert_all_succeeded(&txs);
    assert!(market.chain.balance(&job.address) >= held);
    let state = market.job_state(&job).unwrap();
    assert_eq!((state.status, state.until), (JobStatus::Claimed, until + 600));
    let log: InputDelivered = txs[0].logged().unwrap();
    assert_eq!(log.input_hash, *to_cell(&job.input).unwrap().repr_hash());
    assert_eq!(log.until, state.until);
    assert_refused(&market.deliver(&client, &job), &job.address, ContractError::WrongState);
}

#[test]
fn an_input_is_delivered_to_a_taken_job_of_the_market_alone() {
    let (mut market, worker, _, client) = setup();
    for post in [Market::post, Market::claimed, Market::session, Market::open_job] {
        let job = post(&mut market, &client, &worker, &Terms::default());
        assert_refused(&market.deliver(&client, &job), &job.address, ContractError::WrongState);
    }
}

#[test]
fn a_hundred_bids_leave_the_clients_money_alone() {
    let (mut market, worker, other, client) = setup();
    let job = market.open_job(&client, &worker, &with_bids());
    market.fund_gas(&worker, Nanoton::new(5 * TON));
    market.fund_gas(&other, Nanoton::new(5 * TON));
    let mut held = market.chain.balance(&job.address);
    for round in 0..50u64 {
        for (turn, bidder) in [&worker, &other].into_iter().enumerate() {
            market.offer(bidder, cheaper(round * 20_000 + turn as u64 * 10_000));
            market.claim_well(bidder, &job);
            let now = market.chain.balance(&job.address);
            assert!(now >= held);
            held = now;
        }
    }
}
