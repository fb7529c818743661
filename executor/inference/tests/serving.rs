//! Many requests at once: every answer is the one the request gets alone, within bounds of memory and time.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use inference::{
    Device, Engine, FinishReason, GenerateError, GenerateParams, Generation, JsonSchema, ModelFiles,
    Multiply, Sampling, Scope, ServeError, ServeLimits, ServeRequest, Served, Server, Stream,
};

const ALICE: [u8; 32] = [1; 32];
const BOB: [u8; 32] = [2; 32];
const SCHEMA: &str = r#"{ "type": "array", "items": { "type": "string" }, "minItems": 2 }"#;

fn load(path: &Path) -> Arc<Engine> {
    Arc::new(Engine::load(&ModelFiles::open(path).unwrap()).unwrap())
}

fn golden(name: &str) -> Arc<Engine> {
    load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name))
}

/// Mixed lengths, prompts that begin alike, every way to sample, three clients.
fn requests(count: usize, longest: usize, most_output: usize) -> Vec<ServeRequest> {
    let request = |index: usize| {
        let length = 1 + (index * 37) % longest;
        let family = index % 4;
        let prompt = (0..length).map(|at| ((at * (family + 3) * 17 + family * 5) % 250) as u32 + 3).collect();
        let sampling = match index % 3 {
            0 => Sampling::default(),
            1 => Sampling { temperature: 1.0, seed: index as u64, ..Sampling::default() },
            _ => Sampling {
                temperature: 0.8,
                top_p: 0.9,
                top_k: 40,
                repetition_penalty: 1.1,
                seed: 7,
                ..Sampling::default()
            },
        };
        let params = GenerateParams {
            max_output_tokens: 1 + (index * 13) % most_output,
            sampling,
            stop: vec![],
            // Their bits are those of the logits.
            top_logprobs: Some(20),
            json_schema: (index % 5 == 1).then(|| JsonSchema::parse(SCHEMA).unwrap()),
        };
        let mut request = ServeRequest::new(prompt, params, [(index % 3) as u8; 32]);
        request.reuse_prefix = [Scope::Client, Scope::Everyone, Scope::Nobody][index / 4 % 3];
        request
    };
    (0..count).map(request).collect()
}

fn alone(engine: &Engine, request: &ServeRequest) -> Generation {
    engine
        .generate(request.prompt_ids.as_slice(), &request.params, &mut |_| ControlFlow::Continue(()))
        .unwrap()
}

fn bits(generation: &Generation) -> Vec<(u32, Vec<(u32, u32)>)> {
    let of = |logprobs: &inference::TokenLogprobs| {
        let top = logprobs.top.iter().map(|(id, logprob)| (*id, logprob.to_bits())).collect();
        (logprobs.logprob.to_bits(), top)
    };
    generation.logprobs.iter().map(of).collect()
}

fn assert_same(served: &Generation, alone: &Generation, what: &str) {
    assert_eq!(served.output_ids, alone.output_ids, "{what}");
    assert_eq!(served.text, alone.text, "{what}");
    assert_eq!(served.finish_reason, alone.finish_reason, "{what}");
    assert_eq!(bits(served), bits(alone), "{what}: the bits of the logits");
    assert_eq!(served.logprobs.len(), served.output_ids.len());
}

fn block_bytes(engine: &Arc<Engine>) -> usize {
    let too_small = Server::start(Arc::clone(engine), ServeLimits::new(1));
    match too_small {
        Err(ServeError::NoRoom { block_bytes, .. }) => block_bytes,
        _ => panic!("one byte holds no block"),
    }
}

/// What the answers of `requests` are, whatever serves them.
fn check(
    engine: &Arc<Engine>,
    requests: &[ServeRequest],
    limits: ServeLimits,
    expected: &[Generation],
) -> u64 {
    let server = Server::start(Arc::clone(engine), limits).unwrap();
    let streams: Vec<Stream> =
        requests.iter().map(|request| server.submit(request.clone()).unwrap()).collect();
    let mut found = 0;
    for (index, (mut stream, alone)) in streams.into_iter().zip(expected).enumerate() {
        let (mut ids, mut text) = (Vec::new(), String::new());
        while let Some(piece) = stream.next() {
            ids.extend(piece.id);
            text.push_str(&piece.text);
        }
        let Served { generation, cached_input_tokens, .. } = stream.finish().unwrap();
        assert_same(&generation, alone, &format!("request {index} under {limits:?}"));
        assert_eq!((ids, text), (generation.output_ids, generation.text), "the pieces are the answer");
        found += cached_input_tokens;
    }
    let load = server.load();
    assert_eq!((load.running, load.waiting, load.kv_bytes_in_use), (0, 0, 0));
    assert!(load.kv_bytes_held <= limits.kv_bytes, "{load:?} within {limits:?}");
    if limits.running == 1 {
        assert!(found > 0, "prompts that begin alike are found");
    }
    load.preemptions
}

