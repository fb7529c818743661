//! The worker's two private keys and where they are kept.
//!
//! The keys are made inside the process. Three ways to keep them, and what each is for:
//! - in memory alone: nothing of them survives the process. A worker that is started again attests new keys; receipts that
//!   were signed before are posted still, since the journal has them, but a claim that was not answered yet is lost, and its
//!   bond with it. This is for a TDX guest whose disk the host can read;
//! - in a file under a passphrase: Argon2id (RFC 9106, 64 MiB, 3 passes, 4 lanes) makes the key with which ChaCha20-Poly1305
//!   (RFC 8439) seals them;
//! - in a file as they are: for local chains and tests, where nothing of worth depends on them.
//!
//! A file is readable by its owner only (mode 0600), and belongs to its data directory, whose journal says what was signed:
//! a copy of it in another directory would let two processes answer one job.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
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
    /// It is encrypted and no passphrase was given.
    #[error("worker: the key file {path} is encrypted; give the file with its passphrase")]
    PassphraseMissing {
        /// The file.
        path: PathBuf,
    },
    /// It does not open with this passphrase.
    #[error(
        "worker: the key file {path} does not open: the passphrase is another, or the file is damaged; nothing was changed"
    )]
    PassphraseWrong {
        /// The file.
        path: PathBuf,
    },
    /// It is there unencrypted though a passphrase was given.
    #[error(
        "worker: the key file {path} is not encrypted, though a passphrase was given; move it away to make new keys, or \
         start without the passphrase"
    )]
    NotEncrypted {
        /// The file.
        path: PathBuf,
    },
    /// No passphrase.
    #[error("worker: the passphrase is empty or longer than {MAX_PASSPHRASE_BYTES} bytes; give another")]
    PassphraseUnusable,
    /// Not a key file.
    #[error("worker: {path} is not a key file of this program; restore it, or move it away to make new keys")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// Where keys are kept.
#[derive(Debug, Clone, Copy)]
pub enum KeyStore<'a> {
    /// In this process alone.
    Memory,
    /// In a file, as they are.
    Plain(&'a Path),
    /// In a file, sealed.
    Sealed(&'a Path, &'a Passphrase),
}

/// What seals a key file. Wiped on drop, never shown.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// These bytes.
    ///
    /// # Errors
    /// [`KeyError::PassphraseUnusable`] where there are none, or too many.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        if bytes.is_empty() || bytes.len() > MAX_PASSPHRASE_BYTES {
            return Err(KeyError::PassphraseUnusable);
        }
        Ok(Self(bytes))
    }

    /// The first line of a file.
    ///
    /// # Errors
    /// [`KeyError::Io`], [`KeyError::PassphraseUnusable`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_PASSPHRASE_BYTES + 3));
        let file = File::open(path).map_err(io)?;
        file.take(MAX_PASSPHRASE_BYTES as u64 + 2).read_to_end(&mut bytes).map_err(io)?;
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        bytes.truncate(end);
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        Self::new(bytes)
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

