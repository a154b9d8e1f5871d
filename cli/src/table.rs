//! Columns as Consul prints them.

/// Spaces between the columns of lists.
pub(crate) const LIST_GAP: usize = 2;
/// Spaces between the columns of details.
pub(crate) const DETAIL_GAP: usize = 6;

/// Lines of `rows` in columns that are as wide as their widest cell, `gap` spaces apart. No line ends in spaces.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]], gap: usize) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width + gap - cell.chars().count()));
            }
            line.truncate(line.trim_end_matches(' ').len());
            line
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_where_their_text_ends() {
        let rows = [["Node", "Address", "Note"], ["a-long-name", "10.0.0.1", ""], ["é", "", "x"]];
        let rows = rows.map(|row| row.map(str::to_owned));
        assert_eq!(
            columns(&rows, LIST_GAP),
            ["Node         Address   Note", "a-long-name  10.0.0.1", "é                      x"]
        );
    }

    #[test]
    fn no_rows_are_no_lines() {
        assert!(columns::<3>(&[], DETAIL_GAP).is_empty());
    }
}
