//! JSON schemas (json-schema.org, draft 2020-12) that an answer is held to, of a subset in which every answer that ends
//! by itself parses and validates:
//!
//! - `object` with `properties`, `required` and `additionalProperties: false`, which is also what its absence means
//!   here: properties come in the schema's order, each at most once;
//! - `array` with `items`, `minItems`, `maxItems`; `string` with `minLength`, `maxLength`; `integer` and `number` with
//!   `minimum`, `maximum`; `boolean`; `null`; a list of types;
//! - `enum` and `const` of strings, numbers, booleans and null, with or without `type`;
//! - `anyOf`; `$ref` to `#/$defs/NAME` or `#/definitions/NAME`, but not back to itself, so that nesting is bounded;
//! - `title`, `description`, `default`, `examples`, `$comment` and `$schema`, which do nothing.
//!
//! Anything else is refused by its name. Numbers stay within ±(2⁵³ − 1) and have no exponent, so that every reader of
//! JSON reads them; between tokens of JSON there is no white space.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use thiserror::Error;

/// Bytes of a schema.
const MAX_SCHEMA_BYTES: usize = 1 << 16;
/// Schemas within a schema, those it refers to counted once.
const MAX_NODES: usize = 2_048;
/// Levels of schemas within schemas, references followed.
const MAX_DEPTH: usize = 32;
/// Values of one `enum`, options of one `anyOf`, properties of one object.
const MAX_OPTIONS: usize = 256;
/// The most that `maxLength`, `minLength`, `maxItems` and `minItems` may ask for.
const MAX_COUNT: u64 = 4_096;
/// Whole numbers up to this are the same in every reader of JSON.
const MAX_INTEGER: i64 = (1 << 53) - 1;

/// A schema that answers can be held to. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq)]
pub struct JsonSchema {
    /// In the words that the grammar's compiler reads.
    compiled: Arc<Value>,
}

/// Why an answer cannot be held to a schema. Names keywords, never names or values of the schema's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// It is no JSON.
    #[error("it is not valid JSON")]
    NotJson,
    /// It is too long.
    #[error("it has more than 65536 bytes")]
    TooLong,
    /// It holds too many schemas.
    #[error("it holds more than 2048 schemas")]
    TooLarge,
    /// Schemas within schemas go too deep.
    #[error("it nests more than 32 levels")]
    TooDeep,
    /// A keyword that is not built.
    #[error("the keyword {0} is not supported there")]
    Unsupported(&'static str),
    /// A keyword that no version of JSON schema has.
    #[error("it has a keyword that JSON schema does not have")]
    UnknownKeyword,
    /// A keyword whose value it cannot have, or not here.
    #[error("the value of {0} is not one it can have, or not one that is supported")]
    Value(&'static str),
    /// A schema that allows everything.
    #[error("a schema in it has neither type, enum, const, anyOf nor $ref")]
    Anything,
    /// A reference that leads nowhere.
    #[error("a $ref leads to no schema in $defs or definitions")]
    Reference,
    /// A reference that leads back to itself.
    #[error("a $ref leads back to itself, so that answers would have no bounded depth")]
    Recursive,
    /// A range that holds nothing.
    #[error("{0} is above {1}")]
    Empty(&'static str, &'static str),
    /// The grammar became too large, while it was made or while it was followed.
    #[error("following it takes too much work; make its lengths, counts and choices smaller")]
    TooComplex,
    /// The model's tokenizer.
    #[error("this model's tokenizer cannot be held to a schema")]
    Tokenizer,
}

impl JsonSchema {
    /// Reads a schema.
    ///
    /// # Errors
    /// [`SchemaError`]: not JSON, out of bounds, or outside the subset.
    pub fn parse(text: &str) -> Result<Self, SchemaError> {
        if text.len() > MAX_SCHEMA_BYTES {
            return Err(SchemaError::TooLong);
        }
        Self::of(&serde_json::from_str(text).map_err(|_| SchemaError::NotJson)?)
    }

    /// Takes a schema that is parsed already.
    ///
    /// # Errors
    /// As [`JsonSchema::parse`].
    pub fn of(schema: &Value) -> Result<Self, SchemaError> {
        if schema.to_string().len() > MAX_SCHEMA_BYTES {
            return Err(SchemaError::TooLong);
        }
        let mut compiler = Compiler::new(schema)?;
        let mut compiled = compiler.schema(schema, 0, true)?;
        let definitions: Map<String, Value> = compiler
            .numbers
            .values()
            .filter_map(|number| Some((number.to_string(), compiler.compiled.get(*number)?.clone()?.0)))
            .collect();
        // Where nothing else stands beside it, `$defs` would be read as a schema for anything.
        compiled["$defs"] = Value::Object(definitions);
        compiled["x-guidance"] = json!({
            "whitespace_flexible": false,
            "item_separator": ",",
            "key_separator": ":",
        });
        Ok(Self { compiled: Arc::new(compiled) })
    }

    pub(crate) fn compiled(&self) -> &Value {
        &self.compiled
    }
}

impl fmt::Debug for JsonSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonSchema").finish_non_exhaustive()
    }
}

