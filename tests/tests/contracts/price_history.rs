//! Every price a worker ever asked can be read from the transactions of its account: no log repeats them.

use contracts::model::RoyaltyQuoted;
use contracts::worker::{OfferChange, WithdrawOffer};
use contracts::{HashBytes, Nanoton, Prices};
use tests::Market;
use tests::market::{FEES, PRICES, ROYALTY_BPS, assert_all_succeeded, hash};

const VALUE: Nanoton = Nanoton::new(FEES);

#[test]
fn the_price_history_of_a_worker_is_that_of_its_transactions() {
    let mut market = Market::open();
    let publisher = market.publisher.clone();
    let other = hash("another model");
    market.register_model(&publisher, other, 300);
    let worker = market.staked_worker("worker");
    let stranger = market.person("stranger");
    let model_id = market.model_id;
    let dearer = Prices { output: Nanoton::new(9_000_000), ..PRICES };
    market.offer(&worker, PRICES);
    market.offer_of(&worker, other, dearer);
    market.offer(&worker, dearer);
    // Neither a quote by nobody's Model, nor a withdrawal by nobody, nor an offer of no model is a change.
    let quote = RoyaltyQuoted {
        query_id: 1,
        model_id,
        royalty_bps: 0,
        min_deposit: Nanoton::ZERO,
        prices: contracts::Ref::new(PRICES).unwrap(),
    };
    market.tell(&stranger, &worker.address, VALUE, &quote);
    let withdraw = WithdrawOffer { query_id: 1, model_id };
    market.tell(&stranger, &worker.address, VALUE, &withdraw);
    market.offer_of(&worker, hash("unknown model"), PRICES);
    assert_all_succeeded(&market.tell(&worker.owner, &worker.address, VALUE, &withdraw));

    let mut told: Vec<(HashBytes, Option<(Prices, u16)>)> = Vec::new();
    let mut list = std::collections::BTreeMap::new();
    for tx in market.chain.log.iter().filter(|tx| tx.account == worker.address && tx.succeeded()) {
        let Some(change) = OfferChange::of_message(&tx.body, tx.bounced) else {
            continue;
        };
        match &change {
            OfferChange::Offered { model_id, prices, royalty_bps, .. } => {
                told.push((*model_id, Some((*prices, *royalty_bps))));
                list.insert(*model_id, *prices);
            }
            OfferChange::Withdrawn { model_id } => {
                told.push((*model_id, None));
                list.remove(model_id);
            }
        }
    }
    let expected = [
        (model_id, Some((PRICES, ROYALTY_BPS))),
        (other, Some((dearer, 300))),
        (model_id, Some((dearer, ROYALTY_BPS))),
        (model_id, None),
    ];
    assert_eq!(told, expected);
    // What they lead to is what the account holds.
    let offers = market.worker_state(&worker).unwrap().offers;
    let held: std::collections::BTreeMap<_, _> =
        offers.iter().map(|entry| entry.unwrap()).map(|(id, offer)| (id, offer.prices)).collect();
    assert_eq!(list, held);
}
