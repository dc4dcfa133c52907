//! The layouts of files of tagged texts, and their detection.

/// The layout of a file of tagged texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One unit per line with its tag in the last column, and a blank line between texts.
    UnitPerLine,
    /// The ten columns of CoNLL-U: a word is in the second column, its part of speech in the fourth.
    ConllU,
    /// One unit per line without a tag, as in the test files of shared tasks.
    Untagged,
    /// One text per line: units separated by spaces, a tab, then tags separated by spaces.
    TextPerLine,
    /// One text per line as words separated by spaces. Their characters are tagged B, M, E and S.
    Segmented,
}

/// The line that starts a document in the files of CoNLL 2003.
pub(crate) const DOCUMENT_START: &str = "-DOCSTART-";

/// Whether a line is a comment of CoNLL-U, such as `# text = The dog barks.`
pub(crate) fn is_comment(line: &str) -> bool {
    let comment = line.strip_prefix("# ").filter(|_| !line.contains('\t'));
    comment.is_some_and(|comment| comment.contains(" = ") || ["newdoc", "newpar"].contains(&comment.trim()))
}

/// Whether a line has the ten columns of CoNLL-U, of which the first is a word's number.
fn is_conll_u(line: &str) -> bool {
    let columns: Vec<&str> = line.split('\t').collect();
    columns.len() == 10 && columns[0].split(['-', '.']).all(|number| number.parse::<u32>().is_ok())
}

/// Whether each line is a unit alone. Lines of several Chinese characters could also be sentences, unless blank lines divide
/// the file into texts.
pub(crate) fn is_untagged<'a>(lines: impl Iterator<Item = &'a str>) -> bool {
    let lines: Vec<&str> = lines.filter(|line| !is_comment(line)).map(str::trim).collect();
    let is_filled = |line: &&str| !line.is_empty();
    let (Some(first), Some(last)) = (lines.iter().position(is_filled), lines.iter().rposition(is_filled)) else {
        return false;
    };
    let lines = &lines[first..=last];
    let is_word = |line: &&str| line.chars().filter(|char| *char >= '\u{2e80}').count() < 2;
    !lines.iter().any(|line| line.contains([' ', '\t'])) && (lines.contains(&"") || lines.iter().all(is_word))
}

/// Detects the layout. It is CoNLL-U if the first line is. It is one text per line if any line has several units separated
/// by spaces, a tab, and as many tags. Otherwise it is one unit per line if any line has a tab or starts a document, or if most lines end in a tag. It is
/// also one unit per line if there are blank lines, at least seven of eight lines have two columns, and none has more.
/// Otherwise it is words separated by spaces.
///
/// A few lines without a tag do not change the layout, so that they are reported.
pub(crate) fn layout<'a>(lines: impl Iterator<Item = &'a str> + Clone) -> Layout {
    let filled = || lines.clone().filter(|line| !line.trim().is_empty() && !is_comment(line));
    if filled().next().is_some_and(is_conll_u) {
        return Layout::ConllU;
    }
    let whole = |line: &str| {
        line.split_once('\t')
            .filter(|(_, tags)| !tags.contains('\t'))
            .is_some_and(|(units, tags)| columns(units).count() > 1 && columns(units).count() == columns(tags).count())
    };
    if filled().any(whole) {
        return Layout::TextPerLine;
    }
    let count = filled().count();
    let tagged = filled().filter(|line| ends_in_tag(line)).count();
    let pairs = filled().filter(|line| columns(line).count() == 2).count();
    let longer = filled().any(|line| columns(line).count() > 2);
    let parted = filled().count() < lines.clone().count();
    if filled().any(|line| line.contains('\t') || line.starts_with(DOCUMENT_START))
        || 2 * tagged > count
        || (parted && !longer && 8 * pairs >= 7 * count)
    {
        Layout::UnitPerLine
    } else {
        Layout::Segmented
    }
}

fn columns(line: &str) -> impl DoubleEndedIterator<Item = &str> {
    line.split(' ').filter(|column| !column.is_empty())
}

/// Whether the last column of a line looks like a tag. Of two columns, the last may also be an ASCII word, such as a part
/// of speech.
fn ends_in_tag(line: &str) -> bool {
    let starts_ascii = |word: &str| word.starts_with(|char: char| char.is_ascii_alphanumeric());
    match columns(line).collect::<Vec<_>>()[..] {
        [_, last] => is_tag(last) || starts_ascii(last),
        [_, .., last] => is_tag(last),
        _ => false,
    }
}

/// Whether a word is `O` or a prefix, or a prefix joined to a label, as in `B-PER`, `b_地名` and `LOC-B`.
fn is_tag(word: &str) -> bool {
    let is_prefix = |part: &str| part.len() == 1 && "OBIMELSU".contains(&part.to_ascii_uppercase());
    let joined = |prefix: &str, label: &str| is_prefix(prefix) && !label.is_empty();
    is_prefix(word)
        || word.split_once(['-', '_']).is_some_and(|(prefix, label)| joined(prefix, label))
        || word.rsplit_once(['-', '_']).is_some_and(|(label, prefix)| joined(prefix, label))
}
