//! The real program as operators see it: its metrics, its audit, and changed rules.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use devbox_launch_proto::{Answer, AnswerHeader, ErrorCode, Flags, HEADER_LEN, Item, RequestBuilder};
use devbox_secretsd::status::State;
use hyper::StatusCode;
use nix::unistd::{getegid, geteuid};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use support::control_plane::{ControlPlane, Script, bundle};
use support::daemon::{Daemon, PROGRAM};
use support::{PATIENCE, config_file, write_config};

const CANARY: &str = "canary-value-4711";
const REVOCATION: &str = "devbox_secretsd_revocation_latency_seconds_count";
const POLL: &str = "devbox_secretsd_poll_latency_seconds_count";

/// A daemon with secrets, and the configuration that it was started with.
struct Served {
    plane: Arc<ControlPlane>,
    daemon: Daemon,
    dir: tempfile::TempDir,
}

impl Served {
    async fn start(config: &str, more: &[&str]) -> Self {
        let plane = ControlPlane::start(bundle(1, &[("API_KEY", CANARY), ("OTHER", CANARY)])).await;
        let (dir, file) = config_file(config);
        let arguments = [&["--config", file.to_str().unwrap()], more].concat();
        let daemon = Daemon::start(&plane, &arguments);
        daemon.until_ready().await;
        Self { plane, daemon, dir }
    }

    async fn with_own_rule() -> Self {
        Self::start(&own_rule("API_KEY"), &[]).await
    }

    fn reconfigure(&self, config: &str) {
        write_config(&self.dir.path().join("agent.toml"), config);
    }

    fn reload(&self) -> Output {
        let socket = self.daemon.admin_socket();
        Command::new(PROGRAM).args(["reload", "--admin-socket"]).arg(socket).output().unwrap()
    }

    fn launch(&self, items: &[Item<'_>]) -> Result<(), ErrorCode> {
        let stream = UnixStream::connect(self.daemon.launch_socket()).unwrap();
        launch_on(stream, items)
    }

    fn metrics(&self) -> Metrics {
        let answer = get(&self.daemon, "/metrics");
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 200") && head.contains(devbox_secretsd::metrics::MEDIA_TYPE),
            "{head}"
        );
        Metrics::parse(text)
    }

    /// Waits until `metric` is as wanted: a count moves after the answer that it counts.
    async fn until(&self, metric: &str, wanted: impl Fn(f64) -> bool) -> Metrics {
        let found = timeout(PATIENCE, async {
            loop {
                let metrics = self.metrics();
                if metrics.values.get(metric).is_some_and(|value| wanted(*value)) {
                    return metrics;
                }
                sleep(Duration::from_millis(5)).await;
            }
        });
        found.await.unwrap_or_else(|_| panic!("{metric} never is as wanted: {}", self.metrics().text))
    }

    async fn until_counted(&self, metric: &str, count: u32) -> Metrics {
        self.until(metric, |value| value == f64::from(count)).await
    }

    /// Every event of the audit so far, each after a look at its schema.
    async fn end(self) -> Vec<Value> {
        self.daemon.signal(nix::sys::signal::Signal::SIGTERM);
        let (_, log) = self.daemon.end().await;
        assert!(!log.contains(CANARY));
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let events: Vec<Value> = lines.filter(|line| line["target"] == "audit").collect();
        events.iter().for_each(is_documented);
        events
    }
}

fn own_rule(env: &str) -> String {
    format!("[[rule]]\nname = \"own\"\nuid = {}\nenv = [\"{env}\"]\n", geteuid())
}

fn launch_on(mut stream: UnixStream, items: &[Item<'_>]) -> Result<(), ErrorCode> {
    let mut room = [0; 512];
    let mut request = RequestBuilder::new(&mut room, Flags { inline: true, ..Flags::default() }, 0).unwrap();
    items.iter().for_each(|item| request.push(*item).unwrap());
    stream.write_all(request.finish()).unwrap();
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).unwrap();
    match AnswerHeader::decode(&header).unwrap().answer {
        Answer::Error(code) => Err(code),
        _ => {
            stream.read_to_end(&mut Vec::new()).unwrap();
            Ok(())
        }
    }
}

