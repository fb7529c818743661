//! Against transformers in f32 on the same weights; `scripts/regenerate-logits-golden` made the files.
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use inference::{
    ChatMessage, Device, Engine, FinishReason, GenerateError, GenerateParams, ModelFiles, Multiply,
};
use safetensors::SafeTensors;
use serde_json::Value;

const MODELS: [(&str, &str); 5] = [
    ("hf", "hf"),
    ("q8_0", "q8_0.gguf"),
    ("q4_0", "q4_0.gguf"),
    ("q4_1", "q4_1.gguf"),
    // Q4_K, Q5_K, Q6_K, Q5_0 and Q5_1 in one file.
    ("mixed", "mixed.gguf"),
];
/// The files hold every so many logits.
const SAMPLE_STEP: usize = 3;
/// Of logits up to 50: the sums run in another order than torch's.
const TOLERANCE: f32 = 1e-4;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(golden(name)).unwrap()).unwrap()
}

fn engine(file: &str, multiply: Multiply) -> Engine {
    let files = ModelFiles::open(&golden(file)).unwrap();
    Engine::load_on(&files, Device::Cpu, multiply).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn messages(value: &Value) -> Vec<ChatMessage> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let one =
        |message: &Value| ChatMessage { role: text(&message["role"]), content: text(&message["content"]) };
    value.as_array().unwrap().iter().map(one).collect()
}

fn sampled(engine: &Engine, ids: &[u32]) -> Vec<f32> {
    let rows = engine.logits(ids).unwrap();
    rows.iter().flat_map(|row| row.iter().step_by(SAMPLE_STEP)).copied().collect()
}

#[test]
fn logits_agree_with_transformers() {
    let bytes = std::fs::read(golden("logits.safetensors")).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: &str| stored.tensor(name).unwrap().data().as_chunks::<4>().0.to_vec();
    let ids: Vec<u32> = words("ids").into_iter().map(u32::from_le_bytes).collect();
    for (name, file) in MODELS {
        let expected: Vec<f32> = words(name).into_iter().map(f32::from_le_bytes).collect();
        let spread = expected.iter().copied().fold(0.0f32, |most, logit| most.max(logit.abs()));
        assert!(spread > 3.0, "the weights of {name} say something: {spread}");
        for multiply in [Multiply::Stored, Multiply::Backend] {
            let ours = sampled(&engine(file, multiply), &ids);
            assert_eq!(ours.len(), expected.len());
            let furthest = ours.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            println!("{name} {multiply:?}: max |Δlogit| {furthest:.1e} of {spread:.1}");
            assert!(furthest < TOLERANCE, "{name} {multiply:?}: {furthest}");
        }
    }
}

#[test]
fn greedy_answers_agree_with_transformers() {
    let text = json("text.json");
    let bytes = std::fs::read(golden("logits.safetensors")).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let prompt: Vec<u32> = stored
        .tensor("ids")
        .unwrap()
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|id| u32::from_le_bytes(*id))
        .collect();
    for (name, file) in MODELS {
        let engine = engine(file, Multiply::Stored);
        let params = GenerateParams::greedy(32);
        let answer = engine.generate(&prompt, &params, &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(answer.output_ids, ids(&text["greedy"][name]), "{name}");
    }
}

#[test]
fn tokens_agree_with_transformers_from_either_format() {
    let text = json("text.json");
    for (_, file) in MODELS {
        let engine = engine(file, Multiply::Stored);
        for case in text["texts"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            assert_eq!(engine.tokenize(text).unwrap(), ids(&case["ids"]), "{file}: {text:?}");
        }
        for case in text["chats"].as_array().unwrap() {
            let chat = messages(&case["messages"]);
            assert_eq!(engine.tokenize_chat(&chat).unwrap(), ids(&case["ids"]), "{file}");
        }
        let stranger = ChatMessage { role: "stranger".into(), content: "hello".into() };
        assert!(matches!(engine.tokenize_chat(&[stranger]), Err(GenerateError::Template)));
    }
}

