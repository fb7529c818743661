//! Both ledgers against each other over random schedules, with crashes of either side at every point.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::{BTreeMap, BTreeSet};

use contracts::job::JobStatus;
use contracts::money::{Amount, Split};
use contracts::{Prices, Units};
use proptest::prelude::*;
use session::message::{CloseReport, Done, FinishReason, SessionReport};
use session::{
    Admission, Ask, BuyerLedger, BuyerRecord, Counted, Entry, Reason, Refused, RequestId, SellerLedger,
    SellerLimits, SessionFacts, SessionReceipt, SignedVoucher, UnitBound, write_all,
};
use world::{Memory, NOW_S, content, facts, offered, prices, receipt_key, session_key, shown};

#[derive(Debug, Clone)]
enum Step {
    Ask { input: u32, output: u32 },
    Finish { which: usize, input: u8, cached: u8, output: u8 },
    Commit { count: usize },
    Deliver { which: usize },
    Lose { which: usize },
    Abandon { which: usize },
    Repeat { which: usize },
    Redeem,
    TopUp { amount: u64 },
    CrashSeller,
    CrashBuyer,
    Resync,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..5_000_u32, 0..3_000_u32).prop_map(|(input, output)| Step::Ask { input, output }),
        6 => (any::<usize>(), any::<u8>(), any::<u8>(), any::<u8>())
            .prop_map(|(which, input, cached, output)| Step::Finish { which, input, cached, output }),
        5 => (1..4_usize).prop_map(|count| Step::Commit { count }),
        6 => any::<usize>().prop_map(|which| Step::Deliver { which }),
        1 => any::<usize>().prop_map(|which| Step::Lose { which }),
        1 => any::<usize>().prop_map(|which| Step::Abandon { which }),
        2 => any::<usize>().prop_map(|which| Step::Repeat { which }),
        1 => Just(Step::Redeem),
        1 => (0..1_000_000_u64).prop_map(|amount| Step::TopUp { amount }),
        1 => Just(Step::CrashSeller),
        1 => Just(Step::CrashBuyer),
        1 => Just(Step::Resync),
    ]
}

struct Play {
    facts: SessionFacts,
    limits: SellerLimits,
    seller: SellerLedger,
    memory: Memory,
    /// Charged, and not yet durable.
    pending: Vec<(Entry, Units)>,
    running: Vec<(RequestId, UnitBound)>,
    buyer: BuyerLedger,
    saved: BuyerRecord,
    /// On their way to the buyer.
    flying: Vec<Done>,
    /// Every receipt that was ever signed.
    signed: BTreeMap<u32, SessionReceipt>,
    /// Every request whose charge is durable.
    charged: BTreeMap<RequestId, Units>,
    asked: u64,
}

impl Play {
    fn new(prices: Prices, deposit: u64, budget: u64) -> Self {
        let facts = facts(prices, deposit);
        let limits = SellerLimits { open_per_session: 5, ..SellerLimits::default() };
        let mut seller = SellerLedger::restore(limits, []);
        let memory = Memory::default();
        let entry = seller.open(&offered(&facts), facts.clone()).unwrap();
        let written = write_all(&memory, vec![entry]).unwrap();
        assert_eq!(written[0].sign(&receipt_key()).unwrap(), None);
        let buyer = BuyerLedger::new(facts.clone(), Amount::new(budget));
        let saved = buyer.record();
        Self {
            facts,
            limits,
            seller,
            memory,
            pending: Vec::new(),
            running: Vec::new(),
            buyer,
            saved,
            flying: Vec::new(),
            signed: BTreeMap::new(),
            charged: BTreeMap::new(),
            asked: 0,
        }
    }

