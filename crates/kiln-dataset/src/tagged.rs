use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use kiln_schema::TaggedText;

use crate::layout::{DOCUMENT_START, Layout, is_comment, is_untagged, layout};
use crate::lines::Lines;
use crate::read::{Names, OUTSIDE};
use crate::{Error, Format, Place, Source, tagged_rows};

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
    match source.format()? {
        Format::Jsonl | Format::Parquet | Format::Arrow => return tagged_rows::read(source, names),
        // Files of this layout often end in `.txt` too.
        Format::Conll | Format::Tsv => {}
        format => return Err(Error::NoTags { path: source.path.clone(), format }),
    }
    let mut reader = LookAhead::open(source)?;
    let lines = reader.ahead.iter().map(|line| line.text.as_str());
    let is_untagged = source.columns.label.is_none() && is_untagged(lines.clone());
    let layout = if is_untagged { Layout::Untagged } else { layout(lines) };
    let mut texts = Vec::new();
    let mut open = OpenText::default();
    while let Some(line) = reader.next()? {
        let is_blank = line.text.trim().is_empty();
        let is_per_unit = matches!(layout, Layout::UnitPerLine | Layout::ConllU | Layout::Untagged);
        if is_per_unit && is_comment(&line.text) {
            continue;
        }
        let ends_text = match layout {
            _ if is_per_unit && (is_blank || line.text.starts_with(DOCUMENT_START)) => true,
            Layout::UnitPerLine => add_unit(&mut open, &line, &reader).map(|()| false)?,
            Layout::ConllU => add_word(&mut open, &line, &reader).map(|()| false)?,
            Layout::Untagged => {
                open.push(line.text.trim(), OUTSIDE, line.number);
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
    // A unit may contain a space if tabs separate the columns.
    let separator = if line.text.contains('\t') { '\t' } else { ' ' };
    let mut columns = line.text.split(separator).map(str::trim).filter(|column| !column.is_empty());
    match (columns.next(), columns.next_back()) {
        (Some(unit), Some(tag)) => {
            open.push(unit, tag, line.number);
            Ok(())
        }
        _ => Err(reader.fault(line, "a unit and its tag, separated by a tab or spaces")),
    }
}

/// Adds a line of [`Layout::ConllU`]. The lines of contractions (`1-2`) and of omitted words (`1.1`) repeat or add no text.
fn add_word(open: &mut OpenText, line: &NumberedLine, reader: &LookAhead) -> Result<(), Error> {
    match line.text.split('\t').collect::<Vec<_>>()[..] {
        [id, ..] if id.contains(['-', '.']) => {}
        [_, word, _, part_of_speech, _, _, _, _, _, _] => open.push(word.trim(), part_of_speech.trim(), line.number),
        _ => return Err(reader.fault(line, "the ten columns of CoNLL-U, separated by tabs")),
    }
    Ok(())
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

/// The number of lines used to detect the layout.
const LOOK_AHEAD: usize = 64;

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
    fn a_unit_or_a_tag_may_contain_a_space_between_tabs() {
        let content = "Hà Nội\tB-LOC\nlà\tO\n\n10 000\tCARD\tB-X Y\n";
        assert_eq!(shown("a.conll", content), ["Hà Nội là = Hà Nội/B-LOC là/O", "10 000 = 10 000/B-X Y"]);
    }

    #[test]
    fn comments_and_the_columns_of_conll_u_are_known() {
        let comments = "# text = The dog\nThe\tDET\n# newpar\n#\tSYM\n# = 3\tNUM\n";
        assert_eq!(shown("a.conll", comments), ["The # # = 3 = The/DET #/SYM # = 3/NUM"]);
        let word =
            |id: &str, word: &str, tag: &str| format!("{id}\t{word}\t_\t{tag}\t_\t_\t0\troot\t_\tSpaceAfter=No\n");
        let lines = [word("1-2", "du", "_"), word("1", "de", "ADP"), word("2", "le", "DET"), word("2.1", "x", "X")];
        let content = format!("# sent_id = 1\n{}\n{}", lines.concat(), word("1", "chat noir", "NOUN"));
        assert_eq!(shown("a.conll", &content), ["de le = de/ADP le/DET", "chat noir = chat noir/NOUN"]);
        let short = format!("{content}{}", "2\tx\n");
        let file = file("a.conll", short);
        let fault = read::<TaggedText>(std::slice::from_ref(&file.source), None).expect_err("two columns").to_string();
        assert!(
            fault.ends_with("line 8: found `2\tx`, expected the ten columns of CoNLL-U, separated by tabs"),
            "{fault}"
        );
    }

    #[test]
    fn only_a_prediction_reads_units_without_tags() {
        let mut file = file("a.conll", "Peter\nlives\n\n中\n国\n");
        let units = |source: &Source| {
            let (texts, _) = read::<TaggedText>(std::slice::from_ref(source), None).expect("texts");
            texts.iter().map(|text| text.words().collect::<Vec<_>>().join("|")).collect::<Vec<_>>()
        };
        assert_eq!(units(&file.source), ["P|e|t|e|r", "l|i|v|e|s", "中", "国"], "segmented words");
        file.source.columns.label = None;
        assert_eq!(units(&file.source), ["Peter|lives", "中|国"]);
        let untagged = |content: &str| is_untagged(content.lines());
        assert!(untagged("Peter\nlives\n") && untagged("中\n国\n") && untagged("北京\n很好\n\n他\n"));
        assert!(!untagged("\n今天很好\n我爱你\n\n") && !untagged("我 爱你\n好\n") && !untagged("Peter\tO\nlives\n"));
        assert!(!untagged("") && !untagged("# text = a\n"));
    }

    #[test]
    fn formats_without_tags_are_refused() {
        for (name, format) in [("a.csv", None), ("a.conll", Some(Format::Squad)), ("a.conll", Some(Format::Text))] {
            let mut file = file(name, "word,tag\nEU,B-ORG\n");
            file.source.format = format;
            let fault = read::<TaggedText>(std::slice::from_ref(&file.source), None).expect_err(name).to_string();
            assert!(fault.contains("expected conll, jsonl, parquet or arrow"), "{fault}");
        }
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
