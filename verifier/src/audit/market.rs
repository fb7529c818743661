//! The bids for a job of the market.

use contracts::job::{Bid, JobStatus, MarketNetwork, MarketTerms, TakeJob};
use contracts::{Nanoton, Network};

use super::life::{Act, Delivery, Event, Life, Opening};
use crate::check::{Party, Verdict, holds};

pub(super) fn check_market(verdict: &mut Verdict, network: &Network, life: &Life<'_>) {
    let Opening::Market(post) = &life.opening else { return };
    let terms = &*post.terms;
    let asked = &*terms.network;
    let expected = MarketNetwork::of(network, asked.settle_within_s, asked.max_prices, asked.least_bond);
    verdict.add(
        "market_terms",
        "the job was open to every worker of this network that offers the model of this account, and to nobody else",
        Party::Client,
        expected.map_err(|error| error.to_string()).and_then(|expected| {
            holds(
                *terms.network == expected && terms.best_stake.is_zero(),
                format!("model account {}", terms.model),
                "it names other workers, or somebody who holds it already",
            )
        }),
    );
    let bids: Vec<_> = life.takes().collect();
    if bids.is_empty() {
        return;
    }
    let finding = bids.iter().try_for_each(|(act, take)| {
        let at = |what: &str| format!("the bid at lt {} {what}", act.step.lt);
        check_bid(network, terms, act, take).map_err(|what| at(&what))
    });
    verdict.add(
        "bids",
        "every bid kept the terms and came in time; each was better than the one before, and the best got the job",
        Party::Contracts,
        finding.map(|()| format!("{} bids", bids.len())),
    );
    let delivered = life.acts.iter().find(|act| matches!(act.event, Event::Delivered(_)));
    if let Some(act) = delivered {
        let at_s = act.step.at_s;
        verdict.add(
            "input_delivered",
            "the client delivered the input after the bidding and before its deadline",
            Party::Client,
            holds(
                is_delivered_by_client(network, life, act, terms)
                    && at_s > terms.bid_until
                    && at_s <= act.before.until,
                format!("at {at_s}"),
                "somebody else delivered it, or at another time",
            ),
        );
    }
}

/// Sent by the client, or signed by the delivery key of its terms for who held the job then.
fn is_delivered_by_client(network: &Network, life: &Life<'_>, act: &Act<'_>, terms: &MarketTerms) -> bool {
    match &act.event {
        Event::Delivered(Delivery::Sent(_)) => act.step.from.as_ref() == Some(&life.client),
        Event::Delivered(Delivery::Signed(message)) => {
            let posting = &act.before.posting;
            let job = network.job_address(&life.client, life.nonce);
            job.is_ok_and(|job| {
                posting.seller.as_ref().is_some_and(|seller| {
                    message.verify(&job.address, posting.posted_lt, seller, &terms.delivery_key)
                })
            })
        }
        _ => false,
    }
}

fn check_bid(network: &Network, terms: &MarketTerms, act: &Act<'_>, take: &TakeJob) -> Result<(), String> {
    let bid: &Bid = take.bid.as_deref().ok_or("names nobody")?;
    let worker = network.worker_address(&bid.worker_owner).map_err(|error| error.to_string())?;
    let is_its = act.step.from.as_ref() == Some(&worker);
    let keeps = bid.model == terms.model
        && bid.prices.at_most(&terms.network.max_prices)
        && terms.measurement.is_none_or(|measurement| bid.measurement.as_deref() == Some(&measurement));
    let at_s = act.step.at_s;
    let (in_time, better) = match (&act.before.status, &act.before.posting.seller) {
        (JobStatus::Open, _) => (at_s <= act.before.until, true),
        (_, Some(best)) => {
            let units = &act.before.posting.limits.max_units;
            let asks = |prices: &contracts::Prices| -> Nanoton { prices.cost(units) };
            let (ask, least) = (asks(&bid.prices), asks(&best.prices));
            let best_stake = act.before.posting.market().map(|market| market.best_stake);
            let wins_tie = best_stake.is_some_and(|stake| take.stake > stake);
            (at_s <= terms.bid_until, ask < least || (ask == least && wins_tie))
        }
        _ => (false, false),
    };
    for (right, what) in [
        (is_its, "is not that of the Worker contract that sent it"),
        (keeps, "goes beyond the terms"),
        (in_time, "came too late"),
        (better, "is no better than the one before"),
    ] {
        if !right {
            return Err(what.to_owned());
        }
    }
    Ok(())
}
