//! The program under test: freestanding, as it is released, and not only as the dev profile makes it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// Segment types and flags of elf(5).
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_GNU_STACK: u32 = 0x6474_e551;
const EXECUTABLE: u32 = 1;
const WRITABLE: u32 = 2;

/// Largest program that a release may have, in bytes.
#[cfg(target_arch = "x86_64")]
const MAX_SIZE: usize = 64 << 10;

static RELEASED: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("released");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--offline", "--package", "devbox-exec", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .arg("--target-dir")
        .arg(&folder)
        .status()
        .unwrap();
    assert!(status.success(), "cargo cannot build the released program");
    folder.join("release/devbox-exec")
});

/// The released program.
pub(crate) fn released() -> &'static Path {
    &RELEASED
}

/// The dev profile's program, which the C library starts.
pub(crate) fn hosted() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_devbox-exec"))
}

/// The types and flags of an ELF file's segments.
fn segments(file: &[u8]) -> Vec<(u32, u32)> {
    let number =
        |at: usize, len: usize| file[at..at + len].iter().rev().fold(0, |n, b| n << 8 | usize::from(*b));
    let (start, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let field = |segment: usize, at: usize| u32::try_from(number(start + segment * size + at, 4)).unwrap();
    (0..count).map(|segment| (field(segment, 0), field(segment, 4))).collect()
}

/// On AArch64 the file is larger than what is in it: segments are padded to pages of up to 64 KiB.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_released_program_is_small() {
    let size = std::fs::read(released()).unwrap().len();
    assert!(size <= MAX_SIZE, "{size} bytes");
}

#[test]
fn the_released_program_needs_no_loader_and_nothing_is_relocated() {
    let segments = segments(&std::fs::read(released()).unwrap());
    assert!(segments.iter().any(|(kind, _)| *kind == PT_LOAD));
    assert!(segments.iter().all(|(kind, _)| *kind != PT_INTERP && *kind != PT_DYNAMIC), "{segments:?}");
}

#[test]
fn no_page_of_the_released_program_is_writable_and_executable() {
    let segments = segments(&std::fs::read(released()).unwrap());
    let both = |flags: u32| flags & WRITABLE != 0 && flags & EXECUTABLE != 0;
    assert!(segments.iter().all(|(_, flags)| !both(*flags)), "{segments:?}");
    let stack = segments.iter().find(|(kind, _)| *kind == PT_GNU_STACK);
    assert!(stack.is_some_and(|(_, flags)| flags & EXECUTABLE == 0), "{segments:?}");
}
