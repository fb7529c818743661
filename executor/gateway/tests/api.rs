//! The API's endpoints over a seller that is a test double: what is asked reaches it, what it says comes back in the API's
//! forms, and what is not honoured is refused by name.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use contracts::{HashBytes, Nanoton, Prices};
use gateway::http::{HttpSettings, router};
use gateway::market::{
    Answer, AnswerEvent, Done, Embedded, Market, ModelOnSale, Paid, TextPiece, TextWork, TokenLogprob,
    Transcribed, Usage,
};
use gateway::openai::ApiError;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use session::message::FinishReason;
use session::work::Transcription;
use tower::ServiceExt as _;

/// Sells what it was told to say; no model is behind it.
struct Scripted {
    pieces: Vec<&'static str>,
    finish: FinishReason,
    breaks_off: bool,
    asked: Mutex<Vec<Value>>,
}

fn paid() -> Paid {
    Paid { worker: "worker".into(), session: "session".into(), amount: Nanoton::new(17) }
}

#[async_trait]
impl Market for Scripted {
    async fn models(&self) -> Result<Vec<ModelOnSale>, ApiError> {
        Ok(vec![ModelOnSale {
            name: "org/small".into(),
            model_id: HashBytes([7; 32]),
            licence: "Apache-2.0".into(),
            context_tokens: 64,
            registered_at_s: 5,
            publisher: "publisher".into(),
            workers: 2,
            prices: Prices { input: Nanoton::new(1), cached_input: Nanoton::new(2), output: Nanoton::new(3) },
        }])
    }

    async fn generate(&self, model: &str, work: TextWork) -> Result<Answer, ApiError> {
        if model != "org/small" {
            return Err(ApiError::unknown_model(model));
        }
        let asked = match &work {
            TextWork::Chat(work) => serde_json::to_value(work).unwrap(),
            TextWork::Completion(work) => serde_json::to_value(work).unwrap(),
        };
        let wants_logprobs = asked["params"].get("top_logprobs").is_some();
        self.asked.lock().unwrap().push(asked);
        let (sender, events) = tokio::sync::mpsc::channel(4);
        let (pieces, finish, breaks_off) = (self.pieces.clone(), self.finish, self.breaks_off);
        tokio::spawn(async move {
            for text in pieces {
                let logprobs = match wants_logprobs {
                    true => vec![TokenLogprob {
                        token: text.into(),
                        logprob: -0.5,
                        top: vec![(text.into(), -0.5), (b"\xff".to_vec(), -2.0)],
                    }],
                    false => Vec::new(),
                };
                let piece = AnswerEvent::Piece(TextPiece { text: text.into(), logprobs });
                if sender.send(piece).await.is_err() {
                    return;
                }
            }
            let last = match breaks_off {
                true => AnswerEvent::Failed(ApiError::upstream("worker: its stream ended early")),
                false => AnswerEvent::Done(Done {
                    finish,
                    usage: Usage { prompt_tokens: 10, cached_tokens: 4, completion_tokens: 3 },
                    paid: paid(),
                }),
            };
            let _ = sender.send(last).await;
        });
        Ok(Answer { events })
    }

    async fn embed(&self, _: &str, texts: Vec<String>) -> Result<Embedded, ApiError> {
        let vectors = texts.iter().map(|text| vec![text.len() as f32, 0.5]).collect();
        Ok(Embedded { vectors, prompt_tokens: 6, paid: paid() })
    }

    async fn transcribe(&self, _: &str, recording: Transcription) -> Result<Transcribed, ApiError> {
        Ok(Transcribed {
            text: format!("{} bytes", recording.audio.len()),
            language: recording.language.clone().unwrap_or_else(|| "en".into()),
            segments: vec![(0.0, 1.5, "one".into())],
            audio_s: 2,
            paid: paid(),
        })
    }
}

