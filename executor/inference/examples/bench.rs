//! `bench MODEL CONTEXT OUTPUT THREADS`: prints one JSON object with the speeds of one prompt of CONTEXT tokens and
//! OUTPUT tokens after it. `scripts/bench-inference` runs it beside other engines.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use inference::{Engine, GenerateParams, ModelFiles};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().ok_or("usage: bench MODEL CONTEXT OUTPUT THREADS")?;
    let mut number = || -> Result<usize, Failure> {
        Ok(arguments.next().ok_or("usage: bench MODEL CONTEXT OUTPUT THREADS")?.parse()?)
    };
    let (context, output, threads) = (number()?, number()?, number()?);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let began = Instant::now();
    let engine = Engine::load(&ModelFiles::open(Path::new(&model))?)?;
    let load_ms = began.elapsed().as_millis();
    let vocabulary = engine.info().vocabulary;
    let params = GenerateParams::greedy(output + 1);
    // A prompt that the model would end at once says nothing of its speed: another is tried.
    for attempt in 0..20usize {
        let prompt =
            (0..context).map(|at| u32::try_from((at * 7_919 + attempt * 131 + 1_000) % (vocabulary / 2)));
        let prompt = prompt.collect::<Result<Vec<u32>, _>>()?;
        let mut times = Vec::new();
        let (began, cpu_before) = (Instant::now(), cpu_s());
        let answer = engine.generate(&prompt, &params, &mut |_| {
            times.push((began.elapsed().as_secs_f64(), cpu_s() - cpu_before));
            ControlFlow::Continue(())
        })?;
        if answer.output_ids.len() <= output {
            continue;
        }
        // The first token comes out of the prompt's own pass.
        let ((first, first_cpu), (last, last_cpu)) = (times[0], times[output]);
        println!(
            r#"{{"load_ms":{load_ms},"prefill_tokens_per_s":{:.2},"prefill_tokens_per_cpu_s":{:.2},"decode_tokens_per_s":{:.2},"decode_tokens_per_cpu_s":{:.2},"peak_kib":{}}}"#,
            context as f64 / first,
            context as f64 / first_cpu,
            output as f64 / (last - first),
            output as f64 / (last_cpu - first_cpu),
            peak_kib().unwrap_or(0)
        );
        return Ok(());
    }
    Err("the model ends every answer early".into())
}

/// The most memory this process had, as Linux counts it.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Processor time of all threads of this process, as Linux counts it.
fn cpu_s() -> f64 {
    let of_task = |task: std::io::Result<std::fs::DirEntry>| -> Option<f64> {
        let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<f64>().ok()
    };
    std::fs::read_dir("/proc/self/task").map_or(0.0, |tasks| tasks.filter_map(of_task).sum::<f64>() / 1e9)
}
