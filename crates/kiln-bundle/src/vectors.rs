use std::path::Path;

use kiln_heads::Pooling;
use kiln_tokenize::default_prompt;
use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Vectors};

/// The file of sentence-transformers that names the pooling.
const POOLING: &str = "1_Pooling/config.json";

impl Vectors {
    /// How a checkpoint computes vectors, from its sentence-transformers files: `1_Pooling/config.json` and `modules.json`.
    /// Without these files it is the mean without normalization. `pooling` replaces the pooling of the file.
    ///
    /// # Errors
    /// When a file cannot be read, or its pooling is not supported: also if it leaves out a [default prompt](default_prompt).
    pub fn of_checkpoint(folder: &Path, pooling: Option<Pooling>) -> Result<Self, Error> {
        let path = folder.join("modules.json");
        let json = kiln_files::read_if_present(&path).map_err(Error::read(&path))?;
        let modules: Vec<Module> = match json {
            Some(json) => serde_json::from_slice(&json).map_err(|error| Error::read(&path)(error.into()))?,
            None => Vec::new(),
        };
        let kinds: Vec<&str> = modules.iter().filter_map(|module| module.kind.rsplit('.').next()).collect();
        if let Some(kind) = kinds.iter().find(|kind| !["Transformer", "Pooling", "Normalize"].contains(kind)) {
            return Err(Error::Module { path, kind: (*kind).to_owned() });
        }
        let pooling = match pooling {
            Some(pooling) => pooling,
            None => {
                let module = modules.iter().find(|module| module.kind.ends_with("Pooling") && !module.path.is_empty());
                let path = module.map_or(POOLING.to_owned(), |module| format!("{}/config.json", module.path));
                stored_pooling(&folder.join(path), !default_prompt(folder)?.is_empty())?
            }
        };
        Ok(Self { pooling, normalize: kinds.contains(&"Normalize") })
    }
}

/// An entry of `modules.json`.
#[derive(Deserialize)]
struct Module {
    #[serde(rename = "type")]
    kind: String,
    /// Its folder in the checkpoint.
    #[serde(default)]
    path: String,
}

fn stored_pooling(path: &Path, has_prompt: bool) -> Result<Pooling, Error> {
    let json = kiln_files::read_if_present(path).map_err(Error::read(path))?;
    let Some(json) = json else { return Ok(Pooling::Mean) };
    let config: Value = serde_json::from_slice(&json).map_err(|error| Error::read(path)(error.into()))?;
    let mut modes = modes(&config);
    if has_prompt && config["include_prompt"] == false {
        modes.push("without the prompt".to_owned());
    }
    match modes.as_slice() {
        [] => Err(Error::Pooling { path: path.to_owned(), mode: "none".to_owned() }),
        [mode] if mode == "mean" => Ok(Pooling::Mean),
        [mode] if mode == "cls" => Ok(Pooling::Cls),
        modes => Err(Error::Pooling { path: path.to_owned(), mode: modes.join(" + ") }),
    }
}

