//! Requests and responses.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body as _, Frame as BodyFrame, Incoming};
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use session::message::{
    CloseRequest, FRAMES_TYPE, Frame, REQUESTS_PATH, SESSIONS_PATH, StartRequest, WORKER_PATH,
};
use session::{Reason, Refused, RequestId, SessionId};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::endpoint::{BODY_UNIT_BYTES, Endpoint, Found};
use crate::held::{First, line_of};

pub(crate) type Answered = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Answers one request on a connection that has proven `key`.
pub(crate) async fn handle(
    endpoint: &Endpoint,
    key: Option<[u8; 32]>,
    request: Request<Incoming>,
) -> Result<Answered, Infallible> {
    let has_body = !request.body().is_end_stream();
    let mut answered = route(endpoint, key, request).await.unwrap_or_else(|refused| refusal(&refused));
    // A body that was not read would be taken for the next request; and a stranger's connection is of no use.
    let is_stranger = !key.is_some_and(|key| endpoint.knows_key(&key));
    if is_stranger || (has_body && !answered.status().is_success()) {
        answered.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(answered)
}

async fn route(
    endpoint: &Endpoint,
    key: Option<[u8; 32]>,
    request: Request<Incoming>,
) -> Result<Answered, Refused> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let method = request.method().clone();
    if path == WORKER_PATH && method == Method::GET {
        return json(&endpoint.worker_report());
    }
    if path == REQUESTS_PATH && method == Method::POST {
        let start: StartRequest = read_json(endpoint, key, request).await?;
        return frames(endpoint.start(key, start)?, 0).await;
    }
    if let Some(id) = path.strip_prefix(REQUESTS_PATH).and_then(|rest| rest.strip_prefix('/')) {
        let id: RequestId = id.parse().map_err(|_| Reason::Malformed)?;
        let Query { session, from } = Query::parse(&query)?;
        match method {
            Method::GET => return frames(endpoint.find(key, &session, id)?, from).await,
            Method::DELETE => {
                endpoint.drop_request(key, &session, id)?;
                return Ok(empty(StatusCode::NO_CONTENT));
            }
            _ => {}
        }
    } else if let Some(rest) = path.strip_prefix(SESSIONS_PATH).and_then(|rest| rest.strip_prefix('/')) {
        match (rest.strip_suffix("/close"), method) {
            (Some(id), Method::POST) => {
                let session: SessionId = id.parse().map_err(|_| Reason::Malformed)?;
                let close: CloseRequest = read_json(endpoint, key, request).await?;
                return json(&endpoint.close(key, &session, &close.voucher).await?);
            }
            (None, Method::GET) => {
                let session: SessionId = rest.parse().map_err(|_| Reason::Malformed)?;
                return json(&endpoint.report(key, &session)?);
            }
            _ => {}
        }
    }
    Err(Reason::Malformed.into())
}

/// `session=…&from=…`, in any order; nothing else.
struct Query {
    session: SessionId,
    from: usize,
}

impl Query {
    fn parse(query: &str) -> Result<Self, Reason> {
        let (mut session, mut from) = (None, 0);
        for field in query.split('&') {
            match field.split_once('=') {
                // The colon and the sign of a session's name may come escaped.
                Some(("session", text)) => {
                    let text = text.replace("%3A", ":").replace("%3a", ":").replace("%40", "@");
                    session = Some(text.parse().map_err(|_| Reason::Malformed)?);
                }
                Some(("from", text)) => from = text.parse().map_err(|_| Reason::Malformed)?,
                _ => return Err(Reason::Malformed),
            }
        }
        Ok(Self { session: session.ok_or(Reason::Malformed)?, from })
    }
}

