use std::fmt;

use serde::{Deserialize, Serialize};

/// The tagging scheme of a token classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TagScheme {
    /// Named entities. The tag is `O` outside entities, and a prefix with a label inside: `B-PER`, `I-PER`. The
    /// prefixes are `B` (begin), `I` or `M` (inside), `E` or `L` (end) and `S` or `U` (an entity of one unit).
    Entities,
    /// Word segmentation. The tags are prefixes without labels: `B`, `M` or `I`, `E` and `S`. Every unit belongs to a
    /// word.
    Segmentation,
    /// Each tag is an independent label of its unit, such as a part of speech.
    Plain,
}

impl TagScheme {
    /// Infers the scheme of a set of tags, if it is unambiguous:
    ///
    /// - every tag is `O` or a prefix with a label, such as `B-PER`: [`Entities`](Self::Entities);
    /// - every tag is one of `B`, `M`, `E`, `S`, or of `B`, `I`, `E`, `S`, and the set has `B` or `S`:
    ///   [`Segmentation`](Self::Segmentation);
    /// - no tag is a prefix, with or without a label: [`Plain`](Self::Plain). A hyphen alone does not make a prefix, so
    ///   `NN-SHORT` is plain.
    ///
    /// # Errors
    /// For any other set, such as `B-PER` with `NOUN`.
    pub fn infer<'a>(tags: impl IntoIterator<Item = &'a str>) -> Result<Self, TagSchemeError> {
        let tags: Vec<&str> = tags.into_iter().collect();
        let all = |is: fn(&str) -> bool| tags.iter().all(|tag| is(tag));
        let has = |wanted: &str| tags.contains(&wanted);
        if all(is_entity) {
            return Ok(Self::Entities);
        }
        if all(is_bare_prefix) && (has("B") || has("S")) && !(has("M") && has("I")) && !has("L") && !has("U") {
            return Ok(Self::Segmentation);
        }
        // `O` is a plain tag unless the set has prefixes.
        match tags.iter().find(|tag| is_bare_prefix(tag) || (is_entity(tag) && **tag != "O")) {
            None => Ok(Self::Plain),
            Some(prefixed) => {
                let prefixed = (*prefixed).to_owned();
                Err(TagSchemeError::Ambiguous { prefixed, tags: listed(&tags) })
            }
        }
    }

    /// Checks that all tags are valid in this scheme.
    ///
    /// # Errors
    /// Names the first tag that is not valid.
    pub fn check<'a>(self, tags: impl IntoIterator<Item = &'a str>) -> Result<(), TagSchemeError> {
        let fits = |tag: &&str| match self {
            Self::Entities => is_entity(tag) || is_bare_prefix(tag),
            Self::Segmentation => is_bare_prefix(tag) || (is_entity(tag) && *tag != "O"),
            Self::Plain => true,
        };
        match tags.into_iter().find(|tag| !fits(tag)) {
            None => Ok(()),
            Some(tag) => Err(TagSchemeError::Unfit { tag: tag.to_owned(), scheme: self }),
        }
    }

    /// The name in recipes and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Entities => "entities",
            Self::Segmentation => "segmentation",
            Self::Plain => "plain",
        }
    }
}

impl fmt::Display for TagScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

const PREFIXES: [&str; 7] = ["B", "I", "M", "E", "L", "S", "U"];

/// A prefix without a label, such as `B`.
fn is_bare_prefix(tag: &str) -> bool {
    PREFIXES.contains(&tag)
}

/// `O`, or a prefix with a label, such as `B-PER`.
fn is_entity(tag: &str) -> bool {
    tag == "O" || tag.split_once('-').is_some_and(|(prefix, label)| PREFIXES.contains(&prefix) && !label.is_empty())
}

/// The first tags of a set, for an error message.
fn listed(tags: &[&str]) -> String {
    const MOST: usize = 12;
    let first = tags.iter().take(MOST).copied().collect::<Vec<_>>().join(", ");
    if tags.len() > MOST { format!("{first} and {} more", tags.len() - MOST) } else { first }
}

/// Why a scheme cannot be inferred, or does not match the tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagSchemeError {
    /// Some tags look like prefixes, and others do not.
    Ambiguous {
        /// A tag that looks like a prefix.
        prefixed: String,
        /// The tags, or the first of them.
        tags: String,
    },
    /// A tag is not valid in the scheme.
    Unfit {
        /// The tag.
        tag: String,
        /// The scheme.
        scheme: TagScheme,
    },
}

impl fmt::Display for TagSchemeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ambiguous { prefixed, tags } => write!(
                f,
                "the tags {tags} have no unambiguous scheme: `{prefixed}` may be a prefix or a whole tag; \
                 set `data.tag_scheme` to \"entities\", \"segmentation\" or \"plain\""
            ),
            Self::Unfit { tag, scheme } => {
                let expected = match scheme {
                    TagScheme::Entities => "`O`, or one of B, I, M, E, L, S, U with a label, such as `B-PER`",
                    TagScheme::Segmentation => "one of B, M, I, E, S",
                    TagScheme::Plain => "any tag",
                };
                write!(f, "`data.tag_scheme = \"{scheme}\"`: found the tag `{tag}`, expected {expected}")
            }
        }
    }
}

impl std::error::Error for TagSchemeError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn infer(tags: &str) -> Result<TagScheme, TagSchemeError> {
        TagScheme::infer(tags.split(' '))
    }

    #[test]
    fn unambiguous_tags_have_a_scheme() {
        for tags in ["O B-PER I-PER", "B-A M-A E-A S-A", "O U-X L-X B-X I-X", "O B-NN-SHORT", "B-A I-A"] {
            assert_eq!(infer(tags), Ok(TagScheme::Entities), "{tags}");
        }
        for tags in ["B M E S", "B I E S", "B I", "S B E", "S"] {
            assert_eq!(infer(tags), Ok(TagScheme::Segmentation), "{tags}");
        }
        for tags in ["NOUN VERB ADJ", "NN NN-SHORT", "LABEL_0 LABEL_1", "n v", "O X", "b-per o", "-X B_PER B-"] {
            assert_eq!(infer(tags), Ok(TagScheme::Plain), "{tags}");
        }
    }

    #[test]
    fn mixtures_are_ambiguous() {
        for tags in ["O B-PER NOUN", "B I O", "S NOUN", "B M I E S", "M E", "B I L U"] {
            assert!(infer(tags).is_err(), "{tags}");
        }
        let message = infer("O NOUN B-PER").expect_err("a mixture").to_string();
        assert!(message.contains("O, NOUN, B-PER") && message.contains("data.tag_scheme"), "{message}");
    }

    #[test]
    fn a_scheme_that_was_set_is_checked() {
        assert_eq!(TagScheme::Entities.check(["O", "B", "I"]), Ok(()));
        assert_eq!(TagScheme::Segmentation.check(["B-SEG", "I-SEG"]), Ok(()));
        assert_eq!(TagScheme::Plain.check(["B-PER", "NOUN"]), Ok(()));
        let message = TagScheme::Entities.check(["O", "NOUN"]).expect_err("no entity").to_string();
        assert!(message.contains("`NOUN`") && message.contains("`B-PER`"), "{message}");
        assert!(TagScheme::Segmentation.check(["B", "O"]).is_err());
    }
}
