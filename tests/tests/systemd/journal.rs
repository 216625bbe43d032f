//! The journal, as an operator reads it: the reason beside the message, with its priority, and the audit by its fields.

use devbox_secrets_tests::machine::Machine;
use devbox_secrets_tests::{needs, on_every_system};

use crate::support::run;

on_every_system![
    the_journal_says_why_the_daemon_could_not_join,
    the_audit_is_asked_for_by_field,
    a_mistake_fails_the_reload_and_says_where_it_is,
    the_audit_outlives_the_journals_restart_and_silence,
    a_scraper_reads_the_metrics_over_tcp_by_the_documented_units,
];

async fn the_journal_says_why_the_daemon_could_not_join(machine: Machine) {
    let script = r#"
control_plane DB_PASS=$value
agent_gets_everything
# tells PRIORITY WORDS: journalctl -u has an entry of this priority with these words in its message.
tells() { journalctl --sync; journalctl -u devbox-secretsd.service -p "$1..$1" -o cat | grep -E "$2"; }

# Away: it tries again.
systemctl stop devbox-secrets-server.service
systemctl start --no-block devbox-secretsd.service
eventually "the reason and the next attempt" tells warning '^not joined yet error=.*Connection refused.* retry_in_ms=[0-9]+'
eventually "the start" tells info '^started version=.* server=https://127.0.0.1:8443'

# Back: the token is used, and cannot be used again.
systemctl start devbox-secrets-server.service
as agent devbox-exec --wait 30 -- true
systemctl stop devbox-secretsd.service
systemctl start --no-block devbox-secretsd.service
eventually "the refusal" tells err '^devbox-secretsd: the join token was not accepted.*: the join token was redeemed before'
"#;
    let _ = run(machine, script).await;
}

