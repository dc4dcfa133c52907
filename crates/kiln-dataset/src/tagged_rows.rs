use std::ops::Range;

use kiln_schema::TaggedText;
use serde_json::{Map, Value};

use crate::objects::{Object, objects};
use crate::read::{Names, OUTSIDE};
use crate::source::{scalar, scalars};
use crate::tagged::OpenText;
use crate::{Error, Place, Source};

/// The columns with the list of a text's units, by precedence.
pub const UNITS: [&str; 2] = ["tokens", "words"];
/// The columns with the list of the units' tags, by precedence.
const TAGS: [&str; 4] = ["ner_tags", "tags", "labels", "pos_tags"];
/// The columns of a text with spans, whose list of spans may have two names.
const SPANS: [&str; 3] = ["text", "entities", "label"];

/// Reads rows with a list of units and a list of their tags, as the data sets of Hugging Face have them, or with `text` and
/// `entities` (or `label`): spans of characters, which are tagged B and I.
pub(crate) fn read(source: &Source, names: &mut Names) -> Result<Vec<TaggedText>, Error> {
    let columns = [&UNITS[..], &TAGS, &SPANS].concat();
    let mut texts = Vec::new();
    for object in objects(source, &columns)? {
        let Object { cells, place } = object?;
        let first = |columns: &[&str]| columns.iter().find_map(|column| cells.get(*column));
        let needs_tags = source.columns.label.is_some();
        texts.extend(match (first(&UNITS), first(&TAGS)) {
            (Some(units), tags) if !needs_tags => {
                // Each row has a prediction.
                let empty = TaggedText { text: String::new(), units: Vec::new(), tags: Vec::new() };
                Some(of_units(units, tags, &place, names)?.unwrap_or(empty))
            }
            (Some(units), Some(tags)) => of_units(units, Some(tags), &place, names)?,
            _ => Some(of_spans(&cells, &place, names)?),
        });
    }
    Ok(texts)
}

fn fault(place: &Place, found: &Value, expected: &'static str) -> Error {
    Error::Tagged { place: place.clone(), found: found.to_string(), expected }
}

/// A text of units with a tag each; none if it has no units. Units without characters are left out. Without tags, as in
/// prediction, each tag is `O`.
fn of_units(
    units: &Value,
    tags: Option<&Value>,
    place: &Place,
    names: &mut Names,
) -> Result<Option<TaggedText>, Error> {
    let list = |value: &Value, expected| match value.as_array() {
        Some(values) => scalars(values).map_err(|value| fault(place, value, expected)),
        None => Err(fault(place, value, expected)),
    };
    let words: Vec<String> = list(units, "a list of units, which are texts")?;
    let names_of_tags: Vec<String> = match tags {
        Some(tags) => list(tags, "a list of tags, which are names or numbers")?,
        None => vec![OUTSIDE.to_owned(); words.len()],
    };
    if let Some(tags) = tags.filter(|_| words.len() != names_of_tags.len()) {
        return Err(fault(place, tags, "as many tags as units"));
    }
    let mut open = OpenText::default();
    for (unit, tag) in words.iter().zip(&names_of_tags).filter(|(unit, _)| !unit.trim().is_empty()) {
        open.push(unit.trim(), tag, place.line);
    }
    open.take(names, |_| place.clone())
}

/// A text with spans.
fn of_spans(cells: &Map<String, Value>, place: &Place, names: &mut Names) -> Result<TaggedText, Error> {
    let none = Value::Null;
    let text = cells.get("text").unwrap_or(&none);
    let expected = "`text`, a string, or a list of `tokens` and a list of `ner_tags`";
    let text = text.as_str().ok_or_else(|| fault(place, text, expected))?.to_owned();
    let spans = cells.get("entities").or_else(|| cells.get("label")).unwrap_or(&none);
    let spans = spans.as_array().ok_or_else(|| fault(place, spans, "`entities`, a list of spans"))?;
    let units: Vec<Range<usize>> = text.char_indices().map(|(at, char)| at..at + char.len_utf8()).collect();
    let mut tags = vec!["O".to_owned(); units.len()];
    for span in spans {
        // A span is `{"start": 0, "end": 2, "label": "X"}` or `[0, 2, "X"]`.
        let part = |key: &str, at: usize| span.get(key).or_else(|| span.get(at)).and_then(scalar);
        let number = |key, at| part(key, at).and_then(|number| number.parse::<usize>().ok());
        let (Some(start), Some(end), Some(label)) = (number("start", 0), number("end", 1), part("label", 2)) else {
            return Err(fault(place, span, "a span with `start`, `end` and `label`"));
        };
        if label.is_empty() {
            return Err(fault(place, span, "a label that is not empty"));
        }
        if start >= end || end > units.len() || tags[start..end].iter().any(|tag| tag != "O") {
            return Err(fault(place, span, "a span of characters within the text that does not overlap another"));
        }
        for (at, tag) in tags[start..end].iter_mut().enumerate() {
            *tag = format!("{}-{label}", if at == 0 { 'B' } else { 'I' });
        }
    }
    let tags = tags.into_iter().map(|tag| names.place(tag, || place.clone())).collect::<Result<_, _>>()?;
    Ok(TaggedText { text, units, tags })
}

