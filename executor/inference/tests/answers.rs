//! Sampling, stop strings, log-probabilities and audits, on the golden models.
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::path::Path;

use inference::{
    AuditVerdict, Ending, Engine, FinishReason, GenerateError, GenerateParams, Generation, ModelFiles,
    Sampling,
};

const TOLERANCE: f32 = 1e-3;

fn engine(name: &str) -> Engine {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    Engine::load(&ModelFiles::open(&path).unwrap()).unwrap()
}

fn prompt(seed: u32) -> Vec<u32> {
    (0..12).map(|i| (i * 31 + seed * 17 + 7) % 300).collect()
}

fn answer(engine: &Engine, prompt: &[u32], params: &GenerateParams) -> (Generation, String) {
    let mut streamed = String::new();
    let generation = engine
        .generate(prompt, params, &mut |token| {
            streamed.push_str(token.text_piece);
            ControlFlow::Continue(())
        })
        .unwrap();
    (generation, streamed)
}

fn audit(
    engine: &Engine,
    prompt: &[u32],
    output: &[u32],
    end: FinishReason,
    params: &GenerateParams,
) -> AuditVerdict {
    engine.audit(prompt, output, end, params, TOLERANCE).unwrap()
}

fn samplings() -> Vec<Sampling> {
    let warm = Sampling { temperature: 0.8, seed: 11, ..Sampling::default() };
    vec![
        Sampling::default(),
        warm,
        Sampling { top_k: 20, top_p: 0.9, ..warm },
        Sampling { min_p: 0.05, repetition_penalty: 1.2, ..warm },
        Sampling { temperature: 3.0, presence_penalty: 0.7, frequency_penalty: 0.3, top_p: 0.8, ..warm },
    ]
}

#[test]
fn an_honest_answer_passes_its_audit_and_an_edited_one_does_not() {
    for name in ["q4_0.gguf", "families/qwen3", "families/gemma2.gguf", "families/qwen3_moe.gguf"] {
        let engine = engine(name);
        for (seed, sampling) in (0..).zip(samplings()) {
            let params = GenerateParams { max_output_tokens: 40, sampling, ..GenerateParams::default() };
            let prompt = prompt(seed);
            let (honest, streamed) = answer(&engine, &prompt, &params);
            assert_eq!(streamed, honest.text);
            let ids = &honest.output_ids;
            let verdict = audit(&engine, &prompt, ids, honest.finish_reason, &params);
            assert!(verdict.holds() && verdict.exact == ids.len(), "{name} {sampling:?}: {verdict:?}");
            if ids.len() < 4 {
                continue;
            }
            for at in [0, ids.len() / 2, ids.len() - 1] {
                let mut edited = ids.clone();
                edited[at] = (edited[at] + 101) % 300;
                let verdict = audit(&engine, &prompt, &edited, honest.finish_reason, &params);
                let first = verdict.first_departure.unwrap();
                assert!(first.index == at && first.expected == ids[at], "{name} {at}: {verdict:?}");
            }
            let cut = &ids[..ids.len() - 2];
            for end in [FinishReason::Stop, FinishReason::Length] {
                let verdict = audit(&engine, &prompt, cut, end, &params);
                assert!(matches!(verdict.ending, Ending::TooEarly { .. }), "{name}: {verdict:?}");
                assert!(!verdict.holds());
            }
            assert!(audit(&engine, &prompt, cut, FinishReason::Cancelled, &params).holds());
            let longer: Vec<u32> = ids.iter().chain(ids).chain(ids).copied().collect();
            assert!(!audit(&engine, &prompt, &longer, FinishReason::Length, &params).holds());
        }
    }
}

#[test]
fn another_model_seed_or_parameter_is_seen() {
    let (better, worse) = (engine("q4_1.gguf"), engine("q4_0.gguf"));
    // These logits reach 50: without a high temperature no seed would matter.
    let sampling = Sampling { temperature: 12.0, seed: 1 << 40, ..Sampling::default() };
    let params = GenerateParams { max_output_tokens: 60, sampling, ..GenerateParams::default() };
    let prompt = prompt(3);
    let (claimed, _) = answer(&worse, &prompt, &params);
    let (ids, end) = (&claimed.output_ids, claimed.finish_reason);
    assert!(audit(&worse, &prompt, ids, end, &params).holds());
    assert!(!audit(&better, &prompt, ids, end, &params).holds(), "the same weights in fewer levels");
    for changed in [
        Sampling { seed: sampling.seed + 1, ..sampling },
        Sampling { temperature: 18.0, ..sampling },
        Sampling { temperature: 0.0, ..sampling },
    ] {
        let params = GenerateParams { sampling: changed, ..params.clone() };
        assert!(!audit(&worse, &prompt, ids, end, &params).holds(), "{changed:?}");
    }
    let mut other = prompt.clone();
    other[0] += 1;
    assert!(!audit(&worse, &other, ids, end, &params).holds(), "another prompt");
}

#[test]
fn a_token_that_ends_an_answer_or_is_none_cannot_be_in_it() {
    let engine = engine("q4_0.gguf");
    let (prompt, params) = (prompt(0), GenerateParams::greedy(8));
    let (honest, _) = answer(&engine, &prompt, &params);
    for stranger in [2, 320, u32::MAX] {
        let mut edited = honest.output_ids.clone();
        edited[3] = stranger;
        let verdict = audit(&engine, &prompt, &edited, FinishReason::Length, &params);
        let first = verdict.first_departure.unwrap();
        assert_eq!((first.index, first.margin), (3, f32::INFINITY));
    }
    assert!(matches!(
        engine.audit(&[], &[1], FinishReason::Stop, &params, TOLERANCE),
        Err(GenerateError::EmptyPrompt)
    ));
}

