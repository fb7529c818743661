//! Answers held to a JSON schema, by models whose weights are random: whatever they would say, what comes is JSON that
//! validates.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::ops::ControlFlow;
use std::path::Path;

use inference::{
    ChatMessage, Engine, FinishReason, GenerateError, GenerateParams, Generation, JsonSchema, ModelFiles,
    Sampling, SchemaError,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn engine(name: &str) -> Engine {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    Engine::load(&ModelFiles::open(&path).unwrap()).unwrap()
}

/// One of each kind of tokenizer: bytes as letters, and SentencePiece.
fn engines() -> Vec<Engine> {
    ["q4_0.gguf", "families/qwen3", "families/llama2.gguf", "families/gemma3"].map(engine).into()
}

fn params(schema: &Value, seed: u64) -> GenerateParams {
    GenerateParams {
        max_output_tokens: 4_000,
        sampling: Sampling { temperature: 3.0, seed, ..Sampling::default() },
        json_schema: Some(JsonSchema::of(schema).unwrap()),
        ..GenerateParams::default()
    }
}

fn answer(engine: &Engine, params: &GenerateParams) -> Generation {
    engine.generate(&[1, 5, 9], params, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// Whether `value` is what `schema`, of the whole document `root`, says: another hand than the one that compiles it.
fn holds(root: &Value, schema: &Value, value: &Value) -> bool {
    if let Some(target) = schema["$ref"].as_str() {
        return holds(root, root.pointer(target.trim_start_matches('#')).unwrap(), value);
    }
    if let Some(options) = schema["anyOf"].as_array() {
        return options.iter().any(|option| holds(root, option, value));
    }
    let same = |a: &Value, b: &Value| a == b || (a.is_number() && a.as_f64() == b.as_f64());
    if schema.get("const").is_some_and(|only| !same(only, value))
        || schema["enum"].as_array().is_some_and(|all| !all.iter().any(|one| same(one, value)))
    {
        return false;
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        Value::Null => return true,
        one => vec![one.clone()],
    };
    let number = |key: &str, default: f64| schema[key].as_f64().unwrap_or(default);
    let within = |count: usize, least: &str, most: &str| {
        (number(least, 0.0)..=number(most, f64::INFINITY)).contains(&(count as f64))
    };
    types.iter().any(|kind| match (kind.as_str().unwrap(), value) {
        ("null", Value::Null) | ("boolean", Value::Bool(_)) => true,
        ("string", Value::String(text)) => within(text.chars().count(), "minLength", "maxLength"),
        // `-0` is none to serde_json.
        ("integer", Value::Number(given)) => given.as_i64().is_some_and(|given| {
            (number("minimum", f64::MIN)..=number("maximum", f64::MAX)).contains(&(given as f64))
        }),
        ("number", Value::Number(given)) => {
            let given = given.as_f64().unwrap();
            (number("minimum", f64::MIN)..=number("maximum", f64::MAX)).contains(&given)
        }
        ("array", Value::Array(items)) => {
            within(items.len(), "minItems", "maxItems")
                && items.iter().all(|item| holds(root, &schema["items"], item))
        }
        ("object", Value::Object(fields)) => {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            required.iter().all(|name| fields.contains_key(name.as_str().unwrap()))
                && fields.iter().all(|(name, field)| {
                    schema["properties"].get(name).is_some_and(|schema| holds(root, schema, field))
                })
        }
        _ => false,
    })
}

/// Whether the answer ended by itself; if so, it validates.
fn check(engine: &Engine, schema: &Value, seed: u64) -> bool {
    let params = params(schema, seed);
    let given = answer(engine, &params);
    // A number may go on until the context ends.
    if given.finish_reason == FinishReason::Length {
        return false;
    }
    let value: Value = serde_json::from_str(&given.text)
        .unwrap_or_else(|error| panic!("{error}: {:?} for {schema}", given.text));
    assert!(holds(schema, schema, &value), "{value} is not {schema}");
    true
}

#[test]
fn answers_of_every_kind_validate() {
    let engines = engines();
    let person = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "description": "somebody",
        "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 8 },
            "age": { "type": "integer", "minimum": 0, "maximum": 150 },
            "score": { "type": "number", "minimum": -1.5, "maximum": 1.5 },
            "role \"ü\"\n": { "enum": ["admin", "user \\ \"quoted\" é", 7, -2.5, null, true] },
            "tags": { "type": "array", "items": { "$ref": "#/$defs/tag" }, "minItems": 1, "maxItems": 3 },
            "address": { "anyOf": [{ "$ref": "#/$defs/address" }, { "type": "null" }] },
        },
        "required": ["name", "age", "score", "role \"ü\"\n", "tags", "address"],
        "additionalProperties": false,
        "$defs": {
            "tag": { "type": "string", "enum": ["a", "b", "cc"] },
            "address": {
                "type": "object",
                "properties": { "zip": { "type": ["integer", "null"], "maximum": 99_999, "minimum": 0 } },
                "required": ["zip"],
            },
        },
    });
    let mut whole = 0;
    for engine in &engines {
        for seed in 0..8 {
            whole += usize::from(check(engine, &person, seed));
        }
    }
    assert!(whole >= 24, "only {whole} of 32 answers ended by themselves");
}

