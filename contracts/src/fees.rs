//! What operations cost, from the prices in the chain's configuration: `contracts/fees.tolk` in Rust.

use tycho_types::cell::CellTreeStats;
use tycho_types::models::{GasLimitsPrices, MsgForwardPrices, StoragePrices};

use crate::money::{Nanoton, Units};

pub const GAS_JOB_POST: u64 = 7600;
pub const GAS_JOB_TAKE: u64 = 5500;
pub const GAS_JOB_BID: u64 = 14300;
pub const GAS_JOB_DELIVER: u64 = 6000;
pub const GAS_JOB_RECEIPT: u64 = 13500;
pub const GAS_JOB_REDEEM: u64 = 8600;
pub const GAS_JOB_TOP_UP: u64 = 4600;
pub const GAS_JOB_CLOSE: u64 = 6400;
pub const GAS_JOB_EQUIVOCATION: u64 = 12400;
pub const GAS_JOB_EXPIRE: u64 = 12900;
pub const GAS_WORKER_PAID: u64 = 726;
pub const GAS_WORKER_SLASH: u64 = 15400;
pub const GAS_WORKER_CLAIM: u64 = 10200;
pub const GAS_WORKER_ASK: u64 = 6600;
pub const GAS_WORKER_ATTEST: u64 = 21000;
pub const GAS_WORKER_SIMPLE: u64 = 7800;
pub const GAS_WORKER_OFFER: u64 = 20000;
pub const GAS_REGISTRY_QUOTE: u64 = 14600;
pub const GAS_PLATFORM_SERVE: u64 = 6600;
pub const GAS_REGISTRY_ENFORCE: u64 = 9100;
pub const GAS_ATTESTOR_VERIFY: u64 = 140000;
pub const GAS_MODEL_SHARE: u64 = 719;
pub const GAS_MODEL_QUOTE: u64 = 4700;
pub const GAS_MODEL_WITHDRAW: u64 = 9900;
pub const GAS_MODEL_SIMPLE: u64 = 10600;

pub const JOB_CELLS: u64 = 12;
pub const JOB_BITS: u64 = 6000;
pub const WORKER_CELLS: u64 = 92;
pub const WORKER_BITS: u64 = 51300;
pub const MODEL_CELLS: u64 = 72;
pub const MODEL_BITS: u64 = 52000;
pub const METADATA_CELLS: u64 = 32;
pub const PLATFORM_CELLS: u64 = 12;
pub const PLATFORM_BITS: u64 = 5000;

pub const OPENING_CELLS: u64 = 8;
pub const OPENING_BITS: u64 = 4400;
pub const ORDER_CELLS: u64 = 2;
pub const ORDER_BITS: u64 = 1300;
pub const CLAIM_CELLS: u64 = 1;
pub const CLAIM_BITS: u64 = 1023;
pub const BID_CELLS: u64 = 2;
pub const BID_BITS: u64 = 1200;
pub const CANDIDATE_CELLS: u64 = 3;
pub const CANDIDATE_BITS: u64 = 2000;

pub const RESULT_BASE_BYTES: u64 = 512;
pub const RESULT_BYTES_PER_INPUT: u64 = 8;
pub const RESULT_BYTES_PER_OUTPUT: u64 = 16;
pub const RESULT_MAX_BYTES: u64 = 65536;
pub const PAYLOADS_BASE_BYTES: u64 = 1024;
pub const PAYLOADS_BYTES_PER_UNIT: u64 = 16;
pub const RECEIPT_CELLS: u64 = 4;
pub const RECEIPT_BITS: u64 = 2200;

pub const REPORT_CELLS: u64 = 6;
pub const REPORT_BITS: u64 = 5000;
pub const COLLATERAL_CELLS: u64 = 160;
pub const COLLATERAL_BITS: u64 = 40000;

pub const RENT_COLLATERAL_S: u64 = 30 * 86400;
pub const RENT_JOB_S: u64 = 30 * 86400;
pub const RENT_WORKER_S: u64 = 365 * 86400;
pub const RENT_MODEL_S: u64 = 365 * 86400;
pub const RENT_PLATFORM_S: u64 = 60 * 86400;