/// Every family in the two formats: its logits, its greedy answer, its tokenizer and its template.
#[test]
fn families_agree_with_transformers() {
    let bytes = std::fs::read(golden("families/logits.safetensors")).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let words = |name: &str| stored.tensor(name).unwrap().data().as_chunks::<4>().0.to_vec();
    let described = json("families/families.json");
    for (name, described) in described.as_object().unwrap() {
        let prompt: Vec<u32> = words(&format!("{name}.ids")).into_iter().map(u32::from_le_bytes).collect();
        let expected: Vec<f32> = words(name).into_iter().map(f32::from_le_bytes).collect();
        let spread = expected.iter().copied().fold(0.0f32, |most, logit| most.max(logit.abs()));
        assert!(spread > 1.0, "the weights of {name} say something: {spread}");
        let mut files = vec![format!("families/{name}")];
        if described["gguf"].as_bool().unwrap() {
            files.push(format!("families/{name}.gguf"));
        }
        for file in files {
            for multiply in [Multiply::Stored, Multiply::Backend] {
                let engine = engine(&file, multiply);
                let ours = sampled(&engine, &prompt);
                assert_eq!(ours.len(), expected.len());
                let furthest = ours.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                println!("{file} {multiply:?}: max |Δlogit| {furthest:.1e} of {spread:.1}");
                assert!(furthest < TOLERANCE, "{file} {multiply:?}: {furthest}");
            }
            let engine = engine(&file, Multiply::Stored);
            let long: Vec<u32> =
                words(&format!("{name}.long.ids")).into_iter().map(u32::from_le_bytes).collect();
            let expected = words(&format!("{name}.long")).into_iter().map(f32::from_le_bytes);
            let last = engine.logits(&long).unwrap().pop().unwrap();
            let furthest = last
                .iter()
                .step_by(SAMPLE_STEP)
                .zip(expected)
                .map(|(ours, theirs)| (ours - theirs).abs())
                .fold(0.0, f32::max);
            println!("{file} after {} tokens: max |Δlogit| {furthest:.1e}", long.len());
            assert!(furthest < TOLERANCE, "{file} after {} tokens: {furthest}", long.len());
            let params = GenerateParams::greedy(24);
            let answer = engine.generate(&prompt, &params, &mut |_| ControlFlow::Continue(())).unwrap();
            assert_eq!(answer.output_ids, ids(&described["greedy"]), "{file}");
            for case in described["texts"].as_array().unwrap() {
                let text = case["text"].as_str().unwrap();
                assert_eq!(engine.tokenize(text).unwrap(), ids(&case["ids"]), "{file}: {text:?}");
            }
            for case in described["chats"].as_array().unwrap() {
                let chat = messages(&case["messages"]);
                assert_eq!(engine.tokenize_chat(&chat).unwrap(), ids(&case["ids"]), "{file}");
            }
        }
    }
}

#[test]
fn a_template_in_its_own_file_counts() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden("hf")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let settings = folder.path().join("tokenizer_config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&settings).unwrap()).unwrap();
    let template = config["chat_template"].take();
    let load = || Engine::load(&ModelFiles::open(folder.path()).unwrap());
    std::fs::write(&settings, config.to_string()).unwrap();
    assert!(load().is_err());
    config["chat_template"] = serde_json::json!([{ "name": "default", "template": template }]);
    std::fs::write(&settings, config.to_string()).unwrap();
    let text = json("text.json");
    let chat = messages(&text["chats"][1]["messages"]);
    let expected = ids(&text["chats"][1]["ids"]);
    assert_eq!(load().unwrap().tokenize_chat(&chat).unwrap(), expected);
    std::fs::write(&settings, "{\"eos_token\": \"<|im_end|>\"}").unwrap();
    std::fs::write(folder.path().join("chat_template.jinja"), template.as_str().unwrap()).unwrap();
    let engine = load().unwrap();
    assert_eq!(engine.tokenize_chat(&chat).unwrap(), expected);
}

#[test]
#[ignore = "needs the model that scripts/fetch-model fetches"]
fn smollm2_agrees_with_transformers() {
    let engine = Engine::load(&ModelFiles::open(&smollm2()).unwrap()).unwrap();
    for case in json("smollm2.json").as_array().unwrap() {
        let question = case["question"].as_str().unwrap();
        let chat = [ChatMessage { role: "user".into(), content: question.into() }];
        let prompt = engine.tokenize_chat(&chat).unwrap();
        assert_eq!(prompt, ids(&case["prompt_ids"]));
        let last = engine.logits(&prompt).unwrap().pop().unwrap();
        let ours = last.iter().step_by(case["sample_step"].as_u64().unwrap() as usize);
        let theirs =
            case["sample_logits"].as_array().unwrap().iter().map(|logit| logit.as_f64().unwrap() as f32);
        let furthest = ours.zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("max |Δlogit| {furthest:.1e}");
        assert!(furthest < 1e-3, "{furthest}");
        let params = GenerateParams::greedy(48);
        let mut streamed = String::new();
        let answer = engine
            .generate(&prompt, &params, &mut |token| {
                streamed.push_str(token.text_piece);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(answer.output_ids, ids(&case["output_ids"]));
        assert_eq!(answer.text, case["text"].as_str().unwrap());
        if answer.finish_reason == FinishReason::Length {
            assert_eq!(streamed, answer.text);
        }
    }
}

/// Token for token over 200 questions: the audit names each token's choice after the same tokens before it.
#[test]
#[ignore = "needs the model that scripts/fetch-model fetches, and minutes"]
fn smollm2_answers_200_questions_as_transformers_does() {
    let engine = Engine::load(&ModelFiles::open(&smollm2()).unwrap()).unwrap();
    let params = GenerateParams::greedy(24);
    let cases = json("smollm2_greedy.json");
    let (mut tokens, mut exact) = (0, 0);
    for case in cases.as_array().unwrap() {
        let question = case["question"].as_str().unwrap();
        let output = ids(&case["output_ids"]);
        let finish_reason = if output.len() == 24 { FinishReason::Length } else { FinishReason::Stop };
        let chat = [ChatMessage { role: "user".into(), content: question.into() }];
        let prompt = engine.tokenize_chat(&chat).unwrap();
        let verdict = engine.audit(&prompt, &output, finish_reason, &params, 1e-3).unwrap();
        assert!(verdict.holds(), "{question}: {verdict:?}");
        tokens += verdict.tokens;
        exact += verdict.exact;
    }
    println!("{exact} of {tokens} tokens are the same, the others within 1e-3 of a tie");
    assert_eq!(cases.as_array().unwrap().len(), 200);
}

fn smollm2() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    cache.join("chrysalis/models/SmolLM2-135M-Instruct.Q4_1.gguf")
}
