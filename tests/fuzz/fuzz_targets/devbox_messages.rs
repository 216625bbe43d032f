//! See `devbox_secrets_fuzz::devbox_messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| devbox_secrets_fuzz::devbox_messages::check(bytes));
