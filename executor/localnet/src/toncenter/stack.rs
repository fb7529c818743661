//! `VmStack` cells to and from the JSON of toncenter v2.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use num_bigint::{BigInt, Sign};
use serde_json::{Value, json};
use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellFamily, CellSlice};
use tycho_types::error::Error;

use crate::error::LocalnetError;

/// A value on the stack of a get-method.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    Null,
    Nan,
    Int(BigInt),
    Cell(Cell),
    Slice(Cell),
    Builder(Cell),
    Tuple(Vec<Item>),
}

/// Reads a getter's arguments: an array of `[type, value]`.
pub(super) fn arguments_from_json(stack: &Value) -> Result<Cell, LocalnetError> {
    let entries = match stack {
        Value::Null => return Ok(encode(&[])?),
        Value::Array(entries) if entries.len() <= MAX_ITEMS => entries,
        _ => return Err(bad(format!("the stack is not an array of at most {MAX_ITEMS} entries"))),
    };
    let items = entries.iter().map(argument).collect::<Result<Vec<_>, _>>()?;
    Ok(encode(&items)?)
}

/// A getter's results as an array of `[type, value]`.
pub(super) fn results_to_json(stack: &Cell) -> Result<Value, LocalnetError> {
    let items = decode(stack)?;
    Ok(Value::Array(items.iter().map(result).collect()))
}

/// `VmStack` of `items`, the last on top.
pub(super) fn encode(items: &[Item]) -> Result<Cell, Error> {
    let mut rest = Cell::empty_cell();
    for (at, item) in items.iter().enumerate() {
        let mut builder = CellBuilder::new();
        if at + 1 == items.len() {
            builder.store_uint(items.len() as u64, 24)?;
        }
        builder.store_reference(rest)?;
        encode_item(&mut builder, item)?;
        rest = builder.build()?;
    }
    if items.is_empty() {
        let mut builder = CellBuilder::new();
        builder.store_uint(0, 24)?;
        return builder.build();
    }
    Ok(rest)
}

/// The items of a `VmStack`, bottom first.
pub(super) fn decode(stack: &Cell) -> Result<Vec<Item>, Error> {
    let mut slice = stack.as_slice()?;
    let depth = slice.load_uint(24)?;
    let mut items = Vec::new();
    for _ in 0..depth {
        let rest = slice.load_reference_as_slice()?;
        items.push(decode_item(&mut slice)?);
        slice = rest;
    }
    items.reverse();
    Ok(items)
}

const MAX_ITEMS: usize = 255;
const INT_BITS: u16 = 257;
/// `vm_stk_int#0201_`
const INT_TAG: u64 = 0x0100;
const INT_TAG_BITS: u16 = 15;

fn argument(entry: &Value) -> Result<Item, LocalnetError> {
    let pair = entry.as_array().filter(|pair| pair.len() == 2);
    let Some([kind, value]) = pair.map(Vec::as_slice) else {
        return Err(bad(format!("the stack entry {entry} is not a pair of type and value")));
    };
    let kind = kind.as_str().unwrap_or_default();
    match kind {
        "num" | "number" | "int" => {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return Err(bad("a number must be a string".into())),
            };
            parse_int(&text)
                .map(Item::Int)
                .ok_or_else(|| bad(format!("{text} is not an integer of 257 bits")))
        }
        "null" => Ok(Item::Null),
        "tvm.Cell" | "cell" => Ok(Item::Cell(cell_argument(value)?)),
        "tvm.Slice" | "slice" => Ok(Item::Slice(cell_argument(value)?)),
        "tvm.Builder" | "builder" => Ok(Item::Builder(cell_argument(value)?)),
        _ => Err(bad(format!("arguments of type {kind} are not supported"))),
    }
}

fn cell_argument(value: &Value) -> Result<Cell, LocalnetError> {
    let text = value.as_str().or_else(|| value.get("bytes").and_then(Value::as_str));
    let bytes = text.and_then(|text| STANDARD.decode(text).ok());
    let cell = bytes.and_then(|bytes| Boc::decode(bytes).ok());
    cell.ok_or_else(|| bad("a cell argument is not a bag of cells in base64".into()))
}

