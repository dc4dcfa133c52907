use std::io::Read;
use std::thread;
use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::http::header::{ACCEPT_ENCODING, AUTHORIZATION, COOKIE, LOCATION, RANGE};
use ureq::http::{HeaderMap, Method, Request, Response};
use ureq::{Agent, Body, Proxy};

use crate::url::Url;
use crate::{Error, HubConfig, PullConfig, Secret};

/// How often a request is tried when nothing comes back, or a status that asks to come again.
const ATTEMPTS: u32 = 3;
/// Before the second attempt; longer before each further one.
pub(crate) const PAUSE: Duration = Duration::from_millis(200);
const MAX_REDIRECTS: usize = 10;
/// A silent peer is given up after this; each read starts anew, so that a slow large file is not.
const SILENCE: Duration = Duration::from_secs(30);
/// A listing of 3,000 files has about 2 MiB.
const MAX_JSON_BYTES: u64 = 64 << 20;

/// Speaks to one hub: repeats what is worth repeating, and follows redirects without taking the token along.
pub(crate) struct Client {
    agent: Agent,
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
        let proxy = match &config.proxy {
            None => None,
            Some(address) => Some(Proxy::new(address.expose()).map_err(|_| Error::Address {
                address: "the proxy's".to_owned(),
                expected: "expected http://host:port, https://host:port or socks5://host:port",
            })?),
        };
        let agent = Agent::config_builder()
            .proxy(proxy)
            .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .build()
            .new_agent();
        let endpoint = Url::parse(hub.endpoint.as_deref().unwrap_or(default_endpoint))?;
        Ok(Self { agent, endpoint, token: hub.token.clone(), token_cookie: None })
    }

    /// The same client, which also sends the token as the cookie `name`.
    pub(crate) fn with_token_cookie(self, name: &'static str) -> Self {
        Self { token_cookie: Some(name), ..self }
    }

    pub(crate) fn endpoint(&self) -> &Url {
        &self.endpoint
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

    fn send(&self, method: &Method, url: &Url, start: Option<u64>) -> Result<Response<Body>, Error> {
        let mut attempt = 1;
        loop {
            let result = self.agent.run(self.request(method, url, start)?);
            let again = match &result {
                Ok(response) => response.status().is_server_error() || response.status() == 429,
                Err(_) => true,
            };
            if !again || attempt == ATTEMPTS {
                return result.map_err(|source| Error::Request { address: url.shown(), source: Box::new(source) });
            }
            thread::sleep(PAUSE * attempt);
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
