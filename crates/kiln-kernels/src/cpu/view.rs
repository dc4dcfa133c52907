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
    /// `rows × cols`, a row `row_step` after the other.
    ///
    /// # Panics
    /// When the slice ends before the matrix does.
    pub fn new(data: &'a [T], rows: usize, cols: usize, row_step: usize) -> Self {
        assert!(
            rows == 0 || (rows - 1) * row_step + cols <= data.len(),
            "{rows} rows of {cols}, {row_step} apart, in {}",
            data.len()
        );
        Self { data, rows, cols, row_step, col_step: 1 }
    }

    /// Rows and columns exchanged; no value moves.
    pub fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_step: self.col_step, col_step: self.row_step, ..self }
    }

    /// Its rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Its columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// From the row `start`, `count` rows.
    pub fn narrow(self, start: usize, count: usize) -> Self {
        assert!(start + count <= self.rows);
        Self { data: &self.data[(start * self.row_step).min(self.data.len())..], rows: count, ..self }
    }

    pub(super) fn at(&self, row: usize, col: usize) -> T
    where
        T: Copy,
    {
        self.data[row * self.row_step + col * self.col_step]
    }

    /// The row as a slice; `None` where it does not lie in one piece.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> Option<&'a [T]> {
        (self.col_step == 1).then(|| &self.data[row * self.row_step..][..self.cols])
    }

    /// What lies in memory from its first value on, and the distance of its rows, where each row lies in one piece.
    pub(super) fn contiguous_rows(&self) -> Option<(&'a [T], usize)> {
        (self.col_step == 1).then_some((self.data, self.row_step))
    }
}
