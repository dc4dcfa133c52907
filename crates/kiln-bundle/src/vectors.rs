use std::path::Path;

use kiln_heads::Pooling;
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
    /// When a file cannot be read, or its pooling is not supported.
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
                stored_pooling(&folder.join(path))?
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

fn stored_pooling(path: &Path) -> Result<Pooling, Error> {
    let json = kiln_files::read_if_present(path).map_err(Error::read(path))?;
    let Some(json) = json else { return Ok(Pooling::Mean) };
    let config: Value = serde_json::from_slice(&json).map_err(|error| Error::read(path)(error.into()))?;
    match modes(&config).as_slice() {
        [] => Ok(Pooling::Mean),
        [mode] if mode == "mean" => Ok(Pooling::Mean),
        [mode] if mode == "cls" => Ok(Pooling::Cls),
        modes => Err(Error::Pooling { path: path.to_owned(), mode: modes.join(" + ") }),
    }
}

/// The names of the modes that a config turns on, as in sentence-transformers. Several modes are concatenated.
fn modes(config: &Value) -> Vec<String> {
    const FLAGS: [(&str, &str); 6] = [
        ("pooling_mode_cls_token", "cls"),
        ("pooling_mode_mean_tokens", "mean"),
        ("pooling_mode_max_tokens", "max"),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len"),
        ("pooling_mode_weightedmean_tokens", "weightedmean"),
        ("pooling_mode_lasttoken", "lasttoken"),
    ];
    match &config["pooling_mode"] {
        Value::String(mode) => return vec![mode.clone()],
        Value::Array(modes) => return modes.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => {}
    }
    FLAGS.into_iter().filter(|(key, _)| config[key] == true).map(|(_, mode)| mode.to_owned()).collect()
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
            (r#"{"pooling_mode_max_tokens": true}"#, "`max`"),
            (r#"{"pooling_mode_lasttoken": true}"#, "`lasttoken`"),
            (r#"{"pooling_mode_weightedmean_tokens": true}"#, "`weightedmean`"),
            (r#"{"pooling_mode_mean_sqrt_len_tokens": true}"#, "`mean_sqrt_len`"),
            (r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}"#, "`cls + mean`"),
            (r#"{"pooling_mode": "lasttoken"}"#, "`lasttoken`"),
            (r#"{"pooling_mode": ["cls", "mean"]}"#, "`cls + mean`"),
        ] {
            write(json);
            let message = of(None).expect_err(json).to_string();
            assert!(message.contains(mode) && message.contains(POOLING), "{json}: {message}");
            assert_eq!(of(Some(Pooling::Cls)).expect("it is overridden").pooling, Pooling::Cls);
        }
        write("{}");
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
