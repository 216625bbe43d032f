//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use devbox_secretsd::config::Overrides;
use devbox_secretsd::local_api::reload::Sources;
use devbox_secretsd::telemetry::log::Format;

/// The admin socket, unless an option names another one.
pub(crate) const DEFAULT_ADMIN_SOCKET: &str = "/run/devbox-secrets/admin.sock";

const AFTER_HELP: &str = "\
Exit status:
  0  done
  1  failure: the reason is on standard error
  2  a mistake on the command line or in the configuration

Files:
  /etc/devbox-secrets/agent.toml     configuration, if it exists
  /run/devbox-secrets/launch.sock    launch socket, for devbox-exec
  /run/devbox-secrets/admin.sock     admin socket: status, reload, quiesce, GET /metrics, …

Examples:
  devbox-secretsd run --server https://secrets.example:8443 --join-token-file /run/join-token
  devbox-secretsd check --config /etc/devbox-secrets/agent.toml
  devbox-secretsd explain --pid $(pidof -s node)
  devbox-secretsd status --json
  curl --unix-socket /run/devbox-secrets/admin.sock http://localhost/metrics
  devbox-secretsd quiesce && snapshot-this-machine
  platform-join-token | devbox-secretsd resume --join-token-file -";

/// Hold a devbox's secrets in locked memory, and give each launched process those that a rule grants it.
#[derive(Debug, Parser)]
#[command(name = "devbox-secretsd", version, after_help = AFTER_HELP)]
pub(crate) struct Command {
    #[command(subcommand)]
    pub(crate) action: Action,
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Join the control plane, fetch the secrets and serve launches until SIGTERM
    ///
    /// Settings come from the configuration file; an option overrides it. Without a configuration file the only rule
    /// is that the daemon's own user may have every secret.
    ///
    /// SIGTERM and SIGINT wipe everything and stop the daemon; a second one stops it at once. SIGHUP reloads the rules.
    #[command(after_help = AFTER_HELP)]
    Run(Options),
    /// Show a running daemon's status: state, last sync, lease, memory, names and versions; never a value
    #[command(after_help = AFTER_HELP)]
    Status(StatusOptions),
    /// Check the configuration, and print the settings and rules that it results in
    ///
    /// Reports every mistake at once, with its line and a remedy.
    #[command(after_help = AFTER_HELP)]
    Check(Options),
    /// Wipe every secret and key before a snapshot of this machine, and refuse launches until resume
    ///
    /// When this returns, no value and no identity is left in the daemon, in the service manager's file-descriptor
    /// store or in the kernel's keyring, and the connection to the control plane is closed. Launches are refused, or wait
    /// (devbox-exec --wait). Quiescing twice is harmless.
    ///
    /// A snapshot can be started many times. Each copy then needs an identity of its own: see resume.
    #[command(after_help = AFTER_HELP)]
    Quiesce(QuiesceOptions),
    /// Join the control plane again after quiesce, and wait for the secrets
    ///
    /// Uses a fresh join token: from devbox-secrets-server devbox join-token ID, or from a new registration, also of
    /// another devbox. Without one it uses the configured identity as it is on the disk now: certificate files, or a
    /// join token that the platform has replaced. A join token works once.
    ///
    /// Also restores a daemon whose devbox was shut down, whose certificate has expired, or that detected that it is a
    /// copy. A daemon that is serving refuses: quiesce it first.
    #[command(after_help = AFTER_HELP)]
    Resume(ResumeOptions),
    /// Reload the rules of a running daemon
    ///
    /// Reads the configuration file again, as SIGHUP does. If it has mistakes, reports each with its line, keeps the old
    /// rules, and exits with status 2. Only [[rule]] and [[credential]] change; other settings need a restart.
    #[command(after_help = AFTER_HELP)]
    Reload(ReloadOptions),
    /// Show which variables a process would get, which rule grants each, and why the other rules do not apply
    ///
    /// Asks the running daemon, so that the answer reflects its rules and variables. If no daemon runs, the
    /// configuration file is read instead.
    ///
    /// The process is judged as it is now. devbox-exec asks before it becomes its command, so a rule's executable and
    /// sha256 are compared with devbox-exec in a launch.
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
    /// Launch socket [default: /run/devbox-secrets/launch.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Admin socket [default: admin.sock beside launch.sock, PATH.admin beside any other socket]
    #[arg(long, value_name = "PATH")]
    admin_socket: Option<PathBuf>,
    /// Log level: error, warn, info, debug, trace, or target=level,… [default: info]
    #[arg(long, value_name = "LEVEL", env = "RUST_LOG")]
    log_level: Option<String>,
    /// Log format: auto, human, json or journald [default: auto]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<Format>,
}

/// Options of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusOptions {
    /// The daemon's admin socket
    #[arg(long, value_name = "PATH", default_value = DEFAULT_ADMIN_SOCKET)]
    pub(crate) admin_socket: PathBuf,
    /// Print JSON
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
    /// Wait up to SECONDS for the secrets; the daemon continues to try afterwards
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
    /// The process id
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
    /// The sources of the settings.
    pub(crate) fn sources(&self) -> Sources {
        Sources { file: self.config.clone(), overrides: self.overrides() }
    }

    /// The options that override the configuration file.
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
