use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::Hub;

/// Settings of [`pull`](crate::pull) and [`pull_file`](crate::pull_file): how to reach the hubs, and where to cache
/// files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullConfig {
    /// Makes no network call. The result comes from the cache, or is an error that names the missing file.
    pub offline: bool,
    /// The command shown in messages that say how to fetch a source; `kiln pull` if none.
    pub command: Option<String>,
    /// Hubs to try in this order when a source's own hub cannot be reached.
    pub fallback: Vec<Hub>,
    /// The proxies for connections to the hubs.
    pub proxies: Proxies,
    /// Timeouts and retries.
    pub patience: Patience,
    /// Settings of Hugging Face or a mirror of it.
    pub hugging_face: HubConfig,
    /// Settings of ModelScope.
    pub model_scope: HubConfig,
}

/// Settings of one hub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubConfig {
    /// Address of the hub (`HF_ENDPOINT`, `MODELSCOPE_ENDPOINT`). If none: `https://huggingface.co`,
    /// `https://www.modelscope.cn`.
    pub endpoint: Option<String>,
    /// Root of the cache (`HF_HUB_CACHE` or `$HF_HOME/hub`, `MODELSCOPE_CACHE`). If none: `~/.cache/huggingface/hub`,
    /// `~/.cache/modelscope`.
    pub cache_dir: Option<PathBuf>,
    /// Access token for private repositories (`HF_TOKEN`, `MODELSCOPE_API_TOKEN`). It is sent only to `endpoint`, not
    /// to the hosts that the hub redirects to.
    pub token: Option<Secret>,
}

/// Proxy addresses. Each is an `http://`, `https://` or `socks5://` address, and may contain a password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Proxy for `https://` addresses (`HTTPS_PROXY`). If none, they are reached directly.
    pub https: Option<Secret>,
    /// Proxy for `http://` addresses (`HTTP_PROXY`). If none, they are reached directly.
    pub http: Option<Secret>,
    /// Hosts that are reached directly (`NO_PROXY`). An entry includes subdomains, and applies only to its port if it
    /// has one. `*` matches all hosts.
    pub direct: Vec<String>,
}

/// Timeouts and retries for requests to a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The number of attempts, for a request that gets no response, status 429 or a server error, and for a download
    /// that receives no further byte.
    pub attempts: u32,
    /// The pause before the second attempt, doubled before each further one. A `Retry-After` from the hub replaces it.
    pub pause: Duration,
    /// The longest pause that is accepted. If a hub asks for a longer one, the request fails.
    pub longest_pause: Duration,
    /// The longest time to wait for data. It restarts with each read, so a slow download of a large file does not time
    /// out.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 5,
            pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(120),
            silence: Duration::from_secs(30),
        }
    }
}

/// A secret. It is printed as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    /// Removes surrounding white space, such as the final line end of a token file.
    fn from(secret: String) -> Self {
        Self(secret.trim().to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_do_not_print() {
        let token = Some(Secret::from("hf_secret\n".to_owned()));
        let https = Some(Secret::from("http://user:secret@proxy.test".to_owned()));
        let config = PullConfig {
            hugging_face: HubConfig { token, ..HubConfig::default() },
            proxies: Proxies { https, ..Proxies::default() },
            ..PullConfig::default()
        };
        assert!(!format!("{config:?}").contains("secret"));
        assert_eq!(config.hugging_face.token.as_ref().map(Secret::expose), Some("hf_secret"));
    }
}
