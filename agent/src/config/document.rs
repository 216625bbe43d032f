//! A TOML document whose every key and value still knows its line.

use std::fmt::Display;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::Collector;

/// A parsed document, or as much of it as could be.
pub(super) struct Document<'i> {
    source: &'i str,
    table: Spanned<DeTable<'i>>,
}

impl<'i> Document<'i> {
    /// Parses `source` as far as it goes; what is no TOML is reported.
    pub(super) fn parse(source: &'i str, mistakes: &mut Collector) -> Self {
        let (table, errors) = DeTable::parse_recoverable(source);
        for error in errors {
            let line = line_of(source, error.span().unwrap_or_default());
            mistakes.at(line, format!("not TOML: {}", one_line(error.message())));
        }
        Self { source, table }
    }

    /// Reports what is at the top and neither a known section nor a known list.
    pub(super) fn allow(&self, known: &[&str], mistakes: &mut Collector) {
        for key in self.table.get_ref().keys() {
            if !known.contains(&key.get_ref().as_ref()) {
                let text = format!("there is no [{}]: the sections are {}", key.get_ref(), known.join(", "));
                mistakes.at(self.line(key.span()), text);
            }
        }
    }

    /// The section `[name]`, whose keys must be among `known`. An absent one is empty.
    pub(super) fn section(
        &self,
        name: &'static str,
        known: &[&str],
        mistakes: &mut Collector,
    ) -> Section<'_, 'i> {
        let table = self.table.get_ref().get(name).and_then(|value| {
            let table = value.get_ref().as_table();
            if table.is_none() {
                mistakes.at(self.line(value.span()), format!("{name} is a section: write [{name}]"));
            }
            table
        });
        let section = Section { document: self, name, table };
        section.allow(known, mistakes);
        section
    }

    /// The tables `[[name]]`, in order.
    pub(super) fn list(&self, name: &str, mistakes: &mut Collector) -> &[Spanned<DeValue<'i>>] {
        let Some(value) = self.table.get_ref().get(name) else { return &[] };
        match value.get_ref() {
            DeValue::Array(list) => list,
            _ => {
                mistakes.at(self.line(value.span()), format!("{name} is a list: write [[{name}]]"));
                &[]
            }
        }
    }

    /// The line of a place in the source, counted from 1.
    pub(super) fn line(&self, span: Range<usize>) -> usize {
        line_of(self.source, span)
    }
}

/// One section.
pub(super) struct Section<'a, 'i> {
    document: &'a Document<'i>,
    name: &'static str,
    table: Option<&'a DeTable<'i>>,
}

impl Section<'_, '_> {
    fn allow(&self, known: &[&str], mistakes: &mut Collector) {
        for key in self.table.iter().flat_map(|table| table.keys()) {
            if !known.contains(&key.get_ref().as_ref()) {
                let (name, keys) = (self.name, known.join(", "));
                let text = format!("[{name}] has no key {}: its keys are {keys}", key.get_ref());
                mistakes.at(self.document.line(key.span()), text);
            }
        }
    }

    /// Whether `key` is there, were it a mistake.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// `true` or `false` under `key`; none where it is absent or a mistake, which is reported.
    pub(super) fn flag(&self, key: &str, mistakes: &mut Collector) -> Option<bool> {
        let value = self.table?.get(key)?;
        let DeValue::Boolean(flag) = value.get_ref() else {
            let line = self.document.line(value.span());
            mistakes.at(line, format!("[{}] {key} is true or false, without quotation marks", self.name));
            return None;
        };
        Some(*flag)
    }

    /// The string under `key`, parsed; none where it is absent or a mistake, which is reported.
    pub(super) fn parsed<T, E: Display>(
        &self,
        key: &str,
        mistakes: &mut Collector,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let value = self.table?.get(key)?;
        let line = self.document.line(value.span());
        let Some(text) = value.get_ref().as_str() else {
            mistakes.at(line, format!("[{}] {key} is a string: put it in quotation marks", self.name));
            return None;
        };
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                mistakes.at(line, format!("[{}] {key}: {error}", self.name));
                None
            }
        }
    }
}

fn line_of(source: &str, span: Range<usize>) -> usize {
    let before = &source.as_bytes()[..span.start.min(source.len())];
    1 + before.iter().filter(|b| **b == b'\n').count()
}

pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
