//! Rules about units and executables, decided by the daemon as its unit confines it.

use devbox_secrets_tests::machine::Machine;
use devbox_secrets_tests::on_every_system;

use crate::support::run;

on_every_system![a_rule_is_about_the_systems_unit_and_the_very_executable_that_it_names,];

async fn a_rule_is_about_the_systems_unit_and_the_very_executable_that_it_names(machine: Machine) {
    let script = r#"
control_plane DB_PASS=$value
drop_in executables
digest=$(sha256sum /usr/bin/devbox-exec | cut -c1-64)
agent <<TOML
[[rule]]
name = "app"
unit = "app-?.service"
executable = "/usr/bin/devbox-exec"
sha256 = "$digest"
env = ["DB_*"]
TOML
systemctl start devbox-secrets.target
# The one thread that looks at programs may look into other processes; the kernel says so of each thread, the daemon of itself.
ptrace=$(( 1 << 19 )) able=0
for status in /proc/"$(property devbox-secretsd.service MainPID)"/task/*/status; do
  bits=$(( 16#$(sed -n 's/^CapEff:\t//p' "$status") | 16#$(sed -n 's/^CapPrm:\t//p' "$status") ))
  [ $(( bits & ~ptrace )) = 0 ] || fail "a thread has other capabilities: $bits"
  [ "$bits" = 0 ] || able=$(( able + 1 ))
done
[ "$able" = 1 ] || fail "$able threads have CAP_SYS_PTRACE"
devbox-secretsd status > /machine/status
grep -qE '^capabilities +yes' /machine/status || fail "status says: $(grep ^capabilities /machine/status)"
# launches UNIT PROGRAM: as another user, in a unit of its own.
launches() { systemd-run --quiet --wait --pipe --uid=agent --unit="$1" "$2" --require DB_PASS -- sh -c 'echo "$DB_PASS"' 2>&1; }
[ "$(launches app-1.service /usr/bin/devbox-exec)" = "$value" ] || fail "the unit has not its secret"

refused 'no rule grants' launches other.service /usr/bin/devbox-exec
cp /usr/bin/devbox-exec /run/devbox-copy
refused 'no rule grants' launches app-2.service /run/devbox-copy
for words in 'it is not in unit app' 'executable is /run/devbox-copy, not /usr/bin/devbox-exec'; do
  eventually "the log to say: $words" logged devbox-secretsd.service "$words"
done

# A unit's own cgroups do not make it another unit: what is made below one is that one's.
systemd-run --quiet --uid=agent --unit=delegate.service --property=Delegate=yes sleep 1000
pid=$(property delegate.service MainPID) group=$(property delegate.service ControlGroup)
for root in /sys/fs/cgroup /sys/fs/cgroup/systemd; do [ ! -d "$root$group" ] || break; done
as agent sh -c 'mkdir "$0" && echo "$1" > "$0/cgroup.procs"' "$root$group/app-3.service" "$pid"
grep -q delegate.service/app-3.service "/proc/$pid/cgroup" || fail "the process is not in the cgroup that was made"
devbox-secretsd explain --pid "$pid" > /machine/explained
cat /machine/explained
grep -q '^unit  *delegate.service$' /machine/explained || fail "explain names another unit"
grep -q 'no: unit is delegate.service, not app-?.service; executable is' /machine/explained || fail "explain gives no reasons"
grep -q '^DB_PASS  *no: no rule about this process grants it$' /machine/explained || fail "explain says nothing of the variable"
"#;
    let _ = run(machine, script).await;
}
