//! Each side against a dishonest other.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeSet;

use contracts::job::{EQUIVOCATED, JobStatus};
use contracts::money::Amount;
use contracts::receipt::{Receipt, SignedReceipt, Tag};
use contracts::{HashBytes, Nanoton, SigningKey, Units};
use session::message::{AnsweredReport, CloseReport, Done, FinishReason, SessionReport};
use session::{
    Admission, Ask, BuyerError, BuyerLedger, Content, Counted, Fault, Reason, RedeemPolicy, Redemption,
    RequestId, SellerLedger, SellerLimits, SessionFacts, SessionReceipt, SignedVoucher, UnitBound,
    redemption, write_all,
};
use world::{Memory, NOW_S, content, facts, offered, prices, receipt_key, session_key, shown};

const FIRST: RequestId = RequestId([1; 16]);
const SECOND: RequestId = RequestId([2; 16]);
const BOUND: UnitBound = UnitBound { input: 100, output: 50 };
/// 100 × 1 000 / 1 000 + 50 × 2 000 / 1 000.
const BOUND_COST: u64 = 200;

fn session() -> SessionFacts {
    facts(prices(1_000, 500, 2_000), 10_000)
}

fn units(input: u32, cached_input: u32, output: u32) -> Units {
    Units { input, cached_input, output }
}

/// What a worker that follows no rule may sign.
fn forge(facts: &SessionFacts, sequence: u32, units: Units, amount: u64, key: &SigningKey) -> SessionReceipt {
    let content = content(sequence as u8);
    let receipt = Receipt {
        tag: Tag,
        job: facts.id.job.clone(),
        posted_lt: facts.id.posted_lt,
        sequence,
        is_final: false,
        units,
        amount: Amount::new(amount),
        content_hash: content.to_cell_fields().hash().unwrap(),
    };
    let signature = SignedReceipt::new(receipt, key).unwrap().signature.0;
    SessionReceipt { sequence, is_final: false, units, amount: Amount::new(amount), content, signature }
}

fn done(request: RequestId, used: Units, receipt: SessionReceipt) -> Done {
    Done {
        request,
        again: false,
        finish_reason: FinishReason::Stop,
        used,
        limit: 0,
        receipt,
        salt: [0; 32],
        input_tokens: Vec::new(),
    }
}

fn buyer_with(requests: &[RequestId]) -> BuyerLedger {
    let mut buyer = BuyerLedger::new(session(), Amount::new(10_000));
    for request in requests {
        buyer.promise(*request, BOUND).unwrap();
    }
    buyer
}

const COUNTED: Counted = Counted { input: Some(80), output: 10 };
/// 80 × 1 + 10 × 2.
const HONEST: (Units, u64) = (Units { input: 80, cached_input: 0, output: 10 }, 100);

#[test]
fn an_honest_answer_is_settled() {
    let facts = session();
    let mut buyer = buyer_with(&[FIRST]);
    let receipt = forge(&facts, 1, HONEST.0, HONEST.1, &receipt_key());
    buyer.done(&done(FIRST, HONEST.0, receipt), &COUNTED).unwrap();
    assert_eq!(buyer.spent(), Amount::new(100));
    assert_eq!(buyer.promised(), Amount::new(BOUND_COST));
    // The same answer once more, as after a reconnect.
    buyer.done(&done(FIRST, HONEST.0, receipt), &COUNTED).unwrap();
    assert_eq!(buyer.spent(), Amount::new(100));
    // The next voucher covers what is settled and the next bound, no more.
    assert_eq!(buyer.promise(SECOND, BOUND).unwrap(), Amount::new(100 + BOUND_COST));
}

