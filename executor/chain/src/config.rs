//! The global config of a TON network, as its operators publish it: which liteservers to ask.

use std::net::{Ipv4Addr, SocketAddrV4};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::ChainError;
use crate::lite::Endpoint;

/// The part of `global.config.json` we use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalConfig {
    /// The liteservers, at least one.
    pub liteservers: Vec<Endpoint>,
}

impl GlobalConfig {
    /// Reads `global.config.json`.
    ///
    /// # Errors
    /// [`ChainError::Caller`] where it is not one, or names no liteserver.
    pub fn from_json(json: &str) -> Result<Self, ChainError> {
        let document: Document =
            serde_json::from_str(json).map_err(|error| caller(format!("not JSON of that shape: {error}")))?;
        let liteservers =
            document.liteservers.iter().map(LiteserverEntry::endpoint).collect::<Result<Vec<_>, _>>()?;
        if liteservers.is_empty() {
            return Err(caller("it names no liteserver".into()));
        }
        Ok(Self { liteservers })
    }

    /// Named liteservers: address `IP:PORT` and Ed25519 key in base64 of each.
    ///
    /// # Errors
    /// [`ChainError::Caller`] for a text that is not of that form, or none at all.
    pub fn from_liteservers<'a>(
        liteservers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ChainError> {
        let liteservers = liteservers
            .into_iter()
            .map(|(address, key)| {
                let address = address.parse().map_err(|_| caller(format!("{address} is not IPv4:PORT")))?;
                Ok(Endpoint { address, public_key: public_key(key)? })
            })
            .collect::<Result<Vec<_>, ChainError>>()?;
        if liteservers.is_empty() {
            return Err(caller("it names no liteserver".into()));
        }
        Ok(Self { liteservers })
    }

    /// A network of one liteserver.
    pub fn single(address: SocketAddrV4, public_key: [u8; 32]) -> Self {
        Self { liteservers: vec![Endpoint { address, public_key }] }
    }
}

#[derive(Deserialize)]
struct Document {
    liteservers: Vec<LiteserverEntry>,
}

#[derive(Deserialize)]
struct LiteserverEntry {
    /// The address as a 32-bit number; published configs write it signed.
    ip: i64,
    port: u16,
    id: LiteserverKey,
}

#[derive(Deserialize)]
struct LiteserverKey {
    key: String,
}

impl LiteserverEntry {
    fn endpoint(&self) -> Result<Endpoint, ChainError> {
        let ip = i32::try_from(self.ip)
            .map(i32::cast_unsigned)
            .or_else(|_| u32::try_from(self.ip))
            .map_err(|_| caller(format!("the ip {} is not an IPv4 address", self.ip)))?;
        let address = SocketAddrV4::new(Ipv4Addr::from(ip), self.port);
        Ok(Endpoint { address, public_key: public_key(&self.id.key)? })
    }
}

fn public_key(base64: &str) -> Result<[u8; 32], ChainError> {
    STANDARD
        .decode(base64)
        .ok()
        .and_then(|key| <[u8; 32]>::try_from(key).ok())
        .ok_or_else(|| caller("a liteserver's key is not 32 bytes of base64".into()))
}

fn caller(detail: String) -> ChainError {
    ChainError::Caller(format!("the global config cannot be used: {detail}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn signed_and_unsigned_addresses_are_read() {
        let config = GlobalConfig::from_json(
            r#"{"@type":"config.global","dht":{},"liteservers":[
                {"ip":84478511,"port":19949,"id":{"@type":"pub.ed25519","key":"n4VDnSCUuSpjnCyUk9e3QOOd6o0ItSWYbTnW3Wnn8wk="}},
                {"ip":-2018135749,"port":53312,"id":{"@type":"pub.ed25519","key":"aF91CuUHuuOv9rm2W5+O/4h38M3sRm40DtSdRxQhmtQ="}}],
                "validator":{}}"#,
        )
        .unwrap();
        assert_eq!(config.liteservers[0].address.to_string(), "5.9.10.47:19949");
        assert_eq!(config.liteservers[1].address.to_string(), "135.181.177.59:53312");
    }

    #[test]
    fn a_config_that_cannot_work_says_so() {
        for (json, words) in [
            ("{}", "liteservers"),
            (r#"{"liteservers":[]}"#, "no liteserver"),
            (r#"{"liteservers":[{"ip":1,"port":1,"id":{"key":"AAAA"}}]}"#, "32 bytes"),
            (r#"{"liteservers":[{"ip":99999999999,"port":1,"id":{"key":"AAAA"}}]}"#, "IPv4"),
        ] {
            let error = GlobalConfig::from_json(json).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