fn scripted(pieces: &[&'static str]) -> Arc<Scripted> {
    Arc::new(Scripted {
        pieces: pieces.to_vec(),
        finish: FinishReason::Stop,
        breaks_off: false,
        asked: Mutex::default(),
    })
}

fn app(market: &Arc<Scripted>) -> Router {
    router(market.clone(), HttpSettings::default())
}

async fn send(app: Router, request: Request<Body>) -> (StatusCode, String) {
    let response = app.oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

fn post(path: &str, body: &Value) -> Request<Body> {
    Request::post(path).header("host", "localhost:8080").body(body.to_string().into()).unwrap()
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).header("host", "127.0.0.1").body(Body::empty()).unwrap()
}

async fn ask(market: &Arc<Scripted>, path: &str, body: Value) -> (StatusCode, Value) {
    let (status, text) = send(app(market), post(path, &body)).await;
    (status, serde_json::from_str(&text).unwrap())
}

/// The data of each event, without the last word.
async fn stream(market: &Arc<Scripted>, path: &str, body: Value) -> Vec<Value> {
    let (status, text) = send(app(market), post(path, &body)).await;
    assert_eq!(status, 200, "{text}");
    text.split("\n\n")
        .filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

fn hello() -> Value {
    json!({"model": "org/small", "messages": [{"role": "user", "content": "hello"}]})
}

fn with(mut body: Value, extra: Value) -> Value {
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_chat_is_answered_whole() {
    let market = scripted(&["Hi", " there"]);
    let (status, answer) = ask(&market, "/v1/chat/completions", hello()).await;
    assert_eq!(status, 200);
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["message"]["content"], "Hi there");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["total_tokens"], 13);
    assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
    assert_eq!(answer["chrysalis"][0]["amount_nanoton"], "17");
}

#[tokio::test]
async fn a_chat_streams_piece_by_piece_and_tells_its_usage_where_asked() {
    let market = scripted(&["Hi", " there"]);
    let body = with(hello(), json!({"stream": true, "stream_options": {"include_usage": true}}));
    let events = stream(&market, "/v1/chat/completions", body).await;
    let text: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "Hi there");
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(events[events.len() - 2]["choices"][0]["finish_reason"], "stop");
    assert_eq!(events.last().unwrap()["usage"]["completion_tokens"], 3);
    assert_eq!(events.last().unwrap()["choices"], json!([]));
    let silent = stream(&market, "/v1/chat/completions", with(hello(), json!({"stream": true}))).await;
    assert!(silent.iter().all(|event| event.get("usage").is_none()));
}

#[tokio::test]
async fn every_parameter_reaches_the_worker() {
    let market = scripted(&["x"]);
    let body = with(
        hello(),
        json!({
            "max_completion_tokens": 9, "temperature": 0.5, "top_p": 0.25, "top_k": 7, "min_p": 0.125,
            "repetition_penalty": 1.5, "presence_penalty": -1.0, "frequency_penalty": 2.0, "seed": -1,
            "stop": ["END"], "logprobs": true, "top_logprobs": 2, "user": "someone",
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}},
        }),
    );
    let (status, answer) = ask(&market, "/v1/chat/completions", body).await;
    assert_eq!(status, 200, "{answer}");
    let asked = market.asked.lock().unwrap()[0].clone();
    let params = &asked["params"];
    for (name, value) in [
        ("max_output_tokens", json!(9)),
        ("temperature", json!(0.5)),
        ("top_p", json!(0.25)),
        ("top_k", json!(7)),
        ("min_p", json!(0.125)),
        ("repetition_penalty", json!(1.5)),
        ("presence_penalty", json!(-1.0)),
        ("frequency_penalty", json!(2.0)),
        ("seed", json!(u64::MAX)),
        ("stop", json!(["END"])),
        ("top_logprobs", json!(2)),
        ("json_schema", json!({"type": "array"})),
    ] {
        assert_eq!(params[name], value, "{name}");
    }
    assert!(!asked.to_string().contains("someone"), "the user's name stays on this machine");
    let logprobs = &answer["choices"][0]["logprobs"]["content"][0];
    assert_eq!((&logprobs["token"], &logprobs["bytes"]), (&json!("x"), &json!([120])));
    assert_eq!(logprobs["top_logprobs"][1]["bytes"], json!([255]));
}

