//! The middleware for every request: its id, its key, the log, the metrics, and panics.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::app::App;
use crate::call::Trace;
use crate::config::{Event, RequestEvent};
use crate::refusal::{Family, Reason, Refusal};
use crate::routes::{OTHER, ROUTES, is_open};

const REQUEST_ID: &str = "x-request-id";

pub async fn observe(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let family = Family::of(request.uri().path());
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = ROUTES.iter().copied().find(|route| Some(*route) == matched.as_deref()).unwrap_or(OTHER);
    let origin = request.headers().get(header::ORIGIN).cloned();
    let trace = Trace::default();
    request.extensions_mut().insert(trace.clone());

    let key = key_of(&app, &request, route);
    let unfinished = Unfinished(&app);
    let mut response = match &key {
        _ if is_preflight(&app, &request) => preflight(request.headers()),
        Err(refusal) => axum::response::IntoResponse::into_response(refusal.clone()),
        Ok(_) => match CatchPanic(pin!(next.run(request))).await {
            Some(response) => response,
            None => {
                app.metrics.panic();
                (app.config.log)(&Event::Panic { request: Some(id.clone()) });
                axum::response::IntoResponse::into_response(Refusal::internal())
            }
        },
    };
    std::mem::forget(unfinished);

    let refusal = response.extensions_mut().remove::<Refusal>().map(|refusal| refusal.of_family(family));
    if let Some(refusal) = &refusal {
        response = refusal.response(family);
    }
    add_headers(&app, &mut response, &id, origin);
    let (time, status, reason) = (start.elapsed(), response.status().as_u16(), refusal.map(|refusal| refusal.reason));
    let milliseconds = (time.as_secs_f64() * 1e6).round() / 1e3;
    let timing = HeaderValue::from_str(&format!("total;dur={milliseconds}")).expect("it is plain ASCII");
    response.headers_mut().insert("server-timing", timing);
    app.metrics.request(route, status, time, reason);
    let asked = trace.asked();
    (app.config.log)(&Event::Request(RequestEvent {
        request: id,
        method: method.to_string(),
        route,
        status,
        milliseconds,
        model: asked.map(|asked| asked.model.clone()),
        texts: asked.map_or(0, |asked| asked.texts),
        tokens: asked.map_or(0, |asked| asked.tokens),
        key: key.ok().flatten(),
        refusal: reason.map(Reason::name),
    }));
    response
}

/// The name of the request's key, or `None` when the request has none and needs none.
fn key_of(app: &App, request: &Request, route: &str) -> Result<Option<String>, Refusal> {
    let Some(keys) = app.keys() else { return Ok(None) };
    let authorization = request.headers().get(header::AUTHORIZATION);
    match authorization.and_then(|value| keys.name_of(value.as_bytes())) {
        Some(name) => Ok(Some(name.to_owned())),
        None if is_open(request.method(), route) => Ok(None),
        None => {
            let message = "expected the header `authorization: Bearer KEY` with a key of this server";
            Err(Refusal::new(StatusCode::UNAUTHORIZED, Reason::Unauthorized, message))
        }
    }
}

/// The client's request id if it is short and plain ASCII. Otherwise an id from [`next_id`].
fn request_id(headers: &HeaderMap) -> String {
    const MOST: usize = 64;
    let is_plain = |id: &&str| {
        !id.is_empty()
            && id.len() <= MOST
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(is_plain);
    given.map_or_else(next_id, str::to_owned)
}

/// A new id that differs from the other ids of this process and of earlier processes.
fn next_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
    format!("{now:x}-{:x}", COUNT.fetch_add(1, Ordering::Relaxed))
}

fn is_preflight(app: &App, request: &Request) -> bool {
    app.config.cors_origin.is_some()
        && request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Allows the headers that the page wants to send.
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = Response::new(axum::body::Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    response
}

fn add_headers(app: &App, response: &mut Response, id: &str, origin: Option<HeaderValue>) {
    let headers = response.headers_mut();
    let id = HeaderValue::from_str(id).expect("it is plain ASCII");
    headers.insert(REQUEST_ID, id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if let (Some(allowed), Some(origin)) = (&app.config.cors_origin, origin)
        && (allowed == "*" || allowed.as_bytes() == origin.as_bytes())
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
    }
}

/// Counts a request whose client disconnects before the response. The future of such a request is dropped.
struct Unfinished<'a>(&'a App);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.metrics.vanished();
    }
}

/// A future that returns `None` if the inner future panics.
struct CatchPanic<'a, F>(Pin<&'a mut F>);

impl<F: Future> Future for CatchPanic<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // After a panic the future is dropped and never polled again.
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Some(output)),
            Err(_) => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_id_is_kept_where_it_is_plain() {
        let id = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(value).expect("it is a header"));
            request_id(&headers)
        };
        assert_eq!(id("trace-7_a.b"), "trace-7_a.b");
        for other in ["", "two words", "\"quoted\"", &"a".repeat(65)] {
            assert_ne!(id(other), other);
        }
        assert_ne!(next_id(), next_id());
    }
}
