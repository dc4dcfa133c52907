use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use kiln_schema::TaggedText;

use crate::lines::Lines;
use crate::read::Names;
use crate::{Error, Format, Place, Source, tagged_rows};

/// The layout of a file of tagged texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// One unit per line with its tag in the last column, and a blank line between texts.
    UnitPerLine,
    /// One text per line: units separated by spaces, a tab, then tags separated by spaces.
    TextPerLine,
    /// One text per line as words separated by spaces. Their characters are tagged B, M, E and S.
    Segmented,
}

/// A line and its number, from 1.
struct NumberedLine {
    text: String,
    number: u64,
}

/// The lines of a file. The first lines are buffered to detect the layout.
struct LookAhead {
    lines: Lines,
    ahead: VecDeque<NumberedLine>,
}

impl LookAhead {
    fn open(source: &Source) -> Result<Self, Error> {
        let mut reader = Self { lines: Lines::open(source)?, ahead: VecDeque::new() };
        while reader.ahead.len() < LOOK_AHEAD
            && let Some(line) = reader.read()?
        {
            reader.ahead.push_back(line);
        }
        Ok(reader)
    }

    fn next(&mut self) -> Result<Option<NumberedLine>, Error> {
        match self.ahead.pop_front() {
            Some(line) => Ok(Some(line)),
            None => self.read(),
        }
    }

    fn read(&mut self) -> Result<Option<NumberedLine>, Error> {
        let text = self.lines.next_line()?;
        Ok(text.map(|text| NumberedLine { text, number: self.lines.line() }))
    }

    fn fault(&self, line: &NumberedLine, expected: &'static str) -> Error {
        Error::Tagged { place: self.lines.place_of(line.number), found: line.text.clone(), expected }
    }
}

/// Reads tagged texts. [`Record`](crate::Record) describes the layouts.
pub(crate) fn read(source: &Source, names: &mut Names) -> Result<Vec<TaggedText>, Error> {
    if matches!(source.format()?, Format::Jsonl | Format::Parquet | Format::Arrow) {
        return tagged_rows::read(source, names);
    }
    let mut reader = LookAhead::open(source)?;
    let layout = layout(reader.ahead.iter().map(|line| line.text.as_str()));
    let mut texts = Vec::new();
    let mut open = OpenText::default();
    while let Some(line) = reader.next()? {
        let is_blank = line.text.trim().is_empty();
        let ends_text = match layout {
            Layout::UnitPerLine if is_blank || line.text.starts_with(DOCUMENT_START) => true,
            Layout::UnitPerLine => {
                add_unit(&mut open, &line, &reader)?;
                false
            }
            Layout::TextPerLine if !is_blank => add_text(&mut open, &line, &reader).map(|()| true)?,
            Layout::Segmented if !is_blank => {
                add_words(&mut open, &line);
                true
            }
            Layout::TextPerLine | Layout::Segmented => false,
        };
        if ends_text {
            texts.extend(open.take(names, |line| reader.lines.place_of(line))?);
        }
    }
    texts.extend(open.take(names, |line| reader.lines.place_of(line))?);
    Ok(texts)
}

/// Adds a line of [`Layout::UnitPerLine`].
fn add_unit(open: &mut OpenText, line: &NumberedLine, reader: &LookAhead) -> Result<(), Error> {
    let mut columns = line.text.split([' ', '\t']).filter(|column| !column.is_empty());
    match (columns.next(), columns.next_back()) {
        (Some(unit), Some(tag)) => {
            open.push(unit, tag, line.number);
            Ok(())
        }
        _ => Err(reader.fault(line, "a unit and its tag, separated by a tab or spaces")),
    }
}

/// Adds a line of [`Layout::TextPerLine`].
fn add_text(open: &mut OpenText, line: &NumberedLine, reader: &LookAhead) -> Result<(), Error> {
    let split = |part| str::split(part, ' ').filter(|word| !word.is_empty());
    let (units, tags) = line.text.split_once('\t').ok_or_else(|| reader.fault(line, "units, a tab, and their tags"))?;
    if split(units).count() != split(tags).count() {
        return Err(reader.fault(line, "as many tags as units"));
    }
    for (unit, tag) in split(units).zip(split(tags)) {
        open.push(unit, tag.trim_end(), line.number);
    }
    Ok(())
}

/// Adds a line of [`Layout::Segmented`].
fn add_words(open: &mut OpenText, line: &NumberedLine) {
    for word in line.text.split_whitespace() {
        let last = word.chars().count() - 1;
        for (at, (start, char)) in word.char_indices().enumerate() {
            let tag = match at {
                0 if last == 0 => "S",
                0 => "B",
                _ if at == last => "E",
                _ => "M",
            };
            open.push(&word[start..start + char.len_utf8()], tag, line.number);
        }
    }
}

