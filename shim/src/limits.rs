//! The room that `execve(2)` has for strings, and the variables that use it up.
//!
//! Linux counts as `bprm_stack_limits` in `fs/exec.c` does: all strings of argv and envp, the file's name, and eight
//! bytes for each pointer, against a quarter of the stack limit, but no more than 6 MiB and no less than 128 KiB.

use core::fmt;

use devbox_launch_proto::{LARGEST_ROOM, MAX_ARG_STRLEN};

use crate::line::Text;
use crate::payload::name_of;

/// The size that always fits, whatever the stack limit.
pub const SMALLEST_ROOM: usize = 131_072;

/// The number of variables that a message names.
const NAMED: usize = 5;

/// Room for a launch, in bytes, under a stack limit in bytes (`RLIMIT_STACK`; `u64::MAX` for none).
#[must_use]
pub fn room(stack_limit: u64) -> usize {
    let quarter = usize::try_from(stack_limit / 4).unwrap_or(usize::MAX);
    quarter.clamp(SMALLEST_ROOM, LARGEST_ROOM)
}

/// The part of that room that a launch needs, in bytes: `string_bytes` with all NULs, and the pointers to `strings` of them.
#[must_use]
pub const fn needed(string_bytes: usize, strings: usize) -> usize {
    string_bytes + strings * size_of::<usize>()
}

/// A launch that the kernel would refuse.
#[derive(Debug, Clone, Copy)]
pub enum Excess<'a> {
    /// One variable alone is longer than [`MAX_ARG_STRLEN`].
    String(Largest<'a>),
    /// All variables together exceed the room.
    Total {
        /// Needed, in bytes.
        needed: u32,
        /// Available, in bytes; 0 if only the kernel knows.
        room: u32,
        /// The largest variables.
        largest: Largest<'a>,
    },
}

impl<'a> Excess<'a> {
    /// As [`Excess::Total`], of sizes as they are counted.
    #[must_use]
    pub fn total(needed: usize, room: usize, largest: Largest<'a>) -> Self {
        Self::Total { needed: saturated(needed), room: saturated(room), largest }
    }
}

/// For a message: a size over 4 GiB exceeds every limit.
fn saturated(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl fmt::Display for Excess<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(largest) => write!(
                f,
                "too large for one variable, which has room for {MAX_ARG_STRLEN} bytes with its name: {largest}; leave \
                 it out with --except, or store it in parts"
            ),
            Self::Total { needed, room: 0, largest } => write!(
                f,
                "environment and arguments are too large for the kernel, with {needed} bytes; largest: {largest}; take \
                 fewer variables with --only or --except, or raise 'ulimit -s'"
            ),
            Self::Total { needed, room, largest } => {
                write!(
                    f,
                    "environment and arguments need {needed} bytes, and there is room for {room}; largest: {largest}; \
                     take fewer variables with --only or --except"
                )?;
                f.write_str(if (*room as usize) < LARGEST_ROOM { ", or raise 'ulimit -s'" } else { "" })
            }
        }
    }
}

/// The largest variables, by name and size.
#[derive(Debug, Clone, Copy, Default)]
pub struct Largest<'a> {
    names: [&'a [u8]; NAMED],
    sizes: [u32; NAMED],
}

impl<'a> Largest<'a> {
    /// The largest of `strings`, each `NAME=VALUE` without its NUL, that have at least `floor` bytes with it.
    pub fn of(strings: impl Iterator<Item = &'a [u8]>, floor: usize) -> Self {
        let mut largest = Self::default();
        for string in strings {
            let size = string.len() + 1;
            if size >= floor {
                largest.insert(name_of(string), saturated(size));
            }
        }
        largest
    }

    fn insert(&mut self, name: &'a [u8], size: u32) {
        if let Some(rank) = self.sizes.iter().position(|smaller| *smaller < size) {
            self.names[rank..].rotate_right(1);
            self.sizes[rank..].rotate_right(1);
            self.names[rank] = name;
            self.sizes[rank] = size;
        }
    }
}

impl fmt::Display for Largest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.names.iter().zip(self.sizes).filter(|entry| entry.1 > 0);
        for (rank, (name, size)) in named.enumerate() {
            let comma = if rank == 0 { "" } else { ", " };
            write!(f, "{comma}{} ({size} bytes)", Text(name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::vec;

    use super::*;

    #[test]
    fn the_room_is_a_quarter_of_the_stack_within_the_kernels_bounds() {
        assert_eq!(room(8 << 20), 2 << 20);
        assert_eq!(room(0), SMALLEST_ROOM);
        assert_eq!(room(64 << 20), LARGEST_ROOM);
        assert_eq!(room(u64::MAX), LARGEST_ROOM);
    }

    #[test]
    fn pointers_count() {
        assert_eq!(needed(100, 3), 124);
    }

    #[test]
    fn five_are_named_largest_first_and_never_a_value() {
        let strings = [&b"A=1"[..], b"B=22222", b"C=333", b"D=44444444", b"E=5", b"F=66", b"G=7777"];
        let text = Largest::of(strings.into_iter(), 0).to_string();
        let expected = "D (11 bytes), B (8 bytes), G (7 bytes), C (6 bytes), F (5 bytes)";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_string_below_the_floor_is_not_named() {
        let long = [&b"BIG="[..], &vec![b'x'; MAX_ARG_STRLEN]].concat();
        let largest = Largest::of([&b"A=1"[..], &long].into_iter(), MAX_ARG_STRLEN + 1);
        assert_eq!(largest.to_string(), "BIG (131077 bytes)");
    }

    #[test]
    fn raising_the_stack_limit_is_advised_only_where_it_helps() {
        let text = |room| Excess::total(9 << 20, room, Largest::default()).to_string();
        assert!(text(2 << 20).contains("ulimit"));
        assert!(!text(LARGEST_ROOM).contains("ulimit"));
    }
}
