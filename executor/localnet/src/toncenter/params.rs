//! Parameters of a call, from a query string (all strings) or from JSON.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Map, Value};
use tycho_types::cell::HashBytes;
use tycho_types::models::{StdAddr, StdAddrFormat};

use crate::error::LocalnetError;

/// The parameters of one call.
pub(super) struct Params(pub(super) Map<String, Value>);

impl Params {
    pub(super) fn get(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or(&Value::Null)
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.get(name) {
            Value::String(text) if !text.is_empty() => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    pub(super) fn required_text(&self, name: &str) -> Result<String, LocalnetError> {
        self.text(name).ok_or_else(|| LocalnetError::BadRequest(format!("the parameter {name} is missing")))
    }

    /// A whole number, `None` where it is absent.
    pub(super) fn integer<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, LocalnetError> {
        match self.text(name) {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                LocalnetError::BadRequest(format!("the parameter {name} is not a number in range"))
            }),
        }
    }

    pub(super) fn required_integer<T: std::str::FromStr>(&self, name: &str) -> Result<T, LocalnetError> {
        self.integer(name)?
            .ok_or_else(|| LocalnetError::BadRequest(format!("the parameter {name} is missing")))
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        match self.get(name) {
            Value::Bool(value) => *value,
            Value::String(text) => matches!(text.as_str(), "true" | "1"),
            _ => false,
        }
    }

    pub(super) fn address(&self, name: &str) -> Result<StdAddr, LocalnetError> {
        parse_address(&self.required_text(name)?)
    }

    /// Bytes in base64, ordinary or URL-safe; empty where absent.
    pub(super) fn bytes(&self, name: &str) -> Result<Vec<u8>, LocalnetError> {
        let Some(text) = self.text(name) else { return Ok(Vec::new()) };
        STANDARD
            .decode(&text)
            .or_else(|_| URL_SAFE.decode(&text))
            .map_err(|_| LocalnetError::BadRequest(format!("the parameter {name} is not base64")))
    }

    /// A hash in hex or base64.
    pub(super) fn hash(&self, name: &str) -> Result<Option<HashBytes>, LocalnetError> {
        self.text(name).map(|text| parse_hash(name, &text)).transpose()
    }

    /// Hashes as a list, or one alone, as a query string has it; `limit` of them at most.
    pub(super) fn hashes(&self, name: &str, limit: usize) -> Result<Vec<HashBytes>, LocalnetError> {
        let Value::Array(list) = self.get(name) else {
            return Ok(self.hash(name)?.into_iter().collect());
        };
        if list.len() > limit {
            return Err(LocalnetError::BadRequest(format!(
                "the parameter {name} has more than {limit} hashes"
            )));
        }
        list.iter().map(|item| parse_hash(name, item.as_str().unwrap_or_default())).collect()
    }
}

fn parse_hash(name: &str, text: &str) -> Result<HashBytes, LocalnetError> {
    let hash = match text.len() {
        64 => text.parse::<HashBytes>().ok(),
        _ => STANDARD
            .decode(text)
            .or_else(|_| URL_SAFE.decode(text))
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .map(HashBytes),
    };
    hash.ok_or_else(|| LocalnetError::BadRequest(format!("the parameter {name} is not a hash of 32 bytes")))
}

/// An address in any of its usual forms.
pub(super) fn parse_address(text: &str) -> Result<StdAddr, LocalnetError> {
    StdAddr::from_str_ext(text, StdAddrFormat::any())
        .map(|(address, _)| address)
        .map_err(|_| LocalnetError::BadRequest(format!("{text} is not an address")))
}
