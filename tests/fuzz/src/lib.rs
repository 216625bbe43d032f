//! Everything that reads bytes from outside, and what must hold whatever the bytes are.
//!
//! One module a fuzz target. Each has a `check`, which panics if a promise is broken; `fuzz_targets/` hands it what
//! libFuzzer thinks up (`cargo xtask fuzz`), and the tests of this crate what is in `corpus/`.
//!
//! - [`launch_request`], [`launch_answer`]: the launch protocol, both ends;
//! - [`bundle`], [`devbox_messages`], [`join_token`]: between daemon and control plane;
//! - [`api_requests`]: the Secrets API; [`credential_address`]: what systemd asks for;
//! - [`agent_config`], [`server_config`], [`policy_glob`]: what operators write.
#![forbid(unsafe_code)]

pub mod agent_config;
pub mod api_requests;
pub mod bundle;
pub mod credential_address;
pub mod devbox_messages;
pub mod join_token;
pub mod launch_answer;
pub mod launch_request;
pub mod policy_glob;
pub mod server_config;

mod control_plane;
mod daemon;
mod scratch;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: that of its module, its program and its folder in `corpus/`.
    pub name: &'static str,
    /// Panics if a promise is broken.
    pub check: fn(&[u8]),
}

/// Every target, in order of name.
pub const TARGETS: &[Target] = &[
    Target { name: "agent_config", check: agent_config::check },
    Target { name: "api_requests", check: api_requests::check },
    Target { name: "bundle", check: bundle::check },
    Target { name: "credential_address", check: credential_address::check },
    Target { name: "devbox_messages", check: devbox_messages::check },
    Target { name: "join_token", check: join_token::check },
    Target { name: "launch_answer", check: launch_answer::check },
    Target { name: "launch_request", check: launch_request::check },
    Target { name: "policy_glob", check: policy_glob::check },
    Target { name: "server_config", check: server_config::check },
];

/// Stands for a secret in inputs: no message of any program may repeat it.
pub const CANARY: &str = "xK4wV9zQ7jR2";

/// Whether `bytes` hold `part`.
fn holds(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

/// A message for people is one line, and repeats no secret.
fn assert_message(text: &str) {
    assert!(!text.is_empty(), "a message without words");
    assert!(!text.chars().any(char::is_control), "control characters in a message: {text:?}");
    assert!(!text.contains(CANARY), "a message repeats a value: {text}");
}
