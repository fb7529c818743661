//! The inference crate as the worker's engine.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Context;
use contracts::HashBytes;
use contracts::model_manifest::{ModelFile, model_id};
use contracts::receipt::Dtype;
use contracts::sealing::{ChatMessage, FinishReason};
use inference::{ENGINE_REVISION, Engine, GenerateError, GenerateParams, ModelFiles, ModelInfo};
use worker::{EngineError, EngineInfo, Generated};

/// A model loaded on burn.
pub(crate) struct BurnEngine {
    engine: Engine,
    info: EngineInfo,
    model: ModelInfo,
}

impl BurnEngine {
    /// Reads, hashes and loads the model at `path`.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let files = ModelFiles::open(path)?;
        let model_id = id_of(&files)?;
        let engine = Engine::load(&files)?;
        let model = engine.info();
        let info = EngineInfo {
            model_id,
            engine: ENGINE_REVISION,
            dtype: Dtype::from_wire(model.dtype)
                .context("the weights have a number format without a code")?,
            context_tokens: u32::try_from(model.context_length).unwrap_or(u32::MAX),
        };
        Ok(Self { engine, info, model })
    }

    pub(crate) fn model(&self) -> &ModelInfo {
        &self.model
    }
}

/// The files as the manifest names them.
pub(crate) fn manifest(files: &ModelFiles) -> Vec<ModelFile> {
    let files = files.files().iter();
    files
        .map(|file| ModelFile {
            name: file.name.clone(),
            size_bytes: file.size_bytes,
            sha256: HashBytes(file.sha256),
        })
        .collect()
}

pub(crate) fn id_of(files: &ModelFiles) -> anyhow::Result<HashBytes> {
    Ok(model_id(&manifest(files))?)
}

impl worker::Engine for BurnEngine {
    fn info(&self) -> EngineInfo {
        self.info
    }

    fn tokenize(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, EngineError> {
        let messages: Vec<inference::ChatMessage> = messages
            .iter()
            .map(|message| inference::ChatMessage {
                role: message.role.clone(),
                content: message.content.clone(),
            })
            .collect();
        self.engine.tokenize_chat(&messages).map_err(|error| fault(&error))
    }

    fn generate(
        &self,
        prompt_ids: &[u32],
        max_output_tokens: u32,
        on_text: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generated, EngineError> {
        let params = GenerateParams::greedy(usize::try_from(max_output_tokens).unwrap_or(usize::MAX));
        let answer = self
            .engine
            .generate(prompt_ids, &params, &mut |token| {
                if on_text(token.text_piece) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .map_err(|error| fault(&error))?;
        let finish_reason = match answer.finish_reason {
            inference::FinishReason::Stop => FinishReason::Stop,
            inference::FinishReason::Length => FinishReason::Length,
            inference::FinishReason::Cancelled => return Err(EngineError::Cancelled),
        };
        Ok(Generated { text: answer.text, output_ids: answer.output_ids, finish_reason })
    }
}

fn fault(error: &GenerateError) -> EngineError {
    match error {
        GenerateError::EmptyPrompt | GenerateError::Template | GenerateError::Parameter(_) => {
            EngineError::Malformed
        }
        GenerateError::PromptTooLong { .. } => EngineError::TooLong,
        _ => EngineError::Failed,
    }
}
