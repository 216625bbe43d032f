//! Aligned columns for people.

use std::fmt::Write;

use super::Policy;

/// Prints `rows` under `titles`, each column as wide as its longest cell; the last one is not padded.
#[must_use]
pub(crate) fn columns<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([titles[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    line(&mut out, &titles, &widths);
    for row in rows {
        line(&mut out, &row.each_ref().map(String::as_str), &widths);
    }
    out
}

fn line(out: &mut String, cells: &[&str], widths: &[usize]) {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{cell:width$}  ");
    }
    out.push_str(text.trim_end());
    out.push('\n');
}

#[must_use]
pub(crate) fn rules(policy: &Policy) -> String {
    let row = |(index, rule): (usize, &super::Rule)| {
        [rule.label(index).to_string(), rule.applies_to_text(), rule.granted()]
    };
    let rows: Vec<[String; 3]> = policy.rules().iter().enumerate().map(row).collect();
    if rows.is_empty() {
        return "no rules: nobody may have anything\n".to_owned();
    }
    columns(["RULE", "ABOUT", "MAY HAVE"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell_and_lines_end_without_spaces() {
        let rows = [["a".to_owned(), "ß".to_owned()], ["long".to_owned(), String::new()]];
        assert_eq!(columns(["X", "Y"], &rows), "X     Y\na     ß\nlong\n");
    }
}
