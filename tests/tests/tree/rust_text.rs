//! A small lexer of Rust: it tells comments and literals, in which a path or a brace means nothing, from code.

/// A kind of token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    Comment,
    /// A string literal, with its contents.
    Literal(&'a str),
    Character,
    /// A word, or one character of anything else.
    Code,
}

/// The tokens of `source`, each with its place and its whole text.
pub(crate) fn tokens(source: &str) -> impl Iterator<Item = (usize, &str, Token<'_>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (start, rest) = (at, &source[at..]);
        let (token, len) = token(rest)?;
        at += len;
        Some((start, &rest[..len], token))
    })
}

/// The token that `rest` starts with, and its length in bytes. The end of the text ends every token.
fn token(rest: &str) -> Option<(Token<'_>, usize)> {
    let first = rest.chars().next()?;
    if rest.starts_with("//") {
        return Some((Token::Comment, rest.find('\n').unwrap_or(rest.len())));
    }
    if rest.starts_with("/*") {
        return Some((Token::Comment, rest.find("*/").map_or(rest.len(), |end| end + 2)));
    }
    if let Some(hashes) = raw_string(rest) {
        let open = rest.find('"').unwrap() + 1;
        let close = format!("\"{}", "#".repeat(hashes));
        let end = rest[open..].find(&close).map_or(rest.len(), |end| open + end);
        return Some((Token::Literal(&rest[open..end]), (end + close.len()).min(rest.len())));
    }
    if first == '"' {
        let end = end_of_string(rest);
        return Some((Token::Literal(&rest[1..end]), (end + 1).min(rest.len())));
    }
    if let Some(len) = character(rest) {
        return Some((Token::Character, len));
    }
    // Words are taken whole, so that the `r` at the end of a name opens no raw string.
    let word = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
    Some((Token::Code, word.max(first.len_utf8())))
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
    let close = rest.char_indices().skip(1).find(|(_, letter)| {
        let closes = *letter == '"' && !escaped;
        escaped = *letter == '\\' && !escaped;
        closes
    });
    close.map_or(rest.len(), |(at, _)| at)
}

/// The length of a character literal that starts here; `None` if it is a lifetime or anything else.
fn character(rest: &str) -> Option<usize> {
    let first = rest.strip_prefix('\'')?.chars().next()?;
    // An escaped letter may be a quote.
    let skipped = 1 + first.len_utf8() + usize::from(first == '\\');
    let close = rest.get(skipped..)?.find('\'')?;
    (first == '\\' || close == 0).then_some(skipped + close + 1)
}

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
    let words = tokens(source).flat_map(|(at, text, token)| {
        let first = || source[..at].matches('\n').count() + 1;
        match token {
            Token::Comment => (first()..).zip(text.lines().map(comment)).collect(),
            Token::Literal(text) => vec![(first(), literal(text))],
            Token::Character | Token::Code => Vec::new(),
        }
    });
    words.collect()
}

fn comment(line: &str) -> Words {
    Words::Comment(line.trim().trim_start_matches(['/', '!', '*']).trim_end_matches("*/").trim().to_owned())
}

fn literal(text: &str) -> Words {
    let mut joined = String::new();
    for line in text.replace("\\n", "\n").lines() {
        match line.strip_suffix('\\') {
            Some(continued) => joined.push_str(continued.trim_start()),
            None => joined.extend([line.trim(), "\n"]),
        }
    }
    Words::Literal(joined.trim_end().to_owned())
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
