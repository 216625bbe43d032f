//! See `devbox_secrets_fuzz::credential_address`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| devbox_secrets_fuzz::credential_address::check(bytes));
