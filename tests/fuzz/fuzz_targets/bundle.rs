//! See `devbox_secrets_fuzz::bundle`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| devbox_secrets_fuzz::bundle::check(bytes));
