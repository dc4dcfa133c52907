use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The index of a label in its [`LabelSet`]. It is also the index of its logit.
pub type LabelId = usize;

/// The names of a task's labels, in the order of the model's logits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct LabelSet {
    names: Vec<String>,
    ids: HashMap<String, LabelId>,
}

impl LabelSet {
    /// Creates a label set. The names keep their order.
    ///
    /// # Errors
    /// When there are no names, or when a name is empty or duplicated.
    pub fn new<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Result<Self, LabelSetError> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        if names.is_empty() {
            return Err(LabelSetError::NoLabels);
        }
        let mut ids = HashMap::with_capacity(names.len());
        for (id, name) in names.iter().enumerate() {
            if name.is_empty() {
                return Err(LabelSetError::EmptyName { id });
            }
            if ids.insert(name.clone(), id).is_some() {
                return Err(LabelSetError::Twice { name: name.clone() });
            }
        }
        Ok(Self { names, ids })
    }

    /// The index of a name; none if it is not in the set.
    pub fn id(&self, name: &str) -> Option<LabelId> {
        self.ids.get(name).copied()
    }

    /// The name of the label with an index.
    ///
    /// # Panics
    /// When `id` is not below [`LabelSet::len`].
    pub fn name(&self, id: LabelId) -> &str {
        &self.names[id]
    }

    /// All names, in the order of the logits.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The number of labels.
    #[expect(clippy::len_without_is_empty, reason = "a set is never empty")]
    pub fn len(&self) -> usize {
        self.names.len()
    }
}

impl TryFrom<Vec<String>> for LabelSet {
    type Error = LabelSetError;

    fn try_from(names: Vec<String>) -> Result<Self, LabelSetError> {
        Self::new(names)
    }
}

impl From<LabelSet> for Vec<String> {
    fn from(labels: LabelSet) -> Self {
        labels.names
    }
}

/// Invalid label names: none, empty, or duplicated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelSetError {
    /// The list is empty.
    NoLabels,
    /// A name is the empty string.
    EmptyName {
        /// The index of the name in the list.
        id: LabelId,
    },
    /// A name is duplicated.
    Twice {
        /// The name.
        name: String,
    },
}

impl fmt::Display for LabelSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLabels => write!(f, "there are no labels"),
            Self::EmptyName { id } => write!(f, "the name of label {id} is empty"),
            Self::Twice { name } => write!(f, "label `{name}` occurs twice in the list"),
        }
    }
}

impl std::error::Error for LabelSetError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_agree() {
        let labels = LabelSet::new(["b", "a", "c"]).expect("three distinct names");
        assert_eq!(labels.len(), 3);
        for (id, name) in labels.names().iter().enumerate() {
            assert_eq!(labels.id(name), Some(id));
            assert_eq!(labels.name(id), name);
        }
        assert_eq!(labels.id("d"), None);
    }

    #[test]
    fn bad_lists_are_refused() {
        let none: [&str; 0] = [];
        assert_eq!(LabelSet::new(none), Err(LabelSetError::NoLabels));
        assert_eq!(LabelSet::new(["a", ""]), Err(LabelSetError::EmptyName { id: 1 }));
        let twice = LabelSetError::Twice { name: "a".to_owned() };
        assert_eq!(LabelSet::new(["a", "b", "a"]), Err(twice));
    }
}
