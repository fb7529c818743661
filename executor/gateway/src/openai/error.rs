//! Errors in the form of the OpenAI API: `{"error": {"message", "type", "param", "code"}}`.

use serde::Serialize;

/// What went wrong, in words that carry nothing of a prompt or an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Of the HTTP answer.
    pub status: u16,
    /// Names the party at fault and what to do.
    pub message: String,
    /// Which family of errors, as clients switch on it.
    pub kind: ErrorKind,
    /// The parameter that is wrong.
    pub param: Option<String>,
    /// A word for programs.
    pub code: Option<&'static str>,
}

/// `type` of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The caller's request.
    InvalidRequestError,
    /// The key in `Authorization`.
    AuthenticationError,
    /// More than the budget or the limits allow.
    InsufficientQuota,
    /// Too much at once.
    RateLimitError,
    /// The gateway, a worker or the chain.
    ServerError,
}

impl ApiError {
    /// 400: a parameter that no request may have.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status: 400,
            message: message.into(),
            kind: ErrorKind::InvalidRequestError,
            param: Some(param.into()),
            code: Some("invalid_value"),
        }
    }

    /// 400: a parameter of the API that is not honoured here, so that it is not dropped silently.
    pub fn unsupported(param: impl Into<String>) -> Self {
        let param = param.into();
        Self {
            status: 400,
            message: format!("client: '{param}' with this value is not supported here; leave it out"),
            kind: ErrorKind::InvalidRequestError,
            param: Some(param),
            code: Some("unsupported_parameter"),
        }
    }

    /// 404: nobody sells this model.
    pub fn unknown_model(model: &str) -> Self {
        Self {
            status: 404,
            message: format!(
                "client: no worker sells a model '{}'; GET /v1/models lists those on sale",
                printable(model)
            ),
            kind: ErrorKind::InvalidRequestError,
            param: Some("model".into()),
            code: Some("model_not_found"),
        }
    }

    /// 429: the budget of the gateway, or of this request, does not cover it.
    pub fn over_budget(message: impl Into<String>) -> Self {
        Self {
            status: 429,
            message: message.into(),
            kind: ErrorKind::InsufficientQuota,
            param: None,
            code: Some("insufficient_quota"),
        }
    }

    /// 429: later it may go.
    pub fn busy(message: impl Into<String>) -> Self {
        Self {
            status: 429,
            message: message.into(),
            kind: ErrorKind::RateLimitError,
            param: None,
            code: Some("rate_limit_exceeded"),
        }
    }

    /// 502: no worker could serve it.
    pub fn upstream(message: impl Into<String>) -> Self {
        Self {
            status: 502,
            message: message.into(),
            kind: ErrorKind::ServerError,
            param: None,
            code: Some("worker_failed"),
        }
    }

    /// The body of the answer.
    pub fn body(&self) -> serde_json::Value {
        serde_json::json!({"error": {
            "message": self.message, "type": self.kind, "param": self.param, "code": self.code,
        }})
    }
}

/// At most 80 printable characters of what a caller sent, for an error that goes back to that caller.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}
