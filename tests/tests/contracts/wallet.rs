//! The payloads of `docs/wallet.md` are what the crate `contracts` builds, and its words are those of the contracts.

use std::fmt::Write;

use contracts::comment::Word;
use contracts::job::{
    DeliverInput, JobLimits, MarketNetwork, MarketTerms, OpenSession, PostJob, PostOpenJob, Seller,
    SessionTerms, TopUpJob,
};
use contracts::model::{AcceptModel, DeprecateModel, RegisterModel, TransferModel, Unit};
use contracts::model_metadata::{Modality, ModelMetadata};
use contracts::worker::{
    LeavePlatform, OfferModel, RequestUnbond, SetOperator, TopUpStake, WithdrawEarnings, WithdrawOffer,
};
use contracts::{Amount, Cell, CodeRef, Message, Nanoton, Ref, StdAddr, Units};
use tests::market::{PRICES, SHARE_BPS, TON, hash, sealed};
use tycho_types::boc::Boc;

const PAGE: &str = include_str!("../../../docs/wallet.md");
const PAGE_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/wallet.md");
const TLB: &str = include_str!("../../../contracts/chrysalis.tlb");
const START: &str = "<!-- payloads -->\n";
const END: &str = "<!-- end of payloads -->";

struct Example {
    name: &'static str,
    to: &'static str,
    says: &'static str,
    body: Cell,
    /// Reads it back to the bit.
    holds: fn(&Cell) -> bool,
}

fn example<M: Message + PartialEq>(to: &'static str, says: &'static str, message: M) -> Example {
    let holds = |body: &Cell| M::from_cell(body).is_ok_and(|read| read.to_cell().as_ref() == Ok(body));
    Example { name: M::NAME, to, says, body: message.to_cell().unwrap(), holds }
}

fn one<T: tycho_types::cell::Store>(value: T) -> Ref<T> {
    Ref::new(value).unwrap()
}

fn examples() -> Vec<Example> {
    let person = StdAddr::new(0, hash("a person"));
    let (query_id, until, deposit) = (1, 1_900_000_000, Amount::new(TON));
    let max_units = Units { input: 1_000, cached_input: 0, output: 500 };
    let limits = JobLimits { max_units, least_bond: Amount::new(TON / 2) };
    let seller = Seller {
        worker: hash("a worker"),
        receipt_key: hash("its receipt key"),
        model: hash("a model's account"),
        settle_within_s: 600,
        share_bps: SHARE_BPS,
        prices: PRICES,
    };
    let code = |name| CodeRef { hash: hash(name), depth: 9 };
    let market = MarketTerms {
        model: hash("a model's account"),
        bid_until: until - 60,
        deliver_within_s: 300,
        compensation: Amount::new(TON / 100),
        delivery_key: hash("the delivery key"),
        measurement: None,
        best_stake: Amount::ZERO,
        network: one(MarketNetwork {
            worker: code("the workers' code"),
            network: code("the network"),
            settle_within_s: 600,
            max_prices: PRICES,
            least_bond: Amount::new(TON / 2),
        }),
    };
    let metadata = ModelMetadata {
        name: "Example".into(),
        licence: Some("Apache-2.0".into()),
        context_tokens: Some(8_192),
        modality: Some(Modality::TextToText),
    };
    let input = sealed("an input", 2 * 127);
    let model_id = hash("a model");
    vec![
        example(
            "Job",
            "1 TON for at most 1 000 input and 500 output units, with 254 bytes of sealed input",
            PostJob::new(query_id, until, deposit, limits, seller.clone(), &input).unwrap(),
        ),
        example("Job", "the same as a session", {
            let terms = one(SessionTerms { session_key: hash("the session's key") });
            OpenSession { query_id, until, deposit, limits, seller: one(seller), terms }
        }),
        example(
            "Job",
            "the same for whoever asks least within the window",
            PostOpenJob { query_id, until, deposit, max_units, terms: one(market) },
        ),
        example("Job", "254 bytes, sealed to the winner's key", DeliverInput::new(query_id, &input).unwrap()),
        example("Job", "1 TON more for a session", TopUpJob { query_id, amount: deposit }),
        example("Worker", "20 TON", TopUpStake { query_id, amount: Nanoton::new(20 * TON) }),
        example("Worker", "a model at these prices, for jobs of 0.01 TON and more", {
            let min_deposit = Nanoton::new(TON / 100);
            OfferModel { query_id, model_id, min_deposit, prices: one(PRICES) }
        }),
        example("Worker", "no more of that model", WithdrawOffer { query_id, model_id }),
        example("Worker", "5 TON of the stake", RequestUnbond { query_id, amount: Nanoton::new(5 * TON) }),
        example("Worker", "1 TON of the earnings", WithdrawEarnings { query_id, amount: Nanoton::new(TON) }),
        example("Worker", "a person may pause and offer", {
            SetOperator { query_id, account: Some(one(person.clone())) }
        }),
        example("Worker", "that machine serves it no more", {
            LeavePlatform { query_id, ppid: contracts::attestor::Bytes([7; 16]) }
        }),
        example("Model", "5 % royalty, sold by tokens, whose id names its publisher", {
            RegisterModel {
                query_id,
                royalty_bps: 500,
                unit: Unit::Token,
                files_root: Some(hash("the root over its files")),
                metadata: one(metadata.to_snake().unwrap()),
            }
        }),
        example("Model", "offered to a person", TransferModel { query_id, new_publisher: Some(person) }),
        example("Model", "taken by that person", AcceptModel { query_id }),
        example("Model", "no new offers", DeprecateModel { query_id }),
    ]
}

/// A definition of the TL-B in one line.
fn definition(name: &str) -> String {
    let start = TLB.find(&format!("\n{name}#")).unwrap() + 1;
    let text = TLB[start..].split(';').next().unwrap();
    let lines = text.lines().map(|line| line.split("//").next().unwrap());
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ") + ";"
}

fn section() -> String {
    let mut text = String::new();
    for Example { name, to, says, body, .. } in examples() {
        let boc = Boc::encode_base64(&body);
        let tlb = definition(name);
        write!(text, "`{name}` to a {to}: {says}\n```\n{tlb}\n{boc}\n```\n\n").unwrap();
    }
    text
}

#[test]
fn the_page_shows_the_payloads() {
    let mut page = PAGE.to_owned();
    let from = page.find(START).unwrap() + START.len();
    let to = page.find(END).unwrap();
    page.replace_range(from..to, &section());
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(PAGE_FILE, &page).unwrap();
    } else {
        assert_eq!(page, PAGE, "run this test with UPDATE_SNAPSHOTS=1 and commit docs/wallet.md");
    }
}

#[test]
fn every_payload_of_the_page_reads_back_to_the_bit() {
    let mut blocks = PAGE.split("```\n").skip(1).step_by(2);
    for Example { name, holds, .. } in examples() {
        let block = blocks.next().unwrap();
        let [tlb, boc] = block.lines().collect::<Vec<_>>()[..] else { panic!("{block}") };
        assert!(tlb.starts_with(name), "{tlb}");
        assert!(holds(&Boc::decode_base64(boc).unwrap()), "{name}");
    }
    assert_eq!(blocks.next(), None);
}

#[test]
fn the_page_lists_every_word() {
    let words: Vec<&str> = PAGE
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains('`'))
        .flat_map(|line| line.split('|').nth(2).unwrap().split('`').skip(1).step_by(2))
        .collect();
    for word in Word::ALL {
        assert!(words.contains(&word.text()), "{word} is not on the page");
    }
    assert!(words.iter().all(|word| word.parse::<Word>().is_ok()));
}