#[test]
fn a_worker_that_cheats_is_found_out_and_promised_nothing_more() {
    let facts = session();
    let key = receipt_key();
    let other_job = {
        let mut other = session();
        other.id.posted_lt += 1;
        other
    };
    let cases: [(Fault, Done, Counted); 10] = [
        (Fault::BadReceipt, done(FIRST, HONEST.0, forge(&facts, 1, HONEST.0, 100, &session_key())), COUNTED),
        (Fault::BadReceipt, done(FIRST, HONEST.0, forge(&other_job, 1, HONEST.0, 100, &key)), COUNTED),
        (Fault::BadSequence, done(FIRST, HONEST.0, forge(&facts, 0, HONEST.0, 100, &key)), COUNTED),
        (Fault::BadSequence, done(FIRST, HONEST.0, forge(&facts, EQUIVOCATED, HONEST.0, 100, &key)), COUNTED),
        (Fault::WrongAmount, done(FIRST, HONEST.0, forge(&facts, 1, HONEST.0, 101, &key)), COUNTED),
        // One token more than came.
        (
            Fault::Overcharge,
            done(FIRST, units(80, 0, 11), forge(&facts, 1, units(80, 0, 11), 102, &key)),
            COUNTED,
        ),
        // One token more than went.
        (
            Fault::Overcharge,
            done(FIRST, units(80, 1, 10), forge(&facts, 1, units(80, 1, 10), 101, &key)),
            COUNTED,
        ),
        // More than the bound, where nobody counted.
        (
            Fault::Overcharge,
            done(FIRST, units(101, 0, 10), forge(&facts, 1, units(101, 0, 10), 121, &key)),
            Counted { input: None, output: 10 },
        ),
        // A receipt that says more than the request does.
        (Fault::WrongSum, done(FIRST, HONEST.0, forge(&facts, 1, units(90, 0, 10), 110, &key)), COUNTED),
        (Fault::Unasked, done(SECOND, HONEST.0, forge(&facts, 1, HONEST.0, 100, &key)), COUNTED),
    ];
    for (fault, done, counted) in cases {
        let mut buyer = buyer_with(&[FIRST]);
        assert_eq!(buyer.done(&done, &counted), Err(fault), "{fault:?}");
        assert_eq!(buyer.promise(SECOND, BOUND), Err(BuyerError::Faulty(fault)));
        assert_eq!(buyer.spent(), Amount::ZERO);
        match buyer.proof() {
            Some(proof) => {
                assert_eq!((proof.fault, proof.receipt), (fault, done.receipt));
                assert!(proof.receipt.verify(&facts.id, &facts.receipt_key).is_ok());
                let json = serde_json::to_string(proof).unwrap();
                assert_eq!(serde_json::from_str::<session::Proof>(&json).unwrap(), *proof);
            }
            None => assert_eq!(fault, Fault::BadReceipt),
        }
    }
}

#[test]
fn a_receipt_over_the_voucher_is_found_out() {
    let facts = session();
    let mut buyer = buyer_with(&[FIRST]);
    let used = units(100, 0, 51);
    let receipt = forge(&facts, 1, used, 202, &receipt_key());
    let counted = Counted { input: None, output: 51 };
    assert_eq!(buyer.done(&done(FIRST, used, receipt), &counted), Err(Fault::OverVoucher));
}

#[test]
fn two_receipts_of_one_sequence_are_a_proof_for_the_contract() {
    let facts = session();
    let mut buyer = buyer_with(&[FIRST, SECOND]);
    let one = forge(&facts, 1, HONEST.0, 100, &receipt_key());
    let other = forge(&facts, 1, units(81, 0, 10), 101, &receipt_key());
    buyer.done(&done(FIRST, HONEST.0, one), &COUNTED).unwrap();
    let counted = Counted { input: Some(81), output: 10 };
    assert_eq!(buyer.done(&done(SECOND, units(81, 0, 10), other), &counted), Err(Fault::Equivocation));
    let (shown, against) = buyer.proof().unwrap().equivocation().unwrap().unwrap();
    assert_eq!(shown.receipt.sequence, against.receipt.sequence);
    assert_ne!(shown.receipt.hash(), against.receipt.hash());
    for signed in [shown, against] {
        signed.verify(&facts.receipt_key).unwrap();
    }
}

#[test]
fn receipts_out_of_order_are_held_against_each_other() {
    let facts = session();
    let key = receipt_key();
    let first = done(FIRST, HONEST.0, forge(&facts, 1, HONEST.0, 100, &key));
    let second = done(SECOND, HONEST.0, forge(&facts, 2, units(160, 0, 20), 200, &key));
    let mut buyer = buyer_with(&[FIRST, SECOND]);
    buyer.done(&second, &COUNTED).unwrap();
    assert_eq!(buyer.spent(), Amount::ZERO);
    buyer.done(&first, &COUNTED).unwrap();
    assert_eq!(buyer.spent(), Amount::new(200));
    // The second is no sum of both.
    let wrong = done(SECOND, HONEST.0, forge(&facts, 2, units(161, 0, 20), 201, &key));
    let mut buyer = buyer_with(&[FIRST, SECOND]);
    buyer.done(&wrong, &COUNTED).unwrap();
    assert_eq!(buyer.done(&first, &COUNTED), Err(Fault::WrongSum));
}