fn get(daemon: &Daemon, path: &str) -> String {
    let mut stream = UnixStream::connect(daemon.admin_socket()).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A text in the OpenMetrics format, read strictly.
struct Metrics {
    text: String,
    values: BTreeMap<String, f64>,
}

impl Metrics {
    fn parse(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("the text is whole");
        let (mut types, mut helps, mut values) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for line in body.lines() {
            if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                assert!(types.insert(name, kind).is_none(), "{name} has two types");
            } else if let Some((name, help)) =
                line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '))
            {
                helps.insert(name, help);
            } else if !line.starts_with("# UNIT ") {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let family = family(name, &types);
                assert!(helps.contains_key(family), "{family} has no help");
                let is_new = values.insert(name.to_owned(), value.parse().unwrap()).is_none();
                assert!(is_new, "{name} is there twice");
            }
        }
        Self { text: text.to_owned(), values }
    }

    fn of(&self, name: &str) -> f64 {
        *self.values.get(name).unwrap_or_else(|| panic!("there is no {name}: {}", self.text))
    }
}

/// The family of a sample: its name without labels and without the suffix of its type.
fn family<'a>(sample: &'a str, types: &BTreeMap<&'a str, &str>) -> &'a str {
    let name = sample.split('{').next().unwrap();
    let suffixes = ["", "_total", "_info", "_sum", "_count", "_bucket"];
    let mut families = suffixes.iter().filter_map(|suffix| name.strip_suffix(suffix));
    families.find(|family| types.contains_key(family)).unwrap_or_else(|| panic!("{sample} has no type"))
}

/// Its kind, each of its fields, and that this kind has it, are in `docs/audit.md`.
fn is_documented(event: &Value) {
    let document = include_str!("../../docs/audit.md");
    let (_, daemon) = document.split_once("## The daemon").unwrap();
    let kind = event["event"].as_str().unwrap_or_else(|| panic!("no kind: {event}"));
    let row = daemon.lines().find(|row| row.starts_with(&format!("| `{kind}` | ")));
    let row = row.unwrap_or_else(|| panic!("{kind} is not documented"));
    for field in event.as_object().unwrap().keys().map(String::as_str) {
        let is_who = ["uid", "gid", "pid", "unit", "executable"].contains(&field) && row.contains("| peer");
        let is_common = ["timestamp", "level", "target", "message", "event"].contains(&field);
        assert!(
            is_common || is_who || row.contains(&format!("`{field}`")),
            "{kind} with {field} is not documented"
        );
        assert!(
            is_common
                || daemon.contains(&format!("| `{field}`"))
                || daemon.contains(&format!("`{field}` |"))
                || is_who
        );
    }
}

fn of_kind<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == kind).collect()
}

#[tokio::test]
async fn launches_and_refusals_are_counted_by_reason_and_told_with_who_and_which_names() {
    let served = Served::with_own_rule().await;
    let before = served.metrics();
    assert_eq!(before.of("devbox_secretsd_launches_total"), 0.0);
    assert_eq!(before.of("devbox_secretsd_launch_refusals_total{reason=\"denied\"}"), 0.0);

    assert_eq!(served.launch(&[]), Ok(()));
    assert_eq!(served.launch(&[Item::Rename(b"NEW=API_KEY")]), Ok(()));
    assert_eq!(served.launch(&[Item::Only(b"OTHER")]), Err(ErrorCode::Denied));
    assert_eq!(served.launch(&[Item::Only(b"API_KEY"), Item::Except(b"API_KEY")]), Err(ErrorCode::Invalid));
    drop(UnixStream::connect(served.daemon.launch_socket()).unwrap());
    served.until_counted("devbox_secretsd_launches_total", 2).await;
    served.until_counted("devbox_secretsd_launches_abandoned_total", 1).await;
    served.until_counted("devbox_secretsd_launch_refusals_total{reason=\"invalid\"}", 1).await;
    let metrics = served.until_counted("devbox_secretsd_launch_refusals_total{reason=\"denied\"}", 1).await;
    assert!(!metrics.text.contains("API_KEY") && !metrics.text.contains(CANARY));

    let events = served.end().await;
    let launches = of_kind(&events, "launch");
    let names: Vec<_> = launches.iter().map(|event| event["names"].as_str().unwrap()).collect();
    assert_eq!(names, ["API_KEY", "NEW=API_KEY"]);
    assert_eq!(
        (launches[0]["uid"].as_u64(), launches[0]["gid"].as_u64()),
        (Some(geteuid().as_raw().into()), Some(getegid().as_raw().into()))
    );
    assert_eq!((&launches[0]["rules"], launches[0]["revision"].as_u64()), (&"1 (\"own\")".into(), Some(1)));
    let refusals = of_kind(&events, "refusal");
    assert_eq!((&refusals[0]["code"], &refusals[0]["names"]), (&"denied".into(), &"OTHER".into()));
    assert_eq!(of_kind(&events, "abandoned").len(), 1);
    let taken = of_kind(&events, "bundle");
    assert_eq!((&taken[0]["names"], taken[0]["revision"].as_u64()), (&"API_KEY OTHER".into(), Some(1)));
}

