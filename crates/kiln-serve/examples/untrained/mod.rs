//! Small untrained models, one for each task, for the example and the tests.

mod networks;

use std::path::{Path, PathBuf};

use kiln_backend::{Backend, Flex};
use kiln_bert::{BertConfig, FloatType, parameters, save};
use kiln_heads::{TaskModel, save_model};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const VOCABULARY: [&str; 20] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "房", "间", "很", "干", "净", "屏", "幕", "太", "暗", "酒",
    "店", "位", "置", "好",
];

fn config() -> BertConfig {
    BertConfig {
        vocab_size: VOCABULARY.len(),
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 64,
        max_position_embeddings: 64,
        // Large weights, so that predictions differ.
        initializer_range: 0.5,
        ..BertConfig::base()
    }
}

/// Writes a model folder for each task below `folder`. Returns the names and the folders.
pub fn untrained(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    // A fixed seed gives the same models in every run.
    Flex::device(0).seed(7);
    let mut models = vec![vectors(&folder.join("vectors"))?];
    for (name, network) in networks::networks(&config())? {
        let path = folder.join(name);
        write_vocabulary(&path)?;
        save_model(&path, &TaskModel { network, config: config() })?;
        models.push(path);
    }
    let name = |path: PathBuf| (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path);
    Ok(models.into_iter().rev().map(name).collect())
}

/// An encoder without a head, which computes vectors.
fn vectors(folder: &Path) -> Result<PathBuf> {
    write_vocabulary(folder)?;
    let bert = BertConfig { initializer_range: 0.02, ..config() }.init(&Flex::device(0));
    save(&folder.join("model.safetensors"), &parameters(&bert), FloatType::F32)?;
    let mut json = serde_json::to_value(config())?;
    json["model_type"] = "bert".into();
    json["architectures"] = serde_json::json!(["BertModel"]);
    std::fs::write(folder.join("config.json"), json.to_string())?;
    Ok(folder.to_owned())
}

fn write_vocabulary(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    Ok(std::fs::write(folder.join("vocab.txt"), VOCABULARY.join("\n"))?)
}
