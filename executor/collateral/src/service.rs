//! A server of collateral, and what is kept of its answers.

use std::path::PathBuf;
use std::sync::Arc;

use dcap_qvl::QuoteCollateralV3;
use rustls::ClientConfig;

use crate::address::Address;
use crate::cache::{Cache, Kept};
use crate::document::{Document, DocumentError, Kind, Root};
use crate::error::CollateralError;
use crate::http::{HttpError, Limits, get};
use crate::platform::Platform;
use crate::tls;

/// What the operator says of the server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it answers.
    pub address: Address,
    /// Authorities (PEM) that an https server proves itself by, in the place of the system's.
    pub authority_file: Option<PathBuf>,
    /// Where documents are kept; nowhere without.
    pub cache: Option<PathBuf>,
    /// What a server gave less than this ago is not asked for again.
    pub fresh_s: u64,
    /// Of each request.
    pub limits: Limits,
}

impl Settings {
    /// Of a server, with the usual limits, the system's authorities and no cache.
    #[must_use]
    pub fn of(address: Address) -> Self {
        Self { address, authority_file: None, cache: None, fresh_s: FRESH_S, limits: Limits::default() }
    }
}

/// A server that speaks Intel's PCS API v4, Intel's own or a caching one (PCCS).
pub struct Pccs {
    address: Address,
    tls: Arc<ClientConfig>,
    root: Root,
    /// Where the root says that its list is, for servers that have none.
    root_list: Option<Address>,
    cache: Option<Cache>,
    fresh_s: u64,
    limits: Limits,
}

impl Pccs {
    /// A server whose answers count if they lead to the root of this certificate (DER).
    ///
    /// # Errors
    /// [`CollateralError::Root`]; for https, [`CollateralError::AuthorityFile`] and [`CollateralError::NoAuthorities`].
    pub fn new(settings: Settings, root_der: &[u8]) -> Result<Self, CollateralError> {
        let root =
            Root::of_der(root_der).map_err(|error| CollateralError::Root { reason: error.to_string() })?;
        let Settings { address, authority_file, cache, fresh_s, limits } = settings;
        Ok(Self {
            tls: tls::config(authority_file.as_deref(), address.is_https())?,
            root_list: list_address(root_der),
            cache: cache.as_deref().map(Cache::at),
            address,
            root,
            fresh_s,
            limits,
        })
    }

    /// Where it answers: scheme, host and port.
    #[must_use]
    pub fn server(&self) -> String {
        self.address.server()
    }

    /// All that the vendor signed about a platform, in force at `now_s` (Unix time), without a PCK certificate chain. What
    /// the server does not give comes from the cache, as long as it is in force.
    ///
    /// # Errors
    /// [`CollateralError`]: what the server did, where the cache does not help.
    pub async fn collateral(
        &self,
        platform: &Platform,
        now_s: u64,
    ) -> Result<QuoteCollateralV3, CollateralError> {
        let mut collateral = QuoteCollateralV3 {
            pck_crl_issuer_chain: String::new(),
            root_ca_crl: Vec::new(),
            pck_crl: Vec::new(),
            tcb_info_issuer_chain: String::new(),
            tcb_info: String::new(),
            tcb_info_signature: Vec::new(),
            qe_identity_issuer_chain: String::new(),
            qe_identity: String::new(),
            qe_identity_signature: Vec::new(),
            pck_certificate_chain: None,
        };
        for kind in Kind::ALL {
            self.document(kind, platform, now_s).await?.put(kind, &mut collateral);
        }
        Ok(collateral)
    }

    /// One document, from the server or the cache.
    ///
    /// # Errors
    /// [`CollateralError`].
    pub async fn document(
        &self,
        kind: Kind,
        platform: &Platform,
        now_s: u64,
    ) -> Result<Document, CollateralError> {
        let kept = self.kept(kind, platform, now_s);
        if let Some(kept) = &kept
            && now_s.checked_sub(kept.fetched_s).is_some_and(|age_s| age_s < self.fresh_s)
        {
            return Ok(kept.document.clone());
        }
        match (self.fetched(kind, platform, now_s).await, kept) {
            // A server that lags behind, or that somebody holds back.
            (Ok(document), Some(kept)) if document.is_older_than(&kept.document, kind) => {
                tracing::warn!(%kind, server = self.server(), "the server has an older one than is kept; using that");
                Ok(kept.document)
            }
            (Ok(document), _) => {
                self.keep(kind, platform, &Kept { document: document.clone(), fetched_s: now_s });
                Ok(document)
            }
            (Err(error), Some(kept)) => {
                tracing::warn!(%kind, %error, "using what is kept, which is in force");
                Ok(kept.document)
            }
            (Err(error), None) => Err(error),
        }
    }

