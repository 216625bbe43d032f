//! The rules of the file, each with its line.

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use super::document::{Document, one_line};
use super::mistake::Collector;
use crate::policy::{Policy, RuleConfig};

/// All `[[rule]]`s. A file without one grants nothing to nobody. None where a rule is a mistake.
pub(super) fn read(document: &Document<'_>, mistakes: &mut Collector) -> Option<Policy> {
    let tables = document.list("rule", mistakes);
    let rules: Vec<(usize, RuleConfig)> =
        tables.iter().filter_map(|table| rule(document, table, mistakes)).collect();
    let is_whole = rules.len() == tables.len();
    let (lines, rules): (Vec<usize>, Vec<RuleConfig>) = rules.into_iter().unzip();
    match Policy::from_config(rules) {
        Ok(policy) => is_whole.then_some(policy),
        Err(found) => {
            for mistake in found {
                let line = lines.get(mistake.index).copied().unwrap_or(1);
                mistakes.at(line, one_line(&mistake.to_string()));
            }
            None
        }
    }
}

fn rule<'i>(
    document: &Document<'i>,
    table: &Spanned<DeValue<'i>>,
    mistakes: &mut Collector,
) -> Option<(usize, RuleConfig)> {
    match RuleConfig::deserialize(ValueDeserializer::from(table.clone())) {
        Ok(rule) => Some((document.line(table.span()), rule)),
        Err(error) => {
            let line = document.line(error.span().unwrap_or_else(|| table.span()));
            mistakes.at(line, format!("[[rule]]: {}", one_line(error.message())));
            None
        }
    }
}
