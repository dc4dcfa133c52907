use std::collections::HashMap;

/// How answers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerRules {
    /// Those of SQuAD's own script: words, without case, punctuation and articles (Rajpurkar et al., 2016).
    English,
    /// Those of CMRC 2018's own script: Chinese characters one by one and other words whole, without case and
    /// punctuation; what two answers share is the longest passage of both (Cui et al., 2019).
    Chinese,
}

/// Exact match (0 or 1) and F1 of a prediction: the best over the true answers. Where there are none, an empty prediction
/// is right.
pub fn answer_scores(prediction: &str, answers: &[&str], rules: AnswerRules) -> (f64, f64) {
    if answers.is_empty() {
        let right = f64::from(u8::from(segments(prediction, rules).is_empty()));
        return (right, right);
    }
    let predicted = segments(prediction, rules);
    answers.iter().fold((0.0, 0.0), |(exact, f1), answer| {
        let expected = segments(answer, rules);
        let same = predicted == expected;
        (f64::max(exact, f64::from(u8::from(same))), f64::max(f1, overlap_f1(&predicted, &expected, rules)))
    })
}

fn overlap_f1(predicted: &[String], expected: &[String], rules: AnswerRules) -> f64 {
    if predicted.is_empty() || expected.is_empty() {
        return f64::from(u8::from(predicted == expected));
    }
    let shared = match rules {
        AnswerRules::English => shared_words(predicted, expected),
        AnswerRules::Chinese => longest_shared_passage(predicted, expected),
    };
    if shared == 0 {
        return 0.0;
    }
    let (precision, recall) = (shared as f64 / predicted.len() as f64, shared as f64 / expected.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

/// How many words both have, each as often as the one that has it less often.
fn shared_words(a: &[String], b: &[String]) -> usize {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for word in a {
        *counts.entry(word).or_default() += 1;
    }
    let take = |word: &&String| match counts.get_mut(word.as_str()) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    };
    b.iter().filter(take).count()
}

fn longest_shared_passage(a: &[String], b: &[String]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut longest = 0;
    for x in a {
        let mut now = vec![0; b.len() + 1];
        for (at, _) in b.iter().enumerate().filter(|(_, y)| x == *y) {
            now[at + 1] = before[at] + 1;
            longest = longest.max(now[at + 1]);
        }
        before = now;
    }
    longest
}

/// What CMRC 2018's script takes out beside white space.
const CHINESE_PUNCTUATION: &str = "-:_*^/\\~`+=，。：？！“”；’《》…·、「」（）－～『』";

fn segments(text: &str, rules: AnswerRules) -> Vec<String> {
    match rules {
        AnswerRules::English => {
            let plain: String = text.to_lowercase().chars().filter(|char| !char.is_ascii_punctuation()).collect();
            let words = plain.split_whitespace().filter(|word| !matches!(*word, "a" | "an" | "the"));
            words.map(str::to_owned).collect()
        }
        AnswerRules::Chinese => {
            let mut segments: Vec<String> = Vec::new();
            let mut inside = false;
            for char in text.to_lowercase().chars() {
                if char.is_whitespace() || CHINESE_PUNCTUATION.contains(char) {
                    // A mark that is taken out does not part what stands around it; white space does.
                    inside &= !char.is_whitespace();
                    continue;
                }
                let joins = char.is_alphanumeric() && !('\u{4e00}'..='\u{9fa5}').contains(&char);
                match segments.last_mut() {
                    Some(last) if inside && joins => last.push(char),
                    _ => segments.push(char.to_string()),
                }
                inside = joins;
            }
            segments
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn english_answers_are_compared_by_words() {
        let scores = |prediction, answers: &[&str]| answer_scores(prediction, answers, AnswerRules::English);
        assert_eq!(scores("The Eiffel Tower!", &["eiffel tower"]), (1.0, 1.0));
        // Two of the prediction's four words, two of the answer's two.
        let (exact, f1) = scores("the tall eiffel tower paris", &["Eiffel Tower"]);
        assert_eq!(exact, 0.0);
        assert!((f1 - 2.0 * 0.5 / 1.5).abs() < 1e-12);
        assert_eq!(scores("Denver", &["Santa Clara", "Denver Broncos", "denver"]), (1.0, 1.0));
        assert_eq!((scores("", &[]), scores("x", &[])), ((1.0, 1.0), (0.0, 0.0)));
        assert_eq!(scores("the", &["a"]), (1.0, 1.0), "articles alone are nothing, as in the script");
        assert!((scores("to be to", &["be to be to be"]).1 - 0.75).abs() < 1e-12);
    }

    #[test]
    fn chinese_answers_are_compared_by_characters() {
        let scores = |prediction, answers: &[&str]| answer_scores(prediction, answers, AnswerRules::Chinese);
        assert_eq!(scores("《红楼梦》。", &["红楼梦"]), (1.0, 1.0));
        // The longest passage of both is three of four characters on either side.
        let (exact, f1) = scores("在北京市", &["北京市内"]);
        assert_eq!(exact, 0.0);
        assert!((f1 - 0.75).abs() < 1e-12);
        assert_eq!(scores("1998年 Rust", &["1998年rust"]), (1.0, 1.0));
        // Both characters are there, but not side by side.
        assert!((scores("北大京", &["北京"]).1 - 2.0 * (1.0 / 3.0) * 0.5 / (1.0 / 3.0 + 0.5)).abs() < 1e-12);
    }
}
