//! What a registered model says of itself: UTF-8 JSON in its Model's storage.

use serde::{Deserialize, Serialize};

use crate::fees::METADATA_CELLS;
use crate::model::Unit;
use crate::wire::{SNAKE_CELL_BYTES, Snake, WireError};

/// Longest metadata that a Model takes.
pub const MAX_METADATA_BYTES: usize = METADATA_CELLS as usize * SNAKE_CELL_BYTES;
/// Longest name and licence.
pub const MAX_TEXT_BYTES: usize = 256;

/// Other members are allowed and ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelMetadata {
    pub name: String,
    /// An SPDX expression, such as `Apache-2.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Longest input and output together, in tokens; absent where the model knows no tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modality: Option<Modality>,
}

/// What goes in and comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Modality {
    TextToText,
    /// Vectors that stand for a text.
    TextToVector,
    AudioToText,
    ImageToText,
    TextToImage,
}

impl Modality {
    /// What such a model is sold by.
    pub fn unit(self) -> Unit {
        match self {
            Self::TextToText | Self::TextToVector => Unit::Token,
            Self::AudioToText => Unit::AudioSecond,
            Self::ImageToText | Self::TextToImage => Unit::Image,
        }
    }
}

/// The metadata is not of this form.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    #[error("the model's metadata is not the JSON it should be ({0}); its publisher is at fault")]
    Json(#[from] serde_json::Error),
    #[error(
        "{bytes} bytes of metadata are more than the {MAX_METADATA_BYTES} that a Model takes; shorten them"
    )]
    TooLong { bytes: usize },
    #[error("the model's name or licence is empty or over {MAX_TEXT_BYTES} bytes; its publisher is at fault")]
    BadText,
    #[error("a model of this modality is sold by {expected:?}, not by {found:?}; its publisher is at fault")]
    Unit { expected: Unit, found: Unit },
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl ModelMetadata {
    /// For `register_model`.
    pub fn to_snake(&self) -> Result<Snake, MetadataError> {
        self.check_texts()?;
        let json = serde_json::to_vec(self)?;
        if json.len() > MAX_METADATA_BYTES {
            return Err(MetadataError::TooLong { bytes: json.len() });
        }
        Ok(Snake::new(json)?)
    }

    /// Reads what a Model sold by `unit` holds.
    pub fn parse(bytes: &[u8], unit: Unit) -> Result<Self, MetadataError> {
        if bytes.len() > MAX_METADATA_BYTES {
            return Err(MetadataError::TooLong { bytes: bytes.len() });
        }
        let metadata: Self = serde_json::from_slice(bytes)?;
        metadata.check_texts()?;
        match metadata.modality.map(Modality::unit) {
            Some(expected) if expected != unit => Err(MetadataError::Unit { expected, found: unit }),
            _ => Ok(metadata),
        }
    }

    fn check_texts(&self) -> Result<(), MetadataError> {
        let fits = |text: &str| (1..=MAX_TEXT_BYTES).contains(&text.len());
        if fits(&self.name) && self.licence.as_deref().is_none_or(fits) {
            Ok(())
        } else {
            Err(MetadataError::BadText)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{MetadataError, Modality, ModelMetadata};
    use crate::model::Unit;

    fn metadata() -> ModelMetadata {
        ModelMetadata {
            name: "SmolLM2-135M-Instruct".into(),
            licence: Some("Apache-2.0".into()),
            context_tokens: Some(8192),
            modality: Some(Modality::TextToText),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let snake = metadata().to_snake().unwrap();
        assert_eq!(
            std::str::from_utf8(snake.as_bytes()).unwrap(),
            r#"{"name":"SmolLM2-135M-Instruct","licence":"Apache-2.0","context_tokens":8192,"modality":"text_to_text"}"#
        );
        assert_eq!(ModelMetadata::parse(snake.as_bytes(), Unit::Token).unwrap(), metadata());
        let least = ModelMetadata::parse(br#"{"name":"a","more":1}"#, Unit::Image).unwrap();
        assert_eq!((least.licence, least.context_tokens, least.modality), (None, None, None));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let bytes = metadata().to_snake().unwrap().into_bytes();
        assert!(matches!(ModelMetadata::parse(&bytes, Unit::Image), Err(MetadataError::Unit { .. })));
        assert!(matches!(ModelMetadata::parse(b"{}", Unit::Token), Err(MetadataError::Json(_))));
        assert!(matches!(ModelMetadata::parse(br#"{"name":""}"#, Unit::Token), Err(MetadataError::BadText)));
        let long = ModelMetadata { name: "x".repeat(257), ..metadata() };
        assert!(matches!(long.to_snake(), Err(MetadataError::BadText)));
        assert!(matches!(
            ModelMetadata::parse(&[b' '; 5_000], Unit::Token),
            Err(MetadataError::TooLong { bytes: 5_000 })
        ));
    }
}
