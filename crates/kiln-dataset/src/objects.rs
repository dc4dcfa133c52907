use serde_json::{Map, Value};

use crate::columnar::{Cursor, Table, value};
use crate::error::Unit;
use crate::lines::Lines;
use crate::{Error, Format, Place, Source, arrow, parquet};

/// A row whose cells may be lists and structs.
pub(crate) struct Object {
    /// The cells by the names of their columns. In Parquet and Arrow, numbers and booleans are text, and ids of classes are
    /// the names of the classes.
    pub(crate) cells: Map<String, Value>,
    pub(crate) place: Place,
}

/// The rows of a file.
pub(crate) type Objects = Box<dyn Iterator<Item = Result<Object, Error>>>;

/// Reads the rows of a JSON Lines, Parquet or Arrow file. Of Parquet and Arrow, only the columns `names` are read; at least
/// one of them must be there.
pub(crate) fn objects(source: &Source, names: &[&str]) -> Result<Objects, Error> {
    match source.format()? {
        Format::Parquet => of_table(parquet::open(source)?, names),
        Format::Arrow => of_table(arrow::open(source)?, names),
        _ => {
            let mut lines = Lines::open(source)?;
            Ok(Box::new(std::iter::from_fn(move || {
                let line = lines.next_filled_line().transpose()?;
                let place = lines.place();
                Some(line.and_then(|line| match serde_json::from_str(&line) {
                    Ok(cells) => Ok(Object { cells, place }),
                    Err(source) => Err(Error::Json { place, source }),
                }))
            })))
        }
    }
}

fn of_table(table: Table, names: &[&str]) -> Result<Objects, Error> {
    let place = |line| Place { path: table.path.clone(), line, unit: Unit::Row };
    let found = |name: &&String| names.contains(&name.as_str());
    let columns: Vec<(usize, String)> =
        table.names.iter().enumerate().filter(|(_, name)| found(name)).map(|(at, name)| (at, name.clone())).collect();
    if columns.is_empty() {
        let name = names[0].to_owned();
        return Err(Error::NoColumn { place: place(1), name, columns: table.names });
    }
    let classes: Vec<_> = columns.iter().map(|(_, name)| table.features.class_names(name)).collect();
    let (positions, columns): (Vec<usize>, Vec<String>) = columns.into_iter().unzip();
    let (path, mut cursor) = (table.path, Cursor::new((table.read)(positions)?));
    Ok(Box::new(std::iter::from_fn(move || {
        let row = cursor.next()?.and_then(|(batch, at, row)| {
            let place = Place { path: path.clone(), line: row, unit: Unit::Row };
            let mut cells = Map::new();
            for ((name, array), classes) in columns.iter().zip(batch).zip(&classes) {
                let cell = value(array.as_ref(), at, classes.as_deref()).map_err(|found| Error::Cell {
                    place: place.clone(),
                    column: crate::Column::Name(name.clone()),
                    found,
                })?;
                cells.insert(name.clone(), cell);
            }
            Ok(Object { cells, place })
        });
        Some(row)
    })))
}
