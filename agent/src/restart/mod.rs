//! What the daemon leaves to its successor when it is restarted or upgraded, without the network and without a disk.
//!
//! Two images wait in systemd's file-descriptor store (sd_notify(3), `FDSTORE=1`): the devbox's identity, and its secrets.
//! An image ([`image`]) is a `memfd_secret` whose contents are encrypted under a key of its own; the key is in the kernel
//! keyring of the daemon's user ([`keyring`]), on no disk. The kernel forgets it when the image is worth nothing any more (the
//! secrets' when their lease ends, the identity's when its certificate does), and in any case soon after the daemon's end.
//!
//! So a stored descriptor alone, taken out of PID 1, is ciphertext; a key alone opens nothing; a copy of the one does not
//! survive the boot that has the other. Root can have both: it can become the daemon's user. What an image needs to be
//! believed is its key, so one of another boot, altered, cut short, or of another version is dropped, and the daemon joins
//! as if it had found nothing.
//!
//! A *stop* empties the store: systemd closes the descriptors, and the kernel wipes their pages.

pub mod image;
pub mod keyring;
mod memfd;
mod record;
mod store;
mod stored;

pub use store::{Kept, KeptSecrets, Store, is_image};
pub use stored::{StoreView, Stored};
