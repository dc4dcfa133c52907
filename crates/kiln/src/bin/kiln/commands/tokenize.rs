//! `kiln tokenize`: the tokens of a text, a pair or a file.

use std::fmt::Write as _;

use anyhow::bail;
use kiln::UsageError;
use kiln::fetch::fetch_model;
use kiln_tokenize::{TokenList, Tokenizer};

use crate::cli::TokenizeArgs;
use crate::commands::predict::CHUNK;
use crate::console;
use crate::input::Input;
use crate::observer::Console;

pub fn run(arguments: &TokenizeArgs, json: bool) -> anyhow::Result<()> {
    let TokenizeArgs { model, text, text_pair, file, columns } = arguments;
    let folder = fetch_model(&model.model, &model.hub.options(), &mut Console::default())?;
    let tokenizer = Tokenizer::from_folder(&folder)?;
    let show = |text: &str, text_pair: Option<&str>| {
        // White space around a text is ignored, as in `kiln predict` and in the rows of files.
        let list = tokenizer.list(text.trim(), text_pair.map(str::trim))?;
        if json { console::json(&list) } else { Ok(console::result(table(&list))?) }
    };
    match (text, file) {
        (Some(text), _) => show(text, text_pair.as_deref()),
        (None, Some(file)) => {
            let input = Input::texts(&folder, file, columns, None)?;
            let count = input.for_each_chunk(CHUNK, |rows| rows.iter().try_for_each(|(text, pair)| show(text, *pair)));
            count.map(drop)
        }
        (None, None) => bail!(UsageError("expected --text or --file".to_owned())),
    }
}

/// A table with a row for each token: position, id, type, characters, piece, and the matching part of the text.
fn table(list: &TokenList) -> String {
    let texts =
        [&list.text, list.text_pair.as_ref().unwrap_or(&list.text)].map(|text| text.chars().collect::<Vec<_>>());
    let mut table = format!("{:>5} {:>8} {:>4} {:>11}  {:<20} text\n", "", "id", "type", "characters", "token");
    for (at, token) in list.tokens.iter().enumerate() {
        let [start, end] = list.offsets[at];
        let (place, part) = match list.sequence_ids[at] {
            Some(text) => (format!("{start}..{end}"), texts[text][start..end].iter().collect::<String>()),
            None => (String::new(), String::new()),
        };
        let (id, type_id, part) = (list.input_ids[at], list.token_type_ids[at], part.escape_debug());
        let row = format!("{at:>5} {id:>8} {type_id:>4} {place:>11}  {token:<20} {part}");
        writeln!(table, "{}", row.trim_end()).expect("a string takes any text");
    }
    table
}
