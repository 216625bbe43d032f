//! `devbox-exec`: runs a command with this devbox's secrets in its environment. `--help` is the manual.
//!
//! The program copies no secret. The daemon's pages are mapped, the command's environment points into them, and
//! `execve(2)` ends the mapping with the process image that held it.
#![cfg_attr(freestanding, no_std)]
#![no_main]

mod program;

use core::ffi::CStr;
use core::fmt;
use core::panic::Location;

use devbox_exec::client::{self, Secrets, patiently};
use devbox_exec::failure::{EXIT_SHIM, Failure};
use devbox_exec::help::{HELP, VERSION};
use devbox_exec::line::Line;
use devbox_exec::options::{Arguments, Invocation, Options, parse};
use devbox_launch_proto::LAUNCH_SOCKET;

use program::command::Command;
use program::kernel::{self, Room, Socket, Start};

type Client<'o, A> = client::Client<'o, A, Socket>;

/// The environment variable with the socket's path, unless `--socket` names it.
const SOCKET_VARIABLE: &[u8] = b"DEVBOX_SECRETS_SOCKET";

/// The program, from what the kernel gave it to its exit status.
fn main(start: Start, room: Room) -> u8 {
    match run(start, room) {
        Ok(()) => 0,
        Err(failure) => {
            report(&failure);
            failure.status()
        }
    }
}

fn run(start: Start, room: Room) -> Result<(), Failure<'static>> {
    match parse(start.arguments.iter().skip(1))? {
        Invocation::Help => print(HELP.as_bytes()),
        Invocation::Version => print(VERSION.as_bytes()),
        Invocation::List(options) => list(&options, start),
        Invocation::Launch(options, index) => Err(launch(&options, start, index + 1, room)),
    }
}

/// Prints the names of the variables.
fn list(options: &Options<'static, impl Arguments<'static>>, start: Start) -> Result<(), Failure<'static>> {
    let mut client = Client::new(options, socket(options, start));
    print(patiently::<Socket, _>(options.wait_ms, |attempt| Ok(client.names(attempt)?))?)
}

/// Becomes the command; returns only if that fails. With `--optional`, unavailable secrets are a warning.
fn launch(
    options: &Options<'static, impl Arguments<'static>>,
    start: Start,
    index: usize,
    mut room: Room,
) -> Failure<'static> {
    let command = Command { arguments: start.arguments.from(index), path: start.variable(b"PATH") };
    let inherited = if options.clear_environment { start.environment.none() } else { start.environment };
    let mut client = Client::new(options, socket(options, start));
    let launch = patiently::<Socket, _>(options.wait_ms, |attempt| {
        let secrets = client.fetch(attempt)?;
        command.prepare(inherited, secrets, &mut room)
    });
    let launch = match launch {
        Err(Failure::Secrets(reason)) if options.optional => {
            report(&format_args!("warning: running without secrets: {reason}"));
            command.prepare(inherited, Secrets::NONE, &mut room)
        }
        launch => launch,
    };
    match launch {
        Ok(launch) => launch.run(),
        Err(failure) => failure,
    }
}

fn socket(options: &Options<'static, impl Arguments<'static>>, start: Start) -> &'static [u8] {
    let named = || start.variable(SOCKET_VARIABLE).filter(|path| !path.is_empty());
    options.socket.or_else(named).unwrap_or(LAUNCH_SOCKET.as_bytes())
}

fn print(text: &[u8]) -> Result<(), Failure<'static>> {
    kernel::write(kernel::STANDARD_OUTPUT, text).map_err(Failure::Output)
}

/// Prints one line on standard error. If even that fails, only the exit status is left. Its buffer is not on the
/// stack of a launch that needs none of it: each page of that costs a fault.
#[cold]
#[inline(never)]
fn report(what: &dyn fmt::Display) {
    let _ = kernel::write(kernel::STANDARD_ERROR, Line::new(what).as_bytes());
}

impl Start {
    /// The value of an environment variable.
    fn variable(self, name: &[u8]) -> Option<&'static [u8]> {
        self.environment.iter().find_map(|string: &'static CStr| {
            string.to_bytes().strip_prefix(name).and_then(|rest| rest.strip_prefix(b"="))
        })
    }
}

/// A panic ends like any other failure: one line, status 125, and no command.
fn panicked(place: Option<&Location<'_>>) -> ! {
    match place {
        Some(place) => report(&format_args!("internal error at {place}; please report it")),
        None => report(&"internal error; please report it"),
    }
    kernel::exit(EXIT_SHIM)
}

#[cfg(freestanding)]
#[panic_handler]
fn panic(information: &core::panic::PanicInfo<'_>) -> ! {
    panicked(information.location())
}
