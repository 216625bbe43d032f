//! Random values, and every form in which one could have been left behind.

use std::collections::{BTreeMap, BTreeSet};

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem::Finder;

const HALF_LEN: usize = 24;
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyzABCDEFGHJ";

/// Random letters: `len` times five bits.
///
/// # Panics
/// If the kernel has no random numbers.
#[must_use]
pub fn random_letters(len: usize) -> String {
    let mut bytes = vec![0; len];
    aws_lc_rs::rand::fill(&mut bytes).expect("the kernel has random numbers");
    bytes.into_iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect()
}

/// A random value that is on the machine only because this test put it there.
///
/// Two random halves stand around characters that JSON, shells, URLs and `Debug` write differently. A half alone counts
/// as found, so a copy that is escaped, cut, or divided at the line break is found as well.
#[derive(Debug)]
pub struct Canary {
    value: String,
    forms: Vec<(&'static str, Finder<'static>)>,
}

impl Canary {
    /// A fresh one.
    #[must_use]
    pub fn random() -> Self {
        let halves = [random_letters(HALF_LEN), random_letters(HALF_LEN)];
        let value = halves.join("\"\\ $=é\n%");
        let forms = halves.iter().flat_map(|half| forms(half.as_bytes())).collect();
        Self { value, forms }
    }

    /// A text that the programs made, such as a token: its two halves are looked for.
    ///
    /// # Panics
    /// If its halves are too short to be found by accident only.
    #[must_use]
    pub fn of(text: &str) -> Self {
        assert!(text.len() >= 24, "a text this short may be anywhere");
        Self { value: text.to_owned(), forms: forms_of_halves(text.as_bytes()) }
    }

    /// A private number, as big-endian bytes: also looked for as libraries compute with it, the least byte first.
    ///
    /// # Panics
    /// If it is too short to be found by accident only.
    #[must_use]
    pub fn of_number(number: &[u8]) -> Self {
        assert!(number.len() >= 24, "a number this short may be anywhere");
        let reversed: Vec<u8> = number.iter().rev().copied().collect();
        let forms = [number, &reversed].into_iter().flat_map(forms_of_halves).collect();
        Self { value: "a private number".to_owned(), forms }
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Length of the longest form: how far two reads of one thing have to overlap.
    #[must_use]
    pub fn longest_form(&self) -> usize {
        self.forms.iter().map(|(_, finder)| finder.needle().len()).max().unwrap_or_default()
    }

    /// The forms of it that are in `bytes`.
    #[must_use]
    pub fn found_in(&self, bytes: &[u8]) -> Vec<&'static str> {
        let found = self.forms.iter().filter(|(_, finder)| finder.find(bytes).is_some());
        found.map(|(form, _)| *form).collect()
    }

    /// Everything that is looked for.
    pub fn needles(&self) -> impl Iterator<Item = &[u8]> {
        self.forms.iter().map(|(_, finder)| finder.needle())
    }

    /// Finds the first half of it, as it is.
    ///
    /// # Panics
    /// Never: there is always a first form.
    #[must_use]
    pub fn first_half(&self) -> &Finder<'static> {
        &self.forms.first().expect("a canary has forms, and the raw one is first").1
    }

    /// How many copies are in `bytes`, by form. Each half is counted alone, and the one found more often says how many.
    #[must_use]
    pub fn copies_in(&self, bytes: &[u8]) -> BTreeMap<&'static str, usize> {
        let mut copies = BTreeMap::new();
        for half in self.forms.chunks(self.forms.len() / 2) {
            for (form, count) in count(half, bytes) {
                let most = copies.entry(form).or_default();
                *most = count.max(*most);
            }
        }
        copies
    }
}

/// Where base64 and base64url write a half alike, it is one form.
fn count(half: &[(&'static str, Finder<'static>)], bytes: &[u8]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    let mut counted = BTreeSet::new();
    for (form, finder) in half {
        if counted.insert(finder.needle()) {
            *counts.entry(*form).or_default() += finder.find_iter(bytes).count();
        }
    }
    counts.retain(|_, count| *count > 0);
    counts
}

fn forms_of_halves(whole: &[u8]) -> Vec<(&'static str, Finder<'static>)> {
    let (first, second) = whole.split_at(whole.len() / 2);
    [first, second].into_iter().flat_map(forms).collect()
}

fn forms(half: &[u8]) -> Vec<(&'static str, Finder<'static>)> {
    let hex: String = half.iter().map(|byte| format!("{byte:02x}")).collect();
    let decimal = half.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut forms = vec![
        ("raw", half.to_vec()),
        ("hexadecimal", hex.to_uppercase().into_bytes()),
        ("hexadecimal", hex.into_bytes()),
        ("a list of numbers", decimal.into_bytes()),
    ];
    for shift in 0..3 {
        forms.push(("base64", base64_core(&STANDARD_NO_PAD, shift, half)));
        forms.push(("base64url", base64_core(&URL_SAFE_NO_PAD, shift, half)));
    }
    forms.into_iter().map(|(form, bytes)| (form, Finder::new(&bytes).into_owned())).collect()
}

/// The digits of base64 that depend on `half` alone, where `shift` bytes stand before it in its group of three.
fn base64_core(engine: &impl base64::Engine, shift: usize, half: &[u8]) -> Vec<u8> {
    let encoded = engine.encode([&[0; 2][..shift], half].concat()).into_bytes();
    let start = (shift * 8).div_ceil(6);
    let end = (shift + half.len()) * 8 / 6;
    encoded[start..end].to_vec()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn every_form_of_a_canary_is_found() {
        let canary = Canary::random();
        let value = canary.value();
        for prefix in ["", "x", "xy"] {
            let encoded = STANDARD_NO_PAD.encode(format!("{prefix}{value}tail"));
            assert_eq!(canary.found_in(encoded.as_bytes()).first(), Some(&"base64"), "{prefix}");
        }
        let json = serde_json::to_string(value).unwrap();
        assert_eq!(canary.found_in(json.as_bytes()), ["raw", "raw"]);
        let debug = format!("{:?}", value.as_bytes());
        assert_eq!(canary.found_in(debug.as_bytes()), ["a list of numbers", "a list of numbers"]);
        let first_line = value.lines().next().unwrap();
        assert_eq!(canary.found_in(first_line.as_bytes()), ["raw"]);
    }

    #[test]
    fn copies_are_counted_by_form() {
        let canary = Canary::random();
        let text = format!("{0} {0} {1}", canary.value(), STANDARD_NO_PAD.encode(canary.value()));
        let copies = canary.copies_in(text.as_bytes());
        assert_eq!(copies, BTreeMap::from([("raw", 2), ("base64", 1)]));
    }

    #[test]
    fn another_canary_is_not_found() {
        assert_eq!(Canary::random().found_in(Canary::random().value().as_bytes()), [""; 0]);
    }
}
