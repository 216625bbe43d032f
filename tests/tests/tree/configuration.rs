//! `docs/configuration.md` has every key of both parsers and no other one, and its defaults are theirs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use devbox_secrets_tests::programs;
use tempfile::TempDir;

use crate::files;

const KEYS_NEEDED: &str = "[server]\nurl = \"https://localhost:1\"\n[identity]\njoin_token_file = \"/t\"\n";

/// The sections of one program: their keys, each with its default if it has one.
type Sections = BTreeMap<String, Vec<(String, Option<String>)>>;

struct Part {
    sections: Sections,
    example: String,
}

/// The part of the document under the heading `## {program}`.
fn documented(program: &str) -> Part {
    let document = fs::read_to_string(files::root().join("docs/configuration.md")).unwrap();
    let (_, part) = document.split_once(&format!("\n## {program}\n")).expect("the document has the program");
    let part = part.split("\n## ").next().unwrap();
    let (_, example) = part.split_once("```toml\n").expect("the part has an example");
    let mut sections = Sections::new();
    for section in part.split("\n### `[").skip(1) {
        let (name, text) = section.split_once("]`\n").expect("a heading is one section");
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let keys = rows.map(|(key, rest)| {
            let default = rest.split(" | ").next().unwrap().trim_matches('`');
            (key.to_owned(), (default != "–").then(|| default.to_owned()))
        });
        sections.insert(name.to_owned(), keys.collect());
    }
    Part { sections, example: example.split("```").next().unwrap().to_owned() }
}

/// The output of the program's `check` for this configuration, and whether it succeeds.
fn check(program: &Path, text: &str) -> (bool, String) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("configuration.toml");
    fs::write(&file, text).unwrap();
    let output = Command::new(program).arg("check").arg("--config").arg(&file).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.success(), text.replace(file.to_str().unwrap(), "FILE"))
}

/// A file with a key in each section that no parser knows.
fn with_unknown_keys(sections: &Sections) -> String {
    let mut text = "[no_such_section]\n".to_owned();
    for name in sections.keys() {
        let _ = writeln!(text, "[{name}]\nno_such_key = 1");
    }
    text
}

/// The keys that the parser lists for a section with an unknown one.
fn known_keys(report: &str, section: &str) -> Vec<String> {
    let mut lists =
        report.lines().filter(|line| line.contains("no_such_key") && line.contains(&format!("[{section}]")));
    let line = lists.next_back().unwrap_or_else(|| panic!("[{section}] is not checked: {report}"));
    let (_, list) = line.split_once("its keys are ").or_else(|| line.split_once("expected ")).unwrap();
    let list = list.trim_start_matches("one of ");
    let mut keys: Vec<String> = list.split([',', ' ']).map(|key| key.trim_matches('`').to_owned()).collect();
    keys.retain(|key| !key.is_empty() && key != "or");
    keys.sort();
    keys
}

fn expect_the_parsers_keys(program: &Path, sections: &Sections) {
    let (_, report) = check(program, &with_unknown_keys(sections));
    for (section, keys) in sections {
        let mut documented: Vec<String> = keys.iter().map(|(key, _)| key.clone()).collect();
        documented.sort();
        assert_eq!(documented, known_keys(&report, section.trim_matches('[')), "[{section}]");
    }
    let (_, list) = report.split_once("the sections are ").expect("an unknown section is reported");
    let mut known: Vec<&str> = list.lines().next().unwrap().split(", ").collect();
    known.sort_unstable();
    let mut documented: Vec<&str> = sections.keys().map(|name| name.trim_matches(['[', ']'])).collect();
    documented.sort_unstable();
    assert_eq!(documented, known);
}

/// The documented defaults, written out. Tables of a list are left out.
fn defaults(sections: &Sections) -> BTreeMap<&str, String> {
    let lines = sections.iter().filter(|(name, _)| !name.starts_with('[')).map(|(name, keys)| {
        let set = keys.iter().filter_map(|(key, default)| Some(format!("{key} = {}\n", default.as_ref()?)));
        (name.as_str(), set.collect())
    });
    lines.collect()
}

#[test]
fn the_document_has_exactly_the_keys_of_the_server() {
    expect_the_parsers_keys(&programs::server(), &documented("Server").sections);
}

#[test]
fn the_document_has_exactly_the_keys_of_the_daemon() {
    expect_the_parsers_keys(&programs::daemon(), &documented("Daemon").sections);
}

#[test]
fn a_daemon_with_the_documented_defaults_has_the_settings_of_one_without() {
    let daemon = programs::daemon();
    let part = documented("Daemon");
    let needed =
        |section: &str| KEYS_NEEDED.split('[').find_map(|part| part.strip_prefix(&format!("{section}]\n")));
    let written = defaults(&part.sections)
        .into_iter()
        .map(|(section, lines)| format!("[{section}]\n{}{lines}", needed(section).unwrap_or_default()));
    let written = check(&daemon, &written.collect::<String>());
    assert!(written.0, "{}", written.1);
    assert_eq!(written, check(&daemon, KEYS_NEEDED));
}

#[test]
fn the_daemons_example_is_a_configuration() {
    let (is_valid, report) = check(&programs::daemon(), &documented("Daemon").example);
    assert!(is_valid, "{report}");
}
