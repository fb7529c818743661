//! The probe contract, asked by get-method.

use contracts::{Cell, HashBytes, StdAddr};
use num_bigint::{BigInt, Sign};
use tvm_executor::{Environment, Vm, method_id};
use tycho_types::boc::Boc;
use tycho_types::cell::CellBuilder;
use tycho_types::models::{Account, AccountState, CurrencyCollection, IntAddr, StateInit, StorageInfo};
use tycho_types::num::Tokens;
use tycho_vm::{OwnedCellSlice, SafeRc, Stack};

use crate::hostile::{Candidate, Witness};

/// What the contract said, and the gas of the check alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) accepted: bool,
    pub(crate) gas: u64,
}

pub(crate) struct Probe {
    vm: Vm,
    account: Account,
}

impl Probe {
    pub(crate) fn new() -> Self {
        let artefact: serde_json::Value = serde_json::from_str(&artefact()).unwrap();
        let code = Boc::decode_base64(artefact["code_boc64"].as_str().unwrap()).unwrap();
        let state = StateInit { code: Some(code), data: Some(Cell::default()), ..StateInit::default() };
        let account = Account {
            address: IntAddr::Std(StdAddr::new(0, HashBytes([7; 32]))),
            storage_stat: StorageInfo::default(),
            last_trans_lt: 0,
            balance: CurrencyCollection::from(Tokens::new(1_000_000_000)),
            state: AccountState::Active(state),
        };
        Self { vm: Vm::new(-3).unwrap(), account }
    }

    /// `verifyP256Digest` and `verifyP256DigestUnderPoint` never disagree about a point.
    pub(crate) fn accepts(&self, candidate: &Candidate, witness: &Witness) -> bool {
        let accepted = self.ask("checkSignature", candidate, witness).accepted;
        if candidate.key().is_some() {
            assert_eq!(accepted, self.ask("checkSignatureUnderPoint", candidate, witness).accepted);
        }
        accepted
    }

    /// Whether it accepts under any of the witnesses a forger would try.
    pub(crate) fn is_fooled_by(&self, candidate: &Candidate) -> bool {
        candidate.witnesses().iter().any(|witness| self.accepts(candidate, witness))
    }

    pub(crate) fn is_point(&self, x: &[u8; 32], y: &[u8; 32]) -> bool {
        self.ask_point(x, y).accepted
    }

    pub(crate) fn ask(&self, method: &str, candidate: &Candidate, witness: &Witness) -> Answer {
        let mut stack = Stack::default();
        for number in [&candidate.digest, &candidate.r, &candidate.s, &candidate.x, &candidate.y] {
            stack.push_int(integer(number)).unwrap();
        }
        let mut shift = CellBuilder::new();
        shift.store_raw(&witness.shift, 520).unwrap();
        stack.push_raw(SafeRc::new(OwnedCellSlice::new_allow_exotic(shift.build().unwrap()))).unwrap();
        stack.push_int(integer(&witness.slope)).unwrap();
        self.run(method, &stack)
    }

    pub(crate) fn ask_point(&self, x: &[u8; 32], y: &[u8; 32]) -> Answer {
        let mut stack = Stack::default();
        stack.push_int(integer(x)).unwrap();
        stack.push_int(integer(y)).unwrap();
        self.run("checkKey", &stack)
    }

    /// Panics if the contract throws: it promises not to.
    fn run(&self, method: &str, stack: &Stack) -> Answer {
        let stack = CellBuilder::build_from(stack).unwrap();
        let environment = Environment { utime: 1_800_000_000, block_lt: 1, ..Environment::default() };
        let output = self.vm.run_getter(&environment, &self.account, method_id(method), &stack).unwrap();
        assert!(output.exit_code <= 1, "the contract threw {}", output.exit_code);
        let mut stack = output.stack.parse::<Stack>().unwrap();
        let gas = u64::try_from(&*stack.pop_int().unwrap()).unwrap();
        Answer { accepted: stack.pop_bool().unwrap(), gas }
    }
}

fn integer(bytes: &[u8; 32]) -> BigInt {
    BigInt::from_bytes_be(Sign::Plus, bytes)
}

/// The committed artefact or, in a build for mutation testing, that of the folder in `CHRYSALIS_ARTIFACTS`.
fn artefact() -> std::borrow::Cow<'static, str> {
    #[cfg(feature = "mutants")]
    if let Some(folder) = std::env::var_os("CHRYSALIS_ARTIFACTS")
        && let Ok(mutant) = std::fs::read_to_string(std::path::Path::new(&folder).join("P256Probe.json"))
    {
        return mutant.into();
    }
    include_str!("../../../contracts/artifacts/P256Probe.json").into()
}
