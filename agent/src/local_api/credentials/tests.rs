//! Real sockets, abstract addresses and locked memory. The tests under systemd check the rest.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdListener;
use std::os::unix::net::{SocketAddr, UnixStream as StdStream};
use std::path::PathBuf;

use nix::unistd::geteuid;
use tokio::io::AsyncReadExt;

use super::*;
use crate::access::policy::credentials::{CredentialRule, CredentialRuleConfig};
use crate::memory::Loss;
use crate::memory::test_support::SealedBundle;
use crate::sys::BootTime;
use crate::sys::test_support::{become_user, memories};
use devbox_secrets_tests::needs;

/// A length at which systemd fails a unit's start.
const TOO_LONG: usize = 1 << 20;
const STRANGER: u32 = 65_534;

struct Served {
    directory: tempfile::TempDir,
    vault: Arc<Vault>,
    socket: StdListener,
}

impl Served {
    /// A daemon that grants `DB_*` to `app.service`, whose cgroup has this process in it.
    fn start() -> Self {
        Self::start_with(PATIENCE)
    }

    fn start_with(patience: Patience) -> Self {
        let served = Self::start_stopped();
        let listener = UnixListener::from_std(served.listener()).unwrap();
        tokio::spawn(Arc::new(served.credentials(patience)).serve(listener, std::future::pending()));
        served
    }

    /// A socket that no daemon serves yet.
    fn start_stopped() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cgroup = directory.path().join("system.slice/app.service");
        std::fs::create_dir_all(&cgroup).unwrap();
        std::fs::write(cgroup.join("cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
        let vault = Arc::new(Vault::new("still starting"));
        let socket = StdListener::bind(directory.path().join("sock")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { directory, vault, socket }
    }

    /// The socket that the service manager passes to each daemon.
    fn listener(&self) -> StdListener {
        self.socket.try_clone().unwrap()
    }

    fn credentials(&self, patience: Patience) -> UnitCredentials {
        let config = CredentialRuleConfig { unit: "app.service".into(), env: vec!["DB_*".into()] };
        let rules = CredentialRules::new(vec![CredentialRule::from_config(&config).unwrap()]);
        let mut credentials = UnitCredentials::new(Arc::clone(&self.vault), rules);
        credentials.cgroups = Cgroups::at(self.directory.path());
        credentials.patience = patience;
        credentials
    }

    fn ready(self) -> Self {
        let value = vec![b'v'; 100_000];
        let sealed = SealedBundle::new(3, &[("DB_PASS", b"s3cret\n"), ("DB_LONG", &value), ("OTHER", b"x")]);
        let lease = BootTime::now() + Duration::from_secs(60);
        self.vault.replace(sealed.open(&memories()[0]).unwrap(), lease);
        self
    }

    /// Connects from an address in the abstract namespace, as systemd does.
    fn connect_as(&self, address: &str) -> UnixStream {
        UnixStream::from_std(self.connected(address)).unwrap()
    }

    /// Like [`Self::connect_as`], from this process in the unit's cgroup, but not as root: only the
    /// user is wrong.
    fn connect_as_a_stranger(&self, address: &str) -> UnixStream {
        for path in [self.directory.path(), &self.socket()] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        let connect = || {
            if geteuid().is_root() {
                become_user(STRANGER);
            }
            self.connected(address)
        };
        let stream = std::thread::scope(|scope| scope.spawn(connect).join().unwrap());
        UnixStream::from_std(stream).unwrap()
    }

    fn connected(&self, address: &str) -> StdStream {
        let from = SocketAddr::from_abstract_name(address).unwrap();
        let to = SocketAddr::from_pathname(self.socket()).unwrap();
        let socket = socket2_stream(&from, &to);
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("sock")
    }

    async fn ask(&self, address: &str) -> Vec<u8> {
        let mut answer = Vec::new();
        self.connect_as(address).read_to_end(&mut answer).await.unwrap();
        answer
    }
}

/// `std` binds listeners only.
fn socket2_stream(from: &SocketAddr, to: &SocketAddr) -> StdStream {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, connect, socket};
    use std::os::fd::AsRawFd;
    let stream = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(stream.as_raw_fd(), &UnixAddr::new_abstract(from.as_abstract_name().unwrap()).unwrap()).unwrap();
    connect(stream.as_raw_fd(), &UnixAddr::new(to.as_pathname().unwrap()).unwrap()).unwrap();
    StdStream::from(stream)
}

/// A fresh address for a credential of a unit, because tests share one namespace.
fn address(unit: &str, credential: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let random = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:x}{random:04x}/unit/{unit}/{credential}", std::process::id())
}

