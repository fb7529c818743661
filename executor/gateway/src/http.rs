//! The gateway's HTTP side: who may ask, and the API's endpoints over a [`Market`].
//!
//! It listens on this machine and spends its user's money, so a web page that the user happens to visit must not reach it:
//! a request with an `Origin` is refused unless that origin is allowed, and so is one whose `Host` is not this machine's
//! (DNS rebinding).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Multipart, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream;
use rand::RngExt as _;
use serde_json::{Value, json};
use session::message::FinishReason;
use session::work::Transcription;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

use crate::market::{Answer, AnswerEvent, Market, ModelOnSale, TextWork, TokenLogprob};
use crate::metrics::Metrics;
use crate::openai::responses::{self, ResponseStream};
use crate::openai::{
    ApiError, ChatChoice, ChatRequest, CompletionRequest, EmbeddingsRequest, Head, chat_completion,
    chat_usage, completion, completion_choice, paid_json,
};
use crate::{openapi, prompt};

/// Largest JSON body, bytes.
pub const MAX_JSON_BYTES: usize = 8 << 20;
/// Largest recording with its form, bytes.
pub const MAX_AUDIO_BYTES: usize = 64 << 20;

/// How the HTTP side behaves.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// What `Authorization: Bearer` has to show; `None`: nothing.
    pub api_key: Option<String>,
    /// Origins whose pages may ask, as browsers write them.
    pub allowed_origins: Vec<String>,
    /// Names in `Host` beside this machine's own.
    pub allowed_hosts: Vec<String>,
    /// The most tokens of an answer whose request sets no limit.
    pub default_max_tokens: u32,
    /// Requests at a time; more are told to come later.
    pub max_under_way: usize,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            api_key: None,
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            default_max_tokens: 1024,
            max_under_way: 256,
        }
    }
}

/// Serves until `stop` ends; requests under way are finished.
///
/// # Errors
/// [`std::io::Error`] of the listener.
pub async fn serve(
    listener: TcpListener,
    market: Arc<dyn Market>,
    settings: HttpSettings,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(market, settings)).with_graceful_shutdown(stop).await
}

/// The endpoints.
pub fn router(market: Arc<dyn Market>, settings: HttpSettings) -> Router {
    let under_way = Arc::new(Semaphore::new(settings.max_under_way));
    let gateway = Arc::new(Gateway { market, settings, metrics: Metrics::default(), under_way });
    let json = DefaultBodyLimit::max(MAX_JSON_BYTES);
    Router::new()
        .route("/v1/chat/completions", post(chat).layer(json))
        .route("/v1/completions", post(complete).layer(json))
        .route("/v1/responses", post(respond).layer(json))
        .route("/v1/embeddings", post(embed).layer(json))
        .route("/v1/audio/transcriptions", post(transcribe).layer(DefaultBodyLimit::max(MAX_AUDIO_BYTES)))
        .route("/v1/models", get(models))
        .route("/v1/models/{*model}", get(model))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/openapi.json", get(openapi_document))
        .fallback(no_such_endpoint)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(gateway.clone(), admit))
        .with_state(gateway)
}

struct Gateway {
    market: Arc<dyn Market>,
    settings: HttpSettings,
    metrics: Metrics,
    under_way: Arc<Semaphore>,
}

type Shared = State<Arc<Gateway>>;

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.body())).into_response()
    }
}

// ---- who may ask

async fn admit(State(gateway): Shared, request: Request, next: Next) -> Response {
    let endpoint = openapi::endpoint(request.uri().path());
    let response = match gateway.check(request.headers(), endpoint) {
        Err(error) => error.into_response(),
        Ok(()) if !openapi::is_work(endpoint) => next.run(request).await,
        Ok(()) => match gateway.under_way.clone().try_acquire_owned() {
            Err(_) => ApiError::busy(
                "gateway: as many requests are under way as its configuration allows; try again later",
            )
            .into_response(),
            Ok(permit) => {
                let response = next.run(request).await;
                // A streamed answer is under way until its last byte.
                let (parts, body) = response.into_parts();
                let held =
                    stream::unfold((body.into_data_stream(), permit), |(mut body, permit)| async move {
                        futures_util::StreamExt::next(&mut body).await.map(|bytes| (bytes, (body, permit)))
                    });
                Response::from_parts(parts, Body::from_stream(held))
            }
        },
    };
    gateway.metrics.answered(endpoint, response.status().as_u16());
    response
}

