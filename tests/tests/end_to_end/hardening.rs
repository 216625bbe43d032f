//! The protections that the kernel is asked for, seen from outside.

use std::fs;
use std::io::IoSliceMut;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use devbox_secrets_tests::memory::{mappings, read_mapping, status_field};
use devbox_secrets_tests::process;
use devbox_secrets_tests::programs;
use devbox_secrets_tests::require_root;
use devbox_secrets_tests::world::World;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

const STRANGER: u32 = 65_534;

/// How the kernel refuses to read a `memfd_secret(2)` page.
const REFUSALS: [Option<i32>; 2] = [Some(Errno::EIO as i32), Some(Errno::EFAULT as i32)];

#[tokio::test]
async fn neither_server_nor_daemon_can_dump_core() {
    let (world, daemon) = World::serving("API_KEY", "s3cret").await;
    for pid in [world.server.program.pid(), daemon.program.pid()] {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let fields: Vec<&str> = core.split_ascii_whitespace().collect();
        assert_eq!(fields[4..6], ["0", "0"], "{core}");
    }
}

#[tokio::test]
async fn a_daemon_is_closed_to_other_processes_of_its_own_user() {
    require_root!();
    let world = World::start().await;
    let devbox = world.devbox("box").await;
    let program = world.for_others(&programs::daemon());
    let directory = world.path().join(&devbox.id);
    fs::create_dir(&directory).unwrap();
    let daemon = world.setup(&devbox).user(STRANGER, &program).start().await;
    let pid = daemon.program.pid();
    assert_eq!(status_field(pid, "Uid").unwrap().split_whitespace().next(), Some("65534"));
    let memory = fs::metadata(format!("/proc/{pid}/mem")).unwrap();
    assert_eq!(memory.uid(), 0, "the files of a non-dumpable process are root's (PR_SET_DUMPABLE)");
    for file in ["mem", "environ", "maps"] {
        let mut command = Command::new("head");
        std::os::unix::process::CommandExt::uid(&mut command, STRANGER);
        command.args(["-c", "1"]).arg(format!("/proc/{pid}/{file}"));
        assert_ne!(process::run(command, b"").await.status, 0, "{file}");
    }
}

#[tokio::test]
async fn the_servers_files_in_proc_are_roots() {
    let world = World::start().await;
    let pid = world.server.program.pid();
    assert_eq!(fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid(), 0);
}

#[tokio::test]
async fn root_cannot_read_the_pages_that_hold_the_secrets() {
    require_root!();
    let (_world, daemon) = World::serving("API_KEY", "s3cret").await;
    let pid = daemon.program.pid();
    let mappings = mappings(pid);
    let secret: Vec<_> = mappings.iter().filter(|mapping| mapping.name.contains("secretmem")).collect();
    assert!(!secret.is_empty(), "the daemon has memfd_secret(2) pages");
    for mapping in secret {
        let error = read_mapping(pid, mapping).unwrap_err();
        assert!(REFUSALS.contains(&error.raw_os_error()), "{mapping:?}: {error}");
        assert!(read_as_debugger(pid, mapping.start).is_err(), "{mapping:?}");
    }
    let heap = mappings.iter().find(|mapping| mapping.name == "[heap]" || mapping.name == "[stack]").unwrap();
    assert!(
        read_mapping(pid, heap).is_ok() && read_as_debugger(pid, heap.start).is_ok(),
        "other pages can be read"
    );
}

fn read_as_debugger(pid: u32, address: u64) -> nix::Result<usize> {
    let mut byte = [0];
    let remote = RemoteIoVec { base: usize::try_from(address).unwrap(), len: 1 };
    let pid = Pid::from_raw(pid.try_into().unwrap());
    process_vm_readv(pid, &mut [IoSliceMut::new(&mut byte)], &[remote])
}

/// An ELF file's program headers (elf(5)); the shim is for 64-bit little-endian machines.
struct ProgramHeaders(Vec<(u32, u32)>);

impl ProgramHeaders {
    fn read(bytes: &[u8]) -> Self {
        let number = |at: usize, len: usize| {
            bytes[at..at + len].iter().rev().fold(0, |number: usize, byte| number << 8 | usize::from(*byte))
        };
        assert_eq!(&bytes[..6], b"\x7fELF\x02\x01");
        let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
        let header = |index| table + index * size;
        let field = |at| u32::try_from(number(at, 4)).unwrap();
        Self((0..count).map(|index| (field(header(index)), field(header(index) + 4))).collect())
    }
}

#[test]
fn the_shim_is_static_and_small_and_no_page_of_it_is_both_writable_and_executable() {
    const INTERPRETER: u32 = 3;
    const DYNAMIC: u32 = 2;
    const WRITE_AND_EXECUTE: u32 = 3;
    let shim = fs::read(programs::shim()).unwrap();
    let headers = ProgramHeaders::read(&shim).0;
    assert!(!headers.iter().any(|(kind, _)| [INTERPRETER, DYNAMIC].contains(kind)), "{headers:?}");
    assert!(!headers.iter().any(|(_, flags)| flags & WRITE_AND_EXECUTE == WRITE_AND_EXECUTE), "{headers:?}");
    assert!(shim.len() <= 65_536, "{} bytes", shim.len());
}

/// `.cargo/config.toml` switches it off at build time: its set-up costs each start 30 ms of processor time.
#[test]
fn no_program_gathers_entropy_from_processor_jitter() {
    for program in [programs::server(), programs::daemon()] {
        let file = fs::read(&program).unwrap();
        let text = String::from_utf8_lossy(&file);
        let has = |symbol: &str| text.contains(symbol);
        if !has("aws_lc_") {
            // A stripped release has no symbols to look for.
            continue;
        }
        assert!(!has("jent_entropy") && !has("jent_read"), "{}", program.display());
    }
}
