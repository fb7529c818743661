#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Duration;

use contracts::sealing::ChatMessage;
use contracts::work::Sampling;
use engine_api::{ClientKey, Engine as _};

use super::*;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../inference/tests/golden").join(name)
}

fn text(kv_bytes: Option<u64>) -> BurnEngine {
    BurnEngine::load(&golden("families/llama3"), EngineLimits { kv_bytes }).unwrap()
}

fn one_token_kv_bytes(engine: &BurnEngine) -> u64 {
    let Model::Text(server) = &engine.model else { panic!("text") };
    (server.engine().kv_bytes(1) / server.engine().info().context_length) as u64
}

fn chat(content: &str) -> Prompt {
    Prompt::chat(vec![ChatMessage::new("user", content)])
}

fn ask(engine: &BurnEngine, ids: &[u32], client: u8, params: GenerateParams) -> Generated {
    let request = GenerateRequest::new(ids.to_vec(), params, ClientKey([client; 32]));
    engine.generate(request).unwrap().finish_blocking().unwrap()
}

#[test]
fn what_memory_can_never_hold_is_refused_before_anything_is_computed() {
    let roomy = text(None);
    let info = roomy.info().clone();
    assert_eq!((info.work, info.engine), (Work::Text, ENGINE_REVISION));
    let context = info.context_tokens;
    roomy.admit(context / 2, &GenerateParams::greedy(context)).unwrap();
    let too_long = roomy.admit(context, &GenerateParams::greedy(1));
    assert_eq!(too_long, Err(EngineError::TooLong { given: context, most: context }));

    let budget = one_token_kv_bytes(&roomy) * 64;
    let small = text(Some(budget));
    small.admit(16, &GenerateParams::greedy(16)).unwrap();
    let refused = small.admit(context / 2, &GenerateParams::greedy(context / 2)).unwrap_err();
    assert!(
        matches!(refused, EngineError::TooLarge { needed_bytes, budget_bytes } if needed_bytes > budget_bytes),
        "{refused:?}"
    );
    let ids = vec![1; (context / 2) as usize];
    let request = GenerateRequest::new(ids, GenerateParams::greedy(context / 2), ClientKey([1; 32]));
    assert_eq!(small.generate(request).err(), Some(refused));
    for change in [
        (|params| params.sampling.temperature = -1.0) as fn(&mut GenerateParams),
        |params| params.stop = vec![String::new()],
        |params| params.json_schema = Some("no schema".into()),
        |params| params.top_logprobs = Some(21),
    ] {
        let mut params = GenerateParams::greedy(4);
        change(&mut params);
        assert!(matches!(small.admit(4, &params), Err(EngineError::Parameter(_))));
    }
}

