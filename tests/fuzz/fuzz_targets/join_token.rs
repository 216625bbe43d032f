//! See `devbox_secrets_fuzz::join_token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| devbox_secrets_fuzz::join_token::check(bytes));
