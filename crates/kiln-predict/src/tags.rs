use std::ops::Range;

use kiln_metrics::{entities, words};
use kiln_schema::{LabelId, LabelSet, TagScheme};

use crate::{EntitiesPrediction, EntityPrediction, Prediction, TagPrediction, TagsPrediction};

/// A text with the predicted tags of its units.
pub(crate) struct TaggedUnits<'a> {
    pub text: &'a str,
    /// The byte ranges of the units, in order.
    pub units: &'a [Range<usize>],
    pub tags: &'a [LabelId],
    pub scores: &'a [f64],
}

impl TaggedUnits<'_> {
    /// Converts the tags to entities, words or plain tags, depending on the scheme. Invalid sequences of entity tags are
    /// interpreted as by seqeval's default mode. Every unit belongs to a word.
    pub fn prediction(&self, labels: &LabelSet, scheme: TagScheme) -> Prediction {
        let names: Vec<&str> = self.tags.iter().map(|tag| labels.name(*tag)).collect();
        let spans: Vec<(String, Range<usize>)> = match scheme {
            TagScheme::Entities => {
                entities(&names).into_iter().map(|entity| (entity.label, entity.start..entity.end)).collect()
            }
            TagScheme::Segmentation => words(&names).into_iter().map(|word| ("_".to_owned(), word)).collect(),
            TagScheme::Plain => {
                names.iter().enumerate().map(|(unit, name)| ((*name).to_owned(), unit..unit + 1)).collect()
            }
        };
        let entities = self.passages(spans);
        let text = self.text.to_owned();
        if scheme != TagScheme::Plain {
            return Prediction::Entities(EntitiesPrediction { text, entities });
        }
        let tag =
            |EntityPrediction { label, start, end, text, score }| TagPrediction { tag: label, start, end, text, score };
        Prediction::Tags(TagsPrediction { text, tags: entities.into_iter().map(tag).collect() })
    }

    /// Converts labelled ranges of units, in order, to passages of the text.
    fn passages(&self, spans: Vec<(String, Range<usize>)>) -> Vec<EntityPrediction> {
        let mut offsets = CharacterOffsets { text: self.text, byte: 0, character: 0 };
        let passage = |(label, span): (String, Range<usize>)| {
            let (start, end) = (self.units[span.start].start, self.units[span.end - 1].end);
            let score = self.scores[span.clone()].iter().sum::<f64>() / span.len() as f64;
            let text = self.text[start..end].to_owned();
            EntityPrediction { label, start: offsets.of_byte(start), end: offsets.of_byte(end), text, score }
        };
        spans.into_iter().map(passage).collect()
    }
}

/// Converts byte offsets of a text to character offsets, in one pass.
struct CharacterOffsets<'a> {
    text: &'a str,
    /// The byte offset up to which characters have been counted.
    byte: usize,
    character: usize,
}

impl CharacterOffsets<'_> {
    /// The character offset of a byte offset, which must not be less than in the previous call.
    fn of_byte(&mut self, byte: usize) -> usize {
        self.character += self.text[self.byte..byte].chars().count();
        self.byte = byte;
        self.character
    }
}

#[cfg(test)]
mod tests {
    use kiln_tokenize::characters;

    use super::*;

    fn prediction(text: &str, names: &[&str], tags: &[LabelId], scheme: TagScheme) -> serde_json::Value {
        let labels = LabelSet::new(names.iter().copied()).expect("distinct names");
        let scores = vec![0.5; tags.len()];
        let units = characters(text);
        let tagged = TaggedUnits { text, units: &units, tags, scores: &scores };
        serde_json::to_value(tagged.prediction(&labels, scheme)).expect("it is JSON")
    }

    /// A regression test: tags without prefixes used to join all units into one word.
    #[test]
    fn plain_tags_stay_units() {
        let json = prediction("我 爱书", &["NOUN", "PRON", "NN-SHORT"], &[1, 2, 0], TagScheme::Plain);
        let tag = |tag: &str, start: usize, text: &str| serde_json::json!({ "tag": tag, "start": start, "end": start + 1, "text": text, "score": 0.5 });
        let expected = [tag("PRON", 0, "我"), tag("NN-SHORT", 2, "爱"), tag("NOUN", 3, "书")];
        assert_eq!(json, serde_json::json!({ "text": "我 爱书", "tags": expected }));
    }

    #[test]
    fn entities_and_words_are_passages() {
        let json = prediction("é房 间x", &["O", "B-A", "I-A"], &[0, 1, 2, 0], TagScheme::Entities);
        let entity = serde_json::json!({ "label": "A", "start": 1, "end": 4, "text": "房 间", "score": 0.5 });
        assert_eq!(json["entities"], serde_json::json!([entity]));
        let json = prediction("房间好", &["B", "E", "S"], &[0, 1, 2], TagScheme::Segmentation);
        let texts: Vec<&str> =
            json["entities"].as_array().expect("a list").iter().filter_map(|word| word["text"].as_str()).collect();
        assert_eq!(texts, ["房间", "好"]);
        assert_eq!(prediction("", &["B", "E"], &[], TagScheme::Segmentation)["entities"], serde_json::json!([]));
    }

    /// Counting from the start of the text for each entity would visit 10¹¹ characters.
    #[test]
    fn many_entities_cost_one_pass() {
        let text = "房".repeat(300_000);
        let units = characters(&text);
        let (tags, scores) = (vec![1; units.len()], vec![0.5; units.len()]);
        let labels = LabelSet::new(["O", "B-A"]).expect("two names");
        let tagged = TaggedUnits { text: &text, units: &units, tags: &tags, scores: &scores };
        let Prediction::Entities(prediction) = tagged.prediction(&labels, TagScheme::Entities) else {
            panic!("they are entities")
        };
        let last = prediction.entities.last().expect("there are some");
        assert_eq!((prediction.entities.len(), last.start, last.end), (300_000, 299_999, 300_000));
    }
}
