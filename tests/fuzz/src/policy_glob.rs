//! Patterns of environment names, held against their definition.

use devbox_secretsd::access::glob::Glob;

/// Takes the first line as a pattern and the rest as a name.
///
/// # Panics
/// If the matcher disagrees with the definition, or with what the pattern says of itself.
pub fn check(bytes: &[u8]) {
    let (pattern, name) = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or((bytes, &[][..]), |end| (&bytes[..end], &bytes[end + 1..]));
    let Ok(text) = std::str::from_utf8(pattern) else { return };
    let Ok(glob) = Glob::new(text) else { return };
    let matches = glob.matches(name);
    assert_eq!(matches, by_definition(pattern, name), "{text:?} {name:?}");
    assert!(matches || !glob.is_everything(), "{text:?} is said to match everything, and not {name:?}");
    assert!(matches || !glob.is_exactly(name), "{text:?} is said to be {name:?}, and does not match it");
    assert_eq!(glob.to_string(), text);
}

/// Whether each prefix of the pattern matches each prefix of the name, from the shortest on.
fn by_definition(pattern: &[u8], name: &[u8]) -> bool {
    let mut row = vec![false; name.len() + 1];
    row[0] = true;
    for symbol in pattern {
        let mut next = vec![false; name.len() + 1];
        for at in 0..=name.len() {
            next[at] = match symbol {
                b'*' => row[at] || at > 0 && next[at - 1],
                _ => at > 0 && row[at - 1] && (*symbol == b'?' || *symbol == name[at - 1]),
            };
        }
        row = next;
    }
    row[name.len()]
}
