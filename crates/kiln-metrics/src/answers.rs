use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// The language in which answers are compared. It determines how they are divided into words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerLanguage {
    /// The rules of the official SQuAD script: words, ignoring case, punctuation and articles (Rajpurkar et al., 2016).
    English,
    /// The rules of the official CMRC 2018 script: single Chinese characters and whole words of other scripts, ignoring case
    /// and punctuation. F1 is computed from the longest common passage (Cui et al., 2019).
    Chinese,
}

impl AnswerLanguage {
    /// Chinese if more than half of the contexts contain a Chinese character, otherwise English.
    pub fn infer<'a>(contexts: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut chinese, mut contexts_seen) = (0usize, 0usize);
        for context in contexts {
            contexts_seen += 1;
            chinese += usize::from(context.chars().any(|char| ('\u{4e00}'..='\u{9fff}').contains(&char)));
        }
        if chinese * 2 > contexts_seen { Self::Chinese } else { Self::English }
    }
}

/// Exact match (0 or 1) and F1 of a prediction, each the best over the true answers. If there are no true answers, an empty
/// prediction is correct.
pub fn answer_scores(prediction: &str, answers: &[&str], language: AnswerLanguage) -> (f64, f64) {
    if answers.is_empty() {
        let right = f64::from(u8::from(segments(prediction, language).is_empty()));
        return (right, right);
    }
    let predicted = segments(prediction, language);
    answers.iter().fold((0.0, 0.0), |(exact, f1), answer| {
        let expected = segments(answer, language);
        let same = match language {
            AnswerLanguage::English => predicted == expected,
            AnswerLanguage::Chinese => without_punctuation(prediction) == without_punctuation(answer),
        };
        (f64::max(exact, f64::from(u8::from(same))), f64::max(f1, overlap_f1(&predicted, &expected, language)))
    })
}

fn overlap_f1(predicted: &[String], expected: &[String], language: AnswerLanguage) -> f64 {
    if predicted.is_empty() || expected.is_empty() {
        return f64::from(u8::from(predicted == expected));
    }
    let shared = match language {
        AnswerLanguage::English => shared_words(predicted, expected),
        AnswerLanguage::Chinese => longest_shared_passage(predicted, expected),
    };
    if shared == 0 {
        return 0.0;
    }
    let (precision, recall) = (shared as f64 / predicted.len() as f64, shared as f64 / expected.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

/// The number of common words. A repeated word counts as often as it occurs in both.
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

/// The characters that the CMRC 2018 script removes. Its list also has `……`, which never equals a single character.
const CHINESE_PUNCTUATION: &str = "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』";

/// The characters that NLTK's `word_tokenize`, which the CMRC 2018 script uses, always takes as words of their own.
const SINGLE_WORDS: &str = "!\"#$%&'();<>?@[]{}–—―‘«»„";

/// The text that exact match compares in Chinese. Only white space at its edges is removed.
fn without_punctuation(text: &str) -> String {
    text.trim().to_lowercase().chars().filter(|char| !CHINESE_PUNCTUATION.contains(*char)).collect()
}

fn is_chinese(char: char) -> bool {
    ('\u{4e00}'..='\u{9fa5}').contains(&char)
}

/// Replaces each article by a space, as the script's regular expression `\b(a|an|the)\b` does. A dash, for example, ends a
/// word.
fn without_articles(text: &str) -> String {
    let mut without = String::with_capacity(text.len());
    for part in text.split_inclusive(|char: char| !char.is_alphanumeric()) {
        let word = part.trim_end_matches(|char: char| !char.is_alphanumeric());
        let is_article = matches!(word, "a" | "an" | "the");
        without.push_str(if is_article { " " } else { word });
        without.push_str(&part[word.len()..]);
    }
    without
}

fn segments(text: &str, language: AnswerLanguage) -> Vec<String> {
    match language {
        AnswerLanguage::English => {
            let plain: String = text.to_lowercase().chars().filter(|char| !char.is_ascii_punctuation()).collect();
            without_articles(&plain).split_whitespace().map(str::to_owned).collect()
        }
        AnswerLanguage::Chinese => {
            let mut segments: Vec<String> = Vec::new();
            let mut inside = false;
            // Unlike white space, removed punctuation does not separate words.
            let plain = without_punctuation(text);
            let mut chars = plain.chars().peekable();
            while let Some(char) = chars.next() {
                let joins = match (char, chars.peek()) {
                    (',', next) => next.is_some_and(|next| next.is_ascii_digit()),
                    ('.', next) => next.is_some_and(|next| next.is_alphanumeric() && !is_chinese(*next)),
                    _ => !char.is_whitespace() && !is_chinese(char) && !SINGLE_WORDS.contains(char),
                };
                match segments.last_mut() {
                    Some(last) if inside && joins => last.push(char),
                    _ if char.is_whitespace() => {}
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
    fn the_language_is_that_of_most_contexts() {
        let english = vec!["a 房 in an English text"; 3].into_iter().chain(vec!["text"; 3]);
        assert_eq!(AnswerLanguage::infer(english.clone()), AnswerLanguage::English);
        assert_eq!(AnswerLanguage::infer(english.chain(["北京是首都"])), AnswerLanguage::Chinese);
        // The first hundred contexts do not decide alone.
        let late = vec!["text"; 100].into_iter().chain(vec!["北京"; 101]);
        assert_eq!(AnswerLanguage::infer(late), AnswerLanguage::Chinese);
        assert_eq!(AnswerLanguage::infer([]), AnswerLanguage::English);
    }

    #[test]
    fn english_answers_are_compared_by_words() {
        let scores = |prediction, answers: &[&str]| answer_scores(prediction, answers, AnswerLanguage::English);
        assert_eq!(scores("The Eiffel Tower!", &["eiffel tower"]), (1.0, 1.0));
        // Two of the four words of the prediction match, and both words of the answer.
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
        let scores = |prediction, answers: &[&str]| answer_scores(prediction, answers, AnswerLanguage::Chinese);
        assert_eq!(scores("《红楼梦》。", &["红楼梦"]), (1.0, 1.0));
        // The longest common passage has three of the four characters of each.
        let (exact, f1) = scores("在北京市", &["北京市内"]);
        assert_eq!(exact, 0.0);
        assert!((f1 - 0.75).abs() < 1e-12);
        assert_eq!(scores("1998年 Rust", &["1998年rust"]), (0.0, 1.0), "white space counts in exact match only");
        assert_eq!(scores(" 1998年", &["1998年"]), (1.0, 1.0));
        // Numbers are whole words.
        assert_eq!(
            segments("11.42亿元，3,500(v1.2) 3,", AnswerLanguage::Chinese),
            ["11.42", "亿", "元", "3,500", "(", "v1.2", ")", "3", ","]
        );
        assert!((scores("11.42", &["11.42亿元"]).1 - 0.5).abs() < 1e-12);
        // Both characters occur, but not next to each other.
        assert!((scores("北大京", &["北京"]).1 - 2.0 * (1.0 / 3.0) * 0.5 / (1.0 / 3.0 + 0.5)).abs() < 1e-12);
    }
}
