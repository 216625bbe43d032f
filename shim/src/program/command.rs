//! Becomes the command.
//!
//! Signal dispositions, the signal mask, open files and arguments are left as they are.

use core::ffi::CStr;

use devbox_exec::client::Secrets;
use devbox_exec::environment::{self, Environment};
use devbox_exec::failure::{CommandFailure, Failure, SecretsFailure};
use devbox_exec::limits::{Excess, Largest, SMALLEST_ROOM, needed, room};
use devbox_exec::payload::InvalidPayload;
use devbox_exec::search::{DEFAULT_PATH, PATH_MAX, candidate, directories, goes_on, is_path};
use devbox_launch_proto::MAX_ARG_STRLEN;
use syscalls::Errno;

use super::kernel::{self, Room, Strings};

/// Room for most paths: more would be another page of the stack to touch.
const USUAL_PATH: usize = 256;
/// The shell that runs scripts without a `#!` line.
const SHELL: &CStr = c"/bin/sh";
/// The first bytes of a program's file: elf(5).
const ELF: &[u8; 4] = b"\x7fELF";

#[derive(Clone, Copy)]
pub(crate) struct Command {
    /// The command and its arguments; at least one.
    pub(crate) arguments: Strings,
    /// This process's own `PATH`.
    pub(crate) path: Option<&'static [u8]>,
}

/// A command with its environment, ready to run.
pub(crate) struct Launch {
    command: Command,
    name: &'static CStr,
    inherited: Strings,
    secrets: Secrets,
    environment: Environment<'static>,
}

impl Command {
    /// The command with the `inherited` environment and the secrets, ready to run.
    pub(crate) fn prepare(
        self,
        inherited: Strings,
        secrets: Secrets,
        room: &mut Room,
    ) -> Result<Launch, Failure<'static>> {
        let len = environment::table_len(inherited.len(), secrets.count);
        let table = room.table(len).map_err(|error| match secrets.count {
            0 => Failure::Memory(error),
            _ => SecretsFailure::Memory(error).into(),
        })?;
        let environment = environment::build(inherited.iter(), secrets.payload, secrets.count, table);
        // First of all, because the daemon may be wiping the strings meanwhile.
        if secrets.are_withdrawn() {
            return Err(InvalidPayload::Withdrawn.into());
        }
        let environment = environment?;
        let name = self.arguments.iter().next().unwrap_or_default();
        let launch = Launch { command: self, name, inherited, secrets, environment };
        launch.check_size()?;
        Ok(launch)
    }
}

/// `directory/command` in pages of its own; `None` if there cannot be such a file.
fn long_candidate(directory: &[u8], command: &CStr) -> Option<&'static CStr> {
    if directory.len() + command.count_bytes() >= PATH_MAX {
        return None;
    }
    candidate(directory, command, kernel::allocate(PATH_MAX).ok()?)
}

impl Launch {
    /// Becomes the command; returns only if that fails.
    pub(crate) fn run(&self) -> Failure<'static> {
        let failure = if is_path(self.name) { self.run_path() } else { self.search() };
        if failure.error == Errno::E2BIG {
            return Failure::TooLarge(self.excess(0));
        }
        Failure::Command(failure)
    }

    fn run_path(&self) -> CommandFailure<'static> {
        let error = self.execute(self.name);
        let present = kernel::is_present(self.name);
        CommandFailure { path: self.name.to_bytes(), error, searched: None, present }
    }

    fn search(&self) -> CommandFailure<'static> {
        let path = self.command.path.unwrap_or(DEFAULT_PATH);
        let error = self.try_each(path);
        let (file, searched) = match self.find_present(path) {
            Some(file) => (file, None),
            None => (self.name, Some(path)),
        };
        CommandFailure { path: file.to_bytes(), error, searched, present: searched.is_none() }
    }

    /// Tries each directory of `path`; returns the most informative error.
    fn try_each(&self, path: &[u8]) -> Errno {
        let mut buffer = [0; USUAL_PATH];
        let mut denied = None;
        for directory in directories(path) {
            let error = match candidate(directory, self.name, &mut buffer) {
                Some(file) => self.execute(file),
                None => long_candidate(directory, self.name)
                    .map_or(Errno::ENAMETOOLONG, |file| self.execute(file)),
            };
            match error {
                Errno::EACCES => denied = Some(Errno::EACCES),
                error if !goes_on(error) => return error,
                _ => {}
            }
        }
        denied.unwrap_or(Errno::ENOENT)
    }

    /// The first file of that name along `path`, for a message.
    fn find_present(&self, path: &[u8]) -> Option<&'static CStr> {
        directories(path).find_map(|directory| {
            long_candidate(directory, self.name).filter(|file| kernel::is_present(file))
        })
    }

    /// As execvp(3): a file that is neither a program nor names its interpreter is a script of the shell.
    fn execute(&self, file: &CStr) -> Errno {
        let (arguments, environment) = (self.command.arguments, self.environment.table);
        let error = kernel::execute(file, arguments, environment);
        // A program for another machine is not a script, even though the shell would try to read it.
        if error != Errno::ENOEXEC || kernel::begins_with(file, ELF) {
            return error;
        }
        kernel::execute_script(SHELL, file, arguments, environment)
    }

    /// Refuses a command line that the kernel would refuse, while a message can still be printed.
    fn check_size(&self) -> Result<(), Failure<'static>> {
        if self.environment.longest > MAX_ARG_STRLEN {
            let largest = Largest::of(self.variables(), MAX_ARG_STRLEN + 1);
            return Err(Failure::TooLarge(Excess::String(largest)));
        }
        let needed = self.needed();
        if needed <= SMALLEST_ROOM || needed <= room(kernel::stack_limit()) {
            return Ok(());
        }
        Err(Failure::TooLarge(self.excess(room(kernel::stack_limit()))))
    }

    fn excess(&self, room: usize) -> Excess<'static> {
        Excess::total(self.needed(), room, Largest::of(self.variables(), 0))
    }

    /// The part of the kernel's room that the launch uses, in bytes. The file's name counts too; until it is found, as
    /// written.
    fn needed(&self) -> usize {
        let arguments: usize = self.command.arguments.iter().map(|string| string.count_bytes() + 1).sum();
        let strings = self.command.arguments.len() + self.environment.table.len() - 1;
        needed(self.name.count_bytes() + 1 + arguments + self.environment.bytes, strings)
    }

    fn variables(&self) -> impl Iterator<Item = &'static [u8]> {
        self.secrets.variables().chain(self.inherited.iter().map(CStr::to_bytes))
    }
}
