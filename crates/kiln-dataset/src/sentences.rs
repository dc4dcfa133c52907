use std::str::Chars;

/// Divides a Chinese or English text into sentences.
///
/// A sentence ends after 。！？!?… and any closing quotation marks and brackets. It also ends after a full stop, if the
/// text ends there or white space and a character that is not a lower-case letter follow. A full stop after an initial
/// or a common abbreviation does not end a sentence.
///
/// The sentences contain every character of the text except the white space between them.
pub fn sentences(text: &str) -> Vec<&str> {
    let mut sentences = Vec::new();
    let mut start = 0;
    let mut chars = text.chars();
    while let Some(character) = chars.next() {
        if !ENDS.contains(character) && character != '.' {
            continue;
        }
        skip(&mut chars, |next| ENDS.contains(next) || next == '.');
        let at = text.len() - chars.as_str().len();
        skip(&mut chars, |next| CLOSES.contains(next));
        let end = text.len() - chars.as_str().len();
        if character == '.' && !(ends_at_full_stop(&text[start..at]) && begins_behind(chars.as_str())) {
            continue;
        }
        sentences.push(text[start..end].trim());
        start = end;
    }
    sentences.push(text[start..].trim());
    sentences.retain(|sentence| !sentence.is_empty());
    sentences
}

const ENDS: &str = "。！？!?…";
const CLOSES: &str = "”’」』）》)\"'";

/// English abbreviations that are written with a full stop.
const ABBREVIATIONS: [&str; 18] = [
    "Mr", "Mrs", "Ms", "Dr", "Prof", "St", "Jr", "Sr", "vs", "etc", "e.g", "i.e", "No", "Fig", "Inc", "Ltd", "Co", "al",
];

fn skip(chars: &mut Chars<'_>, holds: impl Fn(char) -> bool) {
    let rest = chars.as_str();
    let kept = rest.trim_start_matches(holds);
    *chars = kept.chars();
}

/// Whether the full stop at the end of `text` can end a sentence.
fn ends_at_full_stop(text: &str) -> bool {
    let word = text.rsplit(char::is_whitespace).next().unwrap_or_default().trim_end_matches('.');
    let word = word.trim_start_matches(|c: char| !c.is_alphanumeric());
    let initial = word.chars().count() == 1 && word.chars().all(char::is_uppercase);
    !initial && !ABBREVIATIONS.contains(&word)
}

/// Whether a full stop before `rest` is followed by the end of the text, or by white space and no lower-case letter.
fn begins_behind(rest: &str) -> bool {
    let next = rest.trim_start();
    rest.is_empty() || (next.len() < rest.len() && !next.starts_with(char::is_lowercase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chinese_and_english_sentences() {
        for (text, expected) in [
            ("", vec![]),
            (" 没有句号 ", vec!["没有句号"]),
            (
                "他说：“你好！”然后走了。真的……是吗？！好",
                vec!["他说：“你好！”", "然后走了。", "真的……", "是吗？！", "好"],
            ),
            ("It cost 3.14 dollars. Cheap! He left.", vec!["It cost 3.14 dollars.", "Cheap!", "He left."]),
            (
                "Dr. J. Smith vs. nobody, e.g. me. \"End.\" Next",
                vec!["Dr. J. Smith vs. nobody, e.g. me.", "\"End.\"", "Next"],
            ),
            ("See www.kiln.rs for more. ok", vec!["See www.kiln.rs for more. ok"]),
            ("Wait... What?", vec!["Wait...", "What?"]),
        ] {
            assert_eq!(sentences(text), expected, "{text}");
            let kept = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(kept(&sentences(text).concat()), kept(text));
        }
    }
}
