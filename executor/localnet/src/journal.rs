//! What a chain was fed, on disk: the external messages it took and the blocks it was told to make. A chain fed the
//! same again is the same chain.
//!
//! The file is a header (magic, a fingerprint of the options) and records: kind (1 byte), length (4, big-endian),
//! payload, and the first 4 bytes of the SHA-256 of all that. A record cut short by the end of the process is dropped.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use tycho_types::boc::Boc;

use crate::chain::Localnet;
use crate::error::LocalnetError;
use crate::options::LocalnetOptions;
use crate::pool::ExternalMessage;

/// An open journal, at its end.
pub(crate) struct Journal {
    file: File,
}

impl Journal {
    /// Opens or creates the journal at `path`, and feeds `chain`, which must be new, what is in it.
    pub(crate) fn open(path: &Path, chain: &mut Localnet) -> Result<Self, LocalnetError> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let header = header(chain.options());
        if bytes.is_empty() {
            file.write_all(&header).map_err(io)?;
            return Ok(Self { file });
        }
        let Some(mut rest) = bytes.strip_prefix(header.as_slice()) else {
            return Err(LocalnetError::Options(format!(
                "{} is no journal of a chain with these options",
                path.display()
            )));
        };
        while let Some((record, after)) = split_record(rest) {
            record.feed(chain)?;
            rest = after;
        }
        let whole = (bytes.len() - rest.len()) as u64;
        if !rest.is_empty() {
            tracing::warn!(bytes = rest.len(), "the journal's last record was cut short and is dropped");
            file.set_len(whole).map_err(io)?;
        }
        file.seek(SeekFrom::Start(whole)).map_err(io)?;
        Ok(Self { file })
    }

    pub(crate) fn external(&mut self, message: &ExternalMessage) -> Result<(), LocalnetError> {
        self.append(EXTERNAL, &Boc::encode(&message.cell))
    }

    pub(crate) fn block(&mut self, utime_s: u32) -> Result<(), LocalnetError> {
        self.append(BLOCK, &utime_s.to_be_bytes())
    }

    fn append(&mut self, kind: u8, payload: &[u8]) -> Result<(), LocalnetError> {
        let mut record = vec![kind];
        record.extend((payload.len() as u32).to_be_bytes());
        record.extend(payload);
        let check = checksum(&record);
        record.extend(check);
        self.file.write_all(&record).map_err(io)
    }
}

const MAGIC: &[u8; 8] = b"TONLOCL1";
const EXTERNAL: u8 = 1;
const BLOCK: u8 = 2;
const RECORD_HEADER_BYTES: usize = 5;
const CHECKSUM_BYTES: usize = 4;

struct Record<'a> {
    kind: u8,
    payload: &'a [u8],
}

impl Record<'_> {
    fn feed(&self, chain: &mut Localnet) -> Result<(), LocalnetError> {
        match self.kind {
            EXTERNAL => chain.restore(ExternalMessage::from_boc(self.payload)?),
            _ => {
                let utime = self.payload.try_into().map_err(|_| {
                    LocalnetError::Options("the journal has a record of another version".into())
                })?;
                chain.produce_block(u32::from_be_bytes(utime)).map(|_| ())
            }
        }
    }
}

fn split_record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (head, rest) = bytes.split_at_checked(RECORD_HEADER_BYTES)?;
    let (kind, length) = head.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
    let (payload, rest) = rest.split_at_checked(length)?;
    let (check, rest) = rest.split_at_checked(CHECKSUM_BYTES)?;
    let record = bytes.get(..RECORD_HEADER_BYTES + length)?;
    (check == checksum(record) && matches!(*kind, EXTERNAL | BLOCK))
        .then_some((Record { kind: *kind, payload }, rest))
}

fn checksum(record: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest: [u8; 32] = Sha256::digest(record).into();
    [digest[0], digest[1], digest[2], digest[3]]
}

/// Everything of the options that the blocks depend on.
fn header(options: &LocalnetOptions) -> Vec<u8> {
    let mut hasher = Sha256::new();
    hasher.update(options.seed);
    hasher.update(options.global_id.to_be_bytes());
    hasher.update(options.genesis_utime_s.to_be_bytes());
    hasher.update(options.supply_nanoton.to_be_bytes());
    hasher.update((options.max_block_transactions as u64).to_be_bytes());
    hasher.update((options.max_pool as u64).to_be_bytes());
    let mut header = MAGIC.to_vec();
    header.extend(hasher.finalize());
    header
}

fn io(source: std::io::Error) -> LocalnetError {
    LocalnetError::Io { what: "journal", source }
}
