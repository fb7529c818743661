//! Files of weights → model id.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tycho_types::cell::HashBytes;
use tycho_types::models::StdAddr;

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// File name without a directory.
    pub name: String,
    pub size_bytes: u64,
    pub sha256: HashBytes,
}

/// The files cannot name a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("a model has at least one file; give the weights")]
    Empty,
    #[error("two files of the model are named {name:?}; rename one")]
    Duplicate { name: String },
    #[error("the file name of {bytes} bytes is empty or over 65535 bytes; rename it")]
    BadName { bytes: usize },
}

/// Merkle root over the files in the order of their names' UTF-8 bytes.
pub fn model_id(files: &[ModelFile]) -> Result<HashBytes, ManifestError> {
    let mut sorted: Vec<&ModelFile> = files.iter().collect();
    sorted.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    for pair in sorted.windows(2) {
        if pair[0].name == pair[1].name {
            return Err(ManifestError::Duplicate { name: pair[0].name.clone() });
        }
    }
    let mut level = sorted.into_iter().map(leaf).collect::<Result<Vec<_>, _>>()?;
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => node(left, right),
                odd => odd[0],
            })
            .collect();
    }
    level.pop().map(HashBytes).ok_or(ManifestError::Empty)
}

/// Id of a model that names its publisher, from the [`model_id`] of its files: whoever else registers it first is
/// replaced by that account.
pub fn published_id(files_root: &HashBytes, publisher: &StdAddr) -> HashBytes {
    let mut hasher = Sha256::new();
    hasher.update(b"chrysalis/publisher/v1");
    hasher.update(publisher.workchain.to_be_bytes());
    hasher.update(publisher.address.0);
    HashBytes(node(&files_root.0, &hasher.finalize().into()))
}

/// Hashes a file's contents; `on_bytes` hears of every piece read, for a progress bar.
pub fn hash_file(
    name: impl Into<String>,
    mut contents: impl Read,
    mut on_bytes: impl FnMut(u64),
) -> io::Result<ModelFile> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size_bytes = 0;
    loop {
        let count = match contents.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..count]);
        size_bytes += count as u64;
        on_bytes(count as u64);
    }
    Ok(ModelFile { name: name.into(), size_bytes, sha256: HashBytes(hasher.finalize().into()) })
}

fn leaf(file: &ModelFile) -> Result<[u8; 32], ManifestError> {
    let length = u16::try_from(file.name.len())
        .ok()
        .filter(|&length| length > 0)
        .ok_or(ManifestError::BadName { bytes: file.name.len() })?;
    let mut hasher = Sha256::new();
    hasher.update(b"chrysalis/file/v1");
    hasher.update(length.to_be_bytes());
    hasher.update(file.name.as_bytes());
    hasher.update(file.size_bytes.to_be_bytes());
    hasher.update(file.sha256.0);
    Ok(hasher.finalize().into())
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left);
    hasher.update(right);
    hasher.finalize().into()
}