#[tokio::test]
async fn several_answers_have_several_seeds_and_their_usage_is_summed() {
    let market = scripted(&["x"]);
    let (_, answer) = ask(&market, "/v1/chat/completions", with(hello(), json!({"n": 3, "seed": 4}))).await;
    assert_eq!(answer["choices"].as_array().unwrap().len(), 3);
    assert_eq!(answer["choices"][2]["index"], 2);
    assert_eq!(answer["usage"]["prompt_tokens"], 30);
    let asked = market.asked.lock().unwrap();
    let mut seeds: Vec<_> = asked.iter().map(|work| work["params"]["seed"].as_u64().unwrap()).collect();
    assert_eq!(seeds[0], 4);
    seeds.dedup();
    assert_eq!(seeds.len(), 3);
}

#[tokio::test]
async fn a_parameter_that_is_not_honoured_is_refused_by_name() {
    let market = scripted(&["x"]);
    for (param, extra) in [
        ("nonsense", json!({"nonsense": 1})),
        ("logit_bias", json!({"logit_bias": {"50256": -100}})),
        ("store", json!({"store": true})),
        ("modalities", json!({"modalities": ["audio"]})),
        ("n", json!({"n": 0})),
        ("temperature", json!({"temperature": 2.5})),
        ("top_p", json!({"top_p": 0})),
        ("stop", json!({"stop": ["a", "b", "c", "d", "e"]})),
        ("top_logprobs", json!({"top_logprobs": 3})),
        ("stream_options", json!({"stream_options": {"include_usage": true}})),
        ("max_tokens", json!({"max_tokens": 0})),
        ("tool_choice", json!({"tool_choice": "required"})),
        (
            "messages[0].content.type",
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        ),
        ("messages[0].role", json!({"messages": [{"role": "robot", "content": "x"}]})),
        ("response_format", json!({"response_format": {"type": "json_schema"}})),
    ] {
        let (status, answer) = ask(&market, "/v1/chat/completions", with(hello(), extra)).await;
        assert_eq!(status, 400, "{param}: {answer}");
        assert_eq!(answer["error"]["param"], param);
        assert_eq!(answer["error"]["type"], "invalid_request_error");
    }
    assert!(market.asked.lock().unwrap().is_empty(), "a refused request reaches no worker");
}

#[tokio::test]
async fn an_error_never_quotes_the_prompt() {
    let market = scripted(&["x"]);
    for body in [
        r#"{"model":"org/small","messages":[{"role":"user","content":17,"name":"CANARY"}],"seed":"CANARY"}"#,
        r#"{"model":"org/small","messages":"CANARY"}"#,
        r#"{"model":"org/small","messages":[{"role":"CANARY","content":"CANARY"}]}"#,
        r#"{"messages":[{"role":"user","content":"CANARY"}]"#,
        r#"{"model":"org/small","messages":[{"role":"user","content":"CANARY"}],"temperature":"CANARY"}"#,
    ] {
        let request = Request::post("/v1/chat/completions").header("host", "localhost");
        let (status, text) = send(app(&market), request.body(body.into()).unwrap()).await;
        assert_eq!(status, 400);
        assert!(!text.contains("CANARY"), "{text}");
    }
}

#[tokio::test]
async fn a_tool_may_be_called_or_has_to_be() {
    let weather = json!({"tools": [{"type": "function", "function": {
        "name": "weather", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}}]});
    let market = scripted(&[
        "I look. <tool",
        "_call>{\"name\":\"weather\",",
        "\"arguments\":{\"at\":\"Oslo\"}}</tool_call>",
    ]);
    let (_, answer) = ask(&market, "/v1/chat/completions", with(hello(), weather.clone())).await;
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["content"], "I look.");
    assert_eq!(message["tool_calls"][0]["function"]["arguments"], "{\"at\":\"Oslo\"}");
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(market.asked.lock().unwrap()[0]["tools"][0]["function"]["name"], "weather");

    let body = with(with(hello(), weather.clone()), json!({"stream": true}));
    let events = stream(&market, "/v1/chat/completions", body).await;
    let text: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, "I look. ");
    let call = events.iter().find_map(|event| event["choices"][0]["delta"].get("tool_calls")).unwrap();
    assert_eq!((&call[0]["index"], &call[0]["function"]["name"]), (&json!(0), &json!("weather")));

    let market = scripted(&["{\"name\":\"weather\",\"arguments\":{}}"]);
    let forced = with(
        with(hello(), weather),
        json!({"tool_choice": {"type": "function", "function": {"name": "weather"}}}),
    );
    let (_, answer) = ask(&market, "/v1/chat/completions", forced).await;
    assert_eq!(answer["choices"][0]["message"]["content"], Value::Null);
    assert_eq!(answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "weather");
    let schema = market.asked.lock().unwrap()[0]["params"]["json_schema"].clone();
    assert_eq!(schema["properties"]["name"]["const"], "weather");
}

