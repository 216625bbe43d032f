//! Landlock (landlock(7)): the files and ports within the process's reach from now on.
//!
//! | reach | why |
//! |---|---|
//! | read the configuration's folder | SIGHUP takes up changed rules; a changed file is a new one of the same name |
//! | read files of the identity's folders | certificate files that are replaced, and a join token to resume with: new files of the same names |
//! | read `/etc` | names of users in changed rules, and the server's; these files are replaced by rename(2), and a rule holds an inode, so the folder it is |
//! | read `/run/systemd/userdb` | users whom systemd makes for a unit have their names there (nss-systemd(8)) |
//! | read where `resolv.conf` really is | the server's name. Not where it is an address |
//! | read `/proc` and `/sys/fs/cgroup` | who a peer is |
//! | remove files from the sockets' folders and what is below them | the sockets, at the end. A rule holds for a whole tree, so give the sockets a folder of their own |
//! | connect to the server's TCP port | the control plane |
//! | connect to TCP port 53 | a long DNS answer. Not where the server is an address |
//!
//! Everything else is refused: writing, executing, making anything in a file system, listening on TCP, signals to
//! processes outside, abstract Unix sockets outside. Unix sockets with a path are not restricted: see [`super::seccomp`].

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, NetPort, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, Scope, path_beneath_rules,
};

use super::Step;
use crate::control_plane::ServerUrl;

/// The newest kernel interface that this module was tested with.
const KNOWN: ABI = ABI::V7;
/// The first interface with rules for TCP (Linux 6.7).
const WITH_TCP: ABI = ABI::V4;

const DNS: u16 = 53;

/// The files and ports that the daemon still needs once it has started.
#[derive(Debug, Clone, Copy)]
pub struct Reach<'a> {
    /// The configuration file, which may not exist.
    pub config: &'a Path,
    /// The identity's files, read again when they are replaced.
    pub identity: &'a [&'a Path],
    /// Sockets whose files the daemon removes at the end.
    pub sockets: &'a [&'a Path],
    /// The control plane.
    pub server: &'a ServerUrl,
}

/// Restricts this thread, and every one that it starts, to `reach`, irrevocably.
pub(super) fn restrict(reach: &Reach<'_>) -> Step {
    match ruleset(reach).and_then(RulesetCreated::restrict_self) {
        Ok(status) => describe(ABI::from(status.landlock)),
        Err(error) => Step::missing(format!("{error}: allow the landlock system calls in the sandbox")),
    }
}

fn describe(abi: ABI) -> Step {
    let number = abi as i32;
    if abi == ABI::Unsupported {
        Step::missing("this kernel has none: it takes CONFIG_SECURITY_LANDLOCK, and landlock in lsm=")
    } else if abi < WITH_TCP {
        Step::missing(format!("ABI {number} restricts files only: Linux 6.7 restricts TCP as well"))
    } else {
        Step::achieved_by(format!("ABI {number}"))
    }
}

fn ruleset(reach: &Reach<'_>) -> Result<RulesetCreated, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(KNOWN))?;
    let ruleset =
        ruleset.handle_access(AccessNet::from_all(KNOWN))?.scope(Scope::from_all(KNOWN))?.create()?;
    let ruleset = ruleset.add_rules(path_beneath_rules(read_paths(reach), read))?;
    let ruleset = ruleset.add_rules(path_beneath_rules(identity_paths(reach), AccessFs::ReadFile))?;
    let folders = reach.sockets.iter().map(|socket| folder(socket));
    let ruleset = ruleset.add_rules(path_beneath_rules(folders, AccessFs::RemoveFile))?;
    let ports = ports(reach.server);
    ruleset.add_rules(
        ports.into_iter().map(|port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::ConnectTcp))),
    )
}

fn read_paths(reach: &Reach<'_>) -> Vec<PathBuf> {
    let fixed = ["/etc", "/proc", "/sys/fs/cgroup", "/run/systemd/userdb"];
    let mut paths: Vec<PathBuf> = fixed.iter().map(PathBuf::from).collect();
    paths.push(folder(reach.config));
    // A link elsewhere needs its target's folder, and its own, which holds the next target.
    paths.extend(reach.config.canonicalize().ok().map(|file| folder(&file)));
    if has_name(reach.server) {
        paths.extend(Path::new("/etc/resolv.conf").canonicalize().ok().map(|file| folder(&file)));
    }
    paths
}

/// Like the configuration: a link's own folder and its target's.
fn identity_paths(reach: &Reach<'_>) -> Vec<PathBuf> {
    let real = reach.identity.iter().filter_map(|file| file.canonicalize().ok());
    reach.identity.iter().map(|file| file.to_path_buf()).chain(real).map(|file| folder(&file)).collect()
}

fn ports(server: &ServerUrl) -> Vec<u16> {
    if has_name(server) { vec![server.port(), DNS] } else { vec![server.port()] }
}

fn has_name(server: &ServerUrl) -> bool {
    server.host().parse::<IpAddr>().is_err()
}

/// A file's folder; the working directory for a bare name.
fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_with_an_address_needs_no_resolver() {
        assert_eq!(ports(&"https://[::1]:8443".parse().unwrap()), [8443]);
        assert_eq!(ports(&"https://192.0.2.1".parse().unwrap()), [443]);
        assert_eq!(ports(&"https://secrets.example:8443".parse().unwrap()), [8443, DNS]);
    }

    #[test]
    fn files_without_ports_are_not_all_of_it() {
        assert!(describe(ABI::V4).achieved && describe(ABI::V7).achieved);
        assert!(!describe(ABI::V2).achieved && !describe(ABI::Unsupported).achieved);
    }

    #[test]
    fn the_folder_of_a_bare_name_is_the_working_directory() {
        assert_eq!(folder(Path::new("agent.toml")), Path::new("."));
        assert_eq!(folder(Path::new("/run/x.sock")), Path::new("/run"));
    }
}
