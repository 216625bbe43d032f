//! Reads a TOML document key by key and collects every mistake with its line, instead of stopping at the first.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One mistake, and what to do about it. Never repeats the value at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line in the file, from 1; none where the mistake is something that is not there.
    pub line: Option<usize>,
    /// What is wrong, and the remedy.
    pub text: String,
}

impl Mistake {
    /// A key is named as it is written, and may hold what a terminal would obey.
    fn on_one_line(mut self) -> Self {
        self.text = self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// A document being read.
pub(super) struct Document<'i> {
    source: &'i str,
    root: Spanned<DeTable<'i>>,
    mistakes: Vec<Mistake>,
    well_formed: bool,
}

impl<'i> Document<'i> {
    /// Parses as much of `source` as is TOML.
    pub(super) fn parse(source: &'i str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(source);
        let mut document = Self { source, root, mistakes: Vec::new(), well_formed: errors.is_empty() };
        for error in errors {
            let line = error.span().map(|span| document.line(&span));
            document.mistakes.push(Mistake { line, text: format!("not TOML: {}", error.message()) });
        }
        document
    }

    /// Reads the sections in turn; `read` takes a [`Section`] for each of `names`.
    pub(super) fn section<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Section<'_, 'i>) -> T,
    ) -> T {
        let mut mistakes = std::mem::take(&mut self.mistakes);
        let found = self.root.get_ref().get(name);
        let table = found.and_then(|value| value.get_ref().as_table());
        if let (Some(value), None) = (found, table) {
            let text = format!("`{name}` is a section: write it as [{name}]");
            mistakes.push(Mistake { line: Some(self.line(&value.span())), text });
        }
        let mut section = Section { document: self, name, table, mistakes, known: Vec::new() };
        let read = read(&mut section);
        section.report_unknown_keys();
        let mistakes = section.mistakes;
        self.mistakes = mistakes;
        read
    }

    /// Reports every section that is none of `names`.
    pub(super) fn only_sections(&mut self, names: &[&str]) {
        let unknown = self.root.get_ref().iter().filter(|(key, _)| !names.contains(&&**key.get_ref()));
        let mistakes: Vec<Mistake> = unknown
            .map(|(key, _)| Mistake {
                line: Some(self.line(&key.span())),
                text: format!("unknown section `{}`; there are: {}", key.get_ref(), names.join(", ")),
            })
            .collect();
        self.mistakes.extend(mistakes);
    }

    /// Every mistake, in the order of the file.
    pub(super) fn finish(self) -> Vec<Mistake> {
        let mut mistakes: Vec<Mistake> = self.mistakes.into_iter().map(Mistake::on_one_line).collect();
        mistakes.sort_by_key(|mistake| mistake.line.unwrap_or(usize::MAX));
        mistakes
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.source.as_bytes().iter().take(span.start);
        1 + before.filter(|byte| **byte == b'\n').count()
    }
}

/// One `[section]`. Each key that is asked for is known; what is left over at the end is a mistake.
pub(super) struct Section<'d, 'i> {
    document: &'d Document<'i>,
    name: &'static str,
    table: Option<&'d DeTable<'i>>,
    mistakes: Vec<Mistake>,
    known: Vec<&'static str>,
}

impl<'d, 'i> Section<'d, 'i> {
    /// A string under `key`, if there is one.
    pub(super) fn text(&mut self, key: &'static str) -> Option<&'d str> {
        self.value(key, "a string", |value| value.as_str())
    }

    /// A positive whole number under `key`, else `default`.
    pub(super) fn number(&mut self, key: &'static str, default: u64) -> u64 {
        let read = |value: &'d DeValue<'i>| value.as_integer();
        let Some(number) = self.value(key, "a whole number", read) else { return default };
        match u64::from_str_radix(&number.as_str().replace('_', ""), number.radix()) {
            Ok(number) if number > 0 && i64::try_from(number).is_ok() => number,
            _ => {
                self.mistake(key, "write a whole number of at least 1");
                default
            }
        }
    }

    /// As [`Self::number`], at most `u32::MAX`.
    pub(super) fn small_number(&mut self, key: &'static str, default: u32) -> u32 {
        u32::try_from(self.number(key, default.into())).unwrap_or_else(|_| {
            self.mistake(key, "write a number of at most 4294967295");
            default
        })
    }

    /// A string under `key`, parsed. `parse` says what is wrong without repeating the string.
    pub(super) fn parsed<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(key)?;
        parse(text).map_err(|error| self.mistake(key, &error.to_string())).ok()
    }

    /// An array of strings under `key`, each parsed.
    pub(super) fn list<T, E: fmt::Display>(
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
                Err(error) => self.mistake_at(key, &item.span(), &error),
            }
        }
        Some(parsed)
    }

    /// Reports that `key` has to be there.
    pub(super) fn missing(&mut self, key: &'static str, remedy: &str) {
        // A document that is not TOML may well have the key, out of the parser's sight.
        if self.document.well_formed && !self.has(key) {
            let text = format!("[{}] {key} is missing: {remedy}", self.name);
            self.mistakes.push(Mistake { line: None, text });
        }
    }

    /// Reports a mistake in the value of `key`.
    pub(super) fn mistake(&mut self, key: &'static str, text: &str) {
        let span = self.table.and_then(|table| table.get(key)).map_or(0..0, |value| value.span());
        self.mistake_at(key, &span, text);
    }

    /// Whether `key` is written, well or not.
    pub(super) fn has(&self, key: &str) -> bool {
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

    fn mistake_at(&mut self, key: &str, span: &Range<usize>, text: &str) {
        let line = Some(self.document.line(span));
        self.mistakes.push(Mistake { line, text: format!("[{}] {key}: {text}", self.name) });
    }

    fn report_unknown_keys(&mut self) {
        let Some(table) = self.table else { return };
        for (key, _) in table.iter().filter(|(key, _)| !self.known.contains(&&**key.get_ref())) {
            let text = format!(
                "unknown key `{}` in [{}]; there are: {}",
                key.get_ref(),
                self.name,
                self.known.join(", ")
            );
            self.mistakes.push(Mistake { line: Some(self.document.line(&key.span())), text });
        }
    }
}
