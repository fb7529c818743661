//! A job's transactions as the audit needs them: linked, bounded, and with every nanoTON of each.

use contracts::{Cell, HashBytes, StdAddr};
use tycho_types::cell::CellBuilder;
use tycho_types::error::Error as CellError;
use tycho_types::models::{ComputePhase, IntAddr, Message, MsgInfo, Transaction, TxInfo};

use super::MAX_TRANSACTIONS;
use super::comment::message_of;
use super::error::StoryError;
use crate::check::holds;

/// TON allows a transaction 255 actions. A hostile one may name the same cell as 2^15 messages.
const MAX_OUT_MESSAGES: usize = 255;

/// One transaction, as far as an audit needs it.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(super) hash: HashBytes,
    pub(super) lt: u64,
    pub(super) at_s: u32,
    pub(super) succeeded: bool,
    pub(super) external: bool,
    pub(super) from: Option<StdAddr>,
    pub(super) value: u128,
    pub(super) bounced: bool,
    /// Of a comment, the message that it stands for.
    pub(super) body: Cell,
    /// Code, where it came too, and data that the message brought.
    pub(super) deployed_with: Option<(Option<Cell>, Cell)>,
    pub(super) sent: Vec<Sent>,
    /// All that the chain took, the gas and the rent included.
    pub(super) fees: u128,
    pub(super) gas_used: u64,
    pub(super) gas_fees: u128,
    pub(super) rent: u128,
    /// The messages to nobody.
    pub(super) logs: Vec<Cell>,
}

/// A message that a transaction sent.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) to: StdAddr,
    pub(super) value: u128,
    pub(super) forward_fee: u128,
    pub(super) body: Cell,
}

impl Step {
    /// The first 32 bits of the body; behind the marker of a bounce, the bounced message's.
    pub(super) fn opcode(&self) -> Option<u32> {
        let mut slice = self.body.as_slice().ok()?;
        if self.bounced && slice.load_u32().ok()? != BOUNCED {
            return None;
        }
        slice.load_u32().ok()
    }

    /// What `gas` would have cost in this transaction, rounded up.
    pub(super) fn price_of(&self, gas: u64) -> u128 {
        let total = self.gas_fees.saturating_mul(u128::from(gas));
        if self.gas_used == 0 { 0 } else { total.div_ceil(u128::from(self.gas_used)) }
    }

    /// The fees that travel with the messages.
    pub(super) fn forward_fees(&self) -> u128 {
        self.sent.iter().fold(0, |sum, sent| sum.saturating_add(sent.forward_fee))
    }

    /// What left the account with the messages: values and the fees that travel with them.
    pub(super) fn sent_total(&self) -> u128 {
        self.sent
            .iter()
            .fold(0, |sum: u128, sent| sum.saturating_add(sent.value).saturating_add(sent.forward_fee))
    }
}

const BOUNCED: u32 = 0xffff_ffff;

/// The step that this transaction of `job` is, where it follows `previous`, or is the account's first.
pub(super) fn read_next(
    job: &StdAddr,
    previous: Option<&Step>,
    count: usize,
    cell: &Cell,
) -> Result<Step, StoryError> {
    let hash = *cell.repr_hash();
    if count >= MAX_TRANSACTIONS {
        return Err(StoryError::TooLong);
    }
    let transaction = cell.parse::<Transaction>().map_err(|_| StoryError::Malformed { hash })?;
    if transaction.account != job.address {
        return Err(StoryError::OtherAccount { hash });
    }
    let linked = match previous {
        Some(previous) => {
            transaction.prev_trans_lt == previous.lt && transaction.prev_trans_hash == previous.hash
        }
        None => transaction.prev_trans_lt == 0,
    };
    if !linked {
        return Err(StoryError::Unlinked { hash });
    }
    read_step(hash, &transaction).map_err(|_| StoryError::Malformed { hash })
}