#[test]
fn the_seed_fixes_the_answer_on_any_number_of_threads() {
    let engine = engine("families/llama3");
    let prompt = prompt(5);
    let run = |seed: u64, threads: usize| {
        let sampling = Sampling { temperature: 1.2, top_p: 0.95, seed, ..Sampling::default() };
        let params = GenerateParams { max_output_tokens: 32, sampling, ..GenerateParams::default() };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| answer(&engine, &prompt, &params).0.output_ids)
    };
    assert_eq!(run(1, 1), run(1, 3));
    assert_ne!(run(1, 1), run(2, 1));
}

#[test]
fn a_stop_string_ends_the_answer_before_it() {
    let engine = engine("q8_0.gguf");
    let prompt = prompt(1);
    let (whole, _) = answer(&engine, &prompt, &GenerateParams::greedy(30));
    let chars: Vec<char> = whole.text.chars().collect();
    // Broken characters of a random model are not certain until the next token.
    let mut pairs = chars.windows(2).skip(4);
    let stop = pairs.find(|pair| pair.iter().all(char::is_ascii)).unwrap().iter().collect::<String>();
    let first = whole.text.find(&stop).unwrap();
    let params = GenerateParams { stop: vec!["never there".into(), stop], ..GenerateParams::greedy(30) };
    let (stopped, streamed) = answer(&engine, &prompt, &params);
    assert_eq!(stopped.finish_reason, FinishReason::Stop);
    assert_eq!(stopped.text, whole.text[..first]);
    assert_eq!(streamed, stopped.text);
    let ids = &stopped.output_ids;
    assert!(audit(&engine, &prompt, ids, FinishReason::Stop, &params).holds());
    let further = &whole.output_ids[..ids.len() + 1];
    assert_eq!(audit(&engine, &prompt, further, FinishReason::Stop, &params).ending, Ending::TooLate);
    let shorter = &ids[..ids.len() - 1];
    let verdict = audit(&engine, &prompt, shorter, FinishReason::Stop, &params);
    assert!(matches!(verdict.ending, Ending::TooEarly { .. }), "{verdict:?}");
}

#[test]
fn logprobs_are_those_of_the_model() {
    let engine = engine("families/qwen2");
    let prompt = prompt(2);
    let vocabulary = engine.info().vocabulary;
    let sampling = Sampling { temperature: 2.0, top_k: 5, seed: 3, ..Sampling::default() };
    let params = GenerateParams { sampling, top_logprobs: Some(4), ..GenerateParams::greedy(10) };
    let (given, _) = answer(&engine, &prompt, &params);
    assert_eq!(given.logprobs.len(), given.output_ids.len());
    let mut sequence = prompt.clone();
    for (id, logprobs) in given.output_ids.iter().zip(&given.logprobs) {
        let logits = engine.logits(&sequence).unwrap().pop().unwrap();
        let whole: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        let due = f64::from(logits[*id as usize]) - whole.ln();
        assert!((due - f64::from(logprobs.logprob)).abs() < 1e-4);
        assert_eq!(logprobs.top.len(), 4);
        assert!(logprobs.top.is_sorted_by(|a, b| a.1 >= b.1));
        let best = (0..vocabulary).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        assert_eq!(logprobs.top[0].0 as usize, best);
        sequence.push(*id);
    }
    let none = answer(&engine, &prompt, &GenerateParams::greedy(3)).0;
    assert!(none.logprobs.is_empty());
    let asked = GenerateParams { top_logprobs: Some(21), ..GenerateParams::greedy(3) };
    let refused = engine.generate(&prompt, &asked, &mut |_| ControlFlow::Continue(()));
    assert!(matches!(refused, Err(GenerateError::Parameter("top_logprobs"))));
}

#[test]
fn debug_shows_neither_text_nor_tokens() {
    let engine = engine("q8_0.gguf");
    let params =
        GenerateParams { stop: vec!["canary".into()], top_logprobs: Some(1), ..GenerateParams::greedy(3) };
    let (given, _) = answer(&engine, &prompt(0), &params);
    let verdict = audit(&engine, &prompt(0), &[1, 2, 3], FinishReason::Stop, &params);
    let shown = format!("{params:?} {given:?} {:?} {verdict:?}", given.logprobs);
    assert!(!shown.contains("canary") && !shown.contains("claimed") && !shown.contains(&given.text));
}

/// The next token's probabilities have the same bits whether its text came in one prompt or token by token.
#[test]
fn how_a_text_was_cut_changes_no_bit() {
    for name in ["q4_1.gguf", "mixed.gguf", "families/gemma3", "families/qwen3_moe.gguf"] {
        let engine = engine(name);
        let long: Vec<u32> = (0..150).map(|i| (i * 53 + 11) % 300).collect();
        let params = GenerateParams { top_logprobs: Some(20), ..GenerateParams::greedy(30) };
        let (whole, _) = answer(&engine, &long, &params);
        for at in [1, 7, 20].into_iter().filter(|at| *at < whole.output_ids.len()) {
            let prompt = [&long, &whole.output_ids[..at]].concat();
            let next = answer(&engine, &prompt, &GenerateParams { max_output_tokens: 1, ..params.clone() }).0;
            assert!(next.logprobs[0] == whole.logprobs[at], "{name} after {at} tokens");
        }
    }
}
