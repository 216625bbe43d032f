//! Times and sizes as people write them: `90s`, `64MiB`.

use std::time::Duration;

use thiserror::Error;

/// Why a text is not a quantity.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidQuantity {
    /// Not a time.
    #[error("a time is a whole number and a unit: ms, s, m, h or d, as in \"90s\"")]
    Time,
    /// Not a size.
    #[error("a size is a whole number and a unit: B, KiB, MiB or GiB, as in \"64MiB\"")]
    Size,
    /// More than 64 bits of milliseconds or bytes.
    #[error("the number is too large")]
    TooLarge,
}

/// Parses a time.
///
/// # Errors
/// [`InvalidQuantity`], never with the text.
pub fn time(text: &str) -> Result<Duration, InvalidQuantity> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    scaled(text, &units, InvalidQuantity::Time).map(Duration::from_millis)
}

/// Parses a size in bytes.
///
/// # Errors
/// [`InvalidQuantity`], never with the text.
pub fn size(text: &str) -> Result<usize, InvalidQuantity> {
    let units = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let bytes = scaled(text, &units, InvalidQuantity::Size)?;
    usize::try_from(bytes).map_err(|_| InvalidQuantity::TooLarge)
}

fn scaled(text: &str, units: &[(&str, u64)], malformed: InvalidQuantity) -> Result<u64, InvalidQuantity> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0).ok_or(malformed)?;
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim_start()).ok_or(malformed)?;
    let number = number.parse().ok().and_then(|number: u64| number.checked_mul(*scale));
    number.ok_or(InvalidQuantity::TooLarge)
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
        let times = [
            ("0s", 0),
            ("250 ms", 250),
            ("90s", 90_000),
            ("15m", 900_000),
            ("24h", 86_400_000),
            ("1d", 86_400_000),
        ];
        for (text, milliseconds) in times {
            assert_eq!(time(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        assert_eq!(size("64MiB"), Ok(64 << 20));
    }

    #[test]
    fn a_quantity_without_its_unit_is_refused() {
        for text in ["", "1", "h", "-1s", "+1h", "1.5h", "1 year", "24hours", "1é"] {
            assert_eq!(time(text), Err(InvalidQuantity::Time), "{text}");
        }
        assert_eq!(size("64MB"), Err(InvalidQuantity::Size));
    }

    #[test]
    fn a_number_that_is_too_large_is_refused_as_that() {
        for text in ["99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(time(text), Err(InvalidQuantity::TooLarge), "{text}");
        }
    }

    #[test]
    fn a_printed_size_is_read_back() {
        for bytes in [0, 1, 4_096, 64 << 20, (1 << 30) + 1] {
            assert_eq!(size(&print_size(bytes)), Ok(bytes));
        }
    }
}