#[tokio::test]
async fn a_conversation_with_calls_goes_to_the_worker_as_it_was() {
    let market = scripted(&["x"]);
    let body = json!({"model": "org/small", "messages": [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]});
    let (status, answer) = ask(&market, "/v1/chat/completions", body).await;
    assert_eq!(status, 200, "{answer}");
    let messages = market.asked.lock().unwrap()[0]["messages"].clone();
    assert_eq!(messages[0]["role"], "system");
    assert_eq!(messages[1]["content"], "ab");
    assert_eq!(messages[2]["tool_calls"][0]["name"], "f");
    assert_eq!(messages[3]["tool_call_id"], "c1");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_in_either_form() {
    let market = Arc::new(Scripted {
        pieces: vec!["Hi"],
        finish: FinishReason::Stop,
        breaks_off: true,
        asked: Mutex::default(),
    });
    let (status, answer) = ask(&market, "/v1/chat/completions", hello()).await;
    assert_eq!((status.as_u16(), &answer["error"]["type"]), (502, &json!("server_error")));
    let events = stream(&market, "/v1/chat/completions", with(hello(), json!({"stream": true}))).await;
    assert_eq!(events.last().unwrap()["error"]["code"], "worker_failed");
    let (_, text) =
        send(app(&market), post("/v1/chat/completions", &with(hello(), json!({"stream": true})))).await;
    assert!(!text.contains("[DONE]"), "a stream that failed does not say that it is done");
}

#[tokio::test]
async fn a_text_is_continued() {
    let market = scripted(&["on", "ce"]);
    let body = json!({"model": "org/small", "prompt": ["a", "b"], "n": 2, "logprobs": 2, "max_tokens": 4});
    let (status, answer) = ask(&market, "/v1/completions", body.clone()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["choices"].as_array().unwrap().len(), 4);
    assert_eq!(answer["choices"][3]["text"], "once");
    assert_eq!(answer["choices"][0]["logprobs"]["text_offset"], json!([0, 2]));
    let events =
        stream(&market, "/v1/completions", with(body, json!({"stream": true, "n": 1, "prompt": "a"}))).await;
    let text: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, "once");
    let (status, answer) =
        ask(&market, "/v1/completions", json!({"model": "org/small", "prompt": "a", "echo": true})).await;
    assert_eq!((status.as_u16(), &answer["error"]["param"]), (400, &json!("echo")));
}

#[tokio::test]
async fn a_response_is_made_and_streams_named_events_in_order() {
    let market = scripted(&["Hi", " there"]);
    let body = json!({"model": "org/small", "instructions": "be brief", "input": "hello"});
    let (status, answer) = ask(&market, "/v1/responses", body.clone()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["status"], "completed");
    assert_eq!(answer["output"][0]["content"][0]["text"], "Hi there");
    assert_eq!(answer["usage"]["input_tokens"], 10);
    let events = stream(&market, "/v1/responses", with(body.clone(), json!({"stream": true}))).await;
    let names: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(names.first(), Some(&"response.created"));
    assert_eq!(names.last(), Some(&"response.completed"));
    assert_eq!(names.iter().filter(|name| **name == "response.output_text.delta").count(), 2);
    for (at, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], at);
    }
    for (param, extra) in
        [("store", json!({"store": true})), ("previous_response_id", json!({"previous_response_id": "r"}))]
    {
        let (status, answer) = ask(&market, "/v1/responses", with(body.clone(), extra)).await;
        assert_eq!((status.as_u16(), &answer["error"]["param"]), (400, &json!(param)));
    }
}

