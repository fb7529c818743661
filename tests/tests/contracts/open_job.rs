//! Jobs of the market: who may take one, which bid wins, and how the input gets to the winner.

use contracts::errors::ContractError;
use contracts::job::{
    Bid, DeliverInput, JobPaid, JobStatus, MAX_SETTLE_S, MIN_SETTLE_S, MarketNetwork, MarketTerms, Outcome,
    PostInput, Seller, TakeJob,
};
use contracts::job_log::{InputDelivered, JobTaken};
use contracts::receipt::{self, ClaimOrder};
use contracts::wire::Signature;
use contracts::wire::to_cell;
use contracts::{Amount, HashBytes, Nanoton, Prices, Ref, StdAddr, Units};
use tests::market::{
    PRICES, SHARE_BPS, TON, assert_all_succeeded, assert_external_refused, assert_refused, cell, hash,
    import_fee, least_balance, sealed,
};
use tests::{Job, Kind, Market, Terms, Tx, Worker};

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
    // But for the rent of a minute.
    assert!(market.free(&worker) + 100_000 >= free + u128::from(TON / 2));
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
    let elsewhere = Terms { measurement: Some(hash("another image")), ..Terms::default() };
    let job = market.open_job(&client, &worker, &elsewhere);
    bid_refused(&mut market, &worker, &job, ContractError::MeasurementNotAdmitted);
    let here = Terms { measurement: Some(market.measurement), ..Terms::default() };
    let job = market.open_job(&client, &worker, &here);
    let silent = ClaimOrder { names_measurement: false, ..market.order(&worker, &job) };
    order_refused(&mut market, &worker, &job, silent, ContractError::MeasurementNotAdmitted);
    market.claim_well(&worker, &job);

    let job = market.open_job(&client, &worker, &Terms::default());
    let order = market.order(&worker, &job);
    let cases = [
        (ClaimOrder { bond: Amount::new(TON / 2 - 1), ..order.clone() }, ContractError::BondTooLow),
        (ClaimOrder { is_bid: false, ..order.clone() }, ContractError::WrongState),
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
    order.model_id = cheap;
    order_refused(&mut market, &worker, &job, order, ContractError::ModelNotOffered);
}

#[test]
fn nobody_takes_a_job_of_the_market_by_saying_so() {
    let (mut market, worker, _, client) = setup();
    let job = market.open_job(&client, &worker, &Terms::default());
    let stranger = market.person("stranger");
    let amount = Amount::new(TON);
    for worker_owner in [worker.owner.clone(), stranger.clone()] {
        let Seller { receipt_key, model, share_bps, prices, .. } = job.seller.clone();
        let bid = Bid { worker_owner, receipt_key, model, share_bps, prices, measurement: None };
        let bid = Some(Ref::new(bid).unwrap());
        let body = TakeJob { query_id: 1, bond: amount, stake: amount, bid };
        let txs = market.tell(&stranger, &job.address, Nanoton::new(2 * TON), &body);
        assert_refused(&txs, &job.address, ContractError::NotSibling);
    }
    assert_eq!(market.status(&job), Some(JobStatus::Open));
}

/// A job of the market with other terms, and what its client would have posted.
fn with_terms(
    market: &mut Market,
    client: &StdAddr,
    worker: &Worker,
    edit: impl FnOnce(&mut MarketTerms, &mut MarketNetwork),
) -> Job {
    let mut job = market.draft_open(client, worker, &with_bids());
    let Kind::Market(terms) = &mut job.kind else { panic!("not of the market") };
    let mut network = *terms.network;
    edit(terms, &mut network);
    terms.network = Ref::new(network).unwrap();
    let value = market.value_of(&job);
    let txs = market.post_draft(client, &job, value);
    assert!(at(&txs, &job).succeeded());
    job
}

#[test]
fn terms_that_would_hold_a_bond_too_long_or_pay_more_than_there_is_are_taken_by_nobody() {
    let (mut market, worker, _, client) = setup();
    type Edit = fn(&mut MarketTerms, &mut MarketNetwork);
    let wrong: [Edit; 6] = [
        |terms, _| terms.deliver_within_s = MIN_SETTLE_S - 1,
        |terms, _| terms.deliver_within_s = MAX_SETTLE_S + 1,
        |terms, _| terms.bid_until = u32::MAX,
        |terms, _| terms.compensation = Amount::new(TON + 1),
        |_, network| network.settle_within_s = MIN_SETTLE_S - 1,
        |_, network| network.settle_within_s = MAX_SETTLE_S + 1,
    ];
    for edit in wrong {
        let job = with_terms(&mut market, &client, &worker, edit);
        bid_refused(&mut market, &worker, &job, ContractError::BadTerms);
        assert_all_succeeded(&market.cancel(&client, &job));
    }
    let right: [Edit; 2] = [
        |terms, network| {
            terms.deliver_within_s = MIN_SETTLE_S;
            terms.compensation = Amount::new(TON);
            network.settle_within_s = MIN_SETTLE_S;
        },
        |terms, network| {
            terms.deliver_within_s = MAX_SETTLE_S;
            network.settle_within_s = MAX_SETTLE_S;
        },
    ];
    for edit in right {
        let job = with_terms(&mut market, &client, &worker, edit);
        market.claim_well(&worker, &job);
    }
}

