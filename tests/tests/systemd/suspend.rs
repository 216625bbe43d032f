//! Sleep: quiesced before it, resumed after it, and nothing in the service manager's store in between.

use devbox_secrets_tests::machine::Machine;
use devbox_secrets_tests::on_every_system;

use crate::support::run;

on_every_system![a_sleeping_machine_holds_no_secret_and_has_them_again_when_it_wakes,];

/// Stands in for systemd-suspend.service, with a script instead of the kernel's sleep.
const SLEEP: &str = "[Unit]
Requires=sleep.target
After=sleep.target
[Service]
Type=oneshot
ExecStart=/machine/asleep
";

/// Records the state of the sleeping machine. A snapshot taken now would have it.
const ASLEEP: &str = r#"#!/bin/bash
status=$(devbox-secretsd status --json)
{
  grep -o '"state":"[a-z]*"' <<< "$status"
  grep -o '"restart":{[^}]*}' <<< "$status"
  echo "stored: $(systemctl show --value --property=NFileDescriptorStore devbox-secretsd.service)"
  echo "active: $(systemctl is-active devbox-secretsd.service)"
  echo "status: $(systemctl show --value --property=StatusText devbox-secretsd.service)"
  /usr/bin/setpriv --reuid=agent --regid=agent --clear-groups devbox-exec -- true 2>&1
  echo "keys: $(/machine/keys)"
} > /machine/while-asleep
# The platform's fresh credential.
install -m400 -o devbox-secretsd /machine/fresh-token /etc/devbox-secrets/join-token
"#;

/// How many keys of images the daemon's user has in the kernel's keyring.
const KEYS: &str = "#!/bin/bash
setpriv --reuid=devbox-secretsd --regid=devbox-secretsd --clear-groups grep -c devbox-secretsd: /proc/keys
";

async fn a_sleeping_machine_holds_no_secret_and_has_them_again_when_it_wakes(machine: Machine) {
    let script = r#"
agent_gets_everything
sed -i 's,^join_token_file.*,join_token_file = "/etc/devbox-secrets/join-token",' /etc/devbox-secrets/agent.toml
control_plane DB_PASS=$value
install -m400 -o devbox-secretsd /etc/credstore/devbox-secrets.join-token /etc/devbox-secrets/join-token
sleep_is_over() { [ "$(systemctl is-active devbox-secrets-suspend.service)" = inactive ]; }
# A key that was replaced is still listed until the kernel has collected it.
two_keys() { [ "$(/machine/keys)" = 2 ]; }
systemctl enable --quiet devbox-secrets-suspend.service
systemctl start devbox-secrets.target
served || fail "not served at first"
eventually "the kernel to hold the two keys of what is stored" two_keys
devbox-secretsd status | grep -qE '^clones +noticed by machine id, and by the control plane$' || fail "not watched: $(devbox-secretsd status | grep clones)"

devbox=$(devbox-secretsd status --json | sed 's/.*"devbox_id":"\([^"]*\)".*/\1/')
operator devbox join-token --json "$devbox" | sed 's/.*"join_token": *"\([^"]*\)".*/\1/' > /machine/fresh-token
before=$(property devbox-secretsd.service MainPID)
systemctl start machine-sleep.service || fail "the machine could not sleep"
cat /machine/while-asleep
for words in '"state":"quiesced"' '"identity":false,"secrets_revision":null' 'stored: 0' 'active: active'   'status: the devbox is quiesced for a snapshot' 'devbox-exec: the devbox is quiesced' 'keys: 0'; do
  grep -qF -- "$words" /machine/while-asleep || fail "asleep, not: $words"
done
served || fail "not served after the sleep"
eventually "the resume" sleep_is_over
[ "$(property devbox-secretsd.service MainPID)" = "$before" ] || fail "the daemon was restarted"
eventually "identity and secrets to be stored" stored 2

# Without an identity to come back with, it says so, and stays quiesced.
systemctl start machine-sleep.service
eventually "the failure" systemctl is-failed --quiet devbox-secrets-suspend.service
eventually "the reason in the journal" logged devbox-secrets-suspend.service 'join token was not accepted'
refused 'could not resume' as agent devbox-exec -- true

# A stopped daemon is not started in order to be quiesced. The sleeping script must not ask its sockets: that starts it.
systemctl reset-failed
printf '#!/bin/bash\n' > /machine/asleep
systemctl stop devbox-secretsd.service
stopped=$(property devbox-secretsd.service InvocationID)
systemctl start machine-sleep.service || fail "the machine could not sleep without the daemon"
eventually "the sleep to be over" sleep_is_over
[ "$(property devbox-secretsd.service InvocationID)" = "$stopped" ] || fail "the daemon was started by the sleep"
"#;
    let machine = machine.file("/etc/systemd/system/machine-sleep.service", SLEEP);
    let _ = run(machine.file("/machine/asleep", ASLEEP).file("/machine/keys", KEYS), script).await;
}
