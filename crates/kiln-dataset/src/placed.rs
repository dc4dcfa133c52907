use kiln_schema::{Example, LabelId};

use crate::read::each_example;
use crate::{Error, Item, Names, Place, Record, Source};

/// A row with the place that it was read from, so that reports can refer to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed<T> {
    /// The row.
    pub item: T,
    /// The file and line of the row.
    pub place: Place,
}

impl<T: Item> Item for Placed<T> {
    const IS_WINDOWED: bool = T::IS_WINDOWED;

    fn texts(&self) -> (&str, Option<&str>) {
        self.item.texts()
    }

    fn source(&self) -> (&str, Option<&str>) {
        self.item.source()
    }

    fn labels(&self) -> &[LabelId] {
        self.item.labels()
    }

    fn stratum(&self) -> &[LabelId] {
        self.item.stratum()
    }
}

impl Record for Placed<Example> {
    fn read(source: &Source, names: &mut Names) -> Result<Vec<Self>, Error> {
        let mut rows = Vec::new();
        each_example(
            source,
            |label, place| names.required(label.one(place)?, place),
            |item, place| rows.push(Self { item, place: place() }),
        )?;
        Ok(rows)
    }

    fn renumber(&mut self, ids: &[LabelId]) {
        self.item.renumber(ids);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::file;

    use super::*;

    #[test]
    fn rows_keep_their_lines() {
        let file = file("a.tsv", "x\tb\n\ny\ta\n");
        let (rows, labels) =
            crate::read::<Placed<Example>>(std::slice::from_ref(&file.source), None).expect("two rows");
        let (plain, same) = crate::read::<Example>(std::slice::from_ref(&file.source), None).expect("two rows");
        assert_eq!(labels, same);
        assert_eq!(rows.iter().map(|row| row.item.clone()).collect::<Vec<_>>(), plain);
        assert_eq!(rows.iter().map(|row| row.place.line).collect::<Vec<_>>(), [1, 3]);
    }
}