#[tokio::test]
async fn a_refusal_for_want_of_secrets_is_counted_by_what_became_of_them() {
    let served = Served::with_own_rule().await;
    served.plane.answer(Script::Refuse(StatusCode::FORBIDDEN, "the devbox was shut down"));
    served.daemon.until(|status| status.state == State::Lost).await;
    assert_eq!(served.launch(&[]), Err(ErrorCode::Denied));
    let metrics = served.until_counted("devbox_secretsd_launch_refusals_total{reason=\"revoked\"}", 1).await;
    assert_eq!(metrics.of("devbox_secretsd_launch_refusals_total{reason=\"denied\"}"), 0.0);
    assert!(metrics.of("devbox_secretsd_sync_failures_total{kind=\"refused\"}") >= 1.0);
    assert_eq!(metrics.of("devbox_secretsd_state{state=\"lost\"}"), 1.0);
    assert_eq!(metrics.of("devbox_secretsd_state{state=\"ready\"}"), 0.0);
    assert_eq!((metrics.of("devbox_secretsd_names"), metrics.of(REVOCATION)), (0.0, 1.0));
    assert!(!metrics.values.contains_key("devbox_secretsd_revision"));
    let events = served.end().await;
    let wiped = of_kind(&events, "wipe");
    assert_eq!((&wiped[0]["code"], wiped[0]["revision"].as_u64()), (&"revoked".into(), Some(1)));
}

