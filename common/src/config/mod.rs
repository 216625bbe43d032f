//! Configuration files: TOML, with every mistake reported at once.
//!
//! A program reads its sections through a [`Document`]. A key is declared by reading it: unknown
//! keys and sections are the ones that the program did not ask for.

mod document;
mod mistake;
mod quantity;

pub use document::{Document, Section};
pub use mistake::{Mistake, Mistakes};
pub use quantity::{InvalidQuantity, print_size, size, time};
