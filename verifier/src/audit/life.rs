//! The steps that make a job's life, found among everything its account was sent, and the state that each one leaves.

use contracts::job::{
    AUDIT_WINDOW_S, CancelJob, CloseSession, DeliverInput, EQUIVOCATED, ExpireJob, JobEquivocated, JobLimits,
    JobSpecial, JobState, JobStatus, JobStorage, MarketTerms, OpenSession, PostInput, PostJob, PostOpenJob,
    PostReceipt, PostRejection, Posting, RedeemReceipt, ReportEquivocation, Seller, SweepJob, TakeJob,
    TopUpJob,
};
use contracts::money::{Amount, Split};
use contracts::wire::from_cell;
use contracts::{HashBytes, Message, Ref, StdAddr};

use super::JobHistory;
use super::steps::Step;

/// One posting and what became of it.
pub(super) struct Life<'a> {
    pub(super) client: StdAddr,
    pub(super) nonce: u64,
    pub(super) post: &'a Step,
    pub(super) opening: Opening,
    /// As the posting left it.
    pub(super) posted: JobState,
    /// What changed it since, in order.
    pub(super) acts: Vec<Act<'a>>,
    /// What was left went to the client, and the account away.
    pub(super) swept: bool,
    /// Every step of the account that belongs to this posting, the sweep apart.
    pub(super) steps: &'a [Step],
}

/// The message that opened it.
pub(super) enum Opening {
    Directed(Box<PostJob>),
    Session(Box<OpenSession>),
    Market(Box<PostOpenJob>),
}

/// A message that changed the job, and the job before and after.
pub(super) struct Act<'a> {
    pub(super) step: &'a Step,
    pub(super) event: Event,
    pub(super) before: JobState,
    pub(super) after: JobState,
}

/// What a message did.
pub(super) enum Event {
    Taken(Box<TakeJob>),
    Delivered(Delivery),
    CloseAsked,
    ToppedUp(TopUpJob),
    Redeemed(Box<RedeemReceipt>),
    Answered(Box<PostReceipt>),
    Rejected(Box<PostRejection>),
    Cancelled,
    Expired,
    Equivocated(Box<ReportEquivocation>),
    /// The Worker did not slash.
    EquivocationRefused,
}

/// How the input of a job of the market came.
pub(super) enum Delivery {
    Sent(Box<DeliverInput>),
    Signed(Box<PostInput>),
}

impl<'a> Life<'a> {
    /// The newest posting of the account. One that was swept is over, and a later one at the same address is another.
    pub(super) fn read(history: &JobHistory, steps: &'a [Step]) -> Result<Self, String> {
        let (client, nonce) = identity(history, steps)?;
        let swept = steps.last().is_some_and(|step| is(step, SweepJob::OPCODE));
        let closed = if swept { steps.len() - 1 } else { steps.len() };
        let began = steps[..closed].iter().rposition(|step| is(step, SweepJob::OPCODE));
        let own = &steps[began.map_or(0, |at| at + 1)..closed];

        let mut life: Option<Self> = None;
        for step in own.iter().filter(|step| step.succeeded) {
            let at = |what: String| format!("at lt {}: {what}", step.lt);
            if let Some(opening) = Opening::read(step).map_err(at)? {
                if life.is_some() {
                    return Err("it was posted more than once".into());
                }
                let (client, acts) = (client.clone(), Vec::new());
                let posted = opening.state(step);
                life = Some(Self { client, nonce, post: step, opening, posted, acts, swept, steps: own });
            } else if let Some(event) = Event::read(step).map_err(at)? {
                let life = life.as_mut().ok_or("there is no posting before its other steps")?;
                let before = life.state().clone();
                let after = event.apply(&before, step).map_err(at)?;
                life.acts.push(Act { step, event, before, after });
            }
        }
        let life = life.ok_or("there is no posting")?;
        if swept && !life.status().is_closed() {
            return Err("it was swept before its end".into());
        }
        Ok(life)
    }

