use std::time::Duration;

use ureq::{Agent, Proxy};

use crate::url::Url;
use crate::{Error, Patience, Proxies, Secret};

/// The timeout for a connection. It is short, because even a slow host accepts a connection quickly.
const CONNECT: Duration = Duration::from_secs(10);

/// The HTTP agents, which connect directly or through a proxy.
pub(crate) struct Agents {
    direct: Agent,
    http: Option<Agent>,
    https: Option<Agent>,
    /// Hosts, with an optional port, for which no proxy is used.
    exceptions: Vec<String>,
}

impl Agents {
    pub(crate) fn new(proxies: &Proxies, patience: &Patience) -> Result<Self, Error> {
        let through = |proxy: &Option<Secret>| match proxy {
            None => Ok(None),
            Some(address) => match Proxy::new(address.expose()) {
                Ok(proxy) => Ok(Some(agent(Some(proxy), patience))),
                Err(_) => Err(Error::Address {
                    // The address may contain a password.
                    address: "the proxy's".to_owned(),
                    expected: "expected http://host:port, https://host:port or socks5://host:port",
                }),
            },
        };
        let tidy = |host: &String| host.trim().trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
        Ok(Self {
            direct: agent(None, patience),
            http: through(&proxies.http)?,
            https: through(&proxies.https)?,
            exceptions: proxies.direct.iter().map(tidy).filter(|host| !host.is_empty()).collect(),
        })
    }

    /// The agent for an address.
    pub(crate) fn of(&self, url: &Url) -> &Agent {
        let proxied = if url.is_https() { &self.https } else { &self.http };
        proxied.as_ref().filter(|_| !self.is_exception(url.host())).unwrap_or(&self.direct)
    }

    /// Whether a host, with an optional port, is reached without a proxy.
    fn is_exception(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let without_port = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => name,
            _ => host.as_str(),
        };
        let is_below = |host: &str, known: &str| {
            host == known || host.strip_suffix(known).is_some_and(|above| above.ends_with('.'))
        };
        self.exceptions.iter().any(|known| known == "*" || is_below(&host, known) || is_below(without_port, known))
    }
}

fn agent(proxy: Option<Proxy>, patience: &Patience) -> Agent {
    Agent::config_builder()
        .proxy(proxy)
        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(CONNECT.min(patience.silence)))
        .timeout_recv_response(Some(patience.silence))
        .timeout_per_read(Some(patience.silence))
        .build()
        .new_agent()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_for_a_scheme_and_have_exceptions() {
        let secret = |text: &str| Some(Secret::from(text.to_owned()));
        let proxies = Proxies {
            https: secret("http://proxy.test:3128"),
            http: None,
            direct: ["hub.test", ".cn", "*.lan", "[::1]", "other.test:8080", " "].map(str::to_owned).to_vec(),
        };
        let agents = Agents::new(&proxies, &Patience::default()).expect("a proxy's address");
        let is_proxied = |text: &str| {
            let url = Url::parse(text).expect("an address");
            agents.of(&url).config().proxy().is_some()
        };
        for address in ["https://far.test", "https://myhub.test/x", "https://hub.test.far", "https://other.test:8081"] {
            assert!(is_proxied(address), "{address}");
        }
        for address in [
            "http://far.test",
            "https://hub.test/x",
            "https://CDN.Hub.test:444",
            "https://www.modelscope.cn/x",
            "https://a.lan",
            "https://[::1]:80/",
            "https://other.test:8080/x",
        ] {
            assert!(!is_proxied(address), "{address}");
        }
    }

    #[test]
    fn a_proxys_password_is_in_no_message() {
        let proxies = Proxies { https: Some(Secret::from("ftp://user:secret@x".to_owned())), ..Proxies::default() };
        let error = Agents::new(&proxies, &Patience::default()).err().expect("no such scheme");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
}