impl Gateway {
    fn check(&self, headers: &HeaderMap, endpoint: &str) -> Result<(), ApiError> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        if let Some(origin) = text(header::ORIGIN)
            && !self.settings.allowed_origins.iter().any(|allowed| allowed == origin)
        {
            return Err(forbidden(
                "client: this origin's pages may not use the gateway; allow it in its configuration",
            ));
        }
        let host = text(header::HOST).unwrap_or_default();
        if !is_this_machine(host) && !self.settings.allowed_hosts.iter().any(|allowed| allowed == host) {
            return Err(forbidden(
                "client: the Host is not this machine's; allow it in the gateway's configuration",
            ));
        }
        if let (Some(key), true) = (&self.settings.api_key, endpoint != "/healthz") {
            let shown = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
            if !shown.is_some_and(|shown| same(shown.as_bytes(), key.as_bytes())) {
                return Err(ApiError {
                    status: 401,
                    kind: crate::openai::ErrorKind::AuthenticationError,
                    code: Some("invalid_api_key"),
                    param: None,
                    message: "client: incorrect API key; give the one of the gateway's configuration".into(),
                });
            }
        }
        Ok(())
    }
}

fn forbidden(message: &str) -> ApiError {
    ApiError { status: 403, code: Some("forbidden"), param: None, ..ApiError::invalid("", message) }
}