/// A schema and how many levels it has below itself.
type Compiled = (Value, usize);

struct Compiler<'a> {
    definitions: BTreeMap<String, &'a Value>,
    numbers: BTreeMap<String, usize>,
    compiled: Vec<Option<Compiled>>,
    /// Definitions that are being compiled.
    open: HashSet<usize>,
    nodes: usize,
    /// Levels below the schema that was compiled last.
    below: usize,
}

impl<'a> Compiler<'a> {
    fn new(root: &'a Value) -> Result<Self, SchemaError> {
        let mut definitions = BTreeMap::new();
        for keyword in ["$defs", "definitions"] {
            let Some(value) = root.get(keyword) else { continue };
            let named = value.as_object().ok_or(SchemaError::Value(keyword))?;
            definitions.extend(named.iter().map(|(name, schema)| (format!("#/{keyword}/{name}"), schema)));
        }
        let numbers: BTreeMap<String, usize> = definitions.keys().cloned().zip(0..).collect();
        let compiled = vec![None; numbers.len()];
        Ok(Self { definitions, numbers, compiled, open: HashSet::new(), nodes: 0, below: 0 })
    }

    /// `schema`, `depth` levels down, in words without doubt.
    fn schema(&mut self, schema: &Value, depth: usize, is_root: bool) -> Result<Value, SchemaError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(SchemaError::TooLarge);
        }
        if depth > MAX_DEPTH {
            return Err(SchemaError::TooDeep);
        }
        self.below = 0;
        let Some(schema) = schema.as_object() else {
            return Err(if schema.is_boolean() {
                SchemaError::Anything
            } else {
                SchemaError::UnknownKeyword
            });
        };
        let keys = Keys { schema, is_root };
        if let Some(reference) = schema.get("$ref") {
            keys.only("$ref", &[])?;
            let target = reference.as_str().ok_or(SchemaError::Value("$ref"))?;
            return self.reference(target, depth);
        }
        if let Some(options) = schema.get("anyOf") {
            keys.only("anyOf", &[])?;
            let options = options.as_array().filter(|options| (1..=MAX_OPTIONS).contains(&options.len()));
            return self.any_of(options.ok_or(SchemaError::Value("anyOf"))?.iter(), depth);
        }
        for keyword in ["const", "enum"] {
            if let Some(value) = schema.get(keyword) {
                keys.only(keyword, &["type"])?;
                let one = std::slice::from_ref(value);
                let choices =
                    if keyword == "const" { Some(one) } else { value.as_array().map(Vec::as_slice) };
                return choice(keyword, choices.ok_or(SchemaError::Value(keyword))?, &keys.types()?);
            }
        }
        let types = keys.types()?;
        match types[..] {
            [] => Err(keys.only("type", &[]).err().unwrap_or(SchemaError::Anything)),
            [one] => {
                keys.only("type", keywords_of(one))?;
                self.typed(schema, one, depth)
            }
            _ => {
                let all: Vec<&str> = types.iter().flat_map(|one| keywords_of(one)).copied().collect();
                keys.only("type", &all)?;
                let options =
                    types.iter().map(|one| self.typed(schema, one, depth)).collect::<Result<Vec<_>, _>>()?;
                Ok(json!({ "anyOf": options }))
            }
        }
    }

    fn any_of<'b>(
        &mut self,
        options: impl Iterator<Item = &'b Value>,
        depth: usize,
    ) -> Result<Value, SchemaError> {
        let mut deepest = 0;
        let mut compiled = Vec::new();
        for option in options {
            compiled.push(self.schema(option, depth + 1, false)?);
            deepest = deepest.max(self.below + 1);
        }
        self.below = deepest;
        Ok(json!({ "anyOf": compiled }))
    }

    fn reference(&mut self, target: &str, depth: usize) -> Result<Value, SchemaError> {
        let number = *self.numbers.get(target).ok_or(SchemaError::Reference)?;
        let definition = *self.definitions.get(target).ok_or(SchemaError::Reference)?;
        if !self.open.insert(number) {
            return Err(SchemaError::Recursive);
        }
        let below = match &self.compiled[number] {
            Some((_, below)) => *below,
            None => {
                let compiled = self.schema(definition, depth + 1, false)?;
                self.compiled[number] = Some((compiled, self.below));
                self.below
            }
        };
        self.open.remove(&number);
        if depth + 1 + below > MAX_DEPTH {
            return Err(SchemaError::TooDeep);
        }
        self.below = below + 1;
        Ok(json!({ "$ref": format!("#/$defs/{number}") }))
    }

    /// A schema of one type, whose keywords are known to belong to it or to another of its types.
    fn typed(
        &mut self,
        schema: &Map<String, Value>,
        of: &'static str,
        depth: usize,
    ) -> Result<Value, SchemaError> {
        match of {
            "object" => self.object(schema, depth),
            "array" => {
                let items = schema.get("items").ok_or(SchemaError::Value("items"))?;
                let items = self.schema(items, depth + 1, false)?;
                self.below += 1;
                let (least, most) = counts(schema, "minItems", "maxItems")?;
                Ok(with_most(json!({ "type": "array", "items": items, "minItems": least }), "maxItems", most))
            }
            "string" => {
                let (least, most) = counts(schema, "minLength", "maxLength")?;
                Ok(with_most(json!({ "type": "string", "minLength": least }), "maxLength", most))
            }
            "integer" => {
                let bound = |keyword: &'static str, default: i64| match schema.get(keyword) {
                    None => Ok(default),
                    Some(value) => {
                        let value = value.as_i64().ok_or(SchemaError::Value(keyword))?;
                        let within = (-MAX_INTEGER..=MAX_INTEGER).contains(&value);
                        within.then_some(value).ok_or(SchemaError::Value(keyword))
                    }
                };
                let (least, most) = (bound("minimum", -MAX_INTEGER)?, bound("maximum", MAX_INTEGER)?);
                if least > most {
                    return Err(SchemaError::Empty("minimum", "maximum"));
                }
                let range =
                    |least: i64, most: i64| json!({ "type": "integer", "minimum": least, "maximum": most });
                // In one range, the grammar would allow `-0`, which many readers take for a float.
                Ok(if least < 0 && most >= 0 {
                    json!({ "anyOf": [range(least, -1), range(0, most)] })
                } else {
                    range(least, most)
                })
            }
            "number" => {
                let bound = |keyword: &'static str, default: f64| match schema.get(keyword) {
                    None => Ok(default),
                    Some(value) => {
                        let value = value.as_f64().ok_or(SchemaError::Value(keyword))?;
                        let within = value.abs() <= MAX_INTEGER as f64;
                        within.then_some(value).ok_or(SchemaError::Value(keyword))
                    }
                };
                let widest = MAX_INTEGER as f64;
                let (least, most) = (bound("minimum", -widest)?, bound("maximum", widest)?);
                if least > most {
                    return Err(SchemaError::Empty("minimum", "maximum"));
                }
                Ok(json!({ "type": "number", "minimum": least, "maximum": most }))
            }
            other => Ok(json!({ "type": other })),
        }
    }

    fn object(&mut self, schema: &Map<String, Value>, depth: usize) -> Result<Value, SchemaError> {
        if schema.get("additionalProperties").is_some_and(|value| value != &Value::Bool(false)) {
            return Err(SchemaError::Value("additionalProperties"));
        }
        let none = Map::new();
        let properties = match schema.get("properties") {
            None => &none,
            Some(value) => value.as_object().ok_or(SchemaError::Value("properties"))?,
        };
        if properties.len() > MAX_OPTIONS {
            return Err(SchemaError::Value("properties"));
        }
        let required = match schema.get("required") {
            None => &[][..],
            Some(value) => value.as_array().ok_or(SchemaError::Value("required"))?,
        };
        // One that is required and has no schema could be anything.
        if required.iter().any(|name| name.as_str().is_none_or(|name| !properties.contains_key(name))) {
            return Err(SchemaError::Value("required"));
        }
        let mut deepest = 0;
        let mut compiled = Map::new();
        for (name, property) in properties {
            compiled.insert(name.clone(), self.schema(property, depth + 1, false)?);
            deepest = deepest.max(self.below + 1);
        }
        self.below = deepest;
        Ok(json!({
            "type": "object",
            "properties": compiled,
            "required": required,
            "additionalProperties": false,
        }))
    }
}

