use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokenizers::AddedToken;

use crate::Error;
use crate::class::Class;
use crate::config::{SpecialToken, SpecialTokens, TokenizerConfig, parse};
use crate::declared::check_length;
use crate::file::read_if_present;

/// Adds the added tokens of a folder without `tokenizer.json`: those of `added_tokens_decoder` in `tokenizer_config.json`,
/// otherwise those of `added_tokens.json`.
pub(crate) fn add(
    pipeline: &mut tokenizers::Tokenizer,
    class: Class,
    folder: &Path,
    config: &TokenizerConfig,
) -> Result<(), Error> {
    let Some((path, tokens)) = listed(folder, config, &class.special_tokens(config))? else { return Ok(()) };
    for (_, token) in &tokens {
        check_length(&path, "the file", token.content.len())?;
    }
    pipeline
        .add_tokens(tokens.iter().map(|(_, token)| token.clone()))
        .map_err(|source| Error::Pipeline { path: path.clone(), source })?;
    for (id, AddedToken { content, .. }) in tokens {
        let given = pipeline.token_to_id(&content);
        if given != Some(id) {
            let expected = given.map_or("a token that is not empty".to_owned(), |given| given.to_string());
            let reason = format!("the added token `{content}` has the id {id}, expected {expected}");
            return Err(Error::Broken { path, reason });
        }
    }
    Ok(())
}

/// A file, and the added tokens that it lists, sorted by id.
type Listed = (PathBuf, Vec<(u32, AddedToken)>);

fn listed(folder: &Path, config: &TokenizerConfig, special: &SpecialTokens) -> Result<Option<Listed>, Error> {
    let is_special = |token: &str| special.stated().map(SpecialToken::name).any(|own| own == token);
    if let Some(tokens) = &config.settings.added_tokens_decoder {
        let tokens = tokens.iter().map(|(id, token)| (*id, token.added(token.special || is_special(&token.content))));
        return Ok(Some((folder.join("tokenizer_config.json"), tokens.collect())));
    }
    let path = folder.join("added_tokens.json");
    let Some(bytes) = read_if_present(&path)? else { return Ok(None) };
    let tokens: BTreeMap<String, u32> = parse(&path, &bytes)?;
    let added = |(token, id): (String, u32)| {
        let special = is_special(&token);
        (id, AddedToken::from(token, special))
    };
    let mut tokens: Vec<(u32, AddedToken)> = tokens.into_iter().map(added).collect();
    tokens.sort_by_key(|(id, _)| *id);
    Ok(Some((path, tokens)))
}