fn is_refusal(answer: &[u8], words: &str) -> bool {
    answer.len() > TOO_LONG && String::from_utf8_lossy(&answer[..1024]).contains(words)
}

/// Tests connect as their own user, and only root is believed.
#[tokio::test]
async fn a_unit_gets_the_raw_value_of_what_its_rule_grants() {
    if !needs::root() {
        return;
    }
    let served = Served::start().ready();
    for credential in ["DB_PASS", "db_pass", "db-pass", "db.pass"] {
        assert_eq!(served.ask(&address("app.service", credential)).await, b"s3cret\n", "{credential}");
    }
    assert_eq!(served.ask(&address("app.service", "DB_LONG")).await, vec![b'v'; 100_000]);
}

#[tokio::test]
async fn a_refusal_is_too_long_for_a_credential_and_says_why() {
    if !needs::root() {
        return;
    }
    let served = Served::start().ready();
    for (unit, credential, words) in [
        ("app.service", "OTHER", "add a [[credential]] with unit = \"app.service\" and env = [\"OTHER\"]"),
        ("app.service", "db_none", "bind a secret to DB_NONE"),
        ("forged.service", "DB_PASS", "is not in its cgroup"),
    ] {
        let answer = served.ask(&address(unit, credential)).await;
        assert!(is_refusal(&answer, words), "{unit} {credential}: {} bytes", answer.len());
    }
}

#[tokio::test]
async fn a_peer_other_than_root_is_refused_under_any_name() {
    let served = Served::start().ready();
    let mut answer = Vec::new();
    let mut stranger = served.connect_as_a_stranger(&address("app.service", "DB_PASS"));
    stranger.read_to_end(&mut answer).await.unwrap();
    assert!(is_refusal(&answer, "which only systemd (uid 0) may"));
}

#[tokio::test]
async fn an_address_that_is_not_systemds_is_refused() {
    let served = Served::start().ready();
    let random = address("app.service", "DB_PASS");
    let not_systemds = random.replace("/unit/", "/user/");
    assert!(is_refusal(&served.ask(&not_systemds).await, "only LoadCredential= may ask here"));
    let mut unnamed = UnixStream::connect(served.socket()).await.unwrap();
    let mut answer = Vec::new();
    unnamed.read_to_end(&mut answer).await.unwrap();
    assert!(is_refusal(&answer, "only LoadCredential= may ask here"));
}

#[tokio::test]
async fn a_unit_that_asks_before_there_are_secrets_waits_for_them() {
    if !needs::root() {
        return;
    }
    let served = Served::start();
    let mut early = served.connect_as(&address("app.service", "db_pass"));
    let mut answer = Vec::new();
    assert!(
        timeout(Duration::from_millis(50), early.read_u8()).await.is_err(),
        "the answer comes before the question"
    );
    let served = served.ready();
    early.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"s3cret\n");
    drop(served);
}

#[tokio::test]
async fn waiting_for_secrets_is_bounded_and_then_a_refusal() {
    if !needs::root() {
        return;
    }
    let served = Served::start_with(Patience { passing: Duration::from_millis(50), ..PATIENCE });
    let answer = served.ask(&address("app.service", "db_pass")).await;
    assert!(is_refusal(&answer, "still starting"));
}

/// Whether the unit got no response, because its connection waits in the queue. A wrong response
/// would be there at once.
async fn is_waiting(stream: &mut UnixStream) -> bool {
    timeout(Duration::from_millis(50), stream.read_u8()).await.is_err()
}

#[tokio::test]
async fn units_wait_out_every_state_that_may_pass_also_after_there_were_secrets() {
    if !needs::root() {
        return;
    }
    let mut served = Served::start().ready();
    for loss in [Loss::Starting, Loss::Quiesced, Loss::Stale, Loss::Stopping] {
        served.vault.lose(loss, "for a while");
        let mut unit = served.connect_as(&address("app.service", "db_pass"));
        assert!(is_waiting(&mut unit).await, "{loss:?}");
        served.vault.reopen("and again");
        served = served.ready();
        let mut answer = Vec::new();
        unit.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"s3cret\n", "{loss:?}");
    }
}

