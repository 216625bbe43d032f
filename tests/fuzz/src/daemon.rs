//! The daemon's launch socket, served by its own code in this process, over a bundle that was sealed for real.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use devbox_secrets_proto::bundle::Bundle;
use devbox_secrets_proto::seal::{BundleKey, Context};
use devbox_secrets_tests::bundle;
use devbox_secretsd::access::policy::{Policy, RuleConfig};
use devbox_secretsd::local_api::launch::{LaunchState, serve};
use devbox_secretsd::memory::{Generation, Vault};
use devbox_secretsd::sys::{BootTime, Requirement, SecretMemory};
use tokio::runtime::{Builder, Runtime};

/// The variables that the policy grants.
pub(crate) const GRANTED: [(&str, &str); 3] =
    [("API_KEY", "granted api key"), ("DB_PASSWORD", "granted password"), ("DB_USER", "granted user")];
/// The variables that it withholds: another name, and a name that only a rule naming it exactly would grant.
pub(crate) const WITHHELD: [(&str, &str); 2] =
    [("LD_PRELOAD", "withheld library"), ("ROOT_TOKEN", "withheld token")];

const DEVBOX: &str = "dbx_fuzz";
const REVISION: u64 = 7;
const MEMORY_LIMIT: usize = 1 << 20;
const LEASE: Duration = Duration::from_secs(1_000_000);

static DAEMON: LazyLock<Daemon> = LazyLock::new(Daemon::start);

struct Daemon {
    address: SocketAddr,
    _runtime: Runtime,
}

/// Sends `request` as a launcher would, and answers with everything that came back.
pub(crate) fn exchange(request: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect_addr(&DAEMON.address).expect("the daemon listens");
    // The daemon may refuse, and hang up, before it has read everything: what it said is still there to read.
    let _ = stream.write_all(request).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

impl Daemon {
    fn start() -> Self {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime starts");
        // Without a file: nothing is left behind.
        let name = format!("devbox-secrets-fuzz-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name).expect("the name is short");
        let listener = UnixListener::bind_addr(&address).expect("the name is ours");
        listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        let state = Arc::new(launches());
        runtime.spawn(async move {
            let listener = tokio::net::UnixListener::from_std(listener).expect("the runtime has I/O");
            serve(listener, state, std::future::pending()).await;
        });
        Self { address, _runtime: runtime }
    }
}

fn launches() -> LaunchState {
    let memory = SecretMemory::probe(Requirement::Any, MEMORY_LIMIT).expect("a page can be locked");
    let vault = Arc::new(Vault::new("not yet"));
    vault.replace(generation(&memory), BootTime::now() + LEASE);
    LaunchState::new(vault, memory, policy()).expect("a thread starts")
}

fn policy() -> Policy {
    let rules = serde_json::json!([{ "any": true, "env": ["API_KEY", "DB_*", "LD_*"] }]);
    let rules: Vec<RuleConfig> = serde_json::from_value(rules).expect("the rule is well formed");
    Policy::from_config(rules).expect("the rule is valid")
}

fn generation(memory: &SecretMemory) -> Generation {
    let key = BundleKey::generate();
    let variables = GRANTED.iter().chain(&WITHHELD).map(|(name, value)| (*name, value.as_bytes()));
    let message = bundle::seal(key.public_key(), DEVBOX, REVISION, variables);
    let bundle = Bundle::parse(&message).expect("a sealed bundle parses");
    let count = u32::try_from(bundle.entries.len()).expect("a handful");
    let context = Context { devbox_id: DEVBOX, revision: REVISION, count };
    let opener = key.opener(bundle.encapped_key, context).expect("the bundle is for this key");
    Generation::open(memory, &bundle, opener).expect("the bundle opens")
}
