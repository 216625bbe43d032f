//! Launches that the daemon serves a second, against a bare echo on the same kind of socket.

use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use devbox_launch_proto::{Answer, AnswerHeader, Flags, HEADER_LEN, RequestBuilder};
use nix::cmsg_space;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;

/// Clients that ask at once, each in a loop.
const CLIENTS: usize = 4;
const DURATION: Duration = Duration::from_secs(3);

/// Launches a second that the daemon behind `socket` serves: request, answer, descriptor received and closed.
pub(super) fn launches(socket: &Path) -> Result<f64> {
    rate(|| ask_for_launch(socket))
}

/// The same exchange with a server that only reads and answers.
pub(super) fn echoes(directory: &Path, cpu: usize) -> Result<f64> {
    let socket = directory.join("echo.sock");
    let listener = UnixListener::bind(&socket)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve_echoes(&listener, &stop, cpu));
        let rate = rate(|| ask_for_echo(&socket));
        stop.store(true, Ordering::Relaxed);
        ask_for_echo(&socket)?;
        server.join().map_err(|_| anyhow::anyhow!("the echo server panicked"))??;
        rate
    })
}

/// How often a second `CLIENTS` threads get `exchange` done.
fn rate(exchange: impl Fn() -> Result<()> + Sync) -> Result<f64> {
    let started = Instant::now();
    let client = || -> Result<u32> {
        let mut done = 0;
        while started.elapsed() < DURATION {
            exchange()?;
            done += 1;
        }
        Ok(done)
    };
    let total = std::thread::scope(|scope| -> Result<u32> {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients
            .into_iter()
            .map(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
            .sum()
    })?;
    Ok(f64::from(total) / started.elapsed().as_secs_f64())
}

/// A request for everything.
pub(super) fn request(buffer: &mut [u8; 64]) -> Result<&[u8]> {
    let builder = RequestBuilder::new(buffer, Flags::default(), 0).ok().context("the request has no room")?;
    Ok(builder.finish())
}

fn ask_for_launch(socket: &Path) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(request(&mut [0; 64])?)?;
    let mut header = [0; HEADER_LEN];
    let mut space = cmsg_space!([i32; 1]);
    let mut parts = [IoSliceMut::new(&mut header)];
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut descriptors = 0;
    for control in message.cmsgs()? {
        let ControlMessageOwned::ScmRights(received) = control else { continue };
        descriptors += received.len();
        received.into_iter().for_each(close);
    }
    let answer = AnswerHeader::decode(&header)?.answer;
    ensure!(matches!(answer, Answer::Inline) || descriptors == 1, "no launch: {answer:?}");
    Ok(())
}

#[allow(unsafe_code, reason = "a received descriptor has no other owner yet")]
fn close(descriptor: i32) {
    // SAFETY: the kernel has just installed this descriptor for this process, and nothing else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
}

fn ask_for_echo(socket: &Path) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(request(&mut [0; 64])?)?;
    Ok(stream.read_exact(&mut [0; HEADER_LEN])?)
}

fn serve_echoes(listener: &UnixListener, stop: &AtomicBool, cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)?;
    let mut buffer = [0; HEADER_LEN];
    for stream in listener.incoming() {
        let mut stream = stream?;
        stream.read_exact(&mut buffer)?;
        stream.write_all(&buffer)?;
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
    bail!("the echo server lost its socket")
}
