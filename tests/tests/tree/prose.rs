//! Plain English: the parts of the rule for words (CONTRIBUTING.md) that a pattern can check, over comments, documents, help
//! texts and messages.
//!
//! Faults that are still there are counted, for each folder of the checkout. The count may only sink: lower the folder's
//! ceiling in `CEILINGS` when you mend some.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::files::{self, File};
use crate::rust_text::{self, Words};

/// How many faults each folder may still have. `.` is the root of the checkout. A folder without a row may have none.
const CEILINGS: &[(&str, usize)] = &[
    ("agent", 0),
    ("common", 0),
    ("docs", 0),
    ("proto", 0),
    ("shim", 0),
    ("systemd", 0),
    ("tests", 0),
    ("xtask", 0),
];

/// Sentences that break the rule for a reason: the end of the path, a part of the line, the reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("tree/prose.rs", "", "it names the words that it looks for"),
    ("CONTRIBUTING.md", "| the log level is none", "an example of the fault"),
];

/// The words with which no sentence begins: its subject is a noun.
const SUBJECTS: [&str; 6] = ["What", "Whoever", "Who", "Nothing", "Nobody", "None"];

/// Forms in which "where" means "if" or "when", and those of "X is none" for "invalid X".
const FORMS: [(&str, &str); 11] = [
    ("none where", "write \"`None` if\""),
    ("nothing where", "write \"if\""),
    ("only where", "write \"only if\" or \"only when\""),
    ("except where", "write \"except if\" or \"unless\""),
    ("even where", "write \"even if\""),
    ("but where", "write \"but if\""),
    ("also where", "write \"also if\""),
    ("that is none", "write \"invalid …\""),
    ("which is none", "write \"invalid …\""),
    ("is none:", "write \"invalid …\""),
    ("are none:", "write \"invalid …\""),
];

#[test]
fn sentences_begin_with_a_noun_and_conditions_with_if() {
    let mut faults: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let extensions = ["rs", "md", "toml", "service", "socket", "target", "conf", "sh"];
    for file in files::with_extension(&extensions) {
        let folder = match file.path.components().count() {
            1 => ".".to_owned(),
            _ => file.path.iter().next().unwrap().to_string_lossy().into_owned(),
        };
        faults.entry(folder).or_default().extend(faults_of(&file));
    }
    let mut report = String::new();
    for (folder, found) in &faults {
        let ceiling = CEILINGS.iter().find(|(of, _)| of == folder).map_or(0, |(_, ceiling)| *ceiling);
        if found.len() > ceiling {
            let lines = found.join("\n  ");
            let _ = writeln!(report, "{folder}: {} faults, {ceiling} allowed:\n  {lines}", found.len());
        }
    }
    assert!(report.is_empty(), "see \"Words\" in CONTRIBUTING.md\n{report}");
}

/// The faults of a file, a line each.
fn faults_of(file: &File) -> Vec<String> {
    let path = file.path.display().to_string();
    let mut faults = Vec::new();
    for (line, text, is_literal) in passages(file) {
        let found =
            subject(&text).or_else(|| if is_literal { message(&text) } else { None }).or_else(|| form(&text));
        let is_exception =
            || EXCEPTIONS.iter().any(|(end, part, _)| path.ends_with(end) && text.contains(part));
        if let Some(fault) = found.filter(|_| !is_exception()) {
            faults.push(format!("{path}:{line}: {fault}: {text}"));
        }
    }
    if file.extension() == "rs" {
        faults.extend(
            names(&file.text)
                .map(|(line, name)| format!("{path}:{line}: the name's subject is no noun: {name}")),
        );
    }
    faults
}