#[tokio::test]
async fn each_state_that_may_pass_has_patience_of_its_own() {
    if !needs::root() {
        return;
    }
    let served = Served::start_with(Patience { passing: Duration::from_secs(2), ..PATIENCE });
    for loss in [Loss::Starting, Loss::Stale, Loss::Quiesced] {
        served.vault.lose(loss, loss.word());
        let mut unit = served.connect_as(&address("app.service", "db_pass"));
        assert!(is_waiting(&mut unit).await, "{loss:?}");
        let mut answer = Vec::new();
        unit.read_to_end(&mut answer).await.unwrap();
        assert!(is_refusal(&answer, loss.word()), "{loss:?}");
        // A state's time is counted once, whatever reasons follow.
        served.vault.lose(loss, "still");
        assert!(is_refusal(&served.ask(&address("app.service", "db_pass")).await, "still"), "{loss:?}");
    }
}

/// Serves on a runtime of its own that stops without a word, like a killed daemon.
fn serve_and_die(credentials: UnitCredentials, listener: StdListener) {
    let die = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = UnixListener::from_std(listener).unwrap();
            let serving = Arc::new(credentials).serve(listener, std::future::pending());
            let _ = timeout(Duration::from_millis(200), serving).await;
        });
    };
    std::thread::spawn(die).join().unwrap();
}

#[tokio::test]
async fn a_unit_that_waits_for_anything_is_answered_by_the_next_daemon_if_this_one_dies() {
    if !needs::root() {
        return;
    }
    let served = Served::start_stopped();
    let unconfirmed = served.credentials(PATIENCE).checked_by(Arc::new(Freshness::new()));
    let served = served.ready();
    let mut unit = served.connect_as(&address("app.service", "db_pass"));
    serve_and_die(unconfirmed, served.listener());
    let listener = UnixListener::from_std(served.listener()).unwrap();
    tokio::spawn(Arc::new(served.credentials(PATIENCE)).serve(listener, std::future::pending()));
    let mut answer = Vec::new();
    unit.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"s3cret\n");
}

#[tokio::test]
async fn an_answer_under_way_is_sent_whole_before_the_daemon_stops() {
    if !needs::root() {
        return;
    }
    let served = Served::start_stopped().ready();
    let listener = UnixListener::from_std(served.listener()).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    let serving = tokio::spawn(Arc::new(served.credentials(PATIENCE)).serve(listener, shutdown));
    let mut slow = served.connect_as(&address("forged.service", "DB_PASS"));
    slow.read_u8().await.unwrap();
    drop(stop);
    tokio::task::yield_now().await;
    assert!(!serving.is_finished(), "it waits for the answer");
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.unwrap();
    assert!(answer.len() > TOO_LONG, "{} bytes", answer.len());
    serving.await.unwrap();
}

#[tokio::test]
async fn a_loss_is_a_refusal_at_once() {
    if !needs::root() {
        return;
    }
    let served = Served::start().ready();
    served.vault.lose(Loss::Revoked, "the devbox was shut down");
    assert!(is_refusal(&served.ask(&address("app.service", "db_pass")).await, "the devbox was shut down"));
}

#[tokio::test]
async fn peers_that_read_nothing_cost_the_others_nothing() {
    if !needs::root() {
        return;
    }
    let served = Served::start().ready();
    let silent: Vec<UnixStream> =
        (0..MAX_CONNECTIONS - 1).map(|_| served.connect_as(&address("forged.service", "x"))).collect();
    assert_eq!(served.ask(&address("app.service", "db_pass")).await, b"s3cret\n");
    drop(silent);
}

#[tokio::test]
async fn more_peers_than_places_that_read_nothing_lose_theirs() {
    if !needs::root() {
        return;
    }
    let impatient = Patience { answer: Duration::from_millis(50), ..PATIENCE };
    let served = Served::start_with(impatient).ready();
    let silent: Vec<UnixStream> =
        (0..3 * MAX_CONNECTIONS).map(|_| served.connect_as(&address("forged.service", "x"))).collect();
    assert_eq!(served.ask(&address("app.service", "db_pass")).await, b"s3cret\n");
    drop(silent);
}

#[tokio::test]
async fn ten_thousand_peers_that_ask_nonsense_and_leave_cost_no_unit_its_credential() {
    if !needs::root() {
        return;
    }
    let served = Served::start().ready();
    for _ in 0..100 {
        for _ in 0..100 {
            // A peer without an address or a byte has gone before the refusal is written.
            drop(StdStream::connect(served.socket()).unwrap());
            tokio::task::yield_now().await;
        }
        assert_eq!(served.ask(&address("app.service", "db_pass")).await, b"s3cret\n");
    }
}
