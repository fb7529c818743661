//! What an owner registers, what comes of it, and when it is due again.

use chain::ChainAccess as _;
use chain::trace::{self, Limits, Step};
use client::read_attestor;
use contracts::artifacts::{Contract, code};
use contracts::errors::ContractError;
use worker::machine::{AttestedKeys, OfferFacts, WorkerFacts};
use worker::observe::worker_facts;
use worker::registration::{Needs, recent_block};
use worker::{CollateralSource as _, Keys, Refusal, Registrant, WorkerConfig, is_attested, refusals_in};

use crate::market::{MODEL, Market, PRICES, Quotes};

fn registrant(market: &Market) -> Registrant {
    Registrant {
        network: market.network.clone(),
        worker_code: code(Contract::Worker),
        owner: market.owner().wallet().address().clone(),
        worker: market.worker.clone(),
        model_id: MODEL,
        config: WorkerConfig::at_prices(PRICES),
    }
}

async fn facts(market: &Market) -> Option<WorkerFacts> {
    let head = market.chain.head().await.unwrap();
    worker_facts(&market.chain.account(&market.worker, &head).await.unwrap())
}

/// All that the owner's messages for these quotes and keys caused.
async fn register(market: &Market, quotes: &Quotes, keys: &Keys) -> (usize, Vec<Step>) {
    let registrant = registrant(market);
    let head = market.chain.head().await.unwrap();
    let facts = facts(market).await;
    let needs = registrant.needs(facts.as_ref(), keys, head.time_s);
    let held = read_attestor(&*market.chain, &market.network, &head).await.unwrap().storage;
    let block = recent_block(&*market.chain).await.unwrap();
    let seqno = facts.map_or(0, |facts| facts.registration_seqno);
    let collateral = quotes.collateral().unwrap();
    let proven = registrant.prove(quotes, Some(&collateral), keys, seqno, &block, &held).unwrap();
    let owner = market.owner();
    let confirmed = owner.send(&registrant.transfers(&needs, Some(&proven)).unwrap()).await.unwrap();
    let followed =
        trace::follow(&*market.chain, owner.wallet().address(), confirmed.transaction, Limits::default());
    (proven.postings.len(), followed.await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_told_by_its_name_and_a_registration_posts_what_is_missing_once() {
    let market = Market::open().await;
    let keys = Keys::generate(&mut rand::rng());
    let (posted, trace) = register(&market, &Quotes::of_image("not listed"), &keys).await;
    assert_eq!(posted, 6);
    let refusal =
        Refusal { message: "quote_verified", exit_code: ContractError::MeasurementNotAdmitted.code().into() };
    assert!(refusal.to_string().contains("the Registry does not admit this image measurement"), "{refusal}");
    assert_eq!(refusals_in(&trace), [refusal]);
    assert!(!is_attested(&trace));
    let known = facts(&market).await.unwrap();
    assert!(known.attestation.is_none() && known.registration_seqno == 0);

    let (posted, trace) = register(&market, &Quotes::new(), &keys).await;
    assert_eq!((posted, refusals_in(&trace)), (0, Vec::new()));
    assert!(is_attested(&trace));
    let known = facts(&market).await.unwrap();
    assert_eq!(known.registration_seqno, 1);
    let head = market.chain.head().await.unwrap();
    assert_eq!(registrant(&market).needs(Some(&known), &keys, head.time_s), Needs::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attestation_is_renewed_before_its_end_and_at_half_its_life_at_the_earliest() {
    let market = Market::open().await;
    let keys = Keys::generate(&mut rand::rng());
    let registrant = registrant(&market);
    let wanted = |registered_at: u32, expires_at: u32, now_s: u32| {
        let attestation = AttestedKeys {
            receipt_key: keys.receipt_public(),
            encryption_key: keys.encryption_public(),
            measurement: MODEL,
            registered_at,
            expires_at,
        };
        let known = WorkerFacts {
            as_of_s: now_s,
            stake: registrant.config.stake_nanoton,
            float: registrant.config.gas_float_nanoton,
            paused: false,
            claim_seqno: 0,
            registration_seqno: 1,
            attestation: Some(attestation),
            offers: vec![OfferFacts {
                model_id: MODEL,
                prices: PRICES,
                royalty_bps: 500,
                min_deposit: registrant.config.min_deposit_nanoton,
            }],
            endpoint: None,
        };
        registrant.needs(Some(&known), &keys, now_s).attestation
    };
    let before_s = registrant.config.renew_before_s;
    let (start, week) = (1_800_000_000, 7 * 86_400);
    assert!(!wanted(start, start + week, start + week - before_s - 1));
    assert!(wanted(start, start + week, start + week - before_s));
    // What ends soon whatever one does.
    let soon = 600;
    assert!(!wanted(start, start + soon, start + soon / 2 - 1));
    assert!(wanted(start, start + soon, start + soon / 2));
}
