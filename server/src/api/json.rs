//! JSON objects from callers: strict, and without an echo.
//!
//! serde's own errors quote the text that they could not read, which may be a secret in the wrong
//! place. So objects are read field by field against a table ([`Object::FIELDS`]), and an error
//! repeats only the table's words and a position. Unknown, duplicate and missing fields are errors.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use devbox_secrets_proto::secret::SecretBytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::error::Category;

use super::body::MAX_BODY_LEN;

#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// The expected type, such as "a string".
    pub(super) form: &'static str,
    pub(super) required: bool,
}

/// A JSON object with a fixed set of fields.
pub(super) trait Object: Default {
    const FIELDS: &'static [Field];

    /// Fields that callers of other servers send, and why this server rejects them.
    const FOREIGN: (&'static [&'static str], &'static str) = (&[], "");

    /// Longest body of this form, in bytes.
    const MAX_LEN: usize = MAX_BODY_LEN;

    /// Reads the value of `FIELDS[field]`, which comes once.
    fn read<'de, A: MapAccess<'de>>(&mut self, field: usize, map: &mut A) -> Result<(), A::Error>;
}

/// Why bytes are not the expected object. Of the bytes, it repeats only names of known fields.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidJson(String);

impl fmt::Display for InvalidJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Parses `bytes` as exactly one object of the form `T`.
pub(super) fn parse<T: Object>(bytes: &[u8]) -> Result<T, InvalidJson> {
    let problem = Cell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    ObjectSeed { problem: &problem, object: PhantomData::<T> }
        .deserialize(&mut deserializer)
        .and_then(|object| deserializer.end().map(|()| object))
        .map_err(|error| describe::<T>(&error, problem.take()))
}

/// The first problem of an object that is JSON.
#[derive(Debug, Clone, Copy)]
enum Problem {
    Unknown,
    Foreign(&'static str),
    Duplicate(usize),
    Form(usize),
    Missing(usize),
}

fn describe<T: Object>(error: &serde_json::Error, problem: Option<Problem>) -> InvalidJson {
    let place = format!("line {} column {}", error.line(), error.column());
    if error.classify() != Category::Data {
        return InvalidJson(format!("the body is not JSON: see {place}"));
    }
    let name = |field: usize| T::FIELDS[field].name;
    InvalidJson(match problem {
        None => "the body has to be one JSON object".to_owned(),
        Some(Problem::Unknown) => format!("unknown field at {place}; this request takes {}", names::<T>()),
        Some(Problem::Foreign(field)) => format!("`{field}` is not taken: {}", T::FOREIGN.1),
        Some(Problem::Duplicate(field)) => format!("`{}` is there twice, at {place}", name(field)),
        Some(Problem::Form(field)) => {
            format!("`{}` has to be {}, see {place}", name(field), T::FIELDS[field].form)
        }
        Some(Problem::Missing(field)) => {
            format!("`{}` is missing: it has to be {}", name(field), T::FIELDS[field].form)
        }
    })
}

fn names<T: Object>() -> String {
    let names: Vec<&str> = T::FIELDS.iter().map(|field| field.name).collect();
    if names.is_empty() { "no fields".to_owned() } else { names.join(", ") }
}

struct ObjectSeed<'p, T> {
    problem: &'p Cell<Option<Problem>>,
    object: PhantomData<T>,
}

impl<T> ObjectSeed<'_, T> {
    /// Notes the problem beside serde's error, whose text is never shown.
    fn fail<E: Error>(&self, problem: Problem) -> E {
        self.problem.set(Some(problem));
        E::custom("see the problem that was noted")
    }
}

impl<'de, T: Object> DeserializeSeed<'de> for ObjectSeed<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Object> Visitor<'de> for ObjectSeed<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut object = T::default();
        let mut seen = vec![false; T::FIELDS.len()];
        while let Some(key) = map.next_key_seed(KeySeed(PhantomData::<T>))? {
            let field = key.map_err(|problem| self.fail::<A::Error>(problem))?;
            if std::mem::replace(&mut seen[field], true) {
                return Err(self.fail(Problem::Duplicate(field)));
            }
            self.problem.set(Some(Problem::Form(field)));
            object.read(field, &mut map)?;
            self.problem.set(None);
        }
        let missing = T::FIELDS.iter().zip(&seen).position(|(field, seen)| field.required && !seen);
        match missing {
            Some(field) => Err(self.fail(Problem::Missing(field))),
            None => Ok(object),
        }
    }
}

/// Reads a key as an index into `T::FIELDS`.
struct KeySeed<T>(PhantomData<T>);