    /// As the last step left it.
    pub(super) fn state(&self) -> &JobState {
        self.acts.last().map_or(&self.posted, |act| &act.after)
    }

    pub(super) fn status(&self) -> JobStatus {
        self.state().status
    }

    /// Who serves; of a job of the market, who holds it.
    pub(super) fn seller(&self) -> Option<&Seller> {
        self.state().posting.seller.as_deref()
    }

    /// What ended it.
    pub(super) fn end(&self) -> Option<&Act<'a>> {
        self.acts.iter().find(|act| act.is_end())
    }

    /// The claims that the job took, in order.
    pub(super) fn takes(&self) -> impl Iterator<Item = (&Act<'a>, &TakeJob)> {
        self.acts.iter().filter_map(|act| match &act.event {
            Event::Taken(take) => Some((act, &**take)),
            _ => None,
        })
    }

    /// The redemptions of a session, in order.
    pub(super) fn redemptions(&self) -> impl Iterator<Item = (&Act<'a>, &RedeemReceipt)> {
        self.acts.iter().filter_map(|act| match &act.event {
            Event::Redeemed(redeemed) => Some((act, &**redeemed)),
            _ => None,
        })
    }

    /// Whether the worker claimed, answered, gave back or was paid.
    pub(super) fn worker_took_part(&self) -> bool {
        self.acts.iter().any(|act| {
            matches!(
                act.event,
                Event::Taken(_) | Event::Redeemed(_) | Event::Answered(_) | Event::Rejected(_)
            )
        })
    }

    /// Since when the seller is the job's: the posting, or the claim that holds it.
    pub(super) fn engaged_at_s(&self) -> u32 {
        self.takes().last().map_or(self.post.at_s, |(act, _)| act.step.at_s)
    }
}

impl Opening {
    fn read(step: &Step) -> Result<Option<Self>, String> {
        if step.external || step.bounced {
            return Ok(None);
        }
        Ok(match step.opcode() {
            Some(PostJob::OPCODE) => Some(Self::Directed(read(step)?)),
            Some(OpenSession::OPCODE) => Some(Self::Session(read(step)?)),
            Some(PostOpenJob::OPCODE) => Some(Self::Market(read(step)?)),
            _ => None,
        })
    }

    /// What a log calls it.
    pub(super) fn opcode(&self) -> u32 {
        match self {
            Self::Directed(_) => PostJob::OPCODE,
            Self::Session(_) => OpenSession::OPCODE,
            Self::Market(_) => PostOpenJob::OPCODE,
        }
    }

    /// Hash of what a log names.
    pub(super) fn terms_hash(&self) -> HashBytes {
        match self {
            Self::Directed(post) => post.seller.hash(),
            Self::Session(open) => open.seller.hash(),
            Self::Market(post) => post.terms.hash(),
        }
    }

    fn state(&self, step: &Step) -> JobState {
        let (status, until, deposit, limits) = match self {
            Self::Directed(post) => (JobStatus::Open, post.until, post.deposit, post.limits),
            Self::Session(open) => (JobStatus::Session, open.until, open.deposit, open.limits),
            Self::Market(post) => {
                let limits = JobLimits { max_units: post.max_units, least_bond: Amount::ZERO };
                (JobStatus::Open, post.until, post.deposit, limits)
            }
        };
        let (seller, special) = match self {
            Self::Directed(post) => (Some(post.seller.clone()), None),
            Self::Session(open) => {
                (Some(open.seller.clone()), Ref::new(JobSpecial::Session(*open.terms)).ok())
            }
            Self::Market(post) => (None, special(&post.terms)),
        };
        let posting = Posting { posted_lt: step.lt, limits, seller, special };
        let (bond, paid) = (Amount::ZERO, Amount::ZERO);
        JobState { status, until, deposit, bond, paid, sequence: 0, posting }
    }
}

