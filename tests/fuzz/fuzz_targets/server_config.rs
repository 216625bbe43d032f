//! See `devbox_secrets_fuzz::server_config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| devbox_secrets_fuzz::server_config::check(bytes));
