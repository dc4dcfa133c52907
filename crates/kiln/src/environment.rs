//! The environment variables, many of which are those of Hugging Face's and ModelScope's Python clients. No other file
//! reads any.

use std::env::var_os;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_hub::{Hub, HubConfig, Patience, Proxies, PullConfig, Secret};

/// Where checkpoints and data sets are cached, and whether hubs may be contacted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubOptions {
    /// The cache folder; `None` uses the folders of the Python clients.
    pub cache_dir: Option<PathBuf>,
    /// Whether to make no network requests.
    pub offline: bool,
}

/// The config for downloads. Arguments take precedence over the environment. `fallback` are the recipe's fallback hubs.
pub fn pull_config(arguments: &HubOptions, fallback: &[Hub]) -> PullConfig {
    Variables { read: &|name| var_os(name), home: std::env::home_dir() }.pull_config(arguments, fallback)
}

/// Kiln's own cache folder, for features of frozen encoders, outputs of teachers and the unpacked sample.
pub fn cache_folder() -> PathBuf {
    let variables = Variables { read: &|name| var_os(name), home: std::env::home_dir() };
    variables
        .path("KILN_CACHE")
        .or_else(|| Some(variables.caches()?.join("kiln")))
        .unwrap_or_else(|| std::env::temp_dir().join("kiln"))
}

/// The number of processes that a launcher started together, including this one; `None` if there was no launcher. Supports
/// Open MPI, MPICH and Slurm.
pub fn started_together() -> Option<usize> {
    Variables { read: &|name| var_os(name), home: None }.started_together()
}

/// The local rank of this process, from 0, among those that a launcher started on the same machine; 0 if there was no
/// launcher.
pub fn number_on_machine() -> usize {
    Variables { read: &|name| var_os(name), home: None }.number_on_machine()
}

/// How long processes that train together wait for each other before they fail.
pub fn mpi_timeout() -> Duration {
    let variables = Variables { read: &|name| var_os(name), home: None };
    let seconds = variables.text("KILN_MPI_TIMEOUT").and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(600))
}

/// The settings of object stores, from the variables of the AWS command line: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` and
/// so on.
pub fn store_settings() -> Vec<(String, String)> {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).filter(|(name, _)| name.starts_with("AWS_")).collect()
}

/// Whether `RUST_BACKTRACE` enables backtraces of panics.
pub fn wants_backtrace() -> bool {
    var_os("RUST_BACKTRACE").is_some_and(|value| value != "0")
}

/// The environment, which tests can replace. An empty variable counts as unset.
struct Variables<'a> {
    read: &'a dyn Fn(&str) -> Option<OsString>,
    home: Option<PathBuf>,
}

