//! Under memory pressure a value of ours is not swapped out.

use std::process::Command;

use devbox_secrets_tests::canary::{Canary, random_letters};
use devbox_secrets_tests::daemon::Daemon;
use devbox_secrets_tests::forensics::swap::{Holder, Pressed, Swap, can_swap};
use devbox_secrets_tests::forensics::trace::{Trace, can_trace};
use devbox_secrets_tests::launch::Launch;
use devbox_secrets_tests::memory::in_memory;
use devbox_secrets_tests::process::Program;
use devbox_secrets_tests::world::World;

/// A kernel without `memfd_secret(2)`, as far as the daemon can tell.
const NO_SECRET_MEMORY: [&str; 4] = ["-e", "trace=memfd_secret", "-e", "inject=memfd_secret:error=ENOSYS"];

/// Dropped in this order: the swap file is in the world's directory, and with it ends the claim on the machine.
struct Rig {
    cgroup: Pressed,
    swap: Swap,
    world: World,
    canary: Canary,
}

impl Rig {
    async fn new() -> Option<Self> {
        let (world, canary) = (World::start().await, Canary::random());
        world.api().create("CANARY", canary.value()).await;
        let swap = Swap::on(world.path())?;
        Some(Self { cgroup: Pressed::cgroup(), swap, world, canary })
    }

    /// A daemon under pressure. `change` is made to the command that starts it.
    async fn daemon(&self, change: impl Fn(Command) -> Command) -> Daemon {
        let setup = self.world.setup(&self.world.devbox("box").await);
        let mut command = self.cgroup.command(&change(setup.command()));
        let program = Program::start(&mut command, &self.world.path().join("log/daemon.log"));
        let mut daemon = Daemon { program, socket: setup.socket(), admin_socket: setup.admin_socket() };
        daemon.ready().await;
        daemon
    }

    /// Launches, presses, looks at what was swapped out, and launches again.
    async fn press(&self, daemon: &Daemon) {
        let ordinary = Canary::of(&random_letters(48));
        let launch = Launch::new(&daemon.socket);
        launch.run(&["/usr/bin/true"]).await.success();
        let _holder = Holder::start(&self.cgroup, ordinary.value()).await;
        let content = self.swap.content();
        assert!(ordinary.copies_in(&content).contains_key("raw"), "the search finds what was swapped out");
        assert_eq!(self.canary.found_in(&content), [""; 0]);
        launch.run(&["/usr/bin/true"]).await.success();
    }
}

#[tokio::test]
async fn the_daemons_secrets_are_not_swapped_out_and_an_ordinary_processs_are() {
    if !can_swap() {
        return;
    }
    let Some(rig) = Rig::new().await else { return };
    let daemon = rig.daemon(|command| command).await;
    assert_eq!(in_memory(daemon.program.pid(), &rig.canary).found, []);
    rig.press(&daemon).await;
}

/// Then root can read the daemon's memory: the fallback only keeps it off the disk.
#[tokio::test]
async fn without_memfd_secret_locked_memory_is_not_swapped_out_either() {
    if !can_swap() || !can_trace() {
        return;
    }
    let Some(rig) = Rig::new().await else { return };
    let file = rig.world.path().join("trace");
    let daemon = rig.daemon(|command| Trace::of(&command, &file, &NO_SECRET_MEMORY).1).await;
    assert_ne!(in_memory(daemon.program.pid(), &rig.canary).found, [], "the search finds what is there");
    rig.press(&daemon).await;
}
