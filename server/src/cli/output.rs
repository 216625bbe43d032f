//! The output of commands: a table for people, JSON for scripts, on standard output.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use super::Failure;
use crate::store::TimeMs;

/// The form of a result.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Prints `result` as one line of JSON, or else what `people` writes.
    pub(super) fn print<T: Serialize + ?Sized>(
        self,
        result: &T,
        people: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        self.write(&mut out, result, people).map_err(Failure::Output)
    }

    fn write<T: Serialize + ?Sized>(
        self,
        out: &mut dyn Write,
        result: &T,
        people: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut *out, result)?;
            writeln!(out)?;
        } else {
            people(out)?;
        }
        out.flush()
    }
}

/// Prints one line past the buffer of standard output, which would keep a token.
pub(super) fn print_line(line: &[u8]) -> Result<(), Failure> {
    let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(Failure::Output)?;
    File::from(stdout).write_all(line).map_err(Failure::Output)
}

/// Rows under headings, aligned; nothing else, so that it can be cut and grepped.
pub(super) fn table<const N: usize>(
    out: &mut dyn Write,
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    for row in rows {
        table.add_row(row.map(printable));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    writeln!(out, "{}", table.trim_fmt())
}

/// Names come from callers, so no escape sequence may reach a terminal.
fn printable(text: String) -> String {
    if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text }
}

/// A time, or a dash.
pub(super) fn optional_time(time_ms: Option<TimeMs>) -> String {
    time_ms.map_or_else(|| "-".to_owned(), time)
}

/// RFC 3339, in UTC, to the second.
pub(super) fn time(time_ms: TimeMs) -> String {
    let seconds = time_ms.div_euclid(1000);
    let (year, month, day) = date(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    let (hours, minutes) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{:02}Z", second % 60)
}

/// The Gregorian date of a day since 1970-01-01. Years are counted from March, so that the leap day ends one.
fn date(day: i64) -> (i64, i64, i64) {
    const DAYS_IN_400_YEARS: i64 = 146_097;
    const DAYS_TO_1970_FROM_MARCH_OF_YEAR_0: i64 = 719_468;
    let day = day + DAYS_TO_1970_FROM_MARCH_OF_YEAR_0;
    let (era, day) = (day.div_euclid(DAYS_IN_400_YEARS), day.rem_euclid(DAYS_IN_400_YEARS));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (400 * era + year + next_year, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (951_868_799_999, "2000-02-29T23:59:59Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ];
        for (time_ms, text) in cases {
            assert_eq!(time(time_ms), text);
        }
    }

    #[test]
    fn a_table_lets_no_escape_sequence_through() {
        let mut out = Vec::new();
        table(&mut out, ["NAME"], [["\u{1b}[2J".to_owned()]]).unwrap();
        assert!(!out.contains(&0x1b));
    }

    #[test]
    fn a_table_is_aligned_text_and_nothing_else() {
        let mut out = Vec::new();
        let rows = [["a", "1"], ["long", "2"]].map(|row| row.map(str::to_owned));
        table(&mut out, ["NAME", "N"], rows).unwrap();
        assert_eq!(out, b"NAME  N\na     1\nlong  2\n");
    }

    #[test]
    fn json_is_one_line() {
        let mut out = Vec::new();
        Output { json: true }.write(&mut out, &["a", "b"], |_| unreachable!()).unwrap();
        assert_eq!(out, b"[\"a\",\"b\"]\n");
    }
}
