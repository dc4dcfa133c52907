use crate::Error;

/// An absolute `http` or `https` address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    text: String,
    /// The length of `scheme://host:port` in `text`.
    origin_len: usize,
}

impl Url {
    /// Parses an address.
    ///
    /// # Errors
    /// [`Error::Address`] when it is not absolute, has another scheme, or contains a user name or password.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let expected = "expected http://host or https://host, without a user's name";
        let refuse = || Error::Address { address: without_query(text).to_owned(), expected };
        let (scheme, rest) = text.split_once("://").ok_or_else(refuse)?;
        let host = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        if host.contains('@') {
            // The address is not shown, because the part before the `@` may be a password.
            return Err(Error::Address { address: format!("{scheme}://***@…"), expected });
        }
        if !matches!(scheme, "http" | "https") || host.is_empty() {
            return Err(refuse());
        }
        Ok(Self { text: text.to_owned(), origin_len: scheme.len() + "://".len() + host.len() })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The address for messages. The query is removed, because for a content host it contains a signature.
    pub(crate) fn shown(&self) -> String {
        without_query(&self.text).to_owned()
    }

    pub(crate) fn is_https(&self) -> bool {
        self.text.starts_with("https:")
    }

    /// The host, with its port if given.
    pub(crate) fn host(&self) -> &str {
        let origin = &self.text[..self.origin_len];
        origin.split_once("://").map_or(origin, |(_, host)| host)
    }

    /// Whether scheme, host and port are the same, so that the token may be sent.
    pub(crate) fn same_origin(&self, other: &Self) -> bool {
        self.text[..self.origin_len].eq_ignore_ascii_case(&other.text[..other.origin_len])
    }

    /// This address followed by `path`, which begins with `/`.
    pub(crate) fn append(&self, path: &str) -> Self {
        Self { text: format!("{}{path}", self.text.trim_end_matches('/')), ..self.clone() }
    }

    /// The target of a `Location` header.
    ///
    /// # Errors
    /// [`Error::Address`] for a target that is not absolute and does not begin with `/`, and for one from `https` to
    /// `http`.
    pub(crate) fn redirect(&self, location: &str) -> Result<Self, Error> {
        let scheme = self.text.split(':').next().unwrap_or_default();
        let next = match location.strip_prefix("//") {
            Some(rest) => Self::parse(&format!("{scheme}://{rest}"))?,
            None if location.starts_with('/') => {
                Self { text: format!("{}{location}", &self.text[..self.origin_len]), ..self.clone() }
            }
            None => Self::parse(location)?,
        };
        if scheme == "https" && !next.text.starts_with("https:") {
            let expected = "a redirect from https must stay with https";
            return Err(Error::Address { address: next.shown(), expected });
        }
        Ok(next)
    }
}

/// Percent-encodes a name for an address. `/` is kept.
pub(crate) fn encoded(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn without_query(text: &str) -> &str {
    text.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).expect("an address")
    }

    #[test]
    fn names_of_any_kind_fit_into_an_address() {
        assert_eq!(encoded("data/年=1/a b+c?d#e%2F.tsv"), "data/%E5%B9%B4%3D1/a%20b%2Bc%3Fd%23e%252F.tsv");
    }

    #[test]
    fn origins() {
        let hub = url("https://hub.test/a");
        assert!(hub.same_origin(&url("https://HUB.test?x")));
        for other in ["http://hub.test/a", "https://hub.test:444/a", "https://hub.test.evil/a", "https://cdn.hub.test"]
        {
            assert!(!hub.same_origin(&url(other)), "{other}");
        }
    }

    #[test]
    fn redirects() {
        let hub = url("https://hub.test:8443/a/b?c");
        for (location, leads_to) in [
            ("/x?y", "https://hub.test:8443/x?y"),
            ("//cdn.test/x", "https://cdn.test/x"),
            ("https://cdn.test/x?sig=1", "https://cdn.test/x?sig=1"),
        ] {
            assert_eq!(hub.redirect(location).expect("an address").as_str(), leads_to);
        }
        for location in ["http://hub.test:8443/x", "x", "", "ftp://a/b", "file:///etc/passwd"] {
            assert!(hub.redirect(location).is_err(), "{location}");
        }
    }

    #[test]
    fn messages_hold_no_secrets() {
        assert_eq!(url("https://cdn.test/x?sig=secret").shown(), "https://cdn.test/x");
        let error = Url::parse("https://user:secret@hub.test").expect_err("a password").to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
