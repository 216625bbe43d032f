//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use devbox_secretsd::config::Overrides;
use devbox_secretsd::reload::Sources;
use devbox_secretsd::telemetry::log::Format;

/// Where operators ask, if nothing else is said.
pub(crate) const DEFAULT_ADMIN_SOCKET: &str = "/run/devbox-secrets/admin.sock";

const AFTER_HELP: &str = "\
Exit status:
  0  done
  1  failure: the reason is on standard error
  2  a mistake on the command line or in the configuration

Files:
  /etc/devbox-secrets/agent.toml     configuration, if it exists
  /run/devbox-secrets/launch.sock    devbox-exec asks here
  /run/devbox-secrets/admin.sock     status, explain, reload, quiesce and resume ask here; GET /metrics

Examples:
  devbox-secretsd run --server https://secrets.example:8443 --join-token-file /run/join-token
  devbox-secretsd check --config /etc/devbox-secrets/agent.toml
  devbox-secretsd explain --pid $(pidof -s node)
  devbox-secretsd status --json
  curl --unix-socket /run/devbox-secrets/admin.sock http://localhost/metrics
  devbox-secretsd quiesce && snapshot-this-machine
  platform-join-token | devbox-secretsd resume --join-token-file -";

/// Holds a devbox's secrets in locked memory and gives each launch what the policy grants its process.
#[derive(Debug, Parser)]
#[command(name = "devbox-secretsd", version, after_help = AFTER_HELP)]
pub(crate) struct Command {
    #[command(subcommand)]
    pub(crate) action: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Join the control plane, fetch the secrets and serve launches until SIGTERM
    ///
    /// Settings come from the configuration file; each option given here wins over it. Without a configuration file the
    /// only rule is that the daemon's own user may have every secret.
    ///
    /// SIGTERM and SIGINT wipe everything and end the daemon, a second one at once. SIGHUP takes up changed rules.
    #[command(after_help = AFTER_HELP)]
    Run(Options),
    /// Tell how a running daemon is: state, last sync, lease, memory, names and versions; never a value
    #[command(after_help = AFTER_HELP)]
    Status(StatusOptions),
    /// Check the configuration, and print what would be in force
    ///
    /// Every mistake is told at once, with its line and what to write instead.
    #[command(after_help = AFTER_HELP)]
    Check(Options),
    /// Wipe every secret and every key before this machine is snapshotted, and serve nothing until it resumes
    ///
    /// When this returns, neither values nor the devbox's identity are left: not in the daemon, not in the service manager's
    /// file-descriptor store, not in the kernel's keyring; the connection to the control plane is closed. Launches are refused,
    /// or wait (devbox-exec --wait). To quiesce twice is no mistake.
    ///
    /// A snapshot can be started many times. Each copy then needs an identity of its own: see resume.
    #[command(after_help = AFTER_HELP)]
    Quiesce(QuiesceOptions),
    /// Join the control plane anew after quiesce, and wait for the secrets
    ///
    /// With a fresh join token (devbox-secrets-server devbox join-token ID, or a new registration: another devbox than before
    /// is accepted); without one, with the configured identity as it is on the disk now: certificate files, or a join token
    /// that the platform has replaced. A join token is good once.
    ///
    /// Also brings back a daemon whose devbox was shut down, whose certificate has expired, or that noticed it is a copy. A
    /// daemon that serves is not disturbed: quiesce it first.
    #[command(after_help = AFTER_HELP)]
    Resume(ResumeOptions),
    /// Have a running daemon take up changed rules
    ///
    /// Reads the configuration file again, as SIGHUP does. With a mistake in it, every one is told with its line, the status is
    /// 2, and the old rules hold. Only [[rule]] and [[credential]] change: other settings need a restart.
    #[command(after_help = AFTER_HELP)]
    Reload(ReloadOptions),
    /// Explain what a process would get, by which rule, and why each other rule is not about it
    ///
    /// Asks the running daemon, so that the answer is about the rules in force and the variables held. Where none answers,
    /// the configuration file is read instead.
    ///
    /// A process is judged as it is now. devbox-exec asks before it becomes its command: executable and sha256 of a rule are
    /// about devbox-exec then.
    #[command(after_help = AFTER_HELP)]
    Explain(ExplainOptions),
}

/// Options of `run` and `check`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Configuration file (TOML) [default: /etc/devbox-secrets/agent.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The server's devbox listener, https://HOST:PORT
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// File with the one-time join token; - is standard input
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// The devbox's certificate (PEM), instead of a join token
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The devbox CA (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Socket that launches ask [default: /run/devbox-secrets/launch.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Socket for status and health [default: admin.sock beside launch.sock, PATH.admin beside any other socket]
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// error, warn, info, debug or trace, or target=level,… [default: info]
    #[arg(long, value_name = "LEVEL", env = "RUST_LOG")]
    log_level: Option<String>,
    /// auto, human, json or journald [default: auto]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<Format>,
}

/// Options of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusOptions {
    /// The daemon's admin socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_ADMIN_SOCKET)]
    pub(crate) admin_socket: PathBuf,
    /// Print the daemon's JSON as it is
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `quiesce`.
#[derive(Debug, Args)]
pub(crate) struct QuiesceOptions {
    /// The daemon's admin socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_ADMIN_SOCKET)]
    pub(crate) admin_socket: PathBuf,
}

/// Options of `resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeOptions {
    /// File with a fresh one-time join token; - is standard input [default: the daemon's configured identity]
    #[arg(long, value_name = "FILE")]
    pub(crate) join_token_file: Option<PathBuf>,
    /// How long to wait for the secrets; the daemon goes on trying after it
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) wait: u32,
    /// The daemon's admin socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_ADMIN_SOCKET)]
    pub(crate) admin_socket: PathBuf,
}

/// Options of `reload`.
#[derive(Debug, Args)]
pub(crate) struct ReloadOptions {
    /// The daemon's admin socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_ADMIN_SOCKET)]
    pub(crate) admin_socket: PathBuf,
}

/// Options of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainOptions {
    /// The process
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) pid: i32,
    /// Configuration file (TOML) [default: /etc/devbox-secrets/agent.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The daemon's admin socket [default: that of the configuration file, or /run/devbox-secrets/admin.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) admin_socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Options {
    /// Where the settings come from.
    pub(crate) fn sources(&self) -> Sources {
        Sources { file: self.config.clone(), overrides: self.overrides() }
    }

    /// What wins over the configuration file.
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            server: self.server.clone(),
            join_token_file: self.join_token_file.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            ca: self.ca.clone(),
            socket: self.socket.clone(),
            admin_socket: self.admin_socket.clone(),
            log_level: self.log_level.clone(),
            log_format: self.log_format,
        }
    }
}
