//! Real processes: ended, with reused PIDs, replaced, hidden in mount namespaces.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use nix::unistd::{getegid, geteuid};
use tempfile::TempDir;

use super::*;
use crate::sys::BootTime;
use crate::sys::test_support::wait_until;
use devbox_secrets_tests::needs::skipped;

/// The socket for [`connects_and_leaves_its_connection_to_a_child`].
const SOCKET: &str = "DEVBOX_TEST_SOCKET";
/// Tries for a certain PID. Other processes take some meanwhile.
const RECYCLE_TRIES: usize = 500;

/// A process that ends with the test.
struct Sleeper(Child);

impl Sleeper {
    fn run(program: &Path) -> Self {
        Self::start(Command::new(program).arg("600"))
    }

    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }

    fn end(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    fn learn(&self, questions: &Questions) -> Facts {
        let process = Process::with_id(self.pid()).unwrap();
        learn(process.owner().unwrap(), &process, questions)
    }

    /// Its executable after execve(2): between that and fork(2) it still runs this program.
    fn executable(&self, questions: &Questions) -> Learned<Executable> {
        let own = fs::read_link("/proc/self/exe").unwrap();
        loop {
            let executable = self.learn(questions).executable;
            if !executable.as_ref().is_ok_and(|executable| Path::new(&executable.path) == own) {
                return executable;
            }
        }
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.stop();
    }
}

fn learn(peer: Peer, process: &Process, questions: &Questions) -> Facts {
    examiner::learn(peer, process, questions, &Cgroups::of_this_machine(), &Mutex::default(), || {})
}

fn does_it_run(path: &Path) -> Questions {
    let path = path.to_str().unwrap().to_owned();
    Questions { executables: vec![ExecutableQuestion { path, digest: true }], ..Questions::default() }
}

/// A copy of sleep(1) that a test may replace.
fn program() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("sleep");
    fs::copy("/bin/sleep", &path).unwrap();
    (directory, path)
}

/// Starts processes until one has the id `pid`; `None` if this machine does not allow it.
fn recycle(pid: i32) -> Option<Sleeper> {
    for _ in 0..RECYCLE_TRIES {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).ok()?;
        let next = Sleeper::run(Path::new("/bin/sleep"));
        if next.pid() == pid {
            return Some(next);
        }
    }
    None
}

/// Runs an ignored test of this module in a process of its own.
fn ignored_test(name: &str) -> Command {
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    // A grandchild may outlive it, and would keep a pipe of standard error open.
    command.args(["--ignored", "--exact", &format!("{module}::{name}")]).stderr(Stdio::inherit());
    command
}

/// A name that selects no test passes too, so the count is checked.
fn assert_passed(output: &std::process::Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// A connection whose process has ended and been reaped, while a child of it still holds the other end.
fn orphan() -> (UnixStream, Peer, BootTime) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let output =
        ignored_test("connects_and_leaves_its_connection_to_a_child").env(SOCKET, &socket).output().unwrap();
    assert_passed(&output);
    let (stream, _) = listener.accept().unwrap();
    let peer = Peer::of(&stream).unwrap();
    (stream, peer, BootTime::now())
}

#[test]
#[ignore = "a part of other tests, which run it in a process of its own"]
#[expect(clippy::zombie_processes, reason = "this process ends before its child, on purpose")]
fn connects_and_leaves_its_connection_to_a_child() {
    let stream = UnixStream::connect(std::env::var_os(SOCKET).unwrap()).unwrap();
    // It ends when the test drops its end.
    Command::new("/bin/cat").stdin(OwnedFd::from(stream)).stdout(Stdio::null()).spawn().unwrap();
}

#[test]
fn the_kernel_names_this_process_as_its_own_peer() {
    let (one, _other) = UnixStream::pair().unwrap();
    let peer = Peer::of(&one).unwrap();
    let own = i32::try_from(std::process::id()).unwrap();
    assert_eq!(peer, Peer { uid: geteuid().as_raw(), gid: getegid().as_raw(), pid: own });
    let process = Process::of_peer(&one, peer, BootTime::now()).unwrap();
    assert!(process.is_running());
    assert_eq!(process.owner(), Ok(peer));
}

