//! Reviewed texts under `tests/data`, compared with what the programs print.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// With this environment variable the reviewed files are written anew: look at the difference before you commit it.
const RENEW: &str = "DEVBOX_SECRETS_RENEW_SNAPSHOTS";

/// Texts by the name of their file.
pub type Texts = BTreeMap<String, String>;

/// Runs `program` with `arguments` in the empty `directory`, and returns the command line, its output and exit status as a
/// reviewed file has them. `called` is the name that users type; the directory is printed as `DIR`.
///
/// # Panics
/// If the program does not start, or prints anything but UTF-8.
#[must_use]
pub fn transcript(called: &str, program: &Path, arguments: &[&str], directory: &Path) -> String {
    let folder = directory.to_str().expect("a temporary directory has a plain name");
    let arguments: Vec<String> = arguments.iter().map(|argument| argument.replace("DIR", folder)).collect();
    let mut command = Command::new(program);
    // A fixed width, and no variable that a help text would show the value of.
    command.env_clear().env("COLUMNS", "100").env("PATH", "/usr/bin:/bin").current_dir(directory);
    let output = command.args(&arguments).stdin(Stdio::null()).output().expect("the program starts");
    let Output { status, stdout, stderr } = output;
    let [stdout, stderr] =
        [stdout, stderr].map(|text| String::from_utf8(text).expect("the program prints UTF-8"));
    let line = format!("$ {called} {}", arguments.join(" "));
    let text =
        format!("{}\n{stdout}{stderr}[exit status {}]\n", line.trim_end(), status.code().unwrap_or(-1));
    text.replace(folder, "DIR")
}

/// The help of a program and of all its subcommands, found in the lists that each help text has; those
/// `without` a help text of their own are left out.
///
/// # Panics
/// If one cannot be printed.
#[must_use]
pub fn all_help(called: &str, program: &Path, without: &[&str]) -> Texts {
    let directory = TempDir::new().expect("a temporary directory");
    let mut texts = Texts::new();
    let mut waiting: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(command) = waiting.pop() {
        let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        arguments.push("--help");
        let text = transcript(called, program, &arguments, directory.path());
        for name in subcommands(&text).filter(|name| !without.contains(name)) {
            waiting.push([command.clone(), vec![name.to_owned()]].concat());
        }
        let file = if command.is_empty() {
            "help.txt".to_owned()
        } else {
            format!("help_{}.txt", command.join("_"))
        };
        texts.insert(file, text);
    }
    texts
}

/// The names in the list of commands of a help text.
fn subcommands(help: &str) -> impl Iterator<Item = &str> {
    let list = help.split_once("\nCommands:\n").map_or("", |(_, list)| list);
    let list = list.lines().take_while(|line| !line.is_empty());
    let names = list.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help")
}

/// Compares `texts` with the reviewed files in `folder`, a folder below `tests/data`.
///
/// # Panics
/// If a text differs from its file, if a file is missing, or if no text belongs to a file.
pub fn agree(folder: &str, texts: &Texts) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(folder);
    if std::env::var_os(RENEW).is_some() {
        renew(&folder, texts);
    }
    let reviewed = read(&folder);
    let mut report = String::new();
    for name in texts.keys().chain(reviewed.keys()).collect::<BTreeSet<_>>() {
        let (printed, reviewed) = (texts.get(name), reviewed.get(name));
        if printed != reviewed {
            let of = |text: Option<&String>| text.map_or("nothing", String::as_str).to_owned();
            let _ = writeln!(report, "{name}\n--- reviewed\n{}+++ printed\n{}", of(reviewed), of(printed));
        }
    }
    let folder = folder.display();
    assert!(
        report.is_empty(),
        "{folder} differs; if it should, run again with {RENEW}=1, and review\n{report}"
    );
}

fn renew(folder: &PathBuf, texts: &Texts) {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).expect("tests/data can be written");
    for (name, text) in texts {
        fs::write(folder.join(name), text).expect("tests/data can be written");
    }
}

fn read(folder: &Path) -> Texts {
    let Ok(entries) = fs::read_dir(folder) else { return Texts::new() };
    let paths = entries.map(|entry| entry.expect("tests/data can be read").path());
    paths
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).expect("a reviewed file is text"))
        })
        .collect()
}
