//! Every message from every party in every state of a job, early and late: what the contract makes of them is the state
//! diagrams of `docs/protocol.md`, no more and no less. `UPDATE_SNAPSHOTS=1` draws them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::sync::LazyLock;

use contracts::job::{
    Bid, CancelJob, CloseSession, DeliverInput, ExpireJob, JobSpecial, JobState, JobStatus, JobStorage,
    PostInput, PostRejection, SweepJob, TakeJob, TopUpJob,
};
use contracts::wire::from_cell;
use contracts::worker::FundGas;
use contracts::{Amount, Cell, Nanoton, Prices, Ref, SigningKey, StdAddr, Units, opcodes};
use tests::market::{FEES, PRICES, TON, cell, delivery_key, hash};
use tests::{Job, Kind, Market, Terms, Tx, Worker};
use tycho_types::cell::CellBuilder;

const PAGE: &str = include_str!("../../../docs/protocol.md");
const PAGE_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md");
/// Of the diagrams, in the page's order.
const KINDS: [&str; 3] = ["a directed job", "a session", "a job of the market"];
/// Comments of a wallet, with the messages that they stand for.
const WORDS: [(&str, &str); 4] =
    [("cancel", "cancel_job"), ("close", "close_session"), ("expire", "expire_job"), ("sweep", "sweep_job")];
/// Where no job is.
const NOTHING: &str = "[*]";

#[test]
fn the_page_draws_the_transitions_that_the_contract_makes() {
    let mut page = PAGE.to_owned();
    for kind in KINDS {
        let (start, end) = (format!("<!-- states of {kind} -->\n"), format!("<!-- end of {kind} -->"));
        let from = page.find(&start).unwrap() + start.len();
        let to = page.find(&end).unwrap();
        page.replace_range(from..to, &drawn(&explored(kind)));
    }
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(PAGE_FILE, &page).unwrap();
    } else {
        assert_eq!(page, PAGE, "run this test with UPDATE_SNAPSHOTS=1 and commit docs/protocol.md");
    }
}

#[test]
fn the_tables_of_the_page_have_a_row_for_every_message_that_does_something_and_no_other() {
    for (kind, drawn) in DRAWN.iter() {
        let mut stated = BTreeSet::new();
        for (from, message) in table_rows(kind) {
            for from in from.split(", ") {
                let from = match from {
                    "nothing" => vec![NOTHING],
                    "closed" => drawn
                        .edges
                        .iter()
                        .map(|edge| edge.from.as_str())
                        .filter(|from| is_closed(from))
                        .collect(),
                    from => vec![from],
                };
                stated.extend(from.into_iter().map(|from| (from.to_owned(), message.clone())));
            }
        }
        let made: BTreeSet<(String, String)> =
            drawn.edges.iter().map(|edge| (edge.from.clone(), edge.message.clone())).collect();
        let missing: Vec<_> = made.difference(&stated).collect();
        let invented: Vec<_> = stated.difference(&made).collect();
        assert!(
            missing.is_empty() && invented.is_empty(),
            "{kind}: missing {missing:?}, invented {invented:?}"
        );
    }
}

