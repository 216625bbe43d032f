//! A virtual machine is put aside, memory and all, and others go on from there.

use devbox_secrets_tests::canary::random_letters;
use devbox_secrets_tests::forensics::guest::{Boot, Guest, can_boot};
use devbox_secrets_tests::forensics::snapshot::Snapshot;
use devbox_secrets_tests::wait::{self, LONG_DEADLINE};
use devbox_secrets_tests::world::{Devbox, World};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::is_empty;

const ITS_OWN: Option<&str> = Some("5e3ad0a4-4a5c-4c0e-9d54-1f6c7b1f0a01");
const ANOTHER: Option<&str> = Some("b2b7f1d2-6a0f-4c51-8f0b-3a8a5b9a7c02");

/// The result of a launch as `data/forensics/copied-devbox.sh` prints it: exit status and output.
type Launched = (i32, String);

/// A devbox that has what it may have, in a file.
struct Scene {
    world: World,
    devbox: Devbox,
    value: String,
    snapshot: Snapshot,
}

impl Scene {
    async fn prepare(generation: Option<&'static str>) -> Self {
        let mut guest = Guest::boot(Boot { role: "copied-devbox", generation, ..Boot::default() });
        let (world, value) = (World::start().await, random_letters(24));
        world.api().create("KEPT", &value).await;
        let devbox = world.devbox("box").await;
        guest.step("booted").await;
        guest.go(&format!("https://localhost:{}", world.server.ready.devbox_address().port())).await;
        guest.step("server").await;
        guest.go(&devbox.join_token).await;
        guest.step("holding").await;
        assert_eq!(launch(&mut guest).await, (0, value.clone()));
        let found = status(&mut guest).await;
        assert_eq!(found["clone_detection"]["vm_generation"], generation.is_some());
        Self { world, devbox, value, snapshot: Snapshot::of(guest).await }
    }

    /// Returns the value that is current from now on.
    async fn change(&self) -> String {
        let value = random_letters(24);
        self.world.api().update("KEPT", &value).await;
        value
    }

    /// Moves the devbox's identity to this machine.
    async fn resume(&self, guest: &mut Guest) {
        let made = self.world.server.operator_json(&["devbox", "join-token", &self.devbox.id]).await;
        let token = made["join_token"].as_str().unwrap();
        let (status, said) = answer(guest, "resume", token).await;
        assert_eq!(status, 0, "{said}");
    }
}

async fn launch(guest: &mut Guest) -> Launched {
    answer(guest, "launch", "").await
}

async fn answer(guest: &mut Guest, order: &str, argument: &str) -> Launched {
    guest.go(format!("{order} {argument}").trim_end()).await;
    let said = guest.step(order).await;
    let (status, text) = said.split_once(' ').unwrap_or((&said, ""));
    (status.parse().unwrap(), text.to_owned())
}

async fn status(guest: &mut Guest) -> Value {
    guest.go("status").await;
    serde_json::from_str(&guest.step("status").await).unwrap()
}

/// Launches until `probe` finds what it looks for. The connection that the machine had is dead: its daemon has to notice first.
async fn launches_until<T>(guest: &mut Guest, what: &str, probe: impl Fn(Launched) -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = probe(launch(guest).await) {
                return found;
            }
        }
    };
    wait::within_limit(LONG_DEADLINE, what, found).await
}

async fn launches_come_to_get(guest: &mut Guest, value: &str) {
    launches_until(guest, "launches to get what is current", |(status, said)| {
        assert_eq!(status, 0, "{said}");
        (said == value).then_some(())
    })
    .await;
}

/// Until then, launches get what the machine had in it; returns why they no longer do.
async fn launches_come_to_be_refused(guest: &mut Guest, known: &str) -> String {
    launches_until(guest, "a launch to be refused", |(status, said)| {
        assert!(status == 125 || (status == 0 && said == known), "{status} {said}");
        (status == 125).then_some(said)
    })
    .await
}

async fn is_known_for_a_copy(guest: &mut Guest) {
    let found = status(guest).await;
    assert_eq!(found["state"], "cloned", "{found}");
    assert!(is_empty(&found), "{found}");
}

#[tokio::test]
async fn of_two_copies_of_a_running_machine_one_goes_on_and_the_other_is_refused_and_holds_nothing() {
    if !can_boot() {
        return;
    }
    let scene = Scene::prepare(None).await;
    let mut first = scene.snapshot.start(None).await;
    let changed = scene.change().await;
    launches_come_to_get(&mut first, &changed).await;

    let mut second = scene.snapshot.start(None).await;
    let told = launches_come_to_be_refused(&mut second, &scene.value).await;
    assert!(told.contains("another machine continues as this devbox"), "{told}");
    is_known_for_a_copy(&mut second).await;
    assert_eq!(launch(&mut first).await, (0, changed.clone()));

    scene.resume(&mut second).await;
    assert_eq!(launch(&mut second).await, (0, changed.clone()));
    launches_come_to_be_refused(&mut first, &changed).await;
    assert!(is_empty(&status(&mut first).await));
}

#[tokio::test]
async fn a_machine_with_another_generation_id_serves_nothing_though_the_control_plane_is_silent() {
    if !can_boot() {
        return;
    }
    let mut scene = Scene::prepare(ITS_OWN).await;
    let mut same = scene.snapshot.start(ITS_OWN).await;
    let changed = scene.change().await;
    launches_come_to_get(&mut same, &changed).await;
    drop(same);

    scene.world.server.program.signal(Signal::SIGSTOP);
    let mut copy = scene.snapshot.start(ANOTHER).await;
    let told = launches_come_to_be_refused(&mut copy, &scene.value).await;
    assert!(told.contains("a new VM generation ID"), "{told}");
    is_known_for_a_copy(&mut copy).await;
    scene.world.server.program.signal(Signal::SIGCONT);
    scene.resume(&mut copy).await;
    assert_eq!(launch(&mut copy).await, (0, changed));
}
