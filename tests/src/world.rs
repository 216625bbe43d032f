//! A directory with a server, and the daemons and launches that belong to it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::canary::random_letters;
use crate::client::Api;
use crate::daemon::{Daemon, Setup};
use crate::launch::{Environment, Launch};
use crate::programs;
use crate::server::{self, Server};

/// How many secrets [`World::fill`] creates at a time.
const WRITERS: usize = 16;

/// A server in a temporary directory. Dropped, all of it is gone.
#[derive(Debug)]
pub struct World {
    /// The control plane.
    pub server: Server,
    directory: TempDir,
}

/// A registered devbox.
#[derive(Debug, Clone)]
pub struct Devbox {
    /// Its id.
    pub id: String,
    /// Its one-time join token.
    pub join_token: String,
}

impl World {
    /// Starts a server.
    pub async fn start() -> Self {
        let directory = directory();
        Self { server: server::dev(directory.path()).await, directory }
    }

    /// Starts a server with more arguments.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let directory = directory();
        Self { server: server::dev_with(directory.path(), arguments).await, directory }
    }

    /// Starts a server with one secret.
    pub async fn with_secret(name: &str, value: &str) -> Self {
        let world = Self::start().await;
        world.api().create(name, value).await;
        world
    }

    /// The same, with a daemon that has the secret.
    pub async fn serving(name: &str, value: &str) -> (Self, Daemon) {
        let world = Self::with_secret(name, value).await;
        let daemon = world.daemon().await;
        (world, daemon)
    }

    /// The test's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The public API with the development account's token.
    #[must_use]
    pub fn api(&self) -> Api {
        self.server.api()
    }

    /// Registers a devbox that gets every secret under its own name.
    pub async fn devbox(&self, name: &str) -> Devbox {
        self.devbox_with(&json!({ "name": name })).await
    }

    /// Registers a devbox.
    ///
    /// # Panics
    /// If the server refuses it.
    pub async fn devbox_with(&self, body: &Value) -> Devbox {
        let view = self.api().post("/v1/devboxes", body).await.expect(200).json();
        let field = |name: &str| view[name].as_str().expect("id and join_token are text").to_owned();
        Devbox { id: field("id"), join_token: field("join_token") }
    }

    /// A daemon for `devbox`, with its files in a folder named after it.
    #[must_use]
    pub fn setup(&self, devbox: &Devbox) -> Setup {
        Setup::new(&self.path().join(&devbox.id), &self.server.ready.devbox, &devbox.join_token)
    }

    /// Registers a devbox that gets every secret, and starts its daemon.
    pub async fn daemon(&self) -> Daemon {
        self.setup(&self.devbox("box").await).start().await
    }

    /// Creates `count` secrets of 64 bytes and more, several at a time, and returns what a launch has to get.
    ///
    /// # Panics
    /// If the server refuses one.
    pub async fn fill(&self, count: usize) -> Environment {
        let next = Arc::new(AtomicUsize::new(0));
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS.min(count) {
            writers.spawn(write_secrets(self.api(), Arc::clone(&next), count));
        }
        writers.join_all().await.into_iter().flatten().collect()
    }

    /// A launch as another user than the daemon's.
    #[must_use]
    pub fn launch_as(&self, user: u32, daemon: &Daemon) -> Launch {
        Launch::new(&daemon.socket).user(user, &self.for_others(&programs::shim()))
    }

    /// A copy of a program that any user can reach, whatever the folder that it was built in.
    ///
    /// Copied by another process: a descriptor that this one had open for writing could leak into a child that another
    /// test forks, and make `execve` fail with ETXTBSY.
    ///
    /// # Panics
    /// If it cannot be copied.
    #[must_use]
    pub fn for_others(&self, program: &Path) -> PathBuf {
        let copy = self.path().join(program.file_name().expect("a program has a name"));
        if !copy.exists() {
            let install = Command::new("install").arg("-m755").arg(program).arg(&copy).status();
            assert!(
                install.expect("install(1) is there").success(),
                "{} cannot be copied",
                program.display()
            );
        }
        copy
    }
}

async fn write_secrets(api: Api, next: Arc<AtomicUsize>, count: usize) -> Environment {
    let mut written = Environment::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return written;
        }
        let (name, value) = (format!("SECRET_{number}"), format!("{number}:{}", random_letters(64)));
        api.create_within_budget(&name, &value).await;
        written.insert(name, value.into_bytes());
    }
}

/// A temporary directory that other users may enter.
///
/// # Panics
/// If none can be made.
#[must_use]
pub fn directory() -> TempDir {
    let directory =
        tempfile::Builder::new().prefix("devbox-secrets-").tempdir().expect("a temporary directory");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("a directory of ours");
    directory
}
