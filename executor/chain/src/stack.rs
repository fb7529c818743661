//! Values a get-method takes and returns (TL-B `VmStackValue`), the kinds our contracts use.

use tycho_types::cell::{Cell, CellBuilder, CellFamily, CellSlice};
use tycho_types::error::Error as CellError;

use crate::error::ChainError;

/// One stack value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StackValue {
    /// `null`.
    Null,
    /// An integer that fits 128 signed bits.
    Int(i128),
    /// An unsigned integer above that, such as a hash: 32 bytes, big-endian.
    BigUint([u8; 32]),
    /// A cell.
    Cell(Cell),
    /// A slice, as a cell of its own.
    Slice(Cell),
    /// A tuple.
    Tuple(Vec<StackValue>),
}

/// What a get-method left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetterResult {
    /// Exit code; 0 and 1 mean success.
    pub exit_code: i32,
    /// The stack, bottom first; empty when the method failed.
    pub stack: Vec<StackValue>,
}

impl GetterResult {
    /// The stack of a successful run.
    ///
    /// # Errors
    /// [`ChainError::Caller`] with the exit code otherwise.
    pub fn success(self) -> Result<Vec<StackValue>, ChainError> {
        match self.exit_code {
            0 | 1 => Ok(self.stack),
            code => Err(ChainError::Caller(format!("the get-method ended with exit code {code}"))),
        }
    }
}

/// The id of a get-method: CRC-16/XMODEM of its name, with bit 16 set.
pub fn method_id(name: &str) -> u64 {
    let mut crc = 0_u16;
    for byte in name.bytes() {
        crc ^= u16::from(byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
        }
    }
    u64::from(crc) | 0x1_0000
}

/// `VmStack`: depth (24 bits), then a list linked through first references, top value outermost.
pub fn encode_stack(values: &[StackValue]) -> Result<Cell, ChainError> {
    encode_list(values).map_err(|error| ChainError::Caller(format!("getter arguments do not fit: {error}")))
}

/// Reads a `VmStack`, bottom first.
///
/// # Errors
/// A cell error for anything but the kinds of [`StackValue`], or for more than 255 values.
pub fn decode_stack(root: &Cell) -> Result<Vec<StackValue>, CellError> {
    let mut slice = root.as_slice()?;
    let depth = slice.load_uint(24)?;
    if depth > MAX_STACK {
        return Err(CellError::InvalidData);
    }
    let mut values = Vec::new();
    let mut rest = slice;
    for _ in 0..depth {
        let next = rest.load_reference_as_slice()?;
        values.push(decode_value(&mut rest, 0)?);
        rest = next;
    }
    values.reverse();
    Ok(values)
}

/// The most values a stack read from a server may have, each tuple included.
const MAX_STACK: u64 = 255;
const MAX_TUPLE_DEPTH: u8 = 8;

fn encode_list(values: &[StackValue]) -> Result<Cell, CellError> {
    let mut rest = Cell::empty_cell();
    let count = values.len() as u64;
    let Some((top, below)) = values.split_last() else {
        let mut builder = CellBuilder::new();
        builder.store_uint(0, 24)?;
        return builder.build();
    };
    for value in below {
        let mut builder = CellBuilder::new();
        builder.store_reference(rest)?;
        encode_value(&mut builder, value)?;
        rest = builder.build()?;
    }
    let mut builder = CellBuilder::new();
    builder.store_uint(count, 24)?;
    builder.store_reference(rest)?;
    encode_value(&mut builder, top)?;
    builder.build()
}

fn encode_value(builder: &mut CellBuilder, value: &StackValue) -> Result<(), CellError> {
    match value {
        StackValue::Null => builder.store_u8(0),
        StackValue::Int(int) => match i64::try_from(*int) {
            Ok(small) => {
                builder.store_u8(1)?;
                builder.store_u64(small.cast_unsigned())
            }
            Err(_) => {
                let sign = if *int < 0 { 0xff } else { 0 };
                let mut bytes = [sign; 32];
                bytes[16..].copy_from_slice(&int.to_be_bytes());
                store_int257(builder, *int < 0, &bytes)
            }
        },
        StackValue::BigUint(bytes) => store_int257(builder, false, bytes),
        StackValue::Cell(cell) => {
            builder.store_u8(3)?;
            builder.store_reference(cell.clone())
        }
        StackValue::Slice(cell) => {
            builder.store_u8(4)?;
            builder.store_reference(cell.clone())?;
            builder.store_uint(0, 10)?;
            builder.store_uint(u64::from(cell.bit_len()), 10)?;
            builder.store_uint(0, 3)?;
            builder.store_uint(u64::from(cell.reference_count()), 3)
        }
        StackValue::Tuple(_) => Err(CellError::InvalidData),
    }
}

