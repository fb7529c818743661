//! By whom an https server proves who it is: the system's authorities, or the operator's own.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::error::CollateralError;

/// For the authorities in `file` (PEM) alone, or for the system's. `needed`: whether there have to be any.
pub(crate) fn config(file: Option<&Path>, needed: bool) -> Result<Arc<ClientConfig>, CollateralError> {
    let roots = match file {
        Some(path) => named(path)?,
        None if needed => systems()?,
        None => RootCertStore::empty(),
    };
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| CollateralError::NoAuthorities { reason: error.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn named(path: &Path) -> Result<RootCertStore, CollateralError> {
    let failed = |reason: String| CollateralError::AuthorityFile { path: path.to_owned(), reason };
    let mut pem = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut pem))
        .map_err(|error| failed(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() { Err(failed("it has no certificate".into())) } else { Ok(roots) }
}

fn systems() -> Result<RootCertStore, CollateralError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some of what systems carry does not parse; what does is enough.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let reason = found.errors.first().map_or_else(|| "none is installed".into(), ToString::to_string);
        return Err(CollateralError::NoAuthorities { reason });
    }
    Ok(roots)
}

const MAX_FILE_BYTES: u64 = 1 << 20;