    async fn fetched(
        &self,
        kind: Kind,
        platform: &Platform,
        now_s: u64,
    ) -> Result<Document, CollateralError> {
        let address = self.address.of(kind, platform);
        match (self.fetched_from(&address, &self.tls, kind, platform, now_s).await, &self.root_list) {
            // Intel's service has the root's list elsewhere.
            (Err(CollateralError::Http { cause: HttpError::Status { .. }, .. }), Some(elsewhere))
                if kind == Kind::RootCrl =>
            {
                let tls = tls::config(None, elsewhere.is_https())?;
                self.fetched_from(elsewhere, &tls, kind, platform, now_s).await
            }
            (result, _) => result,
        }
    }

    async fn fetched_from(
        &self,
        address: &Address,
        tls: &Arc<ClientConfig>,
        kind: Kind,
        platform: &Platform,
        now_s: u64,
    ) -> Result<Document, CollateralError> {
        let answer = get(address, tls, &self.limits).await.map_err(|cause| CollateralError::Http {
            server: address.server(),
            kind,
            cause,
        })?;
        let wrong = |cause| CollateralError::Document { server: address.server(), kind, cause };
        let document = Document::of_answer(kind, &answer.headers, &answer.body).map_err(wrong)?;
        document.check(kind, &self.root, platform, now_s).map_err(wrong)?;
        Ok(document)
    }

    /// What the cache has that is sound and in force.
    fn kept(&self, kind: Kind, platform: &Platform, now_s: u64) -> Option<Kept> {
        let kept = match self.cache.as_ref()?.read(kind, platform) {
            Ok(kept) => kept?,
            Err(error) => {
                tracing::warn!(%kind, %error, "what is kept cannot be read");
                return None;
            }
        };
        match kept.document.check(kind, &self.root, platform, now_s) {
            Ok(_) => Some(kept),
            Err(DocumentError::Ended { .. }) => None,
            Err(error) => {
                tracing::warn!(%kind, %error, "what is kept is of no use");
                None
            }
        }
    }

    fn keep(&self, kind: Kind, platform: &Platform, kept: &Kept) {
        if let Some(cache) = &self.cache
            && let Err(error) = cache.write(kind, platform, kept)
        {
            tracing::warn!(%kind, %error, "the document could not be kept; it will be fetched again");
        }
    }
}

impl std::fmt::Debug for Pccs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pccs({})", self.server())
    }
}

/// An hour: lists of revocations are to be recent, and a worker that tries to register again and again is no burden.
const FRESH_S: u64 = 3_600;

/// The address in the first CRL distribution point of a certificate (RFC 5280, 4.2.1.13), in the form that Intel's have.
fn list_address(der: &[u8]) -> Option<Address> {
    const DISTRIBUTION_POINTS: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x1f];
    let at = der.windows(DISTRIBUTION_POINTS.len()).position(|window| window == DISTRIBUTION_POINTS)?;
    match der.get(at + DISTRIBUTION_POINTS.len()..)? {
        [0x04, _, 0x30, _, 0x30, _, 0xa0, _, 0xa0, _, 0x86, length, address @ ..] => {
            let address = str::from_utf8(address.get(..usize::from(*length))?).ok()?;
            Address::exact(address).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_root_says_where_its_list_is() {
        let intels = list_address(include_bytes!("../../../verifier/fixtures/intel_root.der")).unwrap();
        assert!(intels.is_https() && intels.path().ends_with(".der"), "{intels:?}");
        let simulated = tdx_simulator::SimulatedPlatform::new(&[1; 32], 1_800_000_000).unwrap();
        let expected = Address::exact("https://simulated-not-intel.invalid/crl/root.crl").unwrap();
        assert_eq!(list_address(simulated.root_der()), Some(expected));
        assert_eq!(list_address(&[]), None);
        let root = simulated.root_der();
        for cut in 0..root.len() {
            // No panic, whatever is missing.
            let _ = list_address(&root[..cut]);
        }
    }
}
