//! The documents: their links lead somewhere, the tests that they name exist, and so do the commands and options.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::files::{self, File};
use crate::prose::prose_of_markdown;

/// Fails with one line for each fault of a document.
fn expect_no_faults(faults_of: impl Fn(&File) -> Vec<String>) {
    let faults = files::with_extension(&["md"]).into_iter().flat_map(|file| {
        let path = file.path.display().to_string();
        faults_of(&file).into_iter().map(move |fault| format!("{path}: {fault}"))
    });
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    expect_no_faults(|file| {
        let prose: Vec<&str> = prose_of_markdown(&file.text).map(|(_, line)| line).collect();
        let text = prose.join("\n");
        let targets =
            text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
        let targets = targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
        targets.filter_map(|target| broken_link(&file.path, target)).collect()
    });
}

fn broken_link(from: &Path, target: &str) -> Option<String> {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let folder = files::root().join(from);
    let file = if path.is_empty() { folder } else { folder.parent()?.join(path) };
    if !file.exists() {
        return Some(format!("there is no file {target}"));
    }
    if anchor.is_empty() {
        return None;
    }
    let text = fs::read_to_string(&file).unwrap_or_default();
    let headings = prose_of_markdown(&text).filter(|(_, line)| line.starts_with('#'));
    let found = headings.map(|(_, line)| anchor_of(line)).any(|heading| heading == anchor);
    (!found).then(|| format!("there is no heading {target}"))
}

/// The anchor that a heading gets: small letters, blanks as hyphens, and no punctuation.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

#[test]
fn every_test_that_a_document_names_exists() {
    let names = function_and_module_names();
    expect_no_faults(|file| {
        let named =
            code_spans(&file.text).into_iter().filter(|span| !span.contains(['(', '/', '<', '=', '.']));
        let missing = named.filter_map(|span| {
            let name = match span.strip_prefix("…_") {
                Some(end) => end,
                None => span.rsplit_once("::")?.1,
            };
            let name = name.trim_end_matches('*').trim();
            let is_known =
                names.iter().any(|known| known == name || span.starts_with('…') && known.ends_with(name));
            let is_placeholder =
                name.is_empty() || name == "…" || name.chars().all(|letter| letter.is_ascii_uppercase());
            (!is_placeholder && !is_known).then(|| format!("there is no test {span}"))
        });
        missing.collect()
    });
}

fn function_and_module_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in files::with_extension(&["rs"]) {
        names.extend(file.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        names.extend(file.path.iter().map(|part| part.to_string_lossy().into_owned()));
        for keyword in ["fn ", "mod "] {
            let found = file.text.split(keyword).skip(1);
            let name = |rest: &str| {
                rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
                    .next()
                    .map(str::to_owned)
            };
            names.extend(found.filter_map(name));
        }
        // Tests that a macro makes from a list of names.
        let listed =
            file.text.lines().map(|line| line.trim().trim_end_matches(',')).filter(|line| line.contains('_'));
        names.extend(
            listed
                .filter(|line| line.chars().all(|letter| letter.is_alphanumeric() || letter == '_'))
                .map(str::to_owned),
        );
    }
    names
}

/// The spans of code in a document's prose.
fn code_spans(text: &str) -> Vec<&str> {
    let spans = prose_of_markdown(text).flat_map(|(_, line)| line.split('`').skip(1).step_by(2));
    spans.collect()
}

#[test]
fn every_command_and_option_in_a_document_exists() {
    expect_no_faults(|file| {
        // A change log speaks of commands as they were then.
        if file.path.ends_with("CHANGELOG.md") {
            return Vec::new();
        }
        commands(&file.text).iter().filter_map(|command| unknown_part(command)).collect()
    });
}

/// Commands in code blocks, with continued lines joined, and in spans of code.
fn commands(text: &str) -> Vec<String> {
    let prose: BTreeSet<usize> = prose_of_markdown(text).map(|(number, _)| number).collect();
    let code: Vec<&str> =
        text.lines().enumerate().filter(|(at, _)| !prose.contains(&(at + 1))).map(|(_, line)| line).collect();
    let blocks = code.join("\n").replace("\\\n", " ");
    let spans = code_spans(text).join("\n");
    let lines = blocks.lines().chain(spans.lines());
    lines
        .flat_map(|line| line.split(['|', ';', '&', '#', '(', ')']))
        .map(|part| part.trim().to_owned())
        .collect()
}

/// The first word or option of a command of ours that its help does not have.
fn unknown_part(command: &str) -> Option<String> {
    let programs = [
        ("cargo xtask", "cargo-xtask"),
        ("devbox-secrets-server", ""),
        ("devbox-secretsd", ""),
        ("devbox-exec", ""),
    ];
    let (program, folder) = programs
        .into_iter()
        .find(|(program, _)| command.strip_prefix(program).is_some_and(|rest| rest.starts_with(' ')))?;
    let folder = if folder.is_empty() { program } else { folder };
    let help = |path: &str| {
        let name = if path.is_empty() { "help.txt".to_owned() } else { format!("help_{path}.txt") };
        fs::read_to_string(files::root().join("tests/data/help").join(folder).join(name)).ok()
    };
    let words = command[program.len()..].split_whitespace().take_while(|word| *word != "--" && *word != "<");
    let (options, words): (Vec<&str>, Vec<&str>) = words.partition(|word| word.starts_with("--"));
    let mut path = String::new();
    for word in &words {
        let longer = if path.is_empty() { (*word).to_owned() } else { format!("{path}_{word}") };
        if help(&longer).is_some() {
            path = longer;
        }
    }
    // `cargo xtask bench` has a help text of its own, which is built on demand.
    let is_bench = words.first() == Some(&"bench");
    let is_word = |word: &str| word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-');
    let first = command[program.len()..]
        .split_whitespace()
        .next()
        .filter(|word| is_word(word) && !word.starts_with('-'));
    if let Some(first) = first.filter(|_| path.is_empty() && program != "devbox-exec" && !is_bench) {
        return Some(format!("{program} has no command {first}: {command}"));
    }
    let text = help(&path)?;
    let option = |option: &&str| option.split(['=', '[', ',', '.']).next().unwrap_or_default().to_owned();
    let unknown = options.iter().map(option).find(|option| !text.contains(option.as_str()) && !is_bench)?;
    Some(format!("{program} {} has no option {unknown}: {command}", path.replace('_', " ")))
}
