use crate::{Column, Columns, Error, Place};

/// The positions of the columns of a [`crate::Source`], from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picks {
    pub(crate) text: usize,
    pub(crate) text_pair: Option<usize>,
    pub(crate) label: Option<usize>,
    pub(crate) flags: Vec<usize>,
}

impl Picks {
    /// Finds the columns by the names of a header or a schema.
    pub(crate) fn by_names(columns: &Columns, names: &[String], place: &Place) -> Result<Self, Error> {
        Self::find(columns, |column| match column {
            Column::Index(index) if *index < names.len() => Ok(*index),
            Column::Index(index) => Err(Error::FewFields { place: place.clone(), index: *index, fields: names.len() }),
            Column::Name(name) => {
                let mut positions = (0..names.len()).filter(|at| names[*at] == *name);
                let (place, name) = (place.clone(), name.clone());
                match (positions.next(), positions.next()) {
                    (Some(only), None) => Ok(only),
                    (Some(first), Some(second)) => Err(Error::DuplicateColumn { place, name, first, second }),
                    (None, _) => Err(Error::NoColumn { place, name, columns: names.to_vec() }),
                }
            }
        })
    }

    /// Uses the column indices as they are, for a file without column names.
    pub(crate) fn by_indices(columns: &Columns, path: &std::path::Path) -> Result<Self, Error> {
        Self::find(columns, |column| match column {
            Column::Index(index) => Ok(*index),
            Column::Name(_) => Err(Error::BadColumn {
                path: path.to_owned(),
                column: column.clone(),
                why: "the file is read without a header, so columns have no names: \
                      set `header = true`, or give the column's index, from 0",
            }),
        })
    }

    /// The columns to load, sorted and without duplicates, and the positions of the picks among them.
    pub(crate) fn projection(&self) -> (Vec<usize>, Self) {
        let single = [Some(self.text), self.text_pair, self.label].into_iter().flatten();
        let mut needed: Vec<usize> = single.chain(self.flags.iter().copied()).collect();
        needed.sort_unstable();
        needed.dedup();
        let within = |column: usize| needed.binary_search(&column).expect("the column was collected above");
        let picks = Self {
            text: within(self.text),
            text_pair: self.text_pair.map(within),
            label: self.label.map(within),
            flags: self.flags.iter().copied().map(within).collect(),
        };
        (needed, picks)
    }

    fn find(columns: &Columns, find: impl Fn(&Column) -> Result<usize, Error>) -> Result<Self, Error> {
        Ok(Self {
            text: find(&columns.text)?,
            text_pair: columns.text_pair.as_ref().map(&find).transpose()?,
            label: columns.label.as_ref().map(&find).transpose()?,
            flags: columns.flags.iter().map(|name| find(&Column::Name(name.clone()))).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_projection_has_each_column_once_and_in_order() {
        let picks = Picks { text: 6, text_pair: Some(2), label: Some(6), flags: vec![9] };
        let (needed, within) = picks.projection();
        assert_eq!(needed, [2, 6, 9]);
        assert_eq!(within, Picks { text: 1, text_pair: Some(0), label: Some(1), flags: vec![2] });
    }
}
