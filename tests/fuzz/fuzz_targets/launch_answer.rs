//! See `devbox_secrets_fuzz::launch_answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| devbox_secrets_fuzz::launch_answer::check(bytes));
