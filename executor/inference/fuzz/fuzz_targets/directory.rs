//! Any bytes in the place of one file of a sound Hugging Face directory; the first byte says which.
#![no_main]

use inference::{ChatMessage, Engine, ModelFiles};
use libfuzzer_sys::fuzz_target;

const SOUND: [(&str, &[u8]); 4] = [
    ("config.json", include_bytes!("../../tests/golden/families/qwen3/config.json")),
    ("model.safetensors", include_bytes!("../../tests/golden/families/qwen3/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../tests/golden/families/qwen3/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../tests/golden/families/qwen3/tokenizer_config.json")),
];

fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let mut files: Vec<(String, Vec<u8>)> =
        SOUND.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
    files[usize::from(*which) % SOUND.len()].1 = bytes.to_vec();
    let Ok(engine) = ModelFiles::in_memory("fuzzed", files).and_then(|files| Engine::load(&files)) else {
        return;
    };
    let _ = engine.tokenize("hello there");
    let _ = engine.tokenize_chat(&[ChatMessage { role: "user".into(), content: "hello".into() }]);
});
