//! The machine's files: what systemd needs to boot, and this project as a package would install it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::programs;

const PASSWD: &str = "root:x:0:0::/root:/bin/bash
nobody:x:65534:65534::/:/usr/sbin/nologin
agent:x:1000:1000::/:/bin/bash
stranger:x:1001:1001::/:/bin/bash
";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\nagent:x:1000:\nstranger:x:1001:\n";

/// A uid of this machine's own for the daemon: the kernel counts a user's keys over all machines that share it.
fn daemon_uid() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    1_000_000 + std::process::id() % 10_000 * 100 + NEXT.fetch_add(1, Ordering::Relaxed) % 100
}

/// Boots no further than to sockets and timers, then runs the script; its exit status is the machine's. A script that hangs
/// is ended, and still says what was going on.
const TARGET: &str = "[Unit]\nRequires=basic.target\nAfter=basic.target\nWants=machine.service\n";
const SCRIPT: &str = "[Unit]
After=basic.target
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
ExecStart=/bin/bash /machine/script
TimeoutStartSec=180
StandardOutput=file:/machine/output
StandardError=inherit
";

/// Of no use in a test, and slow.
const MASKED: [&str; 10] = [
    "ldconfig.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-machine-id-commit.service",
    "systemd-networkd.socket",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-done.service",
    "systemd-update-utmp.service",
];

/// Everything but `/usr`, which is the one below `system`.
pub(super) fn install_system(root: &Path, system: &Path) {
    for folder in ["dev", "proc", "sys", "run", "tmp", "usr", "root", "var/log/journal", "machine"] {
        fs::create_dir_all(root.join(folder)).expect("a folder of the test's can be made");
    }
    for link in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{link}"), root.join(link)).expect("a link of the test's can be made");
    }
    let uid = daemon_uid();
    write(root, "/etc/passwd", &format!("{PASSWD}devbox-secretsd:x:{uid}:{uid}::/:/usr/sbin/nologin\n"));
    write(root, "/etc/group", &format!("{GROUP}devbox-secretsd:x:{uid}:\n"));
    write(root, "/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n");
    write(root, "/etc/machine-id", &format!("{}\n", "5ec2".repeat(8)));
    write(root, "/etc/systemd/system/machine.target", TARGET);
    write(root, "/etc/systemd/system/machine.service", SCRIPT);
    let units = root.join("etc/systemd/system");
    symlink("machine.target", units.join("default.target")).expect("a link of the test's can be made");
    for unit in MASKED {
        symlink("/dev/null", units.join(unit)).expect("a link of the test's can be made");
    }
    for file in ["os-release", "ld.so.cache"] {
        fs::copy(system.join("etc").join(file), root.join("etc").join(file))
            .expect("every system has that file");
    }
}

/// The programs, units, users and folders, laid over `/usr`.
pub(super) fn install_project(usr: &Path) {
    for program in [programs::server(), programs::daemon(), programs::shim()] {
        install(&program, &usr.join("bin"));
    }
    let systemd =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").join("systemd");
    for unit in files_of(&systemd) {
        if unit.extension().is_some_and(|kind| kind != "md") {
            install(&unit, &usr.join("lib/systemd/system"));
        }
    }
    for drop_in in files_of(&systemd.join("devbox-secretsd.service.d")) {
        install(&drop_in, &usr.join("share/devbox-secrets"));
    }
    for folder in ["sysusers.d", "tmpfiles.d"] {
        for file in files_of(&systemd.join(folder)) {
            install(&file, &usr.join("lib").join(folder));
        }
    }
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of the repository can be read");
    entries.map(|entry| entry.expect("a folder can be read").path()).filter(|path| path.is_file()).collect()
}

/// Copied by another process: a descriptor that this one had open for writing could leak into a child that another test
/// forks, and make `execve` fail with ETXTBSY.
fn install(file: &Path, folder: &Path) {
    let mode = if folder.ends_with("bin") { "-Dm755" } else { "-Dm644" };
    let mut install = Command::new("install");
    install.arg(mode).arg("--target-directory").arg(folder).arg(file);
    assert!(
        install.status().expect("install(1) is there").success(),
        "{} cannot be installed",
        file.display()
    );
}

/// Writes a file by its path in the machine. One with `#!` in front can be executed.
pub(super) fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path.trim_start_matches('/'));
    fs::create_dir_all(path.parent().expect("a file is in a folder"))
        .expect("a folder of the test's can be made");
    fs::write(&path, text).expect("a file of the test's can be written");
    let mode = if text.starts_with("#!") { 0o755 } else { 0o644 };
    fs::set_permissions(&path, Permissions::from_mode(mode))
        .expect("a file of the test's can be given a mode");
}