impl Variables<'_> {
    fn pull_config(&self, arguments: &HubOptions, fallback: &[Hub]) -> PullConfig {
        let cache_dir = |from_environment: Option<PathBuf>| arguments.cache_dir.clone().or(from_environment);
        let mut patience = Patience::default();
        let seconds = self.text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|seconds| seconds.parse().ok());
        if let Some(seconds @ 1..) = seconds {
            patience.silence = Duration::from_secs(seconds);
        }
        PullConfig {
            offline: arguments.offline || self.is_true("HF_HUB_OFFLINE") || self.is_true("TRANSFORMERS_OFFLINE"),
            command: arguments.cache_dir.as_ref().map(|folder| format!("kiln pull --cache-dir {}", folder.display())),
            fallback: fallback.to_vec(),
            proxies: self.proxies(),
            patience,
            hugging_face: HubConfig {
                endpoint: self.text("HF_ENDPOINT"),
                cache_dir: cache_dir(self.hugging_face_cache()),
                token: self.hugging_face_token(),
            },
            model_scope: HubConfig {
                endpoint: self.text("MODELSCOPE_ENDPOINT").map(with_scheme),
                cache_dir: cache_dir(self.path("MODELSCOPE_CACHE")),
                token: self.text("MODELSCOPE_API_TOKEN").map(Secret::from),
            },
        }
    }

    fn started_together(&self) -> Option<usize> {
        let launchers =
            [("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"), ("PMIX_RANK", "SLURM_NTASKS")];
        let (_, size) = launchers.into_iter().find(|(rank, _)| self.text(rank).is_some())?;
        Some(self.text(size).and_then(|size| size.parse().ok()).unwrap_or(1))
    }

    fn number_on_machine(&self) -> usize {
        let names = ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"];
        let number = names.into_iter().find_map(|name| self.text(name)).and_then(|number| number.parse().ok());
        number.filter(|_| self.started_together().is_some()).unwrap_or(0)
    }

    fn proxies(&self) -> Proxies {
        let first =
            |names: [&str; 4]| names.into_iter().find_map(|name| self.text(name)).map(with_http).map(Secret::from);
        let direct = ["NO_PROXY", "no_proxy"].into_iter().find_map(|name| self.text(name)).unwrap_or_default();
        Proxies {
            https: first(["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
            http: first(["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]),
            direct: direct.split(',').map(|host| host.trim().to_owned()).filter(|host| !host.is_empty()).collect(),
        }
    }

    /// The cache folder that Python's `huggingface_hub` uses.
    fn hugging_face_cache(&self) -> Option<PathBuf> {
        let given = self.path("HF_HUB_CACHE").or_else(|| self.path("HUGGINGFACE_HUB_CACHE"));
        given.or_else(|| Some(self.hugging_face_home()?.join("hub")))
    }

    fn hugging_face_home(&self) -> Option<PathBuf> {
        self.path("HF_HOME").or_else(|| Some(self.caches()?.join("huggingface")))
    }

    /// The token from a variable, or the one stored by `hf auth login`.
    fn hugging_face_token(&self) -> Option<Secret> {
        let named = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].into_iter().find_map(|name| self.text(name));
        let stored = || {
            let path = self.path("HF_TOKEN_PATH").or_else(|| Some(self.hugging_face_home()?.join("token")))?;
            // If there is no file, nobody has logged in.
            let token = std::fs::read_to_string(path).ok()?;
            Some(token).filter(|token| !token.trim().is_empty())
        };
        let stored = || if self.is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") { None } else { stored() };
        named.or_else(stored).map(Secret::from)
    }

    /// The user's cache folder.
    fn caches(&self) -> Option<PathBuf> {
        self.path("XDG_CACHE_HOME").or_else(|| Some(self.home.as_ref()?.join(".cache")))
    }

    fn text(&self, name: &str) -> Option<String> {
        (self.read)(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty())
    }

    /// A path. A leading `~` is the home folder, as in the Python clients.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let path = PathBuf::from((self.read)(name).filter(|value| !value.is_empty())?);
        match (path.strip_prefix(Path::new("~")), &self.home) {
            (Ok(below), Some(home)) => Some(home.join(below)),
            _ => Some(path),
        }
    }

    /// Whether a switch is on, by the rules of Python's `huggingface_hub`.
    fn is_true(&self, name: &str) -> bool {
        let value = self.text(name).unwrap_or_default();
        ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
    }
}

/// Endpoints without a scheme use HTTPS.
fn with_scheme(address: String) -> String {
    if address.contains("://") { address } else { format!("https://{address}") }
}

/// Proxies without a scheme use HTTP, as in other programs.
fn with_http(address: String) -> String {
    if address.contains("://") { address } else { format!("http://{address}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)], arguments: &HubOptions) -> PullConfig {
        let read = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        Variables { read: &read, home: Some("/home/me".into()) }.pull_config(arguments, &[Hub::ModelScope])
    }

    #[test]
    fn the_caches_are_those_of_pythons_clients() {
        let none = HubOptions { cache_dir: None, offline: false };
        for (variables, expected) in [
            (&[][..], "/home/me/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/c")], "/c/huggingface/hub"),
            (&[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/c")], "/home/me/hf/hub"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/hf")], "/old"),
            (&[("HF_HUB_CACHE", "/new"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/new"),
            (&[("HF_HUB_CACHE", ""), ("HF_HOME", "/hf")], "/hf/hub"),
        ] {
            assert_eq!(config(variables, &none).hugging_face.cache_dir, Some(expected.into()), "{variables:?}");
        }
        let model_scope = config(&[("MODELSCOPE_CACHE", "~/ms")], &none).model_scope;
        assert_eq!(model_scope.cache_dir, Some("/home/me/ms".into()));
        let given = HubOptions { cache_dir: Some("/given".into()), offline: true };
        let config = config(&[("HF_HUB_CACHE", "/new"), ("MODELSCOPE_CACHE", "/ms")], &given);
        assert_eq!(
            (config.hugging_face.cache_dir, config.model_scope.cache_dir),
            (given.cache_dir.clone(), given.cache_dir)
        );
        assert!(config.offline && config.fallback == [Hub::ModelScope]);
    }

    #[test]
    fn launchers_say_how_many_processes_they_start_and_where() {
        let open_mpi =
            [("OMPI_COMM_WORLD_RANK", "5"), ("OMPI_COMM_WORLD_SIZE", "8"), ("OMPI_COMM_WORLD_LOCAL_RANK", "1")];
        for (variables, together, number) in [
            (&[][..], None, 0),
            (&open_mpi, Some(8), 1),
            (&[("PMI_RANK", "1"), ("PMI_SIZE", "2"), ("MPI_LOCALRANKID", "1")], Some(2), 1),
            (&[("SLURM_NTASKS", "8"), ("SLURM_LOCALID", "2")], None, 0),
            (&[("PMIX_RANK", "3"), ("SLURM_NTASKS", "8"), ("SLURM_LOCALID", "3")], Some(8), 3),
        ] {
            let read = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
            let found = Variables { read: &read, home: None };
            let found = (found.started_together(), found.number_on_machine());
            assert_eq!(found, (together, number), "{variables:?}");
        }
    }

    #[test]
    fn switches_addresses_and_proxies() {
        let none = HubOptions { cache_dir: None, offline: false };
        for (value, offline) in [("1", true), ("YES", true), ("on", true), ("0", false), ("", false)] {
            assert_eq!(config(&[("HF_HUB_OFFLINE", value)], &none).offline, offline, "{value}");
        }
        let config = config(
            &[
                ("HF_ENDPOINT", "https://mirror.test"),
                ("MODELSCOPE_ENDPOINT", "modelscope.test"),
                ("HF_HUB_DOWNLOAD_TIMEOUT", "7"),
                ("all_proxy", "proxy.test:3128"),
                ("HTTP_PROXY", "socks5://other.test"),
                ("NO_PROXY", "localhost, .lan,"),
            ],
            &none,
        );
        assert_eq!(config.hugging_face.endpoint.as_deref(), Some("https://mirror.test"));
        assert_eq!(config.model_scope.endpoint.as_deref(), Some("https://modelscope.test"));
        assert_eq!(config.patience.silence, Duration::from_secs(7));
        assert_eq!(config.proxies.https, Some(Secret::from("http://proxy.test:3128".to_owned())));
        assert_eq!(config.proxies.http, Some(Secret::from("socks5://other.test".to_owned())));
        assert_eq!(config.proxies.direct, ["localhost", ".lan"]);
    }

    #[test]
    fn the_token_is_the_variables_or_the_logins() {
        let none = HubOptions { cache_dir: None, offline: false };
        let home = tempfile::tempdir().expect("a folder");
        let home_path = home.path().to_str().expect("UTF-8");
        std::fs::write(home.path().join("token"), "hf_stored\n").expect("a small file");
        let token = |variables: &[(&str, &str)]| {
            config(&[variables, &[("HF_HOME", home_path)]].concat(), &none).hugging_face.token
        };
        let secret = |text: &str| Some(Secret::from(text.to_owned()));
        assert_eq!(token(&[]), secret("hf_stored"));
        assert_eq!(token(&[("HF_TOKEN", "hf_named")]), secret("hf_named"));
        assert_eq!(token(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(token(&[("HF_TOKEN_PATH", "/x/no-such-file")]), None);
    }
}
