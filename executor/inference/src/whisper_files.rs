//! Whisper's weights and settings from a Hugging Face directory, or as CTranslate2 writes them.

use serde::Deserialize;
use serde_json::Value;

use crate::ctranslate2::Ctranslate2;
use crate::error::LoadError;
use crate::files::{CTRANSLATE2_FILE, ModelFiles};
use crate::hugging_face::SafetensorsSource;
use crate::layers::{LinearWeights, NormWeights};
use crate::weights::Source;
use crate::whisper_model::{
    AttentionWeights, DecoderLayerWeights, EncoderLayerWeights, FeedForwardWeights, Whisper, WhisperShape,
};

const FILE: &str = "config.json";

/// What the files say beside the weights.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Tokens never written.
    pub(crate) suppressed: Vec<u32>,
    /// Tokens that no text begins with.
    pub(crate) suppressed_first: Vec<u32>,
    /// Whether it knows languages other than English, where the files say so.
    pub(crate) is_multilingual: Option<bool>,
}

/// Reads weights and settings.
///
/// # Errors
/// [`LoadError`]: corrupt, or not a Whisper that this engine runs.
pub(crate) fn load(files: &ModelFiles) -> Result<(Whisper, Settings), LoadError> {
    let config = json(files, FILE)?;
    if files.find(CTRANSLATE2_FILE).is_some() {
        let settings = Settings {
            suppressed: ids(files, FILE, &config, "suppress_ids")?,
            suppressed_first: ids(files, FILE, &config, "suppress_ids_begin")?,
            is_multilingual: None,
        };
        return Ok((from_ctranslate2(files)?, settings));
    }
    const GENERATION: &str = "generation_config.json";
    // Newer directories keep these beside the config, older ones in it.
    let (name, generation) = match files.find(GENERATION) {
        Some(_) => (GENERATION, json(files, GENERATION)?),
        None => (FILE, config.clone()),
    };
    let settings = Settings {
        suppressed: ids(files, name, &generation, "suppress_tokens")?,
        suppressed_first: ids(files, name, &generation, "begin_suppress_tokens")?,
        is_multilingual: generation["is_multilingual"].as_bool(),
    };
    Ok((from_hugging_face(files, config)?, settings))
}

fn json(files: &ModelFiles, name: &str) -> Result<Value, LoadError> {
    let file = files.find(name).ok_or_else(|| files.corrupt(name, "it is missing"))?;
    serde_json::from_slice(&file.bytes).map_err(|error| files.corrupt(name, error))
}

/// A list of token ids; none where it is absent or null.
fn ids(files: &ModelFiles, name: &str, settings: &Value, key: &str) -> Result<Vec<u32>, LoadError> {
    let corrupt = || files.corrupt(name, format!("{key} is not a list of token ids"));
    match &settings[key] {
        Value::Null => Ok(Vec::new()),
        Value::Array(ids) => ids
            .iter()
            .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(corrupt))
            .collect(),
        _ => Err(corrupt()),
    }
}

#[derive(Deserialize)]
struct Config {
    model_type: String,
    d_model: usize,
    encoder_layers: usize,
    encoder_attention_heads: usize,
    encoder_ffn_dim: usize,
    decoder_layers: usize,
    decoder_attention_heads: usize,
    decoder_ffn_dim: usize,
    num_mel_bins: usize,
    max_source_positions: usize,
    max_target_positions: usize,
    vocab_size: usize,
    activation_function: Option<String>,
    #[serde(default)]
    scale_embedding: bool,
    quantization_config: Option<Value>,
}

