//! Web pages: one to try the models, and Swagger UI with all routes. Neither loads anything from other hosts.

use std::sync::{Arc, LazyLock};

use axum::extract::Path;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use utoipa_swagger_ui::Config;

use crate::refusal::{Reason, Refusal};

static INDEX: LazyLock<Page> = LazyLock::new(|| Page::new(include_str!("page/index.html")));

pub async fn index() -> Response {
    INDEX.response()
}

/// Redirects to the folder of Swagger UI, because its files have relative links.
pub async fn docs() -> Redirect {
    Redirect::permanent("/docs/")
}

pub async fn swagger_ui() -> Response {
    swagger_ui_file(Path("index.html".to_owned())).await
}

pub async fn swagger_ui_file(Path(file): Path<String>) -> Response {
    /// Allows only its own files, and inline styles, which its scripts set.
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                          connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    // Otherwise Swagger UI would send the description to validator.swagger.io.
    let config = Config::from("/openapi.json").validator_url("none");
    match utoipa_swagger_ui::serve(&file, Arc::new(config)) {
        Ok(Some(found)) => (headers(&found.content_type, POLICY), found.bytes).into_response(),
        Ok(None) => {
            let message = format!("Swagger UI has no file `{file}`");
            Refusal::new(StatusCode::NOT_FOUND, Reason::NotFound, message).into_response()
        }
        Err(_) => Refusal::internal().into_response(),
    }
}

fn headers<'a>(content_type: &'a str, policy: &'a str) -> [(HeaderName, &'a str); 5] {
    [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-cache"),
    ]
}

/// A page and its content security policy.
struct Page {
    html: &'static str,
    policy: String,
}

impl Page {
    fn new(html: &'static str) -> Self {
        let [script, style] = ["script", "style"].map(|tag| hashes(html, tag));
        let policy = format!(
            "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        Self { html, policy }
    }

    fn response(&self) -> Response {
        (headers("text/html; charset=utf-8", &self.policy), self.html).into_response()
    }
}

/// The hashes of the contents of all `tag` elements, in the form of a content security policy.
fn hashes(html: &str, tag: &str) -> String {
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let contents = html.split(&open).skip(1).filter_map(|rest| rest.split(&close).next());
    let hash = |content: &str| format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(content)));
    contents.map(hash).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_allows_the_pages_own_script_and_style_alone() {
        assert_eq!(INDEX.policy.matches("'sha256-").count(), 2, "{}", INDEX.policy);
        assert!(!INDEX.policy.contains("unsafe"), "{}", INDEX.policy);
        let text = INDEX.html.replace("http://www.w3.org/", "");
        for attribute in [" style=", " onclick=", " onload=", "javascript:", "<script src", "https://", "http://www"] {
            assert!(!text.contains(attribute), "{attribute}");
        }
        // The test vector of SHA-256.
        let hash = "'sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0='";
        assert_eq!(hashes("<style>abc</style>", "style"), hash);
    }
}