#[test]
fn a_report_may_not_charge_what_was_not_asked() {
    let facts = session();
    let key = receipt_key();
    let answered = |request, sequence, used| AnsweredReport { request, sequence, used, held: false };
    let report = |receipt, answered: &[AnsweredReport]| SessionReport {
        session: facts.id.clone(),
        receipt: Some(receipt),
        open: Vec::new(),
        answered: answered.to_vec(),
    };
    let one = forge(&facts, 1, HONEST.0, 100, &key);
    let two = forge(&facts, 2, units(160, 0, 20), 200, &key);
    let none = BTreeSet::new();
    // Honest: one was charged, the other never arrived.
    let mut buyer = buyer_with(&[FIRST, SECOND]);
    buyer.report(&report(one, &[answered(FIRST, 1, HONEST.0)]), &none).unwrap();
    assert_eq!((buyer.spent(), buyer.open_requests().count()), (Amount::new(100), 0));
    // The same request twice.
    let twice = [answered(FIRST, 1, HONEST.0), answered(FIRST, 2, HONEST.0)];
    assert_eq!(buyer_with(&[FIRST, SECOND]).report(&report(two, &twice), &none), Err(Fault::WrongSum));
    // A request of nobody.
    let foreign = [answered(RequestId([9; 16]), 1, HONEST.0)];
    assert_eq!(buyer_with(&[FIRST]).report(&report(one, &foreign), &none), Err(Fault::Unasked));
    // Over its bound, within the voucher.
    let over = forge(&facts, 1, units(101, 0, 10), 121, &key);
    let listed = [answered(FIRST, 1, units(101, 0, 10))];
    assert_eq!(buyer_with(&[FIRST, SECOND]).report(&report(over, &listed), &none), Err(Fault::Overcharge));
    // A sum of more than is listed.
    let more = forge(&facts, 1, units(90, 0, 10), 110, &key);
    let listed = [answered(FIRST, 1, HONEST.0)];
    assert_eq!(buyer_with(&[FIRST]).report(&report(more, &listed), &none), Err(Fault::WrongSum));
    // Nothing listed, and more than all bounds.
    let more = forge(&facts, 5, units(101, 0, 10), 121, &key);
    assert_eq!(buyer_with(&[FIRST]).report(&report(more, &[]), &none), Err(Fault::WrongSum));
    // What was seen before is denied.
    let mut buyer = buyer_with(&[FIRST]);
    buyer.done(&done(FIRST, HONEST.0, one), &COUNTED).unwrap();
    let denied = SessionReport { session: facts.id.clone(), receipt: None, open: vec![], answered: vec![] };
    assert_eq!(buyer.report(&denied, &none), Err(Fault::WrongSum));
}

#[test]
fn a_last_receipt_charges_nothing_of_its_own() {
    let facts = session();
    let key = receipt_key();
    let settled = || {
        let mut buyer = buyer_with(&[FIRST]);
        buyer.done(&done(FIRST, HONEST.0, forge(&facts, 1, HONEST.0, 100, &key)), &COUNTED).unwrap();
        buyer
    };
    let receipt = forge(&facts, 2, HONEST.0, 100, &key);
    assert_eq!(settled().closed(&CloseReport { receipt }), Err(Fault::WrongEnd));
    let last = |units: Units, amount| {
        let receipt = Receipt {
            tag: Tag,
            job: facts.id.job.clone(),
            posted_lt: facts.id.posted_lt,
            sequence: 2,
            is_final: true,
            units,
            amount: Amount::new(amount),
            content_hash: Content::NOTHING.to_cell_fields().hash().unwrap(),
        };
        let signature = SignedReceipt::new(receipt, &key).unwrap().signature.0;
        let amount = Amount::new(amount);
        SessionReceipt { sequence: 2, is_final: true, units, amount, content: Content::NOTHING, signature }
    };
    settled().closed(&CloseReport { receipt: last(HONEST.0, 100) }).unwrap();
    let receipt = last(units(81, 0, 10), 101);
    assert_eq!(settled().closed(&CloseReport { receipt }), Err(Fault::WrongSum));
}