    fn admit(&mut self, request: RequestId, voucher: Amount, bound: UnitBound) -> Result<Admission, Refused> {
        let session = self.facts.id.clone();
        let voucher = SignedVoucher::sign(&session, voucher, &session_key());
        let ask = Ask {
            session: &session,
            shown_key: shown(),
            request,
            voucher: &voucher,
            seen_sequence: self.buyer.seen_sequence(),
            bound,
        };
        self.seller.admit(&ask, NOW_S)
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Ask { input, output } => {
                self.asked += 1;
                let request = name(self.asked);
                let bound = UnitBound { input, output };
                let Ok(voucher) = self.buyer.promise(request, bound) else { return };
                self.saved = self.buyer.record();
                match self.admit(request, voucher, bound) {
                    Ok(Admission::Start) => self.running.push((request, bound)),
                    Ok(other) => panic!("a new name is {other:?}"),
                    Err(refused) => {
                        // An honest buyer's voucher always covers.
                        assert!(matches!(refused.reason, Reason::TooManyOpen), "{refused}");
                        self.buyer.refused(request, &refused);
                    }
                }
            }
            Step::Finish { which, input, cached, output } => {
                let Some((request, bound)) = take(&mut self.running, which) else { return };
                let input = part(bound.input, input);
                let cached_input = part(input, cached);
                let output = part(bound.output, output);
                let used = Units { input: input - cached_input, cached_input, output };
                let mark = request.0[0];
                let entry = self.seller.finish(&self.facts.id, request, used, content(mark)).unwrap();
                let used = entry.answered().unwrap().used;
                self.pending.push((entry, used));
            }
            Step::Commit { count } => {
                let count = count.min(self.pending.len());
                let (entries, used): (Vec<_>, Vec<_>) = self.pending.drain(..count).unzip();
                let requests: Vec<_> =
                    entries.iter().map(|entry| entry.answered().unwrap().request).collect();
                let all = write_all(&self.memory, entries).unwrap();
                for ((written, used), request) in all.iter().zip(used).zip(requests) {
                    self.seller.written(written);
                    let receipt = written.sign(&receipt_key()).unwrap().unwrap();
                    self.sign(receipt);
                    let before = self.charged.insert(request, used);
                    assert_eq!(before, None, "charged twice");
                    self.flying.push(done(request, used, receipt));
                }
            }
            Step::Deliver { which } => {
                let Some(done) = take(&mut self.flying, which) else { return };
                let used = done.used;
                let counted = Counted { input: Some(used.input + used.cached_input), output: used.output };
                self.buyer.done(&done, &counted).unwrap();
            }
            Step::Lose { which } => drop(take(&mut self.flying, which)),
            Step::Abandon { which } => {
                let Some((request, _)) = take(&mut self.running, which) else { return };
                self.seller.abandon(&self.facts.id, request);
                self.buyer.refused(request, &Reason::EngineFailed.into());
            }
            Step::Repeat { which } => {
                if self.asked == 0 {
                    return;
                }
                let request = name(which as u64 % self.asked + 1);
                let is_running = self.running.iter().any(|(running, _)| *running == request);
                let is_charged = self.charged.contains_key(&request)
                    || self.pending.iter().any(|(entry, _)| entry.answered().unwrap().request == request);
                if !is_running && !is_charged {
                    return;
                }
                match self.admit(request, Amount::ZERO, UnitBound { input: 1, output: 1 }) {
                    Ok(Admission::Running) => assert!(is_running),
                    Ok(Admission::Answered) => assert!(is_charged),
                    Ok(Admission::Again { within }) => {
                        assert!(within.covers(&self.charged[&request]));
                        self.seller.served_again(&self.facts.id, request, false);
                    }
                    Ok(Admission::Start) => panic!("{request} would be charged twice"),
                    Err(refused) => assert_eq!(refused.reason, Reason::TooManyOpen),
                }
            }
            Step::Redeem => self.redeem(),
            Step::TopUp { amount } => {
                self.facts.deposit = self.facts.deposit.checked_add(Amount::new(amount)).unwrap();
                self.seller.update(&self.facts);
                self.buyer.update(&self.facts, self.saved.budget);
            }
            Step::CrashSeller => {
                self.seller = self.memory.restore(self.limits);
                self.seller.update(&self.facts);
                self.running.clear();
                self.pending.clear();
                self.flying.clear();
                self.resync();
            }
            Step::CrashBuyer => {
                self.buyer = BuyerLedger::restore(self.saved.clone());
                self.buyer.update(&self.facts, self.saved.budget);
                self.flying.clear();
                self.resync();
            }
            Step::Resync => self.resync(),
        }
        self.check();
    }

    fn report(&self) -> SessionReport {
        let id = &self.facts.id;
        let receipt = self.seller.newest(id).unwrap().sign(&receipt_key()).unwrap();
        let mut open = self.seller.open_requests(id);
        // Charged and not yet durable: to the client it is under way.
        open.extend(self.pending.iter().map(|(entry, _)| entry.answered().unwrap().request));
        SessionReport {
            session: id.clone(),
            receipt,
            open,
            answered: self.seller.answered_reports(id, |_| false),
        }
    }

    fn resync(&mut self) {
        let in_flight: BTreeSet<_> = self.flying.iter().map(|done| done.request).collect();
        let report = self.report();
        self.buyer.report(&report, &in_flight).unwrap();
        self.saved = self.buyer.record();
    }

    /// As the contract does it.
    fn redeem(&mut self) {
        let written = self.seller.newest(&self.facts.id).unwrap().clone();
        let Some(message) = written.redeem(&receipt_key()).unwrap() else { return };
        let receipt = &message.receipt;
        if receipt.sequence <= self.facts.sequence {
            return;
        }
        message.verify(&self.facts.receipt_key).unwrap();
        message.verify_voucher(&self.facts.session_key).unwrap();
        self.sign(written.sign(&receipt_key()).unwrap().unwrap());
        let split = Split::of_session(
            receipt.amount,
            message.voucher_amount,
            self.facts.deposit,
            self.facts.share_bps,
        );
        assert_eq!(split.paid, receipt.amount, "the worker gets what it charged, whole");
        assert!(split.paid >= self.facts.paid);
        assert!(split.paid <= self.buyer.promised());
        self.facts.paid = split.paid;
        self.facts.sequence = receipt.sequence;
        if receipt.is_final {
            self.facts.status = JobStatus::Settled;
        }
        self.seller.update(&self.facts);
    }

    fn sign(&mut self, receipt: SessionReceipt) {
        let before = self.signed.insert(receipt.sequence, receipt);
        assert!(
            before.is_none_or(|before| before == receipt),
            "two receipts of sequence {}",
            receipt.sequence
        );
    }

    fn check(&self) {
        let limit = self.saved.budget.min(self.facts.deposit);
        assert!(self.buyer.promised() <= limit.max(self.saved.promised));
        assert!(self.buyer.spent() <= self.buyer.promised());
        assert_eq!(self.buyer.fault(), None);
        let record = self.seller.record(&self.facts.id).unwrap();
        let voucher = record.voucher.map_or(Amount::ZERO, |voucher| voucher.amount);
        assert!(record.amount() <= voucher || record.amount().is_zero());
        assert!(voucher <= self.buyer.promised());
    }

    /// Everything comes to its end, and both sides agree to the nanoTON.
    fn end(mut self) {
        for (request, _) in std::mem::take(&mut self.running) {
            self.seller.abandon(&self.facts.id, request);
        }
        self.step(&Step::Commit { count: usize::MAX });
        self.flying.clear();
        self.resync();
        let promised = self.buyer.promised();
        let voucher = SignedVoucher::sign(&self.facts.id, promised, &session_key());
        let entry = self.seller.close(&self.facts.id, shown(), &voucher).unwrap().unwrap();
        let written = write_all(&self.memory, vec![entry]).unwrap().remove(0);
        self.seller.written(&written);
        assert_eq!(self.seller.close(&self.facts.id, shown(), &voucher).unwrap(), None);
        let receipt = written.sign(&receipt_key()).unwrap().unwrap();
        self.buyer.closed(&CloseReport { receipt }).unwrap();
        self.redeem();
        let total = self.charged.values().fold(Units::default(), |sum, used| Units {
            input: sum.input + used.input,
            cached_input: sum.cached_input + used.cached_input,
            output: sum.output + used.output,
        });
        assert_eq!(self.buyer.units(), total);
        let cost = Amount::try_from(self.facts.prices.cost(&total)).unwrap();
        assert_eq!(self.buyer.spent(), cost);
        assert_eq!(self.facts.paid, cost);
        assert_eq!(self.facts.status, JobStatus::Settled);
        assert_eq!(self.buyer.open_requests().count(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn honest_sides_agree_whatever_happens_between_them(
        steps in prop::collection::vec(step(), 1..160),
        input in 0..5_000_u64,
        cached in 0..6_000_u64,
        output in 0..20_000_u64,
        deposit in 0..500_000_u64,
        budget in 0..500_000_u64,
    ) {
        let mut play = Play::new(prices(input, cached, output), deposit, budget);
        for step in &steps {
            play.step(step);
        }
        play.end();
    }
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

fn name(number: u64) -> RequestId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    RequestId(id)
}

fn part(of: u32, share: u8) -> u32 {
    (u64::from(of) * u64::from(share) / 255) as u32
}

fn take<T>(from: &mut Vec<T>, which: usize) -> Option<T> {
    match from.len() {
        0 => None,
        length => Some(from.remove(which % length)),
    }
}