/// What the account holds after each step; an error where one spends more than there was.
pub(super) fn balances(steps: &[Step]) -> Result<Vec<u128>, String> {
    let mut held: u128 = 0;
    let mut after = Vec::with_capacity(steps.len());
    for step in steps {
        held = held
            .saturating_add(step.value)
            .checked_sub(step.sent_total().saturating_add(step.fees))
            .ok_or_else(|| format!("the transaction at lt {} spends more than there was", step.lt))?;
        after.push(held);
    }
    Ok(after)
}

/// Whether what the steps leave is what the account has.
pub(super) fn conservation(steps: &[Step], balance: u128) -> Result<String, String> {
    let held = balances(steps)?.last().copied().unwrap_or_default();
    let (mut came, mut sent, mut fees) = (0u128, 0u128, 0u128);
    for step in steps {
        came = came.saturating_add(step.value);
        sent = sent.saturating_add(step.sent_total());
        fees = fees.saturating_add(step.fees);
    }
    holds(
        held == balance,
        format!("{came} nanoTON came, {sent} were sent, {fees} the chain took, {held} are left"),
        format!("{held} should be left, {balance} are"),
    )
}

fn read_step(hash: HashBytes, transaction: &Transaction) -> Result<Step, CellError> {
    let info = transaction.load_info()?;
    let (mut succeeded, mut gas_used, mut gas_fees, mut rent) = (false, 0, 0, 0);
    if let TxInfo::Ordinary(info) = &info {
        rent = info.storage_phase.as_ref().map_or(0, |phase| phase.storage_fees_collected.into_inner());
        if let ComputePhase::Executed(run) = &info.compute_phase {
            succeeded = !info.aborted && run.success;
            (gas_used, gas_fees) = (run.gas_used.into_inner(), run.gas_fees.into_inner());
        }
    }
    let mut step = Step {
        hash,
        lt: transaction.lt,
        at_s: transaction.now,
        succeeded,
        external: false,
        from: None,
        value: 0,
        bounced: false,
        body: Cell::default(),
        deployed_with: None,
        sent: Vec::new(),
        fees: transaction.total_fees.tokens.into_inner(),
        gas_used,
        gas_fees,
        rent,
        logs: Vec::new(),
    };
    if let Some(cell) = &transaction.in_msg {
        let message = cell.parse::<Message<'_>>()?;
        match &message.info {
            MsgInfo::Int(info) => {
                step.from = std_address(&info.src);
                step.value = info.value.tokens.into_inner();
                step.bounced = info.bounced;
                step.body = CellBuilder::build_from(message.body)?;
                if let (false, Some(said)) = (info.bounced, message_of(&step.body)) {
                    step.body = said;
                }
            }
            MsgInfo::ExtIn(_) => {
                step.external = true;
                step.body = CellBuilder::build_from(message.body)?;
            }
            MsgInfo::ExtOut(_) => return Err(CellError::InvalidData),
        }
        step.deployed_with = message.init.and_then(|init| Some((init.code, init.data?)));
    }
    for (index, cell) in transaction.out_msgs.values().enumerate() {
        if index >= MAX_OUT_MESSAGES {
            return Err(CellError::InvalidData);
        }
        let cell = cell?;
        let message = cell.parse::<Message<'_>>()?;
        match &message.info {
            MsgInfo::Int(info) => step.sent.push(Sent {
                to: std_address(&info.dst).ok_or(CellError::InvalidData)?,
                value: info.value.tokens.into_inner(),
                forward_fee: info.fwd_fee.into_inner(),
                body: CellBuilder::build_from(message.body)?,
            }),
            MsgInfo::ExtOut(_) => step.logs.push(cell.clone()),
            MsgInfo::ExtIn(_) => return Err(CellError::InvalidData),
        }
    }
    Ok(step)
}

fn std_address(address: &IntAddr) -> Option<StdAddr> {
    address.as_std().cloned()
}
