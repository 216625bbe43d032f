//! The help of every program and subcommand, and the errors that users meet most, as reviewed files in `tests/data/help`.
//!
//! After a change of a text: `DEVBOX_SECRETS_RENEW_SNAPSHOTS=1 cargo test --workspace --test tree help::`, then review the
//! difference.

use std::fs;
use std::path::Path;

use devbox_secrets_tests::programs;
use devbox_secrets_tests::snapshot::{Texts, agree, all_help, transcript};
use tempfile::TempDir;

/// A command line that fails: the name of its file, and its arguments. `DIR` is an empty directory with the configuration
/// `wrong.toml`.
type Mistake = (&'static str, &'static [&'static str]);

const SERVER_MISTAKES: [Mistake; 7] = [
    ("no_command", &[]),
    ("unknown_option", &["serve", "--confg", "DIR/server.toml"]),
    ("no_configuration", &["serve"]),
    ("missing_configuration", &["serve", "--config", "DIR/server.toml"]),
    ("mistakes_in_the_configuration", &["check", "--config", "DIR/wrong.toml"]),
    ("no_state", &["account", "list", "--state", "DIR/state"]),
    ("no_master_key", &["init", "--config", "DIR/right.toml"]),
];
const SERVER_WRONG: &str = "\
[state]\ndirectory = \"state\"\n\n[api]\nlisten = \"0.0.0.0:8080\"\n\n[devbox]\nlisten = \"0.0.0.0:8443\"\n\
certificate_lifetime = \"1m\"\nserver_name = \"secrets.example.com\"\n\n[retention]\naudit = \"a year\"\n";
const SERVER_RIGHT: &str = "\
[state]\ndirectory = \"DIR/state\"\nmaster_key_file = \"DIR/master.key\"\n\n[api]\nlisten = \"127.0.0.1:0\"\n\n\
[devbox]\nlisten = \"127.0.0.1:0\"\nserver_names = [\"localhost\"]\n";

const DAEMON_MISTAKES: [Mistake; 7] = [
    ("no_command", &[]),
    ("unknown_option", &["run", "--sever", "https://secrets.example:8443"]),
    ("no_server", &["check", "--join-token-file", "DIR/join-token"]),
    ("missing_configuration", &["run", "--config", "DIR/agent.toml"]),
    ("mistakes_in_the_configuration", &["check", "--config", "DIR/wrong.toml"]),
    ("no_daemon", &["status", "--admin-socket", "DIR/admin.sock"]),
    ("no_process", &["explain", "--pid", "0"]),
];
const DAEMON_WRONG: &str = "\
[server]\nurl = \"http://secrets.example:8443\"\nmax_stale = \"1 hour\"\n\n[hardening]\nmode = \"very\"\n\n\
[log]\nlevel = \"loud\"\ncolour = true\n\n[[rule]]\nuid = \"nobody-by-this-name\"\nenv = [\"DB_*\"]\n\n[[rule]]\nenv = []\n";

const SHIM_MISTAKES: [Mistake; 8] = [
    ("no_command", &[]),
    ("unknown_option", &["--onyl", "DB_PASS", "true"]),
    ("invalid_name", &["--only", "DB-PASS", "true"]),
    ("invalid_wait", &["--wait", "soon", "true"]),
    ("list_with_a_command", &["--list", "true"]),
    ("no_daemon", &["--socket", "DIR/launch.sock", "--", "true"]),
    ("no_daemon_but_optional", &["--optional", "--socket", "DIR/launch.sock", "--", "true"]),
    ("command_not_found", &["--optional", "--socket", "DIR/launch.sock", "--", "no-such-command"]),
];

#[test]
fn the_servers_help_and_errors_are_as_reviewed() {
    let server = programs::server();
    let mut texts = all_help("devbox-secrets-server", &server, &[]);
    texts.extend(errors("devbox-secrets-server", &server, &SERVER_MISTAKES, [SERVER_WRONG, SERVER_RIGHT]));
    agree("help/devbox-secrets-server", &texts);
}

#[test]
fn the_daemons_help_and_errors_are_as_reviewed() {
    let daemon = programs::daemon();
    let mut texts = all_help("devbox-secretsd", &daemon, &[]);
    texts.extend(errors("devbox-secretsd", &daemon, &DAEMON_MISTAKES, [DAEMON_WRONG, ""]));
    agree("help/devbox-secretsd", &texts);
}

#[test]
fn the_shims_help_and_errors_are_as_reviewed() {
    let shim = programs::shim();
    let directory = TempDir::new().unwrap();
    let mut texts = errors("devbox-exec", &shim, &SHIM_MISTAKES, ["", ""]);
    texts.insert("help.txt".to_owned(), transcript("devbox-exec", &shim, &["--help"], directory.path()));
    agree("help/devbox-exec", &texts);
}

fn errors(called: &str, program: &Path, mistakes: &[Mistake], [wrong, right]: [&str; 2]) -> Texts {
    let directory = TempDir::new().unwrap();
    let folder = directory.path();
    for (file, text) in [("wrong.toml", wrong), ("right.toml", right)] {
        fs::write(folder.join(file), text.replace("DIR", folder.to_str().unwrap())).unwrap();
    }
    let texts = mistakes.iter().map(|(name, arguments)| {
        (format!("error_{name}.txt"), transcript(called, program, arguments, folder))
    });
    texts.collect()
}
