//! Memory pressure: a swap file that is the machine's while the test runs, and a cgroup that is too small for what is in it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{succeed, the_machine};
use crate::memory::status_field;
use crate::process::becoming;
use crate::{needs, wait};

/// Size of the swap file, in MiB.
const SWAP: usize = 256;
/// The cgroup's memory limit, in MiB.
const LIMIT: usize = 64;
/// Memory that the process takes to exceed the cgroup, in MiB.
const HOG: usize = 128;

/// How long killed processes may take to leave a cgroup.
const GONE: Duration = Duration::from_secs(5);

/// Holds what it is given, touches memory without end, and waits.
const HOLDER: &str = "import sys
value = sys.stdin.readline().strip().encode()
copies = [value + b'.' for _ in range(4096)]
hog = bytearray(int(sys.argv[1]) << 20)
for at in range(0, len(hog), 4096):
    hog[at] = 1
print('ready', flush=True)
sys.stdin.readline()
";

/// Whether this test may swap.
#[must_use]
pub fn can_swap() -> bool {
    needs::root() && needs::program("/usr/bin/python3", "python3") && needs::program("swapon", "util-linux")
}

/// A swap file in use. Dropped, it no longer is.
#[derive(Debug)]
pub struct Swap {
    file: PathBuf,
    is_on: bool,
    _machine: File,
}

impl Swap {
    /// A swap file in `folder`; `None`, and the test is skipped, if the kernel takes none there.
    ///
    /// # Panics
    /// If the file cannot be written.
    #[must_use]
    pub fn on(folder: &Path) -> Option<Self> {
        let file = folder.join("swap");
        let size = format!("count={SWAP}");
        // Written out, not only allocated: a hole would read as zeros whatever is swapped out.
        let mut write = Command::new("dd");
        succeed(
            write.args(["if=/dev/zero", "bs=1M", "conv=fsync", &size]).arg(format!("of={}", file.display())),
        );
        succeed(Command::new("chmod").arg("600").arg(&file));
        succeed(Command::new("mkswap").arg(&file));
        let machine = the_machine();
        let is_on = Command::new("swapon").arg(&file).status().is_ok_and(|status| status.success());
        needs::met(is_on, "a file system and a kernel that take a swap file").then(|| Self {
            file,
            is_on,
            _machine: machine,
        })
    }

    /// Its content, read past the page cache.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn content(&self) -> Vec<u8> {
        let input = format!("if={}", self.file.display());
        succeed(Command::new("dd").args([&input, "bs=1M", "iflag=direct"])).stdout
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        if self.is_on {
            let _ = Command::new("swapoff").arg(&self.file).status();
        }
    }
}

/// A cgroup with little memory, of either version. Dropped, it is gone; its processes must be before.
#[derive(Debug)]
pub struct Pressed {
    folder: PathBuf,
}

impl Pressed {
    /// A fresh one.
    ///
    /// # Panics
    /// If none can be made.
    #[must_use]
    pub fn cgroup() -> Self {
        let version_1 = Path::new("/sys/fs/cgroup/memory");
        let (root, limit) = if version_1.exists() {
            (version_1, "memory.limit_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup"), "memory.max")
        };
        let folder = root.join(format!("devbox-secrets-{}", std::process::id()));
        fs::create_dir(&folder).expect("root can make a cgroup");
        fs::write(folder.join(limit), (LIMIT << 20).to_string()).expect("a cgroup's memory can be limited");
        Self { folder }
    }

    /// The same command, in this cgroup: a shell moves itself there before it becomes the program.
    #[must_use]
    pub fn command(&self, command: &Command) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-ec", "echo $$ > \"$0/cgroup.procs\"; exec \"$@\""]).arg(&self.folder);
        let mut shell = becoming(shell, command);
        shell.stdin(Stdio::null()).stdout(Stdio::null());
        shell
    }
}

impl Drop for Pressed {
    fn drop(&mut self) {
        // A killed process leaves its cgroup a moment later.
        let deadline = Instant::now() + GONE;
        while fs::remove_dir(&self.folder).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A process that keeps a value in ordinary memory, and takes more than its cgroup has.
#[derive(Debug)]
pub struct Holder {
    child: Child,
}

impl Holder {
    /// Starts it, and waits until the kernel has swapped some of it out.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn start(cgroup: &Pressed, value: &str) -> Self {
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", HOLDER, &HOG.to_string()]);
        let mut command = cgroup.command(&python);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("a shell starts");
        let stdin = child.stdin.as_mut().expect("its standard input is a pipe");
        stdin.write_all(format!("{value}\n").as_bytes()).expect("it reads its standard input");
        let mut holder = Self { child };
        wait::until("memory to be swapped out", async || {
            assert!(
                holder.child.try_wait().expect("a child can be waited for").is_none(),
                "the holder has ended"
            );
            (swapped(holder.child.id()) > HOG / 4).then_some(())
        })
        .await;
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How much of a process is swapped out, in MiB.
fn swapped(pid: u32) -> usize {
    let field = status_field(pid, "VmSwap").unwrap_or_default();
    field.split(' ').next().and_then(|number| number.parse::<usize>().ok()).unwrap_or_default() >> 10
}
