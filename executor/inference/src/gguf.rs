//! A bounded reader of GGUF (version 2 and 3), as ggml's `gguf.md` describes it.
//!
//! The bytes are untrusted: every length is checked against what is there before anything is allocated.

use std::collections::HashMap;
use std::ops::Range;

/// Tensors a file may name.
const MAX_TENSORS: u64 = 100_000;
/// Metadata entries a file may hold.
const MAX_ENTRIES: u64 = 10_000;
/// Array elements of all metadata together: a vocabulary of a million tokens with its scores, types and merges.
const MAX_ELEMENTS: u64 = 4_000_000;
const MAX_DIMENSIONS: u32 = 4;
const MAX_NESTING: u8 = 2;

/// The head of a file: its metadata and where its tensors lie.
#[derive(Debug)]
pub(crate) struct Gguf {
    pub(crate) metadata: HashMap<String, Value>,
    pub(crate) tensors: HashMap<String, TensorInfo>,
}

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(String),
    Array(Vec<Value>),
}

/// One tensor. `dimensions` runs from the fastest (columns) to the slowest, as ggml writes them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorInfo {
    pub(crate) dimensions: Vec<usize>,
    pub(crate) kind: TensorKind,
    /// Bytes of the file.
    pub(crate) bytes: Range<usize>,
}

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TensorKind {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
    /// Some other ggml type, by its number.
    Other(u32),
}

impl TensorKind {
    /// As [`crate::ModelInfo::dtype`] codes it; f32 for what this engine does not run.
    pub(crate) fn dtype(self) -> u8 {
        match self {
            Self::F32 | Self::Other(_) => 0,
            Self::Bf16 => 1,
            Self::F16 => 2,
            Self::Q8_0 => 3,
            Self::Q4_0 => 4,
            Self::Q4_1 => 5,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q4K => 8,
            Self::Q5K => 9,
            Self::Q6K => 10,
        }
    }

    fn from_code(code: u32) -> Self {
        match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            other => Self::Other(other),
        }
    }

    /// `(numbers, bytes)` of one block.
    pub(crate) fn block(self) -> Option<(usize, usize)> {
        match self {
            Self::F32 => Some((1, 4)),
            Self::F16 | Self::Bf16 => Some((1, 2)),
            Self::Q4_0 => Some((32, 18)),
            Self::Q4_1 => Some((32, 20)),
            Self::Q5_0 => Some((32, 22)),
            Self::Q5_1 => Some((32, 24)),
            Self::Q8_0 => Some((32, 34)),
            Self::Q4K => Some((256, 144)),
            Self::Q5K => Some((256, 176)),
            Self::Q6K => Some((256, 210)),
            Self::Other(_) => None,
        }
    }
}