#[test]
fn a_peer_that_passed_its_connection_on_and_ended_is_unknown() {
    let (stream, peer, accepted) = orphan();
    let questions =
        Questions { any_executable: true, units: vec![UnitPattern::any()], ..Questions::default() };
    match Process::of_peer(&stream, peer, accepted) {
        Err(obstacle) => assert_eq!(obstacle, Obstacle::Ended),
        // Newer kernels give handles of reaped processes too.
        Ok(process) => assert_eq!(learn(peer, &process, &questions), Facts::unknown(peer, Obstacle::Ended)),
    }
    assert!(Process::by_directory(peer.pid, accepted).is_err());
}

#[test]
fn a_recycled_pid_is_not_mistaken_for_the_peer() {
    let (stream, peer, accepted) = orphan();
    // Starts of processes have a resolution of 10 ms.
    while BootTime::now().since(accepted) < std::time::Duration::from_millis(20) {
        std::thread::yield_now();
    }
    let Some(_next) = recycle(peer.pid) else {
        return skipped("the right to choose a process id (root)");
    };
    if let Ok(process) = Process::of_peer(&stream, peer, accepted) {
        assert!(!process.is_running());
        assert_eq!(process.directory().unwrap_err(), Obstacle::Ended);
    }
    assert_eq!(
        Process::by_directory(peer.pid, accepted).unwrap_err(),
        Obstacle::Ended,
        "as on an old kernel"
    );
}

#[test]
fn a_recycled_pid_is_not_mistaken_for_a_held_process() {
    let first = Sleeper::run(Path::new("/bin/sleep"));
    let (pid, held) = (first.pid(), Process::with_id(first.pid()).unwrap());
    let peer = held.owner().unwrap();
    assert!(held.is_running());
    first.end();
    assert!(!held.is_running());
    let Some(_next) = recycle(pid) else {
        return skipped("the right to choose a process id (root)");
    };
    assert!(!held.is_running());
    let questions = Questions { any_executable: true, ..Questions::default() };
    assert_eq!(learn(peer, &held, &questions), Facts::unknown(peer, Obstacle::Ended));
}

#[test]
fn a_zombie_has_ended() {
    let mut sleeper = Sleeper::run(Path::new("/bin/sleep"));
    let process = Process::with_id(sleeper.pid()).unwrap();
    sleeper.0.kill().unwrap();
    wait_until("the process to end", || !process.is_running());
    assert!(Path::new(&format!("/proc/{}", sleeper.pid())).exists());
}

#[test]
fn an_executable_is_known_by_path_and_contents() {
    let (_directory, path) = program();
    let sleeper = Sleeper::run(&path);
    let expected = Digest::of(&mut fs::File::open(&path).unwrap()).unwrap();
    let executable = sleeper.executable(&does_it_run(&path)).unwrap();
    assert_eq!((executable.path.as_str(), executable.digest), (path.to_str().unwrap(), Ok(expected)));
    let other = sleeper.executable(&does_it_run(Path::new("/bin/other"))).unwrap();
    assert_eq!(other.digest, Err(Obstacle::NotAsked), "an executable that no rule names is not read");
}

#[test]
fn a_deleted_or_replaced_executable_is_refused() {
    let (_directory, path) = program();
    let sleeper = Sleeper::run(&path);
    let questions = does_it_run(&path);
    assert!(sleeper.executable(&questions).is_ok());
    fs::remove_file(&path).unwrap();
    assert_eq!(sleeper.executable(&questions), Err(Obstacle::Deleted));
    fs::copy("/bin/sleep", &path).unwrap();
    assert_eq!(sleeper.executable(&questions), Err(Obstacle::Deleted), "the same bytes in another file");
    let deleted = path.with_file_name("sleep (deleted)");
    fs::copy("/bin/sleep", &deleted).unwrap();
    assert_eq!(sleeper.executable(&does_it_run(&deleted)), Err(Obstacle::Deleted));
}

#[test]
fn an_executable_moved_away_is_known_under_its_new_name_only() {
    let (_directory, path) = program();
    let sleeper = Sleeper::run(&path);
    assert!(sleeper.executable(&does_it_run(&path)).is_ok());
    let moved = path.with_file_name("moved");
    fs::rename(&path, &moved).unwrap();
    fs::write(&path, "another program").unwrap();
    assert_eq!(sleeper.executable(&does_it_run(&path)).unwrap().path, moved.to_str().unwrap());
}

