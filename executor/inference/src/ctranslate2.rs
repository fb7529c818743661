//! CTranslate2's `model.bin` (version 6), as the project's `ModelSpec` writes it: little-endian counts, then for each
//! variable its name, dimensions, type and bytes, then aliases. Every size is held against the file.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::LoadError;
use crate::files::{CTRANSLATE2_FILE, ModelFile, ModelFiles};
use crate::gguf::TensorKind;
use crate::matrix::{Bytes, Matrix};

const VERSION: u32 = 6;
const REVISION: u32 = 3;
/// Variables of a file; the largest Whisper has about a thousand.
const MAX_VARIABLES: u32 = 1 << 16;
const MAX_DIMENSIONS: u8 = 4;

/// The variables of a file.
pub(crate) struct Ctranslate2<'a> {
    files: &'a ModelFiles,
    file: &'a ModelFile,
    variables: HashMap<String, Variable>,
}

#[derive(Clone)]
struct Variable {
    dimensions: Vec<usize>,
    /// CTranslate2's number of the type.
    kind: u8,
    range: Range<usize>,
}

impl<'a> Ctranslate2<'a> {
    /// Reads the head of every variable of a model of the kind `spec`.
    ///
    /// # Errors
    /// [`LoadError`]: truncated or contradicting itself; another version or kind of model.
    pub(crate) fn open(files: &'a ModelFiles, spec: &str) -> Result<Self, LoadError> {
        let file =
            files.find(CTRANSLATE2_FILE).ok_or_else(|| files.corrupt(CTRANSLATE2_FILE, "it is missing"))?;
        let mut reader = Reader { bytes: &file.bytes, at: 0 };
        let corrupt = |detail: String| files.corrupt(CTRANSLATE2_FILE, detail);
        let (version, found) = reader.head().map_err(corrupt)?;
        if version != VERSION || found.0 != spec || found.1 != REVISION {
            let (name, revision) = found;
            let what =
                format!("a CTranslate2 file of version {version} with {name:?} of revision {revision}");
            return Err(LoadError::Unsupported { what });
        }
        let variables = reader.variables().map_err(corrupt)?;
        Ok(Self { files, file, variables })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.variables.contains_key(name)
    }

    /// How many numbers follow `prefix` in names, from 0 on without a gap.
    pub(crate) fn count(&self, prefix: &str) -> usize {
        let numbers = self.variables.keys().filter_map(|name| {
            let number = name.strip_prefix(prefix)?.split('/').next()?;
            number.parse::<usize>().ok()
        });
        let numbers: std::collections::HashSet<usize> = numbers.collect();
        (0..).take_while(|number| numbers.contains(number)).count()
    }

    /// The dimensions of a variable that has `N`.
    ///
    /// # Errors
    /// [`LoadError::Corrupt`] where it is missing or has another number of them.
    pub(crate) fn dimensions<const N: usize>(&self, name: &str) -> Result<[usize; N], LoadError> {
        let dimensions = &self.find(name)?.dimensions;
        dimensions[..]
            .try_into()
            .map_err(|_| self.corrupt(format!("{name} is {dimensions:?}, not of {N} dimensions")))
    }

    /// A whole number that is not negative.
    ///
    /// # Errors
    /// [`LoadError::Corrupt`].
    pub(crate) fn number(&self, name: &str) -> Result<usize, LoadError> {
        let variable = self.find(name)?;
        let number = match (variable.kind, self.file.bytes.get(variable.range.clone())) {
            (1, Some([a])) => i32::from(*a as i8),
            (2, Some([a, b])) => i32::from(i16::from_le_bytes([*a, *b])),
            (3, Some([a, b, c, d])) => i32::from_le_bytes([*a, *b, *c, *d]),
            _ => -1,
        };
        usize::try_from(number).map_err(|_| self.corrupt(format!("{name} is not a whole number from 0 up")))
    }

