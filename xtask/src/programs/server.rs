//! The control plane, and its API as a client sees it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::running::{Running, log_file, log_tail};
use crate::build::{Programs, succeed};

/// Time in which a token's budget grows by some requests.
const BUDGET_PAUSE: Duration = Duration::from_millis(100);
const ANY_PORT: &str = "127.0.0.1:0";
const CONFIGURATION: &str = "server.toml";
const LOG: &str = "server.log";
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// `devbox-secrets-server dev` or `serve`, ready to serve.
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
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file(directory, LOG)?);
        let mut running = Running::start(&mut command)?;
        let stdout = running.0.stdout.take().context("the server has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ready: Value = serde_json::from_str(&line)
            .with_context(|| format!("the server did not start:\n{}", log_tail(directory, LOG)))?;
        let field = |name: &str| -> Result<String> {
            Ok(ready[name].as_str().with_context(|| format!("no {name} in the ready line"))?.to_owned())
        };
        let (api, devbox, admin, token) = (field("api")?, field("devbox")?, field("admin")?, field("token")?);
        Ok(Self { running, api, devbox, admin, token })
    }

    /// Starts `serve` for a new account on free loopback ports, with its state in `directory` and `limits` as the keys of
    /// `[limits]`. No address is exempt from its budget, loopback addresses neither.
    pub fn serve(programs: &Programs, directory: &Path, account: &str, limits: &str) -> Result<Self> {
        configure(directory, limits)?;
        let operate = |arguments: &[&str]| succeed(operator(programs, directory).args(arguments));
        operate(&["keys", "init"])?;
        operate(&["init"])?;
        let token = create_account(programs, directory, account)?;
        let mut command = operator(programs, directory);
        command.arg("serve").stdin(Stdio::null()).stderr(log_file(directory, LOG)?);
        let mut running = Running::start(&mut command)?;
        let [api, devbox, admin] = bound(&mut running, directory)?;
        Ok(Self { running, api, devbox, admin, token })
    }

    /// A token of another new account of a server that [`Self::serve`] started in `directory`.
    pub fn create_account(&self, programs: &Programs, directory: &Path, name: &str) -> Result<String> {
        create_account(programs, directory, name)
    }

    /// Has a server that [`Self::serve`] started in `directory` take up other `[limits]`, and waits until it has.
    pub fn reload(&self, directory: &Path, limits: &str) -> Result<()> {
        const DONE: &str = "reloads_total{result=\"done\"}";
        let before = self.metric(DONE)?;
        configure(directory, limits)?;
        kill(self.pid(), Signal::SIGHUP)?;
        let asked = Instant::now();
        while self.metric(DONE)? == before {
            if asked.elapsed() > READY_DEADLINE {
                bail!("the server did not reload:\n{}", log_tail(directory, LOG));
            }
            std::thread::sleep(BUDGET_PAUSE);
        }
        Ok(())
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        self.running.pid()
    }

    /// A sample of the metrics, 0 if there is none yet. `sample`: its name without the server's prefix, with its labels.
    pub fn metric(&self, sample: &str) -> Result<u64> {
        let metrics = ureq::get(format!("{}/metrics", self.admin)).call()?.body_mut().read_to_string()?;
        super::sample(&metrics, &format!("devbox_secrets_server_{sample}"))
    }

    /// Lists the account's secrets.
    pub fn list_secrets(&self) -> Result<()> {
        let request = ureq::get(format!("{}/v1/secrets", self.api));
        request.header("authorization", format!("Bearer {}", self.token)).call()?.body_mut().read_to_vec()?;
        Ok(())
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
        Ok(usize::try_from(self.metric("held_requests")?)?)
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

fn configure(directory: &Path, limits: &str) -> Result<()> {
    let place = directory.display();
    let configuration = format!(
        "[state]\ndirectory = \"{place}/state\"\nmaster_key_file = \"{place}/master.key\"\n\
         [api]\nlisten = \"{ANY_PORT}\"\nexempt_addresses = []\n\
         [devbox]\nlisten = \"{ANY_PORT}\"\nserver_names = [\"127.0.0.1\"]\nexempt_addresses = []\n\
         [admin]\nlisten = \"{ANY_PORT}\"\n[limits]\n{limits}"
    );
    Ok(std::fs::write(directory.join(CONFIGURATION), configuration)?)
}

fn operator(programs: &Programs, directory: &Path) -> Command {
    let mut command = Command::new(&programs.server);
    command.arg("--config").arg(directory.join(CONFIGURATION)).stdout(Stdio::null());
    command
}

/// Creates an account and returns a token of it.
fn create_account(programs: &Programs, directory: &Path, name: &str) -> Result<String> {
    succeed(operator(programs, directory).args(["account", "create", name]))?;
    let mut create = operator(programs, directory);
    create
        .args(["token", "create", "--account", name, "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let created: Value = serde_json::from_slice(&create.output()?.stdout).context("no token was created")?;
    Ok(created["token"].as_str().context("no token was created")?.to_owned())
}

/// The URLs of API, devbox and admin listener, which `serve` logs in this order when it is ready.
fn bound(running: &mut Running, directory: &Path) -> Result<[String; 3]> {
    let started = Instant::now();
    while started.elapsed() < READY_DEADLINE {
        if let Some(urls) = urls(&std::fs::read_to_string(directory.join(LOG))?) {
            return Ok(urls);
        }
        if running.0.try_wait()?.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    bail!("the server did not start:\n{}", log_tail(directory, LOG))
}

fn urls(log: &str) -> Option<[String; 3]> {
    let line =
        log.split_inclusive('\n').find(|line| line.ends_with('\n') && line.contains(" devbox https://"))?;
    let is_around = |c: char| c == '"' || c.is_whitespace();
    let urls = line.split(is_around).filter(|word| word.contains("://")).map(str::to_owned);
    urls.collect::<Vec<_>>().try_into().ok()
}

/// Host and port of a URL without a path.
fn address(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, address)| address)
}
