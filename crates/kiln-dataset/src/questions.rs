use std::fmt;

use kiln_schema::{Answer, Question};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lines::Lines;
use crate::objects::{Object, objects};
use crate::source::scalar;
use crate::wording::counted;
use crate::{Error, Format, Source};

/// A file in the format of SQuAD 1.1 or 2.0. CMRC 2018 has the same layout.
#[derive(Deserialize)]
struct File {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<Asked>,
}

#[derive(Deserialize)]
struct Asked {
    id: String,
    question: String,
    answers: Option<Vec<Found>>,
    #[serde(default)]
    is_impossible: bool,
}

#[derive(Deserialize)]
struct Found {
    text: String,
    answer_start: i64,
}

/// Reads the questions of a file unchanged. [`mend_answers`] corrects their offsets.
pub(crate) fn read(source: &Source) -> Result<Vec<Question>, Error> {
    match source.format()? {
        Format::Jsonl | Format::Parquet | Format::Arrow => read_rows(source),
        Format::Squad => read_file(source),
        format => Err(Error::NoQuestions { path: source.path.clone(), format }),
    }
}

/// The columns of a data set of questions on Hugging Face.
const COLUMNS: [&str; 5] = ["question", "context", "answers", "id", "is_impossible"];

fn read_rows(source: &Source) -> Result<Vec<Question>, Error> {
    let mut questions = Vec::new();
    for object in objects(source, &COLUMNS)? {
        let Object { cells, place } = object?;
        let text = |column: &'static str| {
            let missing = || Error::NoColumn {
                place: place.clone(),
                name: column.to_owned(),
                columns: cells.keys().cloned().collect(),
            };
            let cell = cells.get(column).ok_or_else(missing)?;
            let found = || match cell {
                Value::Null => "nothing".to_owned(),
                _ => cell.to_string(),
            };
            scalar(cell).ok_or_else(|| Error::Cell { place: place.clone(), column: column.into(), found: found() })
        };
        let is_impossible = cells.get("is_impossible").and_then(scalar).is_some_and(|value| value == "true");
        let id = cells.get("id").and_then(scalar).unwrap_or_else(|| place.line.to_string());
        check_answers(source, &id, cells.contains_key("answers") || is_impossible)?;
        let answers = match cells.get("answers").filter(|_| !is_impossible) {
            Some(answers) => listed(answers).ok_or_else(|| Error::Tagged {
                place: place.clone(),
                found: answers.to_string(),
                expected: "`answers` with lists of the same length, `text` and `answer_start`",
            })?,
            None => Vec::new(),
        };
        questions.push(Question { id, question: text("question")?, context: text("context")?, answers });
    }
    Ok(questions)
}

/// Fails if a question of labelled data has no answers. Questions that are only read for prediction need none.
fn check_answers(source: &Source, id: &str, has_answers: bool) -> Result<(), Error> {
    match has_answers || source.columns.label.is_none() {
        true => Ok(()),
        false => Err(Error::NoAnswers { path: source.path.clone(), id: id.to_owned() }),
    }
}

/// The answers of a cell: a struct of two lists, or a list of structs.
fn listed(answers: &Value) -> Option<Vec<Answer>> {
    let answer = |text: &Value, start: &Value| {
        let start: i64 = scalar(start)?.parse().ok()?;
        Some(Answer { text: scalar(text)?, start: known(start) })
    };
    match answers {
        Value::Null => Some(Vec::new()),
        Value::Array(list) => list.iter().map(|found| answer(found.get("text")?, found.get("answer_start")?)).collect(),
        _ => {
            let (texts, starts) = (answers.get("text")?.as_array()?, answers.get("answer_start")?.as_array()?);
            let pairs = texts.iter().zip(starts).map(|(text, start)| answer(text, start));
            if texts.len() == starts.len() { pairs.collect() } else { None }
        }
    }
}

/// An offset. An unknown one is −1. `usize::MAX` is never right, so that the answer is searched for like any other with a
/// wrong offset.
fn known(start: i64) -> usize {
    usize::try_from(start).unwrap_or(usize::MAX)
}

fn read_file(source: &Source) -> Result<Vec<Question>, Error> {
    let mut lines = Lines::open(source)?;
    let mut json = String::new();
    while let Some(line) = lines.next_line()? {
        json.push_str(&line);
        json.push('\n');
    }
    let path = &source.path;
    let file: File = serde_json::from_str(&json).map_err(|source| Error::Questions { path: path.clone(), source })?;
    let mut questions = Vec::new();
    for paragraph in file.data.into_iter().flat_map(|article| article.paragraphs) {
        for asked in paragraph.qas {
            let answer = |found: Found| Answer { text: found.text, start: known(found.answer_start) };
            let answers = asked.answers.filter(|_| !asked.is_impossible);
            check_answers(source, &asked.id, answers.is_some() || asked.is_impossible)?;
            questions.push(Question {
                id: asked.id,
                question: asked.question,
                context: paragraph.context.clone(),
                answers: answers.into_iter().flatten().map(answer).collect(),
            });
        }
    }
    Ok(questions)
}

