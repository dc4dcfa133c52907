use std::fmt;
use std::path::PathBuf;

/// How [`pull`](crate::pull) reaches the hubs, and where it keeps what they send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PullConfig {
    /// Makes no call at all: the answer comes from the cache, or is an error that names the file that is not there.
    pub offline: bool,
    /// `http://`, `https://` or `socks5://` address of a proxy (`HTTPS_PROXY`), which may hold a password; none: the hubs are called directly.
    pub proxy: Option<Secret>,
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
        let config = PullConfig { hugging_face: HubConfig { token, ..HubConfig::default() }, ..PullConfig::default() };
        assert!(!format!("{config:?}").contains("secret"));
        assert_eq!(config.hugging_face.token.as_ref().map(Secret::expose), Some("hf_secret"));
    }
}