fn parse_int(text: &str) -> Option<BigInt> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits.len() > 80 || digits.starts_with(['+', '-']) {
        return None;
    }
    let magnitude = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => BigInt::parse_bytes(hex.as_bytes(), 16)?,
        None => BigInt::parse_bytes(digits.as_bytes(), 10)?,
    };
    let value = if negative { -magnitude } else { magnitude };
    fits(&value).then_some(value)
}

/// −2^256 … 2^256 − 1.
fn fits(value: &BigInt) -> bool {
    let limit = BigInt::from(1) << (INT_BITS - 1);
    -limit.clone() <= *value && *value < limit
}

fn result(item: &Item) -> Value {
    match item {
        Item::Null => json!(["list", { "@type": "tvm.list", "elements": [] }]),
        Item::Nan => json!(["num", "NaN"]),
        Item::Int(value) => json!(["num", hex(value)]),
        Item::Cell(cell) => json!(["cell", { "bytes": base64(cell) }]),
        Item::Slice(cell) => json!(["slice", { "bytes": base64(cell) }]),
        Item::Builder(cell) => json!(["builder", { "bytes": base64(cell) }]),
        Item::Tuple(items) => json!(["tuple", tuple(items)]),
    }
}

fn tuple(items: &[Item]) -> Value {
    json!({ "@type": "tvm.tuple", "elements": items.iter().map(element).collect::<Vec<_>>() })
}

fn element(item: &Item) -> Value {
    match item {
        Item::Null => json!({
            "@type": "tvm.stackEntryList", "list": { "@type": "tvm.list", "elements": [] },
        }),
        Item::Nan => json!({
            "@type": "tvm.stackEntryNumber", "number": { "@type": "tvm.numberDecimal", "number": "NaN" },
        }),
        Item::Int(value) => json!({
            "@type": "tvm.stackEntryNumber",
            "number": { "@type": "tvm.numberDecimal", "number": value.to_string() },
        }),
        Item::Cell(cell) | Item::Builder(cell) => json!({
            "@type": "tvm.stackEntryCell", "cell": { "@type": "tvm.cell", "bytes": base64(cell) },
        }),
        Item::Slice(cell) => json!({
            "@type": "tvm.stackEntrySlice", "slice": { "@type": "tvm.slice", "bytes": base64(cell) },
        }),
        Item::Tuple(items) => json!({ "@type": "tvm.stackEntryTuple", "tuple": tuple(items) }),
    }
}

fn hex(value: &BigInt) -> String {
    let sign = if value.sign() == Sign::Minus { "-" } else { "" };
    format!("{sign}0x{}", value.magnitude().to_str_radix(16))
}

fn base64(cell: &Cell) -> String {
    STANDARD.encode(Boc::encode(cell))
}

fn encode_item(builder: &mut CellBuilder, item: &Item) -> Result<(), Error> {
    match item {
        Item::Null => builder.store_u8(0),
        Item::Nan => builder.store_u16(0x02ff),
        Item::Int(value) => {
            builder.store_uint(INT_TAG, INT_TAG_BITS)?;
            store_int(builder, value)
        }
        Item::Cell(cell) => {
            builder.store_u8(3)?;
            builder.store_reference(cell.clone())
        }
        Item::Slice(cell) => {
            builder.store_u8(4)?;
            builder.store_reference(cell.clone())?;
            builder.store_uint(0, 10)?;
            builder.store_uint(cell.bit_len().into(), 10)?;
            builder.store_uint(0, 3)?;
            builder.store_uint(cell.reference_count().into(), 3)
        }
        Item::Builder(cell) => {
            builder.store_u8(5)?;
            builder.store_reference(cell.clone())
        }
        Item::Tuple(_) => Err(Error::InvalidData),
    }
}

/// Two's complement in 257 bits: the sign, then the rest modulo 2^256.
fn store_int(builder: &mut CellBuilder, value: &BigInt) -> Result<(), Error> {
    let negative = value.sign() == Sign::Minus;
    let rest = if negative { value + (BigInt::from(1) << (INT_BITS - 1)) } else { value.clone() };
    let (_, bytes) = rest.to_bytes_be();
    let mut padded = [0; 32];
    let start = padded.len().checked_sub(bytes.len()).ok_or(Error::IntOverflow)?;
    padded[start..].copy_from_slice(&bytes);
    builder.store_bit(negative)?;
    builder.store_raw(&padded, 256)
}