#[test]
fn a_schema_that_leaves_no_choice_says_what_it_says() {
    for engine in engines() {
        let fixed =
            json!({ "type": "object", "properties": { "é": { "const": "ü \u{1f680}" } }, "required": ["é"] });
        let given = answer(&engine, &params(&fixed, 1));
        assert_eq!((given.text.as_str(), given.finish_reason), ("{\"é\":\"ü 🚀\"}", FinishReason::Stop));
        let greedy =
            GenerateParams { json_schema: params(&fixed, 1).json_schema, ..GenerateParams::greedy(200) };
        assert_eq!(answer(&engine, &greedy).text, given.text);
    }
}

#[test]
fn a_whole_number_is_never_minus_zero() {
    let engine = engine("q4_0.gguf");
    let zero = json!({ "type": "integer", "minimum": -1, "maximum": 0 });
    let texts: Vec<String> = (0..40).map(|seed| answer(&engine, &params(&zero, seed)).text).collect();
    assert!(texts.iter().all(|text| text == "0" || text == "-1"), "{texts:?}");
    assert!(texts.iter().any(|text| text == "0") && texts.iter().any(|text| text == "-1"), "{texts:?}");
}

#[test]
fn audits_know_the_schema() {
    let engine = engine("q4_0.gguf");
    let schema = json!({
        "type": "object",
        "properties": { "a": { "type": "string", "maxLength": 6 }, "b": { "type": "boolean" } },
        "required": ["a", "b"],
    });
    let params = params(&schema, 3);
    let given = answer(&engine, &params);
    let prompt = [1, 5, 9];
    let audit = |output: &[u32], finish, params: &GenerateParams| {
        engine.audit(&prompt, output, finish, params, 1e-3).unwrap()
    };
    let verdict = audit(&given.output_ids, given.finish_reason, &params);
    assert!(verdict.holds() && verdict.exact == given.output_ids.len(), "{verdict:?}");
    // The same answer without the schema, one cut short, and one with a token that the schema forbids.
    let free = GenerateParams { json_schema: None, ..params.clone() };
    assert!(!audit(&given.output_ids, given.finish_reason, &free).holds());
    let cut = &given.output_ids[..given.output_ids.len() - 1];
    assert!(!audit(cut, FinishReason::Stop, &params).holds());
    let mut edited = given.output_ids.clone();
    edited[0] = (0..).find(|id| *id != edited[0]).unwrap();
    let verdict = audit(&edited, given.finish_reason, &params);
    assert_eq!(verdict.first_departure.unwrap().margin, f32::INFINITY);
}

#[test]
fn limits_are_errors_or_still_work() {
    let engine = engine("q4_0.gguf");
    let run = |schema: Value| {
        let params = GenerateParams { max_output_tokens: 40, ..params(&schema, 5) };
        engine.generate(&[1], &params, &mut |_| ControlFlow::Continue(())).map(|given| given.output_ids.len())
    };
    let allowed = |schema: Value| match run(schema) {
        Ok(tokens) => assert!(tokens > 0),
        Err(error) => assert!(matches!(error, GenerateError::Schema(SchemaError::TooComplex)), "{error}"),
    };
    allowed(json!({ "type": "string", "minLength": 4_096, "maxLength": 4_096 }));
    let text = json!({ "type": "string", "maxLength": 4_096 });
    allowed(json!({ "type": "array", "items": text, "minItems": 4_096, "maxItems": 4_096 }));
    let many: Map<String, Value> = (0..250).map(|index| (format!("p{index}"), text.clone())).collect();
    allowed(json!({ "type": "object", "properties": many }));
    allowed(json!({ "anyOf": vec![text.clone(); 250] }));
    let nested = (0..30).fold(text, |inner, _| json!({ "type": "array", "items": inner, "maxItems": 4_096 }));
    allowed(nested);
    let twice = (0..9).fold(json!({ "type": "null" }), |inner, _| json!({ "anyOf": [inner, inner] }));
    allowed(twice);
}