/// The passages of a file that people read: line, text, and whether it is a string literal.
fn passages(file: &File) -> Vec<(usize, String, bool)> {
    match file.extension() {
        "rs" => rust_text::words(&file.text)
            .into_iter()
            .flat_map(|(number, words)| match words {
                Words::Comment(text) => vec![(number, text, false)],
                Words::Literal(text) => text.lines().map(|text| (number, text.to_owned(), true)).collect(),
            })
            .collect(),
        "md" => {
            prose_of_markdown(&file.text).map(|(number, line)| (number, line.to_owned(), false)).collect()
        }
        _ => numbered(&file.text)
            .filter_map(|(number, line)| {
                Some((number, line.trim_start().strip_prefix('#')?.to_owned(), false))
            })
            .collect(),
    }
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line))
}

/// The lines of a document outside of its code blocks.
pub(crate) fn prose_of_markdown(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    numbered(text).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// A sentence, or a line, that begins with one of `SUBJECTS`.
fn subject(text: &str) -> Option<String> {
    for word in SUBJECTS {
        for (at, _) in text.match_indices(word) {
            let (before, after) = (&text[..at], &text[at + word.len()..]);
            let lead = before.trim_end_matches([' ', '*', '_', '"', '(', '#', '>', '-', '|']);
            let starts = before.is_empty() || before.ends_with([' ', '*', '_', '"', '(', '|']);
            let starts =
                starts && (lead.is_empty() || lead.ends_with(['.', '!', '?', ':']) || before.ends_with("| "));
            let ends =
                !after.starts_with(|letter: char| letter.is_alphanumeric() || "_`:(<".contains(letter));
            let is_condition =
                word == "None" && [" if ", " unless ", " when "].iter().any(|next| after.starts_with(next));
            if starts && ends && !is_condition {
                return Some(format!("\"{word}\" is no subject"));
            }
        }
    }
    None
}

/// A message in small letters that begins in the same way.
fn message(text: &str) -> Option<String> {
    let (first, rest) = text.split_once(' ')?;
    let is_sentence = rest.split_whitespace().count() > 1;
    let word = SUBJECTS.iter().find(|word| word.to_lowercase() == first)?;
    is_sentence.then(|| format!("\"{}\" is no subject", word.to_lowercase()))
}

/// A form of words that has a plainer one.
fn form(text: &str) -> Option<String> {
    let text = text.to_lowercase();
    let whole = |form: &str| {
        text.match_indices(form).any(|(at, _)| {
            !text[..at].ends_with(char::is_alphanumeric)
                && !text[at + form.len()..].starts_with(char::is_alphanumeric)
        })
    };
    let (form, remedy) = FORMS.iter().find(|(form, _)| whole(form))?;
    Some(format!("\"{form}\": {remedy}"))
}

/// The names of functions that begin with one of `SUBJECTS`.
fn names(source: &str) -> impl Iterator<Item = (usize, &str)> {
    numbered(source).filter_map(|(number, line)| {
        let (before, name) = line.split_once("fn ")?;
        let is_function =
            before.split_whitespace().all(|word| ["pub(crate)", "pub", "async", "const"].contains(&word));
        let first = name.split(['_', '(']).next().unwrap_or_default();
        let is_subject = SUBJECTS.iter().any(|word| word.to_lowercase() == first)
            && name.starts_with(&format!("{first}_"));
        (is_function && is_subject).then(|| (number, name.split(['(', '<']).next().unwrap_or(name)))
    })
}

#[test]
fn a_fault_of_each_kind_is_found_and_its_remedy_is_not() {
    for text in
        ["What is held.", "It waits. Nobody asks.", "| `x` | Who asked", "- **None** of them", "x: Nothing"]
    {
        assert!(subject(text).is_some(), "{text}");
    }
    for text in [
        "`None` if",
        "None if it is closed.",
        "Option::None",
        "knows what it does",
        "Nonesuch",
        "Some or None",
    ] {
        assert!(subject(text).is_none(), "{text}");
    }
    assert!(
        message("nothing is served").is_some() && message("none").is_none() && message("who asks").is_none()
    );
    assert!(form("the log level is none: write").is_some() && form("there is none").is_none());
    assert!(form("Only where it is known").is_some() && form("the folder where it is").is_none());
    assert_eq!(names("    async fn who_asks_waits() {").count(), 1);
    assert_eq!(names("    fn whole_answers() {").count(), 0);
}
