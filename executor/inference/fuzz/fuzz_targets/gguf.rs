//! Any bytes as a GGUF file: no panic, no memory out of proportion (libFuzzer's own limit watches it). Seeds are the
//! crate's golden files: `cargo fuzz run gguf CORPUS executor/inference/tests/golden`.
#![no_main]

use std::ops::ControlFlow;

use inference::{ChatMessage, Engine, GenerateParams, ModelFiles};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let files = vec![("model.gguf".to_owned(), bytes.to_vec())];
    let Ok(engine) = ModelFiles::in_memory("fuzzed.gguf", files).and_then(|files| Engine::load(&files)) else {
        return;
    };
    let _ = engine.tokenize_chat(&[ChatMessage { role: "user".into(), content: "hello".into() }]);
    let prompt = engine.tokenize("hello").unwrap_or_default();
    let _ = engine.generate(&prompt, &GenerateParams::greedy(2), &mut |_| ControlFlow::Continue(()));
});
