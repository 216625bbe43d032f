//! The words in Rust source: comments and string literals, found by a small lexer.

/// A comment's line, or a string literal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Words {
    /// One line of a comment, without its marker.
    Comment(String),
    /// A string literal's contents as they stand in the source. Continued lines are joined.
    Literal(String),
}

/// The comments and string literals of `source`, each with the number of the line that it starts on.
pub(crate) fn words(source: &str) -> Vec<(usize, Words)> {
    let mut lexer = Lexer { source, at: 0, found: Vec::new() };
    while lexer.at < source.len() {
        lexer.step();
    }
    lexer.found
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    found: Vec<(usize, Words)>,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.source[self.at..]
    }

    /// Takes what is next: a comment, a literal, or one character of anything else.
    fn step(&mut self) {
        let rest = self.rest();
        if rest.starts_with("//") {
            let end = rest.find('\n').unwrap_or(rest.len());
            self.comment(end);
        } else if rest.starts_with("/*") {
            let end = rest.find("*/").map_or(rest.len(), |end| end + 2);
            self.comment(end);
        } else if let Some(hashes) = raw_string(rest) {
            let open = rest.find('"').unwrap() + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            let end = rest[open..].find(&close).map_or(rest.len(), |end| open + end);
            self.literal(open, end, end + close.len());
        } else if rest.starts_with('"') {
            let end = end_of_string(rest);
            self.literal(1, end, end + 1);
        } else {
            let skipped = character(rest);
            self.at += skipped;
        }
    }

    fn line(&self) -> usize {
        self.source[..self.at].matches('\n').count() + 1
    }

    fn comment(&mut self, end: usize) {
        let first = self.line();
        let lines: Vec<String> = self.rest()[..end]
            .lines()
            .map(|line| {
                line.trim().trim_start_matches(['/', '!', '*']).trim_end_matches("*/").trim().to_owned()
            })
            .collect();
        let lines = lines.into_iter().enumerate();
        self.found.extend(lines.map(|(number, line)| (first + number, Words::Comment(line))));
        self.at += end;
    }

    fn literal(&mut self, open: usize, end: usize, next: usize) {
        let text = self.rest()[open..end].replace("\\n", "\n");
        let mut joined = String::new();
        for line in text.lines() {
            match line.strip_suffix('\\') {
                Some(continued) => joined.push_str(continued.trim_start()),
                None => {
                    joined.push_str(line.trim());
                    joined.push('\n');
                }
            }
        }
        self.found.push((self.line(), Words::Literal(joined.trim_end().to_owned())));
        self.at = (self.at + next).min(self.source.len());
    }
}

/// The number of hashes of a raw string that starts here; `None` if none does.
fn raw_string(rest: &str) -> Option<usize> {
    let rest = rest.strip_prefix('b').or_else(|| rest.strip_prefix('c')).unwrap_or(rest);
    let hashes = rest.strip_prefix('r')?;
    let quote = hashes.trim_start_matches('#');
    quote.starts_with('"').then(|| hashes.len() - quote.len())
}

/// The closing quote of a string that starts here.
fn end_of_string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    rest.len()
}

/// The length of what is neither a comment nor a string: a character literal, a word, or any one character. Words are taken
/// whole, so that the `r` at the end of a name opens no raw string.
fn character(rest: &str) -> usize {
    let first = rest.chars().next().map_or(1, char::len_utf8);
    let word = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
    let quoted = rest.starts_with("'\\")
        || rest.strip_prefix('\'').is_some_and(|rest| {
            let mut letters = rest.chars();
            letters.next().is_some() && letters.next() == Some('\'')
        });
    match quoted {
        true if rest.starts_with("'\\") => rest[3..].find('\'').map_or(rest.len(), |end| end + 4),
        true => first + rest[1..].find('\'').unwrap_or(0) + 1,
        // A prefix of a string, such as b"…", is not taken with it.
        false if word > 0 && !(word <= 2 && rest[word..].starts_with('"')) => word,
        false => first,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_found_and_nothing_else() {
        let source = concat!(
            "/// A doc.\nfn f<'a>(c: &'a str) -> char { // why\n",
            "    let r = \"a \\\"b\\\" \\\n        c\"; let q = '\"'; let e = '\\''; let raw = r#\"d \"e\"\"#;\n",
            "    /* one\n     * two */ for_r(b\"f\")\n}\n",
        );
        let comment = |text: &str| Words::Comment(text.to_owned());
        let literal = |text: &str| Words::Literal(text.to_owned());
        let expected = [
            (1, comment("A doc.")),
            (2, comment("why")),
            (3, literal("a \\\"b\\\" c")),
            (4, literal("d \"e\"")),
            (5, comment("one")),
            (6, comment("two")),
            (6, literal("f")),
        ];
        assert_eq!(words(source), expected);
    }
}