impl<'de, T: Object> DeserializeSeed<'de> for KeySeed<T> {
    type Value = Result<usize, Problem>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<T: Object> Visitor<'_> for KeySeed<T> {
    type Value = Result<usize, Problem>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        let known = T::FIELDS.iter().position(|field| field.name == key);
        let foreign = || T::FOREIGN.0.iter().find(|name| **name == key);
        Ok(known.ok_or_else(|| foreign().map_or(Problem::Unknown, |name| Problem::Foreign(name))))
    }
}

/// A string that is a secret: copied once, out of the body, into its own wiped buffer.
pub(super) struct SecretText(pub(super) SecretBytes);

impl Default for SecretText {
    fn default() -> Self {
        Self(SecretBytes::new(Vec::new()))
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl Visitor<'_> for TextVisitor {
            type Value = SecretText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<SecretText, E> {
                Ok(SecretText(SecretBytes::new(text.as_bytes().to_vec())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// An object whose names the caller chooses. A duplicate name is an error: the last one does not
/// win.
pub(super) struct UniqueMap<V>(pub(super) BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor(PhantomData))
    }
}

struct UniqueVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for UniqueVisitor<V> {
    type Value = UniqueMap<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, V>()? {
            if entries.insert(key, value).is_some() {
                return Err(A::Error::custom("a name is there twice"));
            }
        }
        Ok(UniqueMap(entries))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Sample {
        name: String,
        value: Option<SecretText>,
        labels: BTreeMap<String, String>,
    }

    impl Object for Sample {
        const FIELDS: &'static [Field] = &[
            Field { name: "name", form: "a string", required: true },
            Field { name: "value", form: "a string", required: true },
            Field { name: "labels", form: "an object of strings", required: false },
        ];
        const FOREIGN: (&'static [&'static str], &'static str) = (&["image"], "no machine is started");

        fn read<'de, A: MapAccess<'de>>(&mut self, field: usize, map: &mut A) -> Result<(), A::Error> {
            match field {
                0 => self.name = map.next_value()?,
                1 => self.value = Some(map.next_value()?),
                _ => self.labels = map.next_value::<UniqueMap<String>>()?.0,
            }
            Ok(())
        }
    }

    fn error(text: &str) -> String {
        parse::<Sample>(text.as_bytes()).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn fields_come_in_any_order_and_escapes_are_resolved() {
        let sample: Sample = parse(br#" {"value": "a\"\u00e9\n\ud83d\ude00", "name": "N"} "#).unwrap();
        assert_eq!(sample.value.unwrap().0.expose_secret(), "a\"é\n😀".as_bytes());
        assert_eq!((sample.name.as_str(), sample.labels.len()), ("N", 0));
    }

    #[test]
    fn each_mistake_names_its_field_and_its_place() {
        let cases = [
            (r#"{"name": "N"}"#, "`value` is missing: it has to be a string"),
            (r#"{"name": "N", "name": "N"}"#, "`name` is there twice, at line 1 column 20"),
            (r#"{"name": 7}"#, "`name` has to be a string, see line 1 column 10"),
            (r#"{"value": null}"#, "`value` has to be a string, see line 1 column 14"),
            (r#"{"labels": {"a": "1", "a": "2"}}"#, "`labels` has to be an object of strings"),
            (r#"{"image": 1}"#, "`image` is not taken: no machine is started"),
            (r#"{"other": 1}"#, "unknown field at line 1 column 8; this request takes name, value, labels"),
            ("[1]", "the body has to be one JSON object"),
            ("7", "the body has to be one JSON object"),
            (r#"{"name": "N"#, "the body is not JSON: see line 1 column 11"),
            (r#"{"name": "N", "value": "V"} x"#, "the body is not JSON: see line 1 column 29"),
            ("", "the body is not JSON: see line 1 column 0"),
            (r#"{"value": "\ud800"}"#, "the body is not JSON"),
        ];
        for (text, expected) in cases {
            let found = error(text);
            assert!(found.starts_with(expected), "{text}: {found}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_not_json() {
        assert!(parse::<Sample>(b"{\"name\": \"\xff\"}").is_err());
    }

    proptest! {
        #[test]
        fn no_mistake_echoes_the_input(canary in "[g-z]{12}") {
            let places = [
                format!(r#"{{"name": "N", "value": "{canary}", "value": "x"}}"#),
                format!(r#"{{"{canary}": "x"}}"#),
                format!(r#"{{"labels": "{canary}"}}"#),
                format!(r#"{{"labels": {{"{canary}": 1}}}}"#),
                format!(r#""{canary}""#),
                format!(r#"{{"value": "{canary}"#),
                canary.clone(),
            ];
            for text in places {
                let found = error(&text);
                prop_assert!(!found.is_empty() && !found.contains(&canary), "{text}: {found}");
            }
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse::<Sample>(&bytes);
        }
    }
}
