//! A chain of accounts: messages delivered one by one through the TVM, a virtual clock, and every nanoTON counted.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use contracts::comment::TextComment;
use contracts::fees::FeePrices;
use contracts::{Cell, HashBytes, Message, Nanoton, StateInit, StdAddr, opcodes};
use num_bigint::BigInt;
use sha2::{Digest, Sha256};
use tycho_types::cell::{CellBuilder, CellSlice, CellSliceParts, CellSliceRange, Lazy};
use tycho_types::models::{
    AccountState, AccountStatus, ComputePhase, CurrencyCollection, ExtInMsgInfo, IntAddr, IntMsgInfo,
    MsgInfo, OptionalAccount, OwnedMessage, ShardAccount, Transaction, TxInfo,
};
use tycho_types::num::Tokens;

use crate::engine::{Engine, Refused, StackItem};

/// Unix time at which every chain starts.
pub const GENESIS: u32 = 1_800_000_000;
/// What a person's wallet pays to have a message forwarded.
pub const FORWARD_FEE: u128 = 1_000_000;

/// Accounts, messages on their way, clock, totals. A clone is another future of the same chain.
#[derive(Clone)]
pub struct Chain {
    engine: Arc<Engine>,
    pub now: u32,
    lt: u64,
    contracts: BTreeMap<StdAddr, ShardAccount>,
    people: BTreeMap<StdAddr, Person>,
    queues: BTreeMap<(StdAddr, StdAddr), VecDeque<Envelope>>,
    minted: u128,
    collected: u128,
    /// Every transaction of a contract so far, oldest first.
    pub log: Vec<Tx>,
}

/// One message as it met its account, for the official emulator.
#[derive(Debug, Clone)]
pub struct Case {
    /// Contract, operation and outcome, and which of that kind.
    pub name: String,
    pub now: u32,
    pub lt: u64,
    /// A `ShardAccount`.
    pub account: Cell,
    pub message: Cell,
}

thread_local! {
    static RECORDED: RefCell<Option<BTreeMap<String, Case>>> = const { RefCell::new(None) };
}

/// From now on the chains of this thread keep up to two cases of every kind.
pub fn record() {
    RECORDED.set(Some(BTreeMap::new()));
}

/// What was kept since [`record`].
pub fn recorded() -> Vec<Case> {
    RECORDED.take().map(BTreeMap::into_values).into_iter().flatten().collect()
}

fn keep(kind: &str, now: u32, lt: u64, account: &ShardAccount, message: &Cell) {
    RECORDED.with_borrow_mut(|recorded| {
        let Some(recorded) = recorded else { return };
        let Some(name) =
            (0..2).map(|count| format!("{kind} #{count}")).find(|name| !recorded.contains_key(name))
        else {
            return;
        };
        let account = CellBuilder::build_from(account).expect("an account fits");
        recorded.insert(name.clone(), Case { name, now, lt, account, message: message.clone() });
    });
}

/// An account that accepts everything and signs by being asked: a wallet without its code.
#[derive(Debug, Default, Clone)]
pub struct Person {
    pub balance: u128,
    pub inbox: Vec<Received>,
}

/// An internal message that reached a person.
#[derive(Debug, Clone)]
pub struct Received {
    pub from: StdAddr,
    pub value: u128,
    pub bounced: bool,
    pub body: Cell,
}

impl Received {
    /// The body as a message, where it is one.
    pub fn read<M: Message>(&self) -> Option<M> {
        M::from_cell(&self.body).ok()
    }
}

/// One transaction of a contract.
#[derive(Debug, Clone)]
pub struct Tx {
    pub account: StdAddr,
    pub lt: u64,
    /// The transaction itself.
    pub cell: Cell,
    /// Nothing for an external message.
    pub from: Option<StdAddr>,
    pub value: u128,
    pub bounced: bool,
    pub body: Cell,
    /// Nothing when the compute phase was skipped.
    pub exit_code: Option<i32>,
    /// Nothing when there was no action phase.
    pub action_code: Option<i32>,
    pub aborted: bool,
    pub gas_used: u64,
    pub fees: u128,
    pub out: Vec<Sent>,
    /// Bodies of the external messages to nobody.
    pub logs: Vec<Cell>,
    pub destroyed: bool,
    /// Storage of the account as the message found it and left it; nothing where it was not active.
    pub before: Option<Cell>,
    pub after: Option<Cell>,
}

