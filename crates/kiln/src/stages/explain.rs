//! The tokens with the most influence on wrong predictions.

use kiln_heads::SequenceClassifier;
use kiln_schema::{LabelId, LabelSet};
use kiln_tokenize::Encoding;
use kiln_train::attributions;

use super::settle::Plan;

/// Maximum number of mistakes to explain; each takes a backward pass.
const EXPLAINED: usize = 20;

/// Maximum number of tokens listed for a mistake.
const TOKENS: usize = 5;

/// Adds a column `tokens` to a table of errors. For the first mistakes, it lists the tokens with the most influence for the
/// predicted label and against the true one, or the reverse, each with its gradient × input.
///
/// `encodings` are the encoded rows, which the table numbers from 1.
pub(crate) fn with_tokens(
    plan: &Plan<'_>,
    table: &str,
    (model, labels): (&SequenceClassifier, &LabelSet),
    encodings: &[Encoding],
) -> anyhow::Result<String> {
    // The word embeddings are read once for all mistakes.
    let mut model = model.clone();
    model.bert.embeddings.read_words();
    let tokenizer = plan.tokenizer();
    let special = tokenizer.encode("", None)?.input_ids;
    let mut lines = table.lines();
    let heads: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    let columns = ["row", "prediction", "target"].map(|name| heads.iter().position(|head| *head == name));
    let [Some(row), Some(prediction), Some(target)] = columns else { return Ok(table.to_owned()) };
    let mut explained = format!("{}\ttokens\n", heads.join("\t"));
    for (at, line) in lines.enumerate() {
        let cells: Vec<&str> = line.split('\t').collect();
        let encoding = cells[row].parse::<usize>().ok().and_then(|row| encodings.get(row.checked_sub(1)?));
        let pair: Option<Vec<LabelId>> = [prediction, target].iter().map(|&at| labels.id(cells[at])).collect();
        let tokens = match (encoding, pair.as_deref()) {
            (Some(encoding), Some(&[predicted, real])) if at < EXPLAINED => {
                let mut tokens: Vec<(u32, f64)> = attributions(&model, encoding, [predicted, real], plan.device)
                    .into_iter()
                    .filter(|(id, _)| !special.contains(id))
                    .collect();
                tokens.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
                tokens.truncate(TOKENS);
                let shown =
                    |(id, value): (u32, f64)| format!("{} {value:+.2}", tokenizer.token(id).unwrap_or_default());
                tokens.into_iter().map(shown).collect::<Vec<_>>().join(", ")
            }
            _ => String::new(),
        };
        explained.push_str(&format!("{line}\t{tokens}\n"));
    }
    Ok(explained)
}