/// A daemon that logs errors only, which the audit is told at all the same; and how a script looks for its entries.
const AUDITED: &str = r#"
agent <<'TOML'
[[rule]]
name = "build"
uid = "agent"
env = ["*"]
[[credential]]
unit = "app.service"
env = ["DB_*"]
TOML
sed -i 's/level = "debug"/level = "error"/' /etc/devbox-secrets/agent.toml
systemctl start devbox-secretsd.service
# entry MATCH FIELD=VALUE…: an entry that matches has these fields, each whole. It may come after what it is about.
entry() { eventually "an entry of $1" has_entry "$@"; }
has_entry() {
  local match=$1 found; shift; journalctl --sync
  found=$(journalctl -u devbox-secretsd.service $match -o json --output-fields="$(printf '%s,' "${@%%=*}")" | tail -1)
  for field; do grep -qF "\"${field%%=*}\":\"${field#*=}\"" <<< "$found" || { echo "no $field in $found"; return 1; }; done
}
count() { journalctl --sync; journalctl "DEVBOX_EVENT=$1" -o cat | wc -l; }
more() { [ "$(count launch)" -gt "$1" ]; }
value() { curl -s --unix-socket /run/devbox-secrets/admin.sock http://localhost/metrics | sed -n "s/^devbox_secretsd_$1 //p"; }
"#;

/// Runs a script on a machine with such a daemon, which has one secret.
async fn audited(machine: Machine, script: &str) {
    let _ = run(machine, &format!("control_plane DB_PASS=$value\n{AUDITED}\n{script}")).await;
}

async fn the_audit_is_asked_for_by_field(machine: Machine) {
    if !needs::program("curl", "curl") {
        return;
    }
    let script = r#"
as agent devbox-exec -- true
refused 'no rule grants' as stranger devbox-exec -- true
entry DEVBOX_EVENT=launch DEVBOX_PEER_UID="$(id -u agent)" 'DEVBOX_NAMES=*' DEVBOX_COUNT=1 'DEVBOX_RULES=1 (\"build\")' \
  PRIORITY=6 SYSLOG_IDENTIFIER=devbox-secretsd _SYSTEMD_UNIT=devbox-secretsd.service
entry MESSAGE_ID=a702d849ffa34f41a81bc3b472ab4a96 DEVBOX_EVENT=refusal DEVBOX_PEER_UID="$(id -u stranger)" DEVBOX_CODE=denied PRIORITY=4
entry DEVBOX_EVENT=bundle DEVBOX_NAMES=DB_PASS DEVBOX_PARTS=1

# Credentials, and their counts.
for unit in app.service other.service; do
  service "$unit" Type=oneshot LoadCredential=db_pass:/run/devbox-secrets/credentials.sock ExecStart=true
  systemctl start "$unit" || [ "$unit" = other.service ] || fail "$unit does not start"
done
entry DEVBOX_EVENT=credential DEVBOX_PEER_UID=0 DEVBOX_PEER_UNIT=app.service DEVBOX_CREDENTIAL=db_pass DEVBOX_NAMES=DB_PASS DEVBOX_RULES=1
entry DEVBOX_EVENT=credential_refusal DEVBOX_PEER_UNIT=other.service DEVBOX_CODE=denied DEVBOX_NAMES=DB_PASS PRIORITY=4
counted() { [ "$(value credentials_total) $(value 'credential_refusals_total{reason="denied"}')" = '1 1' ]; }
eventually "the credentials to be counted" counted
[ "$(journalctl -u devbox-secretsd.service -o cat | grep -c '^launch uid=')" = 1 ] || fail "a launch is told twice, or not at all"
"#;
    audited(machine, script).await;
}

async fn a_mistake_fails_the_reload_and_says_where_it_is(machine: Machine) {
    let script = r#"
cp /etc/devbox-secrets/agent.toml /etc/devbox-secrets/good
printf '[[rule]]\nenv = 1\n' >> /etc/devbox-secrets/agent.toml
line=$(wc -l < /etc/devbox-secrets/agent.toml)
if systemctl reload devbox-secretsd.service; then fail "a mistake is no failure"; fi
entry DEVBOX_EVENT=reload DEVBOX_CODE=mistakes DEVBOX_PEER_UID=0 PRIORITY=3
eventually "the mistake's line" logged devbox-secretsd.service "agent.toml:$line:"
as agent devbox-exec -- true || fail "the old rules do not hold"
cp /etc/devbox-secrets/good /etc/devbox-secrets/agent.toml
systemctl reload devbox-secretsd.service || fail "good rules are refused"
"#;
    audited(machine, script).await;
}

async fn the_audit_outlives_the_journals_restart_and_silence(machine: Machine) {
    if !needs::program("curl", "curl") {
        return;
    }
    let script = r#"
# Another journal behind the same path.
as agent devbox-exec -- true
eventually "the first launch" more 0
before=$(count launch)
systemctl restart systemd-journald.service
as agent devbox-exec -- true
eventually "a launch after the restart" more "$before"

# One that does not read: nobody waits for it, and what it misses is counted.
dropped() { value audit_dropped_total; }
systemctl kill --signal=STOP --kill-who=main systemd-journald.service
for _ in {1..2000}; do as agent devbox-exec -- true || fail "a launch waits for the journal"; [ "$(dropped)" = 0 ] || break; done
missed=$(dropped)
systemctl kill --signal=CONT --kill-who=main systemd-journald.service
[ "$missed" -gt 0 ] || fail "nothing was missed: $missed"
before=$(count launch)
as agent devbox-exec -- true
eventually "a launch after the silence" more "$before"
"#;
    audited(machine, script).await;
}

/// The two units of `docs/operations.md`.
async fn a_scraper_reads_the_metrics_over_tcp_by_the_documented_units(machine: Machine) {
    if !needs::program("curl", "curl") {
        return;
    }
    let document = include_str!("../../../docs/operations.md");
    let unit = |name: &str| {
        let (_, unit) = document.split_once(&format!("# {name}")).expect("the document has the unit");
        let (_, unit) = unit.split_once('\n').expect("its first line is its name");
        unit.split(['#', '`']).next().expect("it ends").to_owned()
    };
    let script = r#"
control_plane DB_PASS=value
agent <<< ''
systemctl daemon-reload
systemctl start devbox-secretsd.service devbox-secrets-metrics.socket
curl -si http://127.0.0.1:9464/metrics | tee /machine/scraped | grep -q '^devbox_secretsd_names 1' || fail "$(cat /machine/scraped)"
grep -q '^content-type: application/openmetrics-text' /machine/scraped || fail "$(cat /machine/scraped)"
"#;
    let folder = "/etc/systemd/system/devbox-secrets-metrics";
    let machine = machine.file(&format!("{folder}.socket"), &unit("devbox-secrets-metrics.socket"));
    let machine = machine.file(&format!("{folder}@.service"), &unit("devbox-secrets-metrics@.service"));
    let _ = machine.run(script).await.success();
}