#[test]
fn nothing_is_promised_over_budget_or_deposit() {
    let mut buyer = BuyerLedger::new(session(), Amount::new(BOUND_COST));
    buyer.promise(FIRST, BOUND).unwrap();
    assert_eq!(buyer.promise(FIRST, BOUND), Err(BuyerError::Repeated));
    let refused = buyer.promise(SECOND, UnitBound { input: 1, output: 0 });
    let (needed, limit) = (Amount::new(BOUND_COST + 1), Amount::new(BOUND_COST));
    assert_eq!(refused, Err(BuyerError::OverBudget { needed, limit }));
    let mut buyer = BuyerLedger::new(session(), Amount::new(u64::MAX));
    let refused = buyer.promise(FIRST, UnitBound { input: 10_001, output: 0 });
    let (needed, limit) = (Amount::new(10_001), Amount::new(10_000));
    assert_eq!(refused, Err(BuyerError::OverBudget { needed, limit }));
    buyer.promise(FIRST, UnitBound { input: 10_000, output: 0 }).unwrap();
    // A restart forgets no promise.
    let record = buyer.record();
    let json = serde_json::to_string(&record).unwrap();
    let mut buyer = BuyerLedger::restore(serde_json::from_str(&json).unwrap());
    assert_eq!(buyer.promised(), Amount::new(10_000));
    assert!(buyer.promise(SECOND, UnitBound { input: 1, output: 0 }).is_err());
}

struct Seller {
    facts: SessionFacts,
    ledger: SellerLedger,
    memory: Memory,
}

impl Seller {
    fn new() -> Self {
        let facts = session();
        let limits = SellerLimits { requests_per_session: 3, open_per_session: 2, ..SellerLimits::default() };
        let mut ledger = SellerLedger::restore(limits, []);
        let memory = Memory::default();
        let entry = ledger.open(&offered(&facts), facts.clone()).unwrap();
        write_all(&memory, vec![entry]).unwrap();
        Self { facts, ledger, memory }
    }

    fn ask(&mut self, request: RequestId, voucher: u64) -> Result<Admission, Reason> {
        let voucher = SignedVoucher::sign(&self.facts.id, Amount::new(voucher), &session_key());
        self.ask_with(request, &voucher, shown(), 0, BOUND)
    }

    fn ask_with(
        &mut self,
        request: RequestId,
        voucher: &SignedVoucher,
        shown_key: Option<[u8; 32]>,
        seen_sequence: u32,
        bound: UnitBound,
    ) -> Result<Admission, Reason> {
        let ask = Ask { session: &self.facts.id, shown_key, request, voucher, seen_sequence, bound };
        self.ledger.admit(&ask, NOW_S).map_err(|refused| refused.reason)
    }

    fn answer(&mut self, request: RequestId) -> SessionReceipt {
        let entry = self.ledger.finish(&self.facts.id, request, HONEST.0, content(request.0[0])).unwrap();
        let written = write_all(&self.memory, vec![entry]).unwrap().remove(0);
        self.ledger.written(&written);
        written.sign(&receipt_key()).unwrap().unwrap()
    }
}

#[test]
fn work_that_is_not_covered_is_refused_before_it_is_done() {
    let mut seller = Seller::new();
    assert_eq!(seller.ask(FIRST, BOUND_COST - 1), Err(Reason::VoucherTooLow));
    assert_eq!(seller.ask(FIRST, BOUND_COST), Ok(Admission::Start));
    // The second needs room beside the first.
    assert_eq!(seller.ask(SECOND, 2 * BOUND_COST - 1), Err(Reason::VoucherTooLow));
    assert_eq!(seller.ask(SECOND, 2 * BOUND_COST), Ok(Admission::Start));
    assert_eq!(seller.ask(RequestId([3; 16]), 3 * BOUND_COST), Err(Reason::TooManyOpen));
    // What the first did not use is free again.
    seller.answer(FIRST);
    assert_eq!(seller.ask(RequestId([3; 16]), 2 * BOUND_COST), Err(Reason::VoucherTooLow));
    assert_eq!(seller.ask(RequestId([3; 16]), 2 * BOUND_COST + 100), Ok(Admission::Start));
    // Over the deposit, whatever the voucher.
    let mut seller = Seller::new();
    let bound = UnitBound { input: 10_001, output: 0 };
    let voucher = SignedVoucher::sign(&seller.facts.id, Amount::new(1 << 40), &session_key());
    assert_eq!(seller.ask_with(FIRST, &voucher, shown(), 0, bound), Err(Reason::DepositTooLow));
    let bound = UnitBound { input: u32::MAX, output: u32::MAX };
    assert_eq!(seller.ask_with(FIRST, &voucher, shown(), 0, bound), Err(Reason::DepositTooLow));
}