/// An internal message a contract sent.
#[derive(Debug, Clone)]
pub struct Sent {
    pub to: StdAddr,
    pub value: u128,
    /// Whether it comes back from an account that cannot take it.
    pub bounce: bool,
    pub body: Cell,
}

impl Sent {
    pub fn read<M: Message>(&self) -> Option<M> {
        M::from_cell(&self.body).ok()
    }
}

impl Tx {
    /// Opcode of the body, behind the bounce marker where there is one.
    pub fn opcode(&self) -> Option<u32> {
        let mut slice = self.body.as_slice().ok()?;
        if self.bounced {
            slice.skip_first(32, 0).ok()?;
        }
        slice.get_u32(0).ok()
    }

    /// `post_job`, `bounced take_job`, `transfer`, …
    pub fn operation(&self) -> String {
        let name = match self.opcode() {
            Some(code) => opcodes::name(code).map_or_else(|| format!("{code:08x}"), str::to_owned),
            None => "transfer".to_owned(),
        };
        let word = || TextComment::from_cell(&self.body).ok()?.text.word().ok();
        let name = match word() {
            Some(word) => format!("{name} ({word})"),
            None => name,
        };
        if self.bounced { format!("bounced {name}") } else { name }
    }

    pub fn succeeded(&self) -> bool {
        !self.aborted && self.exit_code == Some(0) && matches!(self.action_code, Some(0) | None)
    }

    pub fn sent<M: Message>(&self) -> Option<M> {
        self.out.iter().find_map(Sent::read)
    }

    pub fn logged<M: Message>(&self) -> Option<M> {
        self.logs.iter().find_map(|body| M::from_cell(body).ok())
    }
}

#[derive(Clone)]
struct Envelope {
    message: Cell,
    from: StdAddr,
    to: StdAddr,
    value: u128,
    forward_fee: u128,
    bounced: bool,
    created_lt: u64,
    body: Cell,
}

impl Chain {
    pub fn new() -> Self {
        Self {
            engine: Arc::new(Engine::default()),
            now: GENESIS,
            lt: 1_000_000,
            contracts: BTreeMap::new(),
            people: BTreeMap::new(),
            queues: BTreeMap::new(),
            minted: 0,
            collected: 0,
            log: Vec::new(),
        }
    }

    /// A person with money.
    pub fn person(&mut self, name: &str, balance: Nanoton) -> StdAddr {
        self.person_in(0, name, balance)
    }

    /// A person with money in another workchain than the base one, as the masterchain.
    pub fn person_in(&mut self, workchain: i8, name: &str, balance: Nanoton) -> StdAddr {
        let address = StdAddr::new(workchain, HashBytes(Sha256::digest(name).into()));
        self.people.entry(address.clone()).or_default().balance += balance.get();
        self.minted += balance.get();
        address
    }

    /// Makes a person of an address, with money.
    pub fn adopt(&mut self, address: &StdAddr, balance: Nanoton) {
        self.people.entry(address.clone()).or_default().balance += balance.get();
        self.minted += balance.get();
    }

    pub fn inbox(&self, person: &StdAddr) -> &[Received] {
        self.people.get(person).map_or(&[], |person| &person.inbox)
    }

    /// Forgets what people have received, to keep long runs small.
    pub fn clear_history(&mut self) {
        self.log.clear();
        for person in self.people.values_mut() {
            person.inbox.clear();
        }
    }

    /// Balance of a person or a contract, in nanoTON.
    pub fn balance(&self, address: &StdAddr) -> u128 {
        if let Some(person) = self.people.get(address) {
            return person.balance;
        }
        self.contracts.get(address).map_or(0, contract_balance)
    }

    /// Storage of an active contract.
    pub fn data(&self, address: &StdAddr) -> Option<Cell> {
        match self.contracts.get(address)?.load_account().ok()??.state {
            AccountState::Active(init) => init.data,
            _ => None,
        }
    }

    /// State of a contract for a get-method.
    pub fn account(&self, address: &StdAddr) -> Option<&ShardAccount> {
        self.contracts.get(address)
    }

    /// Addresses of the contracts that exist.
    pub fn contract_addresses(&self) -> impl Iterator<Item = &StdAddr> {
        self.contracts.keys()
    }

    /// Deletes a contract as unpaid rent would in the end; what it held counts as fees.
    pub fn delete(&mut self, address: &StdAddr) {
        if let Some(account) = self.contracts.remove(address) {
            self.collected += contract_balance(&account);
        }
    }

