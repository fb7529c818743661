//! Finds a model's files, reads them whole, and hashes what it read: what is loaded is what was hashed.
//!
//! Not a memory map: the host under a confidential machine owns the disk and could change a page between its hash and
//! its use. Weights are used where they were read, so a model takes its own size once.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::LoadError;

/// One name for every copy: a model's id is of the contents, not of what the user called them.
const GGUF_NAME: &str = "model.gguf";
/// How a sentence-transformers model makes one vector of many, the one file of a folder below.
pub(crate) const POOLING_FILE: &str = "1_Pooling/config.json";
/// The weights of a CTranslate2 directory.
pub(crate) const CTRANSLATE2_FILE: &str = "model.bin";

/// What a model's files say it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// Text generation: [`crate::Engine`].
    Text,
    /// Sentence embeddings: [`crate::Embedder`].
    Embeddings,
    /// Speech to text: [`crate::Transcriber`].
    Speech,
}

/// A model's files in memory.
#[derive(Clone)]
pub struct ModelFiles {
    path: PathBuf,
    files: Vec<ModelFile>,
}

/// One file: what the model id is made of, and the bytes.
#[derive(Clone)]
pub struct ModelFile {
    /// Its name inside the model, UTF-8.
    pub name: String,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// SHA-256 of its contents.
    pub sha256: [u8; 32],
    pub(crate) bytes: Arc<Vec<u8>>,
}

impl ModelFiles {
    /// Reads a GGUF file, or of a Hugging Face directory the files that make its model id.
    ///
    /// # Errors
    /// [`LoadError::NotAModel`], [`LoadError::Read`].
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        let kind = fs::metadata(path).map_err(|source| read_error(path, source))?;
        let mut files = Vec::new();
        if kind.is_file() {
            if path.extension().is_none_or(|extension| !extension.eq_ignore_ascii_case("gguf")) {
                return Err(LoadError::NotAModel(path.to_owned()));
            }
            files.push(read(path, GGUF_NAME.to_owned())?);
        } else {
            for entry in fs::read_dir(path).map_err(|source| read_error(path, source))? {
                let entry = entry.map_err(|source| read_error(path, source))?;
                if let Ok(name) = entry.file_name().into_string()
                    && belongs(&name)
                {
                    files.push(read(&entry.path(), name)?);
                }
            }
            if path.join(POOLING_FILE).exists() {
                files.push(read(&path.join(POOLING_FILE), POOLING_FILE.to_owned())?);
            }
            files.sort_by(|a, b| a.name.cmp(&b.name));
            if !is_hugging_face(&files) {
                return Err(LoadError::NotAModel(path.to_owned()));
            }
        }
        Ok(Self { path: path.to_owned(), files })
    }

    /// Files that are in memory already: `model.gguf` alone, or the names of a Hugging Face directory. Errors call them
    /// `label`.
    ///
    /// # Errors
    /// [`LoadError::NotAModel`].
    pub fn in_memory(label: &str, files: Vec<(String, Vec<u8>)>) -> Result<Self, LoadError> {
        let path = PathBuf::from(label);
        let is_gguf = matches!(&*files, [(name, _)] if name == GGUF_NAME);
        let mut files: Vec<ModelFile> =
            files.into_iter().filter(|(name, _)| is_gguf || belongs(name)).map(hashed).collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let twice = files.windows(2).any(|pair| pair[0].name == pair[1].name);
        if twice || !(is_gguf || is_hugging_face(&files)) {
            return Err(LoadError::NotAModel(path));
        }
        Ok(Self { path, files })
    }

    /// What the files say they are for. Whether they are any good, loading finds out.
    pub fn kind(&self) -> ModelKind {
        if self.find(CTRANSLATE2_FILE).is_some() {
            return ModelKind::Speech;
        }
        let config = self.find("config.json").map(|file| serde_json::from_slice::<Value>(&file.bytes));
        match config {
            Some(Ok(config)) if config["model_type"] == "bert" => ModelKind::Embeddings,
            Some(Ok(config)) if config["model_type"] == "whisper" => ModelKind::Speech,
            _ => ModelKind::Text,
        }
    }

    /// The files, sorted by name.
    pub fn files(&self) -> &[ModelFile] {
        &self.files
    }

    /// Where they were found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn find(&self, name: &str) -> Option<&ModelFile> {
        self.files.iter().find(|file| file.name == name)
    }

    pub(crate) fn gguf(&self) -> Option<&ModelFile> {
        self.find(GGUF_NAME)
    }

    pub(crate) fn corrupt(&self, file: &str, detail: impl ToString) -> LoadError {
        let path = if self.gguf().is_some() { self.path.clone() } else { self.path.join(file) };
        LoadError::Corrupt { path, detail: detail.to_string() }
    }
}

fn belongs(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "chat_template.jinja",
        "modules.json",
        "sentence_bert_config.json",
        POOLING_FILE,
        CTRANSLATE2_FILE,
    ];
    NAMES.contains(&name) || name.ends_with(".safetensors")
}

fn read(path: &Path, name: String) -> Result<ModelFile, LoadError> {
    // Through a link too, only a file has an end.
    let kind = fs::metadata(path).map_err(|source| read_error(path, source))?;
    if !kind.is_file() {
        return Err(read_error(path, std::io::Error::other("it is not a regular file")));
    }
    let bytes = fs::read(path).map_err(|source| read_error(path, source))?;
    Ok(hashed((name, bytes)))
}

fn hashed((name, bytes): (String, Vec<u8>)) -> ModelFile {
    let sha256 = Sha256::digest(&bytes).into();
    ModelFile { name, size_bytes: bytes.len() as u64, sha256, bytes: Arc::new(bytes) }
}

fn is_hugging_face(files: &[ModelFile]) -> bool {
    let has = |wanted: fn(&str) -> bool| files.iter().any(|file| wanted(&file.name));
    has(|name| name == "config.json")
        && has(|name| name.ends_with(".safetensors") || name == CTRANSLATE2_FILE)
}

fn read_error(path: &Path, source: std::io::Error) -> LoadError {
    LoadError::Read { path: path.to_owned(), source }
}
