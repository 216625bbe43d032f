//! One bundle, opened: a single immutable mapping of `NAME=VALUE\0…`, and an index beside it without a plaintext.

use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::Duration;

use devbox_secrets_proto::bundle::{Bundle, Entry};
use devbox_secrets_proto::guarded::is_guarded;
use devbox_secrets_proto::name::{InvalidVariable, check_value};
use devbox_secrets_proto::seal::{Label, Opener, SealError};
use thiserror::Error;

use crate::sys::{BootTime, LockedPages, MemoryError, SecretMemory};

/// Why a bundle did not become a generation. Names variables, never values.
#[derive(Debug, Error)]
pub enum GenerationError {
    /// The bundle needs more room than `memory.limit`, or than the launch protocol can count.
    #[error(
        "the bundle needs {needed} bytes of locked memory and memory.limit is {limit}: raise it, or bind fewer secrets \
         to this devbox"
    )]
    TooLarge {
        /// The bundle's size, in bytes.
        needed: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// Memory cannot be locked for it.
    #[error("memory cannot be locked for the bundle")]
    Memory(#[from] MemoryError),
    /// A value cannot be decrypted.
    #[error("the value of {name} cannot be decrypted; the whole bundle is refused")]
    Open {
        /// The variable.
        name: String,
        /// The reason.
        #[source]
        source: SealError,
    },
    /// A value cannot be an environment variable's.
    #[error(
        "the value of {name} cannot be an environment variable's; store another one. The whole bundle is refused"
    )]
    Value {
        /// The variable.
        name: String,
        /// The reason.
        #[source]
        source: InvalidVariable,
    },
}

/// A bundle's variables in locked memory. Never changes; wiped at its last release.
pub struct Generation {
    pages: LockedPages,
    len: usize,
    index: Index,
    revision: u64,
    guarded: bool,
    since: BootTime,
    /// Declared after the pages, because fields are dropped in order: it runs once they are wiped.
    on_wiped: OnceLock<OnDrop>,
}

struct OnDrop(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(run) = self.0.take() {
            run();
        }
    }
}

/// A variable without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable<'a> {
    /// Name in the environment.
    pub name: &'a str,
    /// The secret's name in its account.
    pub secret: &'a str,
    /// The secret's id.
    pub secret_id: &'a str,
    /// The secret's version.
    pub version: u64,
}

impl Generation {
    /// Decrypts every value of `bundle` in place. `opener` was made for this bundle's encapsulated key,
    /// devbox, revision and count.
    ///
    /// # Errors
    /// [`GenerationError`]. Values that were decrypted until then are wiped.
    pub fn open(
        memory: &SecretMemory,
        bundle: &Bundle<'_>,
        mut opener: Opener,
    ) -> Result<Self, GenerationError> {
        let len = packed_len(bundle, memory.limit())?;
        let mut pages = memory.allocate(len)?;
        let mut index = Index::with_capacity(bundle.entries.len());
        let mut rest = &mut pages.bytes_mut()[..len];
        for entry in &bundle.entries {
            let (string, tail) = rest.split_at_mut(string_len(entry));
            open_string(string, entry, &mut opener)?;
            index.push(entry.label, string.len());
            rest = tail;
        }
        let guarded = bundle.entries.iter().any(|entry| is_guarded(entry.label.env.as_bytes()));
        Ok(Self::from_parts(pages, len, index, bundle.revision, guarded))
    }

    fn from_parts(pages: LockedPages, len: usize, index: Index, revision: u64, guarded: bool) -> Self {
        let since = BootTime::now();
        Self { pages, len, index: index.shrunk(), revision, guarded, since, on_wiped: OnceLock::new() }
    }

    /// The bundle's revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    #[must_use]
    pub(crate) fn age(&self) -> Duration {
        BootTime::now().since(self.since)
    }

    /// Calls `run` when the pages are wiped. Only the first call counts: a generation is replaced or revoked once, and
    /// later calls come while its last readers still hold it.
    pub(crate) fn on_wiped(&self, run: impl FnOnce() + Send + Sync + 'static) {
        if let Err(mut second) = self.on_wiped.set(OnDrop(Some(Box::new(run)))) {
            second.0 = None;
        }
    }

    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.index.entries.len()
    }

    /// Whether any variable's name is one that only a rule naming it exactly grants.
    #[must_use]
    pub(crate) fn has_guarded_names(&self) -> bool {
        self.guarded
    }

    /// All variables' names and versions, in ascending order of name.
    pub(crate) fn variables(&self) -> impl ExactSizeIterator<Item = Variable<'_>> {
        self.index.entries.iter().map(|place| self.index.variable(place))
    }

    /// The name of variable number `at`, counted from 0 in ascending order of name.
    ///
    /// # Panics
    /// If `at` is not below [`Self::count`].
    #[must_use]
    pub(crate) fn name(&self, at: usize) -> &str {
        self.index.variable(&self.index.entries[at]).name
    }

    #[must_use]
    pub(crate) fn find(&self, name: &[u8]) -> Option<usize> {
        let entries = &self.index.entries;
        entries.binary_search_by(|place| self.index.variable(place).name.as_bytes().cmp(name)).ok()
    }

    /// Plaintext: all variables as `NAME=VALUE\0`, in ascending order of name.
    #[must_use]
    pub fn strings(&self) -> &[u8] {
        &self.pages.bytes()[..self.len]
    }

    /// Plaintext: variable number `at` as `NAME=VALUE\0`.
    ///
    /// # Panics
    /// If `at` is not below [`Self::count`].
    #[must_use]
    pub(crate) fn string(&self, at: usize) -> &[u8] {
        &self.pages.bytes()[self.index.entries[at].range()]
    }
}