impl Keys {
    /// The keys of a store; fresh ones are made, and written, where there are none. Takes a third of a second with a
    /// passphrase.
    ///
    /// # Errors
    /// [`KeyError`]; an existing file is never overwritten.
    pub fn open(store: KeyStore<'_>, rng: &mut impl CryptoRng) -> Result<Self, KeyError> {
        let (path, passphrase) = match store {
            KeyStore::Memory => return Ok(Self::generate(rng)),
            KeyStore::Plain(path) => (path, None),
            KeyStore::Sealed(path, passphrase) => (path, Some(passphrase)),
        };
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        match File::open(path) {
            Ok(file) => Self::load(path, file, passphrase),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let keys = Self::generate(rng);
                let bytes = match passphrase {
                    None => keys.plain(),
                    Some(passphrase) => keys.sealed(passphrase, rng).map_err(io)?,
                };
                store_file(path, &bytes).map_err(io)?;
                Ok(keys)
            }
            Err(error) => Err(io(error)),
        }
    }

    /// Fresh keys.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self { receipt: generate_signing_key(rng), encryption: DecryptionKey::generate(rng) }
    }

    /// The keys in the unencrypted file at `path`; fresh ones are written where there is none.
    ///
    /// # Errors
    /// As [`Keys::open`].
    pub fn load_or_create(path: &Path, rng: &mut impl CryptoRng) -> Result<Self, KeyError> {
        Self::open(KeyStore::Plain(path), rng)
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

    fn load(path: &Path, file: File, passphrase: Option<&Passphrase>) -> Result<Self, KeyError> {
        let io = |source| KeyError::Io { path: path.to_owned(), source };
        let named = || path.to_owned();
        let metadata = file.metadata().map_err(io)?;
        let mode = mode_of(&metadata);
        if mode & 0o077 != 0 {
            return Err(KeyError::Permissions { path: named(), mode });
        }
        // One allocation, so that no copy of the keys is left behind by a buffer that grew.
        let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST_FILE_BYTES + 2));
        file.take(LARGEST_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
        if let Some(keys) = bytes.strip_prefix(PLAIN_MAGIC) {
            return match passphrase {
                None => Self::from_bytes(keys).ok_or(KeyError::Malformed { path: named() }),
                Some(_) => Err(KeyError::NotEncrypted { path: named() }),
            };
        }
        let rest = bytes.strip_prefix(SEALED_MAGIC).filter(|rest| rest.len() == SEALED_BYTES);
        let rest = rest.ok_or(KeyError::Malformed { path: named() })?;
        let passphrase = passphrase.ok_or(KeyError::PassphraseMissing { path: named() })?;
        let wrong = || KeyError::PassphraseWrong { path: named() };
        let (salt, rest) = rest.split_first_chunk::<SALT_BYTES>().ok_or_else(wrong)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(wrong)?;
        let cipher = cipher(passphrase, salt).map_err(io)?;
        let payload = Payload { msg: sealed, aad: SEALED_MAGIC };
        let keys = cipher.decrypt(&Nonce::from(*nonce), payload).map(Zeroizing::new).map_err(|_| wrong())?;
        Self::from_bytes(&keys).ok_or(KeyError::Malformed { path: named() })
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (receipt, encryption) = bytes.split_first_chunk::<32>()?;
        let encryption = DecryptionKey::from_bytes(encryption.try_into().ok()?).ok()?;
        Some(Self { receipt: SigningKey::from_bytes(receipt), encryption })
    }

    fn to_bytes(&self) -> Zeroizing<[u8; KEY_BYTES]> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        bytes[..32].copy_from_slice(Zeroizing::new(self.receipt.to_bytes()).as_slice());
        bytes[32..].copy_from_slice(self.encryption.to_bytes().as_slice());
        bytes
    }

    fn plain(&self) -> Zeroizing<Vec<u8>> {
        let mut file = Zeroizing::new(Vec::with_capacity(LARGEST_FILE_BYTES));
        file.extend_from_slice(PLAIN_MAGIC);
        file.extend_from_slice(self.to_bytes().as_slice());
        file
    }

    fn sealed(&self, passphrase: &Passphrase, rng: &mut impl CryptoRng) -> io::Result<Zeroizing<Vec<u8>>> {
        let (mut salt, mut nonce) = ([0; SALT_BYTES], [0; NONCE_BYTES]);
        rng.fill_bytes(&mut salt);
        rng.fill_bytes(&mut nonce);
        let bytes = self.to_bytes();
        let payload = Payload { msg: bytes.as_slice(), aad: SEALED_MAGIC };
        let sealed = cipher(passphrase, &salt)?
            .encrypt(&Nonce::from(nonce), payload)
            .map_err(|_| io::Error::other("the keys cannot be sealed"))?;
        let mut file = Zeroizing::new(Vec::with_capacity(LARGEST_FILE_BYTES));
        for part in [SEALED_MAGIC, &salt, &nonce, &sealed] {
            file.extend_from_slice(part);
        }
        Ok(file)
    }
}

fn cipher(passphrase: &Passphrase, salt: &[u8; SALT_BYTES]) -> io::Result<ChaCha20Poly1305> {
    let cannot = |_| io::Error::other("the passphrase's key cannot be derived");
    let params = Params::new(ARGON2_KIB, ARGON2_PASSES, ARGON2_LANES, Some(32)).map_err(cannot)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(&passphrase.0, salt, key.as_mut())
        .map_err(cannot)?;
    Ok(ChaCha20Poly1305::new(&Key::from(*key)))
}

