//! The sources of a crate as the rules of the tree read them: product code only, without comments and literals. Lines stay
//! where they were, so that a rule can name them.

use std::fs;
use std::path::{Path, PathBuf};

/// One module of a crate.
pub(crate) struct Module {
    /// The names from the crate's root to the module; empty for the root.
    pub(crate) path: Vec<String>,
    pub(crate) file: PathBuf,
    pub(crate) code: String,
}

/// The workspace's directory.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Every module of the library in `directory` that is built without `cfg(test)`, the root first.
pub(crate) fn modules(directory: &Path) -> Vec<Module> {
    let source = directory.join("src");
    let mut found = Vec::new();
    visit(Vec::new(), source.join("lib.rs"), &source, &mut found);
    found
}

fn visit(path: Vec<String>, file: PathBuf, children: &Path, found: &mut Vec<Module>) {
    let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let code = product_code(&text);
    for name in declared(&code) {
        let below = children.join(&name);
        let flat = children.join(format!("{name}.rs"));
        let file = if flat.exists() { flat } else { below.join("mod.rs") };
        let path = path.iter().cloned().chain([name]).collect();
        visit(path, file, &below, found);
    }
    found.insert(0, Module { path, file, code });
}

/// The names of the modules that `code` has in files of their own: `mod name;`.
pub(crate) fn declared(code: &str) -> Vec<String> {
    let items = code.split(['{', '}', ']', '\n']).flat_map(|line| line.split_inclusive(';'));
    let names = items.filter_map(|item| {
        let (visibility, name) = item.trim().strip_suffix(';')?.split_once("mod ")?;
        (visibility.is_empty() || visibility.starts_with("pub")).then(|| name.trim().to_owned())
    });
    names.collect()
}

/// `text` with blanks in the place of comments, literals, and items under `#[cfg(test)]`.
pub(crate) fn product_code(text: &str) -> String {
    let mut code = without_literals(text);
    while let Some(start) = code.find("#[cfg(test)]") {
        let end = item_end(&code, start);
        blank(&mut code, start, end);
    }
    code
}

/// The end of the item that starts at `start`: its semicolon, or the brace that closes its body.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0;
    for (at, c) in code[start..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ';' => {}
            _ => continue,
        }
        if depth == 0 {
            return start + at + 1;
        }
    }
    code.len()
}

fn blank(code: &mut String, start: usize, end: usize) {
    let blanks: String = code[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
    code.replace_range(start..end, &blanks);
}

/// A small lexer: it knows the tokens in which a path, a brace or a semicolon would mean nothing.
fn without_literals(text: &str) -> String {
    let mut code = text.to_owned();
    let mut at = 0;
    while at < code.len() {
        let len = match literal(&code[at..]) {
            Some(len) => {
                blank(&mut code, at, at + len);
                // A blank has one byte, whatever it stands for.
                code[at..].len() - code[at..].trim_start_matches([' ', '\n']).len()
            }
            None => code[at..].chars().next().map_or(1, char::len_utf8),
        };
        at += len.max(1);
    }
    code
}

/// The length in bytes of the comment or literal that `code` starts with.
fn literal(code: &str) -> Option<usize> {
    if code.starts_with("//") {
        return Some(code.find('\n').unwrap_or(code.len()));
    }
    if code.starts_with("/*") {
        return Some(code.find("*/").map_or(code.len(), |end| end + 2));
    }
    if let Some(raw) = code.strip_prefix('r')
        && let hashes = raw.len() - raw.trim_start_matches('#').len()
        && raw[hashes..].starts_with('"')
    {
        let close = format!("\"{}", "#".repeat(hashes));
        let body = hashes + 2;
        return Some(code[body..].find(&close).map_or(code.len(), |end| body + end + close.len()));
    }
    match code.chars().next()? {
        '"' => Some(quoted(code, '"')),
        '\'' if is_char(code) => Some(quoted(code, '\'')),
        _ => None,
    }
}

/// A character, not a lifetime: the quote is closed after one character or an escape.
fn is_char(code: &str) -> bool {
    let mut chars = code.chars().skip(1);
    chars.next() == Some('\\') || chars.next() == Some('\'')
}

fn quoted(code: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in code.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_literals_and_tests_are_not_product_code() {
        let text = r##"
            // crate::comment;
            /// crate::doc
            const A: &str = "crate::text \" {"; const B: char = '{'; const C: &str = r#"crate::raw"#;
            fn f<'a>(x: &'a str) {}
            #[cfg(test)]
            mod tests { use crate::test::{a, b}; fn g() { } }
            #[cfg(test)]
            use crate::fixture;
            pub(crate) mod kept;
        "##;
        let code = product_code(text);
        assert!(!code.contains("crate::"), "{code}");
        assert!(code.contains("fn f<'a>(x: &'a str) {}"), "{code}");
        assert_eq!(declared(&code), ["kept"]);
        assert_eq!(code.lines().count(), text.lines().count());
    }
}
