//! The environment variables that users of Hugging Face and ModelScope know. This file alone reads any.

use std::env::var_os;
use std::path::PathBuf;

use kiln_hub::{HubConfig, PullConfig, Secret};

use crate::cli::HubArgs;

/// How hubs are reached: the command line first, then the environment.
pub fn pull_config(arguments: &HubArgs) -> PullConfig {
    let text = |name: &str| var_os(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty());
    let path = |name: &str| var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let offline = arguments.offline || text("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value));
    let hugging_face_cache = path("HF_HUB_CACHE").or_else(|| path("HF_HOME").map(|home| home.join("hub")));
    PullConfig {
        offline,
        proxy: ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"].into_iter().find_map(text).map(Secret::from),
        hugging_face: HubConfig {
            endpoint: text("HF_ENDPOINT"),
            cache_dir: arguments.cache_dir.clone().or(hugging_face_cache),
            token: text("HF_TOKEN").map(Secret::from),
        },
        model_scope: HubConfig {
            endpoint: text("MODELSCOPE_ENDPOINT"),
            cache_dir: arguments.cache_dir.clone().or_else(|| path("MODELSCOPE_CACHE")),
            token: text("MODELSCOPE_API_TOKEN").map(Secret::from),
        },
    }
}

/// Where Kiln keeps what it can make again: features of frozen encoders, the unpacked sample.
pub fn cache_folder() -> PathBuf {
    let path = |name: &str| var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    path("KILN_CACHE")
        .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("kiln")))
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache/kiln")))
        .unwrap_or_else(|| std::env::temp_dir().join("kiln"))
}

/// As Python's `huggingface_hub` reads its switches.
fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
}
