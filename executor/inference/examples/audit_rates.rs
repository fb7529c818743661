//! `audit_rates CLAIMED OTHER…`: how far honest answers of another arithmetic are from an audit's choice, and how many
//! dishonest ones it catches. CLAIMED is the model that receipts name; each OTHER is one run in its place.

use std::ops::ControlFlow;
use std::path::Path;

use inference::{
    AuditVerdict, ChatMessage, Device, Engine, FinishReason, GenerateParams, ModelFiles, Multiply, Sampling,
};

const QUESTIONS: [&str; 12] = [
    "What is the capital of France?",
    "Name three colours.",
    "Write a haiku about the sea.",
    "Explain gravity to a child.",
    "How do I boil an egg?",
    "Give me a recipe for pancakes.",
    "What is a prime number? Give examples.",
    "Write a short letter to a friend who is ill.",
    "List the planets of the solar system.",
    "Why is the sky blue?",
    "Translate 'good morning' into French and Spanish.",
    "Tell me a story about a fox and a crow.",
];
const OUTPUT_TOKENS: usize = 32;
const TOLERANCES: [f32; 3] = [1e-3, 1e-2, 1e-1];

type Failure = Box<dyn std::error::Error>;

struct Answer {
    prompt: Vec<u32>,
    output: Vec<u32>,
    end: FinishReason,
    params: GenerateParams,
}

fn main() -> Result<(), Failure> {
    let mut paths = std::env::args().skip(1);
    let claimed = paths.next().ok_or("usage: audit_rates CLAIMED OTHER…")?;
    let files = ModelFiles::open(Path::new(&claimed))?;
    let auditor = Engine::load(&files)?;
    let honest = answers(&auditor)?;
    report("honest, same arithmetic", &auditor, &honest)?;
    let other_arithmetic = Engine::load_on(&files, Device::Cpu, Multiply::Backend)?;
    report("honest, burn's own matrix product", &other_arithmetic, &honest)?;
    drop(other_arithmetic);
    report(
        "one token edited",
        &auditor,
        &altered(&honest, |answer| {
            let at = answer.output.len() / 2;
            answer.output[at] = answer.output[at].wrapping_add(997) % 40_000;
        }),
    )?;
    report(
        "two tokens swapped",
        &auditor,
        &altered(&honest, |answer| {
            let at = answer.output.len() / 2;
            answer.output.swap(at, at - 1);
        }),
    )?;
    report(
        "cut in half, said to have stopped",
        &auditor,
        &altered(&honest, |answer| {
            answer.output.truncate(answer.output.len() / 2);
            answer.end = FinishReason::Stop;
        }),
    )?;
    report("another seed", &auditor, &altered(&honest, |answer| answer.params.sampling.seed += 1))?;
    for path in paths {
        let other = Engine::load(&ModelFiles::open(Path::new(&path))?)?;
        report(&format!("run on {path}"), &auditor, &answers(&other)?)?;
    }
    Ok(())
}

fn answers(engine: &Engine) -> Result<Vec<Answer>, Failure> {
    let mut answers = Vec::new();
    for (seed, question) in (1..).zip(QUESTIONS) {
        let prompt =
            engine.tokenize_chat(&[ChatMessage { role: "user".into(), content: question.into() }])?;
        let warm = Sampling { temperature: 0.8, top_p: 0.95, seed, ..Sampling::default() };
        for sampling in [Sampling::default(), warm] {
            let params = GenerateParams { sampling, ..GenerateParams::greedy(OUTPUT_TOKENS) };
            let answer = engine.generate(&prompt, &params, &mut |_| ControlFlow::Continue(()))?;
            let end = answer.finish_reason;
            answers.push(Answer { prompt: prompt.clone(), output: answer.output_ids, end, params });
        }
    }
    Ok(answers)
}

/// The answers of four tokens or more, each changed.
fn altered(answers: &[Answer], change: impl Fn(&mut Answer)) -> Vec<Answer> {
    let long = answers.iter().filter(|answer| answer.output.len() >= 4);
    long.map(|answer| {
        let mut altered = Answer {
            prompt: answer.prompt.clone(),
            output: answer.output.clone(),
            end: answer.end,
            params: answer.params.clone(),
        };
        change(&mut altered);
        altered
    })
    .collect()
}

fn report(what: &str, auditor: &Engine, answers: &[Answer]) -> Result<(), Failure> {
    for (name, warm) in [("greedy", false), ("sampled", true)] {
        let answers: Vec<&Answer> =
            answers.iter().filter(|answer| (answer.params.sampling.temperature > 0.0) == warm).collect();
        let verdicts = |tolerance: f32| -> Result<Vec<AuditVerdict>, Failure> {
            let audit = |answer: &&Answer| {
                auditor.audit(&answer.prompt, &answer.output, answer.end, &answer.params, tolerance)
            };
            Ok(answers.iter().map(audit).collect::<Result<_, _>>()?)
        };
        let mut worst: Vec<f32> =
            verdicts(TOLERANCES[0])?.iter().map(|verdict| verdict.worst_margin).collect();
        worst.sort_by(f32::total_cmp);
        let refused = TOLERANCES
            .iter()
            .map(|tolerance| {
                let refused = verdicts(*tolerance)?.iter().filter(|verdict| !verdict.holds()).count();
                Ok(format!("{refused} at {tolerance}"))
            })
            .collect::<Result<Vec<String>, Failure>>()?;
        println!(
            "{what}, {name}: refused of {}: {}; worst margin in logits: least {:.1e}, median {:.1e}, most {:.1e}",
            answers.len(),
            refused.join(", "),
            worst.first().copied().unwrap_or_default(),
            worst.get(worst.len() / 2).copied().unwrap_or_default(),
            worst.last().copied().unwrap_or_default(),
        );
    }
    Ok(())
}
