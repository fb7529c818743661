//! What a job asks, from the command line: the kind of work and its parameters.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use contracts::sealing::{ChatMessage, Output};
use contracts::work::{GenerateParams, Request, Sampling};
use contracts::{Nanoton, Prices, Units};
use inference::Audio;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::tasks;

/// What to do with the input, and how.
#[derive(Args)]
pub(crate) struct AskArguments {
    /// A file with the input; `-`: standard input. Arguments show in the list of processes, so the prompt is none.
    #[arg(long, default_value = "-")]
    prompt_file: PathBuf,
    /// `answer` the prompt, `continue` it as it stands, `summarise` it, `translate:LANGUAGE`; with a model for that, `embed` each
    /// of its lines, or `transcribe` a WAV file, `transcribe:CODE` where its language is known.
    #[arg(long, default_value = "answer")]
    task: Task,
    /// The most tokens of the answer.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    max_output_tokens: u32,
    /// Draw tokens instead of taking the most likely; 1: as likely as the model finds them.
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// Draw among this many of the most likely tokens; 0: all.
    #[arg(long, default_value_t = 0)]
    top_k: u32,
    /// Draw among the most likely tokens that reach this probability together.
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,
    /// Draw among tokens at least this many times as likely as the most likely.
    #[arg(long, default_value_t = 0.0)]
    min_p: f32,
    /// Make tokens that were there already less likely by this factor.
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Names the draw: the same seed draws the same answer.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A text that ends the answer; may be given several times.
    #[arg(long)]
    stop: Vec<String>,
    /// A file with a JSON schema that the answer is held to.
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
    /// Numbers of a vector of the model, for which a result's room is paid.
    #[arg(long, default_value_t = 384)]
    dimensions: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Task {
    Answer,
    Continue,
    Summarise,
    Translate(String),
    Embed,
    Transcribe(Option<String>),
}

impl FromStr for Task {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, detail) = match text.split_once(':') {
            Some((name, detail)) => (name, Some(detail.trim().to_owned())),
            None => (text, None),
        };
        let detail = detail.filter(|detail| !detail.is_empty() && detail.len() <= MAX_LANGUAGE_BYTES);
        Ok(match (name, detail, text.contains(':')) {
            ("answer", None, false) => Self::Answer,
            ("continue", None, false) => Self::Continue,
            ("summarise", None, false) => Self::Summarise,
            ("translate", Some(language), _) => Self::Translate(language),
            ("embed", None, false) => Self::Embed,
            ("transcribe", None, false) => Self::Transcribe(None),
            ("transcribe", Some(code), _) => Self::Transcribe(Some(code)),
            _ => {
                return Err("use answer, continue, summarise, translate:LANGUAGE, embed, transcribe or \
                            transcribe:CODE"
                    .into());
            }
        })
    }
}

/// What is asked, and the most units it may take.
pub(crate) struct Asked {
    pub(crate) work: Request,
    pub(crate) max_units: Units,
}

impl AskArguments {
    /// Reads the input and says what to ask.
    pub(crate) fn read(&self) -> anyhow::Result<Asked> {
        let bytes = read_input(&self.prompt_file, self.most_bytes())?;
        if let Task::Transcribe(language) = &self.task {
            let audio = Audio::from_wav(&bytes)?;
            let work = Request::Transcription {
                audio: STANDARD.encode(&*bytes),
                language: language.clone(),
                translate: false,
            };
            // At most two hours.
            let input = audio.seconds().ceil() as u32;
            return Ok(Asked { work, max_units: self.units(input.max(1)) });
        }
        let text = std::str::from_utf8(&bytes).ok().context("the prompt is not UTF-8")?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        if text.is_empty() {
            bail!("the prompt is empty");
        }
        let params = self.params()?;
        let work = match &self.task {
            Task::Continue => Request::Completion { prompt: text.to_owned(), params },
            Task::Summarise => Request::chat(tasks::summarise(text), params),
            Task::Translate(language) => Request::chat(tasks::translate(text, language), params),
            Task::Embed => Request::Embeddings {
                texts: text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect(),
            },
            Task::Answer | Task::Transcribe(_) => Request::chat(vec![ChatMessage::new("user", text)], params),
        };
        // A token stands for a byte at least.
        let input = u32::try_from(text.len())?.saturating_add(TEMPLATE_TOKENS);
        let mut max_units = self.units(input);
        if let Request::Embeddings { texts } = &work {
            let numbers = u32::try_from(texts.len())?.saturating_mul(self.dimensions);
            // Of each number, and of its share of a token's room.
            max_units.output = numbers
                .saturating_mul(BYTES_PER_NUMBER)
                .div_ceil(contracts::fees::RESULT_BYTES_PER_OUTPUT as u32);
        }
        Ok(Asked { work, max_units })
    }

