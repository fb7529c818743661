//! `serve_bench MODEL CONTEXT OUTPUT THREADS BATCH…`: for each batch size prints one JSON object with the speed of that
//! many requests at once, of CONTEXT tokens of prompt and OUTPUT tokens after them each, by the clock and by the
//! processor's time.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use inference::{Engine, GenerateParams, ModelFiles, Scope, ServeLimits, ServeRequest, Server};

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "usage: serve_bench MODEL CONTEXT OUTPUT THREADS BATCH...";

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().ok_or(USAGE)?;
    let numbers = arguments.map(|number| Ok(number.parse()?)).collect::<Result<Vec<usize>, Failure>>()?;
    let [context, output, threads, batches @ ..] = numbers.as_slice() else { return Err(USAGE.into()) };
    rayon::ThreadPoolBuilder::new().num_threads(*threads).build_global()?;
    let began = Instant::now();
    let engine = Arc::new(Engine::load(&ModelFiles::open(Path::new(&model))?)?);
    let load_ms = began.elapsed().as_millis();
    let params = GenerateParams::greedy(output + 1);
    // Prompts that the model answers at length.
    let most = batches.iter().copied().max().ok_or(USAGE)?;
    let vocabulary = engine.info().vocabulary;
    let mut prompts = Vec::new();
    for attempt in 0..10 * most {
        let prompt =
            (0..*context).map(|at| u32::try_from((at * 7_919 + attempt * 131 + 1_000) % (vocabulary / 2)));
        let prompt = prompt.collect::<Result<Vec<u32>, _>>()?;
        let answer = engine.generate(&prompt, &params, &mut |_| ControlFlow::Continue(()))?;
        if answer.output_ids.len() > *output {
            prompts.push(prompt);
        }
        if prompts.len() == most {
            break;
        }
    }
    if prompts.len() < most {
        return Err("the model ends too many answers early".into());
    }
    let server = Server::start(Arc::clone(&engine), ServeLimits::new(8 << 30))?;
    for batch in batches {
        let requests: Vec<ServeRequest> = prompts
            .iter()
            .take(*batch)
            .map(|prompt| {
                let mut request = ServeRequest::new(prompt.clone(), params.clone(), [0; 32]);
                request.reuse_prefix = Scope::Nobody;
                request
            })
            .collect();
        let (began, cpu) = (Instant::now(), cpu_s());
        let streams =
            requests.into_iter().map(|request| server.submit(request)).collect::<Result<Vec<_>, _>>()?;
        let readers: Vec<_> = streams
            .into_iter()
            .map(|mut stream| {
                std::thread::spawn(move || {
                    let mut times = Vec::new();
                    while let Some(piece) = stream.next() {
                        times.extend(piece.id.map(|_| (began.elapsed().as_secs_f64(), cpu_s())));
                    }
                    times
                })
            })
            .collect();
        let times = readers
            .into_iter()
            .map(|reader| reader.join().map_err(|_| "a reader failed"))
            .collect::<Result<Vec<_>, _>>()?;
        // From when all answer: until then some tokens go through the model with others' prompts.
        let first = |times: &Vec<(f64, f64)>| times.first().copied().unwrap_or_default();
        let (from, cpu_from) =
            times.iter().map(first).fold((0.0, 0.0), |a: (f64, f64), b| (a.0.max(b.0), a.1.max(b.1)));
        let after: Vec<(f64, f64)> = times.iter().flatten().copied().filter(|(at, _)| *at > from).collect();
        let (until, cpu_until) =
            after.iter().copied().fold((0.0, 0.0), |a: (f64, f64), b| (a.0.max(b.0), a.1.max(b.1)));
        let decoded = after.len() as f64;
        println!(
            r#"{{"batch":{batch},"load_ms":{load_ms},"peak_kib":{},"prefill_tokens_per_s":{:.1},"prefill_tokens_per_cpu_s":{:.1},"decode_tokens_per_s":{:.1},"decode_tokens_per_cpu_s":{:.1}}}"#,
            peak_kib().unwrap_or(0),
            (batch * context) as f64 / from,
            (batch * context) as f64 / (cpu_from - cpu),
            decoded / (until - from),
            decoded / (cpu_until - cpu_from),
        );
    }
    Ok(())
}

/// The most memory this process had, as Linux counts it.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Processor time of this process in seconds, user and system, as Linux counts it in hundredths.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 =
        after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    ticks / 100.0
}
