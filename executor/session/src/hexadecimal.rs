//! Fixed bytes as hexadecimal text in JSON.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn serialize<const N: usize, S: Serializer>(
    bytes: &[u8; N],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(bytes))
}

pub(crate) fn deserialize<'de, const N: usize, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<[u8; N], D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    let mut bytes = [0; N];
    hex::decode_to_slice(text.as_ref(), &mut bytes)
        .map_err(|_| D::Error::custom(format_args!("not {N} bytes in hexadecimal")))?;
    Ok(bytes)
}
