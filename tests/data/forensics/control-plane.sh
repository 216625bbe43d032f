# A control plane: serves HTTPS and devboxes until it is told to stop.

# Lines from the console up to `end`, into a file.
receive() {
    while read -r line && [ "$line" != end ]; do echo "$line"; done >"$1"
}

step booted
receive /run/api.pem
receive /run/api.key
chmod 600 /run/api.key
mkdir -m 700 /run/state
cat >/run/server.toml <<TOML
[state]
directory = "/run/state"
master_key_file = "/run/master.key"
[api]
listen = "0.0.0.0:8080"
tls_certificate = "/run/api.pem"
tls_key = "/run/api.key"
[devbox]
listen = "0.0.0.0:8443"
server_names = ["127.0.0.1"]
[log]
level = "debug"
TOML
operate() {
    devbox-secrets-server "$@" --config /run/server.toml 2>>/run/operator.log
}
operate keys init
operate init
operate account create forensics
devbox-secrets-server serve --config /run/server.toml 2>/run/server.log &
server=$!
step serving "$(operate token create --account forensics --json)"

step stored
step delivered
step updated
step deleted

kill "$server"
wait "$server"
step stopped
