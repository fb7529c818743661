//! Speech to text by Whisper (arXiv 2212.04356), the likeliest token each time, without timestamps: the recording is cut
//! into windows of 30 seconds, and each is transcribed for itself.

use std::collections::HashSet;
use std::fmt;
use std::ops::ControlFlow;

use tokenizers::Tokenizer;
use zeroize::{Zeroize, Zeroizing};

use crate::audio::{Audio, SAMPLES_PER_S};
use crate::audio_mel::{HOP, Mel};
use crate::backend::{Device, build};
use crate::decoder::Multiply;
use crate::error::{GenerateError, LoadError};
use crate::files::ModelFiles;
use crate::tokenizer_file::{self, guarded};
use crate::whisper_files::{self, Settings};
use crate::whisper_model::{Heard, Placed, Speech, WhisperShape};

/// OpenAI's English vocabularies are one token smaller.
const MULTILINGUAL_VOCABULARY: usize = 51_865;

/// A model that writes down what it hears.
pub struct Transcriber {
    model: Box<dyn Speech>,
    shape: WhisperShape,
    settings: Settings,
    marks: Marks,
    tokenizer: Tokenizer,
    mel: Mel,
    name: String,
    dtype: u8,
    device: Device,
}

/// What a transcriber is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranscriberInfo {
    /// `whisper`.
    pub architecture: String,
    /// As its files call it.
    pub name: String,
    /// Languages it can be told to hear, as two or three letters; empty where it hears English only.
    pub languages: Vec<String>,
    /// Seconds of a window.
    pub window_s: usize,
    /// Token ids are below this.
    pub vocabulary: usize,
    /// The type of its matrices, coded as [`crate::ModelInfo::dtype`].
    pub dtype: u8,
    /// Where it runs.
    pub device: Device,
}

/// How a recording is transcribed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TranscribeParams {
    /// One of [`TranscriberInfo::languages`]; found out from the first window where absent.
    pub language: Option<String>,
    /// Into English instead of the language that is spoken.
    pub translate: bool,
}

/// The text of a window. Its `Debug` shows no text.
#[derive(Clone, PartialEq)]
pub struct Segment {
    /// Where the window begins, in seconds.
    pub start_s: f64,
    /// Where the window or the recording ends, in seconds.
    pub end_s: f64,
    /// Its tokens.
    pub output_ids: Vec<u32>,
    /// Its text, which mostly begins with a space.
    pub text: String,
}

/// The text of a recording. Its `Debug` shows no text.
#[derive(Clone, PartialEq)]
pub struct Transcript {
    /// The segments' texts, one after the other, without white space around the whole.
    pub text: String,
    /// The windows.
    pub segments: Vec<Segment>,
    /// What was spoken; `en` for a model that hears English only.
    pub language: String,
    /// How much was heard, in seconds: all of the recording unless the caller broke off.
    pub heard_s: f64,
    /// Whether all of it was heard.
    pub is_whole: bool,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("start_s", &self.start_s).finish_non_exhaustive()
    }
}

impl fmt::Debug for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transcript")
            .field("segments", &self.segments.len())
            .field("heard_s", &self.heard_s)
            .finish_non_exhaustive()
    }
}

impl Transcriber {
    /// Loads a model on the processor.
    ///
    /// # Errors
    /// [`LoadError`]: corrupt files or an unsupported model.
    pub fn load(files: &ModelFiles) -> Result<Self, LoadError> {
        Self::load_on(files, Device::Cpu, Device::Cpu.multiply())
    }

    /// Loads a model on `device`, multiplying weights as `multiply` says; [`Device::multiply`] says what suits it.
    ///
    /// # Errors
    /// [`LoadError`]: corrupt files, an unsupported model, or a device that is not there.
    pub fn load_on(files: &ModelFiles, device: Device, multiply: Multiply) -> Result<Self, LoadError> {
        let (whisper, settings) = whisper_files::load(files)?;
        let tokenizer = tokenizer_file::load(files)?;
        let shape = whisper.shape.clone();
        let is_multilingual = settings.is_multilingual.unwrap_or(shape.vocabulary >= MULTILINGUAL_VOCABULARY);
        let marks = Marks::find(&tokenizer, &shape, is_multilingual)
            .map_err(|detail| files.corrupt("tokenizer.json", detail))?;
        if shape.target_positions <= marks.longest_prompt() {
            return Err(files.corrupt("config.json", "max_target_positions leaves no room for text"));
        }
        let mel = Mel::new(shape.bands);
        let name = files.path().file_name().map_or_else(String::new, |name| name.to_string_lossy().into());
        let dtype = whisper.dtype();
        let model = build(Placed { whisper, multiply }, device)?;
        Ok(Self { model, shape, settings, marks, tokenizer, mel, name, dtype, device })
    }

