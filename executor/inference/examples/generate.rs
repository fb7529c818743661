//! `generate MODEL PROMPT`: streams an answer and says how fast it came.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use inference::{ChatMessage, Engine, GenerateParams, ModelFiles};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(model), Some(prompt)) = (arguments.next(), arguments.next()) else {
        return Err("usage: generate MODEL PROMPT".into());
    };
    let began = std::time::Instant::now();
    let engine = Engine::load(&ModelFiles::open(Path::new(&model))?)?;
    eprintln!("{:?} loaded in {} ms", engine.info(), began.elapsed().as_millis());
    let prompt = engine.tokenize_chat(&[ChatMessage { role: "user".into(), content: prompt }])?;
    let answer = engine.generate(&prompt, &GenerateParams::greedy(200), &mut |token| {
        print!("{}", token.text_piece);
        let _ = std::io::stdout().flush();
        ControlFlow::Continue(())
    })?;
    let per_second = |tokens: usize, ms: u64| tokens as f64 * 1000.0 / ms.max(1) as f64;
    eprintln!(
        "\n{} prompt tokens at {:.1}/s, {} tokens at {:.1}/s, {:?}",
        prompt.len(),
        per_second(prompt.len(), answer.prefill_ms),
        answer.output_ids.len(),
        per_second(answer.output_ids.len(), answer.decode_ms),
        answer.finish_reason
    );
    Ok(())
}
