//! Documents on disk. A file is believed for what is in it, never for being there: it is checked like an answer.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::document::{Document, Kind};
use crate::platform::Platform;

/// A folder of documents, one file each.
#[derive(Debug, Clone)]
pub(crate) struct Cache(PathBuf);

/// A document and when a server last gave it.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) document: Document,
    /// Unix time.
    pub(crate) fetched_s: u64,
}

impl Cache {
    pub(crate) fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// `None` where there is none that can be read.
    pub(crate) fn read(&self, kind: Kind, platform: &Platform) -> io::Result<Option<Kept>> {
        let file = match File::open(self.file(kind, platform)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut text)?;
        let entry: Entry = serde_json::from_slice(&text)?;
        let Entry { fetched_s, issuer_chain, body, signature } = entry;
        Ok(Some(Kept { document: Document { issuer_chain, body, signature }, fetched_s }))
    }

    /// Whoever reads meanwhile, or after a crash, finds the whole file or the one before.
    pub(crate) fn write(&self, kind: Kind, platform: &Platform, kept: &Kept) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        let Document { issuer_chain, body, signature } = kept.document.clone();
        let text = serde_json::to_vec(&Entry { fetched_s: kept.fetched_s, issuer_chain, body, signature })?;
        let place = self.file(kind, platform);
        let beside = place.with_extension(format!("new-{}", std::process::id()));
        let written = File::create(&beside)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&beside, &place));
        if written.is_err() {
            // The error that counts is the first.
            let _ = fs::remove_file(&beside);
        }
        written?;
        File::open(&self.0)?.sync_all()
    }

    fn file(&self, kind: Kind, platform: &Platform) -> PathBuf {
        self.0.join(match kind {
            Kind::PckCrl => format!("pck-crl-{}.json", platform.ca),
            Kind::RootCrl => "root-crl.json".to_owned(),
            Kind::TcbInfo => format!("tcb-info-{}.json", hex::encode_upper(platform.fmspc.0)),
            Kind::QeIdentity => "qe-identity.json".to_owned(),
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    fetched_s: u64,
    issuer_chain: String,
    #[serde(with = "hex::serde")]
    body: Vec<u8>,
    #[serde(with = "hex::serde")]
    signature: Vec<u8>,
}

/// Bounds on answers keep what is written far below.
const MAX_FILE_BYTES: u64 = 8 << 20;