    /// What was loaded.
    pub fn info(&self) -> TranscriberInfo {
        TranscriberInfo {
            architecture: "whisper".into(),
            name: self.name.clone(),
            languages: self.marks.languages.iter().map(|(language, _)| language.clone()).collect(),
            window_s: self.window_samples() / SAMPLES_PER_S,
            vocabulary: self.shape.vocabulary,
            dtype: self.dtype,
            device: self.device,
        }
    }

    /// Transcribes. `on_segment` sees the text of each window as it is there and may break off.
    ///
    /// # Errors
    /// [`GenerateError::Parameter`] for a language the model does not know, or `translate` for one that hears English
    /// only; [`GenerateError::Backend`], [`GenerateError::Tokenizer`].
    pub fn transcribe(
        &self,
        audio: &Audio,
        params: &TranscribeParams,
        on_segment: &mut dyn FnMut(&Segment) -> ControlFlow<()>,
    ) -> Result<Transcript, GenerateError> {
        let mut language = self.chosen_language(params)?;
        let mut segments = Vec::new();
        let mut text = Zeroizing::new(String::new());
        let (mut heard, mut is_whole) = (0, true);
        for samples in audio.samples().chunks(self.window_samples()) {
            let mel = self.mel.log(samples, 2 * self.shape.source_positions);
            // Once into the thread pool, instead of once for every matrix.
            let output_ids = rayon::scope(|_| {
                let mut heard = self.model.hear(&mel)?;
                let spoken = match language {
                    Some(spoken) => spoken,
                    None => self.detect(&mut *heard)?,
                };
                language = Some(spoken);
                self.write(&mut *heard, spoken, params.translate)
            })?;
            let decoded = guarded(|| self.tokenizer.decode(&output_ids, true));
            let segment = Segment {
                start_s: heard as f64 / SAMPLES_PER_S as f64,
                end_s: (heard + samples.len()) as f64 / SAMPLES_PER_S as f64,
                output_ids,
                text: decoded.ok_or(GenerateError::Tokenizer)?,
            };
            heard += samples.len();
            text.push_str(&segment.text);
            let broken = on_segment(&segment).is_break();
            segments.push(segment);
            if broken {
                is_whole = heard == audio.samples().len();
                break;
            }
        }
        Ok(Transcript {
            text: text.trim().to_owned(),
            segments,
            language: self.marks.name_of(language.flatten()),
            heard_s: heard as f64 / SAMPLES_PER_S as f64,
            is_whole,
        })
    }

    fn window_samples(&self) -> usize {
        2 * self.shape.source_positions * HOP
    }

    /// The token of the language that was asked for. `None` where it is to be found out, `Some(None)` where the model
    /// has no such tokens.
    #[allow(clippy::option_option, reason = "the two absences differ")]
    fn chosen_language(&self, params: &TranscribeParams) -> Result<Option<Option<u32>>, GenerateError> {
        let languages = &self.marks.languages;
        match &params.language {
            _ if languages.is_empty() && params.translate => Err(GenerateError::Parameter("translate")),
            None if languages.is_empty() => Ok(Some(None)),
            None => Ok(None),
            Some(english) if languages.is_empty() && english == "en" => Ok(Some(None)),
            Some(wanted) => {
                let found = languages.iter().find(|(language, _)| language == wanted);
                found.map(|(_, id)| Some(Some(*id))).ok_or(GenerateError::Parameter("language"))
            }
        }
    }

