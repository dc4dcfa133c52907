use burn::tensor::Tensor;
use kiln_bert::{Bert, BertConfig};
use kiln_heads::{hidden_state_error_sum, value_relation_divergence_sum};

/// Which layers of a student are compared with which layers of its teacher, and how.
///
/// ```
/// use kiln_bert::BertConfig;
/// use kiln_train::Matching;
///
/// let teacher = BertConfig::base();
/// let student = BertConfig { num_hidden_layers: 3, ..BertConfig::base() };
/// assert_eq!(Matching::of(&student, &teacher), Matching::HiddenStates(vec![[1, 4], [2, 8], [3, 12]]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matching {
    /// Squared error of the layers' output hidden states. Each pair is a student layer and a teacher layer, counted from 1.
    HiddenStates(Vec<[usize; 2]>),
    /// Kullback–Leibler divergence of the value relations of the last layers, for models with different hidden sizes.
    ValueRelations {
        /// The number of relation heads into which the values are divided.
        heads: usize,
    },
}

impl Matching {
    /// The matching of a student and a teacher.
    ///
    /// If the hidden sizes are equal, each layer of the student is compared with one of the teacher's, evenly spaced, and
    /// the last with the last. Otherwise, the value relations of the last layers are compared. The number of relation heads
    /// is then the largest one that divides both hidden sizes and is at most the student's number of attention heads.
    pub fn of(student: &BertConfig, teacher: &BertConfig) -> Self {
        let widths = [student.hidden_size, teacher.hidden_size];
        if widths[0] == widths[1] {
            let [ours, theirs] = [student.num_hidden_layers, teacher.num_hidden_layers];
            // The evenly spaced position, rounded to the nearest layer.
            let mapped = |layer: usize| [layer, (2 * layer * theirs + ours) / (2 * ours)];
            return Self::HiddenStates((1..=ours).map(mapped).collect());
        }
        let divides = |heads: &usize| widths.iter().all(|width| width.is_multiple_of(*heads));
        let heads = (1..=student.num_attention_heads).rev().find(divides).expect("1 divides all");
        Self::ValueRelations { heads }
    }

    /// The number of compared tensors per model.
    pub(crate) fn tensors(&self) -> usize {
        match self {
            Self::HiddenStates(pairs) => pairs.len(),
            Self::ValueRelations { .. } => 1,
        }
    }

    /// The compared tensors of a student, from the hidden states that [`kiln_bert::LayerOutputs`] stored.
    ///
    /// # Shapes
    /// - `states`, output: `[batch, seq, hidden]` each
    pub(crate) fn of_student(&self, bert: &Bert, states: &[Tensor<3>]) -> Vec<Tensor<3>> {
        self.compared(bert, states, 0)
    }

    /// The compared tensors of a teacher, from its stored hidden states.
    pub(crate) fn of_teacher(&self, bert: &Bert, states: &[Tensor<3>]) -> Vec<Tensor<3>> {
        self.compared(bert, states, 1)
    }

    fn compared(&self, bert: &Bert, states: &[Tensor<3>], side: usize) -> Vec<Tensor<3>> {
        match self {
            Self::HiddenStates(pairs) => pairs.iter().map(|pair| states[pair[side]].clone()).collect(),
            Self::ValueRelations { .. } => {
                // `states` begins with the input of the first layer, so this is the input of the last layer.
                let last = states.len() - 2;
                vec![bert.values(last, states[last].clone())]
            }
        }
    }

    /// The loss of each token times its weight, summed over the tokens, as a mean over the compared tensors.
    ///
    /// # Shapes
    /// - `student`, `teacher`: `[batch, seq, hidden]` each
    /// - `weights`: `[batch, seq]`, 0 where a position is padding
    /// - output: `[1]`
    pub(crate) fn loss_sum(
        &self,
        student: Vec<Tensor<3>>,
        teacher: Vec<Tensor<3>>,
        weights: Tensor<2>,
    ) -> Option<Tensor<1>> {
        let loss = |(student, teacher)| match self {
            Self::HiddenStates(_) => hidden_state_error_sum(student, teacher, weights.clone()),
            Self::ValueRelations { heads } => value_relation_divergence_sum(student, teacher, *heads, weights.clone()),
        };
        let count = self.tensors() as f64;
        student.into_iter().zip(teacher).map(loss).reduce(|sum, loss| sum + loss).map(|sum| sum / count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_mapped_evenly_and_the_last_to_the_last() {
        let of = |ours, theirs| {
            let config = |num_hidden_layers| BertConfig { num_hidden_layers, ..BertConfig::base() };
            match Matching::of(&config(ours), &config(theirs)) {
                Matching::HiddenStates(pairs) => pairs.into_iter().map(|[_, theirs]| theirs).collect::<Vec<_>>(),
                Matching::ValueRelations { .. } => panic!("they have one width"),
            }
        };
        assert_eq!(of(4, 12), [3, 6, 9, 12]);
        assert_eq!(of(5, 12), [2, 5, 7, 10, 12]);
        assert_eq!(of(12, 12), (1..=12).collect::<Vec<_>>());
        assert_eq!(of(1, 7), [7]);
    }

    #[test]
    fn relation_heads_divide_both_widths() {
        let config =
            |hidden_size, num_attention_heads| BertConfig { hidden_size, num_attention_heads, ..BertConfig::base() };
        assert_eq!(Matching::of(&config(384, 12), &config(768, 12)), Matching::ValueRelations { heads: 12 });
        assert_eq!(Matching::of(&config(312, 12), &config(1_024, 16)), Matching::ValueRelations { heads: 8 });
        assert_eq!(Matching::of(&config(15, 5), &config(32, 4)), Matching::ValueRelations { heads: 1 });
    }
}