#[cfg(test)]
mod tests {
    use kiln_schema::TaggedText;

    use crate::testing::file;

    /// The texts, each with its units and their tags.
    fn shown(content: &str) -> Result<Vec<String>, String> {
        let file = file("a.jsonl", content);
        let read = crate::read::<TaggedText>(std::slice::from_ref(&file.source), None);
        let (texts, labels) = read.map_err(|error| error.to_string())?;
        let shown = |text: &TaggedText| {
            let tags = text.tags.iter().map(|tag| labels.name(*tag));
            let units: Vec<String> = text.words().zip(tags).map(|(unit, tag)| format!("{unit}/{tag}")).collect();
            format!("{} = {}", text.text, units.join(" "))
        };
        Ok(texts.iter().map(shown).collect())
    }

    #[test]
    fn lists_and_spans_are_read() {
        for (line, expected) in [
            (
                r#"{"id": "0", "tokens": ["EU", "rejects"], "ner_tags": ["B-ORG", "O"], "pos_tags": [1, 2]}"#,
                "EU rejects = EU/B-ORG rejects/O",
            ),
            (r#"{"words": ["中", "", "国"], "tags": [1, 0, 2]}"#, "中国 = 中/1 国/2"),
            (
                r#"{"text": "在北京", "entities": [{"start": 1, "end": 3, "label": "LOC"}]}"#,
                "在北京 = 在/O 北/B-LOC 京/I-LOC",
            ),
            (r#"{"text": "北京", "label": [[0, 2, "LOC"]], "tokens": 3}"#, "北京 = 北/B-LOC 京/I-LOC"),
        ] {
            assert_eq!(shown(line).expect(line), [expected], "{line}");
        }
        let none = format!("{}\n{}", r#"{"tokens": [], "tags": []}"#, r#"{"tokens": ["a"], "tags": ["O"]}"#);
        assert_eq!(shown(&none).expect("one of two texts has units"), ["a = a/O"]);
    }

    #[test]
    fn a_prediction_needs_no_tags() {
        let mut file = file("a.jsonl", "{\"tokens\": [\"EU\", \"rejects\"]}\n{\"tokens\": []}");
        assert!(crate::read::<TaggedText>(std::slice::from_ref(&file.source), None).is_err());
        file.source.columns.label = None;
        let (texts, _) = crate::read::<TaggedText>(std::slice::from_ref(&file.source), None).expect("units");
        assert_eq!(texts[0].words().collect::<Vec<_>>(), ["EU", "rejects"]);
        assert_eq!((texts.len(), texts[1].units.len()), (2, 0), "one for each row");
    }

    #[test]
    fn faults_name_the_line() {
        for (line, expected) in [
            (r#"{"tokens": ["a", "b"], "ner_tags": ["O"]}"#, r#"found `["O"]`, expected as many tags as units"#),
            (r#"{"tokens": ["a"], "ner_tags": [null]}"#, "found `null`, expected a list of tags"),
            (r#"{"tokens": "a b", "ner_tags": ["O"]}"#, r#"found `"a b"`, expected a list of units"#),
            (r#"{"tokens": ["a"]}"#, "expected `text`, a string, or a list of `tokens` and a list of `ner_tags`"),
        ] {
            let message = shown(&format!("{{\"tokens\": [\"a\"], \"tags\": [\"O\"]}}\n{line}")).expect_err(line);
            assert!(message.contains("a.jsonl, line 2: ") && message.contains(expected), "{message}");
        }
    }
}
