//! The unit files themselves, as systemd's own tools judge them.

use devbox_secrets_tests::machine::Machine;
use devbox_secrets_tests::on_every_system;

on_every_system![
    systemd_finds_nothing_wrong_with_the_units_and_little_exposed,
    a_wrong_configuration_or_master_key_fails_the_unit_and_is_not_tried_again,
    the_daemon_starts_with_strict_hardening_under_every_drop_in,
    the_drop_in_for_virtual_machines_gives_the_kernels_log_to_a_daemon_that_may_not_open_it,
];

async fn systemd_finds_nothing_wrong_with_the_units_and_little_exposed(machine: Machine) {
    let script = r#"
units=(devbox-secretsd.service devbox-secrets-server.service devbox-exec@agent.service devbox-secretsd.socket
  devbox-secrets-suspend.service   devbox-secrets-credentials.socket devbox-secrets-admin.socket devbox-secrets.target)
# Typing errors are lines on standard error, and no failure.
said=$(systemd-analyze verify --man=no "${units[@]}" 2>&1) || fail "verify: $said"
[ -z "$said" ] || fail "verify says: $said"
said=$(systemd-tmpfiles --create /usr/lib/tmpfiles.d/devbox-secrets.conf 2>&1)
[ -z "$said" ] || fail "tmpfiles says: $said"
said=$(systemd-sysusers --dry-run /usr/lib/sysusers.d/devbox-secrets.conf 2>&1)
[ -z "$said" ] || fail "sysusers says: $said"

# little_exposed UNIT [MOST]: in tenths of a point, 1.1 of 10.
little_exposed() {
  said=$(systemd-analyze security --offline=yes --threshold="${2:-11}" --no-pager "/usr/lib/systemd/system/$1" 2>&1) ||
    fail "$1 is exposed: $(tail -1 <<< "$said")"
}
little_exposed devbox-secretsd.service
little_exposed devbox-secrets-server.service

# Settings that are too small to show in the exposure, in tenths.
for unit in devbox-secretsd.service devbox-secrets-server.service; do
  for setting in MemoryDenyWriteExecute=yes KeyringMode=private RemoveIPC=yes LimitCORE=0 CoredumpFilter=0x0 \
    MemorySwapMax=0 UMask=0077 NoExecPaths=/ DevicePolicy=closed ProcSubset=pid ProtectHostname=yes LockPersonality=yes; do
    found=$(systemctl show --value --property="${setting%%=*}" "$unit")
    [ "$found" = "${setting#*=}" ] || fail "$unit lacks $setting: $found"
  done
  [ -n "$(systemctl show --value --property=InaccessiblePaths "$unit")" ] || fail "$unit reaches shared memory"
done

[ "$(stat -c '%a %U' /run/devbox-secrets)" = '755 root' ] || fail "the sockets' folder is another's"
systemctl start devbox-secretsd.socket devbox-secrets-credentials.socket devbox-secrets-admin.socket
for socket in 'launch 666' 'credentials 600' 'admin 600'; do
  set -- $socket
  [ "$(stat -c '%a %U' "/run/devbox-secrets/$1.sock")" = "$2 root" ] || fail "$1.sock: $(stat -c '%a %U' "/run/devbox-secrets/$1.sock")"
done

# With each drop-in alone.
for file in /usr/share/devbox-secrets/*.conf; do
  rm -rf /etc/systemd/system/devbox-secretsd.service.d
  drop_in "$(basename "$file" .conf)"
  [ -n "$(property devbox-secretsd.service DropInPaths)" ] || fail "$file is not part of the unit"
  said=$(systemd-analyze verify --man=no devbox-secretsd.service 2>&1) || fail "verify with $file: $said"
  [ -z "$said" ] || fail "verify with $file says: $said"
  # CAP_SYS_PTRACE and other users' processes in sight are what it costs.
  case $file in */executables.conf) most=17 ;; *) most=11 ;; esac
  little_exposed devbox-secretsd.service "$most"
done
"#;
    let _ = machine.run(script).await.success();
}