#[test]
fn every_message_that_a_job_knows_is_tried() {
    let (_, rest) = include_str!("../../../contracts/job.tolk").split_once("type JobMessage =").unwrap();
    let known: BTreeSet<String> = rest
        .split("\n\n")
        .take(2)
        .flat_map(|list| list.trim_start_matches("type JobExternal =").split('|'))
        .map(|name| {
            let words = name.trim().chars().enumerate().map(|(at, letter)| match letter {
                'A'..='Z' if at > 0 => format!("_{}", letter.to_ascii_lowercase()),
                _ => letter.to_ascii_lowercase().to_string(),
            });
            words.collect()
        })
        // Stands for one of the others; words.rs holds each to the one it stands for.
        .filter(|name: &String| name != "text_comment")
        .collect();
    let mut world = World::new(KINDS[1]);
    let (body, init) = world.market.opening(&world.job);
    world.market.chain.send(
        &world.job.client.clone(),
        &world.job.address.clone(),
        Nanoton::new(2 * TON),
        body,
        Some(init),
    );
    let internal = world.internal_messages(&world.job.client).into_iter().map(|(name, ..)| name);
    let external = world.external_messages(&world.seller).into_iter().map(|(name, _)| name);
    let tried: BTreeSet<String> = internal
        .chain(external)
        .chain(["post_input"])
        .map(|name| name.split(", ").next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(tried, known);
}

#[test]
fn every_state_has_an_exit_that_a_stranger_can_trigger() {
    for kind in KINDS {
        let edges = explored(kind).0;
        let states: BTreeSet<Node> = edges.keys().flat_map(|edge| [edge.from, edge.to]).collect();
        assert!(states.len() > 4, "{kind} has the states {states:?}");
        for state in states {
            let mut reached = BTreeSet::from([state]);
            loop {
                let next: BTreeSet<Node> = edges
                    .iter()
                    .filter(|(edge, seen)| {
                        edge.who == Who::Person("stranger")
                            && reached.contains(&edge.from)
                            && !seen.is_empty()
                    })
                    .map(|(edge, _)| edge.to)
                    .filter(|to| !reached.contains(to))
                    .collect();
                if next.is_empty() {
                    break;
                }
                reached.extend(next);
            }
            assert!(reached.contains(&Node::NOTHING), "{kind}: a stranger cannot end {state:?}");
        }
    }
}

/// Panics unless the page draws what this transaction of a job did.
pub(crate) fn assert_drawn(tx: &Tx) {
    let (before, after) = (state_of(tx.before.as_ref()), state_of(tx.after.as_ref()));
    let name = |state: &Option<JobState>| state.as_ref().map_or(NOTHING, |state| state.status.name());
    let (from, to) = (name(&before), name(&after));
    let message = match tx.operation().as_str() {
        "text_comment (cancel)" => "cancel_job".to_owned(),
        "text_comment (close)" => "close_session".to_owned(),
        "text_comment (expire)" => "expire_job".to_owned(),
        "text_comment (sweep)" => "sweep_job".to_owned(),
        other => other.to_owned(),
    };
    // A payment that its account could not take, or a report that the Worker refused.
    if from == to && message.starts_with("bounced ") {
        return;
    }
    let Some(state) = before.or(after) else {
        panic!("{message} succeeded where no job is");
    };
    let drawn = &DRAWN[kind_of(&state)];
    let is_edge = |edge: &DrawnEdge| {
        edge.from == from && edge.to == to && edge.message.split(", ").next() == Some(message.as_str())
    };
    assert!(
        drawn.edges.iter().any(is_edge)
            || (from == to && drawn.still.contains(&(message.clone(), from.to_owned()))),
        "{message} made {from} {to}, which the page does not draw"
    );
}

/// What a state of a job is to its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Node {
    /// [`NOTHING`] or the status' name, behind its number for the order.
    order: u8,
    status: &'static str,
    /// A session that has paid something.
    is_drawn: bool,
    /// Of the market, one that somebody claimed.
    has_seller: bool,
}

impl Node {
    const NOTHING: Self = Self { order: 0, status: NOTHING, is_drawn: false, has_seller: false };

    fn of(state: Option<&JobState>) -> Self {
        state.map_or(Self::NOTHING, |state| Self {
            order: state.status as u8,
            status: state.status.name(),
            is_drawn: state.status.is_session() && !state.paid.is_zero(),
            has_seller: state.posting.seller.is_some(),
        })
    }
}

