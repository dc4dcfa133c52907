//! Adds the model's output to a batch of rows, and removes the rows that have no text or no output.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use datafusion::arrow::compute::{cast, concat, filter_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::Serialize;

use crate::{BadRows, Columns, Error, Model, Task};

/// A row that is left out.
#[derive(Debug, Serialize)]
pub(crate) struct BadRow {
    pub file: String,
    /// The position of the row in the file, from 0.
    pub row: u64,
    pub reason: String,
}

/// Computes the output for the rows of a file.
pub(crate) struct Answering<'a> {
    pub model: &'a Model,
    pub columns: &'a Columns,
    pub bad_rows: BadRows,
    /// The address of the file, for errors.
    pub address: &'a str,
}

/// The schema of the input with the output column added.
pub(crate) fn with_answers(schema: &Schema, task: &Task, model: &Model) -> SchemaRef {
    let answers = Arc::new(Field::new(task.column(), model.data_type(), false));
    let fields: Vec<_> = schema.fields().iter().cloned().chain([answers]).collect();
    Arc::new(Schema::new(fields))
}

impl Answering<'_> {
    /// The rows with their output in `schema`, and the rows that are left out. `first_row` is the position of the first row.
    pub fn answer(
        &self,
        batch: &RecordBatch,
        schema: &SchemaRef,
        first_row: u64,
    ) -> Result<(RecordBatch, Vec<BadRow>), Error> {
        let text = self.texts(batch, &self.columns.text)?;
        let pair = self.columns.text_pair.as_deref().map(|name| self.texts(batch, name)).transpose()?;
        let mut reasons: Vec<Option<String>> =
            (0..batch.num_rows()).map(|row| self.missing(row, &text, pair.as_ref())).collect();
        let of_row = |row: usize| (text.value(row), pair.as_ref().map(|pair| pair.value(row)));
        let rows: Vec<usize> = (0..batch.num_rows()).filter(|row| reasons[*row].is_none()).collect();
        let texts: Vec<_> = rows.iter().map(|row| of_row(*row)).collect();
        let answers = match self.model.answer(&texts) {
            Ok(answers) => answers,
            // The texts are computed one by one, to find those that fail.
            Err(_) => {
                let mut answers = Vec::new();
                for (row, text) in rows.iter().zip(&texts) {
                    match self.model.answer(std::slice::from_ref(text)) {
                        Ok(answer) => answers.push(answer),
                        Err(reason) => reasons[*row] = Some(reason),
                    }
                }
                self.joined(&answers)?
            }
        };
        let bad_rows: Vec<BadRow> = (first_row..)
            .zip(&reasons)
            .filter_map(|(row, reason)| Some(BadRow { file: self.address.to_owned(), row, reason: reason.clone()? }))
            .collect();
        if let (BadRows::Fail, Some(BadRow { row, reason, .. })) = (self.bad_rows, bad_rows.first()) {
            return Err(Error::place(self.address, format!("row {row} (from 0): {reason}")));
        }
        let is_good: BooleanArray = reasons.iter().map(|reason| Some(reason.is_none())).collect();
        Ok((self.with_column(batch, &is_good, (schema, answers))?, bad_rows))
    }

    fn texts(&self, batch: &RecordBatch, name: &str) -> Result<StringArray, Error> {
        let column = batch.column_by_name(name);
        let column = column.ok_or_else(|| Error::place(self.address, format!("found no column `{name}`")))?;
        let texts = cast(column, &DataType::Utf8);
        let texts = texts.map_err(|error| Error::place(self.address, format!("column `{name}`: {error}")))?;
        Ok(texts.as_string::<i32>().clone())
    }

    /// Why a row cannot be computed, if it lacks a text.
    fn missing(&self, row: usize, text: &StringArray, pair: Option<&StringArray>) -> Option<String> {
        let found = |name: &str| Some(format!("column `{name}`: found null, expected text"));
        match &self.columns.text_pair {
            _ if text.is_null(row) => found(&self.columns.text),
            Some(name) if pair.is_some_and(|pair| pair.is_null(row)) => found(name),
            _ => None,
        }
    }

    fn joined(&self, answers: &[ArrayRef]) -> Result<ArrayRef, Error> {
        if answers.is_empty() {
            return Ok(datafusion::arrow::array::new_empty_array(&self.model.data_type()));
        }
        let arrays: Vec<&dyn Array> = answers.iter().map(AsRef::as_ref).collect();
        concat(&arrays).map_err(|error| Error::place(self.address, error.to_string()))
    }

    fn with_column(
        &self,
        batch: &RecordBatch,
        is_good: &BooleanArray,
        (schema, answers): (&SchemaRef, ArrayRef),
    ) -> Result<RecordBatch, Error> {
        let add = || {
            let good = filter_record_batch(batch, is_good)?;
            let columns = good.columns().iter().cloned().chain([answers]).collect();
            RecordBatch::try_new(schema.clone(), columns)
        };
        add().map_err(|error| Error::place(self.address, error.to_string()))
    }
}
