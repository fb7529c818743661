//! The GPU backends against the processor, where the build has them. A machine without the device must say so.
#![cfg(any(feature = "cuda", feature = "wgpu"))]
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::Path;

use inference::{Device, Engine, GenerateParams, LoadError, ModelFiles};

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

fn agrees(device: Device) {
    let ids: Vec<u32> = (0..40).map(|i| (i * 37 + 5) % 300).collect();
    for model in MODELS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(model);
        let files = ModelFiles::open(&path).unwrap();
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