    /// Rows of a variable of these `dimensions`; the dimensions after the first make one row.
    ///
    /// # Errors
    /// [`LoadError`] where it is missing, of other dimensions, or of a type that is not read.
    pub(crate) fn rows(
        &self,
        name: &str,
        dimensions: &[usize],
        rows: Range<usize>,
    ) -> Result<Matrix, LoadError> {
        let variable = self.find(name)?;
        if variable.dimensions != dimensions {
            return Err(self.corrupt(format!("{name} is {:?}, not {dimensions:?}", variable.dimensions)));
        }
        let kind = match variable.kind {
            0 => TensorKind::F32,
            4 => TensorKind::F16,
            5 => TensorKind::Bf16,
            _ => {
                let what = format!("the integer type of {name} (convert the model with float16 weights)");
                return Err(LoadError::Unsupported { what });
            }
        };
        let columns = dimensions.get(1..).unwrap_or_default().iter().product();
        let whole = dimensions.first().copied().unwrap_or(0);
        let matrix = || {
            let row_bytes = variable.range.len().checked_div(whole)?;
            let start = variable.range.start + rows.start * row_bytes;
            let range = start..start + rows.len() * row_bytes;
            (rows.end <= whole).then_some(())?;
            Matrix::new(rows.len(), columns, kind, Bytes::new(&self.file.bytes, range)?)
        };
        matrix().ok_or_else(|| self.corrupt(format!("{name} has the wrong size")))
    }

    /// A vector in f32.
    ///
    /// # Errors
    /// As [`Ctranslate2::rows`].
    pub(crate) fn vector(&self, name: &str, length: usize) -> Result<Vec<f32>, LoadError> {
        Ok(self.rows(name, &[length], 0..length)?.expand_all())
    }

    fn find(&self, name: &str) -> Result<&Variable, LoadError> {
        self.variables.get(name).ok_or_else(|| self.corrupt(format!("there is no variable {name}")))
    }

    fn corrupt(&self, detail: String) -> LoadError {
        self.files.corrupt(CTRANSLATE2_FILE, detail)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// The version, and the model's kind with its revision.
    fn head(&mut self) -> Result<(u32, (String, u32)), String> {
        let version = self.u32()?;
        if version != VERSION {
            return Ok((version, (String::new(), 0)));
        }
        Ok((version, (self.text()?, self.u32()?)))
    }

    fn variables(&mut self) -> Result<HashMap<String, Variable>, String> {
        let count = self.u32()?;
        if count > MAX_VARIABLES {
            return Err(format!("it claims {count} variables"));
        }
        let mut variables = HashMap::new();
        for _ in 0..count {
            let name = self.text()?;
            let [rank] = self.array()?;
            if rank > MAX_DIMENSIONS {
                return Err(format!("{name} has {rank} dimensions"));
            }
            let dimensions =
                (0..rank).map(|_| self.u32().map(|size| size as usize)).collect::<Result<Vec<_>, _>>()?;
            let [kind] = self.array()?;
            let width = match kind {
                0 | 3 => 4,
                1 => 1,
                2 | 4 | 5 => 2,
                _ => return Err(format!("{name} is of the unknown type {kind}")),
            };
            let size = self.u32()? as usize;
            let expected = dimensions.iter().try_fold(width, |size: usize, by| size.checked_mul(*by));
            if expected != Some(size) {
                return Err(format!("{name} of {dimensions:?} has {size} bytes"));
            }
            let range = self.at..self.at + self.take(size)?.len();
            if variables.insert(name.clone(), Variable { dimensions, kind, range }).is_some() {
                return Err(format!("{name} stands twice"));
            }
        }
        // Other names for variables with the same contents.
        let count = self.u32()?;
        if count > MAX_VARIABLES {
            return Err(format!("it claims {count} aliases"));
        }
        for _ in 0..count {
            let (alias, name) = (self.text()?, self.text()?);
            let variable =
                variables.get(&name).ok_or_else(|| format!("{alias} leads to no variable"))?.clone();
            if variables.insert(alias.clone(), variable).is_some() {
                return Err(format!("{alias} stands twice"));
            }
        }
        if self.at != self.bytes.len() {
            return Err(format!("it goes on after its end at byte {}", self.at));
        }
        Ok(variables)
    }

    /// A length and so many bytes, the last of them 0.
    fn text(&mut self) -> Result<String, String> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        let bytes = self.take(length)?;
        let text = bytes.strip_suffix(&[0]).ok_or("a name does not end in 0")?;
        std::str::from_utf8(text).map(str::to_owned).map_err(|_| "a name is not UTF-8".to_owned())
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| "it ends too soon".to_owned())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken =
            rest.get(..count).ok_or_else(|| format!("it ends within what stands at byte {}", self.at))?;
        self.at += count;
        Ok(taken)
    }
}