    fn params(&self) -> anyhow::Result<GenerateParams> {
        let mut params = GenerateParams::greedy(self.max_output_tokens);
        params.sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            ..Sampling::default()
        };
        params.stop = self.stop.clone();
        if let Some(path) = &self.json_schema {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the JSON schema {}", path.display()))?;
            inference::JsonSchema::parse(&text)?;
            params.json_schema = Some(text);
        }
        Ok(params)
    }

    fn units(&self, input: u32) -> Units {
        Units { input, cached_input: 0, output: self.max_output_tokens }
    }

    fn most_bytes(&self) -> usize {
        if matches!(self.task, Task::Transcribe(_)) { MAX_AUDIO_BYTES } else { MAX_PROMPT_BYTES }
    }
}

impl Asked {
    /// Lets the worker bill tokens that it had computed before for this wallet, where that is cheaper, and says what the job
    /// may cost: never more than without.
    pub(crate) fn with_cached(&mut self, prices: &Prices) -> Nanoton {
        let most = prices.cost(&self.max_units);
        if self.work.params().is_some() && prices.cached_input < prices.input {
            self.max_units.cached_input = self.max_units.input;
        }
        most
    }
}

/// What a result holds beside text: `None` for an answer in words.
pub(crate) fn beside_text(output: &Output) -> Option<Value> {
    let vectors = output.vectors()?;
    Some(Value::from(vectors.into_iter().map(Value::from).collect::<Vec<_>>()))
}

/// The input, wiped on drop.
fn read_input(path: &Path, most: usize) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    // One allocation, so that no copy is left behind by a buffer that grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
    let limit = u64::try_from(most)?.saturating_add(1);
    if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes).context("cannot read standard input")?;
    } else {
        let file = std::fs::File::open(path)
            .with_context(|| format!("cannot read the prompt file {}", path.display()))?;
        file.take(limit)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read the prompt file {}", path.display()))?;
    }
    if bytes.is_empty() || bytes.len() > most {
        bail!("the input has to have between 1 and {most} bytes");
    }
    Ok(bytes)
}

/// What fits a sealed input beside the rest of its JSON.
const MAX_PROMPT_BYTES: usize = 16 * 1024;
/// The same, in base64.
const MAX_AUDIO_BYTES: usize = 44 * 1024;
/// The chat template and a task's words add fewer tokens than this.
const TEMPLATE_TOKENS: u32 = 256;
/// Of a vector, as a result writes it, with its share of the rest.
const BYTES_PER_NUMBER: u32 = 12;
const MAX_LANGUAGE_BYTES: usize = 40;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        ask: AskArguments,
    }

    fn asked(arguments: &[&str], input: &[u8]) -> anyhow::Result<Asked> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("input");
        std::fs::write(&path, input).unwrap();
        let path = path.to_str().unwrap().to_owned();
        let line = [&["ask", "--prompt-file", &path][..], arguments].concat();
        Line::try_parse_from(line)?.ask.read()
    }

    #[test]
    fn each_task_is_asked_as_it_should_be() {
        let words = |asked: Asked| match &asked.work {
            Request::Chat { messages, .. } => messages[0].content.clone(),
            Request::Completion { prompt, .. } => prompt.clone(),
            _ => panic!("another task"),
        };
        assert_eq!(words(asked(&[], b"hello\n").unwrap()), "hello");
        assert_eq!(words(asked(&["--task", "continue"], b"once\n").unwrap()), "once");
        let summary = words(asked(&["--task", "summarise"], b"a long text").unwrap());
        assert!(summary.starts_with("Summarise") && summary.contains("a long text"));
        let german = words(asked(&["--task", "translate:German"], b"a text").unwrap());
        assert!(german.contains("into German") && german.contains("a text"));
        let embed = asked(&["--task", "embed", "--dimensions", "2"], b"one\n\ntwo\n").unwrap();
        assert_eq!(embed.work, Request::Embeddings { texts: vec!["one".into(), "two".into()] });
        for wrong in ["translate", "translate:", "answer:x", "sing", "transcribe:"] {
            assert!(asked(&["--task", wrong], b"a text").is_err(), "{wrong}");
        }
        assert!(asked(&["--task", "transcribe"], b"no recording").is_err());
        assert!(asked(&[], b"\n").is_err());
        assert!(asked(&[], &[b'x'; MAX_PROMPT_BYTES + 1]).is_err());
        assert!(asked(&[], b"\xff").is_err());
    }

    #[test]
    fn parameters_reach_the_request_and_a_cache_never_costs() {
        let line = ["--temperature", "0.5", "--seed", "9", "--stop", "END", "--max-output-tokens", "7"];
        let mut found = asked(&line, b"hello").unwrap();
        let params = found.work.params().unwrap();
        assert_eq!((params.sampling.temperature, params.sampling.seed), (0.5, 9));
        assert_eq!((params.max_output_tokens, &*params.stop), (7, &["END".to_owned()][..]));
        let prices = |cached| Prices {
            input: Nanoton::new(1_000),
            cached_input: Nanoton::new(cached),
            output: Nanoton::new(2_000),
        };
        let plain = found.max_units;
        assert_eq!(found.with_cached(&prices(1_000)), prices(0).cost(&plain));
        assert_eq!(found.max_units.cached_input, 0);
        assert_eq!(found.with_cached(&prices(10)), prices(0).cost(&plain));
        assert_eq!(found.max_units.cached_input, plain.input);
    }
}
