use devbox_secrets_common::log::Format;
use tracing::level_filters::LevelFilter;

use super::*;

const WHOLE: &str = r#"
[state]
directory = "/var/lib/x"
master_key_file = "/etc/x/master.key"

[api]
listen = "0.0.0.0:443"
tls_certificate = "/etc/x/api.pem"
tls_key = "/etc/x/api.key"

[devbox]
listen = "[::]:8443"
server_names = ["secrets.example.com", "10.0.0.5"]
trust_domain = "example.com"
certificate_lifetime = "1h"

[admin]
listen = "127.0.0.1:9464"

[log]
format = "json"
level = "debug"

[limits]
secrets_per_account = 5
requests_per_second = 2
requests_burst = 3
bundle_bytes = 0x10_0000
"#;

fn mistakes(text: &str) -> Vec<(Option<usize>, String)> {
    let mistakes = Config::parse(text, None).unwrap_err().mistakes;
    mistakes.into_iter().map(|mistake| (mistake.line, mistake.text)).collect()
}

#[test]
fn every_key_is_read() {
    let config = Config::parse(WHOLE, None).unwrap();
    let requests = Rate { interval: Duration::from_millis(500), burst: 3 };
    let limits = Limits { secrets: 5, requests, bundle_bytes: 1 << 20, ..Limits::default() };
    assert_eq!(config.limits, limits);
    assert_eq!(config.state.directory, Path::new("/var/lib/x"));
    assert_eq!(config.api.tls.unwrap().key, Path::new("/etc/x/api.key"));
    assert_eq!(config.devbox.server_names, ["secrets.example.com", "10.0.0.5"]);
    assert_eq!(config.devbox.trust_domain, "example.com");
    assert_eq!(config.devbox.certificate_lifetime, Duration::from_secs(3_600));
    assert_eq!(config.admin, Some("127.0.0.1:9464".parse().unwrap()));
    assert_eq!(config.log, LogConfig { format: Format::Json, level: LevelFilter::DEBUG });
}

#[test]
fn the_example_of_the_documentation_is_a_configuration() {
    let source = include_str!("mod.rs");
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let example =
        lines.skip_while(|line| !line.contains("```toml")).skip(1).take_while(|line| !line.contains("```"));
    let text: Vec<&str> = example.collect();
    Config::parse(&text.join("\n"), None).unwrap();
}

#[test]
fn keys_with_a_default_may_be_left_out() {
    let text = "[state]\ndirectory='/d'\n[api]\nlisten='127.0.0.1:0'\n[devbox]\nlisten='127.0.0.1:0'\n";
    let config = Config::parse(text, Some(Path::new("/run/credentials/x"))).unwrap();
    assert_eq!(config.state.master_key_file, Path::new("/run/credentials/x/master-key"));
    assert_eq!(config.devbox.server_names, ["localhost", "127.0.0.1", "::1"]);
    assert_eq!(config.devbox.certificate_lifetime, DEFAULT_CERTIFICATE_LIFETIME);
    assert_eq!(config.log, LogConfig::default());
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let text = r#"[state]
directory = "relative"
master_key = "/typo"
[api]
listen = 8080
tls_key = "/only/half"
[devbox]
listen = "0.0.0.0:8443"
server_names = ["ok.example.com", 7,
  "not a name"]
trust_domain = "UPPER"
certificate_lifetime = "1s"
[log]
level = "loud"
format = "xml"
[unknown]
"#;
    let found = mistakes(text);
    let lines: Vec<Option<usize>> = found.iter().map(|(line, _)| *line).collect();
    let expected = [2, 3, 5, 9, 10, 11, 12, 14, 15, 16].map(Some);
    assert_eq!(lines[..expected.len()], expected, "{found:#?}");
    assert_eq!(lines[expected.len()..], [None, None], "{found:#?}");
    assert!(
        found[1].1.contains("unknown key `master_key` in [state]: its keys are directory, master_key_file")
    );
    assert!(found[2].1.contains("expected a string, in quotation marks, found a value of type integer"));
    assert!(found[10].1.contains("master_key_file is missing"));
    assert!(found[11].1.contains("tls_certificate is missing"));
}

#[test]
fn plain_http_on_a_network_is_refused_with_the_remedy() {
    let text = WHOLE.replace("tls_certificate = \"/etc/x/api.pem\"\ntls_key = \"/etc/x/api.key\"\n", "");
    let found = mistakes(&text);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, Some(7));
    assert!(found[0].1.contains("set tls_certificate and tls_key"), "{found:?}");
    assert!(matches!(
        Config::dev(Path::new("/d"), "0.0.0.0:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap()),
        Err(ConfigError::PlainDev)
    ));
}