/// Pages for a generation whose strings are copied from the image that a predecessor left.
#[derive(Debug)]
pub struct BlankGeneration {
    pages: LockedPages,
    len: usize,
}

impl Generation {
    /// Locked pages for `len` bytes of strings.
    ///
    /// # Errors
    /// [`GenerationError::TooLarge`], [`GenerationError::Memory`].
    pub(crate) fn blank(memory: &SecretMemory, len: usize) -> Result<BlankGeneration, GenerationError> {
        let limit = memory.limit();
        if len > limit {
            return Err(GenerationError::TooLarge { needed: len, limit });
        }
        Ok(BlankGeneration { pages: memory.allocate(len)?, len })
    }
}

impl BlankGeneration {
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.pages.bytes_mut()[..self.len]
    }

    /// Makes the generation of the strings that were written. `variables`: each one's label and the length of its string, in
    /// ascending order of name. `None`, and the pages are wiped, if the strings do not match.
    #[must_use]
    pub(crate) fn described(self, revision: u64, variables: &[(Label<'_>, usize)]) -> Option<Generation> {
        let mut index = Index::with_capacity(variables.len());
        let mut rest = &self.pages.bytes()[..self.len];
        for &(label, len) in variables {
            let (string, tail) = rest.split_at_checked(len)?;
            let value = string.strip_prefix(label.env.as_bytes())?.strip_prefix(b"=")?.strip_suffix(b"\0")?;
            check_value(label.env, value).ok()?;
            index.push(label, len);
            rest = tail;
        }
        let is_whole = rest.is_empty() && variables.is_sorted_by(|a, b| a.0.env < b.0.env);
        let guarded = variables.iter().any(|(label, _)| is_guarded(label.env.as_bytes()));
        let Self { pages, len } = self;
        is_whole.then(|| Generation::from_parts(pages, len, index, revision, guarded))
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.count();
        f.debug_struct("Generation")
            .field("revision", &self.revision)
            .field("count", &count)
            .finish_non_exhaustive()
    }
}

/// Each variable's place in the pages, and in `texts`, which holds no value.
struct Index {
    entries: Vec<IndexEntry>,
    texts: String,
}

/// 24 bytes: a devbox may have thousands of variables.
struct IndexEntry {
    version: u64,
    start: u32,
    len: u32,
    text: u32,
    name_len: u8,
    secret_len: u8,
    id_len: u8,
}

impl IndexEntry {
    fn range(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

impl Index {
    fn with_capacity(count: usize) -> Self {
        Self { entries: Vec::with_capacity(count), texts: String::new() }
    }

    /// Adds the variable whose string of `len` bytes follows the last one's.
    fn push(&mut self, label: Label<'_>, len: usize) {
        self.entries.push(IndexEntry {
            version: label.version,
            start: self.entries.last().map_or(0, |last| last.start + last.len),
            len: counted(len),
            text: counted(self.texts.len()),
            name_len: short(label.env),
            secret_len: short(label.secret),
            id_len: short(label.secret_id),
        });
        for text in [label.env, label.secret, label.secret_id] {
            self.texts.push_str(text);
        }
    }

    fn shrunk(mut self) -> Self {
        self.texts.shrink_to_fit();
        self
    }

    fn variable(&self, place: &IndexEntry) -> Variable<'_> {
        let (name, rest) = self.texts[place.text as usize..].split_at(usize::from(place.name_len));
        let (secret, rest) = rest.split_at(usize::from(place.secret_len));
        Variable { name, secret, secret_id: &rest[..usize::from(place.id_len)], version: place.version }
    }
}

/// Never truncates: `packed_len` refuses a bundle whose lengths need more than 32 bits.
fn counted(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Never truncates: on the wire the length of a text is one byte.
fn short(text: &str) -> u8 {
    u8::try_from(text.len()).unwrap_or(u8::MAX)
}

/// Length of `NAME=VALUE\0`.
fn string_len(entry: &Entry<'_>) -> usize {
    entry.label.env.len() + 1 + entry.value_len() + 1
}

/// Length of the variable's name, the secret's name and its id.
fn texts_len(entry: &Entry<'_>) -> usize {
    entry.label.env.len() + entry.label.secret.len() + entry.label.secret_id.len()
}

fn packed_len(bundle: &Bundle<'_>, limit: usize) -> Result<usize, GenerationError> {
    let sum = |part: fn(&Entry<'_>) -> usize| bundle.entries.iter().map(part).fold(0, usize::saturating_add);
    let limit = limit.min(u32::MAX as usize);
    let needed = sum(string_len);
    if needed > limit || sum(texts_len) > u32::MAX as usize {
        return Err(GenerationError::TooLarge { needed, limit });
    }
    Ok(needed)
}

/// Writes `NAME=VALUE` into `string`. Its last byte stays 0, as the kernel made it.
fn open_string(string: &mut [u8], entry: &Entry<'_>, opener: &mut Opener) -> Result<(), GenerationError> {
    let name = entry.label.env;
    let (head, rest) = string.split_at_mut(name.len() + 1);
    head[..name.len()].copy_from_slice(name.as_bytes());
    head[name.len()] = b'=';
    let value_len = rest.len() - 1;
    let value = &mut rest[..value_len];
    opener
        .open_into(entry.label, entry.sealed, value)
        .map_err(|source| GenerationError::Open { name: name.to_owned(), source })?;
    check_value(name, value).map_err(|source| GenerationError::Value { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;
    use crate::memory::test_support::SealedBundle;
    use crate::sys::test_support::{memories, page_size};

    #[test]
    fn values_are_opened_in_place_in_order_of_name() {
        let sealed = SealedBundle::new(7, &[("B", b"two"), ("A", b"one"), ("EMPTY", b"")]);
        for memory in memories() {
            let generation = sealed.open(&memory).unwrap();
            assert_eq!(generation.strings(), b"A=one\0B=two\0EMPTY=\0");
            assert_eq!((generation.revision(), generation.count()), (7, 3));
            assert_eq!(generation.string(1), b"B=two\0");
            assert_eq!(generation.find(b"EMPTY"), Some(2));
            assert_eq!(generation.find(b"C"), None);
            let first = Variable { name: "A", secret: "A", secret_id: "sec_A", version: 1 };
            assert_eq!(generation.variables().next(), Some(first));
        }
    }

    #[test]
    fn a_bundle_without_secrets_is_a_generation_without_variables() {
        let sealed = SealedBundle::new(1, &[]);
        let generation = sealed.open(&memories()[0]).unwrap();
        assert_eq!((generation.count(), generation.strings()), (0, &b""[..]));
    }

    #[test]
    fn an_altered_value_refuses_the_whole_bundle_by_name() {
        let mut sealed = SealedBundle::new(1, &[("GOOD", b"fine"), ("OTHER", b"altered later")]);
        sealed.flip_last_byte();
        for memory in memories() {
            let error = sealed.open(&memory).unwrap_err();
            assert!(matches!(&error, GenerationError::Open { name, .. } if name == "OTHER"), "{error}");
            assert_eq!(memory.bytes_locked(), 0);
        }
    }

    #[test]
    fn a_value_with_a_nul_is_refused_without_being_repeated() {
        let sealed = SealedBundle::new(1, &[("CUT", b"hunter2\0tail")]);
        let error = sealed.open(&memories()[0]).unwrap_err();
        assert!(error.to_string().contains("CUT"));
        assert!(error.source().unwrap().to_string().contains("NUL"));
        assert!(!format!("{error:?} {error}").contains("hunter2"));
    }

    #[test]
    fn a_bundle_over_the_limit_names_both_sizes_before_anything_is_locked() {
        let sealed = SealedBundle::new(1, &[("LONG", &[b'x'; 5_000])]);
        let memory = SecretMemory::probe(Default::default(), 4_096).unwrap();
        let error = sealed.open(&memory).unwrap_err().to_string();
        assert!(error.contains("5006") && error.contains("4096"), "{error}");
    }

    #[test]
    fn dropping_a_generation_unlocks_all_of_its_memory() {
        let sealed = SealedBundle::new(1, &[("A", &[b'x'; 10_000])]);
        for memory in memories() {
            let generation = sealed.open(&memory).unwrap();
            assert_eq!(memory.bytes_locked(), 10_003_usize.next_multiple_of(page_size()));
            drop(generation);
            assert_eq!(memory.bytes_locked(), 0);
        }
    }

    #[test]
    fn the_first_observer_of_a_wipe_runs_once_the_pages_are_gone() {
        let sealed = SealedBundle::new(1, &[("A", b"one")]);
        let memory = &memories()[0];
        let generation = sealed.open(memory).unwrap();
        let (wiped, observed) = std::sync::mpsc::channel();
        let locked = memory.clone();
        generation.on_wiped(move || wiped.send(locked.bytes_locked()).unwrap());
        generation.on_wiped(|| panic!("the second observer"));
        assert!(observed.try_recv().is_err());
        drop(generation);
        assert_eq!(observed.try_recv(), Ok(0));
    }

    #[test]
    fn debug_output_has_no_value() {
        let sealed = SealedBundle::new(1, &[("A", b"hunter2")]);
        assert!(!format!("{:?}", sealed.open(&memories()[0]).unwrap()).contains("hunter2"));
    }
}