#[tokio::test]
async fn texts_become_vectors_in_both_encodings() {
    let market = scripted(&[]);
    let body = json!({"model": "m", "input": ["a", "bcd"]});
    let (_, answer) = ask(&market, "/v1/embeddings", body.clone()).await;
    assert_eq!(answer["data"][1]["embedding"], json!([3.0, 0.5]));
    assert_eq!(answer["usage"]["total_tokens"], 6);
    let (_, answer) =
        ask(&market, "/v1/embeddings", with(body.clone(), json!({"encoding_format": "base64"}))).await;
    assert_eq!(answer["data"][0]["embedding"], "AACAPwAAAD8=");
    let (status, _) = ask(&market, "/v1/embeddings", with(body, json!({"dimensions": 3}))).await;
    assert_eq!(status, 400);
}

fn form(fields: &[(&str, &str)]) -> Request<Body> {
    let mut body = String::new();
    for (name, value) in fields {
        let file = if *name == "file" { "; filename=\"a.wav\"" } else { "" };
        body.push_str(&format!(
            "--edge\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n"
        ));
    }
    body.push_str("--edge--\r\n");
    Request::post("/v1/audio/transcriptions")
        .header("host", "localhost")
        .header("content-type", "multipart/form-data; boundary=edge")
        .body(body.into())
        .unwrap()
}

#[tokio::test]
async fn a_recording_is_written_down() {
    let market = scripted(&[]);
    let (status, text) = send(app(&market), form(&[("file", "12345"), ("model", "m")])).await;
    assert_eq!(status, 200, "{text}");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&answer["text"], &answer["usage"]["seconds"]), (&json!("5 bytes"), &json!(2)));
    let fields = [("file", "1"), ("model", "m"), ("language", "de"), ("response_format", "verbose_json")];
    let (_, text) = send(app(&market), form(&fields)).await;
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&answer["language"], &answer["segments"][0]["end"]), (&json!("de"), &json!(1.5)));
    for fields in [&[("file", "1")][..], &[("file", "1"), ("model", "m"), ("prompt", "x")]] {
        assert_eq!(send(app(&market), form(fields)).await.0, 400);
    }
}

#[tokio::test]
async fn models_are_listed_with_price_workers_and_licence() {
    let market = scripted(&[]);
    let (_, text) = send(app(&market), get("/v1/models")).await;
    let list: Value = serde_json::from_str(&text).unwrap();
    let model = &list["data"][0];
    assert_eq!((&model["id"], &model["chrysalis"]["licence"]), (&json!("org/small"), &json!("Apache-2.0")));
    assert_eq!(model["chrysalis"]["price_nanoton_per_1k"]["output"], "3");
    assert_eq!(send(app(&market), get("/v1/models/org/small")).await.0, 200);
    assert_eq!(send(app(&market), get(&format!("/v1/models/{}", "07".repeat(32)))).await.0, 200);
    let (status, text) = send(app(&market), get("/v1/models/other")).await;
    assert_eq!(status, 404);
    assert!(text.contains("model_not_found"));
}

#[tokio::test]
async fn a_web_page_cannot_reach_the_gateway() {
    let market = scripted(&["x"]);
    for (name, value) in [("origin", "https://example.org"), ("origin", "null"), ("host", "example.org")] {
        let mut request = post("/v1/chat/completions", &hello());
        request.headers_mut().insert(name, value.parse().unwrap());
        assert_eq!(send(app(&market), request).await.0, 403, "{name}: {value}");
    }
    let settings =
        HttpSettings { allowed_origins: vec!["https://example.org".into()], ..HttpSettings::default() };
    let mut request = post("/v1/chat/completions", &hello());
    request.headers_mut().insert("origin", "https://example.org".parse().unwrap());
    assert_eq!(send(router(market.clone(), settings), request).await.0, 200);
    for host in ["localhost", "localhost:1", "127.0.0.1:8080", "[::1]:8080"] {
        let mut request = post("/v1/chat/completions", &hello());
        request.headers_mut().insert("host", host.parse().unwrap());
        assert_eq!(send(app(&market), request).await.0, 200, "{host}");
    }
}

