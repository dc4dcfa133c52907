//! Health, metadata and metrics of the server. None of these routes waits for the queue.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::call::{Name, json};
use crate::model::{Ability, Model};
use crate::refusal::{Reason, Refusal};

/// Whether the server is live or ready.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthState {
    /// Always true. A server that is not live does not respond.
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<bool>,
    /// Always true. A server that is not ready responds with 503.
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<bool>,
}

#[utoipa::path(
    get, path = "/v2/health/live", tag = "Health",
    responses((status = 200, description = "The server is live", body = HealthState))
)]
pub async fn live() -> Result<Response, Refusal> {
    json(&HealthState { live: Some(true), ready: None })
}

#[utoipa::path(
    get, path = "/v2/health/ready", tag = "Health",
    responses(
        (status = 200, description = "The server is ready", body = HealthState),
        (status = 503, description = "The server is shutting down"),
    )
)]
pub async fn ready(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    if app.is_draining() {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Reason::Closing, "the server is shutting down"));
    }
    json(&HealthState { live: None, ready: Some(true) })
}

#[utoipa::path(
    get, path = "/metrics", tag = "Health",
    responses(
        (
            status = 200, description = "Counters in the text format of OpenMetrics", body = String,
            content_type = "application/openmetrics-text",
        ),
    )
)]
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], app.metrics.text(app.queue.waiting_tokens())).into_response()
}

/// Metadata of the server.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    extensions: [&'static str; 0],
}

#[utoipa::path(
    get, path = "/v2", tag = "Health",
    responses((status = 200, description = "Metadata of the server", body = ServerMetadata))
)]
pub async fn server() -> Result<Response, Refusal> {
    json(&ServerMetadata { name: "kiln", version: env!("CARGO_PKG_VERSION"), extensions: [] })
}

/// Metadata of a model, in KServe's form.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelMetadata {
    name: String,
    platform: &'static str,
    /// One or two texts.
    inputs: Vec<TensorMetadata>,
    outputs: Vec<TensorMetadata>,
}

/// An input or an output of a model.
#[derive(Debug, Serialize, ToSchema)]
pub struct TensorMetadata {
    name: &'static str,
    datatype: &'static str,
    /// The dimensions; -1 is any number.
    shape: Vec<i64>,
}

impl ModelMetadata {
    fn new(model: &Model) -> Self {
        let texts = TensorMetadata { name: "inputs", datatype: "BYTES", shape: vec![-1] };
        let output = match model.ability() {
            Ability::Labels | Ability::Number => {
                TensorMetadata { name: "scores", datatype: "FP64", shape: vec![-1, model.labels().len() as i64] }
            }
            Ability::Vectors => {
                TensorMetadata { name: "vectors", datatype: "FP32", shape: vec![-1, model.width() as i64] }
            }
            Ability::Tags | Ability::Answers | Ability::Masks => {
                TensorMetadata { name: "passages", datatype: "BYTES", shape: vec![-1] }
            }
        };
        Self { name: model.name.clone(), platform: "kiln", inputs: vec![texts], outputs: vec![output] }
    }
}

#[utoipa::path(
    get, path = "/v2/models/{name}", tag = "Health", params(("name" = String, Path, description = "The model's name")),
    operation_id = "kserve_model",
    responses(
        (status = 200, description = "Metadata of the model", body = ModelMetadata),
        (status = 404, description = "No such model"),
    )
)]
pub async fn model(State(app): State<Arc<App>>, Name(name): Name) -> Result<Response, Refusal> {
    json(&ModelMetadata::new(&*app.model(Some(&name), |_| true, "answers")?))
}

#[utoipa::path(
    get, path = "/v2/models/{name}/ready", tag = "Health",
    params(("name" = String, Path, description = "The model's name")),
    responses(
        (status = 200, description = "The model is ready", body = HealthState),
        (status = 404, description = "No such model"), (status = 503, description = "The server is shutting down"),
    )
)]
pub async fn model_ready(State(app): State<Arc<App>>, Name(name): Name) -> Result<Response, Refusal> {
    app.model(Some(&name), |_| true, "answers")?;
    ready(State(app)).await
}