    /// The likeliest language, the lowest token among equals.
    fn detect(&self, heard: &mut dyn Heard) -> Result<Option<u32>, GenerateError> {
        let logits = heard.append(&[self.marks.start])?;
        heard.restart();
        let allowed: HashSet<u32> = self.marks.languages.iter().map(|(_, id)| *id).collect();
        likeliest(&logits, |id| allowed.contains(&id)).map(Some).ok_or(GenerateError::Backend)
    }

    fn write(
        &self,
        heard: &mut dyn Heard,
        language: Option<u32>,
        translate: bool,
    ) -> Result<Vec<u32>, GenerateError> {
        let Marks { start, end, no_timestamps, .. } = self.marks;
        let task = if translate { self.marks.translate } else { self.marks.transcribe };
        let mut prompt = vec![start];
        prompt.extend(language);
        prompt.extend(task.filter(|_| language.is_some()));
        prompt.push(no_timestamps);
        let most = self.shape.target_positions - prompt.len();
        let mut output_ids: Vec<u32> = Vec::new();
        let mut logits = last(heard.append(&prompt)?, self.shape.vocabulary);
        loop {
            let first = output_ids.is_empty();
            let allowed = |id: u32| {
                id <= no_timestamps
                    && !self.settings.suppressed.contains(&id)
                    && !(first && self.settings.suppressed_first.contains(&id))
            };
            let id = likeliest(&logits, allowed).ok_or(GenerateError::Backend)?;
            logits.zeroize();
            if id == end {
                return Ok(output_ids);
            }
            output_ids.push(id);
            if output_ids.len() == most {
                return Ok(output_ids);
            }
            logits = last(heard.append(&[id])?, self.shape.vocabulary);
        }
    }
}

/// Tokens that are no text.
struct Marks {
    start: u32,
    end: u32,
    no_timestamps: u32,
    transcribe: Option<u32>,
    translate: Option<u32>,
    /// By their letters, in the order of their tokens.
    languages: Vec<(String, u32)>,
}

impl Marks {
    fn find(tokenizer: &Tokenizer, shape: &WhisperShape, is_multilingual: bool) -> Result<Self, String> {
        let id = |name: &str| {
            let id = tokenizer.token_to_id(name).ok_or_else(|| format!("there is no token {name}"))?;
            if id as usize >= shape.vocabulary {
                return Err(format!("its token {name} is beyond the model's {} tokens", shape.vocabulary));
            }
            Ok(id)
        };
        let (start, end) = (id("<|startoftranscript|>")?, id("<|endoftext|>")?);
        let no_timestamps = id("<|notimestamps|>")?;
        if end > no_timestamps {
            return Err("<|endoftext|> stands after <|notimestamps|>".into());
        }
        let mut marks =
            Self { start, end, no_timestamps, transcribe: None, translate: None, languages: Vec::new() };
        if is_multilingual {
            let translate = id("<|translate|>")?;
            (marks.transcribe, marks.translate) = (Some(id("<|transcribe|>")?), Some(translate));
            for language in start.saturating_add(1)..translate {
                let token = tokenizer.id_to_token(language).unwrap_or_default();
                let letters = token.strip_prefix("<|").and_then(|rest| rest.strip_suffix("|>"));
                let letters = letters.ok_or("a token before <|translate|> is no language")?;
                marks.languages.push((letters.to_owned(), language));
            }
            if marks.languages.is_empty() {
                return Err("there is no language between <|startoftranscript|> and <|translate|>".into());
            }
        }
        Ok(marks)
    }

    /// Tokens before the text.
    fn longest_prompt(&self) -> usize {
        if self.languages.is_empty() { 2 } else { 4 }
    }

    fn name_of(&self, language: Option<u32>) -> String {
        let found = self.languages.iter().find(|(_, id)| Some(*id) == language);
        found.map_or_else(|| "en".to_owned(), |(language, _)| language.clone())
    }
}

/// The token with the largest logit, the lowest among equals. `None` where none is allowed or a number.
fn likeliest(logits: &[f32], allowed: impl Fn(u32) -> bool) -> Option<u32> {
    let mut best: Option<(u32, f32)> = None;
    for (id, logit) in (0u32..).zip(logits.iter().copied()) {
        if best.is_none_or(|(_, most)| logit > most) && !logit.is_nan() && allowed(id) {
            best = Some((id, logit));
        }
    }
    best.map(|(id, _)| id)
}

