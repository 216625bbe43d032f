//! A virtual machine put aside, memory and devices in a file, as platforms do it; and machines that go on from there.

use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::guest::{Guest, Hardware};
use crate::{wait, world};

/// A machine that stands still. Dropped, its file is gone.
#[derive(Debug)]
pub struct Snapshot {
    hardware: Hardware,
    folder: TempDir,
}

impl Snapshot {
    /// Takes one, and the machine is off.
    ///
    /// # Panics
    /// If qemu does not write it.
    pub async fn of(mut guest: Guest) -> Self {
        let folder = world::directory();
        let orders =
            format!("migrate \"exec:cat >{}\"\ninfo migrate\nquit\n", state(folder.path()).display());
        let said = wait::within("a snapshot", order(&guest.monitor(), &orders)).await;
        assert!(said.as_ref().is_ok_and(|said| said.contains("completed")), "{said:?}");
        let ended = guest.qemu.wait().await.expect("qemu can be waited for");
        assert!(ended.success(), "qemu: {ended}");
        Self { hardware: guest.hardware, folder }
    }

    /// A machine that goes on from there, as any number of others may, with this VM generation ID if it had one.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn start(&self, generation: Option<&'static str>) -> Guest {
        let state = state(self.folder.path());
        let mut hardware = self.hardware.clone();
        hardware.boot.generation = generation;
        let guest = hardware.start(&["-incoming", &format!("exec:cat {}", state.display())]);
        wait::until("the machine to go on", async || is_running(&guest).await.then_some(())).await;
        guest
    }
}

/// Before it is, its console takes no input.
async fn is_running(guest: &Guest) -> bool {
    let said = order(&guest.monitor(), "info status\n").await;
    said.is_ok_and(|said| said.contains("VM status: running"))
}

fn state(folder: &Path) -> PathBuf {
    folder.join("state")
}

/// Gives orders, each a line, and returns what qemu says until it has done them.
async fn order(monitor: &Path, orders: &str) -> io::Result<String> {
    let mut monitor = UnixStream::connect(monitor).await?;
    monitor.write_all(orders.as_bytes()).await?;
    monitor.shutdown().await?;
    let mut said = String::new();
    monitor.read_to_string(&mut said).await?;
    Ok(said)
}
