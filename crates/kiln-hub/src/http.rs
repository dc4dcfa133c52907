use std::io::Read;
use std::thread;
use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::Body;
use ureq::http::header::{ACCEPT_ENCODING, AUTHORIZATION, COOKIE, LOCATION, RANGE, RETRY_AFTER};
use ureq::http::{HeaderMap, Method, Request, Response};

use crate::agents::Agents;
use crate::url::Url;
use crate::{Error, HubConfig, Patience, PullConfig, Secret};

const MAX_REDIRECTS: usize = 10;
/// The maximum size of a JSON response. A listing of 3,000 files is about 2 MiB.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// An HTTP client for one hub. It retries failed requests, and follows redirects without sending the token to other
/// hosts.
pub(crate) struct Client {
    agents: Agents,
    patience: Patience,
    endpoint: Url,
    token: Option<Secret>,
    /// The cookie that also carries the token, in addition to the `Authorization` header, if the hub needs one.
    token_cookie: Option<&'static str>,
}

/// A response, and its address after all redirects.
pub(crate) struct Answer {
    pub(crate) url: Url,
    pub(crate) response: Response<Body>,
}

impl Client {
    pub(crate) fn new(config: &PullConfig, hub: &HubConfig, default_endpoint: &str) -> Result<Self, Error> {
        Ok(Self {
            agents: Agents::new(&config.proxies, &config.patience)?,
            patience: config.patience,
            endpoint: Url::parse(hub.endpoint.as_deref().unwrap_or(default_endpoint))?,
            token: hub.token.clone(),
            token_cookie: None,
        })
    }

    /// The same client, but it also sends the token in the cookie `name`.
    pub(crate) fn with_token_cookie(self, name: &'static str) -> Self {
        Self { token_cookie: Some(name), ..self }
    }

    pub(crate) fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// The maximum number of attempts.
    pub(crate) fn attempts(&self) -> u32 {
        self.patience.attempts.max(1)
    }

    /// Waits after failure number `attempt` in a row, longer each time.
    pub(crate) fn pause(&self, attempt: u32) {
        thread::sleep(self.backoff(attempt));
    }

    fn backoff(&self, attempt: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
        self.patience.pause.saturating_mul(doubled).min(self.patience.longest_pause)
    }

    /// Requests the headers of a file. A redirect is returned instead of followed if its headers describe the file
    /// (`describes`), because the host it leads to knows less.
    pub(crate) fn head(&self, url: &Url, describes: impl Fn(&HeaderMap) -> bool) -> Result<Answer, Error> {
        self.follow(Method::HEAD, url, None, describes)
    }

    /// Requests a file from byte `start` on.
    pub(crate) fn get(&self, url: &Url, start: u64) -> Result<Answer, Error> {
        self.follow(Method::GET, url, (start > 0).then_some(start), |_| false)
    }

    fn follow(
        &self,
        method: Method,
        url: &Url,
        start: Option<u64>,
        is_answer: impl Fn(&HeaderMap) -> bool,
    ) -> Result<Answer, Error> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(&method, &url, start)?;
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            match location {
                Some(location) if response.status().is_redirection() && !is_answer(response.headers()) => {
                    url = url.redirect(location)?;
                }
                _ => return Ok(Answer { url, response }),
            }
        }
        let found = format!("more than {MAX_REDIRECTS} redirects");
        Err(Error::Answer { address: url.shown(), expected: "a file", found })
    }

    /// Sends a request, and retries on status 429 and server errors.
    fn send(&self, method: &Method, url: &Url, start: Option<u64>) -> Result<Response<Body>, Error> {
        let agent = self.agents.of(url);
        let mut attempt = 1;
        loop {
            let (error, wait) = match agent.run(self.request(method, url, start)?) {
                Ok(response) if !response.status().is_server_error() && response.status() != 429 => {
                    return Ok(response);
                }
                Ok(response) => {
                    let asked = retry_after(response.headers());
                    let (address, status) = (url.shown(), response.status().as_u16());
                    (Error::Unavailable { address, status, retry_after: asked }, asked)
                }
                Err(source) => (Error::Request { address: url.shown(), source: Box::new(source) }, None),
            };
            let wait = wait.unwrap_or_else(|| self.backoff(attempt));
            if attempt >= self.attempts() || wait > self.patience.longest_pause {
                return Err(error);
            }
            thread::sleep(wait);
            attempt += 1;
        }
    }

    fn request(&self, method: &Method, url: &Url, start: Option<u64>) -> Result<Request<()>, Error> {
        // Compression would change the length, and the meaning of a range.
        let mut request = Request::builder().method(method).uri(url.as_str()).header(ACCEPT_ENCODING, "identity");
        if let Some(start) = start {
            request = request.header(RANGE, format!("bytes={start}-"));
        }
        if let Some(token) = self.token.as_ref().filter(|_| url.same_origin(&self.endpoint)) {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
            if let Some(name) = self.token_cookie {
                request = request.header(COOKIE, format!("{name}={}", token.expose()));
            }
        }
        // The builder's error may contain the invalid header, which may be the token.
        request.body(()).map_err(|_| Error::Address {
            address: url.shown(),
            expected: "expected an address, and a token, of visible ASCII characters",
        })
    }
}

/// The number of seconds in `Retry-After`; none if it is a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

impl Answer {
    /// The text of a header, if present.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// The error for a response that differs from `expected`.
    pub(crate) fn error(&self, expected: &'static str, found: impl Into<String>) -> Error {
        Error::Answer { address: self.url.shown(), expected, found: found.into() }
    }

    /// Reads the body as JSON.
    pub(crate) fn json<T: DeserializeOwned>(mut self) -> Result<T, Error> {
        let mut body = Vec::new();
        let read = self.response.body_mut().as_reader().take(MAX_JSON_BYTES).read_to_end(&mut body);
        read.map_err(|source| Error::Request { address: self.url.shown(), source: Box::new(source) })?;
        serde_json::from_slice(&body).map_err(|error| self.error("a listing in JSON", error.to_string()))
    }
}
