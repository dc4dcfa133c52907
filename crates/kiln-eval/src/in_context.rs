//! A passage of a text with the text around it, for the table of errors.

use std::ops::Range;

use crate::charts::escape;

/// Name of the column of an error table that shows passages in context.
pub(crate) const CONTEXT: &str = "context";
/// The marks before and after the passage. They are rare; where a text contains them, they are removed.
const MARKS: [char; 2] = ['⟦', '⟧'];
/// Number of characters shown before the passage, and after it.
const AROUND: usize = 24;

/// Formats a passage of a text as `…⟦passage⟧…`, in one line with up to 24 characters before and after it, for the column
/// `context` of an error table. `passage` is a range of bytes.
///
/// # Panics
/// When the passage is not in the text.
pub fn in_context(text: &str, passage: Range<usize>) -> String {
    let (before, behind) = (&text[..passage.start], &text[passage.end..]);
    let start = before.char_indices().rev().take(AROUND).last().map_or(passage.start, |(at, _)| at);
    let end = behind.char_indices().nth(AROUND).map_or(text.len(), |(at, _)| passage.end + at);
    let flat = |part: &str| -> String {
        let kept = part.chars().filter(|character| !MARKS.contains(character));
        kept.map(|character| if character.is_control() { ' ' } else { character }).collect()
    };
    let dots = |is_cut: bool| if is_cut { "…" } else { "" };
    let [open, close] = MARKS;
    let (left, middle, right) =
        (flat(&text[start..passage.start]), flat(&text[passage.clone()]), flat(&text[passage.end..end]));
    format!("{}{left}{open}{middle}{close}{right}{}", dots(start > 0), dots(end < text.len()))
}

/// Converts the output of [`in_context`] to HTML with the passage in a `mark` element.
pub(crate) fn marked(cell: &str) -> String {
    let [open, close] = MARKS;
    match cell.split_once(open).and_then(|(before, rest)| Some((before, rest.split_once(close)?))) {
        Some((before, (passage, behind))) => {
            format!("{}<mark>{}</mark>{}", escape(before), escape(passage), escape(behind))
        }
        None => escape(cell),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passage_has_what_is_around_it() {
        let text = "房间很\t大⟦。服务不错";
        let start = text.find("服务").expect("it is there");
        assert_eq!(in_context(text, start..start + "服务".len()), "房间很 大。⟦服务⟧不错");
        let long = "前".repeat(30) + "中" + &"后".repeat(30);
        let found = in_context(&long, 90..93);
        assert_eq!(found, format!("…{}⟦中⟧{}…", "前".repeat(24), "后".repeat(24)));
        assert_eq!(in_context("", 0..0), "⟦⟧");
    }

    #[test]
    fn a_page_marks_it() {
        assert_eq!(marked("a<b⟦c&d⟧e"), "a&lt;b<mark>c&amp;d</mark>e");
        assert_eq!(marked("no <mark>"), "no &lt;mark&gt;");
    }
}