fn from_hugging_face(files: &ModelFiles, config: Value) -> Result<Whisper, LoadError> {
    let config: Config = serde_json::from_value(config).map_err(|error| files.corrupt(FILE, error))?;
    let refuse = |what: String| Err(LoadError::Unsupported { what });
    if config.model_type != "whisper" {
        return refuse(format!("speech to text by the model type {:?}", config.model_type));
    }
    if config.activation_function.as_deref().is_some_and(|activation| activation != "gelu") {
        return refuse(format!("the activation {:?} in a whisper model", config.activation_function));
    }
    if config.scale_embedding || config.quantization_config.is_some() {
        return refuse("scale_embedding or quantization_config in a whisper model".into());
    }
    let shape = WhisperShape {
        width: config.d_model,
        encoder_layers: config.encoder_layers,
        encoder_heads: config.encoder_attention_heads,
        encoder_feed_forward: config.encoder_ffn_dim,
        decoder_layers: config.decoder_layers,
        decoder_heads: config.decoder_attention_heads,
        decoder_feed_forward: config.decoder_ffn_dim,
        bands: config.num_mel_bins,
        source_positions: config.max_source_positions,
        target_positions: config.max_target_positions,
        vocabulary: config.vocab_size,
    };
    let shape = shape.checked().map_err(|detail| files.corrupt(FILE, detail))?;
    let source = SafetensorsSource::open(files)?;
    let width = shape.width;
    let linear =
        |name: &str, rows: usize, columns: usize, has_bias: bool| -> Result<LinearWeights, LoadError> {
            let bias = has_bias.then(|| source.vector(&format!("{name}.bias"), rows)).transpose()?;
            Ok(LinearWeights { matrix: source.required(&format!("{name}.weight"), rows, columns)?, bias })
        };
    let norm = |name: &str| -> Result<NormWeights, LoadError> {
        Ok(NormWeights {
            weight: source.vector(&format!("{name}.weight"), width)?,
            bias: source.vector(&format!("{name}.bias"), width)?,
        })
    };
    let attention = |layer: &str, kind: &str| -> Result<AttentionWeights, LoadError> {
        let part = |part: &str, has_bias| linear(&format!("{layer}.{kind}.{part}"), width, width, has_bias);
        Ok(AttentionWeights {
            norm: norm(&format!("{layer}.{kind}_layer_norm"))?,
            q: part("q_proj", true)?,
            k: part("k_proj", false)?,
            v: part("v_proj", true)?,
            o: part("out_proj", true)?,
        })
    };
    let feed_forward = |layer: &str, wide: usize| -> Result<FeedForwardWeights, LoadError> {
        Ok(FeedForwardWeights {
            norm: norm(&format!("{layer}.final_layer_norm"))?,
            up: linear(&format!("{layer}.fc1"), wide, width, true)?,
            down: linear(&format!("{layer}.fc2"), width, wide, true)?,
        })
    };
    let convolution = |name: &str, channels: usize| -> Result<LinearWeights, LoadError> {
        Ok(LinearWeights {
            matrix: source.flattened(&format!("{name}.weight"), &[width, channels, 3])?,
            bias: Some(source.vector(&format!("{name}.bias"), width)?),
        })
    };
    let places = |name: &str, count: usize| Ok(source.required(name, count, width)?.expand_all());
    let whisper = Whisper {
        convolutions: [
            convolution("model.encoder.conv1", shape.bands)?,
            convolution("model.encoder.conv2", width)?,
        ],
        encoder_places: places("model.encoder.embed_positions.weight", shape.source_positions)?,
        encoder: (0..shape.encoder_layers)
            .map(|index| format!("model.encoder.layers.{index}"))
            .map(|layer| {
                Ok(EncoderLayerWeights {
                    own: attention(&layer, "self_attn")?,
                    feed_forward: feed_forward(&layer, shape.encoder_feed_forward)?,
                })
            })
            .collect::<Result<_, LoadError>>()?,
        encoder_norm: norm("model.encoder.layer_norm")?,
        words: source.required("model.decoder.embed_tokens.weight", shape.vocabulary, width)?,
        decoder_places: places("model.decoder.embed_positions.weight", shape.target_positions)?,
        decoder: (0..shape.decoder_layers)
            .map(|index| format!("model.decoder.layers.{index}"))
            .map(|layer| {
                Ok(DecoderLayerWeights {
                    own: attention(&layer, "self_attn")?,
                    cross: attention(&layer, "encoder_attn")?,
                    feed_forward: feed_forward(&layer, shape.decoder_feed_forward)?,
                })
            })
            .collect::<Result<_, LoadError>>()?,
        decoder_norm: norm("model.decoder.layer_norm")?,
        shape,
    };
    // The output matrix is the embedding; a stored copy is a leftover that transformers ignores too.
    match source.left(|name| name == "proj_out.weight") {
        Some(left) => Err(LoadError::Unsupported { what: format!("the tensor {left} in a whisper model") }),
        None => Ok(whisper),
    }
}

