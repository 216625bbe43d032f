//! See `devbox_secrets_fuzz::agent_config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| devbox_secrets_fuzz::agent_config::check(bytes));
