//! Full and read-only disks on either side, with the real daemon: what it holds needs none.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use devbox_secrets_tests::attempt::attempt;
use devbox_secrets_tests::daemon::{Daemon, Setup};
use devbox_secrets_tests::process::becoming;
use devbox_secrets_tests::require_root;
use devbox_secrets_tests::world::World;
use tokio::time::sleep;

use crate::server_faults::{Cramped, SmallDisk};
use crate::support::{LEASE, Scene, launch, leased};

/// Launches get what they need for this long.
async fn serves_for(daemon: &Daemon, time: Duration, value: &[u8]) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        assert_eq!(attempt(&launch(daemon), "KEPT").await.value(), Some(value));
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_full_disk_of_the_server_ends_no_lease_and_what_is_written_afterwards_arrives() {
    require_root!();
    let cramped = Cramped::start().await;
    let api = cramped.server.api();
    api.create("KEPT", "before").await;
    let (devbox, directory) = (cramped.register().await, cramped.path().join("box"));
    let daemon =
        leased(Setup::new(&directory, &cramped.server.ready.devbox, &devbox.join_token)).start().await;
    cramped.disk.fill();
    serves_for(&daemon, LEASE * 3 / 2, b"before").await;
    cramped.disk.empty();
    api.update("KEPT", "after").await;
    daemon.status_where("the update", |status| status["secrets"][0]["version"] == 2).await;
    assert_eq!(attempt(&launch(&daemon), "KEPT").await.value(), Some(b"after".as_slice()));
}

/// The disk has everything that the daemon could write to: its log, and the folders of its sockets.
#[tokio::test]
async fn a_full_disk_of_the_devbox_is_nothing_to_daemon_and_launches() {
    require_root!();
    let scene = Scene::start(World::start().await).await;
    let place = scene.world.path().join("devbox");
    let disk = SmallDisk::at(&place);
    let devbox = scene.world.devbox("box").await;
    let setup = Setup::new(&place.join("box"), &scene.world.server.ready.devbox, &devbox.join_token);
    let daemon = leased(setup).start().await;
    scene.serves_what_was(&daemon).await;
    disk.fill();
    serves_for(&daemon, LEASE, scene.values.kept.value().as_bytes()).await;
    scene.changes().await;
    scene.comes_back(&daemon).await;
}

/// The same program where nothing can be written but what `writable` has.
fn read_only(command: &Command, writable: &Path) -> Command {
    let script = r#"mount --bind "$1" "$1"; mount -o remount,bind,ro /; shift; exec "$@""#;
    let mut confined = Command::new("unshare");
    confined.args(["--mount", "--", "sh", "-ec", script, "sh"]).arg(writable);
    becoming(confined, command)
}

#[tokio::test]
async fn a_read_only_root_of_the_devbox_is_nothing_to_daemon_and_launches() {
    require_root!();
    let scene = Scene::start(World::start().await).await;
    let (_, setup) = scene.setup().await;
    let folder = setup.socket().parent().unwrap().to_owned();
    let mut daemon = setup.spawn_by(|command| read_only(&command, &folder));
    daemon.ready().await;
    scene.serves_what_was(&daemon).await;
    scene.changes().await;
    scene.comes_back(&daemon).await;
    assert!(daemon.program.stop().await.success());
    assert!(!daemon.socket.exists(), "its sockets are removed all the same");
}
