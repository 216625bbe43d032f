//! The sources of a crate as the rules of the tree read them: product code only, without comments and literals. Lines stay
//! where they were, so that a rule can name them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::rust_text::{Token, tokens};

/// One module of a crate.
pub(crate) struct Module {
    /// The names from the crate's root to the module; empty for the root.
    pub(crate) path: Vec<String>,
    pub(crate) file: PathBuf,
    pub(crate) code: String,
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
    let parts = tokens(text).map(|(_, text, token)| match token {
        Token::Code => text.to_owned(),
        _ => blanks(text),
    });
    let mut code: String = parts.collect();
    while let Some(start) = code.find("#[cfg(test)]") {
        let end = item_end(&code, start);
        let blanks = blanks(&code[start..end]);
        code.replace_range(start..end, &blanks);
    }
    code
}

fn blanks(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect()
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