/// Answers whose offset is wrong, and how they were handled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OffsetAudit {
    /// The number of all answers.
    pub answers: usize,
    /// The answers with a wrong offset.
    pub wrong: Vec<WrongOffset>,
    /// The number of questions that were dropped because they lost all their answers.
    pub dropped_questions: usize,
}

/// An answer with a wrong offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WrongOffset {
    /// The id of the question.
    pub id: String,
    /// The text of the answer.
    pub text: String,
    /// The text found at the given offset.
    pub found: String,
    /// The corrected offset, in characters; none if the answer does not occur exactly once.
    pub mended: Option<usize>,
}

impl OffsetAudit {
    /// The number of corrected offsets.
    pub fn mended(&self) -> usize {
        self.wrong.iter().filter(|wrong| wrong.mended.is_some()).count()
    }
}

/// A line of counts, then one line per answer that could not be located.
impl fmt::Display for OffsetAudit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wrong, mended) = (self.wrong.len(), self.mended());
        write!(
            f,
            "{}, {wrong} with a wrong offset: {mended} corrected, {} that cannot be located",
            counted("answer", self.answers),
            wrong - mended
        )?;
        if self.dropped_questions > 0 {
            write!(f, ", and {} left out", counted("question", self.dropped_questions))?;
        }
        for wrong in self.wrong.iter().filter(|wrong| wrong.mended.is_none()) {
            write!(
                f,
                "\n{}: `{}` does not occur exactly once; at its offset is `{}`",
                wrong.id, wrong.text, wrong.found
            )?;
        }
        Ok(())
    }
}

/// How to handle answers that cannot be located.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unplaced {
    /// Drop them, and drop questions that lose all their answers. For training, where such answers are useless.
    Drop,
    /// Keep them, with an offset at the end of the context. For evaluation, which compares texts and does not need
    /// offsets.
    Keep,
}

/// Corrects each wrong offset whose answer occurs exactly once in its context. `unplaced` selects how the other answers
/// with a wrong offset are handled. Unanswerable questions are kept.
pub fn mend_answers(questions: &mut Vec<Question>, unplaced: Unplaced) -> OffsetAudit {
    let mut audit = OffsetAudit::default();
    questions.retain_mut(|question| {
        let Question { id, context, answers, .. } = question;
        let unanswerable = answers.is_empty();
        audit.answers += answers.len();
        answers.retain_mut(|answer| {
            let length = answer.text.chars().count();
            let found: String = context.chars().skip(answer.start).take(length).collect();
            if found == answer.text && length > 0 {
                return true;
            }
            let mut places = context.match_indices(answer.text.as_str());
            let mended = match (places.next(), places.next()) {
                (Some((at, _)), None) if length > 0 => Some(context[..at].chars().count()),
                _ => None,
            };
            audit.wrong.push(WrongOffset { id: id.clone(), text: answer.text.clone(), found, mended });
            answer.start = mended.unwrap_or_else(|| context.chars().count());
            mended.is_some() || unplaced == Unplaced::Keep
        });
        let lost = answers.is_empty() && !unanswerable;
        audit.dropped_questions += usize::from(lost);
        !lost
    });
    audit
}

#[cfg(test)]
mod tests {
    use crate::read as read_all;
    use crate::testing::file;

    use super::*;