#[test]
fn a_claim_of_another_kind_of_job_is_refused() {
    let (mut market, worker, _, client) = setup();
    let terms = Terms::default();
    let directed = market.post(&client, &worker, &terms);
    let order = ClaimOrder { is_bid: true, ..market.order(&worker, &directed) };
    order_refused(&mut market, &worker, &directed, order, ContractError::WrongState);
    let open = market.open_job(&client, &worker, &terms);
    let order = ClaimOrder { is_bid: false, ..market.order(&worker, &open) };
    order_refused(&mut market, &worker, &open, order, ContractError::WrongState);
}

/// Awaits its input, and its bidding is over.
fn waiting(terms: &Terms) -> (Market, Worker, StdAddr, Job) {
    let (mut market, worker, _, client) = setup();
    let job = market.awaiting(&client, &worker, terms);
    market.chain.wait(1);
    (market, worker, client, job)
}

#[test]
fn an_input_signed_by_the_delivery_key_needs_no_wallet_and_the_job_pays_for_it() {
    let (mut market, worker, client, job) = waiting(&Terms::default());
    let now = market.chain.now;
    let txs = market.post_input(&job).unwrap();
    assert_all_succeeded(&txs);
    assert_eq!(txs.len(), 1);
    let state = market.job_state(&job).unwrap();
    assert_eq!(
        (state.status, state.until, state.bond),
        (JobStatus::Claimed, now + 600, Amount::new(TON / 2))
    );
    let log: InputDelivered = txs[0].logged().unwrap();
    assert_eq!(log.input_hash, *to_cell(&job.input).unwrap().repr_hash());
    assert_external_refused(market.post_input(&job), ContractError::WrongState);
    assert_refused(&market.deliver(&client, &job), &job.address, ContractError::WrongState);
    let receipt = market.receipt(&job, Units { input: 100, cached_input: 0, output: 100 });
    assert_all_succeeded(&market.settle(&worker, &job, receipt).unwrap());
}

#[test]
fn a_signed_input_is_for_one_posting_and_one_winner_and_by_the_terms_key() {
    let (mut market, _, client, job) = waiting(&Terms::default());
    let before = market.job_state(&job).unwrap();
    let posting = before.posting.clone();
    let seller = posting.seller.clone().unwrap();
    let key = tests::market::delivery_key(job.nonce);
    let (account, lt) = (job.address.address, posting.posted_lt);
    let other = Ref::new(Seller { share_bps: 1, ..(*seller).clone() }).unwrap();
    let wrong = [
        PostInput::signed(&client.address, lt, &seller, &job.input, &key),
        PostInput::signed(&account, lt - 1, &seller, &job.input, &key),
        PostInput::signed(&account, lt, &other, &job.input, &key),
        PostInput::signed(&account, lt, &seller, &job.input, &tests::market::delivery_key(0)),
        PostInput::signed(&account, lt, &seller, &sealed("another input", 254), &key)
            .map(|message| PostInput { input: to_cell(&job.input).unwrap(), ..message }),
    ];
    for message in wrong {
        let sent = market.chain.external(&job.address, cell(&message.unwrap()));
        assert_external_refused(sent, ContractError::BadSignature);
    }
    let padded = tests::market::padded(&cell(&market.signed_input(&job)));
    assert!(market.chain.external(&job.address, padded).is_err());
    assert_eq!(market.job_state(&job).unwrap(), before);
}

#[test]
fn a_signed_input_comes_after_the_bidding_and_in_time() {
    let (mut market, worker, _, client) = setup();
    let job = market.awaiting(&client, &worker, &with_bids());
    market.chain.wait(BIDDING_S);
    assert_external_refused(market.post_input(&job), ContractError::TooEarly);
    market.chain.now = market.job_state(&job).unwrap().until + 1;
    assert_external_refused(market.post_input(&job), ContractError::TooLate);
    market.chain.now -= 1;
    assert_all_succeeded(&market.post_input(&job).unwrap());
}

