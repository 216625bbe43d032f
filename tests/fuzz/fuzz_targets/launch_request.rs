//! See `devbox_secrets_fuzz::launch_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| devbox_secrets_fuzz::launch_request::check(bytes));
