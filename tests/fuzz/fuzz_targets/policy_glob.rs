//! See `devbox_secrets_fuzz::policy_glob`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| devbox_secrets_fuzz::policy_glob::check(bytes));