/// Who sent what made a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    /// An internal message of a wallet.
    Person(&'static str),
    /// A claim through a Worker.
    Contract(&'static str),
    /// An external message, by whose signature it bears.
    Key(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    from: Node,
    message: &'static str,
    who: Who,
    to: Node,
}

/// When, of the moments that a state has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    AtOnce,
    LastOfBidding,
    AfterBidding,
    Last,
    Late,
}

/// Edges with the moments at which they were found, and the moments that each state has.
type Explored = (BTreeMap<Edge, BTreeSet<Moment>>, BTreeMap<Node, BTreeSet<Moment>>);

#[derive(Clone)]
struct World {
    market: Market,
    seller: Worker,
    /// Sells the same for less.
    other: Worker,
    people: Vec<(&'static str, StdAddr)>,
    job: Job,
    /// Signs inputs of a job of the market.
    delivery_key: SigningKey,
    /// Of each kind, at the job's address.
    openings: Vec<(&'static str, Cell)>,
}

impl World {
    fn new(kind: &str) -> Self {
        let mut market = Market::open();
        let (seller, other) = (market.worker("seller"), market.worker("other"));
        let output = Nanoton::new(PRICES.output.get() as u64 - 1);
        market.offer(&other, Prices { output, ..PRICES });
        let client = market.person("client");
        let stranger = market.person("stranger");
        let people = vec![
            ("client", client.clone()),
            ("owner", seller.owner.clone()),
            ("registry owner", market.owner.clone()),
            ("stranger", stranger),
        ];
        let terms = Terms { bid_for_s: 60, ..Terms::default() };
        let mut drafts = [
            market.draft(&client, &seller, &terms),
            market.draft_session(&client, &seller, &terms),
            market.draft_open(&client, &seller, &terms),
        ];
        let delivery_key = delivery_key(drafts[2].nonce);
        let (nonce, address) = (drafts[0].nonce, drafts[0].address.clone());
        for draft in &mut drafts {
            (draft.nonce, draft.address) = (nonce, address.clone());
        }
        let names = ["post_job", "open_session", "post_open_job"];
        let openings = names.into_iter().zip(drafts.iter().map(|draft| market.opening(draft).0)).collect();
        let [directed, session, open] = drafts;
        let job = match kind {
            "a directed job" => directed,
            "a session" => session,
            _ => open,
        };
        Self { market, seller, other, people, job, delivery_key, openings }
    }

    fn state(&self) -> Option<JobState> {
        self.market.job_state(&self.job)
    }

    fn node(&self) -> Node {
        Node::of(self.state().as_ref())
    }

    /// The moments of this state, with the time of each.
    fn moments(&self) -> Vec<(Moment, u32)> {
        let now = self.market.chain.now;
        let mut moments = vec![(Moment::AtOnce, now)];
        let Some(state) = self.state() else {
            return moments;
        };
        if let Some(JobSpecial::Market(terms)) = state.posting.special.as_deref()
            && state.status == JobStatus::Awaiting
        {
            moments.push((Moment::LastOfBidding, terms.bid_until));
            moments.push((Moment::AfterBidding, terms.bid_until + 1));
        }
        moments.extend([(Moment::Last, state.until), (Moment::Late, state.until + 1)]);
        moments
    }

    /// Every message of every party, each tried in a future of its own where it did something.
    fn attempts(&self) -> Vec<(&'static str, Who, World)> {
        let mut made = Vec::new();
        for (name, person) in &self.people {
            for (message, body, value) in self.internal_messages(person) {
                let mut next = self.clone();
                let init = next.market.opening(&next.job).1;
                let txs =
                    next.market.chain.send(person, &next.job.address, Nanoton::new(value), body, Some(init));
                if next.took(&txs) {
                    made.push((message, Who::Person(name), next));
                }
            }
        }
        for (name, worker) in [("its Worker", &self.seller), ("a cheaper Worker", &self.other)] {
            let mut next = self.clone();
            if let Ok(txs) = next.market.claim(worker, &next.job.clone())
                && next.took(&txs)
            {
                made.push(("take_job", Who::Contract(name), next));
            }
        }
        for (name, worker) in [("the seller's key", &self.seller), ("another key", &self.other)] {
            for (message, body) in self.external_messages(worker) {
                let mut next = self.clone();
                if let Ok(txs) = next.market.chain.external(&next.job.address, body)
                    && next.took(&txs)
                {
                    made.push((message, Who::Key(name), next));
                }
            }
        }
        for (name, key) in [("the delivery key", &self.delivery_key), ("another key", &self.other.key)] {
            let mut next = self.clone();
            if let Ok(txs) = next.market.chain.external(&next.job.address, self.input_message(key))
                && next.took(&txs)
            {
                made.push(("post_input", Who::Key(name), next));
            }
        }
        made
    }

    /// Whether the job did what the first of these asked.
    fn took(&self, txs: &[Tx]) -> bool {
        txs.iter().find(|tx| tx.account == self.job.address && !tx.bounced).is_some_and(Tx::succeeded)
    }

    fn internal_messages(&self, from: &StdAddr) -> Vec<(&'static str, Cell, u64)> {
        let worker = self.seller.clone();
        let mut other = self.market.receipt(&self.job, Units::default());
        let one = other.clone();
        other.content_hash = hash("another answer");
        let bid = Bid {
            worker_owner: from.clone(),
            receipt_key: self.job.seller.receipt_key,
            model: self.job.seller.model,
            share_bps: self.job.seller.share_bps,
            prices: self.job.seller.prices,
            measurement: None,
        };
        let take = |bid| TakeJob { query_id: 1, bond: Amount::new(TON), stake: Amount::new(100 * TON), bid };
        let mut messages: Vec<(&'static str, Cell, u64)> =
            self.openings.iter().map(|(name, body)| (*name, body.clone(), 2 * TON)).collect();
        messages.extend([
            ("take_job", cell(&take(None)), 3 * TON),
            ("take_job", cell(&take(Some(Ref::new(bid).unwrap()))), 3 * TON),
            ("deliver_input", cell(&DeliverInput::new(1, &self.job.input).unwrap()), FEES),
            ("cancel_job", cell(&CancelJob { query_id: 1 }), FEES),
            ("close_session", cell(&CloseSession { query_id: 1 }), FEES),
            ("top_up_job", cell(&TopUpJob { query_id: 1, amount: Amount::new(TON) }), TON + FEES),
            ("expire_job", cell(&ExpireJob { query_id: 1 }), FEES),
            ("sweep_job", cell(&SweepJob { query_id: 1 }), FEES),
            ("report_equivocation", cell(&self.market.equivocation(&worker, one, other)), FEES),
            ("fund_gas", cell(&FundGas { query_id: 1 }), FEES),
        ]);
        messages.extend(WORDS.map(|(word, named)| (named, comment(word), FEES)));
        messages
    }

    fn input_message(&self, key: &SigningKey) -> Cell {
        let posting = self.state().map(|state| state.posting);
        let lt = posting.as_ref().map_or(0, |posting| posting.posted_lt);
        let seller = posting.and_then(|posting| posting.seller).map(Ref::into_value);
        let seller = Ref::new(seller.unwrap_or(self.job.seller.clone())).unwrap();
        let account = self.job.address.address;
        cell(&PostInput::signed(&account, lt, &seller, &self.job.input, key).unwrap())
    }

    fn external_messages(&self, worker: &Worker) -> Vec<(&'static str, Cell)> {
        let receipt = self.market.receipt(&self.job, Units { input: 10, cached_input: 0, output: 10 });
        let rejection = PostRejection::signed(self.market.rejection(&self.job, 1), &worker.key).unwrap();
        let mut messages = vec![
            ("post_receipt", cell(&self.market.answer(worker, receipt))),
            ("post_rejection", cell(&rejection)),
        ];
        if let Kind::Session(_) = self.job.kind {
            let drawn = self.state().map_or((0, 0), |state| (state.sequence, state.paid.get()));
            for (message, is_final) in [("redeem_receipt", false), ("redeem_receipt, final", true)] {
                let amount = drawn.1 + TON / 10;
                let receipt = self.market.session_receipt(&self.job, drawn.0 + 1, amount, is_final);
                messages.push((message, cell(&self.market.redemption(worker, &self.job, receipt, amount))));
            }
        }
        messages
    }
}

/// A wallet's comment: 32 zero bits and the text.
fn comment(word: &str) -> Cell {
    let mut body = CellBuilder::new();
    body.store_u32(0).unwrap();
    body.store_raw(word.as_bytes(), word.len() as u16 * 8).unwrap();
    body.build().unwrap()
}

/// What every message makes of every state that can be reached.
fn explored(kind: &str) -> Explored {
    let (mut edges, mut moments) = (BTreeMap::new(), BTreeMap::new());
    let start = World::new(kind);
    let mut queue = VecDeque::from([start]);
    while let Some(world) = queue.pop_front() {
        let from = world.node();
        if moments.contains_key(&from) {
            continue;
        }
        moments.insert(from, world.moments().into_iter().map(|(moment, _)| moment).collect::<BTreeSet<_>>());
        for (moment, time) in world.moments() {
            let mut then = world.clone();
            then.market.chain.wait(time - world.market.chain.now);
            for (message, who, next) in then.attempts() {
                let to = next.node();
                edges.entry(Edge { from, message, who, to }).or_insert_with(BTreeSet::new).insert(moment);
                // A job whose place another kind of job took is of that kind's diagram.
                if next.state().is_none_or(|state| kind_of(&state) == kind) {
                    queue.push_back(next);
                }
            }
        }
    }
    edges.retain(|edge: &Edge, _| edge.from != Node::NOTHING || start_of(kind) == edge.message);
    (edges, moments)
}

fn start_of(kind: &str) -> &'static str {
    match kind {
        "a directed job" => "post_job",
        "a session" => "open_session",
        _ => "post_open_job",
    }
}

fn kind_of(state: &JobState) -> &'static str {
    match state.posting.special.as_deref() {
        None => KINDS[0],
        Some(JobSpecial::Session(_)) => KINDS[1],
        Some(JobSpecial::Market(_)) => KINDS[2],
    }
}

fn state_of(data: Option<&Cell>) -> Option<JobState> {
    from_cell::<JobStorage>(data?).unwrap().state
}

/// From which state, by whom and when an edge was found.
type Found<'a> = (Node, Who, &'a BTreeSet<Moment>);

/// The diagram, and a line on what anyone may send without a change of state.
fn drawn((edges, moments): &Explored) -> String {
    let people: BTreeSet<Who> = ["client", "owner", "registry owner", "stranger"].map(Who::Person).into();
    // (from, to, message) to who may, and when.
    let mut lines: BTreeMap<(u8, &str, u8, &str, &str), Vec<Found>> = BTreeMap::new();
    for (edge, seen) in edges {
        let key = (edge.from.order, edge.from.status, edge.to.order, edge.to.status, edge.message);
        lines.entry(key).or_default().push((edge.from, edge.who, seen));
    }
    let mut text = "```mermaid\nstateDiagram-v2\n".to_owned();
    let mut still: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for ((_, from, _, to, message), found) in lines {
        let who: BTreeSet<Who> = found.iter().map(|(_, who, _)| *who).collect();
        let seen: BTreeSet<Moment> = found.iter().flat_map(|(_, _, seen)| seen.iter().copied()).collect();
        let nodes: BTreeSet<Node> = found.iter().map(|(node, ..)| *node).collect();
        // Nobody may do at one time what another may only at another time.
        assert!(found.iter().all(|(_, _, other)| **other == seen), "{message} in {from}: {found:?}");
        let all = &moments[&found[0].0];
        let who = if who == people {
            "anyone".to_owned()
        } else {
            let name = |who: &Who| match who {
                Who::Person(name) | Who::Contract(name) | Who::Key(name) => *name,
            };
            match who.iter().map(name).collect::<Vec<_>>()[..] {
                ["a cheaper Worker", "its Worker"] => "any Worker that qualifies".to_owned(),
                ref names => names.join(" or "),
            }
        };
        if from == to && who == "anyone" && seen == *all {
            still.entry(message).or_default().push(from);
            continue;
        }
        let undrawn =
            moments.keys().any(|node| node.status == from && node.is_drawn && !nodes.contains(node));
        let when = when(&seen, all);
        let when = if undrawn { format!("{when}, before anything is paid") } else { when };
        writeln!(text, "    {from} --> {to}: {message} ({who}{when})").unwrap();
    }
    text.push_str("```\n");
    if !still.is_empty() {
        let each: Vec<String> =
            still.iter().map(|(message, from)| format!("`{message}` in {}", from.join(", "))).collect();
        writeln!(text, "\nFrom anyone, at any time, without a change of state: {}.", each.join("; "))
            .unwrap();
    }
    text
}

fn when(seen: &BTreeSet<Moment>, all: &BTreeSet<Moment>) -> String {
    use Moment::*;
    let in_time: BTreeSet<Moment> = all.iter().copied().filter(|moment| *moment != Late).collect();
    let is = |moments: &[Moment]| *seen == moments.iter().copied().collect();
    if seen == all {
        String::new()
    } else if *seen == in_time {
        ", in time".to_owned()
    } else if is(&[Late]) {
        ", late".to_owned()
    } else if is(&[AtOnce, LastOfBidding]) {
        ", while bids are taken".to_owned()
    } else if is(&[AfterBidding, Last]) {
        ", after the bidding, in time".to_owned()
    } else {
        panic!("no words for {seen:?} of {all:?}")
    }
}

struct Drawn {
    edges: Vec<DrawnEdge>,
    /// Messages without a change of state, with the state.
    still: BTreeSet<(String, String)>,
}

struct DrawnEdge {
    from: String,
    to: String,
    message: String,
}

/// By kind, as the page has it.
static DRAWN: LazyLock<BTreeMap<&str, Drawn>> = LazyLock::new(|| {
    let read = |kind: &str| {
        let (_, rest) = PAGE.split_once(&format!("<!-- states of {kind} -->\n")).unwrap();
        let (text, _) = rest.split_once(&format!("<!-- end of {kind} -->")).unwrap();
        let mut drawn = Drawn { edges: Vec::new(), still: BTreeSet::new() };
        for line in text.lines() {
            if let Some((from, rest)) = line.trim().split_once(" --> ") {
                let (to, rest) = rest.split_once(": ").unwrap();
                let (message, _) = rest.split_once(" (").unwrap();
                drawn.edges.push(DrawnEdge { from: from.into(), to: to.into(), message: message.into() });
            }
            if let Some((_, list)) = line.split_once("without a change of state: ") {
                for part in list.trim_end_matches('.').split("; ") {
                    let (message, states) = part.split_once(" in ").unwrap();
                    let each =
                        states.split(", ").map(|state| (message.trim_matches('`').to_owned(), state.into()));
                    drawn.still.extend(each);
                }
            }
        }
        drawn
    };
    KINDS.into_iter().map(|kind| (kind, read(kind))).collect()
});

fn is_closed(status: &str) -> bool {
    JobStatus::ALL.iter().any(|known| known.is_closed() && known.name() == status)
}

/// `(from, message)` of the table below the diagram.
fn table_rows(kind: &str) -> Vec<(String, String)> {
    let (_, rest) = PAGE.split_once(&format!("<!-- end of {kind} -->")).unwrap();
    let section = rest.split("\n## ").next().unwrap_or_default();
    let mut rows = Vec::new();
    let mut is_inside = false;
    for line in section.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        match cells[..] {
            ["from", "message", "who", "when", "money"] => is_inside = true,
            [from, message, ..] if is_inside && cells.len() == 5 && !from.starts_with("---") => {
                rows.push((from.to_owned(), message.replace('`', "")));
            }
            _ => is_inside = is_inside && line.starts_with('|'),
        }
    }
    assert!(
        rows.len() > 5
            && rows.iter().all(|(_, message)| {
                let name = message.split(", ").next().unwrap_or_default();
                opcodes::ALL.iter().any(|(_, known)| *known == name)
            }),
        "{rows:?}"
    );
    rows
}
