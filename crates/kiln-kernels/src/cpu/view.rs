/// The number of values that `rows` rows of `cols` span if they begin `row_step` apart. `None` if this overflows.
pub(super) fn extent(rows: usize, row_step: usize, cols: usize) -> Option<usize> {
    match rows.checked_sub(1) {
        None => Some(0),
        Some(last) => last.checked_mul(row_step)?.checked_add(cols),
    }
}

/// A matrix in a slice: any rectangle of a row-major matrix, or its transpose.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_step: usize,
    col_step: usize,
}

impl<'a, T> View<'a, T> {
    /// Views `data` as `rows × cols`, with rows `row_step` values apart.
    ///
    /// # Panics
    /// When the slice is too short for the matrix.
    pub fn new(data: &'a [T], rows: usize, cols: usize, row_step: usize) -> Self {
        assert!(
            extent(rows, row_step, cols).is_some_and(|extent| extent <= data.len()),
            "{rows} rows of {cols}, {row_step} apart, in {}",
            data.len()
        );
        Self { data, rows, cols, row_step, col_step: 1 }
    }

    /// Exchanges rows and columns without moving values.
    pub fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_step: self.col_step, col_step: self.row_step, ..self }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Selects `count` rows, starting at `start`.
    ///
    /// # Panics
    /// When a row is out of range.
    pub fn narrow(self, start: usize, count: usize) -> Self {
        let is_within = start.checked_add(count).is_some_and(|end| end <= self.rows);
        assert!(is_within, "{count} rows from row {start} of {}", self.rows);
        // A row that exists begins within the slice, so the product does not overflow. Without rows, `start` can be
        // anything.
        let first = if count == 0 { 0 } else { start * self.row_step };
        Self { data: &self.data[first..], rows: count, ..self }
    }

    /// Selects `count` columns, starting at `start`.
    ///
    /// # Panics
    /// When a column is out of range.
    pub fn columns(self, start: usize, count: usize) -> Self {
        self.transposed().narrow(start, count).transposed()
    }

    pub(super) fn at(&self, row: usize, col: usize) -> T
    where
        T: Copy,
    {
        self.data[row * self.row_step + col * self.col_step]
    }

    /// A row as a slice. `None` if the row is not contiguous.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> Option<&'a [T]> {
        (self.col_step == 1).then(|| &self.data[row * self.row_step..][..self.cols])
    }

    /// The values, and the distance between rows. `None` if the rows are not contiguous.
    pub(super) fn contiguous_rows(&self) -> Option<(&'a [T], usize)> {
        (self.col_step == 1).then_some((self.data, self.row_step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_whose_extent_overflows_are_refused() {
        let data = [0f32; 8];
        for (rows, cols, row_step) in [(3, 4, 1 << 63), (2, usize::MAX, 2), (usize::MAX, 1, usize::MAX), (2, 4, 5)] {
            let view = std::panic::catch_unwind(|| View::new(&data, rows, cols, row_step).rows());
            assert!(view.is_err(), "{rows} × {cols}, {row_step} apart");
        }
        assert_eq!(View::new(&data, 2, 4, 4).narrow(1, 1).row(0), Some(&data[4..]));
        assert!(std::panic::catch_unwind(|| View::new(&data, 2, 4, 4).narrow(usize::MAX, 2)).is_err());
        assert_eq!(View::<f32>::new(&[], 0, 4, usize::MAX).narrow(0, 0).rows(), 0);
    }
}