#[test]
fn sixty_four_at_once_answer_as_each_alone() {
    for model in ["hf", "mixed.gguf", "q4_1.gguf", "families/qwen3_moe", "families/gemma3"] {
        let engine = golden(model);
        let requests = requests(64, 100, 90);
        let expected: Vec<Generation> = requests.iter().map(|request| alone(&engine, request)).collect();
        let block = block_bytes(&engine);
        let plenty = ServeLimits { waiting: 64, ..ServeLimits::new(1000 * block) };
        // The longest needs six blocks.
        let scarce = ServeLimits { kv_bytes: 9 * block, step_tokens: 40, running: 7, ..plenty };
        let one_by_one = ServeLimits { running: 1, step_tokens: 3, threads: Some(1), ..plenty };
        check(&engine, &requests, plenty, &expected);
        check(&engine, &requests, ServeLimits { threads: Some(3), ..plenty }, &expected);
        check(&engine, &requests, one_by_one, &expected);
        let preemptions = check(&engine, &requests, scarce, &expected);
        println!("{model}: {preemptions} preemptions in {} blocks", scarce.kv_bytes / block);
        assert!(preemptions > 0, "{model}: blocks ran out");
    }
}

/// A backend's products may round differently in company, so answers are audited instead of compared.
#[test]
fn the_backends_own_attention_serves_from_scattered_blocks_too() {
    for model in ["hf", "families/gemma3", "families/qwen3_moe"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(model);
        let files = ModelFiles::open(&path).unwrap();
        let engine = Arc::new(Engine::load_on(&files, Device::Cpu, Multiply::Backend).unwrap());
        let block = block_bytes(&engine);
        let limits = ServeLimits { running: 5, step_tokens: 50, ..ServeLimits::new(7 * block) };
        let server = Server::start(Arc::clone(&engine), limits).unwrap();
        let requests = requests(24, 100, 60);
        let streams: Vec<Stream> =
            requests.iter().map(|request| server.submit(request.clone()).unwrap()).collect();
        for (request, stream) in requests.iter().zip(streams) {
            let answer = stream.finish().unwrap().generation;
            let (prompt, params) = (request.prompt_ids.as_slice(), &request.params);
            let verdict =
                engine.audit(prompt, &answer.output_ids, answer.finish_reason, params, 1e-3).unwrap();
            assert!(verdict.holds(), "{model}: {verdict:?}");
        }
        let load = server.load();
        assert!(load.kv_bytes_held <= limits.kv_bytes, "{load:?}");
    }
}

#[test]
fn a_client_finds_its_own_prompts_and_nobody_elses() {
    let engine = golden("hf");
    let server = Server::start(Arc::clone(&engine), ServeLimits::new(1 << 24)).unwrap();
    let prompt: Vec<u32> = (0..70).map(|at| at * 3 + 1).collect();
    let ask = |client: [u8; 32], scope: Scope| {
        let mut request = ServeRequest::new(prompt.clone(), GenerateParams::greedy(4), client);
        request.reuse_prefix = scope;
        server.generate(request, &mut |_| ControlFlow::Continue(())).unwrap()
    };
    let first = ask(ALICE, Scope::Client);
    for (client, scope, found) in [
        (ALICE, Scope::Client, 64),
        (BOB, Scope::Client, 0),
        (BOB, Scope::Client, 64),
        (ALICE, Scope::Nobody, 0),
        (ALICE, Scope::Everyone, 0),
        (BOB, Scope::Everyone, 64),
        (BOB, Scope::Nobody, 0),
    ] {
        let served = ask(client, scope);
        assert_eq!(served.cached_input_tokens, found, "{scope:?}");
        assert_eq!(served.generation.output_ids, first.generation.output_ids);
    }
}

