//! `devbox-secretsd`: see `devbox-secretsd --help` and the library's documentation.
#![forbid(unsafe_code)]

mod command;

use std::alloc::System;
use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use devbox_secrets_common::log::journal::is_stderr;
use devbox_secretsd::access::explain::Explanation;
use devbox_secretsd::access::peer::Process;
use devbox_secretsd::app::{App, Beginning};
use devbox_secretsd::config::{self, Settings};
use devbox_secretsd::harden::{self, Hardening};
use devbox_secretsd::identity::token;
use devbox_secretsd::local_api::admin::client::AskError;
use devbox_secretsd::local_api::admin::wait::until_resumed;
use devbox_secretsd::local_api::admin::{client, explain};
use devbox_secretsd::local_api::reload::Counts;
use devbox_secretsd::status::{Status, table};
use devbox_secretsd::sys::share_one_arena;
use devbox_secretsd::telemetry::log::{self, Format};
use devbox_secretsd::telemetry::{chain, stderr};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use zeroizing_alloc::ZeroAlloc;

use command::{
    Action, Command, DEFAULT_ADMIN_SOCKET, ExplainOptions, Options, QuiesceOptions, ReloadOptions,
    ResumeOptions, StatusOptions,
};

const PROGRAM: &str = "devbox-secretsd";

/// Everything that is freed is wiped: ciphertext, TLS state, private keys, the join token.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

/// Threads that look up host names, read changed rules and read identities. Each starts when it is needed.
const BLOCKING_THREADS: usize = 3;
/// The stack of one, in bytes.
const BLOCKING_STACK: usize = 512 * 1024;

/// How the program ends; the numbers are in `--help`.
enum Failure {
    /// 1.
    Runtime(String),
    /// 2.
    Usage(String),
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Runtime(chain(&error))
    }
}

fn main() -> ExitCode {
    // Before memory is locked, and before there is a second thread.
    share_one_arena();
    let hardening = harden::process();
    stderr::take_panics(PROGRAM);
    let outcome = match Command::parse().action {
        Action::Run(options) => run(&options, hardening),
        Action::Status(options) => status(&options),
        Action::Check(options) => check(&options),
        Action::Reload(options) => reload(&options),
        Action::Quiesce(options) => quiesce(&options),
        Action::Resume(options) => resume(&options),
        Action::Explain(options) => explain(&options),
    };
    match outcome {
        Ok(()) => {
            stderr::flush();
            ExitCode::SUCCESS
        }
        Err(Failure::Runtime(message)) => fail(&message, 1),
        Err(Failure::Usage(message)) => fail(&message, 2),
    }
}

fn fail(message: &str, code: u8) -> ExitCode {
    stderr::report_failure(PROGRAM, message);
    ExitCode::from(code)
}

fn run(options: &Options, hardening: Hardening) -> Result<(), Failure> {
    let settings = load(options)?;
    log::start(&settings.log.level, settings.log.format, settings.log.audit)?;
    let beginning = Beginning::take(&settings)?;
    let runtime = runtime()?;
    let outcome = runtime.block_on(serve(options, settings, beginning, hardening));
    // A look-up that hangs must not hold up the end.
    runtime.shutdown_background();
    outcome
}

async fn serve(
    options: &Options,
    settings: Settings,
    beginning: Beginning,
    hardening: Hardening,
) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    let app = App::start(settings, options.sources(), beginning, hardening)?;
    tokio::spawn(app.reload().at_hangup());
    let (asked, told) = tokio::sync::oneshot::channel::<()>();
    let served = app.run(async { drop(told.await) });
    let stopped_twice = async {
        stop.signal().await;
        drop(asked);
        stop.signal().await;
    };
    tokio::select! {
        outcome = served => Ok(outcome?),
        () = stopped_twice => Err(Failure::Runtime("stopped at once by a second signal".to_owned())),
    }
}

struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        // The default action of these would end the process with its sockets left behind. A handler that nobody waits for
        // ignores them; reload waits for SIGHUP as soon as it runs.
        for ignored in [SignalKind::user_defined1(), SignalKind::user_defined2(), SignalKind::hangup()] {
            drop(signal(ignored)?);
        }
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn signal(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn status(options: &StatusOptions) -> Result<(), Failure> {
    let json = runtime()?.block_on(client::status(&options.admin_socket))?;
    let text = String::from_utf8_lossy(&json);
    if options.json { print(&format!("{text}\n")) } else { print(&table::print(&parse::<Status>(&text)?)) }
}

fn reload(options: &ReloadOptions) -> Result<(), Failure> {
    match runtime()?.block_on(client::reload(&options.admin_socket)) {
        Ok(json) => {
            let Counts { rules, credentials } = parse(&String::from_utf8_lossy(&json))?;
            print(&format!("in force: {rules} rules, {credentials} credential rules\n"))
        }
        Err(AskError::NotDone(mistakes)) => Err(Failure::Usage(mistakes)),
        Err(error) => Err(error.into()),
    }
}

fn quiesce(options: &QuiesceOptions) -> Result<(), Failure> {
    runtime()?.block_on(client::quiesce(&options.admin_socket))?;
    Ok(())
}

fn resume(options: &ResumeOptions) -> Result<(), Failure> {
    let ResumeOptions { join_token_file, wait, admin_socket } = options;
    // Others may be able to read the token: whoever passes it is told.
    log::start("warn", if is_stderr() { Format::Journald } else { Format::Human }, false)?;
    stderr::start()?;
    let file = join_token_file.as_ref().map(|file| Some(file).filter(|file| *file != Path::new("-")));
    let token = file.map(token::read).transpose()?;
    runtime()?.block_on(async {
        client::resume(admin_socket, token.as_ref()).await?;
        Ok(until_resumed(admin_socket, Duration::from_secs((*wait).into())).await?)
    })
}

fn parse<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, Failure> {
    serde_json::from_str(json).map_err(|error| {
        Failure::Runtime(format!(
            "the daemon is of another version than this program (--json works): {error}"
        ))
    })
}

fn check(options: &Options) -> Result<(), Failure> {
    print(&load(options)?.to_string())
}

fn explain(options: &ExplainOptions) -> Result<(), Failure> {
    let explanation = runtime()?.block_on(explanation(options))?;
    if options.json {
        print(&format!("{}\n", serde_json::to_string(&explanation)?))
    } else {
        print(&explanation.to_string())
    }
}

async fn explanation(options: &ExplainOptions) -> Result<Explanation, Failure> {
    let peer = Process::with_id(options.pid).and_then(|process| process.owner());
    let peer = peer.map_err(|why| Failure::Runtime(format!("there is no process {}: {why}", options.pid)))?;
    // A file's mistakes matter only if no daemon is running.
    let settings = config::rules_of(options.config.as_deref());
    let of_file = settings.as_ref().ok().map(|settings| settings.sockets.admin.clone());
    let socket = options.admin_socket.clone().or(of_file).unwrap_or_else(|| DEFAULT_ADMIN_SOCKET.into());
    match client::explain(&socket, peer).await {
        Ok(json) => parse(&String::from_utf8_lossy(&json)),
        Err(AskError::Connect { .. }) => {
            let settings = settings.map_err(|mistakes| Failure::Usage(mistakes.to_string()))?;
            Ok(explain::from_file(&settings, &socket, peer).await)
        }
        Err(error) => Err(error.into()),
    }
}

fn load(options: &Options) -> Result<Settings, Failure> {
    config::load(options.config.as_deref(), &options.overrides())
        .map_err(|mistakes| Failure::Usage(mistakes.to_string()))
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(BLOCKING_STACK)
        .build()
}

/// A reader that went away early (`| head`) is not a failure.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
