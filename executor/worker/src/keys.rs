//! The worker's two private keys and the file that keeps them.
//!
//! The keys are made inside the process and never leave it but for this file, since a restarted worker has to sign for
//! the claims it has in flight. The file is readable by its owner only (mode 0600) and holds the keys **unencrypted**:
//! whoever reads the disk of the machine reads them. Inside a TDX guest the data directory has to lie on a disk that the
//! guest itself encrypts; on a local chain with simulated quotes nothing of worth depends on them.
//!
//! The file belongs to its data directory, whose journal says what was signed: a copy of it in another directory would
//! let two processes answer one job.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use contracts::receipt::{generate_signing_key, public_key};
use contracts::sealing::DecryptionKey;
use contracts::{HashBytes, SigningKey};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// The keys that an attestation binds to the worker. Both are wiped on drop.
pub struct Keys {
    receipt: SigningKey,
    encryption: DecryptionKey,
}

/// The key file cannot be used. Never carries a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The system refused.
    #[error(
        "worker: the key file {path} cannot be used: {source}; check the data directory and its permissions"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Other users may read it.
    #[error("worker: the key file {path} is open to other users (mode {mode:o}); restrict it to 0600")]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Not a key file.
    #[error("worker: {path} is not a key file of this program; restore it, or move it away to make new keys")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

impl Keys {
    /// Fresh keys.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self { receipt: generate_signing_key(rng), encryption: DecryptionKey::generate(rng) }
    }

    /// The keys in the file at `path`; fresh ones are written where there is none.
    ///
    /// # Errors
    /// [`KeyError`]; an existing file is never overwritten.
    pub fn load_or_create(path: &Path, rng: &mut impl CryptoRng) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        match File::open(path) {
            Ok(file) => Self::load(path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let keys = Self::generate(rng);
                keys.store(path).map_err(io)?;
                Ok(keys)
            }
            Err(error) => Err(io(error)),
        }
    }

    /// Signs claims, receipts and rejections.
    pub fn receipt(&self) -> &SigningKey {
        &self.receipt
    }

    /// Opens inputs.
    pub fn encryption(&self) -> &DecryptionKey {
        &self.encryption
    }

    /// The Ed25519 public key.
    pub fn receipt_public(&self) -> HashBytes {
        public_key(&self.receipt)
    }

    /// The X25519 public key.
    pub fn encryption_public(&self) -> HashBytes {
        self.encryption.public()
    }

    fn load(path: &Path, file: File) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        let malformed = || KeyError::Malformed { path: path.to_owned() };
        let metadata = file.metadata().map_err(io)?;
        let mode = mode_of(&metadata);
        if mode & 0o077 != 0 {
            return Err(KeyError::Permissions { path: path.to_owned(), mode });
        }
        // One allocation, so that no copy of the keys is left behind by a buffer that grew.
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES + 1));
        file.take(FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
        let keys = bytes.strip_prefix(MAGIC).filter(|rest| rest.len() == 64).ok_or_else(malformed)?;
        let (receipt, encryption) = keys.split_first_chunk::<32>().ok_or_else(malformed)?;
        let encryption: &[u8; 32] = encryption.try_into().map_err(|_| malformed())?;
        Ok(Self {
            receipt: SigningKey::from_bytes(receipt),
            encryption: DecryptionKey::from_bytes(encryption).map_err(|_| malformed())?,
        })
    }

    /// Writes beside the place and renames, so that a crash leaves the whole file or none.
    fn store(&self, path: &Path) -> io::Result<()> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(Zeroizing::new(self.receipt.to_bytes()).as_slice());
        bytes.extend_from_slice(self.encryption.to_bytes().as_slice());
        let beside = path.with_extension("new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = private_file(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys(receipt {}, encryption {})", self.receipt_public(), self.encryption_public())
    }
}

const MAGIC: &[u8] = b"chrysalis-worker-keys/1\n";
const FILE_BYTES: usize = MAGIC.len() + 64;

#[cfg(unix)]
fn private_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

#[cfg(unix)]
fn mode_of(metadata: &fs::Metadata) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o777
}

#[cfg(not(unix))]
fn mode_of(_: &fs::Metadata) -> u32 {
    0o600
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_survive_the_process_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let made = Keys::load_or_create(&path, &mut rand::rng()).unwrap();
        let again = Keys::load_or_create(&path, &mut rand::rng()).unwrap();
        assert_eq!(made.receipt_public(), again.receipt_public());
        assert_eq!(made.encryption_public(), again.encryption_public());
        let secret = hex::encode(made.receipt().to_bytes());
        assert!(!format!("{made:?}").contains(&secret));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            let refused = Keys::load_or_create(&path, &mut rand::rng());
            assert!(matches!(refused, Err(KeyError::Permissions { .. })));
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        fs::write(&path, b"something else").unwrap();
        let refused = Keys::load_or_create(&path, &mut rand::rng());
        assert!(matches!(refused, Err(KeyError::Malformed { .. })));
    }
}
