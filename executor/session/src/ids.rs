//! Names of sessions and requests.

use std::fmt;
use std::str::FromStr;

use contracts::StdAddr;
use serde::{Deserialize, Serialize};

use crate::hexadecimal;

/// One session: a Job contract, and the posting that opened it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionId {
    /// The Job contract.
    pub job: StdAddr,
    /// Logical time of the transaction that opened it.
    pub posted_lt: u64,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.job, self.posted_lt)
    }
}

/// `0:HEX64@LT`, as it is displayed.
impl FromStr for SessionId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (job, posted_lt) = text.split_once('@').ok_or(IdError)?;
        let (workchain, account) = job.split_once(':').ok_or(IdError)?;
        let mut address = [0; 32];
        hex::decode_to_slice(account, &mut address).map_err(|_| IdError)?;
        let workchain = workchain.parse().map_err(|_| IdError)?;
        let posted_lt = posted_lt.parse().map_err(|_| IdError)?;
        Ok(Self { job: StdAddr::new(workchain, contracts::HashBytes(address)), posted_lt })
    }
}

/// One request of a session: 16 bytes that the gateway draws at random. The same name is the same request, and is charged
/// once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(#[serde(with = "hexadecimal")] pub [u8; 16]);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// 32 hexadecimal digits.
impl FromStr for RequestId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).map_err(|_| IdError)?;
        Ok(Self(id))
    }
}

/// Text names no session or request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("client: a session is named WORKCHAIN:HEX64@LT, a request by 32 hexadecimal digits")]
pub struct IdError;
