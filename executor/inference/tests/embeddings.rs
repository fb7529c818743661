//! Sentence vectors against transformers in f32; `scripts/regenerate-encoders-golden` made the files.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use inference::{Device, Embedder, GenerateError, LoadError, ModelFiles, Multiply};
use safetensors::SafeTensors;
use serde_json::{Value, json};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn bert(multiply: Multiply) -> Embedder {
    Embedder::load_on(&ModelFiles::open(&golden("bert")).unwrap(), Device::Cpu, multiply).unwrap()
}

/// Texts with the ids and the vectors that transformers has for them.
fn expected(name: &str) -> Vec<(String, Vec<u32>, Vec<f32>)> {
    let bytes = fs::read(golden(name)).unwrap();
    let (_, head) = SafeTensors::read_metadata(&bytes).unwrap();
    let texts: Vec<String> = serde_json::from_str(&head.metadata().as_ref().unwrap()["texts"]).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: String| stored.tensor(&name).unwrap().data().as_chunks::<4>().0.to_vec();
    let one = |(index, text): (usize, String)| {
        let ids = words(format!("ids.{index}")).into_iter().map(u32::from_le_bytes).collect();
        let vector = words(format!("vector.{index}")).into_iter().map(f32::from_le_bytes).collect();
        (text, ids, vector)
    };
    texts.into_iter().enumerate().map(one).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Holds an embedder to transformers' ids and vectors.
fn agrees(embedder: &Embedder, expected: &[(String, Vec<u32>, Vec<f32>)]) {
    let mut lowest = 1.0f64;
    let mut furthest = 0.0f32;
    for (text, ids, vector) in expected {
        assert_eq!(&embedder.tokenize(text).unwrap(), ids, "{text:?}");
        let ours = embedder.embed(&[text]).unwrap().remove(0);
        assert_eq!(ours.tokens, ids.len());
        lowest = lowest.min(cosine(&ours.vector, vector));
        let differences = ours.vector.iter().zip(vector).map(|(a, b)| (a - b).abs());
        furthest = differences.fold(furthest, f32::max);
    }
    println!("lowest cosine {lowest:.9}, max |Δ| {furthest:.1e}");
    assert!(lowest > 0.999_999 && furthest < 1e-5, "cosine {lowest}, difference {furthest}");
    let other = cosine(&expected[1].2, &expected[3].2);
    assert!(other < 0.98, "different texts have different vectors: {other}");
}

#[test]
fn vectors_agree_with_transformers() {
    let expected = expected("bert.safetensors");
    for multiply in [Multiply::Stored, Multiply::Backend] {
        agrees(&bert(multiply), &expected);
    }
}

#[test]
#[ignore = "needs the models that scripts/fetch-encoders fetches"]
fn minilm_agrees_with_transformers() {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    let files = ModelFiles::open(&cache.join("chrysalis/models/all-MiniLM-L6-v2")).unwrap();
    let embedder = Embedder::load(&files).unwrap();
    assert_eq!((embedder.info().max_tokens, embedder.info().dimensions), (256, 384));
    agrees(&embedder, &expected("minilm.safetensors"));
}

#[test]
fn a_vector_does_not_depend_on_the_texts_beside_it() {
    let embedder = bert(Multiply::Stored);
    // More than goes through the layers together.
    let texts: Vec<String> =
        (0..200).map(|index| "fox dog Paris the ".repeat(index % 7) + &index.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let together = embedder.embed(&texts).unwrap();
    assert_eq!(together.len(), texts.len());
    for (text, beside) in texts.iter().zip(&together) {
        let alone = embedder.embed(&[text]).unwrap();
        assert!(alone[0] == *beside, "other bits");
    }
    let reversed: Vec<&str> = texts.iter().rev().copied().collect();
    assert!(embedder.embed(&reversed).unwrap().iter().rev().eq(&together));
    assert_eq!(embedder.embed(&[]).unwrap(), []);
}

#[test]
fn texts_out_of_bounds_are_refused_and_shown_nowhere() {
    let embedder = bert(Multiply::Stored);
    let long = "fox ".repeat(101);
    let refused = embedder.embed(&["short", &long]).unwrap_err();
    assert!(matches!(refused, GenerateError::PromptTooLong { prompt_tokens: 103, context_tokens: 100 }));
    let huge = "x".repeat((1 << 20) + 1);
    assert!(matches!(embedder.embed(&[&huge]), Err(GenerateError::Parameter("input"))));
    let shown = format!("{:?}", embedder.embed(&["canary"]).unwrap());
    assert_eq!(shown, "[Embedding { tokens: 6, .. }]");
}

#[test]
fn directories_that_cannot_be_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let reset = || {
        fs::create_dir_all(here.join("1_Pooling")).unwrap();
        for name in
            ["config.json", "model.safetensors", "tokenizer.json", "modules.json", "1_Pooling/config.json"]
        {
            fs::copy(golden("bert").join(name), here.join(name)).unwrap();
        }
    };
    let set = |file: &str, key: &str, value: Value| {
        let mut json: Value = serde_json::from_slice(&fs::read(here.join(file)).unwrap()).unwrap();
        json[key] = value;
        fs::write(here.join(file), json.to_string()).unwrap();
    };
    let load = || Embedder::load(&ModelFiles::open(here).unwrap()).map(|embedder| embedder.info().max_tokens);
    reset();
    assert_eq!(load().unwrap(), 128, "without sentence_bert_config.json, the positions bound a text");
    for (file, key, value, what) in [
        ("config.json", "model_type", json!("roberta"), "roberta"),
        ("config.json", "hidden_size", json!(0), "hidden_size"),
        ("config.json", "hidden_size", json!(1u64 << 40), "hidden_size"),
        ("config.json", "hidden_size", json!(64), "word_embeddings"),
        ("config.json", "num_hidden_layers", json!(4), "encoder.layer.3"),
        ("config.json", "num_hidden_layers", json!(2), "encoder.layer.2"),
        ("config.json", "num_hidden_layers", json!(1u64 << 50), "num_hidden_layers"),
        ("config.json", "num_attention_heads", json!(5), "5 heads"),
        ("config.json", "max_position_embeddings", json!(1u64 << 33), "max_position_embeddings"),
        ("config.json", "vocab_size", json!(10), "word_embeddings"),
        ("config.json", "layer_norm_eps", json!(0.0), "layer_norm_eps"),
        ("config.json", "hidden_act", json!("relu"), "relu"),
        ("config.json", "position_embedding_type", json!("relative_key"), "position_embedding_type"),
        ("1_Pooling/config.json", "pooling_mode_mean_tokens", json!(false), "pooling"),
        ("1_Pooling/config.json", "pooling_mode_max_tokens", json!(true), "pooling"),
        ("1_Pooling/config.json", "word_embedding_dimension", json!(49), "word_embedding_dimension"),
    ] {
        reset();
        set(file, key, value);
        let error = load().unwrap_err().to_string();
        assert!(error.contains(what), "{error:?} does not name {what:?}");
    }
    reset();
    fs::write(here.join("sentence_bert_config.json"), "{\"max_seq_length\": -1}").unwrap();
    assert!(load().unwrap_err().to_string().contains("max_seq_length"));
    fs::remove_file(here.join("sentence_bert_config.json")).unwrap();
    fs::remove_file(here.join("modules.json")).unwrap();
    assert!(matches!(load(), Err(LoadError::Unsupported { what }) if what.contains("modules.json")));
    reset();
    let weights = fs::read(here.join("model.safetensors")).unwrap();
    fs::write(here.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    assert!(matches!(load(), Err(LoadError::Corrupt { .. })));
}
