//! Ten thousand peers that break the protocol, before each listener, while good ones come and go: none of these is lost,
//! the program stays up, and keeps nothing of the crowd.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use devbox_secrets_tests::canary::random_letters;
use devbox_secrets_tests::cgroup::Cgroup;
use devbox_secrets_tests::client;
use devbox_secrets_tests::crowd::{Crowd, Dialect, Target};
use devbox_secrets_tests::daemon::Daemon;
use devbox_secrets_tests::devbox::Listener;
use devbox_secrets_tests::launch::Launch;
use devbox_secrets_tests::memory::status_field;
use devbox_secrets_tests::needs;
use devbox_secrets_tests::process::{self, Program};
use devbox_secrets_tests::programs;
use devbox_secrets_tests::require_root;
use devbox_secrets_tests::wait;
use devbox_secrets_tests::world::World;

const PEERS: usize = 10_000;
/// Fewest good ones in the time of the crowds.
const FEWEST: usize = 20;
/// Descriptors that may be open afterwards and were not before.
const MORE_DESCRIPTORS: usize = 8;
/// Resident memory that may be there afterwards and was not before, in KiB.
const MORE_MEMORY: u64 = 16 * 1024;
const STRANGER: u32 = 65_534;

/// A crowd that holds `held` connections open at a time.
fn crowd(dialect: Dialect, target: Target, held: usize, secret: &str) -> Crowd {
    Crowd { dialect, target, peers: PEERS, held, secret: secret.to_owned() }
}

/// Sends a crowd, and another until enough has been seen, and does `good` again and again meanwhile; each has to succeed.
/// Then looks at what the program still has.
async fn no_request_is_lost(program: &mut Program, crowd: impl Fn() -> Command, good: impl AsyncFn()) {
    good().await;
    let before = Footprint::of(program);
    let mut served = 0;
    while served < FEWEST {
        served += served_meanwhile(crowd(), &good).await;
    }
    assert_eq!(program.ended(), None);
    good().await;
    before.is_had_again_by(program).await;
}

/// How many good ones were served in the time of a crowd.
async fn served_meanwhile(crowd: Command, good: &impl AsyncFn()) -> usize {
    let crowd = tokio::spawn(process::run_within(wait::LONG_DEADLINE, crowd, b""));
    let mut served = 0;
    while !crowd.is_finished() {
        good().await;
        served += 1;
    }
    crowd.await.expect("no panic").success();
    served
}

/// A program's resources.
#[derive(Debug, Clone, Copy)]
struct Footprint {
    descriptors: usize,
    memory_kib: u64,
}

impl Footprint {
    fn of(program: &Program) -> Self {
        let pid = program.pid();
        let memory = status_field(pid, "VmRSS").unwrap();
        Self {
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            memory_kib: memory.strip_suffix(" kB").unwrap().trim().parse().unwrap(),
        }
    }

    async fn is_had_again_by(self, program: &Program) {
        wait::until("the program to close what is over", async || {
            (Self::of(program).descriptors <= self.descriptors + MORE_DESCRIPTORS).then_some(())
        })
        .await;
        let after = Self::of(program);
        assert!(after.memory_kib <= self.memory_kib + MORE_MEMORY, "{self:?}, then {after:?}");
    }
}

/// A daemon that holds one secret, and the secret.
async fn daemon(config: impl FnOnce(&World) -> Option<String>) -> (World, Daemon, String) {
    let (world, secret) = (World::start().await, random_letters(32));
    world.api().create("API_KEY", &secret).await;
    let mut setup = world.setup(&world.devbox("box").await);
    if let Some(config) = config(&world) {
        setup = setup.config(&config);
    }
    let daemon = setup.start().await;
    (world, daemon, secret)
}

