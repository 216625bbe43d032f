//! Snapshots and copies: what a machine has in it when it is taken, what a copy of it gets, and how it comes back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use devbox_secrets_proto::devbox::IssuedIdentity;
use devbox_secrets_tests::attempt::{Attempt, attempt};
use devbox_secrets_tests::canary::{Canary, random_letters};
use devbox_secrets_tests::daemon::{Daemon, Setup};
use devbox_secrets_tests::devbox::{Applicant, Listener};
use devbox_secrets_tests::memory::in_memory;
use devbox_secrets_tests::process::becoming;
use devbox_secrets_tests::world::{Devbox, World};
use devbox_secrets_tests::{require_root, wait};

use crate::support::{is_empty, launch, launches_get, leased};

const FROM_STDIN: [&str; 2] = ["--join-token-file", "-"];

/// A server with one secret, `KEPT`.
async fn scene() -> (World, Canary) {
    let (world, value) = (World::start().await, Canary::random());
    world.api().create("KEPT", value.value()).await;
    (world, value)
}

async fn refusal(daemon: &Daemon) -> String {
    attempt(&launch(daemon), "KEPT").await.refusal()
}

/// A join token with which this devbox comes back.
async fn fresh_token(world: &World, devbox: &Devbox) -> String {
    let made = world.server.operator_json(&["devbox", "join-token", &devbox.id]).await;
    made["join_token"].as_str().unwrap().to_owned()
}

/// A certificate that this test asked for: it knows the private key.
struct Certified {
    files: [PathBuf; 3],
    number: Canary,
}

impl Certified {
    async fn new(world: &World, devbox: &Devbox) -> Self {
        let applicant = Applicant::new(&devbox.id);
        let listener = Listener::new(world.server.ready.devbox_address());
        let answer = listener.enroll(&devbox.join_token, &applicant).await.expect(200).json();
        let issued: IssuedIdentity = serde_json::from_value(answer).unwrap();
        let folder = world.path().join(random_letters(8));
        fs::create_dir(&folder).unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let certificate = put("certificate.pem", &issued.certificate);
        let files = [certificate, put("key.pem", &applicant.key_pem()), put("ca.pem", &issued.ca)];
        Self { files, number: Canary::of_number(&applicant.private_number()) }
    }

    fn setup(&self, world: &World, folder: &Path) -> Setup {
        leased(Setup::new(folder, &world.server.ready.devbox, "").certificate(self.files.clone()))
    }
}

#[tokio::test]
async fn a_quiesced_machine_has_neither_value_nor_key_in_it_and_resumes_with_a_fresh_token_only() {
    require_root!();
    let (world, value) = scene().await;
    let devbox = world.devbox("box").await;
    let certified = Certified::new(&world, &devbox).await;
    let daemon = certified.setup(&world, &world.path().join("box")).start().await;
    launches_get(&daemon, &[("KEPT", &value)]).await;
    let pid = daemon.program.pid();
    assert_ne!(in_memory(pid, &certified.number).found, [], "the scan finds the key while it is there");

    daemon.operator("quiesce", &[], "").await.success();
    for secret in [&certified.number, &value] {
        assert_eq!(in_memory(pid, secret).found, []);
    }
    let status = daemon.status().await;
    assert!(status["state"] == "quiesced" && is_empty(&status), "{status}");
    let line = refusal(&daemon).await;
    assert!(line.contains("quiesced for a snapshot: resume it (devbox-secretsd resume)"), "{line}");

    let token = fresh_token(&world, &devbox).await;
    let waiting = launch(&daemon).options(&["--wait", "30"]);
    let (resumed, waited) =
        tokio::join!(daemon.operator("resume", &FROM_STDIN, &token), attempt(&waiting, "KEPT"));
    resumed.success();
    assert_eq!(waited, Attempt::Served(value.value().as_bytes().to_vec()), "a launch that waits is served");

    daemon.operator("quiesce", &[], "").await.success();
    let used = daemon.operator("resume", &FROM_STDIN, &token).await;
    assert!(used.status == 1 && used.stderr.contains("join-token"), "{}", used.stderr);
    assert!(refusal(&daemon).await.contains("could not resume"));
    // The certificate files that are still there ended with the fresh token.
    let old = daemon.operator("resume", &[], "").await;
    assert_eq!(old.status, 1, "{}", old.stderr);
}

