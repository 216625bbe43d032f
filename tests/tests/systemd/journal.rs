//! What an operator reads in the journal: the reason beside the message, with its priority.

use devbox_secrets_tests::canary;
use devbox_secrets_tests::machine::Machine;
use devbox_secrets_tests::require_machine;

#[tokio::test]
async fn the_journal_says_why_the_daemon_could_not_join() {
    require_machine!();
    let value = canary::random_letters(32);
    let script = format!(
        r#"
control_plane DB_PASS={value}
agent <<'TOML'
[[rule]]
uid = "agent"
env = ["*"]
TOML
# tells PRIORITY WORDS: journalctl -u has an entry of this priority with these words in its message.
tells() {{ journalctl --sync; journalctl -u devbox-secretsd.service -p "$1..$1" -o cat | grep -E "$2"; }}

# Away: it tries again.
systemctl stop devbox-secrets-server.service
systemctl start --no-block devbox-secretsd.service
eventually "the reason and the next attempt" tells warning '^not joined yet error=.*Connection refused.* retry_in_ms=[0-9]+'
eventually "the start" tells info '^started version=.* server=https://127.0.0.1:8443'

# Back: the token is used, and cannot be used again.
systemctl start devbox-secrets-server.service
as agent devbox-exec --wait 30 -- true
systemctl stop devbox-secretsd.service
systemctl start --no-block devbox-secretsd.service
eventually "the refusal" tells err '^devbox-secretsd: the join token was not accepted.*: the join token was redeemed before'
"#
    );
    let _ = Machine::new().run(&script).await.success();
}
