//! Speech to text: real recordings against transformers (`scripts/regenerate-encoders-golden` made the transcripts),
//! and files made to hurt.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use inference::{Audio, LoadError, ModelFiles, TranscribeParams, Transcriber};
use serde_json::{Value, json};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
#[ignore = "needs the models and recordings that scripts/fetch-encoders fetches"]
fn recordings_are_transcribed_word_for_word_as_by_transformers() {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    let models = cache.join("chrysalis/models");
    let expected: Value = serde_json::from_slice(&fs::read(golden("transcripts.json")).unwrap()).unwrap();
    for (name, recordings) in expected.as_object().unwrap() {
        let model = Transcriber::load(&ModelFiles::open(&models.join(name)).unwrap()).unwrap();
        for (recording, expected) in recordings.as_object().unwrap() {
            let file = |recording: &str| {
                let name = format!("recordings/sense_and_sensibility_01_austen_64kb-{recording}.wav");
                fs::read(models.join(name)).unwrap()
            };
            let audio = match recording.as_str() {
                "all" => {
                    let parts = ["0870", "0880", "0890", "0920", "0930"].repeat(2);
                    let samples =
                        parts.iter().flat_map(|part| file(part)[44..].to_vec()).collect::<Vec<u8>>();
                    let mut wav = file("0870")[..40].to_vec();
                    wav.extend((samples.len() as u32).to_le_bytes());
                    Audio::from_wav(&[wav, samples].concat()).unwrap()
                }
                one => Audio::from_wav(&file(one)).unwrap(),
            };
            let began = std::time::Instant::now();
            let heard = model
                .transcribe(&audio, &TranscribeParams::default(), &mut |_| ControlFlow::Continue(()))
                .unwrap();
            println!(
                "{name} {recording} ({:.1} s in {:.1?}): {}",
                audio.seconds(),
                began.elapsed(),
                heard.text
            );
            let ids: Vec<Value> = heard.segments.iter().map(|segment| json!(segment.output_ids)).collect();
            assert_eq!(heard.text, expected["text"].as_str().unwrap());
            assert_eq!(json!(ids), expected["ids"]);
            assert_eq!(heard.language, "en");
        }
    }
}

/// A copy of a golden directory that can be spoilt.
struct Copied(tempfile::TempDir);

impl Copied {
    fn of(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(golden(name)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        Self(folder)
    }

    fn set(&self, file: &str, key: &str, value: Value) {
        let path = self.0.path().join(file);
        let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        json[key] = value;
        fs::write(path, json.to_string()).unwrap();
    }

    fn load(&self) -> Result<Transcriber, LoadError> {
        Transcriber::load(&ModelFiles::open(self.0.path()).unwrap())
    }

    fn refused(&self, what: &str) {
        let error = match self.load() {
            Ok(_) => panic!("{what}: it was accepted"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(what), "{error:?} does not name {what:?}");
    }
}

#[test]
fn directories_that_cannot_be_are_refused_by_name() {
    for (key, value, what) in [
        ("model_type", json!("wav2vec2"), "wav2vec2"),
        ("d_model", json!(1u64 << 40), "d_model"),
        ("d_model", json!(47), "47"),
        ("d_model", json!(96), "conv1"),
        ("encoder_layers", json!(3), "encoder.layers.2"),
        ("encoder_layers", json!(1), "encoder.layers.1"),
        ("decoder_layers", json!(u32::MAX), "decoder_layers"),
        ("encoder_attention_heads", json!(0), "encoder_attention_heads"),
        ("encoder_attention_heads", json!(5), "5 heads"),
        ("num_mel_bins", json!(0), "num_mel_bins"),
        ("num_mel_bins", json!(128), "conv1"),
        ("max_source_positions", json!(1u64 << 33), "max_source_positions"),
        ("max_target_positions", json!(0), "max_target_positions"),
        ("vocab_size", json!(100), "embed_tokens"),
        ("activation_function", json!("relu"), "relu"),
        ("scale_embedding", json!(true), "scale_embedding"),
    ] {
        let copied = Copied::of("whisper");
        copied.set("config.json", key, value);
        copied.refused(what);
    }
    for (key, value) in [("suppress_tokens", json!([-1])), ("begin_suppress_tokens", json!("all"))] {
        let copied = Copied::of("whisper");
        copied.set("generation_config.json", key, value);
        copied.refused(key);
    }
    let copied = Copied::of("whisper");
    copied.set("tokenizer.json", "added_tokens", json!([]));
    copied.refused("<|startoftranscript|>");
}

#[test]
fn ctranslate2_files_that_cannot_be_are_refused() {
    let copied = Copied::of("whisper-ct2");
    let path = copied.0.path().join("model.bin");
    let honest = fs::read(&path).unwrap();
    let with = |change: &dyn Fn(&mut Vec<u8>), what: &str| {
        let mut file = honest.clone();
        change(&mut file);
        fs::write(&path, file).unwrap();
        copied.refused(what);
    };
    let place = |name: &str| {
        let name = [name.as_bytes(), &[0]].concat();
        honest.windows(name.len()).position(|window| window == name).unwrap() + name.len()
    };
    with(&|file| file[0] = 7, "version 7");
    with(&|file| file[6] = b'X', "XhisperSpec");
    with(&|file| file[22..26].fill(0xff), "variables");
    with(&|file| file.truncate(file.len() / 2), "it ends");
    // Number of dimensions, dimensions, type and size of one variable.
    let conv = place("encoder/conv1/weight");
    with(&|file| file[conv] = 200, "200 dimensions");
    with(&|file| file[conv + 1..conv + 13].fill(0xff), "encoder/conv1/weight");
    with(&|file| file[conv + 1] = 1, "encoder/conv1/weight");
    with(&|file| file[conv + 13] = 9, "unknown type");
    with(&|file| file[conv + 13] = 2, "integer type");
    with(&|file| file[conv + 14..conv + 18].fill(0xff), "encoder/conv1/weight");
    with(&|file| file[place("encoder/num_heads") + 6] = 7, "7 heads");
    with(&|file| file[place("encoder/num_heads") + 7] = 0x80, "whole number");
    with(&|file| file[place("decoder/activation") + 6] = 0, "activation");
    with(&|file| file[place("encoder/layer_norm/gamma") - 2] = b'x', "encoder/layer_norm/gamma");
    fs::write(&path, &honest).unwrap();
    copied.load().unwrap();
    // Wherever it ends, or whatever byte of a variable's head is flipped, there is an error or a model, but no panic.
    let heads: Vec<usize> =
        (0..honest.len()).filter(|at| honest[*at..].starts_with(b"coder/")).map(|at| at - 4).collect();
    let mut refused = 0;
    for (index, head) in heads.iter().enumerate() {
        fs::write(&path, &honest[..head + index % 60]).unwrap();
        assert!(copied.load().is_err());
        let mut file = honest.clone();
        file[head + index * 7 % 60] ^= 1 << (index % 8);
        fs::write(&path, file).unwrap();
        refused += usize::from(copied.load().is_err());
    }
    assert!(heads.len() > 80 && refused > heads.len() / 3, "{refused} of {}", heads.len());
}