/// Reads a body, of a key that some session names alone: strangers' bodies are not read.
async fn read_json<T: DeserializeOwned>(
    endpoint: &Endpoint,
    key: Option<[u8; 32]>,
    request: Request<Incoming>,
) -> Result<T, Refused> {
    if !key.is_some_and(|key| endpoint.knows_key(&key)) {
        return Err(Reason::UnknownSession.into());
    }
    let config = endpoint.config();
    let length = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let length: usize = length.and_then(|length| length.parse().ok()).ok_or(Reason::Malformed)?;
    if length > config.max_body_bytes {
        return Err(Reason::TooLarge.into());
    }
    let units = u32::try_from(length / BODY_UNIT_BYTES + 1).map_err(|_| Reason::TooLarge)?;
    let room = Arc::clone(endpoint.bodies()).try_acquire_many_owned(units);
    let _room = room.map_err(|_| Reason::Busy)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(length));
    let mut body = request.into_body();
    let read = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            let Some(data) = frame.data_ref() else { continue };
            if bytes.len() + data.len() > length {
                return false;
            }
            bytes.extend_from_slice(data);
        }
        bytes.len() == length
    };
    match timeout(config.body_timeout, read).await {
        Ok(true) => {}
        Ok(false) => return Err(Reason::Malformed.into()),
        Err(_) => return Err(Reason::TooSlow.into()),
    }
    // What is wrong with it might quote it.
    serde_json::from_slice(&bytes).map_err(|_| Reason::Malformed.into())
}

/// The frames of an answer, from the one numbered `from` on; a refusal with its status where it is one.
async fn frames(answer: Found, from: usize) -> Result<Answered, Refused> {
    // A reader from the start: an answer that nobody reads is ended.
    let reader = answer.read(from);
    match answer.first().await {
        First::Refused(refused) => return Err(refused),
        First::Accepted => {}
    }
    let chunks = stream::unfold((reader, Vec::new().into_iter()), |(mut reader, mut ready)| async move {
        loop {
            if let Some(line) = ready.next() {
                return Some((Ok(BodyFrame::data(line)), (reader, ready)));
            }
            ready = reader.next().await?.into_iter();
        }
    });
    let body = StreamBody::new(chunks).boxed_unsync();
    Ok(with_type(Response::new(body), FRAMES_TYPE))
}

fn json(value: &impl Serialize) -> Result<Answered, Refused> {
    let text = serde_json::to_vec(value).map_err(|_| Reason::EngineFailed)?;
    Ok(with_type(Response::new(Full::new(text.into()).boxed_unsync()), "application/json"))
}

fn refusal(refused: &Refused) -> Answered {
    let line = line_of(&Frame::Refused(*refused));
    let mut response = with_type(Response::new(Full::new(line).boxed_unsync()), FRAMES_TYPE);
    *response.status_mut() = status_of(refused.reason);
    response
}

fn empty(status: StatusCode) -> Answered {
    let mut response = Response::new(Full::default().boxed_unsync());
    *response.status_mut() = status;
    response
}

fn with_type(mut response: Answered, content_type: &'static str) -> Answered {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn status_of(reason: Reason) -> StatusCode {
    match reason {
        Reason::UnknownSession | Reason::UnknownRequest => StatusCode::NOT_FOUND,
        Reason::WrongKey => StatusCode::FORBIDDEN,
        Reason::OtherSeller | Reason::TermsBelowOffer => StatusCode::FORBIDDEN,
        Reason::BeforeJournal | Reason::BehindReceipt | Reason::SessionEnded | Reason::SessionFull => {
            StatusCode::CONFLICT
        }
        Reason::BadVoucher | Reason::VoucherTooLow | Reason::DepositTooLow => StatusCode::PAYMENT_REQUIRED,
        Reason::TooManyOpen => StatusCode::TOO_MANY_REQUESTS,
        Reason::AnswerGone => StatusCode::GONE,
        Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::TooSlow => StatusCode::REQUEST_TIMEOUT,
        Reason::Busy | Reason::Draining => StatusCode::SERVICE_UNAVAILABLE,
        Reason::EngineFailed | Reason::JournalFailed => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}