/// A schema's keywords.
struct Keys<'a> {
    schema: &'a Map<String, Value>,
    is_root: bool,
}

impl Keys<'_> {
    /// Refuses keywords other than `main`, `others` and those that say nothing.
    fn only(&self, main: &str, others: &[&str]) -> Result<(), SchemaError> {
        const NOTES: [&str; 6] = ["title", "description", "default", "examples", "$comment", "$schema"];
        for keyword in self.schema.keys().map(String::as_str) {
            let at_the_root = self.is_root && ["$defs", "definitions", "$id"].contains(&keyword);
            if keyword == main || others.contains(&keyword) || NOTES.contains(&keyword) || at_the_root {
                continue;
            }
            let known = KEYWORDS.iter().find(|known| **known == keyword);
            return Err(known.map_or(SchemaError::UnknownKeyword, |known| SchemaError::Unsupported(known)));
        }
        Ok(())
    }

    fn types(&self) -> Result<Vec<&'static str>, SchemaError> {
        const TYPES: [&str; 7] = ["object", "array", "string", "integer", "number", "boolean", "null"];
        let known = |value: &Value| {
            let found = TYPES.iter().find(|known| value.as_str() == Some(**known));
            found.copied().ok_or(SchemaError::Value("type"))
        };
        match self.schema.get("type") {
            None => Ok(vec![]),
            Some(Value::Array(types)) if !types.is_empty() && types.len() <= TYPES.len() => {
                types.iter().map(known).collect()
            }
            Some(one) => Ok(vec![known(one)?]),
        }
    }
}

