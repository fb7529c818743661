//! Opcodes that tycho's machine lacks, as the node's `crypto/vm/tonops.cpp` defines them.

use num_bigint::{BigInt, Sign};
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::{Signature, VerifyingKey};
use tycho_types::error::Error;
use tycho_vm::{SafeRc, SmcInfoTonV4, TupleExt, VmError, VmResult, VmState};

/// An opcode that this crate executes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    /// `P256_CHKSIGNU`, F914 (hash signature key – ?): of the 32 bytes of an integer.
    P256ChkSignU,
    /// `P256_CHKSIGNS`, F915 (data signature key – ?): of the bytes of a slice.
    P256ChkSignS,
    /// `PREVMCBLOCKS_100`, F83402 (– tuple).
    PrevMcBlocks100,
}

/// The opcode the machine comes to, where it is one of these.
pub(crate) fn next(vm: &VmState<'_>) -> Option<Opcode> {
    let code = vm.code.apply();
    match code.get_u16(0).ok()? {
        0xf914 => Some(Opcode::P256ChkSignU),
        0xf915 => Some(Opcode::P256ChkSignS),
        0xf834 if code.get_u8(16).ok()? == 2 => Some(Opcode::PrevMcBlocks100),
        _ => None,
    }
}

impl Opcode {
    pub(crate) fn execute(self, vm: &mut VmState<'_>) -> VmResult<i32> {
        let bits: u16 = match self {
            Self::P256ChkSignU | Self::P256ChkSignS => 16,
            Self::PrevMcBlocks100 => 24,
        };
        vm.gas.try_consume(INSTRUCTION_GAS + u64::from(bits))?;
        vm.code.range_mut().skip_first(bits, 0)?;
        match self {
            Self::P256ChkSignU => check_p256_signature(vm, integer_bytes),
            Self::P256ChkSignS => check_p256_signature(vm, slice_bytes),
            Self::PrevMcBlocks100 => push_prev_blocks(vm, 2),
        }
    }
}

const INSTRUCTION_GAS: u64 = 10;
const P256_GAS: u64 = 3500;

fn check_p256_signature(
    vm: &mut VmState<'_>,
    pop_data: fn(&mut tycho_vm::Stack) -> VmResult<Vec<u8>>,
) -> VmResult<i32> {
    let stack = SafeRc::make_mut(&mut vm.stack);
    if stack.depth() < 3 {
        return Err(Box::new(VmError::StackUnderflow(3)));
    }
    let key_slice = stack.pop_cs()?;
    let signature_slice = stack.pop_cs()?;
    let data = pop_data(stack)?;
    let (mut signature, mut key) = ([0; 64], [0; 33]);
    signature_slice.apply().get_raw(0, &mut signature, 512)?;
    key_slice.apply().get_raw(0, &mut key, 264)?;
    vm.gas.try_consume(P256_GAS)?;
    let good = is_p256_signature(&data, &key, &signature) || vm.modifiers.chksig_always_succeed;
    SafeRc::make_mut(&mut vm.stack).push_bool(good)?;
    Ok(0)
}

fn integer_bytes(stack: &mut tycho_vm::Stack) -> VmResult<Vec<u8>> {
    let out_of_range = || VmError::IntegerOutOfRange { min: 0, max: isize::MAX, actual: "another".into() };
    let integer = stack.pop_int_or_nan()?.ok_or_else(out_of_range)?;
    if integer.sign() == Sign::Minus || integer.bits() > 256 {
        return Err(Box::new(out_of_range()));
    }
    let bytes = BigInt::magnitude(&integer).to_bytes_be();
    let mut padded = vec![0; 32_usize.saturating_sub(bytes.len())];
    padded.extend(bytes);
    Ok(padded)
}

fn slice_bytes(stack: &mut tycho_vm::Stack) -> VmResult<Vec<u8>> {
    let slice = stack.pop_cs()?;
    let slice = slice.apply();
    let bits = slice.size_bits();
    if bits % 8 != 0 {
        return Err(Error::CellUnderflow.into());
    }
    let mut bytes = vec![0; usize::from(bits / 8)];
    slice.get_raw(0, &mut bytes, bits)?;
    Ok(bytes)
}

/// ECDSA over P-256 with SHA-256, as OpenSSL checks it: a compressed key on the curve, r and s from 1 to n − 1, s high
/// or low.
fn is_p256_signature(data: &[u8], key: &[u8; 33], signature: &[u8; 64]) -> bool {
    // SEC1's other 33-byte form, "compact" (5), is one that OpenSSL does not know.
    if !matches!(key[0], 2 | 3) {
        return false;
    }
    let (Ok(key), Ok(signature)) = (VerifyingKey::from_sec1_bytes(key), Signature::from_slice(signature))
    else {
        return false;
    };
    key.verify(data, &signature).is_ok()
}

fn push_prev_blocks(vm: &mut VmState<'_>, index: usize) -> VmResult<i32> {
    let blocks = vm.cr.get_c7_params()?.try_get_tuple_range(SmcInfoTonV4::PREV_BLOCKS_IDX, 0..=255)?;
    let value = blocks.try_get(index)?.clone();
    SafeRc::make_mut(&mut vm.stack).push_raw(value)?;
    Ok(0)
}
