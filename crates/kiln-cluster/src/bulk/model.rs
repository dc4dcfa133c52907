use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use kiln_predict::{Embedder, Predictor};

use crate::{Error, Task};

/// A model that computes a column.
#[derive(Debug)]
pub enum Model {
    /// Returns JSON, as `kiln predict` writes it.
    Predictor(Box<Predictor>),
    /// Returns vectors, as `kiln embed` writes them.
    Embedder(Box<Embedder>),
}

impl Model {
    /// The type of the output column.
    pub(crate) fn data_type(&self) -> DataType {
        match self {
            Self::Predictor(_) => DataType::Utf8,
            Self::Embedder(embedder) => DataType::FixedSizeList(element(), width(embedder)),
        }
    }

    /// The output for each text, in their order.
    pub(crate) fn answer(&self, texts: &[(&str, Option<&str>)]) -> Result<ArrayRef, String> {
        match self {
            Self::Predictor(predictor) => {
                let predictions = predictor.predict(texts).map_err(|error| error.to_string())?;
                let lines = predictions.iter().map(serde_json::to_string);
                let lines = lines.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
                Ok(Arc::new(StringArray::from(lines)))
            }
            Self::Embedder(embedder) => {
                let vectors = embedder.embed(texts).map_err(|error| error.to_string())?;
                let values = Arc::new(Float32Array::from(vectors));
                let lists = FixedSizeListArray::try_new(element(), width(embedder), values, None);
                Ok(Arc::new(lists.map_err(|error| error.to_string())?))
            }
        }
    }
}

fn element() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Float32, false))
}

fn width(embedder: &Embedder) -> i32 {
    i32::try_from(embedder.width()).unwrap_or(i32::MAX)
}

type Open = dyn Fn(&Task) -> Result<Model, String> + Send + Sync;

/// Opens the model of a process, and knows its identity.
#[derive(Clone)]
pub struct ModelOpener {
    identity: String,
    open: Arc<Open>,
}

impl ModelOpener {
    /// `identity` is a digest of everything that the model's output depends on: its files, its precision, the program and
    /// the instruction set. An executor only computes shards of jobs with the same identity. If `open` cannot open the
    /// model, it returns the reason as text.
    pub fn new(identity: String, open: impl Fn(&Task) -> Result<Model, String> + Send + Sync + 'static) -> Self {
        Self { identity, open: Arc::new(open) }
    }

    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    pub(crate) fn open(&self, task: &Task) -> Result<Model, Error> {
        (self.open)(task).map_err(Error::Model)
    }
}

impl fmt::Debug for ModelOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelOpener").field("identity", &self.identity).finish_non_exhaustive()
    }
}
