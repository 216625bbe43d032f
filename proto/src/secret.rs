//! The one type that holds a plaintext outside the daemon's locked memory.

use std::fmt;

use secrecy::{ExposeSecret, SecretSlice};

/// Bytes that are wiped on drop, print as `[redacted]`, and can be neither copied nor serialised.
///
/// Built from the buffer that already holds the bytes, so that no second copy is made.
pub struct SecretBytes(SecretSlice<u8>);

impl SecretBytes {
    /// Takes over `bytes`. Spare capacity is cut off first; under a zero-on-free allocator the old buffer is wiped
    /// if that moves the bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(SecretSlice::from(bytes))
    }

    /// The one reader.
    #[must_use]
    pub fn expose_secret(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.expose_secret().len()
    }

    /// Whether there are no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reading freed memory to see it would be undefined behaviour; the type's own promise is checked instead.
    #[test]
    fn the_bytes_are_wiped_when_dropped() {
        fn is_wiped(_: &impl zeroize::ZeroizeOnDrop) {}
        is_wiped(&SecretBytes::new(Vec::new()).0);
    }

    #[test]
    fn debug_output_holds_nothing_of_the_bytes() {
        let secret = SecretBytes::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(secret.expose_secret(), b"hunter2");
    }
}