/// Keywords that a type has, `type` aside.
fn keywords_of(of: &str) -> &'static [&'static str] {
    match of {
        "object" => &["properties", "required", "additionalProperties"],
        "array" => &["items", "minItems", "maxItems"],
        "string" => &["minLength", "maxLength"],
        "integer" | "number" => &["minimum", "maximum"],
        _ => &[],
    }
}

/// Values of `enum` or `const`.
fn choice(keyword: &'static str, values: &[Value], types: &[&str]) -> Result<Value, SchemaError> {
    let is_of = |value: &Value| match value {
        Value::Null => types.contains(&"null"),
        Value::Bool(_) => types.contains(&"boolean"),
        Value::String(_) => types.contains(&"string"),
        Value::Number(number) => {
            types.contains(&"number") || (types.contains(&"integer") && number.as_i64().is_some())
        }
        Value::Array(_) | Value::Object(_) => false,
    };
    let is_small = |value: &Value| match value {
        Value::Number(number) => number.as_f64().is_some_and(|number| number.abs() <= MAX_INTEGER as f64),
        Value::Array(_) | Value::Object(_) => false,
        _ => true,
    };
    let fits = |value: &Value| is_small(value) && (types.is_empty() || is_of(value));
    if !(1..=MAX_OPTIONS).contains(&values.len()) || !values.iter().all(fits) {
        return Err(SchemaError::Value(keyword));
    }
    let options: Vec<Value> = values.iter().map(|value| json!({ "const": value })).collect();
    Ok(json!({ "anyOf": options }))
}

