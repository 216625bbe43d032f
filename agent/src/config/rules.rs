//! The rules of the file, each with its line.

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use super::document::{Document, one_line};
use super::mistake::Collector;
use crate::access::policy::{Policy, RuleConfig};
use crate::local_api::credentials::rules::{CredentialRule, CredentialRuleConfig, CredentialRules};

/// All `[[rule]]`s. A file without one grants nothing to nobody. None where a rule is a mistake.
pub(super) fn read(document: &Document<'_>, mistakes: &mut Collector) -> Option<Policy> {
    let tables = document.list("rule", mistakes);
    let rules: Vec<(usize, RuleConfig)> =
        tables.iter().filter_map(|table| deserialized(document, table, "rule", mistakes)).collect();
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

/// All `[[credential]]`s. None where one is a mistake.
pub(super) fn read_credentials(document: &Document<'_>, mistakes: &mut Collector) -> Option<CredentialRules> {
    let tables = document.list("credential", mistakes);
    let rules: Vec<CredentialRule> =
        tables.iter().filter_map(|table| credential(document, table, mistakes)).collect();
    (rules.len() == tables.len()).then(|| CredentialRules::new(rules))
}

fn credential<'i>(
    document: &Document<'i>,
    table: &Spanned<DeValue<'i>>,
    mistakes: &mut Collector,
) -> Option<CredentialRule> {
    let (line, config) = deserialized::<CredentialRuleConfig>(document, table, "credential", mistakes)?;
    let rule = CredentialRule::from_config(&config);
    rule.map_err(|mistake| mistakes.at(line, one_line(&format!("[[credential]]: {mistake}")))).ok()
}

/// One table of a list, and its line.
fn deserialized<'i, T: Deserialize<'i>>(
    document: &Document<'i>,
    table: &Spanned<DeValue<'i>>,
    list: &str,
    mistakes: &mut Collector,
) -> Option<(usize, T)> {
    match T::deserialize(ValueDeserializer::from(table.clone())) {
        Ok(read) => Some((document.line(table.span()), read)),
        Err(error) => {
            let line = document.line(error.span().unwrap_or_else(|| table.span()));
            mistakes.at(line, format!("[[{list}]]: {}", one_line(error.message())));
            None
        }
    }
}
