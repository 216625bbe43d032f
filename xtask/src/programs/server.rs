//! The control plane, and its API as a client sees it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::running::{Running, log_file, log_tail};
use crate::build::Programs;

/// Time in which a token's budget grows by some requests.
const BUDGET_PAUSE: Duration = Duration::from_millis(100);
const ANY_PORT: &str = "127.0.0.1:0";

/// `devbox-secrets-server dev`, ready to serve.
#[derive(Debug)]
pub struct Server {
    running: Running,
    /// URL of the Secrets API.
    pub api: String,
    /// URL of the devbox listener.
    pub devbox: String,
    admin: String,
    token: String,
}

impl Server {
    /// Starts the server on free loopback ports with its state in `directory`.
    pub fn start(programs: &Programs, directory: &Path) -> Result<Self> {
        Self::start_at(programs, directory, [ANY_PORT; 3])
    }

    /// Kills it with SIGKILL and starts another on the same state and addresses.
    pub fn kill_and_start(&mut self, programs: &Programs, directory: &Path) -> Result<()> {
        self.running.kill()?;
        let addresses = [&self.api, &self.devbox, &self.admin].map(|url| address(url).to_owned());
        *self = Self::start_at(programs, directory, addresses.each_ref().map(String::as_str))?;
        Ok(())
    }

    /// `addresses`: of the API, of the devbox listener, of the admin listener.
    fn start_at(programs: &Programs, directory: &Path, addresses: [&str; 3]) -> Result<Self> {
        let mut command = Command::new(&programs.server);
        command.arg("dev").arg("--state").arg(directory.join("server"));
        for (option, address) in ["--api", "--devbox", "--admin"].into_iter().zip(addresses) {
            command.args([option, address]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file(directory, "server.log")?);
        let mut running = Running::start(&mut command)?;
        let stdout = running.0.stdout.take().context("the server has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ready: Value = serde_json::from_str(&line)
            .with_context(|| format!("the server did not start:\n{}", log_tail(directory, "server.log")))?;
        let field = |name: &str| -> Result<String> {
            Ok(ready[name].as_str().with_context(|| format!("no {name} in the ready line"))?.to_owned())
        };
        let (api, devbox, admin, token) = (field("api")?, field("devbox")?, field("admin")?, field("token")?);
        Ok(Self { running, api, devbox, admin, token })
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        self.running.pid()
    }

    /// Stores a secret over the Secrets API.
    pub fn create_secret(&self, name: &str, value: &str) -> Result<()> {
        self.post("/v1/secrets", &json!({ "name": name, "value": value })).map(drop)
    }

    /// Gives a secret another value.
    pub fn update_secret(&self, name: &str, value: &str) -> Result<()> {
        self.post(&format!("/v1/secrets/{name}"), &json!({ "value": value })).map(drop)
    }

    /// Deletes a secret.
    pub fn delete_secret(&self, name: &str) -> Result<()> {
        self.post(&format!("/v1/secrets/{name}/delete"), &json!({})).map(drop)
    }

    /// Asks the API for one secret's description.
    pub fn describe_secret(&self, name: &str) -> Result<()> {
        let request = ureq::get(format!("{}/v1/secrets/{name}", self.api));
        request.header("authorization", format!("Bearer {}", self.token)).call()?;
        Ok(())
    }

    /// How many bundle requests wait for a change.
    pub fn held_requests(&self) -> Result<usize> {
        let metrics = ureq::get(format!("{}/metrics", self.admin)).call()?.body_mut().read_to_string()?;
        let held = metrics.lines().find_map(|line| line.strip_prefix("devbox_secrets_server_held_requests "));
        held.context("the metrics have no held requests")?.parse().context("no number of held requests")
    }

    /// Registers a devbox that gets every secret of the account; returns its join token.
    pub fn create_devbox(&self, name: &str) -> Result<String> {
        self.register(&json!({ "name": name }))
    }

    /// Registers a devbox that gets just these secrets, under their own names; returns its join token.
    pub fn create_bound_devbox(&self, name: &str, secrets: &[String]) -> Result<String> {
        let bindings: Value = secrets.iter().map(|secret| (secret.clone(), json!(secret))).collect();
        self.register(&json!({ "name": name, "secrets": bindings }))
    }

    fn register(&self, body: &Value) -> Result<String> {
        let devbox = self.post("/v1/devboxes", body)?;
        Ok(devbox["join_token"].as_str().context("no join_token in the answer")?.to_owned())
    }

    /// Sends the request again while the token's budget of requests is used up.
    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        loop {
            let request = ureq::post(format!("{}{path}", self.api))
                .header("authorization", format!("Bearer {}", self.token))
                .header("content-type", "application/json");
            match request.send(body.to_string()) {
                Err(ureq::Error::StatusCode(429)) => std::thread::sleep(BUDGET_PAUSE),
                answer => {
                    let mut answer = answer.with_context(|| format!("POST {path}"))?;
                    return Ok(serde_json::from_str(&answer.body_mut().read_to_string()?)?);
                }
            }
        }
    }
}

/// Host and port of a URL without a path.
fn address(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, address)| address)
}
