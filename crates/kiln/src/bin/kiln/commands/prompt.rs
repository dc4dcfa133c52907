//! The interactive prompt of `kiln predict`: predicts for each line that is typed.

use std::io::{self, BufRead, IsTerminal, StdinLock};
use std::ops::Range;

use anyhow::Context;
use kiln::Interrupted;
use kiln_predict::Prediction;
use kiln_schema::Task;
use rustyline::error::ReadlineError;
use rustyline::{Cmd, DefaultEditor, KeyCode, KeyEvent, Modifiers};

use super::predict::Answers;
use crate::console::{self, OutputError};

/// Predicts for each line until `q` or the end of input. A tab separates the texts of a pair, or a question and its
/// context. A context is kept until another one is given.
pub fn run(answers: &Answers<'_>) -> anyhow::Result<()> {
    let asks = answers.predictor.task() == Task::QuestionAnswering;
    let mut lines = Lines::new()?;
    if lines.is_interactive() {
        let what =
            if asks { "question⇥context, then more questions about it" } else { "one text per line, or text⇥text" };
        console::log(format_args!("{what}; q or Ctrl-D quits"));
    }
    let mut context: Option<String> = None;
    while let Some(line) = lines.next()? {
        let answer = match Typed::parse(&line) {
            Typed::Nothing => Ok(()),
            Typed::Quit => return Ok(()),
            Typed::Texts(text, pair) if asks => {
                context = pair.map(str::to_owned).or(context);
                match &context {
                    Some(context) => answers.answer(text, Some(context)),
                    None => {
                        console::log("there is no context yet: type question⇥context");
                        Ok(())
                    }
                }
            }
            Typed::Texts(text, pair) => answers.answer(text, pair),
        };
        match answer {
            // An error for one text does not end the session.
            Err(error) if lines.is_interactive() && !error.is::<OutputError>() => console::error(&error),
            answer => answer?,
        }
    }
    Ok(())
}

/// A parsed input line.
#[derive(Debug, PartialEq, Eq)]
enum Typed<'a> {
    Nothing,
    Quit,
    Texts(&'a str, Option<&'a str>),
}

impl<'a> Typed<'a> {
    fn parse(line: &'a str) -> Self {
        let (text, pair) = match line.split_once('\t') {
            Some((text, pair)) => (text.trim(), Some(pair.trim()).filter(|pair| !pair.is_empty())),
            None => (line.trim(), None),
        };
        match (text, pair) {
            ("", _) => Self::Nothing,
            ("q", None) => Self::Quit,
            (text, pair) => Self::Texts(text, pair),
        }
    }
}

