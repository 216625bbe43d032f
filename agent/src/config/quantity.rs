//! Times and sizes as people write them: `90s`, `64MiB`.

use std::time::Duration;

use thiserror::Error;

/// Why a text is no quantity.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidQuantity {
    /// Not a time.
    #[error("a time is a whole number and a unit: ms, s, m, h or d, as in \"90s\"")]
    Time,
    /// Not a size.
    #[error("a size is a whole number and a unit: B, KiB, MiB or GiB, as in \"64MiB\"")]
    Size,
}

/// Parses a time.
///
/// # Errors
/// [`InvalidQuantity::Time`].
pub fn time(text: &str) -> Result<Duration, InvalidQuantity> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    scaled(text, &units).map(Duration::from_millis).ok_or(InvalidQuantity::Time)
}

/// Parses a size in bytes.
///
/// # Errors
/// [`InvalidQuantity::Size`].
pub fn size(text: &str) -> Result<usize, InvalidQuantity> {
    let units = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let bytes = scaled(text, &units).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.ok_or(InvalidQuantity::Size)
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

/// Prints a size as [`size`] reads it, in the largest unit that needs no fraction.
#[must_use]
pub fn print_size(bytes: usize) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = units.iter().find(|(scale, _)| bytes != 0 && bytes.is_multiple_of(*scale));
    whole.map_or_else(|| format!("{bytes}B"), |(scale, unit)| format!("{}{unit}", bytes / scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_have_units() {
        assert_eq!(time("1h"), Ok(Duration::from_secs(3_600)));
        assert_eq!(time("250 ms"), Ok(Duration::from_millis(250)));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        for bad in ["", "1", "h", "-1s", "1.5h", "1 year", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(time(bad), Err(InvalidQuantity::Time), "{bad}");
        }
        assert_eq!(size("64MB"), Err(InvalidQuantity::Size));
    }

    #[test]
    fn a_printed_size_is_read_back() {
        for bytes in [0, 1, 4_096, 64 << 20, (1 << 30) + 1] {
            assert_eq!(size(&print_size(bytes)), Ok(bytes));
        }
    }
}
