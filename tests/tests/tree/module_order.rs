//! A crate's modules are layers, and each uses only the layers below it. The crate's `//!` documentation is the list of
//! layers, from the top down; without this order no module can be read, tested or replaced alone.
//!
//! The list is every line ``//! - [`name`]: text`` of `lib.rs`, with one or more names before the colon: on one line the left
//! is above the right. It holds each module that is built without `cfg(test)` once. A private module stands there without the
//! link's brackets.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::files;
use crate::source::{Module, declared, modules};

/// One import of another module of the crate.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    from: String,
    to: String,
    place: String,
}

#[test]
fn the_servers_modules_use_only_modules_below_them() {
    assert_order("server");
}

#[test]
fn the_daemons_modules_use_only_modules_below_them() {
    assert_order("agent");
}

fn assert_order(krate: &str) {
    let directory = files::root().join(krate);
    let modules = modules(&directory);
    let layers = layers(&fs::read_to_string(directory.join("src/lib.rs")).unwrap());
    assert_complete(krate, &layers, &modules[0]);
    let rank = |name: &str| layers.iter().position(|layer| layer == name);
    let imports = modules.iter().flat_map(|module| imports(module, &directory));
    let upward = imports.filter(|import| rank(&import.to) < rank(&import.from));
    let faults: Vec<String> = upward.map(|import| import.fault()).collect();
    assert!(faults.is_empty(), "{krate}: modules use modules above them:\n{}", faults.join("\n"));
}

impl Import {
    fn fault(&self) -> String {
        format!("  {}: {} -> {}", self.place, self.from, self.to)
    }
}

/// The layers that a crate's documentation lists, from the top down.
fn layers(lib: &str) -> Vec<String> {
    let lists = lib.lines().filter_map(|line| line.strip_prefix("//! - ")?.split_once(':'));
    let named = lists.filter(|(names, _)| names.starts_with(['[', '`']));
    named.flat_map(|(names, _)| names.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

fn assert_complete(krate: &str, layers: &[String], root: &Module) {
    let declared: BTreeSet<String> = declared(&root.code).into_iter().collect();
    let listed: BTreeSet<String> = layers.iter().cloned().collect();
    assert_eq!(listed, declared, "{krate}/src/lib.rs: its documentation has to list each of its modules");
    assert_eq!(listed.len(), layers.len(), "{krate}/src/lib.rs: a module is listed twice");
}

/// The other modules of its crate that `module` uses, in `use` items and in bodies.
fn imports(module: &Module, directory: &Path) -> Vec<Import> {
    let Some(from) = module.path.first() else { return Vec::new() };
    let file = module.file.strip_prefix(directory.parent().unwrap()).unwrap().display().to_string();
    let mut found = BTreeSet::new();
    for (at, targets) in paths(&module.code, &module.path) {
        let place = format!("{file}:{}", module.code[..at].matches('\n').count() + 1);
        for to in targets.into_iter().filter(|to| to != from) {
            found.insert(Import { from: from.clone(), to, place: place.clone() });
        }
    }
    found.into_iter().collect()
}

/// The places of all paths that start at the crate's root or go up from `module`, with the layers that they name.
fn paths(code: &str, module: &[String]) -> Vec<(usize, Vec<String>)> {
    let starts = ["crate::", "super::"].into_iter().flat_map(|start| code.match_indices(start));
    let is_first = |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    starts.filter(|(at, _)| is_first(*at)).map(|(at, _)| (at, targets(&code[at..], module))).collect()
}

/// The layers that one path names, or several if it ends in a group.
fn targets(path: &str, module: &[String]) -> Vec<String> {
    if let Some(rest) = path.strip_prefix("crate::") {
        return heads(rest);
    }
    let rest = path.trim_start_matches("super::");
    let ups = (path.len() - rest.len()) / "super::".len();
    match module.len().checked_sub(ups) {
        Some(0) => heads(rest),
        // The path stays in its own layer.
        Some(_) => Vec::new(),
        None => panic!("a path goes up {ups} modules from {module:?}"),
    }
}

/// The first names of a path's rest: `a` of `a::b`, both of `{a::{x, y}, b}`.
fn heads(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else {
        return vec![name(rest)];
    };
    let mut depth = 0;
    let mut heads = vec![name(group)];
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(name(&group[at + 1..])),
            _ => {}
        }
    }
    // After a trailing comma no name follows.
    heads.retain(|head| !head.is_empty());
    heads
}

fn name(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(code: &str, module: &[&str]) -> Vec<String> {
        let module: Vec<String> = module.iter().map(|name| (*name).to_owned()).collect();
        paths(code, &module).into_iter().flat_map(|(_, targets)| targets).collect()
    }

    #[test]
    fn every_form_of_a_path_is_seen() {
        assert_eq!(used("use crate::a::b;", &["m"]), ["a"]);
        assert_eq!(used("use crate::{a::{x, y}, b, c as d};", &["m"]), ["a", "b", "c"]);
        assert_eq!(used("fn f() { crate::a::g(); }", &["m"]), ["a"]);
        assert_eq!(used("use super::super::a;", &["m", "n"]), ["a"]);
        assert_eq!(used("use super::super::{\n    a,\n    b::x,\n};", &["m", "n"]), ["a", "b"]);
        assert!(used("use super::sibling; use other_crate::a;", &["m", "n"]).is_empty());
    }

    #[test]
    fn the_list_of_layers_is_read_from_the_documentation() {
        let lib =
            "//! A program.\n//!\n//! - [`a`]: text; [`x`]\n//! - [`b`], `c`: text\n//! - no layer: text\n";
        assert_eq!(layers(lib), ["a", "b", "c"]);
    }

    #[test]
    fn an_upward_import_is_named_with_its_line() {
        let module = Module {
            path: vec!["low".to_owned()],
            file: "/w/server/src/low.rs".into(),
            code: "\nuse crate::high::Thing;".to_owned(),
        };
        let found = imports(&module, Path::new("/w/server"));
        assert_eq!(found[0].fault(), "  server/src/low.rs:2: low -> high");
    }
}