/// A schema of the subset, small enough that answers end.
fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({ "type": "null" })),
        Just(json!({ "type": "boolean" })),
        (-1_000..1_000i64, 0..1_000i64).prop_map(
            |(least, wide)| json!({ "type": "integer", "minimum": least, "maximum": least + wide })
        ),
        (-500..500i32, 0..500i32).prop_map(|(least, wide)| {
            let least = f64::from(least) / 8.0;
            json!({ "type": "number", "minimum": least, "maximum": least + f64::from(wide) / 8.0 })
        }),
        (0..4u64, 0..6u64).prop_map(
            |(least, more)| json!({ "type": "string", "minLength": least, "maxLength": least + more })
        ),
        prop::collection::vec("[ -~é🚀\n]{0,6}", 1..5).prop_map(|values| json!({ "enum": values })),
        prop_oneof![Just(json!(null)), Just(json!(12)), Just(json!(-3.25)), Just(json!("x"))]
            .prop_map(|value| json!({ "const": value })),
        Just(json!({ "type": ["string", "null"], "maxLength": 3 })),
        Just(json!({ "$ref": "#/$defs/shared" })),
    ];
    let tree = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            (inner.clone(), 0..3u64, 0..3u64).prop_map(|(items, least, more)| {
                json!({ "type": "array", "items": items, "minItems": least, "maxItems": least + more })
            }),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|options| json!({ "anyOf": options })),
            prop::collection::btree_map("[a-z\"é]{1,4}", (inner, any::<bool>()), 0..4).prop_map(|fields| {
                let required: Vec<&String> =
                    fields.iter().filter(|(_, (_, is))| *is).map(|(name, _)| name).collect();
                let properties: Map<String, Value> =
                    fields.iter().map(|(name, (schema, _))| (name.clone(), schema.clone())).collect();
                json!({ "type": "object", "properties": properties, "required": required })
            }),
        ]
    });
    tree.prop_map(|tree| {
        json!({
            "anyOf": [tree],
            "$defs": { "shared": { "type": "array", "items": { "type": "boolean" }, "maxItems": 2 } },
        })
    })
}

#[test]
fn random_answers_to_random_schemas_validate() {
    let engines = engines();
    let (ran, whole) = (Cell::new(0), Cell::new(0));
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    proptest::test_runner::TestRunner::new(config)
        .run(&(schemas(), any::<u64>()), |(schema, seed)| {
            for engine in &engines {
                ran.set(ran.get() + 1);
                whole.set(whole.get() + usize::from(check(engine, &schema, seed)));
            }
            Ok(())
        })
        .unwrap();
    println!("{} of {} answers ended by themselves", whole.get(), ran.get());
    assert!(whole.get() * 4 > ran.get() * 3, "only {} of {}", whole.get(), ran.get());
}

#[test]
#[ignore = "needs the model that scripts/fetch-model fetches"]
fn smollm2_fills_a_form() {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(std::path::PathBuf::from);
    let cache = cache.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache"));
    let files = ModelFiles::open(&cache.join("chrysalis/models/SmolLM2-135M-Instruct.Q4_1.gguf")).unwrap();
    let engine = Engine::load(&files).unwrap();
    let schema = json!({
        "type": "object",
        "properties": {
            "capital": { "type": "string", "maxLength": 40 },
            "population_millions": { "type": "number", "minimum": 0, "maximum": 2_000 },
            "continent": { "enum": ["Africa", "America", "Asia", "Europe", "Oceania"] },
            "languages": { "type": "array", "items": { "type": "string", "maxLength": 20 }, "maxItems": 3 },
        },
        "required": ["capital", "population_millions", "continent", "languages"],
    });
    for country in ["France", "Japan", "Brazil"] {
        let content = format!("Describe {country} in JSON: capital, population, continent, languages.");
        let chat = [ChatMessage { role: "user".into(), content }];
        let prompt = engine.tokenize_chat(&chat).unwrap();
        let params = GenerateParams {
            json_schema: Some(JsonSchema::of(&schema).unwrap()),
            ..GenerateParams::greedy(200)
        };
        let given = engine.generate(&prompt, &params, &mut |_| ControlFlow::Continue(())).unwrap();
        println!("{} tokens in {} ms: {}", given.output_ids.len(), given.decode_ms, given.text);
        assert_eq!(given.finish_reason, FinishReason::Stop);
        let value: Value = serde_json::from_str(&given.text).unwrap();
        assert!(holds(&schema, &schema, &value), "{value}");
        let free = GenerateParams::greedy(given.output_ids.len());
        let free = engine.generate(&prompt, &free, &mut |_| ControlFlow::Continue(())).unwrap();
        println!("without: {} tokens in {} ms", free.output_ids.len(), free.decode_ms);
    }
}