/// Every byte is looked at, whatever came before it.
fn same(shown: &[u8], key: &[u8]) -> bool {
    shown.len() == key.len() && shown.iter().zip(key).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

// ---- text

async fn chat(State(gateway): Shared, body: Bytes) -> Result<Response, ApiError> {
    let began = Instant::now();
    let request = ChatRequest::parse(&body)?;
    let seed = rand::rng().random();
    let head = head("chatcmpl-", &request.model);
    let mut answers = Vec::new();
    for choice in 0..request.choices {
        let work = prompt::chat(&request, choice, seed, gateway.settings.default_max_tokens);
        answers.push(gateway.market.generate(&request.model, TextWork::Chat(work)).await?);
    }
    let calls_id = token(9);
    let mut choices: Vec<Option<ChatChoice>> = (0..request.choices)
        .map(|index| {
            Some(ChatChoice::new(
                index,
                &request.tools,
                &request.tool_choice,
                request.parallel_tool_calls,
                request.logprobs.is_some(),
                calls_id.clone(),
            ))
        })
        .collect();
    let mut events = merge(answers);
    if !request.stream {
        let (mut ended, mut dones) = (Vec::new(), Vec::new());
        while let Some((at, event)) = events.recv().await {
            match event {
                AnswerEvent::Piece(piece) => {
                    if let Some(choice) = &mut choices[at] {
                        choice.piece(&head, &piece.text, &piece.logprobs);
                    }
                }
                AnswerEvent::Done(done) => {
                    gateway.metrics.done(&done, began.elapsed());
                    if let Some(choice) = choices[at].take() {
                        ended.push((at, choice.end(&head, done.finish).1));
                    }
                    dones.push(done);
                }
                AnswerEvent::Failed(error) => return Err(error),
            }
        }
        if ended.len() != choices.len() {
            return Err(ApiError::upstream("worker: an answer broke off before its end"));
        }
        ended.sort_by_key(|(at, _)| *at);
        let ended = ended.into_iter().map(|(_, ended)| ended).collect();
        return Ok(Json(chat_completion(&head, ended, &dones)).into_response());
    }
    let include_usage = request.include_usage;
    Ok(event_stream(move |out| async move {
        for choice in choices.iter().flatten() {
            out.data(&choice.opening(&head)).await?;
        }
        let (mut dones, mut first) = (Vec::new(), true);
        while let Some((at, event)) = events.recv().await {
            match event {
                AnswerEvent::Piece(piece) => {
                    if std::mem::take(&mut first) {
                        gateway.metrics.first_piece(began.elapsed());
                    }
                    let Some(choice) = &mut choices[at] else { continue };
                    if let Some(event) = choice.piece(&head, &piece.text, &piece.logprobs) {
                        out.data(&event).await?;
                    }
                }
                AnswerEvent::Done(done) => {
                    gateway.metrics.done(&done, began.elapsed());
                    let Some(choice) = choices[at].take() else { continue };
                    for event in choice.end(&head, done.finish).0 {
                        out.data(&event).await?;
                    }
                    dones.push(done);
                }
                AnswerEvent::Failed(error) => return out.data(&error.body()).await,
            }
        }
        if choices.iter().any(Option::is_some) {
            return out.data(&ApiError::upstream("worker: an answer broke off before its end").body()).await;
        }
        if include_usage {
            out.data(&chat_usage(&head, &dones)).await?;
        }
        out.text("[DONE]").await
    }))
}

async fn complete(State(gateway): Shared, body: Bytes) -> Result<Response, ApiError> {
    let began = Instant::now();
    let request = CompletionRequest::parse(&body)?;
    let seed = rand::rng().random();
    let head = head("cmpl-", &request.model);
    let mut answers = Vec::new();
    for text in &request.prompts {
        for choice in 0..request.choices {
            let work = prompt::completion(&request, text, choice, seed);
            answers.push(gateway.market.generate(&request.model, TextWork::Completion(work)).await?);
        }
    }
    let mut texts: Vec<(String, Vec<(usize, TokenLogprob)>)> =
        answers.iter().map(|_| Default::default()).collect();
    let mut finishes: Vec<Option<FinishReason>> = vec![None; answers.len()];
    let mut events = merge(answers);
    let with_logprobs = request.logprobs.is_some();
    if !request.stream {
        let mut dones = Vec::new();
        while let Some((at, event)) = events.recv().await {
            match event {
                AnswerEvent::Piece(piece) => {
                    let (text, logprobs) = &mut texts[at];
                    let offset = text.len();
                    logprobs.extend(piece.logprobs.into_iter().map(|logprob| (offset, logprob)));
                    text.push_str(&piece.text);
                }
                AnswerEvent::Done(done) => {
                    gateway.metrics.done(&done, began.elapsed());
                    finishes[at] = Some(done.finish);
                    dones.push(done);
                }
                AnswerEvent::Failed(error) => return Err(error),
            }
        }
        if finishes.iter().any(Option::is_none) {
            return Err(ApiError::upstream("worker: an answer broke off before its end"));
        }
        let choices = (0u32..)
            .zip(&texts)
            .zip(&finishes)
            .map(|((at, (text, logprobs)), finish)| {
                completion_choice(at, text, with_logprobs.then_some(logprobs), *finish)
            })
            .collect();
        return Ok(Json(completion(&head, choices, Some(&dones))).into_response());
    }
    let include_usage = request.include_usage;
    Ok(event_stream(move |out| async move {
        let (mut dones, mut first) = (Vec::new(), true);
        while let Some((at, event)) = events.recv().await {
            let index = u32::try_from(at).unwrap_or(u32::MAX);
            let choice = match event {
                AnswerEvent::Piece(piece) => {
                    if std::mem::take(&mut first) {
                        gateway.metrics.first_piece(began.elapsed());
                    }
                    let (text, _) = &mut texts[at];
                    let offset = text.len();
                    text.push_str(&piece.text);
                    let logprobs: Vec<_> =
                        piece.logprobs.into_iter().map(|logprob| (offset, logprob)).collect();
                    completion_choice(index, &piece.text, with_logprobs.then_some(&logprobs), None)
                }
                AnswerEvent::Done(done) => {
                    gateway.metrics.done(&done, began.elapsed());
                    finishes[at] = Some(done.finish);
                    let choice = completion_choice(index, "", None, Some(done.finish));
                    dones.push(done);
                    choice
                }
                AnswerEvent::Failed(error) => return out.data(&error.body()).await,
            };
            out.data(&completion(&head, vec![choice], None)).await?;
        }
        if finishes.iter().any(Option::is_none) {
            return out.data(&ApiError::upstream("worker: an answer broke off before its end").body()).await;
        }
        if include_usage {
            out.data(&completion(&head, Vec::new(), Some(&dones))).await?;
        }
        out.text("[DONE]").await
    }))
}

async fn respond(State(gateway): Shared, body: Bytes) -> Result<Response, ApiError> {
    let began = Instant::now();
    let request = responses::parse(&body)?;
    let head = head("resp_", &request.model);
    let work = prompt::chat(&request, 0, rand::rng().random(), gateway.settings.default_max_tokens);
    let mut answer = gateway.market.generate(&request.model, TextWork::Chat(work)).await?;
    let mut response = ResponseStream::new(head, &request, token(16));
    if !request.stream {
        while let Some(event) = answer.events.recv().await {
            match event {
                AnswerEvent::Piece(piece) => drop(response.piece(&piece.text)),
                AnswerEvent::Done(done) => {
                    gateway.metrics.done(&done, began.elapsed());
                    return Ok(Json(response.end(&done).1).into_response());
                }
                AnswerEvent::Failed(error) => return Err(error),
            }
        }
        return Err(ApiError::upstream("worker: an answer broke off before its end"));
    }
    Ok(event_stream(move |out| async move {
        for event in response.opening() {
            out.named(&event).await?;
        }
        let mut first = true;
        while let Some(event) = answer.events.recv().await {
            match event {
                AnswerEvent::Piece(piece) => {
                    if std::mem::take(&mut first) {
                        gateway.metrics.first_piece(began.elapsed());
                    }
                    for event in response.piece(&piece.text) {
                        out.named(&event).await?;
                    }
                }
                AnswerEvent::Done(done) => {
                    gateway.metrics.done(&done, began.elapsed());
                    for event in response.end(&done).0 {
                        out.named(&event).await?;
                    }
                    return Ok(());
                }
                AnswerEvent::Failed(error) => return out.named(&response.failed(&error)).await,
            }
        }
        let error = ApiError::upstream("worker: an answer broke off before its end");
        out.named(&response.failed(&error)).await
    }))
}

// ---- other work

async fn embed(State(gateway): Shared, body: Bytes) -> Result<Response, ApiError> {
    let request = EmbeddingsRequest::parse(&body)?;
    let embedded = gateway.market.embed(&request.model, request.texts.clone()).await?;
    gateway.metrics.paid(embedded.paid.amount.get());
    let mut answer = request.answer(&request.model, &embedded.vectors, embedded.prompt_tokens)?;
    answer["chrysalis"] = paid_json(std::iter::once(&embedded.paid));
    Ok(Json(answer).into_response())
}

async fn transcribe(State(gateway): Shared, mut form: Multipart) -> Result<Response, ApiError> {
    let broken =
        |_| ApiError::invalid("file", "client: the form is broken, or larger than the gateway takes");
    let (mut audio, mut model, mut language, mut format) = (None, None, None, "json".to_owned());
    while let Some(field) = form.next_field().await.map_err(broken)? {
        let name = field.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "file" => audio = Some(field.bytes().await.map_err(broken)?.to_vec()),
            "model" => model = Some(field.text().await.map_err(broken)?),
            "language" => language = Some(field.text().await.map_err(broken)?),
            "response_format" => format = field.text().await.map_err(broken)?,
            "temperature" => {
                // Transcripts are made greedily.
                if field.text().await.map_err(broken)?.trim().parse::<f32>().ok() != Some(0.0) {
                    return Err(ApiError::unsupported("temperature"));
                }
            }
            other => return Err(ApiError::unsupported(crate::openai::printable(other))),
        }
    }
    let missing =
        |name: &str| ApiError::invalid(name, format!("client: you must provide a {name} parameter"));
    if !["json", "text", "verbose_json"].contains(&format.as_str()) {
        return Err(ApiError::unsupported("response_format"));
    }
    let model = model.ok_or_else(|| missing("model"))?;
    let audio = audio.ok_or_else(|| missing("file"))?;
    let done = gateway.market.transcribe(&model, Transcription { audio, language, translate: false }).await?;
    gateway.metrics.paid(done.paid.amount.get());
    let paid = paid_json(std::iter::once(&done.paid));
    Ok(match format.as_str() {
        "text" => format!("{}\n", done.text).into_response(),
        "verbose_json" => {
            let segments: Vec<Value> = done
                .segments
                .iter()
                .enumerate()
                .map(|(id, (start, end, text))| json!({"id": id, "start": start, "end": end, "text": text}))
                .collect();
            Json(json!({
                "task": "transcribe", "language": done.language, "duration": done.audio_s, "text": done.text,
                "segments": segments, "usage": {"type": "duration", "seconds": done.audio_s}, "chrysalis": paid,
            }))
            .into_response()
        }
        _ => Json(json!({
            "text": done.text, "usage": {"type": "duration", "seconds": done.audio_s}, "chrysalis": paid,
        }))
        .into_response(),
    })
}

