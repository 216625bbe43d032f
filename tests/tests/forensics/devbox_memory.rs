//! The whole memory of a devbox, seen from outside of it: a virtual machine with a daemon, a launch, and the end of both.

use devbox_secrets_tests::canary::Canary;
use devbox_secrets_tests::forensics::guest::{Boot, Guest, can_boot};
use devbox_secrets_tests::forensics::ram::{Copies, Place, table, use_of_page};
use devbox_secrets_tests::process::say;
use devbox_secrets_tests::world::World;

/// The steps of `data/forensics/devbox.sh`, and what has happened there.
const STEPS: [(&str, &str); 6] = [
    ("holding", "the daemon holds the secrets"),
    ("running", "a launched process runs"),
    ("gone", "that process is gone"),
    ("replaced", "the value is replaced"),
    ("deleted", "the secret is deleted"),
    ("killed", "the daemon is killed (SIGKILL)"),
];

/// The secrets of a devbox: one whose value is replaced before it is deleted, and one that stays.
struct Values {
    first: Canary,
    second: Canary,
    kept: Canary,
}

impl Values {
    fn random() -> Self {
        Self { first: Canary::random(), second: Canary::random(), kept: Canary::random() }
    }

    fn each(&self) -> [&Canary; 3] {
        [&self.first, &self.second, &self.kept]
    }
}

const VALUES: [&str; 3] = ["first value", "second value", "another secret's value"];

struct Observed {
    /// At each step, of each value.
    copies: Vec<Vec<Copies>>,
    /// Those of the first value while the launched process runs, and once it is gone.
    running: Vec<Found>,
    gone: Vec<Found>,
    /// Those of every value in the end.
    left: Vec<Found>,
}

/// A copy: what stands before it, and what its page is in use for.
struct Found {
    text: String,
    is_free: bool,
}

async fn observe(wipes_freed_pages: bool) -> Observed {
    let (mut guest, world, values) = boot(wipes_freed_pages).await;
    let mut observed =
        Observed { copies: Vec::new(), running: Vec::new(), gone: Vec::new(), left: Vec::new() };
    for (step, _) in STEPS {
        guest.step(step).await;
        let ram = guest.ram();
        observed.copies.push(values.each().iter().map(|value| ram.copies(value)).collect());
        match step {
            "running" => observed.running = found(&mut guest, &values.first).await,
            "gone" => {
                observed.gone = found(&mut guest, &values.first).await;
                world.api().update("CHANGED", values.second.value()).await;
            }
            "replaced" => drop(world.api().delete("CHANGED").await),
            "killed" => break,
            _ => {}
        }
        guest.go("").await;
    }
    for value in values.each() {
        observed.left.extend(found(&mut guest, value).await);
    }
    observed
}

/// A devbox that is told where its control plane is, on this machine, and how to join.
async fn boot(wipes_freed_pages: bool) -> (Guest, World, Values) {
    let values = Values::random();
    let mut guest = Guest::boot(Boot { role: "devbox", wipes_freed_pages, ..Boot::default() });
    let world = World::with_secret("CHANGED", values.first.value()).await;
    world.api().create("KEPT", values.kept.value()).await;
    let devbox = world.devbox("box").await;
    guest.step("booted").await;
    guest.go(&format!("https://localhost:{}", world.server.ready.devbox_address().port())).await;
    guest.step("server").await;
    guest.go(&devbox.join_token).await;
    (guest, world, values)
}

/// Asking takes memory: a page that no longer holds its copy afterwards was free, and has been handed out since.
async fn found(guest: &mut Guest, canary: &Canary) -> Vec<Found> {
    let places = guest.ram().places(canary);
    let pages: Vec<u64> = places.iter().map(Place::page).collect();
    let flags = guest.page_flags(&pages).await;
    let kept: Vec<usize> = guest.ram().places(canary).iter().map(|place| place.address).collect();
    let describe = |(place, flags): (Place, u64)| {
        let page = use_of_page(flags).filter(|_| kept.contains(&place.address));
        let text = format!("after {:?}, page: {}", place.before, page.as_deref().unwrap_or("free"));
        Found { text, is_free: page.is_none() }
    };
    places.into_iter().zip(flags).map(describe).collect()
}

fn in_use(found: &[Found]) -> usize {
    found.iter().filter(|copy| !copy.is_free).count()
}

fn list(found: &[Found]) -> String {
    found.iter().map(|copy| format!("\n  {}", copy.text)).collect()
}

fn tell(kernel: &str, observed: &Observed) {
    let copies = STEPS.iter().zip(&observed.copies);
    let lines: Vec<_> = copies.map(|((_, what), copies)| ((*what).to_owned(), copies.clone())).collect();
    say(&table(&format!("copies in a devbox, {kernel}"), &VALUES, &lines));
    let kinds = [("running", &observed.running), ("gone", &observed.gone), ("in the end", &observed.left)];
    for (when, found) in kinds {
        say(&format!("{when}:{}", list(found)));
    }
}

#[tokio::test]
async fn a_devboxs_whole_memory_holds_a_value_only_where_it_is_in_use() {
    if !can_boot() {
        return;
    }
    let (by_default, wiping) = tokio::join!(observe(false), observe(true));
    tell("kernel's defaults", &by_default);
    tell("init_on_free=1", &wiping);

    for observed in [&by_default, &wiping] {
        assert_eq!(in_use(&observed.running), 2, "the daemon's pages, and the launched process's stack");
        assert_eq!(in_use(&observed.gone), 1, "the daemon's pages");
        assert_eq!(in_use(&observed.left), 0, "nobody's");
        let forms = observed.copies.iter().flatten().flat_map(Copies::keys);
        assert_eq!(forms.filter(|form| **form != "raw").count(), 0, "never encoded");
    }
    let nothing = Copies::new();
    let one = Copies::from([("raw", 1)]);
    assert_eq!(wiping.copies[2], [one.clone(), nothing.clone(), one.clone()], "the process is gone");
    assert_eq!(wiping.copies[3], [nothing.clone(), one.clone(), one.clone()], "the value is replaced");
    assert_eq!(wiping.copies[4], [nothing.clone(), nothing.clone(), one], "the secret is deleted");
    assert_eq!(wiping.copies[5], [nothing.clone(), nothing.clone(), nothing], "the daemon is killed");
}
