//! The root of a virtual machine, in memory: the programs under test, a shell, and the libraries that these need.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;

use super::kernel::Kernel;
use super::succeed;
use crate::{programs, sdk, world};

/// The programs that the scripts of `data/forensics` run.
const TOOLS: [&str; 13] =
    ["cat", "chmod", "dash", "dd", "insmod", "ip", "kill", "mkdir", "mkfifo", "mount", "od", "sleep", "tail"];
const SCRIPTS: [&str; 5] = ["init", "join.sh", "devbox.sh", "copied-devbox.sh", "control-plane.sh"];
const FOLDERS: [&str; 7] = ["bin", "dev", "etc", "modules", "proc", "run", "sys"];

/// The control plane's certificate is for `localhost`: in a virtual machine, that is the machine around it.
const HOSTS: &str = "10.0.2.2 localhost\n";

/// An archive that the kernel takes as its first root. Gone with the last machine that boots from it.
#[derive(Debug)]
pub(super) struct Archive(TempDir);

impl Archive {
    /// Made where no machine has one already.
    pub(super) fn shared(kernel: &Kernel) -> Arc<Self> {
        static SHARED: Mutex<Weak<Archive>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let archive = Arc::new(Self::make(kernel));
            *shared = Arc::downgrade(&archive);
            archive
        })
    }

    fn make(kernel: &Kernel) -> Self {
        let archive = Self(world::directory());
        let root = archive.0.path().join("root");
        fill(&root, kernel);
        pack(&root, &archive.file());
        archive
    }

    /// For qemu's `-initrd`.
    pub(super) fn file(&self) -> PathBuf {
        self.0.path().join("initramfs")
    }
}

fn fill(root: &Path, kernel: &Kernel) {
    for folder in FOLDERS {
        fs::create_dir_all(root.join(folder)).expect("the test's directory is writable");
    }
    let tools = TOOLS.map(found);
    let ours = [programs::server(), programs::daemon(), programs::shim()];
    let programs: Vec<&PathBuf> = tools.iter().chain(&ours).collect();
    for program in &programs {
        copy(program, &root.join("bin").join(program.file_name().expect("a program has a name")));
    }
    for library in libraries(&programs) {
        copy(&library, &root.join(library.strip_prefix("/").expect("ldd names absolute paths")));
    }
    for (number, module) in kernel.modules.iter().enumerate() {
        copy(module, &root.join(format!("modules/{number}.ko")));
    }
    for script in SCRIPTS {
        copy(&sdk::file("data/forensics").join(script), &root.join(script));
    }
    symlink("dash", root.join("bin/sh")).expect("the test's directory is writable");
    write(root, "etc/hosts", HOSTS);
    write(root, "etc/nsswitch.conf", "hosts: files\n");
    write(root, "etc/passwd", "root:x:0:0::/:/bin/sh\n");
}

fn write(root: &Path, path: &str, text: &str) {
    fs::write(root.join(path), text).expect("the test's directory is writable");
}

fn found(tool: &str) -> PathBuf {
    let folders = ["/usr/bin", "/usr/sbin"].map(|folder| Path::new(folder).join(tool));
    folders.into_iter().find(|path| path.exists()).unwrap_or_else(|| panic!("{tool} is missing"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a file is in a folder"))
        .expect("the test's directory is writable");
    fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    fs::set_permissions(to, Permissions::from_mode(0o755)).expect("a file of ours can be given a mode");
}

/// The libraries that ldd(1) finds; a static program has none.
fn libraries(programs: &[&PathBuf]) -> BTreeSet<PathBuf> {
    let mut libraries = BTreeSet::new();
    for program in programs {
        let output = Command::new("ldd").arg(program).output().expect("ldd(1) is there");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let paths =
            text.split_ascii_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'));
        libraries.extend(paths.map(PathBuf::from));
    }
    libraries
}

fn pack(root: &Path, archive: &Path) {
    let archive = File::create(archive).expect("the test's directory is writable");
    let mut pack = Command::new("sh");
    pack.args(["-c", "find . | cpio --create --format=newc --owner=0:0 --quiet"])
        .current_dir(root)
        .stdout(archive);
    succeed(pack.stdin(Stdio::null()));
}
