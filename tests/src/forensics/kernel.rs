//! Debian's kernel, unpacked under `target/` and not installed: packages come by this machine's own apt.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{lock, succeed};
use crate::programs;

/// Not the one for clouds, which has no driver for VM generation IDs.
const PACKAGE: &str = "linux-image-amd64";

/// The modules for a network in a virtual machine, in the order of loading.
const MODULES: [&str; 8] = [
    "failover",
    "net_failover",
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_net",
];

/// A kernel and the modules that it needs.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    /// In the order of loading.
    pub(super) modules: Vec<PathBuf>,
}

impl Kernel {
    /// Fetched at the first call on this machine.
    pub(super) fn unpacked() -> Self {
        let folder = programs::target_directory().join("forensics").join(PACKAGE);
        fs::create_dir_all(&folder).expect("target/ is writable");
        let _lock = lock(&folder.with_extension("lock"));
        let done = folder.join("unpacked");
        if !done.exists() {
            unpack(&folder);
            File::create(done).expect("target/ is writable");
        }
        let modules = files_below(&folder.join("lib/modules"));
        let module = |name: &str| {
            let file = format!("{name}.ko");
            let found = modules.iter().find(|path| path.file_name().is_some_and(|found| *found == *file));
            found.unwrap_or_else(|| panic!("{PACKAGE} has no {file}")).clone()
        };
        Self { image: image(&folder), modules: MODULES.map(module).to_vec() }
    }
}

/// The package of that name only depends on the newest kernel's.
fn unpack(folder: &Path) {
    let depends = succeed(Command::new("apt-cache").args(["depends", "--important", PACKAGE]));
    let depends = String::from_utf8_lossy(&depends.stdout).into_owned();
    let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.unwrap_or_else(|| panic!("apt does not know {PACKAGE}: run apt-get update"));
    succeed(Command::new("apt-get").args(["download", "--quiet", package]).current_dir(folder));
    let archives =
        files_below(folder).into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "deb"));
    for archive in archives {
        succeed(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(folder));
        fs::remove_file(archive).expect("target/ is writable");
    }
}

fn image(folder: &Path) -> PathBuf {
    let is_image =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinuz"));
    files_below(&folder.join("boot")).into_iter().find(is_image).expect("a kernel's package has an image")
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let below = |path: PathBuf| if path.is_dir() { files_below(&path) } else { vec![path] };
    entries
        .flatten()
        .filter(|entry| !entry.path().is_symlink())
        .flat_map(|entry| below(entry.path()))
        .collect()
}