/// The last row of `[tokens][vocabulary]`.
fn last(mut logits: Vec<f32>, vocabulary: usize) -> Vec<f32> {
    logits.drain(..logits.len().saturating_sub(vocabulary));
    logits
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::{Path, PathBuf};

    use safetensors::SafeTensors;

    use super::*;

    /// `scripts/regenerate-encoders-golden` keeps every so many numbers.
    const SAMPLE_STEP: usize = 7;
    const WINDOWS: usize = 3;

    fn golden(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
    }

    fn load(name: &str, multiply: Multiply) -> Transcriber {
        Transcriber::load_on(&ModelFiles::open(&golden(name)).unwrap(), Device::Cpu, multiply).unwrap()
    }

    /// A sweeping triangle wave and noise, in integers, as the script makes it.
    fn synthetic() -> Audio {
        let (mut state, mut phase) = (1i64, 0i64);
        let samples = (0..5 * SAMPLES_PER_S as i64 + 1_234).map(|index| {
            state = (state * 1_103_515_245 + 12_345) & 0x7fff_ffff;
            phase = (phase + 300 + index / 16 % 4_000) & 0xffff;
            let triangle = (phase - 0x8000).abs() - 0x4000;
            (triangle + (state >> 18) - 4_096).div_euclid(2) as f32 / 32_768.0
        });
        Audio::from_samples(samples.collect(), SAMPLES_PER_S as u32).unwrap()
    }

    fn furthest(ours: &[f32], theirs: &[[u8; 4]]) -> f32 {
        let ours: Vec<f32> = ours.iter().copied().step_by(SAMPLE_STEP).collect();
        assert_eq!(ours.len(), theirs.len());
        let theirs = theirs.iter().map(|word| f32::from_le_bytes(*word));
        ours.iter().zip(theirs).map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn every_stage_agrees_with_transformers() {
        let bytes = std::fs::read(golden("whisper.safetensors")).unwrap();
        let stored = SafeTensors::deserialize(&bytes).unwrap();
        let words = |name: String| stored.tensor(&name).unwrap().data().as_chunks::<4>().0.to_vec();
        let ids = |name: String| words(name).into_iter().map(u32::from_le_bytes).collect::<Vec<_>>();
        let audio = synthetic();
        for (name, multiply) in [
            ("whisper", Multiply::Stored),
            ("whisper", Multiply::Backend),
            ("whisper-ct2", Multiply::Stored),
            ("whisper-ct2", Multiply::Backend),
        ] {
            let model = load(name, multiply);
            let (source_positions, bands) = (model.shape.source_positions, model.shape.bands);
            assert_eq!(audio.samples().len().div_ceil(model.window_samples()), WINDOWS);
            for (index, samples) in audio.samples().chunks(model.window_samples()).enumerate() {
                let mel = model.mel.log(samples, 2 * source_positions);
                // Theirs lies band by band.
                let frames = 2 * source_positions;
                let turned: Vec<f32> =
                    (0..bands * frames).map(|at| mel[at % frames * bands + at / frames]).collect();
                let difference = furthest(&turned, &words(format!("mel.{index}")));
                assert!(difference < 1e-5, "mel {index}: {difference}");
                let mut heard = model.model.hear(&mel).unwrap();
                let encoded = furthest(&heard.encoded().unwrap(), &words(format!("encoded.{index}")));
                let logits = heard.append(&ids(format!("forced.{index}"))).unwrap();
                let most = logits.iter().copied().fold(0.0, f32::max);
                assert!(most > 3.0, "the weights say something: {most}");
                let logits = furthest(&logits, &words(format!("logits.{index}")));
                println!(
                    "{name} {multiply:?} {index}: mel {difference:.1e} encoded {encoded:.1e} logits {logits:.1e} of {most:.1}"
                );
                assert!(encoded < 1e-4 && logits < 1e-4, "{name} {index}: {encoded}, {logits}");
                // Token by token after a restart, as all at once.
                heard.restart();
                let forced = ids(format!("forced.{index}"));
                let one_by_one: Vec<f32> =
                    forced.iter().flat_map(|id| heard.append(&[*id]).unwrap()).collect();
                let logits = furthest(&one_by_one, &words(format!("logits.{index}")));
                assert!(logits < 1e-4, "{name} {index}, token by token: {logits}");
            }
        }
    }

    #[test]
    fn windows_are_written_as_transformers_writes_them() {
        let bytes = std::fs::read(golden("whisper.safetensors")).unwrap();
        let (_, head) = SafeTensors::read_metadata(&bytes).unwrap();
        let texts: Vec<String> = serde_json::from_str(&head.metadata().as_ref().unwrap()["texts"]).unwrap();
        let stored = SafeTensors::deserialize(&bytes).unwrap();
        let ids = |name: String| -> Vec<u32> {
            let words = stored.tensor(&name).unwrap().data().as_chunks::<4>().0.to_vec();
            words.into_iter().map(u32::from_le_bytes).collect()
        };
        let model = load("whisper", Multiply::Stored);
        let info = model.info();
        assert_eq!((info.languages, info.window_s), (vec!["en".into(), "de".into(), "fr".into()], 2));
        let german = TranscribeParams { language: Some("de".into()), translate: false };
        let mut seen = Vec::new();
        let transcript = model
            .transcribe(&synthetic(), &german, &mut |segment| {
                seen.push(segment.clone());
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(transcript.segments.len(), WINDOWS);
        assert_eq!(seen, transcript.segments);
        for (index, segment) in transcript.segments.iter().enumerate() {
            assert_eq!(segment.output_ids, ids(format!("greedy.{index}")), "window {index}");
            assert_eq!(segment.text, texts[index]);
        }
        assert_eq!(transcript.segments[2].end_s, 5.0 + 1_234.0 / 16_000.0);
        assert_eq!((transcript.heard_s, transcript.is_whole), (transcript.segments[2].end_s, true));
        assert!(!format!("{transcript:?}{seen:?}").contains(transcript.text.as_str()));
        // Without a language, that of the first window.
        let found = model.marks.languages.iter().find(|(_, id)| *id == ids("language.0".into())[0]).unwrap();
        let guessed =
            model.transcribe(&synthetic(), &TranscribeParams::default(), &mut |_| ControlFlow::Break(()));
        let guessed = guessed.unwrap();
        assert_eq!((&guessed.language, guessed.segments.len(), guessed.is_whole), (&found.0, 1, false));
        let told = TranscribeParams { language: Some(found.0.clone()), translate: false };
        let told = model.transcribe(&synthetic(), &told, &mut |_| ControlFlow::Break(())).unwrap();
        assert_eq!(told, guessed);
        let translated = TranscribeParams { translate: true, ..german };
        let translated =
            model.transcribe(&synthetic(), &translated, &mut |_| ControlFlow::Break(())).unwrap();
        assert_ne!(translated.segments[0].output_ids, transcript.segments[0].output_ids);
    }

    #[test]
    fn what_a_model_cannot_do_is_refused() {
        let run = |model: &Transcriber, language: Option<&str>, translate| {
            let params = TranscribeParams { language: language.map(str::to_owned), translate };
            let silence = Audio::from_samples(vec![0.0; 16_000], 16_000).unwrap();
            model.transcribe(&silence, &params, &mut |_| ControlFlow::Continue(()))
        };
        let multilingual = load("whisper", Multiply::Stored);
        let unknown = run(&multilingual, Some("tlh"), false);
        assert!(matches!(unknown, Err(GenerateError::Parameter("language"))));
        let empty = Audio::from_samples(vec![], 8_000).unwrap();
        let nothing =
            multilingual.transcribe(&empty, &TranscribeParams::default(), &mut |_| ControlFlow::Continue(()));
        assert_eq!(nothing.unwrap().text, "");
        // By the size of its vocabulary, this one hears English only.
        let english = load("whisper-ct2", Multiply::Stored);
        assert!(english.info().languages.is_empty());
        assert_eq!(run(&english, None, false).unwrap().language, "en");
        assert!(run(&english, Some("en"), false).is_ok());
        let other = run(&english, Some("de"), false);
        assert!(matches!(other, Err(GenerateError::Parameter("language"))));
        assert!(matches!(run(&english, None, true), Err(GenerateError::Parameter("translate"))));
    }
}
