//! Rules about units and executables, decided for real launches.

use std::fs::File;

use tracing_subscriber::fmt;

use super::*;
use crate::access::peer::{Digest, Peer};
use crate::telemetry::test_support::Log;

fn own_pid() -> i32 {
    std::process::id().try_into().unwrap()
}

fn own_executable() -> String {
    std::fs::read_link("/proc/self/exe").unwrap().into_os_string().into_string().unwrap()
}

fn own_digest() -> String {
    Digest::of(&mut File::open("/proc/self/exe").unwrap()).unwrap().to_string()
}

fn server(rules: &[&str]) -> Server {
    let memory = SecretMemory::probe(Requirement::Any, LIMIT).unwrap();
    Server::with(memory, policy(rules)).holding(&[("A", b"one"), ("PATH", b"/evil")])
}

/// A server on a machine where this process is in `app.service`.
fn server_of_unit(rules: &[&str]) -> (TempDir, Server) {
    let root = tempfile::tempdir().unwrap();
    let unit = root.path().join("system.slice/app.service");
    std::fs::create_dir_all(&unit).unwrap();
    std::fs::write(unit.join("cgroup.procs"), format!("{}\n", own_pid())).unwrap();
    let memory = SecretMemory::probe(Requirement::Any, LIMIT).unwrap();
    let server = Server::in_units(memory, policy(rules), Cgroups::at(root.path()));
    (root, server.holding(&[("A", b"one")]))
}

#[test]
fn rules_about_users_alone_look_at_no_process() {
    let server = server(&["any = true\nenv = ['A']", "uid = 4000000000\nunit = 'a.service'\nenv = ['A']"]);
    assert_eq!(server.everything().strings(), b"A=one\0");
    assert!(!server.state.examiner.is_started());
}

#[test]
fn a_unit_gets_what_its_rule_grants_and_no_other_does() {
    let (_root, app) = server_of_unit(&["unit = 'app.service'\nenv = ['A']"]);
    assert_eq!(app.everything().strings(), b"A=one\0");
    let (_root, other) = server_of_unit(&["unit = 'other.service'\nenv = ['A']"]);
    assert_eq!(other.everything().code(), ErrorCode::Denied);
}

#[test]
fn an_executable_gets_what_its_rule_grants_if_its_contents_are_right() {
    let (path, digest) = (own_executable(), own_digest());
    let rule = |path: &str, digest: &str| {
        format!("any = true\nexecutable = '{path}'\nsha256 = '{digest}'\nenv = ['A']")
    };
    assert_eq!(server(&[&rule(&path, &digest)]).everything().strings(), b"A=one\0");
    let wrong = "0".repeat(64);
    for (path, digest) in [(path.as_str(), wrong.as_str()), ("/usr/bin/other", &digest)] {
        assert_eq!(server(&[&rule(path, digest)]).everything().code(), ErrorCode::Denied, "{path} {digest}");
    }
}

#[tokio::test]
async fn an_explanation_agrees_with_what_a_launch_gets() {
    let rules = ["name = 'ci'\nany = true\nenv = ['*']", "unit = 'none.service'\nenv = ['PATH']"];
    let server = server(&rules);
    assert_eq!(server.everything().strings(), b"A=one\0");
    let uid = geteuid().as_raw();
    let explanation = server.state.explain(Peer { uid, gid: 0, pid: own_pid() }).await;
    let variables = explanation.variables.unwrap();
    let granted: Vec<_> = variables.iter().map(|v| (v.name.as_str(), v.rule.as_deref())).collect();
    assert_eq!(granted, [("A", Some("1 (\"ci\")")), ("PATH", None)]);
    assert_eq!(explanation.process.unit, "none");
    assert!(explanation.rules[0].mismatches.is_empty() && !explanation.rules[1].mismatches.is_empty());
}

/// Decided here without a server, because its thread logs to the process's log.
#[test]
fn a_denial_names_the_rule_to_write_and_only_the_audit_says_why_others_do_not_apply() {
    use super::super::refusal::{Failure, Refusal};
    use super::super::report::report;
    use crate::access::authorize::Decision;
    use crate::metrics::Metrics;

    let peer = Peer { uid: 1000, gid: 100, pid: 7 };
    let decision = Decision::about_ids(&policy(&["name = 'ci'\nuid = 4711\nenv = ['*']"]), peer);
    let refusal = Refusal::no_rule(&decision);
    assert!(refusal.text().contains("uid = 1000") && !refusal.text().contains("4711"), "{}", refusal.text());

    let log = Log::default();
    let subscriber = fmt().json().flatten_event(true).with_writer(log.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        let outcome = Err(Failure::Refused(refusal));
        report(&Metrics::default(), peer, Some(&decision), Duration::ZERO, &outcome);
    });
    let line: serde_json::Value = serde_json::from_str(&log.text()).unwrap();
    assert_eq!(line["target"], "audit");
    assert_eq!((line["uid"].as_u64(), line["code"].as_str()), (Some(1000), Some("denied")));
    assert_eq!(line["rules"], "rule 1 (\"ci\"): uid is 1000, not 4711");
}
