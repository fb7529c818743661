//! How values become cells and back: whole-cell parsing, child cells, snakes, signatures, opcodes.

use std::fmt;
use std::ops::Deref;

use tycho_types::cell::{Cell, CellBuilder, CellContext, CellSlice, HashBytes, Load, Store};
use tycho_types::error::Error as CellError;

/// Bytes a snake may hold: below the depth (512) and size (64 KiB) that TON allows a message.
pub const MAX_SNAKE_BYTES: usize = 48 * 1024;
/// Bytes in every cell of a snake but the last.
pub const SNAKE_CELL_BYTES: usize = 127;

/// A cell could not be built or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("{what} does not fit the cell layout ({source}); the builder of it is at fault")]
    Build { what: &'static str, source: CellError },
    #[error("{what} is malformed ({source}); its sender is at fault")]
    Malformed { what: &'static str, source: CellError },
    #[error("{what} is followed by {bits} bits and {refs} references; its sender is at fault")]
    Trailing { what: &'static str, bits: u16, refs: u8 },
    #[error("{bytes} bytes are more than the {MAX_SNAKE_BYTES} a chain of cells may hold; shorten the data")]
    SnakeTooLong { bytes: usize },
    #[error("the code given for {what} is not the code the network names; use the network's artefacts")]
    CodeMismatch { what: &'static str },
}

/// The cell of a value.
pub fn to_cell<T: Store>(value: &T) -> Result<Cell, WireError> {
    CellBuilder::build_from(value).map_err(|source| WireError::Build { what: short_name::<T>(), source })
}

/// The value of a whole cell; data left over is an error.
pub fn from_cell<T: for<'a> Load<'a>>(cell: &Cell) -> Result<T, WireError> {
    let what = short_name::<T>();
    let mut slice = cell.as_slice().map_err(|source| WireError::Malformed { what, source })?;
    from_slice(&mut slice)
}

/// The value of the rest of a slice; data left over is an error.
pub fn from_slice<T: for<'a> Load<'a>>(slice: &mut CellSlice<'_>) -> Result<T, WireError> {
    let what = short_name::<T>();
    let value = T::load_from(slice).map_err(|source| WireError::Malformed { what, source })?;
    if !slice.is_empty() {
        return Err(WireError::Trailing { what, bits: slice.size_bits(), refs: slice.size_refs() });
    }
    Ok(value)
}

/// A message body: an opcode of 32 bits, then the fields.
pub trait Message: Store + for<'a> Load<'a> {
    /// First 32 bits of the body.
    const OPCODE: u32;
    /// Name in `contracts/chrysalis.tlb`.
    const NAME: &'static str;

    /// The body as a cell.
    fn to_cell(&self) -> Result<Cell, WireError> {
        to_cell(self)
    }

    /// The message of a whole body cell.
    fn from_cell(cell: &Cell) -> Result<Self, WireError> {
        from_cell(cell)
    }

    /// The message of a whole body slice.
    fn from_slice(slice: &mut CellSlice<'_>) -> Result<Self, WireError> {
        from_slice(slice)
    }
}

/// First 32 bits of a body, or nothing where it is shorter.
pub fn opcode_of(body: &CellSlice<'_>) -> Option<u32> {
    body.get_u32(0).ok()
}

/// `^T`: a value in a cell of its own. Keeps the cell it was read from, so its hash is the one that was signed or
/// stored even where the sender's encoding was not ours.
#[derive(Clone, PartialEq, Eq)]
pub struct Ref<T> {
    value: T,
    cell: Cell,
}

impl<T: Store> Ref<T> {
    /// Builds the cell.
    pub fn new(value: T) -> Result<Self, WireError> {
        let cell = to_cell(&value)?;
        Ok(Self { value, cell })
    }
}

impl<T: for<'a> Load<'a>> Ref<T> {
    /// Reads the whole cell.
    pub fn from_cell(cell: Cell) -> Result<Self, WireError> {
        Ok(Self { value: from_cell(&cell)?, cell })
    }
}

impl<T> Ref<T> {
    pub fn cell(&self) -> &Cell {
        &self.cell
    }

    /// Representation hash of the cell.
    pub fn hash(&self) -> HashBytes {
        *self.cell.repr_hash()
    }

    pub fn into_value(self) -> T {
        self.value
    }

    pub fn into_cell(self) -> Cell {
        self.cell
    }
}

impl<T> Deref for Ref<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T> Store for Ref<T> {
    fn store_into(&self, builder: &mut CellBuilder, _: &dyn CellContext) -> Result<(), CellError> {
        builder.store_reference(self.cell.clone())
    }
}

impl<'a, T: for<'b> Load<'b>> Load<'a> for Ref<T> {
    fn load_from(slice: &mut CellSlice<'a>) -> Result<Self, CellError> {
        let cell = slice.load_reference_cloned()?;
        let mut inner = cell.as_slice()?;
        let value = T::load_from(&mut inner)?;
        if !inner.is_empty() {
            return Err(CellError::InvalidData);
        }
        Ok(Self { value, cell })
    }
}

/// Bytes in a chain of cells: 127 a cell but the last, the next cell in the only reference.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Snake(Vec<u8>);

impl Snake {
    /// Errors when longer than [`MAX_SNAKE_BYTES`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, WireError> {
        if bytes.len() > MAX_SNAKE_BYTES {
            return Err(WireError::SnakeTooLong { bytes: bytes.len() });
        }
        Ok(Self(bytes))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// A ciphertext or a quote is long and of no use in a log.
impl fmt::Debug for Snake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snake({} bytes)", self.0.len())
    }
}

impl Store for Snake {
    fn store_into(&self, builder: &mut CellBuilder, _: &dyn CellContext) -> Result<(), CellError> {
        let mut next: Option<Cell> = None;
        let mut chunks: Vec<&[u8]> = self.0.chunks(SNAKE_CELL_BYTES).collect();
        let first = if chunks.is_empty() { &[][..] } else { chunks.remove(0) };
        for chunk in chunks.into_iter().rev() {
            next = Some(snake_cell(chunk, next)?);
        }
        store_snake_part(builder, first, next)
    }
}

impl<'a> Load<'a> for Snake {
    fn load_from(slice: &mut CellSlice<'a>) -> Result<Self, CellError> {
        let mut bytes = Vec::new();
        let mut next = load_snake_part(slice, &mut bytes)?;
        while let Some(cell) = next {
            let mut part = cell.as_slice()?;
            if part.is_data_empty() {
                return Err(CellError::InvalidData);
            }
            next = load_snake_part(&mut part, &mut bytes)?;
        }
        Ok(Self(bytes))
    }
}

/// An Ed25519 signature over the hash of a cell.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", hex::encode(self.0))
    }
}

