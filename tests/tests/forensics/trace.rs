//! No system call of ours carries a value, but for those that have to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::Command;

use devbox_secrets_tests::canary::{Canary, random_letters};
use devbox_secrets_tests::client::{Api, Protocol};
use devbox_secrets_tests::daemon::{Daemon, Setup};
use devbox_secrets_tests::forensics::trace::{Trace, can_trace};
use devbox_secrets_tests::launch::Launch;
use devbox_secrets_tests::process::Program;
use devbox_secrets_tests::server;
use devbox_secrets_tests::wait;
use devbox_secrets_tests::world;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The three programs, each traced from its first instruction, all along the main job.
struct Traced {
    directory: TempDir,
    server: Program,
    server_trace: Trace,
    api: Api,
    daemon: Daemon,
    daemon_trace: Trace,
}

impl Traced {
    async fn start() -> Self {
        let directory = world::directory();
        let (server, server_trace, ready) = traced_server(&directory).await;
        let text = |field: &str| ready[field].as_str().unwrap().to_owned();
        let address = text("api").strip_prefix("http://").unwrap().parse().unwrap();
        let api = Api { address, token: Some(text("token")), protocol: Protocol::Http1 };
        let devbox = api.post("/v1/devboxes", &json!({ "name": "box" })).await.expect(200).json();
        let folder = directory.path().join("box");
        let setup = Setup::new(&folder, &text("devbox"), devbox["join_token"].as_str().unwrap());
        let file = directory.path().join("daemon.trace");
        let (daemon_trace, mut command) = Trace::of(&setup.command(), &file, &[]);
        let program = Program::start(&mut command, &directory.path().join("log/daemon.log"));
        let mut daemon = Daemon { program, socket: setup.socket(), admin_socket: setup.admin_socket() };
        daemon.ready().await;
        Self { directory, server, server_trace, api, daemon, daemon_trace }
    }

    /// Launches a command with nothing but the secret in its environment, and returns its trace.
    async fn launch(&self, number: usize, command: &[&str]) -> Trace {
        let file = self.directory.path().join(format!("shim.{number}.trace"));
        let launch = Launch::new(&self.daemon.socket).options(&["--clear-env"]).command(command);
        let (trace, mut command) = Trace::of(&launch, &file, &[]);
        let mut program = Program::start(&mut command, &self.directory.path().join("log/shim.log"));
        program.end().await;
        trace.complete(program.pid()).await;
        trace
    }

    async fn version(&self, version: u32) {
        let wanted = format!("\"version\":{version}");
        self.daemon.status_where("the new version", |status| status.to_string().contains(&wanted)).await;
    }
}

async fn traced_server(directory: &TempDir) -> (Program, Trace, Value) {
    let command = server::dev_command(&directory.path().join("state"));
    let (trace, mut command) = Trace::of(&command, &directory.path().join("server.trace"), &[]);
    let ready = directory.path().join("ready");
    command.stdout(File::create(&ready).unwrap());
    let program = Program::start(&mut command, &directory.path().join("log/server.log"));
    let line = wait::until("the server's ready line", async || {
        fs::read_to_string(&ready).ok().filter(|text| text.ends_with('\n'))
    })
    .await;
    (program, trace, serde_json::from_str(&line).unwrap())
}

fn carriers(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected.iter().map(|(call, count)| ((*call).to_owned(), *count)).collect()
}

/// The server has to read the client's request, and the launched command does as it likes: here, it prints its environment.
/// The `execve` that hands it over is in the trace, but what it points at even a tracer of root's cannot read.
#[tokio::test]
async fn a_value_passes_the_servers_read_and_what_the_launched_command_does_and_no_other_system_call() {
    if !can_trace() {
        return;
    }
    let (first, second) = (Canary::random(), Canary::random());
    let mut traced = Traced::start().await;
    traced.api.create("CANARY", first.value()).await;
    traced.version(1).await;
    let first_launch = traced.launch(1, &["/usr/bin/env"]).await;
    traced.api.update("CANARY", second.value()).await;
    traced.version(2).await;
    let second_launch = traced.launch(2, &["/usr/bin/env"]).await;
    let failed_launch = traced.launch(3, &["/nowhere/to/be/found"]).await;
    traced.api.delete("CANARY").await;
    traced.daemon.status_where("nothing", |status| !status.to_string().contains("\"CANARY\"")).await;
    crash_and_stop(&mut traced).await;

    for canary in [&first, &second] {
        assert_eq!(traced.server_trace.carriers(canary), carriers(&[("recvfrom", 1)]), "the server");
        assert_eq!(traced.daemon_trace.carriers(canary), carriers(&[]), "the daemon");
    }
    assert_eq!(first_launch.carriers(&first), carriers(&[("write", 1)]), "the command");
    assert_eq!(second_launch.carriers(&second), carriers(&[("write", 1)]), "the command");
    assert_eq!(failed_launch.carriers(&second), carriers(&[]), "the shim, where the command is not there");
    assert_eq!(second_launch.carriers(&first), carriers(&[]), "a value that was replaced");
    assert!(failed_launch.calls().contains_key("execve"), "the shim was traced");
    assert!(traced.daemon_trace.calls().contains_key("memfd_secret"), "the daemon was traced");
    assert!(traced.server_trace.calls().contains_key("pwrite64"), "the server was traced");
}

/// The daemon stops as it should, the server is killed.
async fn crash_and_stop(traced: &mut Traced) {
    let (daemon, server) = (traced.daemon.program.pid(), traced.server.pid());
    traced.daemon.program.stop().await;
    traced.server.kill();
    traced.daemon_trace.complete(daemon).await;
    traced.server_trace.complete(server).await;
}

/// The other test relies on this: a value that a program does write is in its trace.
#[tokio::test]
async fn a_value_that_a_launched_command_writes_is_seen_in_its_trace() {
    if !can_trace() {
        return;
    }
    let directory = world::directory();
    let canary = Canary::of(&random_letters(48));
    let mut echo = Command::new("/usr/bin/env");
    echo.env("CANARY", canary.value());
    let (trace, mut command) = Trace::of(&echo, &directory.path().join("trace"), &[]);
    let mut program = Program::start(&mut command, &directory.path().join("log"));
    program.end().await;
    trace.complete(program.pid()).await;
    assert!(trace.carriers(&canary).contains_key("write"), "{:?}", trace.carriers(&canary));
}