/// The line that starts a document in the files of CoNLL 2003.
const DOCUMENT_START: &str = "-DOCSTART-";

/// The number of lines used to detect the layout.
const LOOK_AHEAD: usize = 64;

/// Detects the layout. It is one text per line if any line has several units separated by spaces, a tab, and as many
/// tags. Otherwise it is one unit per line if any line has a tab or starts a document, or if most lines end in a tag. It is
/// also one unit per line if there are blank lines, at least seven of eight lines have two columns, and none has more.
/// Otherwise it is words separated by spaces.
///
/// A few lines without a tag do not change the layout, so that they are reported.
fn layout<'a>(lines: impl Iterator<Item = &'a str> + Clone) -> Layout {
    let filled = || lines.clone().filter(|line| !line.trim().is_empty());
    let whole = |line: &str| {
        line.split_once('\t')
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

/// A text that is being read. It needs little more memory than the finished text.
#[derive(Default)]
pub(crate) struct OpenText {
    text: String,
    units: Vec<Range<usize>>,
    /// The tag of each unit, as an index of `distinct_tags`.
    tags: Vec<usize>,
    /// In order of first occurrence.
    distinct_tags: Vec<DistinctTag>,
    indices: HashMap<String, usize>,
    ends_wide: bool,
}

struct DistinctTag {
    name: String,
    /// The line of the first unit with this tag.
    line: u64,
}

impl OpenText {
    /// Adds a unit. Single characters are joined without a space; other units are separated by one.
    pub(crate) fn push(&mut self, unit: &str, tag: &str, line: u64) {
        let is_wide = unit.chars().nth(1).is_some();
        if (is_wide || self.ends_wide) && !self.text.is_empty() {
            self.text.push(' ');
        }
        let start = self.text.len();
        self.text.push_str(unit);
        self.units.push(start..self.text.len());
        let index = self.indices.get(tag).copied().unwrap_or_else(|| {
            self.distinct_tags.push(DistinctTag { name: tag.to_owned(), line });
            self.indices.insert(tag.to_owned(), self.indices.len());
            self.indices.len() - 1
        });
        self.tags.push(index);
        self.ends_wide = is_wide;
    }

    /// Completes the text; none if it has no units. `place_of` returns the place of a line.
    pub(crate) fn take(
        &mut self,
        names: &mut Names,
        place_of: impl Fn(u64) -> Place,
    ) -> Result<Option<TaggedText>, Error> {
        let Self { text, units, mut tags, distinct_tags, .. } = std::mem::take(self);
        if units.is_empty() {
            return Ok(None);
        }
        let place = |tag: DistinctTag| names.place(tag.name, || place_of(tag.line));
        let ids = distinct_tags.into_iter().map(place).collect::<Result<Vec<_>, _>>()?;
        tags.iter_mut().for_each(|tag| *tag = ids[*tag]);
        Ok(Some(TaggedText { text, units, tags }))
    }
}

#[cfg(test)]
mod tests {
    use kiln_schema::LabelSet;

    use crate::read;
    use crate::testing::file;

    use super::*;

    /// The units of each text as `unit/tag`.
    fn shown(name: &str, content: &str) -> Vec<String> {
        let file = file(name, content);
        let (texts, labels) = read::<TaggedText>(std::slice::from_ref(&file.source), None).expect("tagged texts");
        let pairs = |text: &TaggedText| {
            let tags = text.tags.iter().map(|tag| labels.name(*tag));
            let pairs: Vec<String> = text.words().zip(tags).map(|(unit, tag)| format!("{unit}/{tag}")).collect();
            format!("{} = {}", text.text, pairs.join(" "))
        };
        texts.iter().map(pairs).collect()
    }

    #[test]
    fn each_layout_is_told_and_read() {
        let characters = "中\tB-LOC\n国\tE-LOC\n\n好\tO\n";
        assert_eq!(shown("a.conll", characters), ["中国 = 中/B-LOC 国/E-LOC", "好 = 好/O"]);
        let words = "-DOCSTART- -X- O O\n\nEU NNP B-ORG\nrejects VBZ O\n\nA DT O\n";
        assert_eq!(shown("a.conll", words), ["EU rejects = EU/B-ORG rejects/O", "A = A/O"]);
        let whole = "中 国 ，\tB-LOC E-LOC O\n好\tO\n";
        assert_eq!(shown("a.conll", whole), ["中国， = 中/B-LOC 国/E-LOC ，/O", "好 = 好/O"]);
        let segmented = "共同  创造  美好\n我 爱你\n";
        assert_eq!(shown("a.conll", segmented)[1], "我爱你 = 我/S 爱/B 你/E");
    }

    #[test]
    fn tags_after_a_space_are_no_words() {
        let tagged = [
            "中 B-地名\n国 I-地名\n\n好 O\n",
            "张 U-PER\n中 B-LOC\n国 L-LOC\n",
            "中 b-loc\n国 i-loc\n好 o\n",
            "中 LOC-B\n国 LOC_I\n好 O\n",
            "北京 NR\n是 VC\n首都 NN\n\n大 VA\n。 PU\n",
            "北京 专名\n是 动词\n\n他 代词\n",
            "EU NNP B-ORG\nrejects VBZ O\n",
            "-DOCSTART-\n\nEU NNP X\nrejects VBZ Y\n",
        ];
        for content in tagged {
            assert_eq!(layout(content.lines()), Layout::UnitPerLine, "{content}");
        }
        let words = "-DOCSTART-\n\nEU NNP X\nrejects VBZ Y\n";
        assert_eq!(shown("a.conll", words), ["EU rejects = EU/X rejects/Y"]);
    }

    #[test]
    fn segmented_texts_are_no_tagged_units() {
        let segmented = [
            "共同  创造  美好\n我 爱你\n你 好\n谢谢 你\n".to_owned(),
            "你 好\n谢谢\n再见\n".to_owned(),
            "你 好\n谢谢 你\n".to_owned(),
            "我 在 NBA\n他 看 CBA\n看 NBA\n真 好\n".to_owned(),
            "今天 去 K - T\n他 要 e-mail\n我 和 你\n他 来 了\n".to_owned(),
            "我\u{3000}爱你\n".to_owned(),
            "你 好\n".repeat(40) + "我们 都 很 好\n",
        ];
        for content in segmented {
            assert_eq!(layout(content.lines()), Layout::Segmented, "{content}");
        }
    }

    #[test]
    fn a_line_without_its_tag_is_reported_and_does_not_change_the_layout() {
        let tags = [["B-LOC", "O"], ["NR", "VC"], ["B-地名", "O"], ["X B-LOC", "X O"]];
        for [first, second] in tags {
            let file = file("a.conll", format!("北 {first}\n的\n好 {second}\n"));
            let fault = read::<TaggedText>(std::slice::from_ref(&file.source), None).expect_err("no tag").to_string();
            assert!(fault.ends_with("line 2: found `的`, expected a unit and its tag, separated by a tab or spaces"));
        }
        let named = "北京 专名\n是 动词\n\n".repeat(4) + "的\n";
        assert_eq!(layout(named.lines()), Layout::UnitPerLine);
    }

    #[test]
    fn nothing_tagged_comes_first_among_the_labels() {
        let file = file("a.conll", "中\tB-LOC\n国\tE-LOC\n好\tO\n啊\tB-A\n\n");
        let (_, labels) = read::<TaggedText>(std::slice::from_ref(&file.source), None).expect("tagged texts");
        assert_eq!(labels.names(), ["O", "B-A", "B-LOC", "E-LOC"]);
    }

    #[test]
    fn faults_name_the_line() {
        let fault = |name: &str, content: &str, labels: Option<LabelSet>| {
            let file = file(name, content);
            let message =
                read::<TaggedText>(std::slice::from_ref(&file.source), labels).expect_err("a fault").to_string();
            message.rsplit_once('/').map_or(message.clone(), |(_, end)| end.to_owned())
        };
        let few = fault("a.conll", "中 国\tO O\n好 的\tO\n", None);
        assert_eq!(few, "a.conll, line 2: found `好 的\tO`, expected as many tags as units");
        let lone = fault("a.conll", "中\tO\n国\n", None);
        assert_eq!(lone, "a.conll, line 2: found `国`, expected a unit and its tag, separated by a tab or spaces");
        let over = fault("a.jsonl", r#"{"text": "ab", "entities": [[1, 3, "X"]]}"#, None);
        assert!(over.contains("line 1") && over.contains("[1,3,\"X\"]") && over.contains("within the text"), "{over}");
        let labels = LabelSet::new(["O"]).expect("a name");
        let unknown = fault("a.conll", "中\tO\n国\tB-X\n", Some(labels));
        assert!(unknown.contains("line 2") && unknown.contains("B-X"), "{unknown}");
    }
}
