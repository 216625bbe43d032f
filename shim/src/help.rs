//! The manual, as `--help` prints it.

/// The version, as `--version` prints it.
pub const VERSION: &str = concat!("devbox-exec ", env!("CARGO_PKG_VERSION"), "\n");

/// The manual.
pub const HELP: &str = "\
devbox-exec - run a command with this devbox's secrets in its environment

SYNOPSIS
  devbox-exec [OPTION]... [--] COMMAND [ARG]...
  devbox-exec --list [OPTION]...

  Gets the secrets that the rules of devbox-secretsd grant to this process,
  then becomes COMMAND: same process, same arguments, same open files. Each
  secret is an environment variable, and replaces an inherited one of its name.

OPTIONS
  --only NAME,...      Use only these variables. Each must exist.
  --except NAME,...    Leave these variables out. Each must exist.
  --require NAME,...   Fail unless these variables are among those used.
  --rename NEW=NAME    Give the variable NAME to the command as NEW.
  --clear-env          Inherit no environment: the command gets only secrets.
  --wait SECONDS       Wait up to SECONDS (fractions allowed, at most 86400)
                       while waiting can help: for a daemon that starts,
                       restarts or is busy, and for its control plane. A
                       refusal by a rule fails at once. 0 means do not wait.
                       Without this option the daemon must be running, and
                       has 5 seconds to fetch its first secrets.
  --optional           If the secrets are unavailable, warn and run COMMAND
                       without them. Without this option that is an error.
  --socket PATH        Use this launch socket.
  --list               Print the names of the variables, and run no command.
  --help, --version    Print this help, or the version.

  A value may be attached: --wait=2.5. --only, --except, --require and --rename
  may be repeated. Options end at COMMAND, or after --.

ENVIRONMENT
  DEVBOX_SECRETS_SOCKET   The launch socket, unless --socket names it.
                          Default: /run/devbox-secrets/launch.sock
  PATH                    Folders to search for COMMAND, as env(1) does.
                          Default: /usr/local/bin:/usr/bin:/bin
                          /bin/sh runs a script without a '#!' line.

EXIT STATUS
  125   devbox-exec failed: wrong options, no secrets, or too many of them
  126   COMMAND was found but cannot be run
  127   COMMAND was not found
  Otherwise the status of COMMAND. A failure is one line on standard error.

EXAMPLES
  devbox-exec -- npm run deploy
  devbox-exec --only DATABASE_URL --clear-env -- ./migrate
  devbox-exec --rename PGPASSWORD=DB_PASS --require DB_PASS -- psql
  devbox-exec --wait 30 -- ./service
  devbox-exec --list

SECURITY
  A secret in an environment is as safe as the command that has it. Processes
  of the same user can read /proc/PID/environ, root can read everything, the
  command's children inherit its environment, and the command can print it.
  Give a command only the secrets that it needs: --only.

LIMITS
  A variable with its name may have 131072 bytes (Linux MAX_ARG_STRLEN). All
  variables and arguments together may have a quarter of the stack limit
  ('ulimit -s'), at most 6 MiB. An error names the variables that do not fit.
";

#[cfg(test)]
mod tests {
    use std::borrow::ToOwned;
    use std::format;
    use std::string::ToString;

    use devbox_launch_proto::{LARGEST_ROOM, LAUNCH_SOCKET, MAX_ARG_STRLEN, MAX_WAIT_MS};

    use super::*;

    #[test]
    fn every_line_fits_a_terminal() {
        for line in HELP.lines() {
            assert!(line.chars().count() <= 79, "{line}");
        }
    }

    #[test]
    fn the_limits_and_the_socket_are_those_in_force() {
        let [longest, socket] = [MAX_ARG_STRLEN.to_string(), LAUNCH_SOCKET.to_owned()];
        let wait = format!("at most {}", MAX_WAIT_MS / 1_000);
        for text in [longest, socket, wait, format!("at most {} MiB", LARGEST_ROOM >> 20)] {
            assert!(HELP.contains(&text), "{text}");
        }
    }

    #[test]
    fn the_version_is_the_packages() {
        assert!(VERSION.starts_with("devbox-exec ") && VERSION.ends_with('\n'));
    }
}
