//! Credentials for units: who is refused, how, and how fast.

use devbox_secrets_tests::machine::{Ended, Machine};
use devbox_secrets_tests::on_every_system;

use crate::support;

on_every_system![
    a_credential_is_granted_by_other_spellings_and_to_instances_of_a_template_and_units_of_any_user,
    a_refusal_makes_the_unit_fail_at_once_and_says_why,
    a_forged_name_gets_a_reason_and_no_value,
];

/// Asks as systemd would, from an address of its choice: a forger.
const FORGER: &str = r#"#!/usr/bin/python3
import socket, sys
forger = socket.socket(socket.AF_UNIX)
forger.bind("\0" + sys.argv[1])
forger.connect("/run/devbox-secrets/credentials.sock")
answer = b""
while chunk := forger.recv(65536):
    answer += chunk
print(len(answer), answer[:400].decode())
"#;

/// Rules for a unit and for a template's instances; and units that put what they got into `/machine/read`.
const RULES: &str = r#"
agent <<'TOML'
[[credential]]
unit = "app.service"
env = ["DB_*"]
[[credential]]
unit = "worker@.service"
env = ["DB_*"]
TOML
systemctl start devbox-secrets.target
from() { printf 'LoadCredential=%s:/run/devbox-secrets/credentials.sock' "$1"; }
read='ExecStart=/bin/sh -c "cat $CREDENTIALS_DIRECTORY/* > /machine/read"'
"#;

/// Runs a script on a machine with these rules and the secret `DB_PASS`, which is `$value`.
async fn run(machine: Machine, script: &str) -> Ended {
    let script = format!("control_plane DB_PASS=$value\n{RULES}\n{script}");
    support::run(machine.file("/machine/forger", FORGER), &script).await.0
}

async fn a_credential_is_granted_by_other_spellings_and_to_instances_of_a_template_and_units_of_any_user(
    machine: Machine,
) {
    let script = r#"
for name in DB_PASS db_pass db-pass; do
  service app.service Type=oneshot User=stranger "$(from $name)" "$read"
  install -m666 /dev/null /machine/read
  systemctl start app.service || fail "$name is not served"
  [ "$(cat /machine/read)" = "$value" ] || fail "$name has another value"
done
> /machine/read
service worker@.service Type=oneshot "$(from db_pass)" "$read"
systemctl start worker@7.service
[ "$(cat /machine/read)" = "$value" ] || fail "the instance has another value"
"#;
    let _ = run(machine, script).await;
}

async fn a_refusal_makes_the_unit_fail_at_once_and_says_why(machine: Machine) {
    let script = r#"
# refusal UNIT CREDENTIAL WORDS: the unit fails, with the status of credentials, and the daemon's log has the reason.
refusal() {
  service "$1" Type=oneshot "$(from "$2")" "$read"
  milliseconds "refused_$4" systemctl start "$1"
  [ "$(property "$1" ActiveState)" = failed ] || fail "$1 is $(property "$1" ActiveState)"
  [ "$(property "$1" ExecMainStatus)" = 243 ] || fail "$1 failed with $(property "$1" ExecMainStatus)"
  eventually "the reason in the log" logged devbox-secretsd.service "$3"
}
refusal other.service db_pass 'no rule grants DB_PASS to other.service' no_rule
refusal app.service db_none 'this devbox has no variable for the credential' missing
refusal worker.service db_pass 'no rule grants DB_PASS to worker.service' template

# No daemon, no control plane, no secrets: no unit.
systemctl stop devbox-secrets.target
no_socket() { [ ! -e /run/devbox-secrets/credentials.sock ]; }
eventually "the socket to be gone" no_socket
service app.service Type=oneshot "$(from db_pass)" "$read"
systemctl start app.service 2> /dev/null && fail "a unit started without a daemon" || true
[ ! -e /machine/read ] || fail "a refused unit ran"
"#;
    let ended = run(machine, script).await;
    for refusal in ["no_rule", "missing", "template"] {
        let took = ended.number(&format!("refused_{refusal}"));
        // systemd itself would wait for an answer until the unit's start is given up, after a minute and a half.
        assert!(took < 30_000, "{refusal}: {took} ms");
    }
}

/// Root outside the unit and, were the socket open to them, other users.
async fn a_forged_name_gets_a_reason_and_no_value(machine: Machine) {
    let script = r#"
refused_as() {
  local words=$1; shift
  local answer; answer=$("$@") || fail "the forger failed: $answer"
  grep -qF -- "$words" <<< "$answer" || fail "the forger was told $answer"
  grep -qF "$value" <<< "$answer" && fail "the forger has the value" || true
}
# There is something to be had.
service app.service Type=oneshot "$(from db_pass)" "$read"
systemctl start app.service
[ "$(cat /machine/read)" = "$value" ] || fail "the unit has another value"

refused_as 'is not in its cgroup' /machine/forger 1f/unit/app.service/db_pass
refused_as 'only LoadCredential= may ask here' /machine/forger 1f/user/app.service/db_pass
refused 'Permission denied' as stranger /machine/forger 2f/unit/app.service/db_pass
chmod 666 /run/devbox-secrets/credentials.sock
refused_as 'which only systemd (uid 0) may' as stranger /machine/forger 3f/unit/app.service/db_pass
"#;
    let _ = run(machine, script).await;
}