/// Prices of the basechain: the newest of configuration parameter 18, parameters 21 and 25.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeePrices {
    pub storage: StoragePrices,
    pub gas: GasLimitsPrices,
    pub forward: MsgForwardPrices,
}

impl FeePrices {
    pub fn gas(&self, gas: u64) -> Nanoton {
        self.gas.compute_gas_fee(gas).into()
    }

    /// Of a message with so much outside its first cell.
    pub fn forward(&self, bits: u64, cells: u64) -> Nanoton {
        self.forward.compute_fwd_fee(CellTreeStats { bit_count: bits, cell_count: cells }).into()
    }

    pub fn storage(&self, seconds: u64, bits: u64, cells: u64) -> Nanoton {
        let stats = CellTreeStats { bit_count: bits, cell_count: cells };
        self.storage.compute_storage_fee(false, seconds, stats).into()
    }

    pub fn job_rent(&self) -> Nanoton {
        self.storage(RENT_JOB_S, JOB_BITS, JOB_CELLS)
    }

    pub fn worker_rent(&self) -> Nanoton {
        self.storage(RENT_WORKER_S, WORKER_BITS, WORKER_CELLS)
    }

    pub fn model_rent(&self) -> Nanoton {
        self.storage(RENT_MODEL_S, MODEL_BITS, MODEL_CELLS)
    }

    pub fn platform_rent(&self) -> Nanoton {
        self.storage(RENT_PLATFORM_S, PLATFORM_BITS, PLATFORM_CELLS)
    }

    /// What a receipt with a result of this size costs the job to import.
    pub fn receipt_import(&self, max_units: &Units) -> Nanoton {
        let bytes = result_bytes(max_units);
        self.forward(RECEIPT_BITS + 8 * bytes, RECEIPT_CELLS + bytes.div_ceil(127))
    }

    /// What `post_job` brings above the deposit.
    pub fn posting(&self, max_units: &Units) -> Nanoton {
        sum([self.opening(), self.receipt_import(max_units)])
    }

    /// What `post_open_job` brings above the deposit: enough for an input that comes without a wallet too.
    pub fn market(&self, max_units: &Units) -> Nanoton {
        let units =
            u64::from(max_units.input) + u64::from(max_units.cached_input) + u64::from(max_units.output);
        let bytes = (PAYLOADS_BASE_BYTES + PAYLOADS_BYTES_PER_UNIT * units).min(2 * RESULT_MAX_BYTES);
        sum([
            times(8, self.notice()),
            self.gas(GAS_JOB_POST + GAS_JOB_DELIVER + GAS_JOB_RECEIPT + GAS_WORKER_PAID + GAS_MODEL_SHARE),
            self.forward(RECEIPT_BITS + 8 * bytes, RECEIPT_CELLS + bytes * 33 / 4096),
            self.job_rent(),
        ])
    }

    /// What `open_session` brings above the deposit.
    pub fn session(&self) -> Nanoton {
        sum([self.opening(), self.forward(RECEIPT_BITS, RECEIPT_CELLS)])
    }

    /// What a `redeem_receipt` that is not final costs the job, taken from what it pays; it has to pay more.
    pub fn redemption(&self) -> Nanoton {
        sum([
            self.forward(RECEIPT_BITS, RECEIPT_CELLS),
            self.gas(GAS_JOB_REDEEM + GAS_WORKER_PAID),
            self.notice(),
        ])
    }

    /// What a job must hold above deposit and bond to take an answer.
    pub fn settlement(&self) -> Nanoton {
        sum([times(4, self.notice()), self.gas(GAS_JOB_RECEIPT + GAS_WORKER_PAID + GAS_MODEL_SHARE)])
    }

    /// The least that `deliver_input` brings.
    pub fn delivery(&self) -> Nanoton {
        sum([self.gas(GAS_JOB_DELIVER), self.notice()])
    }

    /// The least that `top_up_job` brings above the amount.
    pub fn session_top_up(&self) -> Nanoton {
        sum([self.gas(GAS_JOB_TOP_UP), self.notice()])
    }

    /// The least that `close_session` brings.
    pub fn session_close(&self) -> Nanoton {
        sum([self.gas(GAS_JOB_CLOSE), self.notice()])
    }

