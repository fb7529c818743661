//! The GPU backends against the processor, where the build has them. A machine without the device must say so.
#![cfg(any(feature = "cuda", feature = "wgpu"))]
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::Path;

use inference::{
    Audio, Device, Embedder, Engine, GenerateParams, LoadError, ModelFiles, TranscribeParams, Transcriber,
};

/// Of logits up to 50: a GPU adds up in another order and has its own sines and roots.
const TOLERANCE: f32 = 2e-3;
const MODELS: [&str; 8] = [
    "hf",
    "q4_0.gguf",
    "mixed.gguf",
    "families/llama3",
    "families/qwen2",
    "families/qwen3_moe",
    "families/gemma2",
    "families/gemma3.gguf",
];

fn open(model: &str) -> ModelFiles {
    ModelFiles::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(model)).unwrap()
}

/// Vectors of length 1, and words that follow from clear choices.
fn encoders_agree(device: Device) {
    let files = open("bert");
    let there = match Embedder::load_on(&files, device, device.multiply()) {
        Ok(embedder) => embedder,
        Err(LoadError::Device { device, reason }) => {
            println!("{device} is not checked: {reason}");
            return;
        }
        Err(other) => panic!("{other}"),
    };
    let texts = ["hello there", "the quick brown fox", ""];
    let here = Embedder::load(&files).unwrap().embed(&texts).unwrap();
    for (ours, theirs) in here.iter().zip(there.embed(&texts).unwrap()) {
        let furthest = ours.vector.iter().zip(&theirs.vector).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("bert on {device}: max |Δ| {furthest:.1e}");
        assert!(furthest < 1e-4, "bert on {device}: {furthest}");
    }
    let files = open("whisper");
    let samples = (0..40_000).map(|n| (n as f32 * n as f32 * 1e-5).sin() / 2.0).collect();
    let audio = Audio::from_samples(samples, 16_000).unwrap();
    let heard = |model: Transcriber| {
        let params = TranscribeParams::default();
        model.transcribe(&audio, &params, &mut |_| ControlFlow::Continue(())).unwrap()
    };
    let there = heard(Transcriber::load_on(&files, device, device.multiply()).unwrap());
    assert_eq!(there, heard(Transcriber::load(&files).unwrap()), "whisper on {device}");
}

fn agrees(device: Device) {
    encoders_agree(device);
    let ids: Vec<u32> = (0..40).map(|i| (i * 37 + 5) % 300).collect();
    for model in MODELS {
        let files = open(model);
        let there = match Engine::load_on(&files, device, device.multiply()) {
            Ok(engine) => engine,
            Err(LoadError::Device { device, reason }) => {
                println!("{device} is not checked: {reason}");
                return;
            }
            Err(other) => panic!("{other}"),
        };
        let here = Engine::load(&files).unwrap();
        let (ours, theirs) = (here.logits(&ids).unwrap().concat(), there.logits(&ids).unwrap().concat());
        let furthest = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{model} on {device}: max |Δlogit| {furthest:.1e}");
        assert!(furthest < TOLERANCE, "{model} on {device}: {furthest}");
        let params = GenerateParams::greedy(16);
        let answer = there.generate(&ids, &params, &mut |_| ControlFlow::Continue(())).unwrap();
        let verdict = here.audit(&ids, &answer.output_ids, answer.finish_reason, &params, TOLERANCE).unwrap();
        assert!(verdict.holds(), "{model} on {device}: {verdict:?}");
    }
}

#[test]
#[cfg(feature = "cuda")]
fn cuda_agrees_with_the_processor() {
    agrees(Device::Cuda(0));
}

#[test]
#[cfg(feature = "wgpu")]
fn wgpu_agrees_with_the_processor() {
    agrees(Device::Wgpu);
}
