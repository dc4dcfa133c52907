//! `/openapi.json`, generated from the types of the routes.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{health, hugging_face, open_ai, tei};

#[derive(OpenApi)]
#[openapi(
    info(title = "Kiln", description = "Serves models on your own machine, with the routes of existing clients."),
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

    use serde_json::{Value, json};

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

    /// The operations, with their paths.
    fn operations(json: &Value) -> Vec<(&str, &Value)> {
        let paths = json["paths"].as_object().expect("paths").iter();
        paths
            .flat_map(|(path, item)| {
                item.as_object().expect("operations").values().map(move |operation| (path.as_str(), operation))
            })
            .collect()
    }

    #[test]
    fn responses_are_described_and_operations_have_their_own_ids() {
        let json: Value = serde_json::from_str(&json()).expect("it is JSON");
        let mut ids = BTreeSet::new();
        for (path, operation) in operations(&json) {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(ids.insert(id), "{path}: `{id}` is the id of two operations");
            for (status, response) in operation["responses"].as_object().expect("responses") {
                assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{path}: {status}");
            }
            let content = &operation["responses"]["200"]["content"];
            assert!(content.as_object().is_some_and(|content| content.len() == 1), "{path}: {content}");
        }
        let metrics = &json["paths"]["/metrics"]["get"]["responses"]["200"]["content"];
        assert!(metrics["application/openmetrics-text"].is_object(), "{metrics}");
    }

    /// Whether a value fits a schema, as far as types, properties, items and alternatives are concerned.
    fn fits(json: &Value, schema: &Value, value: &Value) -> bool {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.trim_start_matches("#/components/schemas/");
            return fits(json, &json["components"]["schemas"][name], value);
        }
        if let Some(forms) = schema["oneOf"].as_array() {
            return forms.iter().filter(|form| fits(json, form, value)).count() == 1;
        }
        let is_type = |name: &Value| match name.as_str() {
            Some("null") => value.is_null(),
            Some("boolean") => value.is_boolean(),
            Some("integer") => value.is_u64() || value.is_i64(),
            Some("number") => value.is_number(),
            Some("string") => value.is_string(),
            Some("array") => {
                value.as_array().is_some_and(|items| items.iter().all(|item| fits(json, &schema["items"], item)))
            }
            Some("object") => value.is_object(),
            _ => false,
        };
        let has_type = match &schema["type"] {
            Value::Null => true,
            Value::Array(names) => names.iter().any(is_type),
            name => is_type(name),
        };
        let required = schema["required"].as_array().into_iter().flatten();
        let is_complete = required.filter_map(Value::as_str).all(|name| value.get(name).is_some());
        let properties = schema["properties"].as_object().into_iter().flatten();
        let is_right =
            |(name, schema): (&String, &Value)| value.get(name).is_none_or(|value| fits(json, schema, value));
        has_type && is_complete && properties.into_iter().all(is_right)
    }

    #[test]
    fn requests_fit_their_schemas() {
        let json: Value = serde_json::from_str(&json()).expect("it is JSON");
        let schema = |name: &str| &json["components"]["schemas"][name];
        let mut examples = 0;
        for (path, operation) in operations(&json) {
            let body = &operation["requestBody"]["content"]["application/json"]["schema"];
            if let Some(name) = body["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
                let example = &schema(name)["example"];
                assert!(example.is_object() && fits(&json, body, example), "{path}: {example}");
                examples += 1;
            }
        }
        assert_eq!(examples, 7, "of six routes, one of them with two paths");
        for (name, field, bodies) in [
            ("PredictRequest", "inputs", vec![json!("a"), json!(["a", "b"]), json!([["a"], ["a", "b"]])]),
            ("EmbedRequest", "inputs", vec![json!("a"), json!(["a", "b"])]),
            ("TokenizeRequest", "inputs", vec![json!("a"), json!(["a", "b"])]),
            ("EmbeddingsRequest", "input", vec![json!("a"), json!(["a", "b"])]),
            (
                "HuggingFaceRequest",
                "inputs",
                vec![
                    json!("a"),
                    json!(["a", { "text": "a", "text_pair": "b" }]),
                    json!({ "question": "a", "context": "b" }),
                ],
            ),
        ] {
            for inputs in bodies {
                let mut body = serde_json::Map::new();
                body.insert(field.to_owned(), inputs);
                assert!(fits(&json, schema(name), &Value::Object(body.clone())), "{name}: {body:?}");
            }
            assert!(
                !fits(&json, schema(name), &json!({})) && !fits(&json, schema(name), &json!({ field: 3 })),
                "{name}"
            );
        }
        let label = json!({ "label": "a", "score": 0.5 });
        for labels in [json!([label]), json!([[label], [label]])] {
            assert!(fits(&json, schema("Predictions"), &labels), "{labels}");
        }
        for response in [json!([[label]]), json!([0.5, 1.0]), json!({ "answer": "a" })] {
            assert!(fits(&json, schema("TaskResponse"), &response), "{response}");
        }
    }
}
