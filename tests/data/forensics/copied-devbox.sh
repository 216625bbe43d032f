# A devbox that is put aside and goes on, here or elsewhere: it does what it is told at each step.

cat >/run/agent.toml <<TOML
[server]
poll_wait = "1s"
[[rule]]
name = "root"
uid = 0
env = ["*"]
TOML
set -- --config /run/agent.toml
. /join.sh

holds_it() {
    case $(status) in *KEPT*) return 0 ;; esac
    return 1
}
launch() {
    answer=$(devbox-exec --socket /run/launch.sock --wait 0 -- sh -c 'echo "$KEPT"' 2>&1)
    step launch "$? $answer"
}
resume() {
    answer=$(echo "$1" | devbox-secretsd resume --join-token-file - --admin-socket /run/admin.sock 2>&1)
    step resume "$? $answer"
}
until_true holds_it
step holding

while :; do
    case $line in
    launch) launch ;;
    status) step status "$(status)" ;;
    'resume '*) resume "${line#resume }" ;;
    *) failed "does not know $line" ;;
    esac
done
