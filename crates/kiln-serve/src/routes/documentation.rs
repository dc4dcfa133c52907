//! `/openapi.json`, generated from the types of the routes.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{health, hugging_face, open_ai, tei};

#[derive(OpenApi)]
#[openapi(
    info(title = "Kiln", description = "Models on one's own machine: the routes of the clients that are there already."),
    paths(
        hugging_face::answer,
        tei::predict,
        tei::embed,
        tei::rerank,
        tei::tokenize,
        tei::info,
        open_ai::embeddings,
        open_ai::models,
        open_ai::model,
        health::live,
        health::ready,
        health::server,
        health::model,
        health::model_ready,
        health::metrics,
    ),
    modifiers(&OtherPaths)
)]
struct Documentation;

/// Adds the second path of routes that have two, and the optional key.
struct OtherPaths;

impl Modify for OtherPaths {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        if let Some(item) = openapi.paths.paths.get("/").cloned() {
            let mut item = item;
            if let Some(operation) = &mut item.post {
                operation.operation_id = Some("answer_of_model".to_owned());
                let name = utoipa::openapi::path::ParameterBuilder::new()
                    .name("name")
                    .parameter_in(utoipa::openapi::path::ParameterIn::Path)
                    .required(utoipa::openapi::Required::True)
                    .schema(Some(utoipa::openapi::schema::Object::with_type(utoipa::openapi::schema::Type::String)))
                    .description(Some("The model's name"))
                    .build();
                operation.parameters = Some(vec![name.into()]);
            }
            openapi.paths.paths.insert("/models/{name}".to_owned(), item);
        }
        if let Some(mut item) = openapi.paths.paths.get("/v2/health/ready").cloned() {
            if let Some(operation) = &mut item.get {
                operation.operation_id = Some("health".to_owned());
            }
            openapi.paths.paths.insert("/health".to_owned(), item);
        }
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(bearer));
        let either = [
            utoipa::openapi::SecurityRequirement::default(),
            utoipa::openapi::SecurityRequirement::new("key", [""; 0]),
        ];
        openapi.security = Some(either.to_vec());
    }
}

/// The OpenAPI description of all routes.
pub fn json() -> String {
    Documentation::openapi().to_json().expect("it is JSON")
}

pub async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json()).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::routes::{OTHER, PAGES, ROUTES};

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let json: serde_json::Value = serde_json::from_str(&json()).expect("it is JSON");
        let described: BTreeSet<&str> = json["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
        // `POST /` is described. The page at `GET /` is not.
        let is_described = |route: &&str| *route == "/" || !PAGES.contains(route) && *route != OTHER;
        let served: BTreeSet<&str> = ROUTES.into_iter().filter(is_described).collect();
        assert_eq!(described, served);
    }

    /// Every schema that the description refers to is defined in it.
    #[test]
    fn its_references_lead_somewhere() {
        let text = json();
        let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let references: BTreeSet<&str> =
            text.split("\"$ref\":\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(references.contains("EmbeddingsRequest"), "{references:?}");
        for name in references {
            assert!(json["components"]["schemas"][name].is_object(), "{name}");
        }
    }
}