impl Delivery {
    /// First cell of the sealed input.
    pub(super) fn input(&self) -> &contracts::Cell {
        match self {
            Self::Sent(message) => &message.input,
            Self::Signed(message) => &message.input,
        }
    }
}

impl Act<'_> {
    pub(super) fn is_end(&self) -> bool {
        self.after.status.is_closed() && !self.before.status.is_closed()
    }
}

impl Event {
    fn read(step: &Step) -> Result<Option<Self>, String> {
        let Some(opcode) = step.opcode() else { return Ok(None) };
        Ok(match (step.bounced, step.external, opcode) {
            (true, _, JobEquivocated::OPCODE) => Some(Self::EquivocationRefused),
            (true, ..) => None,
            (_, true, PostReceipt::OPCODE) => Some(Self::Answered(read(step)?)),
            (_, true, RedeemReceipt::OPCODE) => Some(Self::Redeemed(read(step)?)),
            (_, true, PostRejection::OPCODE) => Some(Self::Rejected(read(step)?)),
            (_, true, PostInput::OPCODE) => Some(Self::Delivered(Delivery::Signed(read(step)?))),
            (_, true, _) => None,
            (.., TakeJob::OPCODE) => Some(Self::Taken(read(step)?)),
            (.., DeliverInput::OPCODE) => Some(Self::Delivered(Delivery::Sent(read(step)?))),
            (.., CancelJob::OPCODE) => Some(Self::Cancelled),
            (.., CloseSession::OPCODE) => Some(Self::CloseAsked),
            (.., TopUpJob::OPCODE) => Some(Self::ToppedUp(*read(step)?)),
            (.., ExpireJob::OPCODE) => Some(Self::Expired),
            (.., ReportEquivocation::OPCODE) => Some(Self::Equivocated(read(step)?)),
            _ => None,
        })
    }