fn from_ctranslate2(files: &ModelFiles) -> Result<Whisper, LoadError> {
    let source = Ctranslate2::open(files, "WhisperSpec")?;
    let [width, bands, _] = source.dimensions("encoder/conv1/weight")?;
    let [source_positions, _] = source.dimensions("encoder/position_encodings/encodings")?;
    let [target_positions, _] = source.dimensions("decoder/position_encodings/encodings")?;
    let [vocabulary, _] = source.dimensions("decoder/embeddings/weight")?;
    let [encoder_feed_forward, _] = source.dimensions("encoder/layer_0/ffn/linear_0/weight")?;
    let [decoder_feed_forward, _] = source.dimensions("decoder/layer_0/ffn/linear_0/weight")?;
    let shape = WhisperShape {
        width,
        encoder_layers: source.count("encoder/layer_"),
        encoder_heads: source.number("encoder/num_heads")?,
        encoder_feed_forward,
        decoder_layers: source.count("decoder/layer_"),
        decoder_heads: source.number("decoder/num_heads")?,
        decoder_feed_forward,
        bands,
        source_positions,
        target_positions,
        vocabulary,
    };
    let shape = shape.checked().map_err(|detail| files.corrupt(CTRANSLATE2_FILE, detail))?;
    // As CTranslate2 numbers them, 3 is the exact GELU; the others are what Whisper has.
    for part in ["encoder", "decoder"] {
        for (setting, expected) in [("activation", 3), ("pre_norm", 1), ("scale_embeddings", 0)] {
            let name = format!("{part}/{setting}");
            if source.has(&name) && source.number(&name)? != expected {
                return Err(LoadError::Unsupported { what: format!("another {name} than Whisper's") });
            }
        }
    }
    let norm = |name: &str| -> Result<NormWeights, LoadError> {
        Ok(NormWeights {
            weight: source.vector(&format!("{name}/layer_norm/gamma"), width)?,
            bias: source.vector(&format!("{name}/layer_norm/beta"), width)?,
        })
    };
    // Several matrices may stand in one, row after row.
    let linear = |name: &str, part: usize, of: usize, rows: usize, columns: usize| {
        let bias = source.vector(&format!("{name}/bias"), of * rows)?;
        Ok::<_, LoadError>(LinearWeights {
            matrix: source.rows(
                &format!("{name}/weight"),
                &[of * rows, columns],
                part * rows..(part + 1) * rows,
            )?,
            bias: bias.get(part * rows..(part + 1) * rows).map(<[f32]>::to_vec),
        })
    };
    let square = |name: String, part: usize, of: usize| linear(&name, part, of, width, width);
    let own = |layer: &str| -> Result<AttentionWeights, LoadError> {
        let name = |part: &str| format!("{layer}/self_attention/{part}");
        Ok(AttentionWeights {
            norm: norm(&format!("{layer}/self_attention"))?,
            q: square(name("linear_0"), 0, 3)?,
            k: square(name("linear_0"), 1, 3)?,
            v: square(name("linear_0"), 2, 3)?,
            o: square(name("linear_1"), 0, 1)?,
        })
    };
    let cross = |layer: &str| -> Result<AttentionWeights, LoadError> {
        let name = |part: &str| format!("{layer}/attention/{part}");
        Ok(AttentionWeights {
            norm: norm(&format!("{layer}/attention"))?,
            q: square(name("linear_0"), 0, 1)?,
            k: square(name("linear_1"), 0, 2)?,
            v: square(name("linear_1"), 1, 2)?,
            o: square(name("linear_2"), 0, 1)?,
        })
    };
    let feed_forward = |layer: &str, wide: usize| -> Result<FeedForwardWeights, LoadError> {
        Ok(FeedForwardWeights {
            norm: norm(&format!("{layer}/ffn"))?,
            up: linear(&format!("{layer}/ffn/linear_0"), 0, 1, wide, width)?,
            down: linear(&format!("{layer}/ffn/linear_1"), 0, 1, width, wide)?,
        })
    };
    let convolution = |name: &str, channels: usize| -> Result<LinearWeights, LoadError> {
        Ok(LinearWeights {
            matrix: source.rows(&format!("{name}/weight"), &[width, channels, 3], 0..width)?,
            bias: Some(source.vector(&format!("{name}/bias"), width)?),
        })
    };
    let places = |part: &str, count: usize| {
        let name = format!("{part}/position_encodings/encodings");
        Ok::<_, LoadError>(source.rows(&name, &[count, width], 0..count)?.expand_all())
    };
    Ok(Whisper {
        convolutions: [convolution("encoder/conv1", bands)?, convolution("encoder/conv2", width)?],
        encoder_places: places("encoder", source_positions)?,
        encoder: (0..shape.encoder_layers)
            .map(|index| format!("encoder/layer_{index}"))
            .map(|layer| {
                Ok(EncoderLayerWeights {
                    own: own(&layer)?,
                    feed_forward: feed_forward(&layer, encoder_feed_forward)?,
                })
            })
            .collect::<Result<_, LoadError>>()?,
        encoder_norm: norm("encoder")?,
        words: source.rows("decoder/embeddings/weight", &[vocabulary, width], 0..vocabulary)?,
        decoder_places: places("decoder", target_positions)?,
        decoder: (0..shape.decoder_layers)
            .map(|index| format!("decoder/layer_{index}"))
            .map(|layer| {
                Ok(DecoderLayerWeights {
                    own: own(&layer)?,
                    cross: cross(&layer)?,
                    feed_forward: feed_forward(&layer, decoder_feed_forward)?,
                })
            })
            .collect::<Result<_, LoadError>>()?,
        decoder_norm: norm("decoder")?,
        shape,
    })
}
