//! Where on this machine a canary can be found: files, command lines, environments, the memory of processes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::canary::Canary;

const PAGE: u64 = 4096;
const CHUNK: u64 = 256 * PAGE;

/// A place where a canary was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// A path, or a process and what of it.
    pub place: String,
    /// How it was written there.
    pub form: &'static str,
}

fn findings(place: &str, canary: &Canary, bytes: &[u8]) -> Vec<Finding> {
    canary.found_in(bytes).into_iter().map(|form| Finding { place: place.to_owned(), form }).collect()
}

/// Looks into every file under `directory`.
///
/// # Panics
/// If the directory cannot be read.
#[must_use]
pub fn in_files(directory: &Path, canary: &Canary) -> Vec<Finding> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(in_files(&path, canary)),
            Ok(kind) if kind.is_file() => found.extend(in_file(&path, canary)),
            _ => {}
        }
    }
    found
}

/// Looks into one file; one that is gone has nothing.
#[must_use]
pub fn in_file(path: &Path, canary: &Canary) -> Vec<Finding> {
    findings(&path.display().to_string(), canary, &fs::read(path).unwrap_or_default())
}

/// Looks into the command line of every process.
///
/// # Panics
/// If `/proc` cannot be read.
#[must_use]
pub fn in_command_lines(canary: &Canary) -> Vec<Finding> {
    let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let numbered = processes.filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit());
    numbered.flat_map(|entry| in_file(&entry.path().join("cmdline"), canary)).collect()
}

/// Looks into the environment that a process started with.
#[must_use]
pub fn in_environment(pid: u32, canary: &Canary) -> Vec<Finding> {
    in_file(Path::new(&format!("/proc/{pid}/environ")), canary)
}

/// The result of a search of a process's memory.
#[derive(Debug)]
pub struct Scan {
    /// Where the canary was.
    pub found: Vec<Finding>,
    /// How many bytes could be read.
    pub bytes: u64,
}

/// Looks into every readable byte of a process's memory.
///
/// # Panics
/// If the process is gone, or this test may not look into it.
#[must_use]
pub fn in_memory(pid: u32, canary: &Canary) -> Scan {
    let memory = File::open(format!("/proc/{pid}/mem")).expect("root may read any process's memory");
    let mut scan = Scan { found: Vec::new(), bytes: 0 };
    for mapping in mappings(pid).iter().filter(|mapping| mapping.readable) {
        scan_mapping(&memory, pid, mapping, canary, &mut scan);
    }
    scan
}

fn scan_mapping(memory: &File, pid: u32, mapping: &Mapping, canary: &Canary, scan: &mut Scan) {
    let overlap = canary.longest_form() as u64;
    let mut at = mapping.start;
    while at < mapping.end {
        let end = mapping.end.min(at + CHUNK + overlap);
        let bytes = read_pages(memory, at, end);
        scan.bytes += bytes.len() as u64;
        let place = format!("memory of {pid} in {} {}", mapping.permissions, mapping.name);
        scan.found.extend(findings(&place, canary, &bytes));
        at += CHUNK;
    }
}

/// Reads what is readable from `start` to `end`; if a read fails, page by page, leaving out what fails.
fn read_pages(memory: &File, start: u64, end: u64) -> Vec<u8> {
    if let Some(bytes) = read_exactly(memory, start, end) {
        return bytes;
    }
    let pages = (start..end).step_by(usize::try_from(PAGE).expect("a page's size is small"));
    pages.filter_map(|page| read_exactly(memory, page, end.min(page + PAGE))).flatten().collect()
}

fn read_exactly(memory: &File, start: u64, end: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(end - start).ok()?];
    memory.read_exact_at(&mut bytes, start).ok().map(|()| bytes)
}

/// One line of `/proc/PID/maps`.
#[derive(Debug)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address after it.
    pub end: u64,
    /// Permissions, as `rw-p`.
    pub permissions: String,
    /// The file or use behind it; may be empty.
    pub name: String,
    readable: bool,
}

/// A process's mappings.
///
/// # Panics
/// If the process is gone, or this test may not look into it.
#[must_use]
pub fn mappings(pid: u32) -> Vec<Mapping> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("root may read any process's mappings");
    maps.lines().map(parse_mapping).collect()
}

/// `start-end perms offset dev inode name` (proc_pid_maps(5)).
fn parse_mapping(line: &str) -> Mapping {
    let mut fields = line.split_ascii_whitespace();
    let range = fields.next().and_then(|range| range.split_once('-')).expect("a mapping has a range");
    let hex = |text| u64::from_str_radix(text, 16).expect("an address is hexadecimal");
    let permissions = fields.next().expect("a mapping has permissions").to_owned();
    Mapping {
        start: hex(range.0),
        end: hex(range.1),
        readable: permissions.starts_with('r'),
        permissions,
        name: fields.nth(3).unwrap_or_default().to_owned(),
    }
}

/// Reads the first bytes of a mapping as root would by `/proc/PID/mem`.
///
/// # Errors
/// The kernel's refusal.
pub fn read_mapping(pid: u32, mapping: &Mapping) -> std::io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    File::open(format!("/proc/{pid}/mem"))?.read_exact_at(&mut bytes, mapping.start)?;
    Ok(bytes)
}

/// The value of a field of `/proc/PID/status`.
///
/// # Panics
/// If the process is gone.
#[must_use]
pub fn status_field(pid: u32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.map(|value| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_in_this_process_is_found_in_its_memory() {
        let canary = Canary::random();
        let scan = in_memory(std::process::id(), &canary);
        assert!(scan.found.iter().any(|finding| finding.form == "raw"));
        assert!(scan.bytes > 1_000_000);
    }

    #[test]
    fn a_canary_in_a_file_is_found_below_its_folder() {
        let canary = Canary::random();
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sub")).unwrap();
        assert_eq!(in_files(directory.path(), &canary), []);
        fs::write(directory.path().join("sub/file"), canary.value()).unwrap();
        assert_eq!(in_files(directory.path(), &canary).len(), 2, "one finding a half");
    }
}
