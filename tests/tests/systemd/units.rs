//! The unit files themselves, as systemd's own tools judge them.

use devbox_secrets_tests::machine::Machine;
use devbox_secrets_tests::require_machine;

/// For virtual machines, and not of the unit itself.
const VM_GENERATION: &str = include_str!("../../../systemd/devbox-secretsd.service.d/vm-generation.conf");

#[tokio::test]
async fn systemd_finds_nothing_wrong_with_the_units_and_little_exposed() {
    require_machine!();
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

# Tenths of a point: 1.1 of 10.
little_exposed() {
  said=$(systemd-analyze security --offline=yes --threshold=11 --no-pager "/usr/lib/systemd/system/$1" 2>&1) ||
    fail "$1 is exposed: $(tail -1 <<< "$said")"
}
little_exposed devbox-secretsd.service
little_exposed devbox-secrets-server.service

# What the exposure, in tenths, does not tell from its absence.
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

install -Dm644 -t /etc/systemd/system/devbox-secretsd.service.d /machine/vm-generation.conf
systemctl daemon-reload
found=$(systemctl show --value --property=StandardInput devbox-secretsd.service)
[ "$found" = file ] || fail "the drop-in is not part of the unit: $found"
said=$(systemd-analyze verify --man=no devbox-secretsd.service 2>&1) || fail "verify with the drop-in: $said"
[ -z "$said" ] || fail "verify with the drop-in says: $said"
little_exposed devbox-secretsd.service
"#;
    let _ = in_a_virtual_machine().run(script).await.success();
}

#[tokio::test]
async fn the_drop_in_for_virtual_machines_gives_the_kernels_log_to_a_daemon_that_may_not_open_it() {
    require_machine!();
    let script = r#"
install -Dm644 -t /etc/systemd/system/devbox-secretsd.service.d /machine/vm-generation.conf
systemctl daemon-reload
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
    let _ = in_a_virtual_machine().run(script).await.success();
}

fn in_a_virtual_machine() -> Machine {
    Machine::new().file("/machine/vm-generation.conf", VM_GENERATION)
}
