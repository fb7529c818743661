//! The endpoints, once: for the router's tests, for metrics' labels and for the served OpenAPI document.

use serde_json::{Map, Value, json};

/// An endpoint.
pub(crate) struct Endpoint {
    pub(crate) path: &'static str,
    pub(crate) method: &'static str,
    summary: &'static str,
    /// Names of what a request may have, the required first; empty where it has no body.
    parameters: &'static [&'static str],
    required: usize,
    is_work: bool,
}

/// All of them.
pub(crate) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/v1/chat/completions",
        method: "post",
        summary: "The next turn of a conversation",
        parameters: &[
            "model",
            "messages",
            "max_tokens",
            "max_completion_tokens",
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
            "seed",
            "stop",
            "n",
            "logprobs",
            "top_logprobs",
            "response_format",
            "tools",
            "tool_choice",
            "parallel_tool_calls",
            "stream",
            "stream_options",
            "user",
            "safety_identifier",
            "prompt_cache_key",
        ],
        required: 2,
        is_work: true,
    },
    Endpoint {
        path: "/v1/completions",
        method: "post",
        summary: "The continuation of a text",
        parameters: &[
            "model",
            "prompt",
            "max_tokens",
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
            "seed",
            "stop",
            "n",
            "logprobs",
            "stream",
            "stream_options",
            "user",
        ],
        required: 2,
        is_work: true,
    },
    Endpoint {
        path: "/v1/responses",
        method: "post",
        summary: "A response of text and function calls; nothing is stored",
        parameters: &[
            "model",
            "input",
            "instructions",
            "max_output_tokens",
            "temperature",
            "top_p",
            "text",
            "tools",
            "tool_choice",
            "parallel_tool_calls",
            "stream",
            "user",
            "safety_identifier",
            "prompt_cache_key",
        ],
        required: 2,
        is_work: true,
    },
    Endpoint {
        path: "/v1/embeddings",
        method: "post",
        summary: "Texts to vectors",
        parameters: &["model", "input", "encoding_format", "dimensions", "user"],
        required: 2,
        is_work: true,
    },
    Endpoint {
        path: "/v1/audio/transcriptions",
        method: "post",
        summary: "Speech to text, of a WAV file",
        parameters: &["file", "model", "language", "response_format", "temperature"],
        required: 2,
        is_work: true,
    },
    Endpoint {
        path: "/v1/models",
        method: "get",
        summary: "Models on sale, with prices and workers",
        parameters: &[],
        required: 0,
        is_work: false,
    },
    Endpoint {
        path: "/v1/models/{model}",
        method: "get",
        summary: "One of them",
        parameters: &[],
        required: 0,
        is_work: false,
    },
    Endpoint {
        path: "/metrics",
        method: "get",
        summary: "Counters for Prometheus",
        parameters: &[],
        required: 0,
        is_work: false,
    },
    Endpoint {
        path: "/healthz",
        method: "get",
        summary: "The gateway runs",
        parameters: &[],
        required: 0,
        is_work: false,
    },
    Endpoint {
        path: "/openapi.json",
        method: "get",
        summary: "This document",
        parameters: &[],
        required: 0,
        is_work: false,
    },
];

/// The endpoint's path as it is listed: never what a stranger made up.
pub(crate) fn endpoint(path: &str) -> &'static str {
    let exact = ENDPOINTS.iter().find(|endpoint| endpoint.path == path);
    match exact {
        Some(endpoint) => endpoint.path,
        None if path.starts_with("/v1/models/") => "/v1/models/{model}",
        None => "other",
    }
}

/// Whether requests to it ask for work, which is limited.
pub(crate) fn is_work(endpoint: &str) -> bool {
    ENDPOINTS.iter().any(|known| known.path == endpoint && known.is_work)
}

/// OpenAPI 3.1.
pub(crate) fn document() -> Value {
    let mut paths = Map::new();
    for endpoint in ENDPOINTS {
        let mut operation = json!({
            "summary": endpoint.summary,
            "responses": {
                "200": {"description": "The answer"},
                "default": {"description": "An error", "content": {"application/json": {
                    "schema": {"$ref": "#/components/schemas/Error"}}}},
            },
        });
        if !endpoint.parameters.is_empty() {
            let properties: Map<String, Value> =
                endpoint.parameters.iter().map(|name| ((*name).to_owned(), json!({}))).collect();
            let media =
                if endpoint.parameters[0] == "file" { "multipart/form-data" } else { "application/json" };
            operation["requestBody"] = json!({"required": true, "content": {media: {"schema": {
                "type": "object", "properties": properties, "additionalProperties": false,
                "required": endpoint.parameters[..endpoint.required],
            }}}});
        }
        if endpoint.path.contains("{model}") {
            operation["parameters"] =
                json!([{"name": "model", "in": "path", "required": true, "schema": {"type": "string"}}]);
        }
        paths.insert(endpoint.path.into(), json!({endpoint.method: operation}));
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Chrysalis gateway", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": {"Error": {"type": "object", "properties": {"error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"}, "type": {"type": "string"},
                "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]},
            },
        }}}}},
    })
}
