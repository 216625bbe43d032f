//! From boot to the first secrets, and to the end.

use devbox_secrets_tests::canary;
use devbox_secrets_tests::machine::Machine;
use devbox_secrets_tests::on_every_system;

use crate::support::run;

on_every_system![
    units_get_their_secrets_after_boot_and_none_is_in_the_journal_or_in_run,
    a_launch_during_boot_waits_for_the_daemon_and_its_first_secrets,
    the_join_token_can_be_encrypted_to_the_machine,
    the_boot_ends_without_the_control_plane_and_units_that_need_secrets_wait_for_it,
];

async fn units_get_their_secrets_after_boot_and_none_is_in_the_journal_or_in_run(machine: Machine) {
    let (password, token) = (canary::random_letters(32), canary::random_letters(32));
    let script = format!(
        r#"
control_plane DB_PASS={password} TOKEN={token}
agent <<'TOML'
[[rule]]
uid = "agent"
env = ["DB_*"]
[[credential]]
unit = "app.service"
env = ["TOKEN"]
TOML
# A wrapped launch.
mkdir -p /etc/devbox-secrets/exec
echo 'COMMAND=/machine/show' > /etc/devbox-secrets/exec/agent.env
# Any unit, after the target.
service app.service Type=oneshot \
  LoadCredential=token:/run/devbox-secrets/credentials.sock \
  'ExecStart=/bin/sh -c "cat $CREDENTIALS_DIRECTORY/token > /machine/token"'
mkdir /etc/systemd/system/app.service.d
printf '[Unit]\nWants=devbox-secrets.target\nAfter=devbox-secrets.target\n' > /etc/systemd/system/app.service.d/order.conf
systemctl daemon-reload

systemctl start app.service
[ "$(property devbox-secretsd.service ActiveState)" = active ] || fail "the target was reached before the daemon was ready"
install -m666 /dev/null /machine/env
systemctl start devbox-exec@agent.service
eventually "the wrapped launch" test -s /machine/env

# Neither unit has anything to complain of, but for a container's limit of locked memory, and what it cannot see of swap.
journalctl --sync
complaints=$(journalctl -p warning -q -o cat -u devbox-secretsd.service -u devbox-secrets-server.service | grep -vE 'protection="(all locked|swap)"' || true)
[ -z "$complaints" ] || fail "the journal has warnings: $complaints"

# The unit's sandbox and the daemon's own go together.
devbox-secretsd status | tee /machine/status
for protection in 'no core dump' 'not dumpable' 'secret pages' capabilities 'no new privs' landlock seccomp; do
  grep -qE "^$protection +yes" /machine/status || fail "$protection is missing"
done
user=$(ps -o user:32= -p "$(property devbox-secretsd.service MainPID)")
[ "$user" = devbox-secretsd ] || fail "the daemon runs as $user"

systemctl stop devbox-secrets.target
# The daemon and the sockets end beside the target.
empty() {{ [ -z "$(ls -A /run/devbox-secrets)" ] && [ ! -e /run/credentials/devbox-secretsd.service ]; }}
eventually "/run/devbox-secrets and the daemon's credentials to be gone" empty
eventually "the daemon's stop" is devbox-secretsd.service inactive
eventually "the store to be empty" stored 0
grep -rlaF -e {password} -e {token} /run /tmp /var/log && fail "a value is left" || true
"#
    );
    let show = "#!/bin/sh\necho \"$DB_PASS ${TOKEN-none}\" > /machine/env\n";
    let machine = machine.file("/machine/show", show);
    let ended = machine.run(&script).await.success();
    assert_eq!(ended.text("env"), format!("{password} none\n"));
    assert_eq!(ended.text("token"), token);
    let journal = ended.text("journal");
    assert!(journal.contains("credential served"), "the journal has the daemon's lines");
    assert!(!journal.contains(&password) && !journal.contains(&token), "a value is in the journal");
}