#[test]
fn a_client_that_cheats_is_refused() {
    let mut seller = Seller::new();
    let id = seller.facts.id.clone();
    let good = SignedVoucher::sign(&id, Amount::new(BOUND_COST), &session_key());
    // Another key on the connection, or none.
    assert_eq!(seller.ask_with(FIRST, &good, Some([0; 32]), 0, BOUND), Err(Reason::WrongKey));
    assert_eq!(seller.ask_with(FIRST, &good, None, 0, BOUND), Err(Reason::WrongKey));
    // A voucher of another key, of another session, and one that was raised by hand.
    let forged = SignedVoucher::sign(&id, Amount::new(BOUND_COST), &receipt_key());
    assert_eq!(seller.ask_with(FIRST, &forged, shown(), 0, BOUND), Err(Reason::BadVoucher));
    let mut other = id.clone();
    other.posted_lt += 1;
    let moved = SignedVoucher::sign(&other, Amount::new(BOUND_COST), &session_key());
    assert_eq!(seller.ask_with(FIRST, &moved, shown(), 0, BOUND), Err(Reason::BadVoucher));
    let raised = SignedVoucher { amount: Amount::new(BOUND_COST + 1), ..good };
    assert_eq!(seller.ask_with(FIRST, &raised, shown(), 0, BOUND), Err(Reason::BadVoucher));
    // A receipt that this journal never wrote.
    assert_eq!(seller.ask_with(FIRST, &good, shown(), 1, BOUND), Err(Reason::BehindReceipt));
    // None of it has left a trace.
    assert_eq!(seller.ask_with(FIRST, &good, shown(), 0, BOUND), Ok(Admission::Start));
    assert_eq!(seller.ask_with(FIRST, &good, shown(), 0, BOUND), Ok(Admission::Running));
    // A forged voucher changes nothing where the one before covers: it is not kept.
    seller.answer(FIRST);
    let low = SignedVoucher { amount: Amount::new(1), signature: [0; 64] };
    let small = UnitBound { input: 1, output: 0 };
    assert_eq!(seller.ask_with(SECOND, &low, shown(), 1, small), Ok(Admission::Start));
    assert_eq!(seller.ledger.record(&id).unwrap().voucher, Some(good));
}

#[test]
fn a_name_is_charged_once_and_an_answer_lost_in_a_crash_is_served_again_for_nothing() {
    let mut seller = Seller::new();
    assert_eq!(seller.ask(FIRST, BOUND_COST), Ok(Admission::Start));
    let receipt = seller.answer(FIRST);
    assert_eq!(seller.ask(FIRST, BOUND_COST), Ok(Admission::Answered));
    // In the next life.
    seller.ledger = seller.memory.restore(SellerLimits::default());
    let within = UnitBound { input: 80, output: 10 };
    assert_eq!(seller.ask(FIRST, BOUND_COST), Ok(Admission::Again { within }));
    assert_eq!(seller.ask(FIRST, BOUND_COST), Ok(Admission::Running));
    seller.ledger.served_again(&seller.facts.id, FIRST, true);
    assert_eq!(seller.ask(FIRST, BOUND_COST), Ok(Admission::Again { within }));
    seller.ledger.served_again(&seller.facts.id, FIRST, false);
    assert_eq!(seller.ask(FIRST, BOUND_COST), Ok(Admission::Answered));
    let newest = seller.ledger.newest(&seller.facts.id).unwrap();
    assert_eq!(newest.sign(&receipt_key()).unwrap(), Some(receipt));
}