    #[test]
    fn wrong_offsets_are_mended_or_dropped() {
        let json = r#"{"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": "北京是首都，北京很大", "qas": [
            {"id": "right", "question": "?", "answers": [{"text": "首都", "answer_start": 3}]},
            {"id": "mended", "question": "?", "answers": [{"text": "很大", "answer_start": 1}]},
            {"id": "twice", "question": "?", "answers": [{"text": "北京", "answer_start": 1}, {"text": "上海", "answer_start": -1}]},
            {"id": "none", "question": "?", "answers": [], "is_impossible": true}]}]}]}"#;
        let mut file = file("a.json", json);
        file.source.format = Some(crate::Format::Squad);
        let (mut questions, _) = read_all::<Question>(std::slice::from_ref(&file.source), None).expect("questions");
        assert_eq!(questions.len(), 4);
        let mut kept = questions.clone();
        let audit = mend_answers(&mut questions, Unplaced::Drop);
        assert_eq!((audit.answers, audit.wrong.len(), audit.mended(), audit.dropped_questions), (4, 3, 1, 1));
        assert_eq!(
            questions.iter().map(|question| question.id.as_str()).collect::<Vec<_>>(),
            ["right", "mended", "none"]
        );
        assert_eq!(questions[1].answers[0].start, 8);
        assert_eq!(mend_answers(&mut kept, Unplaced::Keep).dropped_questions, 0);
        assert_eq!((kept.len(), kept[2].answers.len(), kept[2].answers[0].start), (4, 2, 10));
        assert!(
            audit.to_string().contains("twice: `北京` does not occur exactly once; at its offset is `京是`"),
            "{audit}"
        );
    }

    #[test]
    fn counts_agree_with_their_nouns() {
        let audit = |answers, dropped_questions| OffsetAudit { answers, wrong: vec![], dropped_questions }.to_string();
        let counts = "0 with a wrong offset: 0 corrected, 0 that cannot be located";
        assert_eq!(audit(1, 1), format!("1 answer, {counts}, and 1 question left out"));
        assert_eq!(audit(2, 2), format!("2 answers, {counts}, and 2 questions left out"));
    }

    #[test]
    fn rows_have_answers_in_two_forms() {
        let row = |answers: &str| format!(r#"{{"question": "?", "context": "北京是首都"{answers}}}"#);
        let read = |answers: &str, label: Option<crate::Column>| {
            let mut file = file("a.jsonl", row(answers));
            file.source.columns.label = label;
            let (questions, _) = read_all::<Question>(std::slice::from_ref(&file.source), None)?;
            let shown = |answer: &Answer| format!("{}@{}", answer.text, answer.start);
            Ok::<_, Error>((questions[0].id.clone(), questions[0].answers.iter().map(shown).collect::<Vec<_>>()))
        };
        for answers in [
            r#", "answers": {"text": ["首都"], "answer_start": [3]}"#,
            r#", "answers": [{"text": "首都", "answer_start": 3}]"#,
        ] {
            assert_eq!(read(answers, Some(1.into())).expect(answers), ("1".to_owned(), vec!["首都@3".to_owned()]));
        }
        for unanswerable in [r#", "answers": null"#, r#", "is_impossible": true"#, r#", "answers": []"#] {
            assert_eq!(read(unanswerable, Some(1.into())).expect(unanswerable).1, [""; 0], "{unanswerable}");
        }
        let uneven =
            read(r#", "answers": {"text": ["首都"], "answer_start": []}"#, Some(1.into())).expect_err("one text");
        assert!(uneven.to_string().contains("a.jsonl, line 1: found `{"), "{uneven}");
        let missing = read("", Some(1.into())).expect_err("no answers").to_string();
        assert!(
            missing.ends_with(
                "the question `1` has no key `answers`; expected a list, which is empty if nothing answers it"
            )
        );
        assert_eq!(read("", None).expect("a question to predict").1, [""; 0]);
    }

    #[test]
    fn every_encoding_of_a_text_file_is_read() {
        let json = "{\"data\": [{\"paragraphs\": [{\"context\": \"北京是首都，北京很大\",\r\n\"qas\": [\r\n\
                    {\"id\": \"1\", \"question\": \"首都是哪里？\", \"answers\": []}]}]}]}";
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let (gbk, _, _) = encoding_rs::GBK.encode(json);
        let cases = [
            (json.as_bytes().to_vec(), None),
            (format!("\u{feff}{json}").into_bytes(), None),
            (utf16(&format!("\u{feff}{json}")), None),
            (utf16(json), Some(crate::Encoding::Utf16Le)),
            (gbk.to_vec(), None),
            (gbk.to_vec(), Some(crate::Encoding::Gbk)),
            (json.replace("\r\n", "\r").into_bytes(), None),
        ];
        for (bytes, encoding) in cases {
            let mut file = file("a.json", &bytes);
            (file.source.format, file.source.encoding) = (Some(crate::Format::Squad), encoding);
            let (questions, _) = read_all::<Question>(std::slice::from_ref(&file.source), None).expect("a question");
            assert_eq!(questions[0].question, "首都是哪里？", "{encoding:?}");
        }
        let mut damaged = file("a.json", b"{\n\"data\": \"\xff\"}");
        damaged.source.format = Some(crate::Format::Squad);
        let error = read_all::<Question>(std::slice::from_ref(&damaged.source), None).expect_err("no text");
        assert!(error.to_string().contains("a.json, line 2: the bytes ff 22 7d are not UTF-8"), "{error}");
    }

    #[test]
    fn what_is_no_question_file_is_said() {
        let mut file = file("a.json", "\u{feff}{\"data\":\n [{\"paragraphs\": [{\"context\": 3}]}]}");
        file.source.format = Some(crate::Format::Squad);
        let error = read_all::<Question>(std::slice::from_ref(&file.source), None).expect_err("no question");
        assert!(error.to_string().contains("a.json"), "{error}");
        let why = std::error::Error::source(&error).expect("why").to_string();
        assert!(why.contains("expected a string") && why.contains("at line 2"), "{why}");
    }
}
