//! The HTTP API of toncenter, version 2: what `@ton/ton`'s `TonClient` speaks, as JSON-RPC (`/api/v2/jsonRPC`) and as
//! one path a method (`/api/v2/getMasterchainInfo`), and a few paths of our own under `/localnet/`:
//!
//! | path | does |
//! | --- | --- |
//! | `GET /localnet/status` | newest block, time, what waits, where every nanoton is |
//! | `POST /localnet/give` | `{"address": …, "amount_nanoton": …}`: the giver sends that much |
//! | `POST /localnet/advance` | makes a block; `{"skip_s": …}` moves a virtual clock first |

mod methods;
mod params;
mod render;
mod stack;

use std::collections::HashMap;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use crate::BANNER;
use crate::error::LocalnetError;
use crate::handle::LocalnetHandle;
use params::Params;

/// The API's routes.
pub fn router(handle: LocalnetHandle) -> Router {
    Router::new()
        .route("/api/v2/jsonRPC", post(json_rpc))
        .route("/api/v2/{method}", get(by_query).post(by_body))
        .route("/localnet/status", get(status))
        .route("/localnet/give", post(give))
        .route("/localnet/advance", post(advance))
        .fallback(nothing_there)
        .layer(middleware::from_fn(allow_browsers))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(handle)
}

/// Serves the API on `listener` for ever.
///
/// # Errors
/// [`LocalnetError::Io`].
pub async fn serve(handle: LocalnetHandle, listener: TcpListener) -> Result<(), LocalnetError> {
    axum::serve(listener, router(handle)).await.map_err(io)
}

/// Listens for [`serve`].
///
/// # Errors
/// [`LocalnetError::Io`].
pub async fn bind(address: SocketAddr) -> Result<TcpListener, LocalnetError> {
    TcpListener::bind(address).await.map_err(io)
}

const MAX_BODY_BYTES: usize = 1 << 20;

async fn json_rpc(State(handle): State<LocalnetHandle>, body: Bytes) -> Response {
    let Some(Value::Object(mut request)) = parse(&body) else {
        return refuse(&LocalnetError::BadRequest("the body is not a JSON object".into()), Value::Null);
    };
    let id = request.remove("id").unwrap_or(Value::Null);
    let Some(Value::String(method)) = request.remove("method") else {
        return refuse(&LocalnetError::BadRequest("the method is missing".into()), id);
    };
    let params = match request.remove("params") {
        Some(Value::Object(params)) => params,
        None | Some(Value::Null) => Map::new(),
        Some(_) => return refuse(&LocalnetError::BadRequest("params is not an object".into()), id),
    };
    respond(handle, method, params, id).await
}

async fn by_query(
    State(handle): State<LocalnetHandle>,
    Path(method): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let params = query.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
    respond(handle, method, params, Value::Null).await
}

async fn by_body(State(handle): State<LocalnetHandle>, Path(method): Path<String>, body: Bytes) -> Response {
    match parse(&body) {
        Some(Value::Object(params)) => respond(handle, method, params, Value::Null).await,
        _ => refuse(&LocalnetError::BadRequest("the body is not a JSON object".into()), Value::Null),
    }
}

async fn respond(handle: LocalnetHandle, method: String, params: Map<String, Value>, id: Value) -> Response {
    compute(move || methods::call(&handle, &method, &Params(params)), id).await
}

async fn status(State(handle): State<LocalnetHandle>) -> Response {
    let work = move || {
        let now_s = handle.now_s();
        handle.read(|chain| {
            let supply = chain.supply()?;
            Ok(json!({
                "what": BANNER,
                "global_id": chain.options().global_id,
                "seqno": chain.newest().id.seqno,
                "utime": chain.newest().utime_s,
                "now": now_s,
                "pool": chain.pool_len(),
                "giver": render::friendly(chain.giver()),
                "supply": {
                    "genesis_nanoton": chain.options().supply_nanoton.to_string(),
                    "accounts_nanoton": supply.accounts_nanoton.to_string(),
                    "messages_nanoton": supply.messages_nanoton.to_string(),
                    "fees_nanoton": supply.fees_nanoton.to_string(),
                    "burned_nanoton": supply.burned_nanoton.to_string(),
                    "stuck_nanoton": supply.stuck_nanoton.to_string(),
                },
            }))
        })
    };
    compute(work, Value::Null).await
}

async fn give(State(handle): State<LocalnetHandle>, body: Bytes) -> Response {
    let work = move || {
        let params = object(&body)?;
        let amount_nanoton = params.required_integer::<u128>("amount_nanoton")?;
        let hash = handle.give(&params.address("address")?, amount_nanoton)?;
        Ok(json!({ "hash": render::base64(hash.as_slice()) }))
    };
    compute(work, Value::Null).await
}

async fn advance(State(handle): State<LocalnetHandle>, body: Bytes) -> Response {
    let work = move || {
        let params = object(&body)?;
        handle.skip_time(params.integer::<u32>("skip_s")?.unwrap_or(0));
        let produced = handle.advance()?;
        Ok(json!({
            "masterchain": render::block_id(&produced.masterchain),
            "transactions": produced.transactions,
            "dropped": produced.dropped.len(),
        }))
    };
    compute(work, Value::Null).await
}

async fn nothing_there() -> Response {
    refuse(&LocalnetError::NotFound("no such path; the API is under /api/v2/".into()), Value::Null)
}

fn object(body: &[u8]) -> Result<Params, LocalnetError> {
    if body.is_empty() {
        return Ok(Params(Map::new()));
    }
    match parse(body) {
        Some(Value::Object(params)) => Ok(Params(params)),
        _ => Err(LocalnetError::BadRequest("the body is not a JSON object".into())),
    }
}

fn parse(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok()
}

async fn compute(
    work: impl FnOnce() -> Result<Value, LocalnetError> + Send + 'static,
    id: Value,
) -> Response {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(result)) => {
            axum::Json(json!({ "ok": true, "result": result, "id": id, "jsonrpc": "2.0" })).into_response()
        }
        Ok(Err(error)) => refuse(&error, id),
        Err(_) => refuse(&LocalnetError::Vm("a call ended without an answer".into()), id),
    }
}

fn refuse(error: &LocalnetError, id: Value) -> Response {
    let status = match error {
        LocalnetError::BadRequest(_) | LocalnetError::InvalidMessage(_) => StatusCode::UNPROCESSABLE_ENTITY,
        LocalnetError::NotFound(_) | LocalnetError::UnknownBlock { .. } => StatusCode::NOT_FOUND,
        LocalnetError::PoolFull { .. } => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let body = json!({
        "ok": false, "error": error.to_string(), "code": status.as_u16(), "id": id, "jsonrpc": "2.0",
    });
    (status, axum::Json(body)).into_response()
}

/// Web pages of any origin may use the API: nothing here is secret or has any worth.
async fn allow_browsers(request: axum::extract::Request, next: Next) -> Response {
    let asked = request.method() == Method::OPTIONS;
    let mut response = if asked { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*"));
    response
}

fn io(source: std::io::Error) -> LocalnetError {
    LocalnetError::Io { what: "HTTP server", source }
}
