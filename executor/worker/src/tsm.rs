//! Quotes of the TDX guest this program runs in, through configfs-tsm (Linux 6.7 and later,
//! `Documentation/ABI/testing/configfs-tsm`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::attestation::{AttestationError, AttestationSource};

/// The kernel's report interface.
#[derive(Debug)]
pub struct Tsm {
    root: PathBuf,
    next: AtomicU64,
}

impl Tsm {
    /// At the kernel's usual place.
    ///
    /// # Errors
    /// [`AttestationError::Unavailable`] where it is not.
    pub fn new() -> Result<Self, AttestationError> {
        Self::at(Path::new(ROOT))
    }

    /// At another mount point of configfs.
    ///
    /// # Errors
    /// [`AttestationError::Unavailable`] where there is no such directory.
    pub fn at(root: &Path) -> Result<Self, AttestationError> {
        if !root.is_dir() {
            return Err(AttestationError::Unavailable { detail: format!("{} is missing", root.display()) });
        }
        Ok(Self { root: root.to_owned(), next: AtomicU64::new(0) })
    }
}

impl AttestationSource for Tsm {
    fn quote(&self, report_data: &[u8; 64]) -> Result<Vec<u8>, AttestationError> {
        let failed = |error: io::Error| AttestationError::Failed { detail: error.to_string() };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = Entry(self.root.join(format!("chrysalis-{}-{number}", std::process::id())));
        fs::create_dir(&entry.0).map_err(failed)?;
        let provider = fs::read_to_string(entry.0.join("provider")).map_err(failed)?;
        if provider.trim() != PROVIDER {
            let detail = format!("the provider is {}, not {PROVIDER}", provider.trim());
            return Err(AttestationError::Unavailable { detail });
        }
        fs::write(entry.0.join("inblob"), report_data).map_err(failed)?;
        let before = entry.generation().map_err(failed)?;
        let quote = fs::read(entry.0.join("outblob")).map_err(failed)?;
        // Someone else who wrote to this entry meanwhile would have had another report made.
        if before != 1 || entry.generation().map_err(failed)? != before {
            return Err(AttestationError::Failed { detail: "the report entry was used by another".into() });
        }
        Ok(quote)
    }
}

const ROOT: &str = "/sys/kernel/config/tsm/report";
const PROVIDER: &str = "tdx_guest";

/// A directory of the interface, removed on drop.
struct Entry(PathBuf);

impl Entry {
    /// Writes so far.
    fn generation(&self) -> io::Result<u64> {
        fs::read_to_string(self.0.join("generation"))?.trim().parse().map_err(io::Error::other)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // A directory left behind costs an entry of the kernel's table until the guest ends.
        let _ = fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_machine_without_the_interface_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Tsm::at(&dir.path().join("report"));
        assert!(matches!(missing, Err(AttestationError::Unavailable { .. })));
        // A plain directory makes no entries' files: the kernel does.
        let plain = Tsm::at(dir.path()).unwrap();
        assert!(matches!(plain.quote(&[0; 64]), Err(AttestationError::Failed { .. })));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }
}
