//! Restart, upgrade, crash and hang: the secrets wait in the file-descriptor store.

use devbox_secrets_tests::machine::Machine;
use devbox_secrets_tests::on_every_system;

use crate::support::run;

on_every_system![
    a_restart_without_the_control_plane_serves_what_was_served,
    the_watchdog_restarts_a_daemon_that_hangs_and_it_serves_on,
    a_stored_image_is_not_served_past_its_lease,
];

/// Takes PID 1's stored descriptors, as only root can, maps them, and says what they begin with and whether they hold the
/// words on the command line.
const THIEF: &str = r#"#!/usr/bin/python3
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
pidfd = libc.syscall(434, 1, 0)
for number in os.listdir("/proc/1/fd"):
    try:
        target = os.readlink(f"/proc/1/fd/{number}")
    except OSError:
        continue
    if "secretmem" not in target and "memfd:devbox" not in target:
        continue
    stolen = libc.syscall(438, pidfd, int(number), 0)
    size = os.fstat(stolen).st_size
    at = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, stolen, 0)
    found = ctypes.string_at(at, size)
    words = [word for word in sys.argv[1:] if word.encode() in found]
    print(found[:4].decode(errors="replace"), size, "plaintext: " + " ".join(words) if words else "ciphertext")
"#;

const SETUP: &str = r#"
agent_gets_everything
main_pid() { property devbox-secretsd.service MainPID; }
another_than() { local now; now=$(main_pid); [ "$now" != 0 ] && [ "$now" != "$1" ]; }
"#;

async fn a_restart_without_the_control_plane_serves_what_was_served(machine: Machine) {
    let script = r#"
control_plane DB_PASS=$value
systemctl start devbox-secrets.target
served || fail "not served at first"
eventually "identity and secrets to be stored" stored 2

# told WORDS: what status tells of the store.
told() { devbox-secretsd status | grep -q "^restart  *$1 in the file-descriptor store$"; }
eventually "status to tell what waits" told 'identity and secrets of revision [0-9]* wait'

# The stored descriptors are worthless by themselves, even to root.
/machine/thief $value DB_PASS BEGIN acme | tee /machine/stolen
[ "$(grep -c '^DSI1 .* ciphertext$' /machine/stolen)" = 2 ] || fail "the stored descriptors are not two ciphertexts"

systemctl stop devbox-secrets-server.service
before=$(main_pid)
milliseconds restart systemctl restart devbox-secretsd.service
another_than "$before" || fail "the daemon was not restarted"
served || fail "not served after the restart"
eventually "status to tell what was taken over" told 'identity and secrets of revision [0-9]* wait'

# A crash.
before=$(main_pid)
kill -KILL "$before"
eventually "another daemon" another_than "$before"
served || fail "not served after the crash"
eventually "the store to have two descriptors again" stored 2

# An upgrade of the service manager, then of the daemon.
systemctl daemon-reexec
systemctl restart devbox-secretsd.service
served || fail "not served after the upgrade"

# The control plane is back: the identity that was kept is the devbox's, and a change is taken up and kept.
systemctl start devbox-secrets-server.service
value=changed-$value
revision() { devbox-secretsd status --json | grep -o '"secrets_revision":[0-9]*'; }
replaced() { [ "$(revision)" != "$1" ]; }
before=$(revision)
printf %s "$value" | operator secret set --account acme DB_PASS > /dev/null
eventually "the change" served
eventually "the change to be stored" replaced "$before"
systemctl stop devbox-secrets-server.service
systemctl restart devbox-secretsd.service
served || fail "the old value was served after the change"
eventually "the old image to leave the store" stored 2

# A stop is the end: nothing is left, and what was used cannot be used again.
systemctl stop devbox-secretsd.service
/machine/thief > /machine/stolen
[ ! -s /machine/stolen ] || fail "left in the store: $(cat /machine/stolen)"
systemctl start --no-block devbox-secretsd.service
refused 'no secrets yet' as agent devbox-exec -- true
"#;
    let (ended, _) = run(machine.file("/machine/thief", THIEF), &format!("{SETUP}{script}")).await;
    // One that waited for the control plane would take as long as the start job may, a minute and a half.
    assert!(ended.number("restart") < 30_000);
}

async fn the_watchdog_restarts_a_daemon_that_hangs_and_it_serves_on(machine: Machine) {
    let script = r#"
control_plane DB_PASS=$value
mkdir /etc/systemd/system/devbox-secretsd.service.d
printf '[Service]\nWatchdogSec=5s\n' > /etc/systemd/system/devbox-secretsd.service.d/watchdog.conf
systemctl daemon-reload
systemctl start devbox-secrets.target
systemctl stop devbox-secrets-server.service
before=$(main_pid)
kill -STOP "$before"
eventually "another daemon" another_than "$before"
served || fail "not served after the hang"
by_the_watchdog() { journalctl --sync; journalctl --grep 'Watchdog timeout' --quiet; }
eventually "the watchdog's line in the journal" by_the_watchdog
"#;
    let _ = run(machine, &format!("{SETUP}{script}")).await;
}

async fn a_stored_image_is_not_served_past_its_lease(machine: Machine) {
    let script = r#"
sed -i 's/^\[server\]/&\nmax_stale = "12s"/' /etc/devbox-secrets/agent.toml
control_plane DB_PASS=$value
systemctl start devbox-secrets.target
systemctl stop devbox-secrets-server.service
systemctl restart devbox-secretsd.service
served || fail "not served within the lease"
eventually "the lease's end" refused 'has been unavailable' as agent devbox-exec -- true
before=$(main_pid)
systemctl restart --no-block devbox-secretsd.service
eventually "another daemon" another_than "$before"
refused 'no secrets yet' as agent devbox-exec -- true
# The identity outlives the secrets: no second join token is needed.
systemctl start devbox-secrets-server.service
served || fail "not served again"
"#;
    let _ = run(machine, &format!("{SETUP}{script}")).await;
}
