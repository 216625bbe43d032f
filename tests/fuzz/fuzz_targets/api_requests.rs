//! See `devbox_secrets_fuzz::api_requests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| devbox_secrets_fuzz::api_requests::check(bytes));