impl Store for Signature {
    fn store_into(&self, builder: &mut CellBuilder, _: &dyn CellContext) -> Result<(), CellError> {
        builder.store_raw(&self.0, 512)
    }
}

impl<'a> Load<'a> for Signature {
    fn load_from(slice: &mut CellSlice<'a>) -> Result<Self, CellError> {
        let mut bytes = [0; 64];
        slice.load_raw(&mut bytes, 512)?;
        Ok(Self(bytes))
    }
}

/// The opcode of a TL-B tag such as `#43480401`.
pub(crate) const fn opcode(tag: &str) -> u32 {
    let bytes = tag.as_bytes();
    assert!(bytes.len() == 9 && bytes[0] == b'#');
    let mut value = 0u32;
    let mut i = 1;
    while i < bytes.len() {
        let digit = match bytes[i] {
            b @ b'0'..=b'9' => b - b'0',
            b @ b'a'..=b'f' => b - b'a' + 10,
            _ => panic!("a tag is lower-case hexadecimal"),
        };
        value = (value << 4) | digit as u32;
        i += 1;
    }
    value
}

/// Declares message bodies: `name "#opcode" Struct { fields }`.
macro_rules! messages {
    ($($(#[$doc:meta])* $name:literal $tag:literal $ty:ident { $($(#[$fdoc:meta])* $field:ident: $fty:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, tycho_types::cell::Store, tycho_types::cell::Load)]
        #[tlb(tag = $tag)]
        pub struct $ty { $($(#[$fdoc])* pub $field: $fty),* }

        impl $crate::wire::Message for $ty {
            const OPCODE: u32 = $crate::wire::opcode($tag);
            const NAME: &'static str = $name;
        }
    )*};
}
pub(crate) use messages;

fn snake_cell(bytes: &[u8], next: Option<Cell>) -> Result<Cell, CellError> {
    let mut builder = CellBuilder::new();
    store_snake_part(&mut builder, bytes, next)?;
    builder.build()
}

fn store_snake_part(builder: &mut CellBuilder, bytes: &[u8], next: Option<Cell>) -> Result<(), CellError> {
    builder.store_raw(bytes, (bytes.len() * 8) as u16)?;
    match next {
        Some(cell) => builder.store_reference(cell),
        None => Ok(()),
    }
}

/// Appends one cell's bytes; returns the next cell. Only the last cell may be short.
fn load_snake_part<'a>(
    slice: &mut CellSlice<'a>,
    bytes: &mut Vec<u8>,
) -> Result<Option<&'a tycho_types::cell::DynCell>, CellError> {
    let bits = slice.size_bits();
    let length = usize::from(bits / 8);
    let more = slice.size_refs() == 1;
    if !bits.is_multiple_of(8)
        || slice.size_refs() > 1
        || (more && length != SNAKE_CELL_BYTES)
        || bytes.len() + length > MAX_SNAKE_BYTES
    {
        return Err(CellError::InvalidData);
    }
    let mut buffer = [0; 128];
    bytes.extend_from_slice(slice.load_raw(&mut buffer, bits)?);
    if more { slice.load_reference().map(Some) } else { Ok(None) }
}

fn short_name<T>() -> &'static str {
    let full = std::any::type_name::<T>();
    let base = full.split('<').next().unwrap_or(full);
    base.rsplit("::").next().unwrap_or(base)
}
