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
/// A listing of 3,000 files has about 2 MiB.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// Speaks to one hub: repeats what is worth repeating, and follows redirects without taking the token along.
pub(crate) struct Client {
    agents: Agents,
    patience: Patience,
    endpoint: Url,
    token: Option<Secret>,
    /// The cookie that carries the token besides the `Authorization` header, where the hub wants one.
    token_cookie: Option<&'static str>,
}

/// A response, and the address that gave it after all redirects.
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

    /// The same client, which also sends the token as the cookie `name`.
    pub(crate) fn with_token_cookie(self, name: &'static str) -> Self {
        Self { token_cookie: Some(name), ..self }
    }

    pub(crate) fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// How often something may be tried in vain.
    pub(crate) fn attempts(&self) -> u32 {
        self.patience.attempts.max(1)
    }

    /// Waits after the `attempt`th failure in a row, longer each time.
    pub(crate) fn pause(&self, attempt: u32) {
        thread::sleep(self.backoff(attempt));
    }

    fn backoff(&self, attempt: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
        self.patience.pause.saturating_mul(doubled).min(self.patience.longest_pause)
    }

    /// Asks what a file is. A redirect whose own headers `describe` the file is the answer; it leads to a host that
    /// knows less.
    pub(crate) fn head(&self, url: &Url, describes: impl Fn(&HeaderMap) -> bool) -> Result<Answer, Error> {
        self.follow(Method::HEAD, url, None, describes)
    }

    /// Asks for a file from the byte `start` on.
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

    /// Sends a request until it is answered by something other than 429 or a server's error.
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
        // Compression would change the length, and with it what a range means.
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
        // The builder's own message may show the header it chokes on, which may be the token.
        request.body(()).map_err(|_| Error::Address {
            address: url.shown(),
            expected: "expected an address, and a token, of visible ASCII characters",
        })
    }
}

/// How long a hub asks to be left alone, in seconds; none where it names a date instead.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

impl Answer {
    /// A header's text, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// The error that says what came instead of `expected`.
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