#[test]
fn many_at_once_stay_within_the_memory_and_answer_as_alone() {
    let budget = one_token_kv_bytes(&text(None)) * 128;
    let engine = Arc::new(text(Some(budget)));
    let ids = engine.tokenize(&chat("hello there")).unwrap();
    let mut params = GenerateParams::greedy(24);
    params.sampling = Sampling { temperature: 0.9, seed: 5, ..Sampling::default() };
    let alone = ask(&engine, &ids, 1, params.clone());
    let streams: Vec<_> = (0..24u8)
        .map(|client| {
            let request = GenerateRequest::new(ids.clone(), params.clone(), ClientKey([client; 32]));
            engine.generate(request).unwrap()
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let Model::Text(server) = &engine.model else { panic!("text") };
    // One thread waits for all of them.
    runtime.block_on(async {
        for stream in streams {
            let answer = stream.finish().await.unwrap();
            assert_eq!((&answer.text, &answer.output_ids), (&alone.text, &alone.output_ids));
            assert!(server.load().kv_bytes_held as u64 <= budget);
        }
    });
}

#[test]
fn prompts_are_found_by_their_own_client_alone() {
    let engine = text(None);
    let ids = engine.tokenize(&chat(&"a long prompt ".repeat(8))).unwrap();
    assert!(ids.len() > 64, "two blocks");
    let cached = |client| {
        let answer = ask(&engine, &ids, client, GenerateParams::greedy(2));
        assert_eq!(answer.usage.prompt_tokens as usize, ids.len());
        answer.usage.cached_prompt_tokens
    };
    assert_eq!(cached(1), 0);
    assert!(cached(1) >= 32);
    assert_eq!(cached(2), 0);
    let mut alone = GenerateRequest::new(ids.clone(), GenerateParams::greedy(2), ClientKey([1; 32]));
    alone.reuse_prefix = false;
    let answer = engine.generate(alone).unwrap().finish_blocking().unwrap();
    assert_eq!(answer.usage.cached_prompt_tokens, 0);
}

#[test]
fn pieces_carry_tokens_and_their_likelihood_and_a_dropped_stream_ends_the_work() {
    let engine = text(None);
    let ids = engine.tokenize(&chat("hello")).unwrap();
    let mut params = GenerateParams::greedy(8);
    params.top_logprobs = Some(2);
    let request = GenerateRequest::new(ids.clone(), params, ClientKey([1; 32]));
    let mut stream = engine.generate(request).unwrap();
    let (mut text, mut found) = (String::new(), Vec::new());
    while let Some(piece) = stream.next_blocking() {
        text.push_str(&piece.text);
        if let Some(id) = piece.id {
            let logprobs = piece.logprobs.as_ref().unwrap();
            assert_eq!(logprobs.top.len(), 2);
            assert_eq!(logprobs.top[0].0, id, "greedy takes the most likely");
            found.push(id);
        }
    }
    let whole = stream.finish_blocking().unwrap();
    assert_eq!((&whole.text, &whole.output_ids), (&text, &found));
    assert_eq!(whole.logprobs.len(), found.len());

    let context = engine.info().context_tokens;
    let long = GenerateRequest::new(ids.clone(), GenerateParams::greedy(context), ClientKey([1; 32]));
    drop(engine.generate(long.clone()).unwrap());
    let mut late = long;
    late.deadline = Some(Instant::now());
    assert_eq!(engine.generate(late).unwrap().finish_blocking().err(), Some(EngineError::Deadline));
    // Bounded, so that a test that fails ends.
    for _ in 0..500 {
        if engine.load() == EngineLoad::default() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the work goes on");
}

#[test]
fn other_models_do_other_work() {
    let engine = BurnEngine::load(&golden("bert"), EngineLimits::default()).unwrap();
    let Work::Embeddings { dimensions } = engine.info().work else { panic!("embeddings") };
    let ids = engine.tokenize_texts(&["hello".into(), "hello there".into()]).unwrap();
    let embedded = engine.embed(&EmbedRequest { ids: ids.clone(), deadline: None }).unwrap();
    assert_eq!(embedded.input_tokens as usize, ids[0].len() + ids[1].len());
    assert!(embedded.vectors.iter().all(|vector| vector.len() == dimensions as usize));
    let late = EmbedRequest { ids, deadline: Some(Instant::now()) };
    assert_eq!(engine.embed(&late).err(), Some(EngineError::Deadline));
    assert_eq!(engine.tokenize(&chat("hello")).err(), Some(EngineError::Unsupported));
    assert_eq!(engine.audio_seconds(b"").err(), Some(EngineError::Unsupported));

    let engine = BurnEngine::load(&golden("whisper"), EngineLimits::default()).unwrap();
    assert!(matches!(engine.info().work, Work::Transcription { .. }));
    assert_eq!(engine.audio_seconds(b"noise").err(), Some(EngineError::Malformed));
    let audio = wav(12_000);
    assert_eq!(engine.audio_seconds(&audio), Ok(2), "a second and a half");
    let request = TranscribeRequest { audio, language: None, translate: false, deadline: None };
    let mut shown = 0;
    let mut show = |_: &Segment| {
        shown += 1;
        true
    };
    let heard = engine.transcribe(&request, &mut show).unwrap();
    assert_eq!((heard.audio_s, heard.segments.len()), (2, shown));
    assert_eq!(engine.transcribe(&request, &mut |_| false).err(), Some(EngineError::Cancelled));
    assert_eq!(engine.load(), EngineLoad::default());
}

/// Silence at 8 000 samples a second.
fn wav(samples: u32) -> Vec<u8> {
    let mut file = b"RIFF".to_vec();
    file.extend((36 + samples).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(8_000u32.to_le_bytes());
    file.extend(8_000u32.to_le_bytes());
    file.extend(b"\x01\0\x08\0data");
    file.extend(samples.to_le_bytes());
    file.resize(file.len() + samples as usize, 128);
    file
}
