//! `POST /v1/embeddings`: the request and its answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::strict;

/// Most texts of one request.
pub(super) const MAX_TEXTS: usize = 2048;

/// A request that makes sense by itself. Without `Debug`: it holds texts.
pub struct EmbeddingsRequest {
    /// As the caller names it.
    pub model: String,
    /// At least one, none empty.
    pub texts: Vec<String>,
    /// How vectors are written in the answer.
    pub encoding: Encoding,
    /// How many of a vector's numbers are wanted; only the model's own count is served.
    pub dimensions: Option<u32>,
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// A list of numbers.
    Float,
    /// Base64 of little-endian f32; what the official clients ask for.
    Base64,
}

impl EmbeddingsRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// [`ApiError`] with the first parameter that is wrong, unknown or not supported.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let wire: EmbeddingsWire = strict::parse(body)?;
        let texts = match wire.input {
            Value::String(text) => vec![text],
            Value::Array(texts) => texts
                .into_iter()
                .map(|text| match text {
                    Value::String(text) => Ok(text),
                    _ => Err(ApiError::unsupported("input")),
                })
                .collect::<Result<_, _>>()?,
            _ => return Err(ApiError::invalid("input", "client: input is a text or several")),
        };
        if texts.is_empty() || texts.len() > MAX_TEXTS || texts.iter().any(String::is_empty) {
            return Err(ApiError::invalid(
                "input",
                format!("client: 1 to {MAX_TEXTS} texts, none of them empty"),
            ));
        }
        let encoding = match wire.encoding_format.as_deref() {
            None | Some("float") => Encoding::Float,
            Some("base64") => Encoding::Base64,
            Some(_) => {
                return Err(ApiError::invalid(
                    "encoding_format",
                    "client: encoding_format is float or base64",
                ));
            }
        };
        Ok(Self { model: wire.model, texts, encoding, dimensions: wire.dimensions })
    }

    /// The answer, of a vector for each text.
    ///
    /// # Errors
    /// [`ApiError`] where `dimensions` asked for another length.
    pub fn answer(&self, model: &str, vectors: &[Vec<f32>], prompt_tokens: u64) -> Result<Value, ApiError> {
        let fits = |vector: &Vec<f32>| self.dimensions.is_none_or(|wanted| wanted as usize == vector.len());
        if !vectors.iter().all(fits) {
            return Err(ApiError::invalid(
                "dimensions",
                "client: this model's vectors have another length; leave dimensions out",
            ));
        }
        let data: Vec<Value> = vectors
            .iter()
            .enumerate()
            .map(|(index, vector)| {
                let embedding = match self.encoding {
                    Encoding::Float => json!(vector),
                    Encoding::Base64 => {
                        let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
                        json!(STANDARD.encode(bytes))
                    }
                };
                json!({"object": "embedding", "index": index, "embedding": embedding})
            })
            .collect();
        Ok(json!({
            "object": "list", "data": data, "model": model,
            "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens},
        }))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmbeddingsWire {
    model: String,
    input: Value,
    encoding_format: Option<String>,
    dimensions: Option<u32>,
    /// Vectors are not cached, so there is no scope to divide.
    #[serde(rename = "user")]
    _user: Option<String>,
}