#[test]
fn what_can_never_fit_is_refused_and_what_does_not_fit_now_waits() {
    let engine = golden("hf");
    let block = block_bytes(&engine);
    let limits = ServeLimits { running: 2, waiting: 3, ..ServeLimits::new(3 * block) };
    let server = Server::start(Arc::clone(&engine), limits).unwrap();
    assert!(server.admit(90, 7).is_ok());
    let Err(ServeError::TooLarge { tokens, needed_bytes, budget_bytes }) = server.admit(90, 8) else {
        panic!("four blocks do not fit into three");
    };
    assert_eq!((tokens, needed_bytes, budget_bytes), (98, 4 * block, 3 * block));
    let request = |ids: Vec<u32>, most: usize| ServeRequest::new(ids, GenerateParams::greedy(most), ALICE);
    let refused = |request: ServeRequest| server.submit(request).err().unwrap();
    assert!(matches!(refused(request(vec![5; 90], 8)), ServeError::TooLarge { .. }));
    assert!(matches!(refused(request(vec![], 8)), ServeError::Generate(GenerateError::EmptyPrompt)));
    assert!(matches!(
        refused(request(vec![5, 99_999], 8)),
        ServeError::Generate(GenerateError::UnknownToken(99_999))
    ));
    let mut bad = request(vec![5], 8);
    bad.params.stop = vec![String::new()];
    assert!(matches!(refused(bad), ServeError::Generate(GenerateError::Parameter("stop"))));
    let nothing = server.submit(request(vec![5], 0)).unwrap().finish().unwrap();
    assert!(nothing.generation.output_ids.is_empty());
    // More than run and wait: the queue says so, and serves those it took.
    let mut streams = Vec::new();
    let busy = loop {
        match server.submit(request(vec![5; 80], 10)) {
            Ok(stream) => streams.push(stream),
            Err(error) => break error,
        }
        assert!(streams.len() < 10_000, "a queue of three fills");
    };
    assert!(matches!(busy, ServeError::Busy { waiting: 3 }), "{busy}");
    for stream in streams {
        assert!(stream.finish().is_ok());
    }
}

#[test]
fn requests_end_when_cancelled_dropped_late_or_when_the_server_goes() {
    let engine = golden("hf");
    let server = Server::start(Arc::clone(&engine), ServeLimits::new(1 << 26)).unwrap();
    // Sampled hot, the tiny model does not end an answer soon.
    let endless = || {
        let sampling = Sampling { temperature: 50.0, seed: 3, ..Sampling::default() };
        let params = GenerateParams { max_output_tokens: 10_000, sampling, ..GenerateParams::default() };
        ServeRequest::new(vec![7; 20], params, ALICE)
    };
    let whole = server.submit(endless()).unwrap().finish().unwrap().generation.output_ids;
    assert!(whole.len() > 100);
    // The engine may be at the end before the word reaches it; not every time.
    let cut = (0..1000).find_map(|_| {
        let mut stream = server.submit(endless()).unwrap();
        assert!(stream.next().is_some());
        stream.cancel();
        let generation = stream.finish().unwrap().generation;
        (generation.finish_reason == FinishReason::Cancelled).then_some(generation.output_ids)
    });
    let cut = cut.expect("one of a thousand is cancelled in time");
    assert!(!cut.is_empty() && whole.starts_with(&cut));
    let mut pieces = 0;
    let broken = server.generate(endless(), &mut |_| {
        pieces += 1;
        if pieces == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let broken = broken.unwrap().generation;
    assert_eq!((broken.finish_reason, pieces), (FinishReason::Cancelled, 3));
    assert_eq!(broken.output_ids, whole[..3]);
    let mut late = endless();
    late.deadline = Some(Instant::now());
    assert!(matches!(server.submit(late).unwrap().finish(), Err(ServeError::Deadline)));
    drop(server.submit(endless()).unwrap());
    while server.load().running + server.load().waiting > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(server.load().kv_bytes_in_use, 0);
    let mut left: Vec<Stream> = (0..250).map(|_| server.submit(endless()).unwrap()).collect();
    drop(server);
    assert!(matches!(left.pop().unwrap().finish(), Err(ServeError::Stopped)));
}

#[test]
fn debug_shows_no_text() {
    let request = ServeRequest::new(vec![424_242], GenerateParams::greedy(1), ALICE);
    assert!(!format!("{request:?}").contains("424242"));
}

/// The real model, where `scripts/fetch-model` has put it: `cargo test -p inference --test serving -- --ignored`.
#[test]
#[ignore = "needs SmolLM2-135M-Instruct, and minutes"]
fn sixty_four_at_once_answer_as_each_alone_on_smollm2() {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap();
    let engine = load(&home.join(".cache/chrysalis/models/SmolLM2-135M-Instruct.Q4_1.gguf"));
    let requests = requests(64, 100, 60);
    let expected: Vec<Generation> = requests.iter().map(|request| alone(&engine, request)).collect();
    let block = block_bytes(&engine);
    let plenty = ServeLimits { waiting: 64, ..ServeLimits::new(400 * block) };
    check(&engine, &requests, plenty, &expected);
    let scarce = ServeLimits { kv_bytes: 7 * block, running: 8, ..plenty };
    assert!(check(&engine, &requests, scarce, &expected) > 0);
}