#[test]
fn a_link_to_an_executable_is_not_its_name() {
    let (_directory, path) = program();
    let link = path.with_file_name("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let through_link = Sleeper::run(&link);
    assert_eq!(through_link.executable(&does_it_run(&link)).unwrap().path, path.to_str().unwrap());
    let hard = path.with_file_name("hard");
    fs::hard_link(&path, &hard).unwrap();
    assert_eq!(Sleeper::run(&hard).executable(&does_it_run(&path)).unwrap().path, hard.to_str().unwrap());
}

/// The facts about a program that runs as `path` in a mount namespace that `script` makes; `None`
/// if namespaces are unavailable.
fn in_another_mount_namespace(script: &str, arguments: &[&Path], path: &Path) -> Option<Obstacle> {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).args(arguments);
    let mut sleeper = Sleeper::start(command.stderr(Stdio::null()));
    let questions = does_it_run(path);
    while sleeper.0.try_wait().unwrap().is_none() {
        match sleeper.executable(&questions) {
            // Still unshare(1) or sh(1).
            Ok(executable) => assert_ne!(executable.path, path.to_str().unwrap(), "deceived"),
            Err(Obstacle::Ended) => {}
            Err(obstacle) => return Some(obstacle),
        }
    }
    skipped("namespaces for users");
    None
}

#[test]
fn a_mount_namespace_that_shows_another_file_under_a_trusted_path_deceives_nobody() {
    let (_directory, trusted) = program();
    let forged = trusted.with_file_name("forged");
    fs::copy("/bin/sleep", &forged).unwrap();
    fs::OpenOptions::new().append(true).open(&forged).unwrap().write_all(b"evil").unwrap();
    let script = r#"mount --bind "$0" "$1" && exec "$1" 600"#;
    let obstacle = in_another_mount_namespace(script, &[&forged, &trusted], &trusted);
    assert!(obstacle.is_none_or(|obstacle| obstacle == Obstacle::OtherFile), "{obstacle:?}");
}

#[test]
fn a_path_that_is_only_in_another_mount_namespace_is_not_believed() {
    let (directory, _) = program();
    let folder = directory.path().canonicalize().unwrap();
    let path = folder.join("only-there");
    let script = r#"mount -t tmpfs none "$0" && cp /bin/sleep "$1" && exec "$1" 600"#;
    let obstacle = in_another_mount_namespace(script, &[&folder, &path], &path);
    assert!(obstacle.is_none_or(|obstacle| obstacle == Obstacle::Unseen), "{obstacle:?}");
}

#[test]
#[ignore = "a part of the next test, which runs it as another user"]
fn the_program_of_its_parent_is_forbidden() {
    let process = Process::with_id(nix::unistd::getppid().as_raw()).unwrap();
    let questions = Questions { any_executable: true, ..Questions::default() };
    assert_eq!(learn(process.owner().unwrap(), &process, &questions).executable, Err(Obstacle::Forbidden));
}

#[test]
fn another_users_program_is_forbidden_without_a_capability_and_said_so() {
    match ignored_test("the_program_of_its_parent_is_forbidden").uid(65_534).gid(65_534).output() {
        Ok(output) => assert_passed(&output),
        Err(error) => skipped(&format!("that another user can run this program: {error}")),
    }
}

#[tokio::test]
async fn an_examiner_answers_and_starts_its_thread_only_when_asked() {
    let examiner = Examiner::new(Cgroups::of_this_machine());
    assert!(!examiner.is_started());
    let own = i32::try_from(std::process::id()).unwrap();
    let process = Process::with_id(own).unwrap();
    let peer = process.owner().unwrap();
    let questions = Questions { any_executable: true, ..Questions::default() };
    let facts = examiner.examine(peer, process, questions).await;
    let path = fs::read_link("/proc/self/exe").unwrap();
    assert_eq!(facts.executable.unwrap().path, path.to_str().unwrap());
    assert!(examiner.is_started());
}
