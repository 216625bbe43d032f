//! A virtual machine, emulated in software, with its memory in a file of this machine's.
//!
//! It boots in about eight seconds, runs one script of `data/forensics`, and stops at each `step` of it until it is told to
//! [go on](Guest::go): what it says and is told goes over its serial console. It can be [put aside](super::snapshot).

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::initramfs::Archive;
use super::kernel::Kernel;
use super::ram::Ram;
use crate::needs;

/// Guest memory, in MiB: the root is in it twice while it is unpacked.
const MEMORY: u32 = 384;
/// How long a step may take: emulated, on a machine that runs other tests as well.
const DEADLINE: Duration = Duration::from_secs(90);

/// Whether this test can boot one here. If not, the test is skipped, and fails under `CI`.
#[must_use]
pub fn can_boot() -> bool {
    needs::met(cfg!(target_arch = "x86_64"), "an x86-64 machine")
        && needs::program("qemu-system-x86_64", "qemu-system-x86")
        && needs::program("cpio", "cpio")
}

/// A machine to boot.
#[derive(Debug, Clone, Copy, Default)]
pub struct Boot {
    /// The script: `devbox`, `control-plane` or `copied-devbox`.
    pub role: &'static str,
    /// Whether the kernel wipes every page that it frees (`init_on_free=1`).
    pub wipes_freed_pages: bool,
    /// Ports of the guest's that this machine's loopback address reaches.
    pub ports: &'static [u16],
    /// Its VM generation ID, a UUID.
    pub generation: Option<&'static str>,
}

/// QEMU's arguments for this machine, at a boot and from each snapshot of it.
#[derive(Debug, Clone)]
pub(super) struct Hardware {
    pub(super) boot: Boot,
    kernel: PathBuf,
    archive: Arc<Archive>,
}

/// A running virtual machine. Dropped, it is off and its memory is gone.
#[derive(Debug)]
pub struct Guest {
    pub(super) hardware: Hardware,
    pub(super) qemu: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    said: Vec<String>,
    /// A folder in this machine's memory.
    memory: TempDir,
    /// On this machine, in the order of [`Boot::ports`].
    pub ports: Vec<u16>,
}

impl Guest {
    /// Starts one, and does not wait.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn boot(boot: Boot) -> Self {
        let kernel = Kernel::unpacked();
        let archive = Archive::shared(&kernel);
        Hardware { boot, kernel: kernel.image, archive }.start(&[])
    }

    /// Waits until the script comes to this step, and returns what it says there.
    ///
    /// # Panics
    /// If it comes to another, or to none in time.
    pub async fn step(&mut self, name: &str) -> String {
        let found = timeout(DEADLINE, self.next_step()).await.ok().flatten();
        let step =
            found.unwrap_or_else(|| panic!("no step {name}: the guest said\n{}", self.said.join("\n")));
        let (found, rest) = step.split_once(' ').unwrap_or((&step, ""));
        assert_eq!(found, name, "the guest said\n{}", self.said.join("\n"));
        rest.to_owned()
    }

    async fn next_step(&mut self) -> Option<String> {
        while let Ok(Some(line)) = self.output.next_line().await {
            let line = line.trim_end().to_owned();
            let step = line.strip_prefix("STEP ").map(str::to_owned);
            self.said.push(line);
            if step.is_some() {
                return step;
            }
        }
        None
    }

    /// Lets the script go on, with a line to read.
    ///
    /// # Panics
    /// If the guest is gone.
    pub async fn go(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.expect("the guest's console takes input");
    }

    /// Its memory, as it is now.
    #[must_use]
    pub fn ram(&self) -> Ram {
        Ram::read(&ram(self.memory.path()))
    }

    /// The socket at which qemu takes orders, in its own words.
    pub(super) fn monitor(&self) -> PathBuf {
        monitor(self.memory.path())
    }

    /// The use of these pages by the guest's kernel: its flags for each (proc(5), `/proc/kpageflags`).
    ///
    /// The script has to be at a step, and stays there.
    ///
    /// # Panics
    /// If the guest does not answer.
    pub async fn page_flags(&mut self, pages: &[u64]) -> Vec<u64> {
        let mut flags = Vec::new();
        for page in pages {
            self.go(&format!("flags {page}")).await;
            let answer = self.step("flags").await;
            flags.push(u64::from_str_radix(answer.trim(), 16).expect("the guest prints hexadecimal flags"));
        }
        flags
    }
}

impl Hardware {
    /// Starts one, with `more` arguments to qemu.
    pub(super) fn start(self, more: &[&str]) -> Guest {
        let memory = tempfile::Builder::new().prefix("devbox-secrets-").tempdir_in("/dev/shm");
        let memory = memory.expect("/dev/shm is writable");
        let ports: Vec<u16> = self.boot.ports.iter().map(|_| free_port()).collect();
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(devices(memory.path(), self.boot.generation));
        qemu.arg("-netdev").arg(network(self.boot.ports, &ports));
        qemu.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(self.archive.file());
        qemu.arg("-append").arg(command_line(self.boot)).args(more);
        qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut qemu = qemu.spawn().expect("qemu starts");
        let input = qemu.stdin.take().expect("its standard input is a pipe");
        let output = BufReader::new(qemu.stdout.take().expect("its standard output is a pipe")).lines();
        Guest { hardware: self, qemu, input, output, said: Vec::new(), memory, ports }
    }
}

fn ram(directory: &Path) -> PathBuf {
    directory.join("ram")
}

fn monitor(directory: &Path) -> PathBuf {
    directory.join("monitor")
}

fn devices(directory: &Path, generation: Option<&str>) -> Vec<String> {
    let (ram, monitor) = (ram(directory), monitor(directory));
    let backing = format!("memory-backend-file,id=ram,size={MEMORY}M,share=on,mem-path={}", ram.display());
    let size = format!("{MEMORY}M");
    let monitor = format!("unix:{},server=on,wait=off", monitor.display());
    let generation = generation.map(|id| format!("vmgenid,guid={id}"));
    let mut words = vec![
        ["-accel", "tcg"],
        ["-machine", "q35,memory-backend=ram"],
        ["-object", &backing],
        ["-m", &size],
        ["-cpu", "max"],
        ["-smp", "1"],
        ["-vga", "none"],
        ["-display", "none"],
        ["-monitor", &monitor],
        ["-serial", "stdio"],
        ["-device", "virtio-net-pci,netdev=network,romfile="],
    ];
    words.extend(generation.as_ref().map(|device| ["-device", device]));
    let words = words.iter().flatten().map(|word| (*word).to_owned());
    words.chain(["-nodefaults".to_owned(), "-no-reboot".to_owned()]).collect()
}

/// The guest sees this machine as 10.0.2.2.
fn network(guest_ports: &[u16], ports: &[u16]) -> String {
    let forwards = guest_ports.iter().zip(ports);
    let forwards = forwards.map(|(inside, outside)| format!(",hostfwd=tcp:127.0.0.1:{outside}-:{inside}"));
    format!("user,id=network{}", forwards.collect::<String>())
}

/// Up to Linux 6.4, `memfd_secret(2)` has to be asked for at boot.
fn command_line(boot: Boot) -> String {
    let wipes = u8::from(boot.wipes_freed_pages);
    format!(
        "console=ttyS0 quiet panic=-1 mitigations=off secretmem.enable=1 init_on_free={wipes} role={}",
        boot.role
    )
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port is free");
    listener.local_addr().expect("a listener has an address").port()
}
