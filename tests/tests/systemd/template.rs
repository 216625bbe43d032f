//! `devbox-exec@.service`: a wrapped launch as a service.

use devbox_secrets_tests::machine::Machine;
use devbox_secrets_tests::on_every_system;

use crate::support::run;

on_every_system![other_processes_of_the_same_user_cannot_read_the_environment_of_the_template_unit,];

async fn other_processes_of_the_same_user_cannot_read_the_environment_of_the_template_unit(machine: Machine) {
    let script = r#"
control_plane DB_PASS=$value
agent <<'TOML'
[[rule]]
uid = "agent"
unit = "devbox-exec@*.service"
env = ["*"]
TOML
mkdir -p /etc/devbox-secrets/exec
printf 'COMMAND=sleep 1000\nOPTIONS=--only DB_PASS\n' > /etc/devbox-secrets/exec/agent.env
systemctl start devbox-secrets.target devbox-exec@agent.service
environ() { echo "/proc/$(property devbox-exec@agent.service MainPID)/environ"; }
launched() { grep -qaF sleep "$(dirname "$(environ)")/cmdline"; }
eventually "the command" launched
grep -qaF "$value" "$(environ)" || fail "the command has not its secret"
grep -qaE 'COMMAND=|OPTIONS=' "$(environ)" && fail "the command line is in the environment" || true
refused 'Permission denied' as agent cat "$(environ)"
# The rule is about the unit: the same user gets nothing outside it.
refused 'no rule' as agent devbox-exec -- true

# It is the capability that does it.
mkdir /etc/systemd/system/devbox-exec@agent.service.d
printf '[Service]\nAmbientCapabilities=\nCapabilityBoundingSet=\n' > /etc/systemd/system/devbox-exec@agent.service.d/none.conf
systemctl daemon-reload
systemctl restart devbox-exec@agent.service
eventually "the command" launched
as agent cat "$(environ)" | grep -qaF "$value" || fail "something else than the capability keeps readers out"

# An instance of a user without a rule fails, and so does one of a user that does not exist.
cp /etc/devbox-secrets/exec/agent.env /etc/devbox-secrets/exec/stranger.env
cp /etc/devbox-secrets/exec/agent.env /etc/devbox-secrets/exec/nobody-knows.env
for user in stranger nobody-knows; do
  systemctl start devbox-exec@$user.service 2> /dev/null && fail "a refused launch is no failed start: $user" || true
  [ "$(property devbox-exec@$user.service ActiveState)" = failed ] || fail "$user: $(property devbox-exec@$user.service ActiveState)"
done
# status INSTANCE: of the process that asks before the start.
status() { property "$1" ExecStartPre | sed 's/.* status=\([0-9]*\).*/\1/'; }
[ "$(status devbox-exec@stranger.service)" = 125 ] || fail "not refused by the daemon: $(property devbox-exec@stranger.service ExecStartPre)"
[ "$(status devbox-exec@nobody-knows.service)" = 217 ] || fail "started as another user"
eventually "the reason in the journal" logged devbox-exec@stranger.service 'no rule grants'
"#;
    let _ = run(machine, script).await;
}
