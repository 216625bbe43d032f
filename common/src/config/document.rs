//! A TOML document that is read key by key, and collects every mistake instead of stopping at the
//! first.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::Range;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::mistake::{Mistake, Mistakes};
use crate::text::one_line;

/// A document being read.
#[derive(Debug)]
pub struct Document<'i> {
    source: &'i str,
    root: Spanned<DeTable<'i>>,
    is_toml: bool,
    known: Vec<&'static str>,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'i> Document<'i> {
    /// Parses as much of `source` as is TOML; the rest is a mistake.
    #[must_use]
    pub fn parse(source: &'i str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(source);
        let mistakes = RefCell::default();
        let document = Self { source, root, is_toml: errors.is_empty(), known: Vec::new(), mistakes };
        for error in errors {
            document.mistake(error.span().unwrap_or_default(), format!("not TOML: {}", error.message()));
        }
        document
    }

    /// Reads the section `[name]`; an absent one has no keys.
    pub fn section<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Section<'_, 'i>) -> T) -> T {
        self.known.push(name);
        let found = self.root.get_ref().get(name);
        let table = found.and_then(|value| value.get_ref().as_table());
        if let (Some(value), None) = (found, table) {
            self.mistake(value.span(), format!("`{name}` is a section: write [{name}]"));
        }
        let mut section = Section { document: self, name, table, known: Vec::new() };
        let read = read(&mut section);
        section.report_unknown_keys();
        read
    }

    /// The tables `[[name]]` that can be deserialized, each with its line.
    pub fn tables<T: DeserializeOwned>(&mut self, name: &'static str) -> Vec<(usize, T)> {
        self.known.push(name);
        let Some(value) = self.root.get_ref().get(name) else { return Vec::new() };
        let Some(tables) = value.get_ref().as_array() else {
            self.mistake(value.span(), format!("`{name}` is a list of tables: write [[{name}]]"));
            return Vec::new();
        };
        tables.iter().filter_map(|table| Some((self.line(&table.span()), self.table(name, table)?))).collect()
    }

    fn table<T: DeserializeOwned>(&self, name: &str, table: &Spanned<DeValue<'i>>) -> Option<T> {
        let read = T::deserialize(ValueDeserializer::from(table.clone()));
        let report = |error: toml::de::Error| {
            let span = error.span().unwrap_or_else(|| table.span());
            self.mistake(span, format!("[[{name}]]: {}", error.message()));
        };
        read.map_err(report).ok()
    }

    /// Reports a mistake in `line`, or in none: a wrong flag.
    pub fn mistake_at(&self, line: Option<usize>, text: &str) {
        // A key is named as it is written, and may hold control characters.
        self.mistakes.borrow_mut().push(Mistake { line, text: one_line(text).collect() });
    }

    /// Returns `read` if the document has no mistake.
    ///
    /// # Errors
    /// All mistakes, among them every section that was not read.
    pub fn finish<T>(self, file: Option<PathBuf>, read: Option<T>) -> Result<T, Mistakes> {
        let sections = self.known.join(", ");
        for key in self.root.get_ref().keys().filter(|key| !self.known.contains(&&**key.get_ref())) {
            let text = format!("unknown section [{}]: the sections are {sections}", key.get_ref());
            self.mistake(key.span(), text);
        }
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|mistake| mistake.line.unwrap_or(usize::MAX));
        match read {
            Some(read) if mistakes.is_empty() => Ok(read),
            _ => Err(Mistakes { file, mistakes }),
        }
    }

    fn mistake(&self, span: Range<usize>, text: String) {
        self.mistake_at(Some(self.line(&span)), &text);
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.source.as_bytes().iter().take(span.start);
        1 + before.filter(|byte| **byte == b'\n').count()
    }
}

/// One `[section]` being read.
#[derive(Debug)]
pub struct Section<'d, 'i> {
    document: &'d Document<'i>,
    name: &'static str,
    table: Option<&'d DeTable<'i>>,
    known: Vec<&'static str>,
}

impl<'d, 'i> Section<'d, 'i> {
    /// The string under `key`, parsed. `None` if it is absent or a mistake. `parse` must not repeat
    /// the string in its error.
    pub fn parsed<T, E: Display>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.value(key, "a string, in quotation marks", |value| value.as_str())?;
        parse(text).map_err(|error| self.mistake(key, &error.to_string())).ok()
    }

    /// The boolean under `key`. `None` if it is absent or a mistake.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.value(key, "true or false, without quotation marks", |value| value.as_bool())
    }

    /// The positive whole number under `key`, else `default`.
    pub fn number<N: TryFrom<u64>>(&mut self, key: &'static str, default: N) -> N {
        let Some(number) = self.value(key, "a whole number", |value| value.as_integer()) else {
            return default;
        };
        let most = (u64::MAX >> (64 - 8 * size_of::<N>())).min(i64::MAX.unsigned_abs());
        let number = u64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok();
        let number = number.filter(|number| (1..=most).contains(number)).and_then(|n| N::try_from(n).ok());
        number.unwrap_or_else(|| {
            self.mistake(key, &format!("write a whole number from 1 to {most}"));
            default
        })
    }

    /// The array of strings under `key`, each parsed. `None` if it is absent or not an array.
    pub fn list<T, E: Display>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        let items = self.value(key, "an array of strings", |value| value.as_array())?;
        let mut parsed = Vec::with_capacity(items.len());
        for item in items.iter() {
            let result = match item.get_ref().as_str() {
                Some(text) => parse(text).map_err(|error| error.to_string()),
                None => Err("expected a string".to_owned()),
            };
            match result {
                Ok(value) => parsed.push(value),
                Err(error) => self.mistake_in(key, item.span(), &error),
            }
        }
        Some(parsed)
    }

    /// Reports `key` as missing, unless it is there.
    pub fn missing(&self, key: &'static str, remedy: &str) {
        // A document that is not TOML may well have the key, out of the parser's sight.
        if self.document.is_toml && !self.has(key) {
            self.mistake_outside(&format!("[{}] {key} is missing: {remedy}", self.name));
        }
    }

    /// Reports a mistake in the value of `key`.
    pub fn mistake(&self, key: &'static str, text: &str) {
        let span = self.table.and_then(|table| table.get(key)).map_or(0..0, Spanned::span);
        self.mistake_in(key, span, text);
    }

    /// Reports a mistake that is in no line of the file, such as a flag's.
    pub fn mistake_outside(&self, text: &str) {
        self.document.mistake_at(None, text);
    }

    /// Whether `key` is written, well or not.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    fn value<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&'d DeValue<'i>) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        let value = self.table?.get(key)?.get_ref();
        let read = read(value);
        if read.is_none() {
            self.mistake(key, &format!("expected {expected}, found a value of type {}", value.type_str()));
        }
        read
    }

    fn mistake_in(&self, key: &str, span: Range<usize>, text: &str) {
        self.document.mistake(span, format!("[{}] {key}: {text}", self.name));
    }

    fn report_unknown_keys(&self) {
        let keys = self.table.iter().flat_map(|table| table.keys());
        for key in keys.filter(|key| !self.known.contains(&&**key.get_ref())) {
            let known = self.known.join(", ");
            let text = format!("unknown key `{}` in [{}]: its keys are {known}", key.get_ref(), self.name);
            self.document.mistake(key.span(), text);
        }
    }
}
