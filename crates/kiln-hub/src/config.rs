use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::Hub;

/// How [`pull`](crate::pull) and [`pull_file`](crate::pull_file) reach the hubs, and where they keep what these send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullConfig {
    /// Makes no call at all: the answer comes from the cache, or is an error that names the file that is not there.
    pub offline: bool,
    /// What a user types before a source to have it fetched, for messages; none: `kiln pull`.
    pub command: Option<String>,
    /// Hubs to try, in this order, where a source's own cannot be reached.
    pub fallback: Vec<Hub>,
    /// The proxies between this machine and the hubs.
    pub proxies: Proxies,
    /// How long a hub is waited for.
    pub patience: Patience,
    /// Hugging Face, or a mirror of it.
    pub hugging_face: HubConfig,
    /// ModelScope.
    pub model_scope: HubConfig,
}

/// One hub's part of a [`PullConfig`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubConfig {
    /// Address of the hub (`HF_ENDPOINT`, `MODELSCOPE_ENDPOINT`);
    /// none: `https://huggingface.co`, `https://www.modelscope.cn`.
    pub endpoint: Option<String>,
    /// Root of the cache (`HF_HUB_CACHE` or `$HF_HOME/hub`, `MODELSCOPE_CACHE`);
    /// none: `~/.cache/huggingface/hub`, `~/.cache/modelscope`.
    pub cache_dir: Option<PathBuf>,
    /// What opens private repositories (`HF_TOKEN`, `MODELSCOPE_API_TOKEN`).
    /// It is sent to `endpoint` alone, not to the hosts that this redirects to.
    pub token: Option<Secret>,
}

/// Proxies, each `http://`, `https://` or `socks5://` and possibly with a password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `https://` addresses (`HTTPS_PROXY`); none: they are called directly.
    pub https: Option<Secret>,
    /// For `http://` addresses (`HTTP_PROXY`); none: they are called directly.
    pub http: Option<Secret>,
    /// Hosts that are called directly (`NO_PROXY`): each with those below it, with its port where it has one; `*` is all.
    pub direct: Vec<String>,
}

/// How long a hub is waited for, and how often it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How often something is tried before it is given up: a request to which nothing, 429 or a server's error comes
    /// back, and the rest of a download of which no further byte comes.
    pub attempts: u32,
    /// Before the second attempt; twice as long before each further one. A hub's `Retry-After` is heeded instead.
    pub pause: Duration,
    /// A hub that asks for a longer pause than this is given up.
    pub longest_pause: Duration,
    /// A peer that sends nothing for so long is given up. Each read begins anew, so that a slow large file is not.
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

/// A secret: it prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    /// Surrounding white space, such as a token file's last line end, is no part of a token.
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
