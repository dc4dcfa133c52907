use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::routing::{get, post};

use crate::app::App;
use crate::observe::observe;
use crate::page;
use crate::refusal::{Reason, Refusal};

pub mod documentation;
mod health;
mod hugging_face;
mod labels;
mod open_ai;
mod schemas;
mod tei;
mod unsupported;
mod vectors;

/// All routes, with their names in logs and metrics.
pub const ROUTES: [&str; 22] = [
    "/",
    "/docs",
    "/docs/",
    "/docs/{*file}",
    "/embed",
    "/health",
    "/info",
    "/metrics",
    "/models/{name}",
    "/openapi.json",
    "/predict",
    "/rerank",
    "/tokenize",
    "/v1/embeddings",
    "/v1/models",
    "/v1/models/{name}",
    "/v2",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/{name}",
    "/v2/models/{name}/ready",
    OTHER,
];

/// The routes of pages for people. They reveal nothing about the models.
pub const PAGES: [&str; 5] = ["/", "/docs", "/docs/", "/docs/{*file}", "/openapi.json"];

/// The name of all other paths.
pub const OTHER: &str = "other";

/// Whether a route needs no key because it reveals nothing about the models.
pub fn is_open(method: &Method, route: &str) -> bool {
    let is_page = PAGES.contains(&route) && method != Method::POST;
    is_page || ["/health", "/v2/health/live", "/v2/health/ready"].contains(&route)
}

pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page::index).post(hugging_face::answer))
        .route("/models/{name}", post(hugging_face::answer))
        .route("/predict", post(tei::predict))
        .route("/embed", post(tei::embed))
        .route("/rerank", post(tei::rerank))
        .route("/tokenize", post(tei::tokenize))
        .route("/info", get(tei::info))
        .route("/v1/embeddings", post(open_ai::embeddings))
        .route("/v1/models", get(open_ai::models))
        .route("/v1/models/{name}", get(open_ai::model))
        .route("/health", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/v2", get(health::server))
        .route("/v2/health/live", get(health::live))
        .route("/v2/health/ready", get(health::ready))
        .route("/v2/models/{name}", get(health::model))
        .route("/v2/models/{name}/ready", get(health::model_ready))
        .route("/openapi.json", get(documentation::openapi))
        .route("/docs", get(page::docs))
        .route("/docs/", get(page::swagger_ui))
        .route("/docs/{*file}", get(page::swagger_ui_file))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(axum::middleware::from_fn_with_state(app.clone(), observe))
        .with_state(app)
}

async fn no_route() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, Reason::NotFound, "there is no such route; /docs lists all routes")
}

async fn no_method(request: Request) -> Refusal {
    let message = format!("this route does not support {}; /docs lists the methods", request.method());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Reason::NotFound, message)
}
