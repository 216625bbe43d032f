//! `cargo xtask test`: every test, with what it needs.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::fuzz;
use xtask::build::{self, Profile, cargo, succeed};

/// A program that tests run, and the Debian packages that bring it.
struct Need {
    program: &'static str,
    probe: &'static [&'static str],
    packages: &'static [&'static str],
    why: &'static str,
}

const NEEDS: &[Need] = &[
    Need {
        program: "python3",
        probe: &["-c", "import ensurepip, venv"],
        packages: &["python3", "python3-venv"],
        why: "the official Python SDK and an API fuzzer as clients",
    },
    Need {
        program: "c++",
        probe: &["--version"],
        packages: &["g++"],
        why: "libFuzzer, which is written in C++",
    },
    Need {
        program: "faketime",
        probe: &["--version"],
        packages: &["faketime"],
        why: "certificates and tokens that expire",
    },
    Need {
        program: "gdb",
        probe: &["--version"],
        packages: &["gdb"],
        why: "debuggers and core dumps, which must not get at a secret",
    },
    Need {
        program: "systemd-nspawn",
        probe: &["--version"],
        packages: &["systemd-container"],
        why: "the units under a real systemd",
    },
    Need {
        program: "debootstrap",
        probe: &["--version"],
        packages: &["debootstrap"],
        why: "the units under the systemd of Debian 13",
    },
    Need {
        program: "npm",
        probe: &["--version"],
        packages: &["nodejs", "npm"],
        why: "the official TypeScript SDK as a client",
    },
    Need {
        program: "cpio",
        probe: &["--version"],
        packages: &["cpio"],
        why: "the first root of virtual machines",
    },
    Need {
        program: "qemu-system-x86_64",
        probe: &["--version"],
        packages: &["qemu-system-x86", "kmod", "iproute2"],
        why: "virtual machines whose whole memory is searched",
    },
    Need {
        program: "curl",
        probe: &["--version"],
        packages: &["curl"],
        why: "metrics over a Unix socket, as the documents say",
    },
    Need {
        program: "nft",
        probe: &["--version"],
        packages: &["nftables"],
        why: "firewalls that drop and reject",
    },
    Need {
        program: "ip",
        probe: &["-V"],
        packages: &["iproute2"],
        why: "networks of a test's own, whose links fail",
    },
    Need {
        program: "strace",
        probe: &["--version"],
        packages: &["strace"],
        why: "every system call of the programs",
    },
];

/// Runs every test, or those that `filters` name.
pub(crate) fn run(filters: &[String]) -> Result<ExitCode> {
    install_needs()?;
    let mut test = cargo();
    test.args(["test", "--workspace", "--no-fail-fast"]);
    if !filters.is_empty() {
        test.arg("--").args(filters);
    }
    succeed(&mut test).context("tests failed")?;
    if filters.is_empty() {
        fuzz::short_run()?;
        test_release()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The end-to-end tests that say most about the programs which users run: those of the release profile. Link-time optimisation,
/// `panic = "abort"` and a size-optimised daemon are nowhere else.
const RELEASE_TESTS: [&str; 6] =
    ["canary::", "confinement::", "durability::", "hardening::", "launch::", "launch_changes::"];

fn test_release() -> Result<()> {
    println!("Building the release profile (some minutes) for the core of the end-to-end tests");
    let programs = build::programs(Profile::Release)?;
    let folder = programs.server.parent().context("a program is in a folder")?;
    let mut test = cargo();
    // The whole workspace, so that no dependency has other features than in the run before.
    test.args(["test", "--workspace", "--test", "end_to_end", "--"]).args(RELEASE_TESTS);
    test.env("DEVBOX_SECRETS_TESTED_PROGRAMS", folder);
    succeed(&mut test).context("tests of the release build failed")
}

fn install_needs() -> Result<()> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !is_there(need)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages).copied().collect();
    for need in &missing {
        println!("Missing: {} ({})", need.program, need.why);
    }
    if !nix::unistd::geteuid().is_root() || !Path::new("/usr/bin/apt-get").exists() {
        bail!("install what is missing, on Debian: sudo apt-get install {}", packages.join(" "));
    }
    succeed(Command::new("apt-get").args(["update", "-qq"]))?;
    let mut install = Command::new("apt-get");
    install.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    succeed(install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages))
        .context("the packages could not be installed")
}

fn is_there(need: &Need) -> bool {
    let mut probe = Command::new(need.program);
    probe.args(need.probe).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}
