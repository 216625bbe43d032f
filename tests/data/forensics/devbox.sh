# A devbox: joins, launches, takes up a change and a deletion, and loses its daemon to a SIGKILL.

. /join.sh
holds_both() {
    case $(status) in *CHANGED*KEPT*) return 0 ;; esac
    return 1
}
holds_the_change() {
    case $(status) in *CHANGED*'"version":2'*) return 0 ;; esac
    return 1
}
holds_one() {
    case $(status) in *CHANGED*) return 1 ;; *KEPT*) return 0 ;; esac
    return 1
}
until_true holds_both
step holding

mkfifo /run/hold
devbox-exec --socket /run/launch.sock -- cat /run/hold &
launched=$!
is_cat() {
    [ -d "/proc/$launched" ] || failed 'the launch failed'
    read -r name <"/proc/$launched/comm" && [ "$name" = cat ]
}
until_true is_cat
step running

kill "$launched"
wait "$launched"
step gone

until_true holds_the_change
step replaced

until_true holds_one
step deleted

kill -9 "$daemon"
wait "$daemon"
step killed