/// The names of the modes that a config turns on, as in sentence-transformers. Several modes are concatenated.
fn modes(config: &Value) -> Vec<String> {
    /// The key, the mode, and whether it is on without the key.
    const FLAGS: [(&str, &str, bool); 6] = [
        ("pooling_mode_cls_token", "cls", false),
        ("pooling_mode_mean_tokens", "mean", true),
        ("pooling_mode_max_tokens", "max", false),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len", false),
        ("pooling_mode_weightedmean_tokens", "weightedmean", false),
        ("pooling_mode_lasttoken", "lasttoken", false),
    ];
    match &config["pooling_mode"] {
        Value::String(mode) => return vec![mode.clone()],
        Value::Array(modes) => return modes.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => {}
    }
    let is_on = |key: &str, default: bool| config[key].as_bool().unwrap_or(default);
    let modes = FLAGS.into_iter().filter(|(key, _, default)| is_on(key, *default)).map(|(_, mode, _)| mode.to_owned());
    modes.collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_pooling_is_read_or_refused_by_its_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let of = |pooling| Vectors::of_checkpoint(folder.path(), pooling);
        assert_eq!(of(None).expect("no file"), Vectors { pooling: Pooling::Mean, normalize: false });
        fs::create_dir(folder.path().join("1_Pooling")).expect("a folder");
        fs::write(folder.path().join("modules.json"), r#"[{"type": "sentence_transformers.models.Normalize"}]"#)
            .expect("it is writable");
        let write = |json: &str| fs::write(folder.path().join(POOLING), json).expect("it is writable");
        for (json, expected) in [
            (r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#, Pooling::Cls),
            (r#"{"pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true}"#, Pooling::Mean),
            (r#"{"pooling_mode": "cls"}"#, Pooling::Cls),
            ("{}", Pooling::Mean),
        ] {
            write(json);
            assert_eq!(of(None).expect(json), Vectors { pooling: expected, normalize: true }, "{json}");
        }
        for (json, mode) in [
            (r#"{"pooling_mode_max_tokens": true}"#, "`mean + max`"),
            (r#"{"pooling_mode_mean_tokens": false, "pooling_mode_lasttoken": true}"#, "`lasttoken`"),
            (r#"{"pooling_mode_mean_tokens": false, "pooling_mode_weightedmean_tokens": true}"#, "`weightedmean`"),
            (r#"{"pooling_mode_mean_tokens": false, "pooling_mode_mean_sqrt_len_tokens": true}"#, "`mean_sqrt_len`"),
            (r#"{"pooling_mode_cls_token": true}"#, "`cls + mean`"),
            (r#"{"pooling_mode_mean_tokens": false}"#, "`none`"),
            (r#"{"pooling_mode": "lasttoken"}"#, "`lasttoken`"),
            (r#"{"pooling_mode": ["cls", "mean"]}"#, "`cls + mean`"),
        ] {
            write(json);
            let message = of(None).expect_err(json).to_string();
            assert!(message.contains(mode) && message.contains(POOLING), "{json}: {message}");
            assert_eq!(of(Some(Pooling::Cls)).expect("it is overridden").pooling, Pooling::Cls);
        }
        write(r#"{"include_prompt": false}"#);
        assert_eq!(of(None).expect("there is no prompt").pooling, Pooling::Mean);
        let prompts = folder.path().join("config_sentence_transformers.json");
        fs::write(&prompts, r#"{"prompts": {"a": "b"}, "default_prompt_name": "a"}"#).expect("it is writable");
        let message = of(None).expect_err("not all tokens are pooled").to_string();
        assert!(message.contains("`mean + without the prompt`"), "{message}");
        write("{}");
        assert_eq!(of(None).expect("all tokens are pooled").pooling, Pooling::Mean);
        fs::create_dir(folder.path().join("2_Pooling")).expect("a folder");
        fs::write(folder.path().join("2_Pooling/config.json"), r#"{"pooling_mode": "cls"}"#).expect("it is writable");
        let modules = r#"[{"type": "sentence_transformers.models.Pooling", "path": "2_Pooling"}]"#;
        fs::write(folder.path().join("modules.json"), modules).expect("it is writable");
        assert_eq!(of(None).expect("another folder").pooling, Pooling::Cls);
        let modules =
            r#"[{"type": "sentence_transformers.models.Pooling"}, {"type": "sentence_transformers.models.Dense"}]"#;
        fs::write(folder.path().join("modules.json"), modules).expect("it is writable");
        let message = of(None).expect_err("a layer after the pooling").to_string();
        assert!(message.contains("modules.json: the module `Dense` is not supported"), "{message}");
        fs::remove_file(folder.path().join("modules.json")).expect("it was written");
        write("{");
        assert!(matches!(of(None), Err(Error::Read { .. })), "it is not JSON");
    }
}