#[tokio::test]
async fn a_key_is_asked_for_where_one_is_set() {
    let market = scripted(&["x"]);
    let settings = || HttpSettings { api_key: Some("right".into()), ..HttpSettings::default() };
    for (shown, status) in
        [(None, 401), (Some("Bearer wrong"), 401), (Some("right"), 401), (Some("Bearer right"), 200)]
    {
        let mut request = post("/v1/chat/completions", &hello());
        if let Some(shown) = shown {
            request.headers_mut().insert("authorization", shown.parse().unwrap());
        }
        assert_eq!(send(router(market.clone(), settings()), request).await.0, status);
    }
    assert_eq!(send(router(market.clone(), settings()), get("/healthz")).await.0, 200);
}

#[tokio::test]
async fn more_requests_than_allowed_are_told_to_come_later_until_a_stream_is_over() {
    let market = scripted(&["x"]);
    let app = router(market, HttpSettings { max_under_way: 1, ..HttpSettings::default() });
    let request = post("/v1/chat/completions", &with(hello(), json!({"stream": true})));
    let first = app.clone().oneshot(request).await.unwrap();
    let (status, text) = send(app.clone(), post("/v1/chat/completions", &hello())).await;
    assert_eq!(status, 429);
    assert!(text.contains("rate_limit_error"));
    assert_eq!(send(app.clone(), get("/v1/models")).await.0, 200);
    first.into_body().collect().await.unwrap();
    assert_eq!(send(app, post("/v1/chat/completions", &hello())).await.0, 200);
}

#[tokio::test]
async fn the_openapi_document_names_what_the_handlers_take_and_nothing_else() {
    let market = scripted(&["x"]);
    let (_, text) = send(app(&market), get("/openapi.json")).await;
    let document: Value = serde_json::from_str(&text).unwrap();
    let mut seen = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path.replace("{model}", "org/small");
        for (method, operation) in item.as_object().unwrap() {
            let request = match method.as_str() {
                "get" => get(&path),
                _ => post(&path, &json!({})),
            };
            let (status, _) = send(app(&market), request).await;
            assert!(status != 404 && status != 405, "{method} {path}: {status}");
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let Some(properties) = schema["properties"].as_object() else { continue };
            // A listed parameter of a wrong type is refused as such, or by its own check; an unlisted one as unknown.
            for name in properties.keys() {
                let (status, answer) = ask(&market, &path, json!({name: [[]]})).await;
                assert_eq!(status, 400);
                assert_ne!(answer["error"]["code"], "unknown_parameter", "{path}: {name}");
                seen += 1;
            }
            let (_, answer) = ask(&market, &path, json!({"unheard_of": 1})).await;
            assert_eq!(answer["error"]["code"], "unknown_parameter", "{path}");
        }
    }
    assert!(seen > 50);
    assert_eq!(send(app(&market), get("/v1/unheard")).await.0, 404);
    assert_eq!(send(app(&market), get("/v1/chat/completions")).await.0, 405);
}

#[tokio::test]
async fn metrics_count_and_show_nothing_of_a_request() {
    let market = scripted(&["CANARY"]);
    let app = app(&market);
    let body = json!({"model": "org/small", "messages": [{"role": "user", "content": "CANARY"}]});
    send(app.clone(), post("/v1/chat/completions", &body)).await;
    send(app.clone(), get("/v1/CANARY")).await;
    let (_, text) = send(app, get("/metrics")).await;
    assert!(!text.contains("CANARY"), "{text}");
    for line in [
        "chrysalis_gateway_requests_total{endpoint=\"/v1/chat/completions\",status=\"200\"} 1",
        "chrysalis_gateway_requests_total{endpoint=\"other\",status=\"404\"} 1",
        "chrysalis_gateway_paid_nanoton_total 17",
        "chrysalis_gateway_prompt_tokens_total 10",
        "chrysalis_gateway_answer_seconds_count 1",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