fn decode_item(slice: &mut CellSlice<'_>) -> Result<Item, Error> {
    Ok(match slice.load_u8()? {
        0 => Item::Null,
        1 => Item::Int(BigInt::from(slice.load_u64()?.cast_signed())),
        2 => {
            if slice.get_uint(0, 8)? == 0xff {
                slice.skip_first(8, 0)?;
                return Ok(Item::Nan);
            }
            slice.skip_first(INT_TAG_BITS - 8, 0)?;
            let negative = slice.load_bit()?;
            let rest = BigInt::from_bytes_be(Sign::Plus, slice.load_u256()?.as_slice());
            Item::Int(if negative { rest - (BigInt::from(1) << (INT_BITS - 1)) } else { rest })
        }
        3 => Item::Cell(slice.load_reference_cloned()?),
        4 => {
            let cell = slice.load_reference_cloned()?;
            let (from_bit, to_bit) = (slice.load_uint(10)? as u16, slice.load_uint(10)? as u16);
            let (from_ref, to_ref) = (slice.load_uint(3)? as u8, slice.load_uint(3)? as u8);
            let bits = to_bit.checked_sub(from_bit).ok_or(Error::InvalidData)?;
            let refs = to_ref.checked_sub(from_ref).ok_or(Error::InvalidData)?;
            let mut window = cell.as_slice()?;
            window.skip_first(from_bit, from_ref)?;
            let mut builder = CellBuilder::new();
            builder.store_slice(window.get_prefix(bits, refs))?;
            Item::Slice(builder.build()?)
        }
        5 => Item::Builder(slice.load_reference_cloned()?),
        7 => {
            let length = slice.load_u16()?;
            Item::Tuple(decode_tuple(slice, length)?)
        }
        _ => return Err(Error::InvalidTag),
    })
}

/// `vm_tuple_tcons head:(VmTupleRef n) tail:^VmStackValue`, unrolled from the last item to the first.
fn decode_tuple(slice: &mut CellSlice<'_>, length: u16) -> Result<Vec<Item>, Error> {
    let mut items = Vec::new();
    let mut node = *slice;
    slice.skip_first(0, if length == 0 { 0 } else { 1 + u8::from(length > 1) })?;
    let mut left = length;
    while left > 0 {
        match left {
            1 => {
                items.push(decode_item(&mut node.load_reference_as_slice()?)?);
                left = 0;
            }
            2 => {
                let mut first = node.load_reference_as_slice()?;
                items.push(decode_item(&mut node.load_reference_as_slice()?)?);
                items.push(decode_item(&mut first)?);
                left = 0;
            }
            _ => {
                let head = node.load_reference_as_slice()?;
                items.push(decode_item(&mut node.load_reference_as_slice()?)?);
                node = head;
                left -= 1;
            }
        }
    }
    items.reverse();
    Ok(items)
}

fn bad(what: String) -> LocalnetError {
    LocalnetError::BadRequest(what)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn integers_of_any_size_come_back() {
        let limit: BigInt = BigInt::from(1) << 256;
        for value in [
            BigInt::from(0),
            BigInt::from(-1),
            BigInt::from(i64::MIN),
            BigInt::from(u64::MAX),
            limit.clone() - 1,
            -limit.clone(),
        ] {
            let stack = encode(&[Item::Int(value.clone()), Item::Null]).unwrap();
            assert_eq!(decode(&stack).unwrap(), [Item::Int(value), Item::Null]);
        }
        assert!(parse_int(&limit.to_string()).is_none());
        assert_eq!(parse_int("-0x10"), Some(BigInt::from(-16)));
        assert!(parse_int("--1").is_none());
        assert!(parse_int("").is_none());
    }

    #[test]
    fn cells_and_slices_come_back() {
        let cell = CellBuilder::build_from(77_u32).unwrap();
        let stack =
            encode(&[Item::Cell(cell.clone()), Item::Slice(cell.clone()), Item::Builder(cell)]).unwrap();
        assert_eq!(encode(&decode(&stack).unwrap()).unwrap(), stack);
    }

    #[test]
    fn arguments_are_checked() {
        assert!(
            arguments_from_json(&json!([["num", "5"], ["tvm.Cell", "te6cckEBAQEAAgAAAEysuc0="]])).is_ok()
        );
        for wrong in [json!("x"), json!([["num"]]), json!([["num", "x"]]), json!([["tvm.Cell", "!"]])] {
            assert!(arguments_from_json(&wrong).is_err(), "{wrong}");
        }
    }
}
