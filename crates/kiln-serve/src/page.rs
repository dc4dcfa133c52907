//! The pages: one to try the models, and one with all routes. Each is a single file that fetches nothing from elsewhere.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

static INDEX: LazyLock<Page> = LazyLock::new(|| Page::new(include_str!("page/index.html")));
static DOCS: LazyLock<Page> = LazyLock::new(|| Page::new(include_str!("page/docs.html")));

pub async fn index() -> Response {
    INDEX.response()
}

pub async fn docs() -> Response {
    DOCS.response()
}

/// A page, and what a browser may do for it.
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
        let headers = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_SECURITY_POLICY, &self.policy),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_FRAME_OPTIONS, "DENY"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        (headers, self.html).into_response()
    }
}

/// The hashes of what stands between the tags of that name, as a policy allows it.
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
        for page in [&*INDEX, &*DOCS] {
            assert_eq!(page.policy.matches("'sha256-").count(), 2, "{}", page.policy);
            assert!(!page.policy.contains("unsafe"), "{}", page.policy);
            for attribute in
                [" style=", " onclick=", " onload=", "javascript:", "<script src", "https://", "http://www"]
            {
                let text = page.html.replace("http://www.w3.org/", "");
                assert!(!text.contains(attribute), "{attribute}");
            }
        }
        // Of SHA-256's own test vector.
        let hash = "'sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0='";
        assert_eq!(hashes("<style>abc</style>", "style"), hash);
    }
}