#[tokio::test]
async fn metrics_report_the_secrets_held() {
    let served = Served::with_own_rule().await;
    let metrics = served.metrics();
    assert_eq!((metrics.of("devbox_secretsd_revision"), metrics.of("devbox_secretsd_names")), (1.0, 2.0));
    assert!(metrics.of("devbox_secretsd_locked_bytes") >= 4_096.0);
    let lease = metrics.of("devbox_secretsd_lease_left_seconds");
    assert!(lease > 3_000.0 && lease <= 3_600.0, "{lease}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(metrics.of("devbox_secretsd_certificate_not_after_timestamp_seconds") > now);
    assert!(metrics.of("devbox_secretsd_start_timestamp_seconds") <= now);
    assert_eq!(metrics.of("devbox_secretsd_sync_failing"), 0.0);
    assert!(metrics.text.contains("devbox_secretsd_build_info{version=\""), "{}", metrics.text);
    served
        .until("devbox_secretsd_revision_age_seconds", |age| {
            age > metrics.of("devbox_secretsd_revision_age_seconds")
        })
        .await;
}

#[tokio::test]
async fn a_revocation_is_measured_until_the_last_launch_that_reads_the_old_values_has_ended() {
    let served = Served::with_own_rule().await;
    let names: Vec<String> = (0..40).map(|number| format!("BIG_{number}")).collect();
    let value = "v".repeat(120_000);
    let big: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    served.reconfigure(&own_rule("*"));
    assert!(served.reload().status.success());
    served.plane.answer(bundle(2, &big));
    let metrics = served.until_counted(REVOCATION, 1).await;
    assert_eq!((metrics.of(POLL), metrics.of("devbox_secretsd_revision")), (2.0, 2.0));

    // A launch that takes a part of its inline answer holds what it reads.
    let mut slow = UnixStream::connect(served.daemon.launch_socket()).unwrap();
    let mut room = [0; 512];
    let flags = Flags { inline: true, ..Flags::default() };
    slow.write_all(RequestBuilder::new(&mut room, flags, 0).unwrap().finish()).unwrap();
    slow.read_exact(&mut [0; HEADER_LEN]).unwrap();
    served.plane.answer(bundle(3, &[("API_KEY", CANARY)]));
    let replaced = served.until_counted(POLL, 3).await;
    assert_eq!(replaced.of(REVOCATION), 1.0, "the slow reader has the old values");
    drop(slow);
    served.until_counted(REVOCATION, 2).await;
}

#[tokio::test]
async fn changed_rules_are_counted_out_and_a_mistake_keeps_the_old_ones() {
    let served = Served::with_own_rule().await;
    served.reconfigure(&(own_rule("OTHER") + "[[credential]]\nunit = \"a.service\"\nenv = [\"A\"]\n"));
    let done = served.reload();
    assert!(done.status.success());
    assert_eq!(String::from_utf8_lossy(&done.stdout), "in force: 1 rules, 1 credential rules\n");
    assert_eq!(served.launch(&[Item::Only(b"API_KEY")]), Err(ErrorCode::Denied));
    assert_eq!(served.launch(&[Item::Only(b"OTHER")]), Ok(()));

    served.reconfigure("[[rule]]\nenv = [\"*\"]\n[[rule]]\nany = 1\nenv = []\n[sever]\n");
    let refused = served.reload();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    for part in ["agent.toml:1: ", "agent.toml:4: ", "agent.toml:6: ", "The old rules stay in force."] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(served.launch(&[Item::Only(b"OTHER")]), Ok(()));

    let events = served.end().await;
    let reloads = of_kind(&events, "reload");
    assert_eq!(
        (reloads[0]["count"].as_u64(), reloads[0]["uid"].as_u64()),
        (Some(1), Some(geteuid().as_raw().into()))
    );
    assert!(
        reloads[1]["code"] == "mistakes" && reloads[1]["reason"].as_str().unwrap().contains("agent.toml:1")
    );
}

#[tokio::test]
async fn the_audit_is_told_at_the_level_of_errors_and_not_where_it_is_turned_off() {
    let quiet = Served::start(&own_rule("*"), &["--log-level", "error"]).await;
    assert_eq!(quiet.launch(&[]), Ok(()));
    quiet.until_counted("devbox_secretsd_launches_total", 1).await;
    let events = quiet.end().await;
    assert_eq!(of_kind(&events, "launch")[0]["names"], "*");
    assert_eq!((of_kind(&events, "join").len(), of_kind(&events, "bundle").len()), (1, 1));

    let off = Served::start(&(own_rule("*") + "[log]\naudit = false\n"), &[]).await;
    assert_eq!(off.launch(&[]), Ok(()));
    off.until_counted("devbox_secretsd_launches_total", 1).await;
    assert_eq!(off.end().await, [Value::Null; 0]);
}

#[tokio::test]
async fn the_audit_names_the_user_who_quiesces_or_resumes() {
    let served = Served::with_own_rule().await;
    for (arguments, input) in
        [(&["quiesce"][..], ""), (&["resume", "--join-token-file", "-"], &served.plane.token())]
    {
        served.daemon.operator(arguments, input).await.success();
    }
    let events = served.end().await;
    for kind in ["quiesce", "resume"] {
        let event = of_kind(&events, kind)[0];
        assert_eq!(event["uid"].as_u64(), Some(geteuid().as_raw().into()), "{event}");
        assert!(event["pid"].as_u64() > Some(0));
    }
}

#[tokio::test]
async fn a_daemon_at_rest_counts_no_look_up() {
    let program = std::env::current_exe().unwrap();
    let rule = format!("[[rule]]\nany = true\nexecutable = {program:?}\nenv = [\"*\"]\n");
    let served = Served::start(&rule, &[]).await;
    assert_eq!(served.launch(&[]), Ok(()));
    served.until_counted("devbox_secretsd_look_ups", 0).await;
}
