use kiln_metrics::{ConfusionMatrix, EntityScores, entities, entity_scores, word_scores, words};
use kiln_schema::{LabelId, LabelSet, TagScheme};

use crate::error::check_loss;
use crate::evaluate::label_reports;
use crate::{Error, LabelReport, Scores, SpanScores, SplitReport, TagScores};

/// A set of tags and the scheme that defines their meaning.
#[derive(Clone, Copy, Debug)]
pub struct TagSet<'a> {
    /// The tags, in the order of the logits.
    pub labels: &'a LabelSet,
    /// How tags form entities or words.
    pub scheme: TagScheme,
}

/// Scores the tags of each text's units, and the entities or words that the tags form.
///
/// # Errors
/// When the loss is NaN or infinite. It is if a logit is.
///
/// # Panics
/// When the lengths do not fit.
pub fn evaluate_tags(
    loss: f64,
    predictions: &[Vec<LabelId>],
    targets: &[Vec<LabelId>],
    TagSet { labels, scheme }: TagSet<'_>,
) -> Result<SplitReport, Error> {
    check_loss(loss)?;
    let (predicted_ids, target_ids) = (predictions.concat(), targets.concat());
    assert_eq!(predicted_ids.len(), target_ids.len(), "a prediction for each unit");
    let matrix = ConfusionMatrix::new(&predicted_ids, &target_ids, labels.len());
    let (spans, reports) = match scheme {
        TagScheme::Plain => (None, label_reports(&matrix, labels)),
        TagScheme::Segmentation => {
            let all_words = |texts| named(texts, labels).iter().map(|tags| words(tags)).collect::<Vec<_>>();
            (Some(word_scores(&all_words(targets), &all_words(predictions))), Vec::new())
        }
        TagScheme::Entities => {
            let all_entities = |texts| named(texts, labels).iter().map(|tags| entities(tags)).collect::<Vec<_>>();
            let (total, by_label) = entity_scores(&all_entities(targets), &all_entities(predictions));
            (Some(total), by_label.iter().map(|(label, scores)| LabelReport::new(label, *scores)).collect())
        }
    };
    let span_scores = |EntityScores { precision, recall, f1, .. }| SpanScores {
        entity_precision: precision,
        entity_recall: recall,
        entity_f1: f1,
    };
    let scores = TagScores {
        tag_scheme: scheme,
        accuracy: matrix.accuracy(),
        macro_f1: matrix.macro_f1(),
        spans: spans.map(span_scores),
        units: target_ids.len(),
        labels: reports,
    };
    Ok(SplitReport::new(loss, targets.len(), Scores::Tags(scores)))
}

/// The names of the tags of each text.
fn named<'a>(texts: &[Vec<LabelId>], labels: &'a LabelSet) -> Vec<Vec<&'a str>> {
    texts.iter().map(|tags| tags.iter().map(|tag| labels.name(*tag)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(names: &[&str], predictions: &[Vec<LabelId>], targets: &[Vec<LabelId>]) -> SplitReport {
        let labels = LabelSet::new(names.iter().copied()).expect("distinct names");
        let scheme = TagScheme::infer(names.iter().copied()).expect("unambiguous tags");
        evaluate_tags(0.1, predictions, targets, TagSet { labels: &labels, scheme }).expect("the loss is finite")
    }

    #[test]
    fn entities_and_words_by_hand() {
        let scored = report(&["O", "B-X", "I-X"], &[vec![1, 2, 0], vec![1]], &[vec![1, 2, 0], vec![0]]);
        assert_eq!((scored.score("accuracy"), scored.score("entity_precision")), (Some(0.75), Some(0.5)));
        assert_eq!(scored.score("entity_recall"), Some(1.0));
        let scored = report(&["B", "E", "S"], &[vec![0, 1, 2]], &[vec![2, 2, 2]]);
        assert_eq!(scored.score("entity_recall"), Some(1.0 / 3.0));
        let json = serde_json::to_value(&scored).expect("it is JSON");
        assert!(json["entity_f1"].is_number() && json["loss"].is_number() && json["examples"] == 1, "{json}");
        assert_eq!(json["tag_scheme"], "segmentation");
    }

    /// Regression test: parts of speech were scored as words of one unit each.
    #[test]
    fn plain_tags_have_scores_of_tags_alone() {
        let scored = report(&["NOUN", "VERB", "NN-SHORT"], &[vec![0, 0, 2, 1]], &[vec![0, 1, 2, 1]]);
        let json = serde_json::to_value(&scored).expect("it is JSON");
        assert_eq!((json["tag_scheme"].as_str(), json["accuracy"].as_f64()), (Some("plain"), Some(0.75)));
        assert!(json.as_object().expect("an object").keys().all(|key| !key.starts_with("entity")), "{json}");
        assert_eq!(scored.score("entity_f1"), None);
        // F1 is 2/3 for NOUN, 2/3 for VERB and 1 for NN-SHORT.
        assert!((scored.score("macro_f1").expect("tags have it") - 7.0 / 9.0).abs() < 1e-12);
        let [noun, verb, short] = scored.labels() else { panic!("three tags") };
        assert_eq!((noun.label.as_str(), noun.precision, verb.recall, short.f1), ("NOUN", 0.5, 0.5, 1.0));
    }

    #[test]
    fn no_number_and_no_texts() {
        let labels = LabelSet::new(["O", "B-X"]).expect("two names");
        for scheme in [TagScheme::Entities, TagScheme::Segmentation, TagScheme::Plain] {
            let tags = TagSet { labels: &labels, scheme };
            assert!(evaluate_tags(f64::NAN, &[], &[], tags).is_err());
            let report = evaluate_tags(0.0, &[], &[], tags).expect("finite");
            assert!(!serde_json::to_string(&report).expect("it is JSON").contains("null"));
        }
    }
}
