use proptest::prelude::*;

use super::*;

fn link(boot: u8, after: Option<u8>, step: u8) -> Link {
    Link { boot: [boot; 32], after: after.map(|after| [after; 16]), step: [step; 16] }
}

fn at(host: u8, link: Link) -> LastUse {
    LastUse { link, remote: Some([192, 0, 2, host].into()) }
}

#[test]
fn each_request_is_judged_by_the_last_accepted_one() {
    let known = at(1, link(1, Some(4), 5));
    let on = Ok(());
    let continued = Err(Elsewhere::Continued);
    let in_use = Err(Elsewhere::InUse);
    for (request, while_in_use, later, why) in [
        (at(1, link(1, Some(5), 6)), on, on, "the next step"),
        (at(9, link(1, Some(5), 6)), on, on, "the next step, from a new address"),
        (at(9, link(2, Some(5), 6)), on, on, "the next step, of a machine that looks changed"),
        (at(1, link(1, Some(4), 5)), on, on, "a lost answer"),
        (at(1, link(1, Some(4), 6)), continued, continued, "another step after the same one"),
        (at(1, link(1, Some(9), 5)), continued, continued, "the same step after another one"),
        (at(1, link(1, Some(3), 4)), continued, continued, "an older step"),
        (at(1, link(1, None, 5)), on, on, "the daemon's restart"),
        (at(9, link(1, None, 6)), in_use, on, "a copy of the running machine, and its restarted daemon"),
        (at(1, link(2, None, 6)), in_use, on, "a reboot, or a copy behind the same address"),
        (at(9, link(2, None, 6)), in_use, on, "a copy of the disk"),
    ] {
        assert_eq!(judge(Some(&known), true, &request), while_in_use, "{why}, while in use");
        assert_eq!(judge(Some(&known), false, &request), later, "{why}, later");
        assert_eq!(judge(None, false, &request), on, "{why}, after the server's restart");
    }
    let first = at(1, link(1, None, 5));
    assert_eq!(judge(Some(&first), true, &first), on, "a first answer that was lost");
}

#[test]
fn a_malformed_link_is_refused_by_its_field() {
    let good = Continuity { boot: "0f".repeat(32), after: Some("A".repeat(32)), step: "5".repeat(32) };
    let parsed = Link::parse(&good).unwrap();
    assert_eq!((parsed.boot, parsed.after, parsed.step), ([0x0f; 32], Some([0xaa; 16]), [0x55; 16]));
    let bad = |digits: usize| {
        let fives = |n| "5".repeat(n);
        [
            String::new(),
            fives(digits - 2),
            fives(digits + 2),
            format!("{}g", fives(digits - 1)),
            format!("+{}", fives(digits - 1)),
            format!("é{}", fives(digits - 2)),
        ]
    };
    let refused = |field: &str, continuity: Continuity| {
        let refusal = Link::parse(&continuity).unwrap_err();
        assert_eq!(refusal.code(), "invalid_continuity");
        assert!(refusal.message().starts_with(&format!("continuity.{field} ")), "{refusal} {continuity:?}");
    };
    for text in bad(STEP_LEN) {
        refused("step", Continuity { step: text.clone(), ..good.clone() });
        refused("after", Continuity { after: Some(text), ..good.clone() });
    }
    for text in bad(BOOT_LEN) {
        refused("boot", Continuity { boot: text, ..good.clone() });
    }
}

/// A machine and its daemon.
#[derive(Clone, Copy)]
struct Machine {
    host: u8,
    boot: u8,
    after: Option<Step>,
    step: Step,
}

/// A server's knowledge, and the origin of its steps.
#[derive(Default)]
struct World {
    known: Option<LastUse>,
    connected: bool,
    steps: u128,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Asks,
    AsksInVain,
    MovesToAnotherAddress,
    DaemonRestarts,
    Reboots,
    ServerRestarts,
}

impl World {
    fn fresh(&mut self) -> Step {
        self.steps += 1;
        self.steps.to_be_bytes()
    }

    fn machine(&mut self, host: u8) -> Machine {
        Machine { host, boot: host, after: None, step: self.fresh() }
    }