#[test]
fn several_faults_of_syntax_are_each_named_and_hide_no_other_mistake() {
    let found = mistakes("[state]\ndirectory = \n[api]\nlisten = \"x\"\n= 3\n");
    let lines: Vec<Option<usize>> = found.iter().map(|(line, _)| *line).collect();
    assert!(lines.contains(&Some(2)) && lines.contains(&Some(4)) && lines.contains(&Some(5)), "{found:?}");
    assert!(found.iter().all(|(line, _)| line.is_some()), "no guess at what is missing: {found:?}");
}

#[test]
fn an_empty_file_names_all_that_is_missing() {
    let found = mistakes("");
    let text: String = found.iter().map(|(_, text)| text.as_str()).collect();
    for key in
        ["[state] directory", "[state] master_key_file", "[api] listen", "[devbox] listen", "server_names"]
    {
        assert!(text.contains(key), "{key}: {text}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Path::new("/nonexistent/server.toml"), None).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/server.toml"));
}

#[test]
fn monitoring_is_not_answered_to_a_network() {
    let text = WHOLE.replace("127.0.0.1:9464", "0.0.0.0:9464");
    let found = mistakes(&text);
    assert_eq!(found.len(), 1);
    assert!(found[0].0.is_some() && found[0].1.contains("[admin] listen"), "{found:?}");
}

#[test]
fn a_budget_is_a_positive_number_and_its_mistakes_have_a_line() {
    let found = mistakes(
        &WHOLE.replace("secrets_per_account = 5", "secrets_per_account = 0\ntokens_per_account = \"x\""),
    );
    let texts: Vec<&str> = found.iter().map(|(_, text)| text.as_str()).collect();
    assert!(texts[0].starts_with("[limits] secrets_per_account: write a whole number"), "{texts:?}");
    assert!(texts[1].starts_with("[limits] tokens_per_account: expected a whole number"), "{texts:?}");
    let found = mistakes(&WHOLE.replace("bundle_bytes = 0x10_0000", "bundle_bytes = 1_000_000_000"));
    assert!(found[0].1.starts_with("[limits] bytes_in_flight: at least 4 times"), "{found:?}");
}

#[test]
fn the_budgets_of_the_listeners_are_read() {
    let text = WHOLE.replace(
        "[devbox]",
        "max_connections = 9\nmax_requests_per_account = 3\nexempt_addresses = [\"::ffff:10.0.0.1\"]\n[devbox]\nmax_connections_per_certificate = 2",
    );
    let config = Config::parse(&text, None).unwrap();
    assert_eq!((config.api.limits.connections, config.api.limits.requests_per_account), (9, 3));
    assert_eq!(config.devbox.limits.connections_per_certificate, 2);
    let exempt = &config.api.limits.exempt;
    assert!(exempt.has("10.0.0.1".parse().unwrap()) && !exempt.has("127.0.0.1".parse().unwrap()));
    assert!(config.devbox.limits.exempt.has("127.0.0.1".parse().unwrap()));
}

#[test]
fn a_budget_of_nothing_is_a_mistake() {
    let found =
        mistakes(&WHOLE.replace("[devbox]", "max_connections = 0\nexempt_addresses = [\"proxy\"]\n[devbox]"));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].1.contains("max_connections") && found[1].1.contains("exempt_addresses"), "{found:?}");
}

/// The server's part of `docs/configuration.md`. The test program `tree` compares its keys with the
/// parser's.
fn documented() -> &'static str {
    let document = include_str!("../../../docs/configuration.md");
    let (_, part) = document.split_once("\n## Server\n").unwrap();
    part.split("\n## ").next().unwrap()
}

#[test]
fn the_documented_defaults_are_those_in_force() {
    let needed = [
        ("state", "directory = '/d'\nmaster_key_file = '/k'\n"),
        ("api", "listen = '127.0.0.1:0'\n"),
        ("devbox", "listen = '127.0.0.1:0'\n"),
    ];
    let section = |name: &str, lines: &str| {
        let needed = needed.iter().find(|(section, _)| *section == name).map_or("", |(_, lines)| lines);
        format!("[{name}]\n{needed}{lines}")
    };
    let written = documented().split("\n### `[").skip(1).map(|part| {
        let (name, text) = part.split_once("]`\n").unwrap();
        let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | `"));
        let lines: String =
            rows.map(|(key, rest)| format!("{key} = {}\n", rest.split('`').next().unwrap())).collect();
        section(name, &lines)
    });
    let written = Config::parse(&written.collect::<String>(), None).unwrap();
    let omitted: String = needed.iter().map(|(name, _)| section(name, "")).collect();
    assert_eq!(written, Config::parse(&omitted, None).unwrap());
}

#[test]
fn the_documented_example_is_a_configuration() {
    let (_, example) = documented().split_once("```toml\n").unwrap();
    Config::parse(example.split("```").next().unwrap(), None).unwrap();
}
