//! Where a PCS answers, and what it is asked.

use std::str::FromStr;

use hyper::Uri;

use crate::document::Kind;
use crate::platform::Platform;

/// The base address of a server that speaks Intel's PCS API v4: `https://HOST[:PORT][/PATH]`, or `http`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    is_https: bool,
    /// Without brackets.
    host: String,
    port: u16,
    /// As the request's `Host` states it.
    authority: String,
    /// Without a slash at its end.
    path: String,
}

/// An address is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{address:?} is no address of a collateral server: {reason}; give https://HOST or http://HOST, without a query"
)]
pub struct AddressError {
    address: String,
    reason: &'static str,
}

/// What a configured address may end with, since operators copy it from the manual of their quote provider.
const SUFFIXES: [&str; 3] = ["/sgx/certification/v4", "/tdx/certification/v4", "/"];
const MAX_ADDRESS_BYTES: usize = 2_048;

impl Address {
    /// Reads a base address.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let mut base = Self::exact(text)?;
        if text.contains('?') {
            return Err(failed(text, "it has a query"));
        }
        while let Some(shorter) = SUFFIXES.iter().find_map(|suffix| base.path.strip_suffix(suffix)) {
            base.path = shorter.to_owned();
        }
        Ok(base)
    }

    /// Reads the address of one document; its query stays with its path.
    pub(crate) fn exact(text: &str) -> Result<Self, AddressError> {
        if text.len() > MAX_ADDRESS_BYTES {
            return Err(failed("", "it is too long"));
        }
        if text.contains('#') {
            return Err(failed(text, "it has a fragment"));
        }
        let uri: Uri = text.parse().map_err(|_| failed(text, "it cannot be read"))?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(failed(text, "it begins with neither https:// nor http://")),
        };
        let authority = uri.authority().ok_or_else(|| failed(text, "it names no host"))?;
        if authority.as_str().contains('@') {
            // Not repeated: it may be a password.
            return Err(failed("", "it names a user"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(failed(text, "it names no host"));
        }
        let port = match authority.port_u16() {
            Some(port) => port,
            None if authority.as_str() == authority.host() => {
                if is_https {
                    443
                } else {
                    80
                }
            }
            None => return Err(failed(text, "its port is none")),
        };
        Ok(Self {
            is_https,
            host,
            port,
            authority: authority.as_str().to_owned(),
            path: uri.path_and_query().map(|path| path.as_str().to_owned()).unwrap_or_default(),
        })
    }

    /// Scheme, host and port, for messages.
    #[must_use]
    pub fn server(&self) -> String {
        let scheme = if self.is_https { "https" } else { "http" };
        format!("{scheme}://{}", self.authority)
    }

    /// Whether the server has to prove who it is.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.is_https
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    pub(crate) fn path(&self) -> &str {
        if self.path.is_empty() { "/" } else { &self.path }
    }

    /// Where the server has a document (Intel, *PCS API v4*; *PCCS design guide* for the root's list).
    pub(crate) fn of(&self, kind: Kind, platform: &Platform) -> Self {
        let path = match kind {
            Kind::PckCrl => format!("sgx/certification/v4/pckcrl?ca={}&encoding=der", platform.ca),
            Kind::RootCrl => "sgx/certification/v4/rootcacrl".to_owned(),
            Kind::TcbInfo => {
                format!("tdx/certification/v4/tcb?fmspc={}", hex::encode_upper(platform.fmspc.0))
            }
            Kind::QeIdentity => "tdx/certification/v4/qe/identity".to_owned(),
        };
        Self { path: format!("{}/{path}", self.path), ..self.clone() }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

fn failed(address: &str, reason: &'static str) -> AddressError {
    AddressError { address: address.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use contracts::attestor::Bytes;

    use super::*;
    use crate::platform::Ca;

    #[test]
    fn documents_are_where_the_api_puts_them() {
        let platform = Platform { fmspc: Bytes([0, 0x90, 0x6e, 0xd5, 0, 0]), ca: Ca::Platform };
        for base in [
            "https://pcs.example",
            "https://pcs.example/",
            "https://pcs.example/sgx/certification/v4/",
            "https://pcs.example/tdx/certification/v4",
        ] {
            let base = Address::parse(base).unwrap();
            assert_eq!((base.host(), base.port(), base.authority()), ("pcs.example", 443, "pcs.example"));
            let paths = [Kind::PckCrl, Kind::RootCrl, Kind::TcbInfo, Kind::QeIdentity]
                .map(|kind| base.of(kind, &platform).path);
            assert_eq!(
                paths,
                [
                    "/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
                    "/sgx/certification/v4/rootcacrl",
                    "/tdx/certification/v4/tcb?fmspc=00906ED50000",
                    "/tdx/certification/v4/qe/identity",
                ]
            );
        }
        let local = Address::parse("http://[::1]:8081/pccs/sgx/certification/v4").unwrap();
        assert_eq!((local.host(), local.port(), local.authority()), ("::1", 8081, "[::1]:8081"));
        assert_eq!(local.of(Kind::RootCrl, &platform).path, "/pccs/sgx/certification/v4/rootcacrl");
        assert_eq!(local.server(), "http://[::1]:8081");
    }

    #[test]
    fn other_addresses_are_refused() {
        for bad in [
            "",
            "pcs.example",
            "ftp://pcs.example",
            "https://",
            "https:///path",
            "https://pcs.example/?a=b",
            "https://pcs.example/#a",
            "https://pcs.example:99999",
            "https://pcs .example",
            "file:///etc/passwd",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
        let secret = Address::parse("https://user:word-4410@pcs.example").unwrap_err();
        assert!(!secret.to_string().contains("word-4410"), "{secret}");
    }
}