async fn launches_are_served(
    program: &mut Program,
    launch: Launch,
    crowd: impl Fn() -> Command,
    secret: &str,
) {
    let good = async || assert_eq!(launch.environment().await["API_KEY"], secret.as_bytes());
    no_request_is_lost(program, crowd, good).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_launch_is_lost_to_a_crowd_of_the_daemons_own_user() {
    let (_world, mut daemon, secret) = daemon(|_| None).await;
    let crowd = crowd(Dialect::Launch, Target::Path(daemon.socket.clone()), 400, &secret);
    let launch = Launch::new(&daemon.socket);
    launches_are_served(&mut daemon.program, launch, || crowd.command(), &secret).await;
    let refused = daemon.status().await["launches"]["refused"].as_u64().unwrap();
    assert!(refused >= 1_000, "only {refused} of the crowd were answered");
}

/// It holds more connections than its share of places.
#[tokio::test(flavor = "multi_thread")]
async fn no_launch_is_lost_to_a_crowd_of_another_user() {
    use std::os::unix::process::CommandExt as _;
    require_root!();
    let (world, mut daemon, secret) = daemon(|_| None).await;
    let crowd = crowd(Dialect::Launch, Target::Path(daemon.socket.clone()), 900, &secret);
    let program = world.for_others(&programs::test_peer());
    let command = || {
        let mut command = crowd.command_of(&program);
        command.uid(STRANGER).gid(STRANGER).current_dir("/");
        command
    };
    let launch = Launch::new(&daemon.socket);
    launches_are_served(&mut daemon.program, launch, command, &secret).await;
    assert!(daemon.program.log().contains("their user has its share"), "the crowd has held too few");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_operators_question_is_lost_to_a_crowd() {
    let (_world, mut daemon, secret) = daemon(|_| None).await;
    let socket = daemon.admin_socket.clone();
    let crowd = crowd(Dialect::Http, Target::Path(socket.clone()), 8, &secret);
    let good = async || {
        let status = client::get_unix(&socket, "/status").await.unwrap().expect(200).json();
        assert_eq!(status["state"], "ready");
    };
    no_request_is_lost(&mut daemon.program, || crowd.command(), good).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_units_credential_is_lost_to_a_crowd() {
    if !needs::cgroups() {
        return;
    }
    let unit = format!("devbox-hostile-{}.service", std::process::id());
    let socket = |world: &World| world.path().join("credentials.sock");
    let config = |world: &World| {
        let path = socket(world).display().to_string();
        Some(format!(
            "[socket]\ncredentials = \"{path}\"\n[[credential]]\nunit = \"{unit}\"\nenv = [\"*\"]\n"
        ))
    };
    let (world, mut daemon, secret) = daemon(config).await;
    let socket = socket(&world);
    let crowd = crowd(Dialect::Units(unit.clone()), Target::Path(socket.clone()), 8, &secret);
    let (cgroup, asked) = (Cgroup::new(&unit), AtomicUsize::new(0));
    let good = async || {
        let mut peer = cgroup.command(&programs::test_peer().display().to_string());
        let number = asked.fetch_add(1, Ordering::Relaxed);
        peer.arg("ask").arg(&socket).arg(format!("beef{number:x}/unit/{unit}/api-key"));
        let answer = process::run(peer, b"").await.success().stdout;
        assert!(answer == secret.as_bytes(), "{}", String::from_utf8_lossy(&answer[..answer.len().min(200)]));
    };
    no_request_is_lost(&mut daemon.program, || crowd.command(), good).await;
    let refused = daemon.program.log().matches("credential refused").count();
    assert!(refused >= PEERS, "only {refused} of the crowd were refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_lost_to_a_crowd_before_the_public_api() {
    let (mut world, secret) = (World::start().await, random_letters(32));
    world.api().create("API_KEY", &secret).await;
    let target = Target::Address(world.server.ready.api_address());
    let crowd = crowd(Dialect::Http, target, 400, &secret);
    let api = world.api();
    let good = async || {
        api.update("API_KEY", &secret).await;
        assert_eq!(api.get("/v1/secrets/API_KEY").await.status, 200);
    };
    no_request_is_lost(&mut world.server.program, || crowd.command(), good).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bundle_is_lost_to_a_crowd_before_the_devbox_listener() {
    let (mut world, secret) = (World::start().await, random_letters(32));
    world.api().create("API_KEY", &secret).await;
    let address = world.server.ready.devbox_address();
    let devbox = world.devbox("box").await;
    let enrolled = Listener::new(address).enrolled(&devbox.join_token, &devbox.id).await;
    let crowd = crowd(Dialect::Tls, Target::Address(address), 400, &secret);
    let good = async || assert_eq!(enrolled.bundle(None).await.unwrap().status, 200);
    no_request_is_lost(&mut world.server.program, || crowd.command(), good).await;
}