async fn a_launch_during_boot_waits_for_the_daemon_and_its_first_secrets(machine: Machine) {
    let script = r#"
agent <<'TOML'
[[rule]]
uid = "agent"
env = ["*"]
[[credential]]
unit = "early.service"
env = ["DB_PASS"]
TOML
# The sockets are there, the daemon and the control plane are not.
systemctl start devbox-secretsd.socket devbox-secrets-credentials.socket
as agent devbox-exec --wait 60 -- sh -c 'printf %s "$DB_PASS"' > /machine/launched &
launch=$!
service early.service Type=oneshot LoadCredential=db_pass:/run/devbox-secrets/credentials.sock \
  'ExecStart=/bin/sh -c "cat $CREDENTIALS_DIRECTORY/db_pass > /machine/early"'
systemctl start --no-block early.service
has_begun() { ! is devbox-secretsd.service inactive; }
eventually "the daemon's start" has_begun
kill -0 $launch || fail "the launch did not wait"
eventually "the unit to wait" is early.service activating

control_plane DB_PASS=$value
systemctl restart devbox-secretsd.service
wait $launch || fail "the launch failed"
eventually "the unit's credential" test -s /machine/early
"#;
    let (ended, value) = run(machine, script).await;
    assert_eq!((ended.text("launched"), ended.text("early")), (value.clone(), value));
}

async fn the_join_token_can_be_encrypted_to_the_machine(machine: Machine) {
    let script = r#"
control_plane DB_PASS=$value
agent_gets_everything
plain=/etc/credstore/devbox-secrets.join-token
mkdir -p /etc/credstore.encrypted /etc/systemd/system/devbox-secretsd.service.d
systemd-creds encrypt --with-key=host --name=devbox-secrets.join-token $plain /etc/credstore.encrypted/devbox-secrets.join-token
rm $plain
printf '[Service]\nLoadCredentialEncrypted=devbox-secrets.join-token\n' > /etc/systemd/system/devbox-secretsd.service.d/encrypted.conf
systemctl daemon-reload
systemctl start devbox-secrets.target
as agent devbox-exec -- sh -c 'printf %s "$DB_PASS"' > /machine/launched
"#;
    let (ended, value) = run(machine, script).await;
    assert_eq!(ended.text("launched"), value);
}

async fn the_boot_ends_without_the_control_plane_and_units_that_need_secrets_wait_for_it(machine: Machine) {
    let script = r#"
agent <<'TOML'
[[rule]]
uid = "agent"
env = ["*"]
[[credential]]
unit = "app.service"
env = ["DB_PASS"]
TOML
control_plane DB_PASS=$value
systemctl stop devbox-secrets-server.service
[ "$(property devbox-secretsd.service JobRunningTimeoutUSec)" = '1min 30s' ] || fail "the start job does not expire"
extend devbox-secretsd.service '[Unit]' 'JobRunningTimeoutSec=4s'

# Units that need secrets: one by the target, one of the template, one by a credential. The boot wants none of them.
printf 'COMMAND=/machine/show agent\n' > /etc/devbox-secrets/exec/agent.env
service app.service Type=oneshot LoadCredential=db_pass:/run/devbox-secrets/credentials.sock \
  'ExecStart=/bin/sh -c "cat $CREDENTIALS_DIRECTORY/db_pass > /machine/app"'
extend app.service '[Unit]' Wants=devbox-secrets.target After=devbox-secrets.target
systemctl enable --quiet devbox-secretsd.socket devbox-secrets-credentials.socket devbox-secrets-admin.socket \
  devbox-secretsd.service devbox-secrets.target
install -m666 /dev/null /machine/agent
started=$(date +%s%N)
systemctl start multi-user.target
echo "boot=$(( ($(date +%s%N) - started) / 1000000 ))"
[ "$(property devbox-secretsd.service ActiveState)" = activating ] || fail "the daemon does not try: $(property devbox-secretsd.service ActiveState)"
systemctl start --no-block app.service devbox-exec@agent.service

# The start job ends, with a failure and its reason; the daemon does not.
pid=$(property devbox-secretsd.service MainPID)
refused 'timed out' systemctl start devbox-secretsd.service
[ "$(property devbox-secretsd.service MainPID)" = "$pid" ] || fail "the daemon was stopped with its job"
eventually "the target" systemctl is-active --quiet devbox-secrets.target
eventually "the unit to wait for its credential" is app.service activating
eventually "the wrapped launch to wait" is devbox-exec@agent.service activating

systemctl start devbox-secrets-server.service
eventually "the credential" test -s /machine/app
eventually "the launch" test -s /machine/agent
[ "$(property devbox-secretsd.service MainPID)" = "$pid" ] || fail "another daemon joined"
eventually "the daemon's unit to be started" systemctl is-active --quiet devbox-secretsd.service
"#;
    let show = "#!/bin/sh\nprintf %s \"$DB_PASS\" > /machine/$1\n";
    let (ended, value) = run(machine.file("/machine/show", show), script).await;
    assert_eq!((ended.text("app"), ended.text("agent")), (value.clone(), value));
}
