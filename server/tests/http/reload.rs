//! SIGHUP brings a serving program up to date, and a mistake changes nothing.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;

use devbox_secrets_server::config::TlsFiles;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::program::{Dev, PROGRAM, run};
use crate::public_tls::self_signed;
use crate::support;

/// A running `serve` with TLS, and its log; killed on drop.
struct Serve {
    child: Child,
    log: BufReader<ChildStderr>,
    api: SocketAddr,
    file: PathBuf,
    directory: TempDir,
}

impl Serve {
    /// Returns the certificate that it starts with, too.
    fn start() -> (Self, CertificateDer<'static>) {
        let directory = tempfile::tempdir().unwrap();
        let (files, certificate) = self_signed(directory.path());
        let file = directory.path().join("server.toml");
        fs::write(&file, configuration(directory.path(), &files)).unwrap();
        for command in [&["keys", "init"][..], &["init"], &["check"]] {
            let output = run(&[command, &["--config", file.to_str().unwrap()]].concat());
            assert!(output.status.success(), "{output:?}");
        }
        let mut child = Command::new(PROGRAM)
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut serve = Self { child, log, api: nowhere, file, directory };
        let ready = serve.wait_for("ready");
        let bound = ready["bound"].as_str().unwrap();
        let api = bound.split(' ').nth(1).and_then(|url| url.strip_prefix("https://")).unwrap();
        serve.api = api.parse().unwrap();
        (serve, certificate)
    }

    /// The next line of the log with this message.
    fn wait_for(&mut self, message: &str) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "the log ended before {message:?}");
            let line: Value = serde_json::from_str(&line).unwrap();
            if line["message"].as_str().is_some_and(|found| found.contains(message)) {
                return line;
            }
        }
    }

    fn reload(&self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGHUP).unwrap();
    }

    fn change(&self, from: &str, to: &str) {
        let text = fs::read_to_string(&self.file).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&self.file, text.replace(from, to)).unwrap();
    }

    async fn connect(&self, trusted: &CertificateDer<'static>) -> std::io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::new(support::trusting(trusted)));
        let stream = TcpStream::connect(self.api).await.unwrap();
        connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(directory: &Path, files: &TlsFiles) -> String {
    format!(
        "[state]\ndirectory = {:?}\nmaster_key_file = {:?}\n[api]\nlisten = \"127.0.0.1:0\"\ntls_certificate = {:?}\ntls_key = {:?}\n[devbox]\nlisten = \"127.0.0.1:0\"\n",
        directory.join("state"),
        directory.join("master.key"),
        files.certificate,
        files.key,
    )
}

/// Whether a request on `stream` is answered with 200.
async fn is_served(stream: &mut TlsStream<TcpStream>) -> bool {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = [0; 1_024];
    let len = stream.read(&mut answer).await.unwrap();
    answer[..len].starts_with(b"HTTP/1.1 200")
}

#[tokio::test]
async fn a_new_certificate_is_used_after_sighup_and_old_connections_continue() {
    let (mut serve, old) = Serve::start();
    let mut before = serve.connect(&old).await.unwrap();
    assert!(is_served(&mut before).await);
    let (_, new) = self_signed(serve.directory.path());
    serve.reload();
    serve.wait_for("reloaded");
    let mut after = serve.connect(&new).await.unwrap();
    assert!(is_served(&mut after).await && is_served(&mut before).await);
    assert!(serve.connect(&old).await.is_err(), "the old certificate is shown no more");
}

#[tokio::test]
async fn mistakes_are_logged_and_the_server_keeps_its_configuration() {
    let (mut serve, certificate) = Serve::start();
    serve.change("[devbox]", "[devbox]\ntypo = 1");
    serve.reload();
    let line = serve.wait_for("not reloaded");
    assert!(line["error"].as_str().unwrap().contains("unknown key `typo`"), "{line}");
    serve.change("typo = 1", "");
    let key = serve.directory.path().join("api.key");
    let good = fs::read(&key).unwrap();
    fs::write(&key, "").unwrap();
    serve.reload();
    let line = serve.wait_for("not reloaded");
    assert!(line["error"].as_str().unwrap().contains("api.key is empty"), "{line}");
    assert!(is_served(&mut serve.connect(&certificate).await.unwrap()).await);
    fs::write(&key, good).unwrap();
    serve.reload();
    serve.wait_for("reloaded");
}

#[tokio::test]
async fn a_setting_that_needs_a_restart_is_named() {
    let (mut serve, certificate) = Serve::start();
    serve.change("[devbox]", "[devbox]\ntrust_domain = \"other\"");
    serve.reload();
    let line = serve.wait_for("needs a restart");
    assert!(line["message"].as_str().unwrap().contains("[devbox] trust_domain"), "{line}");
    assert!(is_served(&mut serve.connect(&certificate).await.unwrap()).await);
}

#[tokio::test]
async fn budgets_change_at_once() {
    let (mut serve, certificate) = Serve::start();
    let config = serve.file.to_str().unwrap().to_owned();
    let created = run(&["account", "create", "acme", "--config", &config]);
    assert!(created.status.success(), "{created:?}");
    let token = run(&["token", "create", "--account", "acme", "--json", "--config", &config]);
    let token: Value = serde_json::from_slice(&token.stdout).unwrap();
    serve.change("[devbox]", "[limits]\nrequests_per_second = 1\nrequests_burst = 1\n[devbox]");
    serve.reload();
    serve.wait_for("reloaded");
    let mut stream = serve.connect(&certificate).await.unwrap();
    let request = format!(
        "GET /v1/secrets HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\r\n",
        token["token"].as_str().unwrap()
    );
    // Of a few requests in one second all but the first are too many.
    let mut answers = String::new();
    while !answers.contains("HTTP/1.1 429") {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 2_048];
        let len = stream.read(&mut answer).await.unwrap();
        answers.push_str(&String::from_utf8_lossy(&answer[..len]));
        assert!(answers.len() < 100_000, "no request was too many");
    }
    assert!(answers.contains("budget_requests") && answers.starts_with("HTTP/1.1 200"), "{answers}");
}