#[test]
fn a_session_ends_when_its_time_its_names_or_its_state_do() {
    let mut seller = Seller::new();
    for (change, reason) in
        [(JobStatus::Closing, Reason::SessionEnded), (JobStatus::Settled, Reason::SessionEnded)]
    {
        let mut facts = seller.facts.clone();
        facts.status = change;
        seller.ledger.update(&facts);
        assert_eq!(seller.ask(FIRST, BOUND_COST), Err(reason));
    }
    let mut late = seller.facts.clone();
    late.until = NOW_S + SellerLimits::default().margin_s;
    seller.ledger.update(&late);
    assert_eq!(seller.ask(FIRST, BOUND_COST), Err(Reason::SessionEnded));
    late.until += 1;
    seller.ledger.update(&late);
    for name in 1..=3 {
        let request = RequestId([name; 16]);
        assert_eq!(seller.ask(request, 10_000), Ok(Admission::Start));
        seller.answer(request);
    }
    assert_eq!(seller.ask(RequestId([4; 16]), 10_000), Err(Reason::SessionFull));
}

#[test]
fn a_worker_that_lost_its_journal_signs_nothing() {
    // Redeemed receipts that the ledger does not have.
    let mut seller = Seller::new();
    let mut ahead = seller.facts.clone();
    ahead.sequence = 1;
    seller.ledger.update(&ahead);
    assert_eq!(seller.ask(FIRST, BOUND_COST), Err(Reason::BehindReceipt));
    let id = seller.facts.id.clone();
    assert_eq!(seller.ledger.finalise(&id).unwrap_err().reason, Reason::BehindReceipt);
    // A session that is new to the ledger and not to the chain.
    let mut ledger = SellerLedger::restore(SellerLimits::default(), []);
    let refused = ledger.open(&offered(&ahead), ahead.clone()).unwrap_err();
    assert_eq!(refused.reason, Reason::BeforeJournal);
    // A journal that failed.
    let mut seller = Seller::new();
    assert_eq!(seller.ask(FIRST, BOUND_COST), Ok(Admission::Start));
    seller.ledger.fail();
    assert!(seller.ledger.finish(&id, FIRST, HONEST.0, content(1)).is_err());
    assert_eq!(seller.ask(SECOND, BOUND_COST), Err(Reason::JournalFailed));
}

#[test]
fn terms_that_do_not_pay_are_not_served() {
    let facts = session();
    let offered = offered(&facts);
    let refused = |change: fn(&mut SessionFacts)| {
        let mut facts = session();
        change(&mut facts);
        let mut ledger = SellerLedger::restore(SellerLimits::default(), []);
        ledger.open(&offered, facts).unwrap_err().reason
    };
    assert_eq!(refused(|facts| facts.worker = HashBytes::ZERO), Reason::OtherSeller);
    assert_eq!(refused(|facts| facts.receipt_key = HashBytes::ZERO), Reason::OtherSeller);
    assert_eq!(refused(|facts| facts.model = HashBytes::ZERO), Reason::OtherSeller);
    assert_eq!(refused(|facts| facts.prices.output = Nanoton::new(1_999)), Reason::TermsBelowOffer);
    assert_eq!(refused(|facts| facts.share_bps += 1), Reason::TermsBelowOffer);
    assert_eq!(refused(|facts| facts.settle_within_s = 299), Reason::TermsBelowOffer);
    assert_eq!(refused(|facts| facts.status = JobStatus::Closing), Reason::SessionEnded);
    let mut dearer = facts.clone();
    dearer.prices.output = Nanoton::new(2_001);
    let mut ledger = SellerLedger::restore(SellerLimits::default(), []);
    assert!(ledger.open(&offered, dearer).is_ok());
}