async fn the_drop_in_for_virtual_machines_gives_the_kernels_log_to_a_daemon_that_may_not_open_it(
    machine: Machine,
) {
    let script = r#"
drop_in vm-generation
mknod /dev/kmsg c 1 11
agent < /dev/null
control_plane KEPT=value
systemctl start devbox-secretsd.service
found=$(readlink "/proc/$(property devbox-secretsd.service MainPID)/fd/0")
[ "$found" = /dev/kmsg ] || fail "the daemon has another standard input: $found"
# Which the machine around this one has, or has not.
if ls /sys/bus/*/drivers/vmgenid/*:* > /dev/null 2>&1; then
  devbox-secretsd status | grep -q '^clones .*VM generation' || fail "the daemon does not read it: $(devbox-secretsd status)"
fi
"#;
    let _ = machine.run(script).await.success();
}

async fn a_wrong_configuration_or_master_key_fails_the_unit_and_is_not_tried_again(machine: Machine) {
    let script = r#"
# fails UNIT WORDS: at the start itself, with status 2, the reason in the journal, and without another attempt.
fails() {
  systemctl start "$1" 2> /dev/null && fail "$1 starts" || true
  # Longer than RestartSec=, at which another attempt would be under way.
  eventually "the end of $1" is "$1" failed
  [ "$(property "$1" ExecMainStatus)" = 2 ] || fail "$1 ended with $(property "$1" ExecMainStatus)"
  [ "$(property "$1" NRestarts)" = 0 ] || fail "$1 was tried again"
  eventually "the journal to say: $2" logged "$1" "$2"
  systemctl reset-failed "$1"
}
control_plane KEPT=value
systemctl stop devbox-secrets-server.service
cp /etc/devbox-secrets/server.toml /machine/good
echo 'typing_error = 1' >> /etc/devbox-secrets/server.toml
fails devbox-secrets-server.service typing_error
cp /machine/good /etc/devbox-secrets/server.toml
cp /etc/credstore/master-key /machine/master-key
head -c32 /dev/urandom > /etc/credstore/master-key
fails devbox-secrets-server.service 'master key'
head -c31 /dev/urandom > /etc/credstore/master-key
fails devbox-secrets-server.service 'master key'
cp /machine/master-key /etc/credstore/master-key
systemctl start devbox-secrets-server.service || fail "the right key does not start it"
pid=$(property devbox-secrets-server.service MainPID)
systemctl reload devbox-secrets-server.service || fail "it cannot be reloaded"
eventually "the reload" logged devbox-secrets-server.service '"message":"reloaded"'
[ "$(property devbox-secrets-server.service MainPID)" = "$pid" ] || fail "a reload is a restart"

agent <<< 'typing_error = 1'
fails devbox-secretsd.service typing_error
agent <<< ''
systemctl start devbox-secretsd.service || fail "the right configuration does not start the daemon"
"#;
    let _ = machine.run(script).await.success();
}

async fn the_daemon_starts_with_strict_hardening_under_every_drop_in(machine: Machine) {
    let script = r#"
mknod /dev/kmsg c 1 11
control_plane KEPT=value
{ echo '[[rule]]'; echo 'uid = "agent"'; echo 'executable = "/usr/bin/devbox-exec"'; echo 'env = ["*"]'; } > /machine/rule
# strict NAME: the daemon has every protection, with the rule that the drop-in is for.
strict() {
  if [ "$1" = executables ]; then agent < /machine/rule; else agent < /dev/null; fi
  systemctl restart devbox-secretsd.service
  devbox-secretsd status > /machine/status
  grep -qE '^capabilities +yes' /machine/status || fail "under $1: $(grep ^capabilities /machine/status)"
  # A container can be below a limit of its host's: then two protections are missing, and strict rightly refuses.
  missing=$(sed -n 's/^\([a-z ]*[a-z]\) *NOT: .*/\1/p' /machine/status)
  if [ "$(sed -n 's/^Max locked memory *[0-9]* *\([0-9]*\) .*/\1/p' /proc/"$(property devbox-secretsd.service MainPID)"/limits)" -lt 67108864 ]; then
    [ "$missing" = $'all locked\nswap' ] || fail "under $1: $(cat /machine/status)"
    return
  fi
  [ -z "$missing" ] || fail "under $1: $(cat /machine/status)"
  printf '[hardening]\nmode = "strict"\n' >> /etc/devbox-secrets/agent.toml
  systemctl restart devbox-secretsd.service || fail "strict does not start under $1"
}
strict 'no drop-in'
for file in /usr/share/devbox-secrets/*.conf; do
  rm -rf /etc/systemd/system/devbox-secretsd.service.d
  drop_in "$(basename "$file" .conf)"
  strict "$(basename "$file" .conf)"
done
"#;
    let _ = machine.run(script).await.success();
}
