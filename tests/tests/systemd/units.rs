//! The unit files themselves, as systemd's own tools judge them.

use devbox_secrets_tests::machine::Machine;
use devbox_secrets_tests::require_machine;

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
for unit in devbox-secretsd.service devbox-secrets-server.service; do
  said=$(systemd-analyze security --offline=yes --threshold=11 --no-pager "/usr/lib/systemd/system/$unit" 2>&1) ||
    fail "$unit is exposed: $(tail -1 <<< "$said")"
done

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
"#;
    let _ = Machine::new().run(script).await.success();
}
