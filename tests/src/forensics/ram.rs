//! The whole memory of a virtual machine, and the copies of a canary in it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use nix::unistd::{Whence, lseek};

use crate::canary::Canary;

/// Size of a page, in bytes.
pub const PAGE: usize = 4096;

/// Of the kernel's `kernel-page-flags.h`: what a page is in use for.
const USES: [(u64, &str); 6] = [
    (1 << 7, "slab"),
    (1 << 11, "mapped"),
    (1 << 12, "anonymous memory"),
    (1 << 14, "backed by swap"),
    (1 << 18, "unevictable"),
    (1 << 26, "page table"),
];

/// Copies of a canary, by form; a form without any is left out.
pub type Copies = BTreeMap<&'static str, usize>;

/// A virtual machine's memory at one moment. Never-touched pages are left out.
#[derive(Debug)]
pub struct Ram {
    extents: Vec<Extent>,
}

#[derive(Debug)]
struct Extent {
    address: usize,
    bytes: Vec<u8>,
}

/// One copy, as it is.
#[derive(Debug)]
pub struct Place {
    /// Physical address.
    pub address: usize,
    /// The text before it, with dots for everything but letters and digits.
    pub before: String,
}

impl Place {
    /// Number of its page.
    #[must_use]
    pub fn page(&self) -> u64 {
        (self.address / PAGE) as u64
    }
}

impl Ram {
    /// Reads a sparse file, data only (lseek(2), `SEEK_DATA`).
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let file = File::open(path).expect("the guest's memory is a file of ours");
        let mut extents = Vec::new();
        let mut end = 0;
        while let Ok(start) = lseek(&file, end, Whence::SeekData) {
            end = lseek(&file, start, Whence::SeekHole).expect("data ends in a hole, or the file");
            extents.push(Extent::read(&file, start, end));
        }
        Self { extents }
    }

    /// How many bytes were ever written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.extents.iter().map(|extent| extent.bytes.len()).sum()
    }

    /// Whether none were.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// Copies of the canary.
    #[must_use]
    pub fn copies(&self, canary: &Canary) -> Copies {
        let mut copies = Copies::new();
        for extent in &self.extents {
            for (form, count) in canary.copies_in(&extent.bytes) {
                *copies.entry(form).or_default() += count;
            }
        }
        copies
    }

    /// Where the raw copies are.
    #[must_use]
    pub fn places(&self, canary: &Canary) -> Vec<Place> {
        self.extents.iter().flat_map(|extent| extent.places(canary)).collect()
    }
}

impl Extent {
    fn read(file: &File, start: i64, end: i64) -> Self {
        let mut bytes = vec![0; usize::try_from(end - start).expect("an extent fits memory")];
        file.read_exact_at(&mut bytes, start.unsigned_abs()).expect("data can be read");
        Self { address: usize::try_from(start).expect("an address fits"), bytes }
    }

    fn places(&self, canary: &Canary) -> Vec<Place> {
        let found = canary.first_half().find_iter(&self.bytes);
        let before =
            |at: usize| self.bytes[at.saturating_sub(12)..at].iter().map(|byte| printable(*byte)).collect();
        found.map(|at| Place { address: self.address + at, before: before(at) }).collect()
    }
}

fn printable(byte: u8) -> char {
    let byte = char::from(byte);
    if byte.is_ascii_graphic() { byte } else { '.' }
}

/// A page's use, from its flags in `/proc/kpageflags`. No flag: it is free, or one of the kernel's own, which has no
/// flags either while it waits on a processor's list.
#[must_use]
pub fn use_of_page(flags: u64) -> Option<String> {
    let named = USES.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, name)| *name);
    let named: Vec<&str> = named.collect();
    (!named.is_empty()).then(|| named.join(", "))
}

/// A table of copies: a line for each step, a column for each machine.
#[must_use]
pub fn table(title: &str, columns: &[&str], lines: &[(String, Vec<Copies>)]) -> String {
    let mut table = format!("\n{title:<34}");
    for column in columns {
        let _ = write!(table, " | {column:<28}");
    }
    for (step, counts) in lines {
        let _ = write!(table, "\n{step:<34}");
        for copies in counts {
            let _ = write!(table, " | {:<28}", summary(copies));
        }
    }
    table
}

fn summary(copies: &Copies) -> String {
    if copies.is_empty() {
        return "0".to_owned();
    }
    copies.iter().map(|(form, count)| format!("{count} {form}")).collect::<Vec<_>>().join(", ")
}