async fn models(State(gateway): Shared) -> Result<Response, ApiError> {
    let data: Vec<Value> = gateway.market.models().await?.iter().map(model_json).collect();
    Ok(Json(json!({"object": "list", "data": data})).into_response())
}

async fn model(State(gateway): Shared, Path(name): Path<String>) -> Result<Response, ApiError> {
    let models = gateway.market.models().await?;
    let found = models.iter().find(|model| model.name == name || model.model_id.to_string() == name);
    Ok(Json(model_json(found.ok_or_else(|| ApiError::unknown_model(&name))?)).into_response())
}

fn model_json(model: &ModelOnSale) -> Value {
    json!({
        "id": model.name, "object": "model", "created": model.registered_at_s, "owned_by": model.publisher,
        "chrysalis": {
            "model_id": model.model_id.to_string(), "licence": model.licence, "workers": model.workers,
            "context_tokens": model.context_tokens,
            "price_nanoton_per_1k": {
                "input": model.prices.input.get().to_string(), "cached_input": model.prices.cached_input.get().to_string(),
                "output": model.prices.output.get().to_string(),
            },
        },
    })
}

// ---- about the gateway

async fn metrics(State(gateway): Shared) -> Response {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        gateway.metrics.text(gateway.settings.max_under_way - gateway.under_way.available_permits()),
    )
        .into_response()
}

