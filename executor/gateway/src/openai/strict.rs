//! Parsing that refuses what it does not know.

use serde::de::DeserializeOwned;

use super::error::{ApiError, ErrorKind};

/// Deepest nesting of a request's JSON; `serde_json` itself stops at 128.
const MAX_DEPTH: usize = 64;

/// Parses a body of the type, whose fields are all there is.
///
/// # Errors
/// [`ApiError`] with the parameter's name where the parser tells it. Never quotes a value of the body.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    if depth(body) > MAX_DEPTH {
        return Err(ApiError::invalid("body", "client: the JSON is nested too deep"));
    }
    serde_json::from_slice(body).map_err(|error| refusal(&error))
}

/// The parser's own words quote values ("invalid type: string \"…\""), which may be a prompt's. Only the parts that
/// name fields are told.
fn refusal(error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    let at = format!("line {}, column {}", error.line(), error.column());
    let (message, param, code) = if let Some(name) = quoted_after(&text, "unknown field `") {
        (format!("client: unrecognized request argument: {name}"), Some(name), "unknown_parameter")
    } else if let Some(name) = quoted_after(&text, "missing field `") {
        (format!("client: you must provide a {name} parameter"), Some(name), "missing_required_parameter")
    } else if error.is_data() {
        (format!("client: a parameter has a wrong type or value, at {at}"), None, "invalid_type")
    } else {
        (format!("client: the body is not JSON, at {at}"), None, "invalid_json")
    };
    ApiError { status: 400, message, kind: ErrorKind::InvalidRequestError, param, code: Some(code) }
}

fn quoted_after(text: &str, lead: &str) -> Option<String> {
    let rest = text.strip_prefix(lead)?;
    let name = &rest[..rest.find('`')?];
    let is_name = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    Some(if is_name { name.to_owned() } else { "unknown".to_owned() })
}

fn depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0usize, 0, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