#[test]
fn a_worker_redeems_what_is_worth_it_and_ends_what_is_ending() {
    let policy = RedeemPolicy { at_stake: Amount::new(60), margin_s: 300 };
    let fee = Amount::new(20);
    let mut seller = Seller::new();
    let id = seller.facts.id.clone();
    let due = |seller: &Seller, now_s| redemption(&seller.ledger, &seller.facts.id, &policy, fee, now_s);
    assert_eq!(due(&seller, NOW_S), Redemption::Nothing);
    seller.ask(FIRST, 10_000).unwrap();
    // 95 of 100 are the worker's.
    seller.answer(FIRST);
    assert!(matches!(due(&seller, NOW_S), Redemption::Redeem(written) if !written.record().is_final));
    let dear = RedeemPolicy { at_stake: Amount::new(95), ..policy };
    assert_eq!(redemption(&seller.ledger, &id, &dear, fee, NOW_S), Redemption::Nothing);
    assert_eq!(redemption(&seller.ledger, &id, &policy, Amount::new(95), NOW_S), Redemption::Nothing);
    // Redeemed: nothing more is due until more is earned.
    seller.facts.sequence = 1;
    seller.facts.paid = Amount::new(100);
    seller.ledger.update(&seller.facts.clone());
    assert_eq!(due(&seller, NOW_S), Redemption::Nothing);
    // The client wants its end while a request is under way.
    seller.ask(SECOND, 10_000).unwrap();
    seller.facts.status = JobStatus::Closing;
    seller.facts.until = NOW_S + 1_000;
    seller.ledger.update(&seller.facts.clone());
    assert_eq!(due(&seller, NOW_S), Redemption::Drain);
    seller.answer(SECOND);
    assert_eq!(due(&seller, NOW_S), Redemption::Finalise);
    let entry = seller.ledger.finalise(&id).unwrap().unwrap();
    // Not before it is durable.
    assert!(matches!(due(&seller, NOW_S), Redemption::Redeem(written) if !written.record().is_final));
    let written = write_all(&seller.memory, vec![entry]).unwrap().remove(0);
    seller.ledger.written(&written);
    assert!(matches!(due(&seller, NOW_S), Redemption::Redeem(written) if written.record().is_final));
    let message = written.redeem(&receipt_key()).unwrap().unwrap();
    assert!(message.receipt.is_final && message.receipt.sequence == 3);
    message.verify(&seller.facts.receipt_key).unwrap();
    message.verify_voucher(&seller.facts.session_key).unwrap();
    assert_eq!(due(&seller, NOW_S + 1_001), Redemption::Nothing);
}

#[test]
fn what_travels_comes_back_and_shows_no_text() {
    use session::message::{Frame, Piece, StartRequest};
    use session::work::{Chat, ChatMessage, Json, Params, ToolCall, Work};
    let mut params = Params::greedy(5);
    params.stop = vec!["CANARY".into()];
    params.json_schema = Some(Json(serde_json::json!({"title": "CANARY"})));
    let message = ChatMessage {
        role: "user".into(),
        content: "CANARY".into(),
        name: None,
        tool_calls: vec![ToolCall { id: "1".into(), name: "CANARY".into(), arguments: "{\"a\":1}".into() }],
        tool_call_id: None,
    };
    let tools = vec![Json(serde_json::json!({"type": "function"}))];
    let chat = Chat { messages: vec![message], tools, params };
    let calls: serde_json::Value =
        serde_json::from_str(chat.turns()[0].tool_calls.as_deref().unwrap()).unwrap();
    let function = serde_json::json!({"name": "CANARY", "arguments": {"a": 1}});
    assert_eq!(calls, serde_json::json!([{"id": "1", "type": "function", "function": function}]));
    let facts = session();
    let start = StartRequest {
        session: facts.id.clone(),
        request: FIRST,
        voucher: SignedVoucher::sign(&facts.id, Amount::new(1), &session_key()),
        seen_sequence: 0,
        bound: BOUND,
        work: Work::Chat(chat),
    };
    let json = serde_json::to_string(&start).unwrap();
    assert_eq!(serde_json::from_str::<StartRequest>(&json).unwrap(), start);
    assert!(
        serde_json::from_str::<StartRequest>(&json.replace("\"bound\"", "\"extra\":1,\"bound\"")).is_err()
    );
    let receipt = forge(&facts, 1, HONEST.0, 100, &receipt_key());
    let frames = [
        Frame::Piece(Piece { text: "CANARY".into(), tokens: vec![4_711], logprobs: vec![] }),
        Frame::Done(Box::new(done(FIRST, HONEST.0, receipt))),
        Frame::Refused(Reason::VoucherTooLow.into()),
    ];
    for frame in &frames {
        let json = serde_json::to_string(frame).unwrap();
        assert_eq!(serde_json::from_str::<Frame>(&json).unwrap(), *frame);
    }
    let shown = format!("{start:?} {:?} {frames:?}", start.work);
    assert!(!shown.contains("CANARY") && !shown.contains("4711"), "{shown}");
    let id: session::SessionId = facts.id.to_string().parse().unwrap();
    assert_eq!(id, facts.id);
}
