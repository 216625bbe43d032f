//! The output of commands: a table for people, JSON for scripts, on standard output.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;
use time::OffsetDateTime;

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
    let Ok(at) = OffsetDateTime::from_unix_timestamp(time_ms.div_euclid(1000)) else {
        // Past the year 9999: RFC 3339 has no form for it.
        return format!("{time_ms} ms");
    };
    let date = format!("{:04}-{:02}-{:02}", at.year(), u8::from(at.month()), at.day());
    format!("{date}T{:02}:{:02}:{:02}Z", at.hour(), at.minute(), at.second())
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