/// `vm_stk_int#0201_`: 15 bits of tag, then 257 bits, two's complement.
fn store_int257(builder: &mut CellBuilder, negative: bool, bytes: &[u8; 32]) -> Result<(), CellError> {
    builder.store_uint(0x0100, 15)?;
    builder.store_bit(negative)?;
    builder.store_raw(bytes, 256)
}

fn decode_value(slice: &mut CellSlice<'_>, depth: u8) -> Result<StackValue, CellError> {
    if depth > MAX_TUPLE_DEPTH {
        return Err(CellError::InvalidData);
    }
    Ok(match slice.load_u8()? {
        0 => StackValue::Null,
        1 => StackValue::Int(i128::from(slice.load_u64()?.cast_signed())),
        2 => {
            if slice.load_uint(7)? != 0 {
                return Err(CellError::InvalidTag);
            }
            let negative = slice.load_bit()?;
            let bytes = slice.load_u256()?.0;
            let (high, low) = bytes.split_at(16);
            let low = low.try_into().map(i128::from_be_bytes).map_err(|_| CellError::InvalidData)?;
            let fill = if negative { 0xff } else { 0 };
            if high.iter().all(|byte| *byte == fill) && (low < 0) == negative {
                StackValue::Int(low)
            } else if negative {
                return Err(CellError::IntOverflow);
            } else {
                StackValue::BigUint(bytes)
            }
        }
        3 => StackValue::Cell(slice.load_reference_cloned()?),
        4 => {
            let cell = slice.load_reference_cloned()?;
            let (start, end) = (slice.load_uint(10)? as u16, slice.load_uint(10)? as u16);
            let (ref_start, ref_end) = (slice.load_small_uint(3)?, slice.load_small_uint(3)?);
            let mut part = cell.as_slice()?;
            let bits = end.checked_sub(start).ok_or(CellError::InvalidData)?;
            let refs = ref_end.checked_sub(ref_start).ok_or(CellError::InvalidData)?;
            part.skip_first(start, ref_start)?;
            let prefix = part.load_prefix(bits, refs)?;
            let mut builder = CellBuilder::new();
            builder.store_slice(prefix)?;
            StackValue::Slice(builder.build()?)
        }
        7 => decode_tuple(slice, depth)?,
        _ => return Err(CellError::InvalidTag),
    })
}

/// `vm_stk_tuple#07 len:(## 16) data:(VmTuple len)`.
fn decode_tuple(slice: &mut CellSlice<'_>, depth: u8) -> Result<StackValue, CellError> {
    let len = slice.load_u16()?;
    if u64::from(len) > MAX_STACK {
        return Err(CellError::InvalidData);
    }
    let mut values = Vec::new();
    let mut head = *slice;
    for remaining in (1..=len).rev() {
        let next = match remaining {
            1 => None,
            _ => Some(head.load_reference_as_slice()?),
        };
        let mut value = head.load_reference_as_slice()?;
        values.push(decode_value(&mut value, depth + 1)?);
        match (next, remaining) {
            (Some(mut tail), 2) => {
                values.push(decode_value(&mut tail, depth + 1)?);
                break;
            }
            (Some(tail), _) => head = tail,
            (None, _) => break,
        }
    }
    values.reverse();
    Ok(StackValue::Tuple(values))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn method_ids_are_those_of_the_reference() {
        assert_eq!(method_id("seqno"), 85_143);
        assert_eq!(method_id("get_wallet_data"), 97_026);
    }

    #[test]
    fn a_stack_survives_a_round_trip() {
        let values = vec![
            StackValue::Null,
            StackValue::Int(-7),
            StackValue::Int(i128::from(u64::MAX)),
            StackValue::Int(i128::MIN),
            StackValue::BigUint([0x9a; 32]),
            StackValue::Cell(Cell::empty_cell()),
        ];
        assert_eq!(decode_stack(&encode_stack(&values).unwrap()).unwrap(), values);
        assert_eq!(decode_stack(&encode_stack(&[]).unwrap()).unwrap(), vec![]);
    }
}
