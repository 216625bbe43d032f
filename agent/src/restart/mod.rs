//! The state that the daemon leaves to its successor at a restart or an upgrade, without network and without disk.
//!
//! Two images wait in systemd's file-descriptor store (sd_notify(3), `FDSTORE=1`): the devbox's identity, and its secrets.
//! An image ([`image`]) is a `memfd_secret` whose contents are encrypted under a key of its own; the key is in the kernel
//! keyring of the daemon's user ([`keyring`]), on no disk. The key expires with the image (the secrets' with their lease, the
//! identity's with its certificate), and in any case soon after the daemon's end.
//!
//! A stored descriptor alone, taken out of PID 1, is ciphertext; a key alone decrypts no data; neither survives the boot. Root can
//! have both, because it can become the daemon's user. An image is accepted only with its key, so one of another boot, altered,
//! truncated or of another version is dropped, and the daemon joins as if it had found none.
//!
//! A *stop* empties the store: systemd closes the descriptors, and the kernel wipes their pages.

pub(crate) mod image;
pub mod keyring;
mod memfd;
mod record;
mod store;
mod stored;

pub(crate) use store::{Kept, KeptSecrets, Store, is_image};
pub(crate) use stored::{StoreView, Stored};