/// The bounds of a length or a number of items.
fn counts(
    schema: &Map<String, Value>,
    least: &'static str,
    most: &'static str,
) -> Result<(u64, Option<u64>), SchemaError> {
    let count = |keyword: &'static str| match schema.get(keyword) {
        None => Ok(None),
        Some(value) => {
            let count = value.as_u64().filter(|count| *count <= MAX_COUNT);
            count.map(Some).ok_or(SchemaError::Value(keyword))
        }
    };
    let bounds = (count(least)?.unwrap_or(0), count(most)?);
    if bounds.1.is_some_and(|most| bounds.0 > most) {
        return Err(SchemaError::Empty(least, most));
    }
    Ok(bounds)
}

fn with_most(mut schema: Value, keyword: &str, most: Option<u64>) -> Value {
    if let Some(most) = most {
        schema[keyword] = most.into();
    }
    schema
}

/// Keywords of the drafts up to 2020-12, so that a refusal can name one without repeating the client's words.
const KEYWORDS: [&str; 61] = [
    "$anchor",
    "$comment",
    "$defs",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$recursiveAnchor",
    "$recursiveRef",
    "$ref",
    "$schema",
    "$vocabulary",
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "contains",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "default",
    "definitions",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "deprecated",
    "description",
    "else",
    "enum",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "id",
    "if",
    "items",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "propertyNames",
    "readOnly",
    "required",
    "then",
    "title",
    "type",
    "unevaluatedItems",
    "unevaluatedProperties",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refused(schema: Value) -> SchemaError {
        JsonSchema::of(&schema).unwrap_err()
    }

    #[test]
    fn what_is_outside_the_subset_is_refused_by_its_name() {
        use SchemaError::*;
        for (schema, error) in [
            (json!({ "type": "string", "pattern": "a+" }), Unsupported("pattern")),
            (json!({ "type": "string", "format": "date" }), Unsupported("format")),
            (json!({ "type": "string", "minimum": 3 }), Unsupported("minimum")),
            (json!({ "type": "string", "enum": ["a"], "maxLength": 3 }), Unsupported("maxLength")),
            (json!({ "type": "number", "multipleOf": 3 }), Unsupported("multipleOf")),
            (json!({ "oneOf": [{ "type": "null" }] }), Unsupported("oneOf")),
            (json!({ "anyOf": [{ "type": "null" }], "type": "null" }), Unsupported("type")),
            (json!({ "type": "object", "patternProperties": {} }), Unsupported("patternProperties")),
            (json!({ "type": "object", "x-guidance": { "lenient": true } }), UnknownKeyword),
            (json!({ "type": "object", "properties": { "a": { "$id": "b" } } }), Unsupported("$id")),
            (json!({ "type": "object", "additionalProperties": true }), Value("additionalProperties")),
            (json!({ "type": "object", "additionalProperties": {} }), Value("additionalProperties")),
            (json!({ "type": "object", "required": ["a"] }), Value("required")),
            (json!({ "type": "object", "properties": [] }), Value("properties")),
            (json!({ "type": "array" }), Value("items")),
            (json!({ "type": "array", "items": true }), Anything),
            (json!({ "type": "array", "items": { "type": "null" }, "maxItems": -1 }), Value("maxItems")),
            (json!({ "type": "string", "maxLength": 1u64 << 40 }), Value("maxLength")),
            (json!({ "type": "string", "minLength": 3, "maxLength": 2 }), Empty("minLength", "maxLength")),
            (json!({ "type": "integer", "minimum": 3, "maximum": 2 }), Empty("minimum", "maximum")),
            (json!({ "type": "integer", "minimum": 0.5 }), Value("minimum")),
            (json!({ "type": "number", "maximum": 1e300 }), Value("maximum")),
            (json!({ "type": "text" }), Value("type")),
            (json!({ "type": [] }), Value("type")),
            (json!({ "enum": [] }), Value("enum")),
            (json!({ "enum": [{}] }), Value("enum")),
            (json!({ "type": "string", "enum": ["a", 1] }), Value("enum")),
            (json!({ "type": "integer", "const": 1.5 }), Value("const")),
            (json!({ "const": 1e300 }), Value("const")),
            (json!({ "anyOf": [] }), Value("anyOf")),
            (json!({ "$ref": "#/$defs/a" }), Reference),
            (json!({ "$ref": "#" }), Reference),
            (json!({ "$ref": "https://example.com" }), Reference),
            (json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/a" } } }), Recursive),
            (json!({}), Anything),
            (json!(true), Anything),
            (json!([]), UnknownKeyword),
        ] {
            assert_eq!(refused(schema.clone()), error, "{schema}");
        }
        assert_eq!(JsonSchema::parse("{").unwrap_err(), NotJson);
        assert_eq!(JsonSchema::parse(&" ".repeat(70_000)).unwrap_err(), TooLong);
    }

    #[test]
    fn bombs_are_refused() {
        let mut deep = json!({ "type": "null" });
        for _ in 0..100 {
            deep = json!({ "type": "array", "items": deep });
        }
        assert_eq!(refused(deep), SchemaError::TooDeep);
        // Each definition refers twice to the next.
        let definitions: Map<String, Value> = (0..40)
            .map(|index| {
                let next = json!({ "$ref": format!("#/$defs/d{}", index + 1) });
                (format!("d{index}"), json!({ "anyOf": [next, next] }))
            })
            .chain([("d40".to_owned(), json!({ "type": "null" }))])
            .collect();
        let bomb = json!({ "$ref": "#/$defs/d0", "$defs": definitions });
        assert_eq!(refused(bomb), SchemaError::TooDeep);
        let names: Map<String, Value> =
            (0..300).map(|index| (format!("p{index}"), json!({ "type": "null" }))).collect();
        let wide = json!({ "type": "object", "properties": names });
        assert_eq!(refused(wide), SchemaError::Value("properties"));
    }

    #[test]
    fn levels_are_counted_through_references_of_every_order() {
        // A definition that is compiled near the root first counts again where it is used deep down.
        let nested = |levels: usize, inner: Value| {
            (0..levels).fold(inner, |inner, _| json!({ "type": "array", "items": inner }))
        };
        let schema = |levels: usize| {
            json!({
                "type": "object",
                "properties": {
                    "a": { "$ref": "#/$defs/d" },
                    "b": nested(levels, json!({ "$ref": "#/$defs/d" })),
                },
                "$defs": { "d": nested(20, json!({ "type": "null" })) },
            })
        };
        assert!(JsonSchema::of(&schema(10)).is_ok());
        assert_eq!(refused(schema(11)), SchemaError::TooDeep);
    }

    #[test]
    fn debug_shows_nothing() {
        let schema = JsonSchema::of(&json!({ "const": "canary" })).unwrap();
        assert!(!format!("{schema:?}").contains("canary"));
    }
}
