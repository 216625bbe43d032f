//! Access by uid and gid, as the kernel reports them.

use devbox_secrets_tests::daemon::Daemon;
use devbox_secrets_tests::launch::{Environment, Launch};
use devbox_secrets_tests::require_root;
use devbox_secrets_tests::world::World;

/// `nobody` on most systems, and nobody's in particular on the rest.
const STRANGER: u32 = 65_534;

const RULES: &str = r#"
[[rule]]
name = "root has everything"
uid = 0
env = ["*"]

[[rule]]
name = "the database user"
uid = 65534
env = ["DB_*"]
"#;

async fn world() -> World {
    let world = World::start().await;
    for name in ["API_KEY", "DB_PASS", "DB_USER", "LD_PRELOAD"] {
        world.api().create(name, "/nowhere").await;
    }
    world
}

async fn daemon(world: &World, rules: &str) -> Daemon {
    daemon_of(world, "box", rules).await
}

async fn daemon_of(world: &World, devbox: &str, rules: &str) -> Daemon {
    world.setup(&world.devbox(devbox).await).config(rules).start().await
}

fn names(environment: &Environment) -> Vec<&str> {
    environment.keys().map(String::as_str).collect()
}

async fn refusal(launch: Launch) -> String {
    let refused = launch.run(&["true"]).await;
    assert_eq!(refused.status, 125, "{}", refused.stderr);
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    refused.stderr
}

#[tokio::test]
async fn without_a_configuration_file_only_the_daemons_own_user_gets_anything() {
    require_root!();
    let world = world().await;
    let daemon = world.daemon().await;
    assert_eq!(names(&Launch::new(&daemon.socket).environment().await), ["API_KEY", "DB_PASS", "DB_USER"]);
    let told = refusal(world.launch_as(STRANGER, &daemon)).await;
    assert!(told.contains("65534") && told.contains("rule"), "{told}");
}

#[tokio::test]
async fn a_rule_grants_its_user_the_names_that_it_matches() {
    require_root!();
    let world = world().await;
    let daemon = daemon(&world, RULES).await;
    let stranger = world.launch_as(STRANGER, &daemon);
    assert_eq!(names(&stranger.environment().await), ["DB_PASS", "DB_USER"]);
    assert_eq!(names(&Launch::new(&daemon.socket).environment().await), ["API_KEY", "DB_PASS", "DB_USER"]);
    let listed = stranger.options(&["--list"]).run_alone().await.success();
    assert_eq!(listed.text(), "DB_PASS\nDB_USER\n", "names that are not granted are not shown");
}

#[tokio::test]
async fn a_variable_asked_for_by_name_and_not_granted_is_refused() {
    require_root!();
    let world = world().await;
    let daemon = daemon(&world, RULES).await;
    for options in [["--only", "API_KEY"], ["--require", "API_KEY"], ["--rename", "DB_KEY=API_KEY"]] {
        let told = refusal(world.launch_as(STRANGER, &daemon).options(&options)).await;
        assert!(told.contains("API_KEY") && told.contains("65534"), "{told}");
    }
}

#[tokio::test]
async fn another_user_without_a_rule_gets_nothing() {
    require_root!();
    let world = world().await;
    let daemon = daemon(&world, RULES).await;
    let told = refusal(world.launch_as(STRANGER - 1, &daemon)).await;
    assert!(told.contains("65533"), "{told}");
}

#[tokio::test]
async fn a_rule_by_group_matches_the_group() {
    require_root!();
    let world = world().await;
    let daemon = daemon(&world, "[[rule]]\nname = \"group\"\ngid = 65534\nenv = [\"API_KEY\"]\n").await;
    assert_eq!(names(&world.launch_as(STRANGER, &daemon).environment().await), ["API_KEY"]);
    assert!(refusal(Launch::new(&daemon.socket)).await.contains("rule"), "root is in no rule");
}

/// A secret called `LD_PRELOAD` would run its owner's code in every launched program.
#[tokio::test]
async fn a_loader_variable_is_injected_only_where_a_rule_names_it() {
    let world = world().await;
    let me = nix::unistd::getuid();
    let rule = |env: &str| format!("[[rule]]\nname = \"me\"\nuid = {me}\nenv = [{env}]\n");
    let globbed = daemon(&world, &rule("\"*\", \"LD_*\"")).await;
    assert_eq!(names(&Launch::new(&globbed.socket).environment().await), ["API_KEY", "DB_PASS", "DB_USER"]);
    let renamed = Launch::new(&globbed.socket).options(&["--rename", "LD_AUDIT=API_KEY"]);
    assert!(refusal(renamed).await.contains("LD_AUDIT"));

    let named = daemon(&world, &rule("\"LD_PRELOAD\"")).await;
    let listed = Launch::new(&named.socket).options(&["--list"]).run_alone().await.success();
    assert_eq!(listed.text(), "LD_PRELOAD\n");
}

/// The value alone would run `touch` in each of these programs.
#[tokio::test]
async fn values_of_guarded_names_do_not_reach_bash_make_and_tar() {
    let world = World::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let hit = |name: &str| dir.path().join(name);
    let touch = |name: &str| format!("touch {}", hit(name).display());
    for (name, value) in [
        ("PS1", format!("$({})", touch("PS1"))),
        ("PS4", format!("$({})", touch("PS4"))),
        ("BASH_ENV", format!("$({})", touch("BASH_ENV"))),
        ("PROMPT_COMMAND", touch("PROMPT_COMMAND")),
        ("MAKEFLAGS", format!("-- CPPFLAGS=;{};:", touch("MAKEFLAGS").replace(' ', "\\ "))),
        ("CC", format!("{};:", touch("CC"))),
        ("TAR_OPTIONS", format!("--checkpoint=1 --checkpoint-action=exec='{}'", touch("TAR_OPTIONS"))),
        ("API_KEY", "harmless".to_owned()),
    ] {
        world.api().create(name, &value).await;
    }
    std::fs::write(hit("Makefile"), "all: x.o\n").expect("a makefile");
    std::fs::write(hit("x.c"), "").expect("a source");
    let commands = [
        "bash --norc -i -c 'set -x; eval \"echo ${PS1@P}\"; true' </dev/null".to_owned(),
        "bash -c true".to_owned(),
        format!("make -B -C {} x.o", dir.path().display()),
        format!("tar -cf /dev/null -C {} x.c", dir.path().display()),
    ];
    let daemon = world.daemon().await;
    let run = async |launch: &Launch| {
        for command in &commands {
            let _ = launch.run(&["sh", "-c", command]).await;
        }
    };
    run(&Launch::new(&daemon.socket)).await;
    for name in ["PS1", "PS4", "BASH_ENV", "PROMPT_COMMAND", "MAKEFLAGS", "CC", "TAR_OPTIONS"] {
        assert!(!hit(name).exists(), "the value of {name} ran");
    }

    // The same values do run if a rule names them: so the absence above is the guard's doing.
    let me = nix::unistd::getuid();
    let named =
        format!("[[rule]]\nuid = {me}\nenv = [\"BASH_ENV\", \"CC\", \"MAKEFLAGS\", \"TAR_OPTIONS\"]\n");
    let daemon = daemon_of(&world, "named", &named).await;
    run(&Launch::new(&daemon.socket)).await;
    for name in ["BASH_ENV", "CC", "MAKEFLAGS", "TAR_OPTIONS"] {
        assert!(hit(name).exists(), "the value of {name} does not run, even if a rule names it");
    }
}