/// The source of the lines.
enum Lines {
    /// A terminal, with history and editing.
    Editor(Box<DefaultEditor>),
    /// Input from a terminal, without the editor because output goes elsewhere.
    Terminal(StdinLock<'static>),
    /// A file or a pipe.
    Plain(StdinLock<'static>),
}

impl Lines {
    fn new() -> anyhow::Result<Self> {
        let stdin = io::stdin();
        Ok(match (stdin.is_terminal(), io::stdout().is_terminal()) {
            // The editor writes to standard output.
            (true, true) => {
                let mut editor = DefaultEditor::new().context("cannot use the terminal")?;
                // Tab separates texts, so completion is disabled.
                editor.bind_sequence(KeyEvent(KeyCode::Tab, Modifiers::NONE), Cmd::Insert(1, "\t".to_owned()));
                Self::Editor(Box::new(editor))
            }
            (true, false) => Self::Terminal(stdin.lock()),
            (false, _) => Self::Plain(stdin.lock()),
        })
    }

    fn is_interactive(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    fn next(&mut self) -> anyhow::Result<Option<String>> {
        let stdin = match self {
            Self::Editor(editor) => return edited(editor),
            Self::Terminal(stdin) => {
                console::ask("> ");
                stdin
            }
            Self::Plain(stdin) => stdin,
        };
        let mut line = String::new();
        let read = stdin.read_line(&mut line).context("standard input cannot be read; is it UTF-8?")?;
        Ok((read > 0).then_some(line))
    }
}

fn edited(editor: &mut DefaultEditor) -> anyhow::Result<Option<String>> {
    match editor.readline("> ") {
        Ok(line) => {
            editor.add_history_entry(&line).context("cannot add the line to the history")?;
            Ok(Some(line))
        }
        Err(ReadlineError::Eof) => Ok(None),
        Err(ReadlineError::Interrupted) => Err(Interrupted("the session is closed".to_owned()).into()),
        Err(error) => Err(error).context("cannot read the terminal"),
    }
}

/// A prediction as readable text. Passages are coloured on a terminal, and in brackets elsewhere.
pub fn in_words(prediction: &Prediction, context: Option<&str>) -> String {
    let listed = |scores: &[(String, f64)]| {
        scores.iter().map(|(label, score)| format!("{label} {score:.4}")).collect::<Vec<_>>().join(", ")
    };
    match prediction {
        Prediction::Label(label) => {
            format!("{}  ({})", label.label.as_deref().unwrap_or("no label"), listed(&label.scores))
        }
        Prediction::Labels(labels) => format!("{}  ({})", labels.labels.join(", "), listed(&labels.scores)),
        Prediction::Number(number) => format!("{:.4}", number.score),
        Prediction::Entities(tagged) => {
            let spans = tagged.entities.iter().map(|entity| {
                let label = if entity.label == "_" { "" } else { entity.label.as_str() };
                (entity.start..entity.end, label)
            });
            marked(&tagged.text, spans)
        }
        Prediction::Tags(tagged) => {
            let tags = tagged.tags.iter().map(|tag| format!("{}/{}", tag.text, tag.tag));
            tags.collect::<Vec<_>>().join(" ")
        }
        Prediction::Filled(filled) => {
            let candidates = filled.masks.iter().map(|mask| {
                let tokens = mask.tokens.iter().map(|token| format!("{} {:.4}", token.text, token.score));
                tokens.collect::<Vec<_>>().join(", ")
            });
            format!("{}  ({})", filled.filled, candidates.collect::<Vec<_>>().join("; "))
        }
        Prediction::Answer(answer) if answer.answer.is_empty() => format!("no answer  ({:.4})", answer.score),
        Prediction::Answer(answer) => {
            // Shows a part of the context that fits on a few lines.
            const AROUND: usize = 60;
            let context: Vec<char> = context.unwrap_or_default().chars().collect();
            let (from, to) = (answer.start.saturating_sub(AROUND), (answer.end + AROUND).min(context.len()));
            let part: String = context[from..to].iter().collect();
            let place = marked(&part, [(answer.start - from..answer.end - from, "")]);
            format!("{}  ({:.4})\n{place}", answer.answer, answer.score)
        }
    }
}

/// A text with some ranges of its characters highlighted, each followed by its label.
fn marked<'a>(text: &str, spans: impl IntoIterator<Item = (Range<usize>, &'a str)>) -> String {
    let (open, close) = if io::stdout().is_terminal() { ("\u{1b}[1;33m", "\u{1b}[0m") } else { ("[", "]") };
    let mut marked = String::new();
    let mut chars = text.chars();
    let mut at = 0;
    for (span, label) in spans {
        marked.extend(chars.by_ref().take(span.start - at));
        let passage: String = chars.by_ref().take(span.len()).collect();
        let label = if label.is_empty() { String::new() } else { format!(" {label}") };
        marked.push_str(&format!("{open}{passage}{label}{close}"));
        at = span.end;
    }
    marked.extend(chars);
    marked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_texts_pairs_or_the_end() {
        assert_eq!(Typed::parse(" 很好 \n"), Typed::Texts("很好", None));
        assert_eq!(Typed::parse("a\t b\tc\n"), Typed::Texts("a", Some("b\tc")));
        assert_eq!(Typed::parse("a\t \n"), Typed::Texts("a", None));
        assert_eq!(Typed::parse("q\n"), Typed::Quit);
        assert_eq!(Typed::parse("q\tcontext"), Typed::Texts("q", Some("context")));
        assert_eq!(Typed::parse(" \t \n"), Typed::Nothing);
    }
}