/// Writes beside the place and renames, so that a crash leaves the whole file or none.
fn store_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private_file(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys(receipt {}, encryption {})", self.receipt_public(), self.encryption_public())
    }
}

const PLAIN_MAGIC: &[u8] = b"chrysalis-worker-keys/1\n";
/// Behind it: salt, nonce, the sealed keys with their tag.
const SEALED_MAGIC: &[u8] = b"chrysalis-worker-keys/2\n";
const KEY_BYTES: usize = 64;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const SEALED_BYTES: usize = SALT_BYTES + NONCE_BYTES + KEY_BYTES + TAG_BYTES;
const LARGEST_FILE_BYTES: usize = SEALED_MAGIC.len() + SEALED_BYTES;
const MAX_PASSPHRASE_BYTES: usize = 1_024;
const ARGON2_KIB: u32 = 64 * 1_024;
const ARGON2_PASSES: u32 = 3;
const ARGON2_LANES: u32 = 4;

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
    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.as_bytes().to_vec())).unwrap()
    }

    #[test]
    fn a_sealed_file_opens_with_its_passphrase_alone_and_shows_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let (right, wrong) = (passphrase("correct horse"), passphrase("correct horsf"));
        let made = Keys::open(KeyStore::Sealed(&path, &right), &mut rand::rng()).unwrap();
        let again = Keys::open(KeyStore::Sealed(&path, &right), &mut rand::rng()).unwrap();
        assert_eq!(made.receipt_public(), again.receipt_public());
        assert_eq!(made.encryption_public(), again.encryption_public());
        let file = fs::read(&path).unwrap();
        let secrets = [made.receipt().to_bytes(), *made.encryption().to_bytes()];
        for secret in &secrets {
            assert!(!file.windows(8).any(|window| secret.windows(8).any(|part| part == window)));
        }
        let opened = Keys::open(KeyStore::Sealed(&path, &wrong), &mut rand::rng());
        assert!(matches!(opened, Err(KeyError::PassphraseWrong { .. })));
        let opened = Keys::load_or_create(&path, &mut rand::rng());
        assert!(matches!(opened, Err(KeyError::PassphraseMissing { .. })));
        // One bit of any part.
        for at in [SEALED_MAGIC.len(), SEALED_MAGIC.len() + SALT_BYTES, file.len() - 1] {
            let mut changed = file.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            let opened = Keys::open(KeyStore::Sealed(&path, &right), &mut rand::rng());
            assert!(matches!(opened, Err(KeyError::PassphraseWrong { .. })));
        }
        fs::write(&path, &file[..file.len() - 1]).unwrap();
        let opened = Keys::open(KeyStore::Sealed(&path, &right), &mut rand::rng());
        assert!(matches!(opened, Err(KeyError::Malformed { .. })));
        assert_eq!(format!("{right:?}"), "Passphrase");
    }

    #[test]
    fn an_unencrypted_file_is_not_taken_for_a_sealed_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        Keys::load_or_create(&path, &mut rand::rng()).unwrap();
        let opened = Keys::open(KeyStore::Sealed(&path, &passphrase("a")), &mut rand::rng());
        assert!(matches!(opened, Err(KeyError::NotEncrypted { .. })));
    }

    #[test]
    fn keys_in_memory_are_new_each_time() {
        let first = Keys::open(KeyStore::Memory, &mut rand::rng()).unwrap();
        let second = Keys::open(KeyStore::Memory, &mut rand::rng()).unwrap();
        assert_ne!(first.receipt_public(), second.receipt_public());
        assert_ne!(first.encryption_public(), second.encryption_public());
    }

    #[test]
    fn a_passphrase_is_a_files_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passphrase");
        for (text, line) in [("abc", "abc"), ("abc\n", "abc"), ("abc\r\nmore\n", "abc"), (" a b \n", " a b ")]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(Passphrase::read(&path).unwrap().0.as_slice(), line.as_bytes());
        }
        for text in ["", "\n", &"x".repeat(MAX_PASSPHRASE_BYTES + 1)] {
            fs::write(&path, text).unwrap();
            assert!(matches!(Passphrase::read(&path), Err(KeyError::PassphraseUnusable)));
        }
        assert!(matches!(Passphrase::read(&dir.path().join("none")), Err(KeyError::Io { .. })));
    }
}
