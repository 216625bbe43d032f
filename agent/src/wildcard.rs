//! Matching with wildcards: `*` is any run of characters, `?` any one. Takes at most pattern × text steps, and no memory.

/// Whether `pattern` matches the whole of `text`.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // After the last star seen, and where in `text` what it swallows ends. An earlier star never needs another try:
    // the last one can swallow whatever that would have.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                p += 1;
                star = Some((p, t));
            }
            Some(&b) if b == b'?' || b == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((after, swallowed)) = star else { return false };
                star = Some((after, swallowed + 1));
                (p, t) = (after, swallowed + 1);
            }
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// Whether there is a wildcard in `pattern`.
pub(crate) fn has_wildcard(pattern: &[u8]) -> bool {
    pattern.iter().any(|b| matches!(b, b'*' | b'?'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, in as many steps as it takes.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => naive(rest, text) || (!text.is_empty() && naive(pattern, &text[1..])),
            (Some((p, rest)), Some((t, tail))) => (*p == b'?' || p == t) && naive(rest, tail),
            _ => false,
        }
    }

    #[test]
    fn a_pattern_of_many_stars_stays_fast() {
        let pattern = "*A".repeat(127);
        assert!(!matches(pattern.as_bytes(), &[b'A'; 126]));
        assert!(!matches(format!("{pattern}B").as_bytes(), &[b'A'; 255]));
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_definition(pattern in "[AB*?]{1,10}", text in "[AB]{0,10}") {
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), naive(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