    /// One request. If it is `answered`, the machine makes a step.
    fn ask(&mut self, machine: &mut Machine, answered: bool) -> Result<(), Elsewhere> {
        let link = Link { boot: [machine.boot; 32], after: machine.after, step: machine.step };
        let new = at(machine.host, link);
        judge(self.known.as_ref(), self.connected, &new)?;
        (self.known, self.connected) = (Some(new), true);
        if answered {
            (machine.after, machine.step) = (Some(machine.step), self.fresh());
        }
        Ok(())
    }

    fn live(&mut self, machine: &mut Machine, event: Event) -> Result<(), Elsewhere> {
        match event {
            Event::Asks => return self.ask(machine, true),
            Event::AsksInVain => return self.ask(machine, false),
            // The daemon runs on.
            Event::MovesToAnotherAddress if machine.after.is_some() => machine.host ^= 128,
            Event::MovesToAnotherAddress => {}
            // The server may notice late that its connection has ended.
            Event::DaemonRestarts => (machine.after, machine.step) = (None, self.fresh()),
            Event::Reboots => {
                self.connected = false;
                machine.boot = machine.boot.wrapping_add(1);
                (machine.after, machine.step) = (None, self.fresh());
            }
            Event::ServerRestarts => (self.known, self.connected) = (None, false),
        }
        Ok(())
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Asks),
        3 => Just(Event::AsksInVain),
        1 => Just(Event::DaemonRestarts),
        1 => Just(Event::Reboots),
        1 => Just(Event::ServerRestarts),
    ]
}

/// Without the restarts of a daemon, which are a matter of addresses.
fn wandering() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Asks),
        3 => Just(Event::AsksInVain),
        2 => Just(Event::MovesToAnotherAddress),
        1 => Just(Event::Reboots),
        1 => Just(Event::ServerRestarts),
    ]
}

/// Which of two machines were served steps of their own (no one else's but those up to `shared`),
/// in order, without repetitions. First requests do not count: until they are answered, no machine
/// has made a step.
fn served(
    world: &mut World,
    mut machines: [Machine; 2],
    shared: u128,
    turns: &[(bool, bool, bool)],
) -> Vec<usize> {
    let mut served = vec![];
    for (second, answered, disconnected) in turns {
        let which = usize::from(*second);
        let machine = &mut machines[which];
        let counts = machine.after.is_some() && u128::from_be_bytes(machine.step) > shared;
        world.connected &= !disconnected;
        if world.ask(machine, *answered).is_ok() && counts {
            served.push(which);
        }
    }
    served.dedup();
    served
}

proptest! {
    #[test]
    fn a_single_machine_is_never_refused(
        events in prop_oneof![
            proptest::collection::vec(event(), 0..60),
            proptest::collection::vec(wandering(), 0..60),
        ],
    ) {
        let mut world = World::default();
        let mut machine = world.machine(1);
        for event in events {
            prop_assert_eq!(world.live(&mut machine, event), Ok(()));
        }
    }

    #[test]
    fn of_two_machines_from_one_snapshot_of_memory_one_at_most_is_served_its_own_steps(
        before in proptest::collection::vec(event(), 0..20),
        turns in proptest::collection::vec(any::<(bool, bool, bool)>(), 0..40),
    ) {
        let mut world = World::default();
        let mut machine = world.machine(1);
        for event in before {
            world.live(&mut machine, event).unwrap();
        }
        let copy = Machine { host: 2, ..machine };
        let shared = world.steps;
        let served = served(&mut world, [machine, copy], shared, &turns);
        // Before its first answer, a machine is as one that starts from the disk.
        let at_most = if machine.after.is_some() { 1 } else { 2 };
        prop_assert!(served.len() <= at_most, "{:?}", served);
    }

    #[test]
    fn of_two_machines_from_one_snapshot_of_the_disk_who_was_followed_is_never_served_again(
        turns in proptest::collection::vec(any::<(bool, bool, bool)>(), 0..40),
    ) {
        let mut world = World::default();
        let machines = [world.machine(1), world.machine(2)];
        let served = served(&mut world, machines, 0, &turns);
        prop_assert!(served.len() <= 2, "{:?}", served);
    }
}
