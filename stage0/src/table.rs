//! Tables for people: columns as wide as their widest cell.

use std::fmt::Write;

/// Lays out rows of cells, two spaces between columns, nothing behind the last.
pub(crate) fn lay_out(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  "); // Writing to a string does not fail.
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["A".into(), "LONG".into()],
            vec!["bcd".into(), "e".into()],
            vec![String::new(), "f".into()],
        ];
        assert_eq!(lay_out(&rows), "A    LONG\nbcd  e\n     f\n");
    }
}