async fn healthz() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

async fn openapi_document() -> Response {
    Json(openapi::document()).into_response()
}

async fn no_such_endpoint() -> ApiError {
    ApiError {
        status: 404,
        param: None,
        code: Some("unknown_url"),
        ..ApiError::invalid("", "client: there is no such endpoint; GET /openapi.json lists them")
    }
}

async fn wrong_method() -> ApiError {
    ApiError {
        status: 405,
        param: None,
        code: Some("method_not_supported"),
        ..ApiError::invalid("", "client: the endpoint does not take this method")
    }
}

// ---- events

/// Where events go. An error means that nobody reads any more.
struct Out(mpsc::Sender<Bytes>);

#[derive(Debug)]
struct Gone;

impl Out {
    async fn data(&self, event: &Value) -> Result<(), Gone> {
        self.text(&event.to_string()).await
    }

    async fn text(&self, text: &str) -> Result<(), Gone> {
        self.0.send(format!("data: {text}\n\n").into()).await.map_err(|_| Gone)
    }

    async fn named(&self, (name, data): &responses::Event) -> Result<(), Gone> {
        self.0.send(format!("event: {name}\ndata: {data}\n\n").into()).await.map_err(|_| Gone)
    }
}

/// Server-sent events as `tell` tells them. A reader that goes away drops what `tell` holds, which cancels its answers;
/// one that is slow holds it back.
fn event_stream<F: Future<Output = Result<(), Gone>> + Send + 'static>(
    tell: impl FnOnce(Out) -> F,
) -> Response {
    let (sender, receiver) = mpsc::channel(64);
    let closed = sender.clone();
    let telling = tell(Out(sender));
    tokio::spawn(async move {
        tokio::select! {
            _ = telling => {}
            () = closed.closed() => {}
        }
    });
    let body = stream::unfold(receiver, |mut receiver| async move {
        match tokio::time::timeout(KEEP_ALIVE, receiver.recv()).await {
            Ok(bytes) => bytes.map(|bytes| (Ok::<_, Infallible>(bytes), receiver)),
            Err(_) => Some((Ok(Bytes::from_static(b": waiting\n\n")), receiver)),
        }
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(body)).into_response()
}

/// How long a stream is silent at most.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The events of several answers as they come, each with its answer's place.
fn merge(answers: Vec<Answer>) -> mpsc::Receiver<(usize, AnswerEvent)> {
    let (sender, receiver) = mpsc::channel(64);
    for (at, mut answer) in answers.into_iter().enumerate() {
        let sender = sender.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    event = answer.events.recv() => match event {
                        Some(event) => if sender.send((at, event)).await.is_err() { return },
                        None => return,
                    },
                    () = sender.closed() => return,
                }
            }
        });
    }
    receiver
}

fn head(prefix: &str, model: &str) -> Head {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Head { id: format!("{prefix}{}", token(16)), created_s: now.as_secs(), model: model.to_owned() }
}

/// `bytes` random bytes in hexadecimal.
fn token(bytes: usize) -> String {
    let mut random = vec![0u8; bytes];
    rand::rng().fill(&mut random[..]);
    hex::encode(random)
}