#[tokio::test]
async fn a_copy_becomes_another_devbox() {
    let (world, value) = scene().await;
    let daemon = world.daemon().await;
    let first = daemon.status().await["devbox_id"].clone();
    daemon.operator("quiesce", &[], "").await.success();
    let another = world.devbox("copy").await;
    daemon.operator("resume", &FROM_STDIN, &another.join_token).await.success();
    launches_get(&daemon, &[("KEPT", &value)]).await;
    assert_ne!(daemon.status().await["devbox_id"], first);
    assert_eq!(daemon.status().await["devbox_id"], another.id.as_str());
}

#[tokio::test]
async fn of_two_daemons_with_one_certificate_only_one_goes_on() {
    let (world, value) = scene().await;
    let devbox = world.devbox("box").await;
    let certified = Certified::new(&world, &devbox).await;
    let original = certified.setup(&world, &world.path().join("original")).start().await;
    let copy = certified.setup(&world, &world.path().join("copy")).start().await;
    let clone = wait::until("one of the two to be refused", async || {
        let states = [original.status().await, copy.status().await].map(|status| status["state"] == "cloned");
        states.contains(&true).then(|| if states[0] { (&original, &copy) } else { (&copy, &original) })
    });
    let (refused, goes_on) = clone.await;
    assert!(is_empty(&refused.status().await));
    assert!(refusal(refused).await.contains("another machine continues as this devbox"));
    launches_get(goes_on, &[("KEPT", &value)]).await;
    refused.operator("resume", &FROM_STDIN, &world.devbox("copy").await.join_token).await.success();
    launches_get(refused, &[("KEPT", &value)]).await;
    launches_get(goes_on, &[("KEPT", &value)]).await;
}

const MACHINE_ID: &str = "/etc/machine-id";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Starts the command where `file` is at the path `shown`, and is for it alone.
fn where_it_is_shown(file: &Path, shown: &str, command: &Command) -> Command {
    let mut unshared = Command::new("unshare");
    unshared
        .args(["--mount", "sh", "-c", "mount --bind \"$0\" \"$1\" && shift && exec \"$@\""])
        .arg(file)
        .arg(shown);
    becoming(unshared, command)
}

#[tokio::test]
async fn a_machine_with_another_machine_id_serves_no_launch_and_a_token_of_its_own_mends_it() {
    require_root!();
    let (world, value) = scene().await;
    let devbox = world.devbox("box").await;
    let machine_id = world.path().join("machine-id");
    fs::write(&machine_id, "a".repeat(32)).unwrap();
    let setup = leased(world.setup(&devbox));
    let mut daemon = setup.spawn_by(|command| where_it_is_shown(&machine_id, MACHINE_ID, &command));
    daemon.ready().await;
    launches_get(&daemon, &[("KEPT", &value)]).await;
    assert_eq!(daemon.status().await["clone_detection"]["machine_id"], true);

    fs::write(&machine_id, "b".repeat(32)).unwrap();
    let line = refusal(&daemon).await;
    assert!(line.contains("this machine is a copy") && line.contains("resume --join-token-file"), "{line}");
    daemon
        .status_where("the copy to be empty", |status| status["state"] == "cloned" && is_empty(status))
        .await;
    let reason = "its machine-id has changed since the daemon's start";
    wait::until(reason, async || daemon.program.log().contains(reason).then_some(())).await;

    let another = world.devbox("copy").await;
    daemon.operator("resume", &FROM_STDIN, &another.join_token).await.success();
    launches_get(&daemon, &[("KEPT", &value)]).await;
}

/// A checkpoint of the process is restored into another boot. Launches are refused within a second, when the daemon next looks.
#[tokio::test]
async fn a_machine_in_another_boot_serves_no_launch_any_more() {
    require_root!();
    let (world, value) = scene().await;
    let boot_id = world.path().join("boot-id");
    fs::write(&boot_id, "11111111-1111-4111-8111-111111111111\n").unwrap();
    let setup = leased(world.setup(&world.devbox("box").await));
    let mut daemon = setup.spawn_by(|command| where_it_is_shown(&boot_id, BOOT_ID, &command));
    daemon.ready().await;
    launches_get(&daemon, &[("KEPT", &value)]).await;
    assert_eq!(daemon.status().await["clone_detection"]["boot_id"], true);

    fs::write(&boot_id, "22222222-2222-4222-8222-222222222222\n").unwrap();
    daemon
        .status_where("the copy to be empty", |status| status["state"] == "cloned" && is_empty(status))
        .await;
    let line = refusal(&daemon).await;
    assert!(line.contains("its boot id has changed since the daemon's start"), "{line}");
}
