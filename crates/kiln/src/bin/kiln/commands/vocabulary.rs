//! `kiln vocabulary`: builds a WordPiece vocabulary from raw text.

use std::path::PathBuf;

use anyhow::Context;
use kiln_dataset::{Column, Columns, Passage, Source, corpus};
use kiln_tokenize::VocabularyConfig;
use serde_json::json;

use crate::cli::VocabularyArgs;
use crate::console;
use crate::input::refuse_to_overwrite;

pub fn run(arguments: &VocabularyArgs, json: bool) -> anyhow::Result<()> {
    let VocabularyArgs { file, out, size, min_count, cased, text_column } = arguments;
    let text = text_column.clone().unwrap_or(Column::Index(0));
    let columns = Columns { text, text_pair: None, label: None, flags: vec![] };
    for name in ["tokenizer.json", "vocab.txt", "tokenizer_config.json"] {
        refuse_to_overwrite(&out.join(name), file)?;
    }
    let config = VocabularyConfig { size: *size, min_count: *min_count, lower_case: !cased };
    let mut failed = None;
    let trained = config.train(texts(file, &columns, &mut failed)?);
    if let Some(error) = failed {
        return Err(error.into());
    }
    let tokenizer = trained?;
    std::fs::create_dir_all(out).with_context(|| format!("{}: cannot be made", out.display()))?;
    tokenizer.save(out)?;
    if json {
        return console::json(&json!({ "path": out, "vocab_size": tokenizer.vocab_size() }));
    }
    console::log(format_args!("{} tokens", tokenizer.vocab_size()));
    Ok(console::result(out.display())?)
}
/// The texts of the files, for a vocabulary. The first error ends the iteration and is stored in `failed`.
fn texts<'a>(
    files: &[PathBuf],
    columns: &Columns,
    failed: &'a mut Option<kiln_dataset::Error>,
) -> Result<impl Iterator<Item = String> + Send + use<'a>, kiln_dataset::Error> {
    let sources =
        files.iter().map(|path| corpus(&Source::new(path, columns.clone()))).collect::<Result<Vec<_>, _>>()?;
    Ok(sources
        .into_iter()
        .flatten()
        .map_while(move |passage| match passage {
            Ok(Passage::Sentence(text)) => Some(Some(text)),
            Ok(Passage::End) => Some(None),
            Err(error) => {
                *failed = Some(error);
                None
            }
        })
        .flatten())
}