    /// Takes from a contract, as fees, all that it holds above so much: dearer rent or gas would have.
    pub fn take_above(&mut self, address: &StdAddr, balance: u128) {
        let account = self.contracts.get_mut(address).expect("the contract exists");
        let mut state = account.load_account().expect("an account reads back").expect("the account exists");
        let held = state.balance.tokens.into_inner();
        self.collected += held.checked_sub(balance).expect("the contract holds that much");
        state.balance.tokens = Tokens::new(balance);
        account.account = Lazy::new(&OptionalAccount(Some(state))).expect("an account fits");
    }

    /// The least balance of a contract with which this succeeds; more is as good.
    pub fn least_balance(&self, address: &StdAddr, succeeds: impl Fn(&mut Self) -> bool) -> u128 {
        let (mut too_little, mut enough) = (0, self.balance(address));
        while enough - too_little > 1 {
            let balance = too_little.midpoint(enough);
            let mut chain = self.clone();
            chain.take_above(address, balance);
            *if succeeds(&mut chain) { &mut enough } else { &mut too_little } = balance;
        }
        enough
    }

    pub fn wait(&mut self, seconds: u32) {
        self.now += seconds;
    }

    /// Puts a person's message on its way. False when the person cannot pay for it.
    pub fn submit(
        &mut self,
        from: &StdAddr,
        to: &StdAddr,
        value: u128,
        body: Cell,
        init: Option<StateInit>,
        bounce: bool,
    ) -> bool {
        let person = self.people.entry(from.clone()).or_default();
        let Some(rest) = person.balance.checked_sub(value + FORWARD_FEE) else {
            return false;
        };
        person.balance = rest;
        self.lt += 1;
        let message = OwnedMessage {
            info: MsgInfo::Int(IntMsgInfo {
                ihr_disabled: true,
                bounce,
                bounced: false,
                src: IntAddr::Std(from.clone()),
                dst: IntAddr::Std(to.clone()),
                value: CurrencyCollection { tokens: Tokens::new(value), ..CurrencyCollection::ZERO },
                fwd_fee: Tokens::new(FORWARD_FEE),
                created_lt: self.lt,
                created_at: self.now,
                ..Default::default()
            }),
            init,
            body: whole(body),
            layout: None,
        };
        let message = CellBuilder::build_from(&message).expect("a message of the tests is valid");
        self.enqueue(message);
        true
    }

    /// Sends and delivers everything that follows; the transactions of that, in order.
    pub fn send(
        &mut self,
        from: &StdAddr,
        to: &StdAddr,
        value: Nanoton,
        body: Cell,
        init: Option<StateInit>,
    ) -> Vec<Tx> {
        assert!(
            self.submit(from, to, value.get(), body, init, true),
            "the sender cannot pay for the message"
        );
        self.settle_from(self.log.len())
    }

    /// An external message and everything that follows. `Err` when the contract did not accept it: then nothing happened.
    pub fn external(&mut self, to: &StdAddr, body: Cell) -> Result<Vec<Tx>, Refused> {
        let start = self.log.len();
        self.submit_external(to, body)?;
        Ok(self.settle_from(start))
    }

    /// An external message, without what follows.
    pub fn submit_external(&mut self, to: &StdAddr, body: Cell) -> Result<(), Refused> {
        let message = OwnedMessage {
            info: MsgInfo::ExtIn(ExtInMsgInfo {
                src: None,
                dst: IntAddr::Std(to.clone()),
                import_fee: Tokens::ZERO,
            }),
            init: None,
            body: whole(body.clone()),
            layout: None,
        };
        let message = CellBuilder::build_from(&message).expect("a message of the tests is valid");
        self.run(to, message, None, body)
    }

    /// Delivers until nothing is on its way; the transactions of that.
    pub fn settle(&mut self) -> Vec<Tx> {
        self.settle_from(self.log.len())
    }

    fn settle_from(&mut self, start: usize) -> Vec<Tx> {
        while self.deliver(|_| 0) {}
        self.assert_conserved();
        self.log[start..].to_vec()
    }

