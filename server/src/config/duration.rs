//! Spans of time as people write them.

use std::time::Duration;

/// Parses a whole number and a unit: `90s`, `15m`, `24h`, `30d`.
///
/// # Errors
/// What a span of time looks like.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "a span of time is a whole number and a unit: s, m, h or d, as in \"24h\"";
    let unit = text.chars().last().ok_or(FORM)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(FORM),
    };
    let digits = &text[..text.len() - unit.len_utf8()];
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(FORM);
    }
    let count: u64 = digits.parse().map_err(|_| "the span of time is too long")?;
    count.checked_mul(seconds).map(Duration::from_secs).ok_or("the span of time is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_a_unit_make_a_span() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("15m", 900), ("24h", 86_400), ("30d", 2_592_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "h", "24", "24 h", "-1h", "+1h", "1.5h", "24hours", "1é", "99999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_duration("999999999999999999d"), Err("the span of time is too long"));
    }
}
