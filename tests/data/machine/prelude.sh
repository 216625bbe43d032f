# Functions of the scripts that run in a booted machine, as root. A script that fails says FAILED and why.
set -euo pipefail
shopt -s inherit_errexit
export PATH=/usr/bin:/usr/sbin

# Whatever happens, the journal goes out: for people, and byte by byte for who looks for secrets in it.
trap 'status=$?
  [ $status = 0 ] || echo "FAILED: line $LINENO: $BASH_COMMAND"
  journalctl --sync || true
  journalctl --no-pager --boot --output=short-precise -u "devbox-*" -u "*.service" --no-hostname > /machine/log
  journalctl --no-pager --boot --output=export > /machine/journal
  exit $status' EXIT

fail() { echo "FAILED: $*"; exit 1; }

# eventually WHAT COMMAND…: until the command succeeds; a loaded machine has a minute. The command is run anew each time:
# one that looks at something that changes has to be a function, for its arguments are expanded once.
eventually() {
  local what=$1 said deadline=$(( SECONDS + 60 )); shift
  while ! said=$( ( "$@" ) 2>&1 ); do
    [ "$SECONDS" -lt "$deadline" ] || fail "waited in vain for $what: $said"
    sleep 0.05
  done
}

# is UNIT STATE, stored COUNT: the unit is in this state; the daemon's store has so many descriptors.
is() { [ "$(property "$1" ActiveState)" = "$2" ]; }
stored() { [ "$(property devbox-secretsd.service NFileDescriptorStore)" = "$1" ]; }

# logged UNIT WORDS: the journal has a line of the unit with these words. Programs write their logs behind their work.
logged() { journalctl --sync; journalctl -u "$1" --grep "$2" --quiet; }

# refused WORDS COMMAND…: it fails, and says so.
refused() {
  local words=$1 said; shift
  if said=$("$@" 2>&1); then fail "was not refused: $*: $said"; fi
  grep -qF -- "$words" <<< "$said" || fail "refused otherwise: $*: $said"
}

# milliseconds NAME COMMAND…: prints NAME=how long it took, whether or not it succeeded.
milliseconds() {
  local name=$1 start end; shift
  start=$(date +%s%N); "$@" > /dev/null 2>&1 || true; end=$(date +%s%N)
  echo "$name=$(( (end - start) / 1000000 ))"
}

as() { local user=$1; shift; setpriv --reuid="$user" --regid="$user" --clear-groups -- "$@"; }

# The control plane's own commands, as its user.
operator() {
  as devbox-secrets-server env CREDENTIALS_DIRECTORY=/run/operator \
    devbox-secrets-server --config /etc/devbox-secrets/server.toml "$@"
}

# A control plane with an account that has the secrets NAME=VALUE…, and a devbox whose join token is in its credential store.
control_plane() {
  install -d -m700 -o devbox-secrets-server /run/operator /var/lib/devbox-secrets
  install -d -m700 /etc/credstore
  head -c32 /dev/urandom > /etc/credstore/master-key
  install -m400 -o devbox-secrets-server /etc/credstore/master-key /run/operator/master-key
  cat > /etc/devbox-secrets/server.toml <<TOML
[state]
directory = "/var/lib/devbox-secrets"
[api]
listen = "127.0.0.1:8080"
[devbox]
listen = "127.0.0.1:8443"
server_names = ["127.0.0.1"]
TOML
  operator init > /dev/null
  operator account create acme > /dev/null
  local pair
  for pair in "$@"; do printf %s "${pair#*=}" | operator secret set --account acme "${pair%%=*}" > /dev/null; done
  operator devbox register --account acme --json box |
    sed -n 's/.*"join_token": *"\([^"]*\)".*/\1/p' > /etc/credstore/devbox-secrets.join-token
  [ -s /etc/credstore/devbox-secrets.join-token ] || fail "the devbox was not registered"
  systemctl start devbox-secrets-server.service
}

# The daemon's configuration: its rules are on standard input.
agent() {
  { cat <<'TOML'
[server]
url = "https://127.0.0.1:8443"
[identity]
join_token_file = "credential:devbox-secrets.join-token"
[log]
level = "debug"
TOML
    cat
  } > /etc/devbox-secrets/agent.toml
}

# A configuration that gives every secret to the user agent.
agent_gets_everything() {
  agent <<'TOML'
[[rule]]
uid = "agent"
env = ["*"]
TOML
}

# A launch of the user agent gets $value.
served() { [ "$(as agent devbox-exec --wait 20 -- sh -c 'printf %s "$DB_PASS"')" = "$value" ]; }

# service NAME LINES…: a unit with these lines in [Service].
service() {
  local name=$1; shift
  { echo '[Service]'; printf '%s\n' "$@"; } > "/etc/systemd/system/$name"
  systemctl daemon-reload
}

property() { systemctl show --value --property="$2" "$1"; }

# drop_in NAME: puts one of the project's drop-ins into force.
drop_in() {
  install -Dm644 -t /etc/systemd/system/devbox-secretsd.service.d "/usr/share/devbox-secrets/$1.conf"
  systemctl daemon-reload
}

# extend UNIT LINES…: a drop-in of these lines, section headings among them.
extend() {
  local unit=$1; shift
  mkdir -p "/etc/systemd/system/$unit.d"
  printf '%s\n' "$@" > "/etc/systemd/system/$unit.d/test.conf"
  systemctl daemon-reload
}