#[tokio::test]
async fn the_log_level_changes_at_once() {
    let (mut serve, certificate) = Serve::start();
    serve.change("[devbox]", "[log]\nlevel = \"warn\"\n[devbox]");
    serve.reload();
    // The line says so at the level of before, or not at all: look at the next one that must not
    // come.
    while is_logged(&mut serve, &certificate).await {}
}

/// Whether a request and then a failed reload leave a line of the request.
async fn is_logged(serve: &mut Serve, certificate: &CertificateDer<'static>) -> bool {
    assert!(is_served(&mut serve.connect(certificate).await.unwrap()).await);
    serve.change("[devbox]", "[devbox]\ntypo = 1");
    serve.reload();
    let mut logged = false;
    loop {
        let line = serve.wait_for("re");
        match line["message"].as_str().unwrap() {
            "request" => logged = true,
            message if message.starts_with("not reloaded") => break,
            _ => {}
        }
    }
    serve.change("[devbox]\ntypo = 1", "[devbox]");
    logged
}

#[test]
fn sigusr1_and_sigusr2_do_nothing_and_sighup_stops_dev() {
    let directory = tempfile::tempdir().unwrap();
    let dev = Dev::start(&directory.path().join("state"));
    let pid = Pid::from_raw(i32::try_from(dev.child.id()).unwrap());
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        kill(pid, signal).unwrap();
    }
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = crate::memory::exchange(dev.address(), request);
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(dev.end(Signal::SIGHUP).0, Some(0));
}

#[test]
fn check_refuses_a_certificate_that_has_expired_and_a_key_that_others_may_read() {
    let directory = tempfile::tempdir().unwrap();
    let (files, _) = self_signed(directory.path());
    let file = directory.path().join("server.toml");
    fs::write(&file, configuration(directory.path(), &files)).unwrap();
    let file = file.to_str().unwrap();
    assert!(run(&["keys", "init", "--config", file]).status.success());
    let refused = |part: &str| {
        let output = run(&["check", "--config", file]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(part), "{part}: {output:?}");
    };
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&files.key, open).unwrap();
    refused("is open to others (mode 0644)");
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    fs::write(&files.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    fs::set_permissions(&files.key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    refused("expired at");
}