impl Gguf {
    /// Reads the head of `file`. The error says what is wrong and where.
    pub(crate) fn parse(file: &[u8]) -> Result<Self, String> {
        let mut reader = Reader { file, at: 0, elements: 0 };
        if reader.take(4)? != b"GGUF" {
            return Err("it does not begin with GGUF".into());
        }
        let version = reader.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("GGUF version {version} is not 2 or 3"));
        }
        let tensor_count = bounded(reader.u64()?, MAX_TENSORS, "tensors")?;
        let entry_count = bounded(reader.u64()?, MAX_ENTRIES, "metadata entries")?;
        let mut metadata = HashMap::new();
        for _ in 0..entry_count {
            let key = reader.text()?;
            let kind = reader.u32()?;
            let value = reader.value(kind, 0)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(format!("the metadata key {key} stands twice"));
            }
        }
        let mut heads = Vec::new();
        for _ in 0..tensor_count {
            heads.push(reader.tensor_head()?);
        }
        let alignment = match metadata.get("general.alignment") {
            Some(Value::Unsigned(alignment)) if alignment.is_power_of_two() && *alignment <= 65_536 => {
                usize::try_from(*alignment).map_err(|_| "alignment".to_owned())?
            }
            Some(_) => return Err("general.alignment is not a small power of two".into()),
            None => 32,
        };
        let data_at = reader.at.div_ceil(alignment).checked_mul(alignment).ok_or("the head is too long")?;
        let mut tensors = HashMap::new();
        heads.sort_by_key(|head| head.offset);
        let mut last_end = data_at;
        for head in heads {
            let info = head.place(data_at, file.len())?;
            if info.bytes.start < last_end {
                return Err(format!("the tensor {} overlaps another", head.name));
            }
            last_end = info.bytes.end;
            if tensors.insert(head.name.clone(), info).is_some() {
                return Err(format!("the tensor {} stands twice", head.name));
            }
        }
        Ok(Self { metadata, tensors })
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn unsigned(&self, key: &str) -> Option<u64> {
        match self.metadata.get(key) {
            Some(Value::Unsigned(value)) => Some(*value),
            Some(Value::Signed(value)) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    pub(crate) fn float(&self, key: &str) -> Option<f64> {
        match self.metadata.get(key) {
            Some(Value::Float(value)) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn array(&self, key: &str) -> Option<&[Value]> {
        match self.metadata.get(key) {
            Some(Value::Array(values)) => Some(values),
            _ => None,
        }
    }
}

struct TensorHead {
    name: String,
    dimensions: Vec<usize>,
    kind: TensorKind,
    offset: u64,
}

impl TensorHead {
    fn place(&self, data_at: usize, file_len: usize) -> Result<TensorInfo, String> {
        let wrong = |what: &str| format!("the tensor {}: {what}", self.name);
        let numbers = self
            .dimensions
            .iter()
            .try_fold(1usize, |product, dimension| product.checked_mul(*dimension))
            .ok_or_else(|| wrong("its dimensions overflow"))?;
        let length = match self.kind.block() {
            Some((per_block, bytes)) => {
                if self.dimensions.first().is_none_or(|columns| columns % per_block != 0) {
                    return Err(wrong("its rows are not whole blocks"));
                }
                (numbers / per_block).checked_mul(bytes).ok_or_else(|| wrong("its size overflows"))?
            }
            None => 0,
        };
        let start = usize::try_from(self.offset)
            .ok()
            .and_then(|offset| data_at.checked_add(offset))
            .ok_or_else(|| wrong("its offset overflows"))?;
        let end = start.checked_add(length).ok_or_else(|| wrong("its end overflows"))?;
        if end > file_len {
            return Err(wrong("it ends beyond the file, which is truncated"));
        }
        Ok(TensorInfo { dimensions: self.dimensions.clone(), kind: self.kind, bytes: start..end })
    }
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
    elements: u64,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(length).ok_or("a length overflows")?;
        let bytes = self
            .file
            .get(self.at..end)
            .ok_or_else(|| format!("it ends at byte {} inside its head", self.file.len()))?;
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String, String> {
        let length = usize::try_from(self.u64()?).map_err(|_| "a text is too long".to_owned())?;
        let bytes = self.take(length)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| format!("a text before byte {} is not UTF-8", self.at))
    }

    fn value(&mut self, kind: u32, nesting: u8) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Unsigned(u64::from(self.array::<1>()?[0])),
            1 => Value::Signed(i64::from(i8::from_le_bytes(self.array()?))),
            2 => Value::Unsigned(u64::from(u16::from_le_bytes(self.array()?))),
            3 => Value::Signed(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Value::Unsigned(u64::from(self.u32()?)),
            5 => Value::Signed(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array()?))),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::Text(self.text()?),
            9 if nesting < MAX_NESTING => {
                let of = self.u32()?;
                let count = self.u64()?;
                // Every element takes a byte at least, so a count beyond the file is a lie.
                let left = self.file.len().saturating_sub(self.at) as u64;
                let count = bounded(count, left, "array elements")?;
                self.elements = bounded(self.elements + count, MAX_ELEMENTS, "array elements in all")?;
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(self.value(of, nesting + 1)?);
                }
                Value::Array(values)
            }
            10 => Value::Unsigned(self.u64()?),
            11 => Value::Signed(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("a metadata value has the unknown type {other}")),
        })
    }

    fn tensor_head(&mut self) -> Result<TensorHead, String> {
        let name = self.text()?;
        let rank = self.u32()?;
        if rank == 0 || rank > MAX_DIMENSIONS {
            return Err(format!("the tensor {name} has {rank} dimensions"));
        }
        let mut dimensions = Vec::new();
        for _ in 0..rank {
            let dimension =
                usize::try_from(self.u64()?).map_err(|_| format!("the tensor {name} is too large"))?;
            if dimension == 0 {
                return Err(format!("the tensor {name} is empty"));
            }
            dimensions.push(dimension);
        }
        let kind = TensorKind::from_code(self.u32()?);
        Ok(TensorHead { name, dimensions, kind, offset: self.u64()? })
    }
}

fn bounded(count: u64, most: u64, what: &str) -> Result<u64, String> {
    if count > most { Err(format!("it claims {count} {what}")) } else { Ok(count) }
}