    /// Delivers one message. Between a pair of accounts the order is kept; `pick` chooses among the pairs, oldest first.
    /// False when nothing was on its way.
    pub fn deliver(&mut self, pick: impl FnOnce(usize) -> usize) -> bool {
        let mut heads: Vec<_> = self
            .queues
            .iter()
            .filter_map(|(pair, queue)| queue.front().map(|head| (head.created_lt, pair.clone())))
            .collect();
        if heads.is_empty() {
            return false;
        }
        heads.sort();
        let (_, pair) = heads.swap_remove(pick(heads.len()) % heads.len());
        let Some(queue) = self.queues.get_mut(&pair) else {
            return false;
        };
        let Some(envelope) = queue.pop_front() else {
            return false;
        };
        if queue.is_empty() {
            self.queues.remove(&pair);
        }
        self.collected += envelope.forward_fee;
        if let Some(person) = self.people.get_mut(&envelope.to) {
            person.balance += envelope.value;
            person.inbox.push(Received {
                from: envelope.from,
                value: envelope.value,
                bounced: envelope.bounced,
                body: envelope.body,
            });
            return true;
        }
        let to = envelope.to.clone();
        let message = envelope.message.clone();
        let body = envelope.body.clone();
        self.run(&to, message, Some(envelope), body).expect("an internal message is always processed");
        true
    }

    /// Panics unless what people and contracts hold, what is on its way and what was paid in fees is what was minted.
    pub fn assert_conserved(&self) {
        let people: u128 = self.people.values().map(|person| person.balance).sum();
        let contracts: u128 = self.contracts.values().map(contract_balance).sum();
        let flying: u128 =
            self.queues.values().flatten().map(|envelope| envelope.value + envelope.forward_fee).sum();
        assert_eq!(
            people + contracts + flying + self.collected,
            self.minted,
            "nanoTON were lost or made: people {people}, contracts {contracts}, on the way {flying}, fees {}",
            self.collected
        );
    }

    /// Fees paid so far, in nanoTON.
    pub fn fees_collected(&self) -> u128 {
        self.collected
    }

    /// The one integer that a get-method of a contract leaves.
    pub fn get_int(&self, contract: &StdAddr, method: &str, arguments: &[u128]) -> Option<u128> {
        self.engine.get_int(self.contracts.get(contract)?, self.now, method, arguments)
    }

    /// What a get-method leaves on the stack, bottom first. `None` where it failed.
    pub fn get(&self, contract: &StdAddr, method: &str, arguments: &[BigInt]) -> Option<Vec<StackItem>> {
        self.engine.get(self.contracts.get(contract)?, self.now, method, arguments)
    }

    /// Prices that every contract here is charged.
    pub fn prices(&self) -> FeePrices {
        self.engine.prices()
    }

    fn enqueue(&mut self, message: Cell) {
        let parsed: OwnedMessage = message.parse().expect("a message of the chain is valid");
        let MsgInfo::Int(info) = parsed.info else {
            return;
        };
        let (IntAddr::Std(from), IntAddr::Std(to)) = (info.src, info.dst) else {
            panic!("a message names a variable address");
        };
        let envelope = Envelope {
            from: from.clone(),
            to: to.clone(),
            value: info.value.tokens.into_inner(),
            forward_fee: info.fwd_fee.into_inner(),
            bounced: info.bounced,
            created_lt: info.created_lt,
            body: rest(&parsed.body),
            message,
        };
        self.queues.entry((from, to)).or_default().push_back(envelope);
    }