    /// The job after it; an error where a job in this state does not take it.
    fn apply(&self, before: &JobState, step: &Step) -> Result<JobState, String> {
        let mut state = before.clone();
        let seller = before.posting.seller.as_deref();
        let named = || seller.ok_or_else(|| "nobody serves the job yet".to_owned());
        let from_status = |allowed: &[JobStatus], what: &str| {
            let holds = allowed.contains(&before.status);
            if holds { Ok(()) } else { Err(format!("{what} of a job that is {}", before.status.name())) }
        };
        let close = |state: &mut JobState, status| {
            state.status = status;
            state.until = step.at_s.saturating_add(AUDIT_WINDOW_S);
            state.bond = Amount::ZERO;
        };
        match self {
            Self::Taken(take) => {
                state.bond = take.bond;
                match (&take.bid, before.posting.market()) {
                    (None, None) => {
                        from_status(&[JobStatus::Open], "a claim")?;
                        state.status = JobStatus::Claimed;
                        state.until = step.at_s.saturating_add(named()?.settle_within_s);
                    }
                    (Some(bid), Some(market)) => {
                        from_status(&[JobStatus::Open, JobStatus::Awaiting], "a bid")?;
                        let worker = step.from.as_ref().ok_or("a bid from nobody")?.address;
                        let seller =
                            Ref::new(bid.seller(worker, market)).map_err(|error| error.to_string())?;
                        state.status = JobStatus::Awaiting;
                        state.until = step.at_s.max(market.bid_until).saturating_add(market.deliver_within_s);
                        state.posting.seller = Some(seller);
                        state.posting.limits.least_bond = market.network.least_bond;
                        if step.at_s <= market.bid_until {
                            state.posting.special =
                                special(&MarketTerms { best_stake: take.stake, ..market.clone() });
                        }
                    }
                    _ => return Err("a claim of another kind of job".into()),
                }
            }
            Self::Delivered(_) => {
                from_status(&[JobStatus::Awaiting], "an input")?;
                state.status = JobStatus::Claimed;
                state.until = step.at_s.saturating_add(named()?.settle_within_s);
            }
            Self::CloseAsked => {
                from_status(&[JobStatus::Session], "a wish to close")?;
                state.status = JobStatus::Closing;
                state.until = before.until.min(step.at_s.saturating_add(named()?.settle_within_s));
            }
            Self::ToppedUp(more) => {
                from_status(&[JobStatus::Session], "a top-up")?;
                state.deposit = before.deposit.checked_add(more.amount).ok_or("a deposit beyond 64 bits")?;
            }
            Self::Redeemed(redeemed) => {
                from_status(&[JobStatus::Session, JobStatus::Closing], "a redemption")?;
                let (receipt, share_bps) = (&redeemed.receipt, named()?.share_bps);
                let voucher = redeemed.voucher_amount;
                let split = Split::of_session(receipt.amount, voucher, before.deposit, share_bps);
                state.paid = split.paid;
                state.sequence = receipt.sequence;
                if receipt.is_final {
                    close(&mut state, JobStatus::Settled);
                }
            }
            Self::Answered(post) => {
                from_status(&[JobStatus::Open, JobStatus::Claimed], "a receipt")?;
                state.paid = split_of(post, named()?, before.deposit).paid;
                state.sequence |= 1;
                close(&mut state, JobStatus::Settled);
            }
            Self::Rejected(_) => {
                from_status(&[JobStatus::Open, JobStatus::Claimed, JobStatus::Session], "a rejection")?;
                named()?;
                if !before.paid.is_zero() {
                    return Err("a rejection after a payment".into());
                }
                close(&mut state, JobStatus::Rejected);
            }
            Self::Cancelled => {
                from_status(&[JobStatus::Open], "a cancellation")?;
                close(&mut state, JobStatus::Cancelled);
            }
            Self::Expired => {
                if before.status.is_closed() {
                    return Err("it ended more than once".into());
                }
                let is_session = before.status.is_session();
                close(&mut state, if is_session { JobStatus::Settled } else { JobStatus::Expired });
            }
            Self::Equivocated(_) => {
                named()?;
                let marked = before.sequence.checked_add(EQUIVOCATED);
                state.sequence = marked.ok_or("a second report of two receipts")?;
            }
            Self::EquivocationRefused => {
                let unmarked = before.sequence.checked_sub(EQUIVOCATED);
                state.sequence = unmarked.ok_or("a report came back that nobody made")?;
            }
        }
        Ok(state)
    }
}

/// What a receipt of a one-shot job is due.
pub(super) fn split_of(post: &PostReceipt, seller: &Seller, deposit: Amount) -> Split {
    let cost = seller.prices.cost(&post.receipt.units);
    Split::of(post.receipt.amount, cost, deposit, seller.share_bps)
}

fn special(terms: &MarketTerms) -> Option<Ref<JobSpecial>> {
    Ref::new(JobSpecial::Market(Box::new(terms.clone()))).ok()
}

fn read<M: Message>(step: &Step) -> Result<Box<M>, String> {
    M::from_cell(&step.body).map(Box::new).map_err(|error| error.to_string())
}

/// Whether the step is this internal message and did what it asked.
fn is(step: &Step, opcode: u32) -> bool {
    step.succeeded && !step.bounced && !step.external && step.opcode() == Some(opcode)
}

/// Client and nonce: from the initial data that gives this address, which anybody may have brought, before or with the
/// posting; else from the first that came.
fn identity(history: &JobHistory, steps: &[Step]) -> Result<(StdAddr, u64), String> {
    let mut first = None;
    for data in steps.iter().filter_map(|step| step.deployed_with.as_ref()) {
        let Ok(storage) = from_cell::<JobStorage>(data) else { continue };
        let found = (storage.client, storage.nonce);
        if history.network.job_address(&found.0, found.1).is_ok_and(|address| address == history.job) {
            return Ok(found);
        }
        first.get_or_insert(found);
    }
    first.ok_or_else(|| "no message brought the job's initial data".to_owned())
}
