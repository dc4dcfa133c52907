//! The SQL functions of the engine.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray, StringArray, UInt32Array, new_empty_array};
use datafusion::arrow::compute::{cast, take};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::error::DataFusionError;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::bulk::worker::Worker;
use crate::{Error, Model};

/// Registers `kiln_predict(text)` or `kiln_embed(text)` with a session, depending on the model. Both return null for null.
///
/// # Errors
/// When the session does not accept functions.
pub fn register(registry: &mut dyn FunctionRegistry, model: Model) -> Result<(), Error> {
    let function = ModelFunction {
        name: match model {
            Model::Predictor(_) => "kiln_predict",
            Model::Embedder(_) => "kiln_embed",
        },
        signature: Signature::uniform(
            1,
            vec![DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View],
            Volatility::Stable,
        ),
        model: Arc::new(model),
    };
    let registered = registry.register_udf(Arc::new(ScalarUDF::from(function)));
    registered.map(drop).map_err(|error| Error::Engine(error.to_string()))
}

/// A function that applies a model to a column of texts.
#[derive(Debug)]
struct ModelFunction {
    name: &'static str,
    signature: Signature,
    model: Arc<Model>,
}

impl ScalarUDFImpl for ModelFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.model.data_type())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [texts] = &ColumnarValue::values_to_arrays(&arguments.args)?[..] else {
            return exec_err!("{}: found {} arguments, expected a text", self.name, arguments.args.len());
        };
        let texts = cast(texts, &DataType::Utf8)?;
        let texts: &StringArray = texts.as_string::<i32>();
        let there: Vec<_> = texts.iter().flatten().map(|text| (text, None)).collect();
        let answers = rayon::scope(|_| self.model.answer(&there));
        let answers = answers.map_err(|reason| DataFusionError::Execution(format!("{}: {reason}", self.name)))?;
        // The index of each row's result; null if the row has no text.
        let mut next = 0..;
        let at: UInt32Array = texts.iter().map(|text| text.and_then(|_| next.next())).collect();
        Ok(ColumnarValue::Array(take(&answers, &at, None)?))
    }
}

impl PartialEq for ModelFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.model, &other.model)
    }
}

impl Eq for ModelFunction {}

impl Hash for ModelFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// `kiln_shard(job, number)` computes a shard of the job at an address and returns true. A scheduler has no worker.
#[derive(Debug)]
pub(crate) struct ShardFunction {
    signature: Signature,
    worker: Option<Arc<Worker>>,
}

/// The name of the function in plans.
pub(crate) const SHARD: &str = "kiln_shard";

impl ShardFunction {
    /// The function is volatile, because the planner must not evaluate it.
    pub fn new(worker: Option<Arc<Worker>>) -> Self {
        let arguments = TypeSignature::Exact(vec![DataType::Utf8, DataType::UInt64]);
        Self { signature: Signature::new(arguments, Volatility::Volatile), worker }
    }
}

impl ScalarUDFImpl for ShardFunction {
    fn name(&self) -> &str {
        SHARD
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if arguments.number_rows == 0 {
            let none: ArrayRef = new_empty_array(&DataType::Boolean);
            return Ok(ColumnarValue::Array(none));
        }
        let [
            ColumnarValue::Scalar(ScalarValue::Utf8(Some(job))),
            ColumnarValue::Scalar(ScalarValue::UInt64(Some(shard))),
        ] = &arguments.args[..]
        else {
            return exec_err!("{SHARD}: expected the address of a job and the number of a shard");
        };
        let Some(worker) = &self.worker else {
            return exec_err!("{SHARD}: this process has no model");
        };
        worker.compute(job, usize::try_from(*shard).unwrap_or(usize::MAX))?;
        Ok(ColumnarValue::Array(Arc::new(BooleanArray::from(vec![true; arguments.number_rows]))))
    }
}

impl PartialEq for ShardFunction {
    fn eq(&self, other: &Self) -> bool {
        self.worker.as_ref().map(Arc::as_ptr) == other.worker.as_ref().map(Arc::as_ptr)
    }
}

impl Eq for ShardFunction {}

impl Hash for ShardFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        SHARD.hash(state);
    }
}