#[test]
fn without_a_delivery_key_nobody_signs_an_input() {
    let (mut market, worker, _, client) = setup();
    let job = with_terms(&mut market, &client, &worker, |terms, _| terms.delivery_key = HashBytes::ZERO);
    market.claim_well(&worker, &job);
    market.chain.wait(BIDDING_S + 1);
    // Under the key zero, of small order, a signature of a zero point and scalar holds for many messages.
    let zero_scalar = |first: u8, middle: u8, last: u8| {
        let mut signature = [0; 64];
        signature[..32].fill(middle);
        (signature[0], signature[31]) = (first, last);
        signature
    };
    // All points of its order: for each message one of them holds.
    for signature in
        [zero_scalar(0, 0, 0), zero_scalar(0, 0, 0x80), zero_scalar(1, 0, 0), zero_scalar(0xec, 0xff, 0x7f)]
    {
        let message = PostInput { signature: Signature(signature), input: to_cell(&job.input).unwrap() };
        let sent = market.chain.external(&job.address, cell(&message));
        assert_external_refused(sent, ContractError::BadSignature);
    }
    assert_all_succeeded(&market.deliver(&client, &job));
}

#[test]
fn bids_may_be_taken_to_the_end_and_all_of_the_deposit_promised() {
    let (mut market, worker, _, client) = setup();
    let terms = Terms::default();
    let all = Terms { bid_for_s: terms.wait_s, compensation: terms.deposit, ..terms };
    let job = market.open_job(&client, &worker, &all);
    market.claim_well(&worker, &job);
    assert_eq!(market.status(&job), Some(JobStatus::Awaiting));
}

#[test]
fn a_signed_input_waits_until_the_job_holds_what_it_and_the_answer_cost() {
    let (mut market, worker, _, client) = setup();
    let job = market.awaiting(&client, &worker, &with_bids());
    market.chain.wait(BIDDING_S + 1);
    // Pays the rent up to now.
    let fund = contracts::worker::FundGas { query_id: 1 };
    assert_all_succeeded(&market.tell(&client, &job.address, Nanoton::new(TON), &fund));
    let state = market.job_state(&job).unwrap();
    let message = cell(&market.signed_input(&job));
    let least = least_balance(&market, &job.address, &message, ContractError::GasFloatTooLow);
    let owed = u128::from(state.deposit.get() + state.bond.get());
    let cost = market.prices().delivered(&state.posting.limits.max_units).get();
    assert_eq!(least, owed + cost + import_fee(&market, &message));
}

#[test]
fn an_input_too_large_for_the_reserve_is_not_imported_and_cannot_forfeit_the_bond() {
    let units = Units { input: 100, cached_input: 0, output: 100 };
    let fees = Market::open().prices().market(&units);
    let (mut market, _, client, mut job) = waiting(&Terms { max_units: units, fees, ..Terms::default() });
    let small = job.input.clone();
    job.input = sealed("a large input", 250 * 127);
    assert_external_refused(market.post_input(&job), ContractError::GasFloatTooLow);
    // A message of the client's own brings what it costs.
    job.input = small;
    assert_all_succeeded(&market.deliver(&client, &job));
}

#[test]
fn the_least_value_of_a_job_of_the_market_pays_for_its_whole_life() {
    let (mut market, worker, _, client) = setup();
    let units = Units { input: 300, cached_input: 0, output: 200 };
    let fees = market.prices().market(&units);
    let terms = Terms {
        max_units: units,
        wait_s: 7 * 86_400,
        fees,
        deliver_within_s: MAX_SETTLE_S,
        ..Terms::default()
    };
    let short = Terms { fees: fees.checked_sub(Nanoton::new(1)).unwrap(), ..terms.clone() };
    let job = market.draft_open(&client, &worker, &short);
    let value = market.value_of(&job);
    let txs = market.post_draft(&client, &job, value);
    assert_refused(&txs, &job.address, ContractError::ValueTooLow);
    let mut job = market.open_job(&client, &worker, &terms);
    market.chain.wait(7 * 86_400);
    market.attest(&worker);
    market.claim_well(&worker, &job);
    market.chain.wait(MAX_SETTLE_S);
    // The largest that the limits foresee.
    job.input = sealed("input", (512 + 8 * 300) / 127 * 127);
    assert_all_succeeded(&market.post_input(&job).unwrap());
    let receipt = market.receipt(&job, units);
    let content = contracts::receipt::ReceiptContent {
        result_hash: *to_cell(&sealed("large", (512 + 8 * 300 + 16 * 200) / 127 * 127)).unwrap().repr_hash(),
        ..market.content()
    };
    let receipt = receipt::Receipt { content_hash: content.hash().unwrap(), ..receipt };
    let result = sealed("large", (512 + 8 * 300 + 16 * 200) / 127 * 127);
    let message = contracts::job::PostReceipt::signed(receipt, content, &result, &worker.key).unwrap();
    assert_all_succeeded(&market.chain.external(&job.address, cell(&message)).unwrap());
    assert_eq!(market.status(&job), Some(JobStatus::Settled));
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
