//! Every input in `corpus/` holds every promise: without a fuzzing engine, on every test run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use devbox_secrets_fuzz::TARGETS;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder).expect("the folder is part of the repository");
    let mut entries: Vec<PathBuf> = listed.map(|entry| entry.expect("it can be listed").path()).collect();
    entries.sort();
    entries
}

fn stems(folder: &Path) -> BTreeSet<String> {
    let stem = |path: PathBuf| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    entries(folder).into_iter().filter_map(stem).collect()
}

#[test]
fn every_input_of_the_corpora_holds_every_promise() {
    for target in TARGETS {
        for path in entries(&folder("corpus").join(target.name)) {
            println!("{}", path.display());
            (target.check)(&fs::read(&path).unwrap());
        }
    }
}

#[test]
fn no_bytes_are_an_input_too() {
    TARGETS.iter().for_each(|target| (target.check)(b""));
}

#[test]
fn each_target_has_its_program_and_its_corpus() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(stems(&folder("fuzz_targets")), targets);
    assert_eq!(stems(&folder("corpus")), targets);
    for target in &targets {
        assert!(entries(&folder("corpus").join(target)).len() > 1, "{target} has no corpus to speak of");
    }
}
