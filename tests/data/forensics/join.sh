# A daemon that joins the control plane: sourced by devboxes. Arguments of the script are more of its own.

step booted
server=$line
step server
printf %s "$line" >/run/join-token
chmod 600 /run/join-token
RUST_LOG=debug devbox-secretsd run --server "$server" --join-token-file /run/join-token --socket /run/launch.sock \
    --admin-socket /run/admin.sock "$@" 2>/run/daemon.log &
daemon=$!

status() {
    [ -d "/proc/$daemon" ] || failed 'the daemon ended'
    devbox-secretsd status --json --admin-socket /run/admin.sock 2>/dev/null
}