    fn run(
        &mut self,
        to: &StdAddr,
        message: Cell,
        envelope: Option<Envelope>,
        body: Cell,
    ) -> Result<(), Refused> {
        let empty = self.engine.empty_account();
        let before = self.contracts.get(to).unwrap_or(&empty);
        let (lt, external) = (self.lt, envelope.is_none());
        let executed = match self.engine.execute(to, before, message.clone(), external, self.now, lt) {
            Ok(executed) => executed,
            Err(refused) => {
                // Without an exit code no transaction was tried.
                if let Some(exit_code) = refused.exit_code {
                    let kind = kind(before, &body, false, &format!("refused {exit_code}"));
                    keep(&kind, self.now, lt, before, &message);
                }
                return Err(refused);
            }
        };
        let transaction: Transaction = executed.transaction;
        self.lt = executed.end_lt;
        let TxInfo::Ordinary(info) = transaction.info.load().expect("a transaction has info") else {
            panic!("only ordinary transactions happen here");
        };
        let (exit_code, gas_used) = match &info.compute_phase {
            ComputePhase::Executed(phase) => (Some(phase.exit_code), u64::from(phase.gas_used)),
            ComputePhase::Skipped(_) => (None, 0),
        };
        let action_code = info.action_phase.as_ref().map(|phase| phase.result_code);
        let outcome = format!("{exit_code:?} {action_code:?}").replace("Some", "").replace(['(', ')'], "");
        let bounced = envelope.as_ref().is_some_and(|envelope| envelope.bounced);
        keep(&kind(before, &body, bounced, &outcome), self.now, lt, before, &message);
        let (mut out, mut logs) = (Vec::new(), Vec::new());
        for message in transaction.out_msgs.values() {
            let message = message.expect("out messages are well formed");
            let parsed: OwnedMessage = message.parse().expect("an out message is valid");
            match &parsed.info {
                MsgInfo::Int(info) => {
                    if let IntAddr::Std(to) = &info.dst {
                        let value = info.value.tokens.into_inner();
                        assert!(
                            !info.bounce || !self.people.contains_key(to),
                            "what a wallet refuses would come back to a contract that has let go of it"
                        );
                        out.push(Sent {
                            to: to.clone(),
                            value,
                            bounce: info.bounce,
                            body: rest(&parsed.body),
                        });
                    }
                    self.enqueue(message);
                }
                MsgInfo::ExtOut(_) => logs.push(rest(&parsed.body)),
                MsgInfo::ExtIn(_) => panic!("a contract sent an external message to itself"),
            }
        }
        let fees = transaction.total_fees.tokens.into_inner();
        self.collected += fees + executed.burned;
        let destroyed = transaction.end_status == AccountStatus::NotExists;
        let before = self.data(to);
        if destroyed {
            self.contracts.remove(to);
        } else {
            self.contracts.insert(to.clone(), executed.account);
        }
        self.log.push(Tx {
            account: to.clone(),
            lt: transaction.lt,
            cell: CellBuilder::build_from(&transaction).expect("a transaction fits"),
            from: envelope.as_ref().map(|envelope| envelope.from.clone()),
            value: envelope.as_ref().map_or(0, |envelope| envelope.value),
            bounced,
            body,
            exit_code,
            action_code,
            aborted: info.aborted,
            gas_used,
            fees,
            out,
            logs,
            destroyed,
            before,
            after: self.data(to),
        });
        Ok(())
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}

/// Highest gas of each `(contract, operation)` in a log.
pub fn gas_by_operation(log: &[Tx], names: &HashMap<StdAddr, &'static str>) -> BTreeMap<String, u64> {
    let mut gas = BTreeMap::new();
    let mut unnamed = HashSet::new();
    for tx in log.iter().filter(|tx| tx.succeeded()) {
        let Some(name) = names.get(&tx.account) else {
            unnamed.insert(tx.account.clone());
            continue;
        };
        let entry = gas.entry(format!("{name} {}", tx.operation())).or_insert(0);
        *entry = tx.gas_used.max(*entry);
    }
    gas
}

/// Of a message: whose code it met, what it asked and what came of it.
fn kind(account: &ShardAccount, body: &Cell, bounced: bool, outcome: &str) -> String {
    let state = account.load_account().ok().flatten().map(|account| account.state);
    let code = match state {
        Some(AccountState::Active(init)) => init.code.map_or_else(|| "no code".to_owned(), code_name),
        Some(AccountState::Frozen(_)) => "frozen".to_owned(),
        Some(AccountState::Uninit) => "uninit".to_owned(),
        None => "nothing".to_owned(),
    };
    let operation = operation(body, bounced);
    format!("{code} {operation} {outcome}")
}

fn code_name(code: Cell) -> String {
    use contracts::artifacts::{self, Contract};
    let of =
        |contract: &Contract| [artifacts::code(*contract), artifacts::library(*contract)].contains(&code);
    Contract::ALL.iter().find(|contract| of(contract)).map_or("unknown code", |found| found.name()).to_owned()
}

fn operation(body: &Cell, bounced: bool) -> String {
    let opcode = body.as_slice().ok().and_then(|mut slice| {
        if bounced {
            slice.skip_first(32, 0).ok()?;
        }
        slice.get_u32(0).ok()
    });
    let name = match opcode {
        Some(code) => opcodes::name(code).map_or_else(|| "unknown".to_owned(), str::to_owned),
        None => "transfer".to_owned(),
    };
    if bounced { format!("bounced {name}") } else { name }
}

fn contract_balance(account: &ShardAccount) -> u128 {
    account.load_account().ok().flatten().map_or(0, |account| account.balance.tokens.into_inner())
}

fn whole(cell: Cell) -> CellSliceParts {
    (CellSliceRange::full(cell.as_ref()), cell)
}

fn rest(parts: &CellSliceParts) -> Cell {
    let slice = CellSlice::apply(parts).expect("a body lies in its cell");
    let mut builder = CellBuilder::new();
    builder.store_slice(slice).expect("a body fits a cell");
    builder.build().expect("a body fits a cell")
}