    /// The least that `expire_job` brings; the rest comes back.
    pub fn expiry(&self) -> Nanoton {
        let closing = sum([times(4, self.notice()), self.gas(GAS_WORKER_PAID + GAS_MODEL_SHARE)]);
        sum([self.gas(GAS_JOB_EXPIRE), closing, self.notice()])
    }

    /// The least that `report_equivocation` brings.
    pub fn equivocation(&self) -> Nanoton {
        sum([self.gas(GAS_JOB_EQUIVOCATION + GAS_WORKER_SLASH), times(6, self.notice())])
    }

    /// What a job must hold above deposit and bond to take a `post_input`: so that the answer is paid for too.
    pub fn delivered(&self, max_units: &Units) -> Nanoton {
        let bytes = result_bytes(max_units);
        sum([
            times(5, self.notice()),
            self.gas(GAS_JOB_DELIVER + GAS_JOB_RECEIPT + GAS_WORKER_PAID + GAS_MODEL_SHARE),
            self.forward(RECEIPT_BITS + 8 * bytes, RECEIPT_CELLS + bytes * 33 / 4096),
        ])
    }

    /// What travels with a claim of a directed job beside the bond.
    pub fn claim_value(&self) -> Nanoton {
        sum([self.gas(GAS_JOB_TAKE), self.notice()])
    }

    /// What travels with a bid beside the bond.
    pub fn bid_value(&self) -> Nanoton {
        sum([self.gas(GAS_JOB_BID + GAS_WORKER_PAID), times(2, self.notice())])
    }

    /// What a claim costs the Worker at most, beside the bond: a bid's.
    pub fn claim(&self) -> Nanoton {
        sum([self.claim_cost(), self.bid_value()])
    }

    /// What a claim costs the Worker beside the bond and what travels with it.
    pub fn claim_cost(&self) -> Nanoton {
        sum([
            self.notice(),
            self.gas(GAS_WORKER_CLAIM),
            self.forward(CLAIM_BITS + BID_BITS, CLAIM_CELLS + BID_CELLS),
        ])
    }

    /// The least that a `verify_quote` for a registration should bring.
    pub fn registration(&self) -> Nanoton {
        sum([
            self.gas(GAS_ATTESTOR_VERIFY),
            self.forward(REPORT_BITS, REPORT_CELLS),
            self.gas(GAS_REGISTRY_QUOTE),
            self.forward(PLATFORM_BITS, PLATFORM_CELLS),
            self.gas(GAS_PLATFORM_SERVE),
            self.platform_rent(),
            self.forward(CANDIDATE_BITS, CANDIDATE_CELLS),
            self.gas(GAS_WORKER_ATTEST),
        ])
    }

    /// The least that `offer_model` brings.
    pub fn offer(&self) -> Nanoton {
        sum([
            self.gas(GAS_WORKER_ASK),
            self.gas(GAS_MODEL_QUOTE),
            self.gas(GAS_WORKER_OFFER),
            times(2, self.forward(ORDER_BITS, ORDER_CELLS)),
        ])
    }

    /// A message whose body lies in its first cell.
    fn notice(&self) -> Nanoton {
        self.forward(0, 0)
    }

    fn opening(&self) -> Nanoton {
        sum([
            times(6, self.notice()),
            self.gas(GAS_JOB_POST + GAS_JOB_RECEIPT + GAS_WORKER_PAID + GAS_MODEL_SHARE),
            self.job_rent(),
        ])
    }
}

fn result_bytes(max_units: &Units) -> u64 {
    let foreseen = RESULT_BASE_BYTES
        + RESULT_BYTES_PER_INPUT * (u64::from(max_units.input) + u64::from(max_units.cached_input))
        + RESULT_BYTES_PER_OUTPUT * u64::from(max_units.output);
    foreseen.min(RESULT_MAX_BYTES)
}

/// Saturates: no chain has prices that reach it.
fn sum<const N: usize>(fees: [Nanoton; N]) -> Nanoton {
    fees.into_iter().fold(Nanoton::ZERO, |sum, fee| sum.checked_add(fee).unwrap_or(Nanoton::MAX))
}

fn times(count: u32, fee: Nanoton) -> Nanoton {
    Nanoton::checked(fee.get().saturating_mul(u128::from(count))).unwrap_or(Nanoton::MAX)
}
