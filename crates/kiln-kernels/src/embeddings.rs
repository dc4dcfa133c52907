use burn::tensor::{Int, Tensor, module};

/// BERT's embeddings: three tables, `[entries, hidden]` each, layer normalization and dropout.
#[derive(Clone, Debug)]
pub struct Embeddings {
    /// Word embeddings, by token id.
    pub words: Tensor<2>,
    /// Position embeddings.
    pub positions: Tensor<2>,
    /// Segment embeddings, by token type id.
    pub segments: Tensor<2>,
    /// γ of the normalization, `[hidden]`.
    pub gamma: Tensor<1>,
    /// β of the normalization, `[hidden]`.
    pub beta: Tensor<1>,
    /// A small constant that is added to the variance.
    pub epsilon: f64,
    /// Dropout probability of the normalized sum.
    pub dropout: f64,
}

impl Embeddings {
    /// Computes `dropout(norm(words + positions + segments))`. Dropout is only active under autodiff.
    ///
    /// # Shapes
    /// - `input_ids`, `token_type_ids`: `[batch, seq]`
    /// - output: `[batch, seq, hidden]`
    ///
    /// # Panics
    /// When an id is negative or out of its table's range, or `seq` is larger than the number of positions.
    pub fn forward(self, input_ids: Tensor<2, Int>, token_type_ids: Tensor<2, Int>) -> Tensor<3> {
        #[cfg(feature = "flex")]
        if crate::is_fused(&self.words.device()) {
            let dropout = crate::dropout(&self.words, self.dropout, &crate::Products::default());
            return fused::embeddings(self, input_ids, token_type_ids, dropout);
        }
        self.plain(input_ids, token_type_ids)
    }

    /// [`Embeddings::forward`] with burn's operations.
    pub fn plain(self, input_ids: Tensor<2, Int>, token_type_ids: Tensor<2, Int>) -> Tensor<3> {
        let [_, seq] = input_ids.dims();
        // Positions are 0, 1, 2 …, so the first rows of the table apply to every row of the batch.
        let positions = self.positions.narrow(0, 0, seq).unsqueeze();
        let sum =
            module::embedding(self.words, input_ids) + positions + module::embedding(self.segments, token_type_ids);
        let normalized = module::layer_norm(sum, self.gamma, Some(self.beta), self.epsilon);
        crate::plain_dropout(normalized, self.dropout, &crate::Products::default())
    }
}

#[cfg(feature = "flex")]
#[allow(clippy::too_many_arguments, reason = "a tensor each: what dispatches them takes no struct of them")]
mod fused {
    use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::backend::tensor::{FloatTensor, IntTensor};
    use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
    use burn::tensor::{Int, Tensor};
    use burn_flex::FlexTensor;

    use crate::cpu::{
        Dropout, Norm, NormGradients, NormRows, Normalized, Simd, Tables, Tokens, drop_and_sum, embed, norm_backward,
        table_gradient,
    };
    use crate::flex::{self, contiguous, rows_and_columns, values};

    #[backend_extension(Flex, Autodiff)]
    pub trait EmbeddingsOps: Backend {
        fn embeddings(
            words: FloatTensor<Self>,
            positions: FloatTensor<Self>,
            segments: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            beta: FloatTensor<Self>,
            input_ids: IntTensor<Self>,
            token_type_ids: IntTensor<Self>,
            settings: Settings,
        ) -> FloatTensor<Self>;
    }

    #[derive(Clone, Copy, Debug)]
    pub struct Settings {
        epsilon: f32,
        dropout: Option<Dropout>,
    }

    pub(super) fn embeddings(
        embeddings: super::Embeddings,
        input_ids: Tensor<2, Int>,
        token_type_ids: Tensor<2, Int>,
        dropout: Option<Dropout>,
    ) -> Tensor<3> {
        let super::Embeddings { words, positions, segments, gamma, beta, epsilon, .. } = embeddings;
        Tensor::from_dispatch(<Dispatch as EmbeddingsOps>::embeddings(
            words.into_dispatch(),
            positions.into_dispatch(),
            segments.into_dispatch(),
            gamma.into_dispatch(),
            beta.into_dispatch(),
            input_ids.into_dispatch(),
            token_type_ids.into_dispatch(),
            Settings { epsilon: epsilon as f32, dropout },
        ))
    }

    /// Words, positions, segments, γ and β.
    type Operands = [FlexTensor; 5];

    fn forward(
        operands: &Operands,
        tokens: &Tokens,
        settings: Settings,
        keep: bool,
    ) -> (FlexTensor, Option<Normalized<f32>>) {
        let [words, positions, segments, gamma, beta] = operands.each_ref().map(values::<f32>);
        let hidden = gamma.len();
        let norm = Norm { weight: gamma, bias: beta, epsilon: settings.epsilon };
        let tables = Tables { words, positions, segments };
        let (out, kept) = embed(Simd::detect(), tables, tokens, norm, settings.dropout, keep);
        let batch = tokens.words.len() / tokens.seq.max(1);
        (flex::new(out, &[batch, tokens.seq, hidden]), kept)
    }

    fn tokens(input_ids: FlexTensor, token_type_ids: FlexTensor) -> Tokens {
        let [_, seq] = rows_and_columns(&input_ids);
        let [words, segments] = [input_ids, token_type_ids].map(flex::indices);
        Tokens { words, segments, seq }
    }

    impl EmbeddingsOps for Flex {
        fn embeddings(
            words: FlexTensor,
            positions: FlexTensor,
            segments: FlexTensor,
            gamma: FlexTensor,
            beta: FlexTensor,
            input_ids: FlexTensor,
            token_type_ids: FlexTensor,
            settings: Settings,
        ) -> FlexTensor {
            let operands = [words, positions, segments, gamma, beta].map(contiguous);
            forward(&operands, &tokens(input_ids, token_type_ids), settings, false).0
        }
    }

    impl<C: CheckpointStrategy> EmbeddingsOps for Autodiff<Flex, C> {
        fn embeddings(
            words: FloatTensor<Self>,
            positions: FloatTensor<Self>,
            segments: FloatTensor<Self>,
            gamma: FloatTensor<Self>,
            beta: FloatTensor<Self>,
            input_ids: IntTensor<Self>,
            token_type_ids: IntTensor<Self>,
            settings: Settings,
        ) -> FloatTensor<Self> {
            let parts = [words, positions, segments, gamma, beta].map(|operand| operand.into_parts());
            let operands = parts.each_ref().map(|(tensor, _)| contiguous(tensor.clone()));
            let nodes = parts.map(|(_, node)| node);
            let tokens = tokens(input_ids, token_type_ids);
            match EmbeddingsBackward.prepare::<C>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(prepared) => {
                    let (out, normalized) = forward(&operands, &tokens, settings, true);
                    let entries = [0, 1, 2].map(|table| rows_and_columns(&operands[table])[0]);
                    let [.., gamma, _] = operands;
                    let normalized = normalized.expect("`forward` keeps it where `keep` is true");
                    prepared.finish(State { tokens, entries, gamma, normalized, dropout: settings.dropout }, out)
                }
                OpsKind::UnTracked(prepared) => prepared.finish(forward(&operands, &tokens, settings, false).0),
            }
        }
    }

    #[derive(Debug)]
    struct EmbeddingsBackward;

    #[derive(Clone, Debug)]
    struct State {
        tokens: Tokens,
        /// The number of words, positions and segments.
        entries: [usize; 3],
        gamma: FlexTensor,
        normalized: Normalized<f32>,
        dropout: Option<Dropout>,
    }

    impl Backward<Flex, 5> for EmbeddingsBackward {
        type State = State;

        fn backward(self, ops: Ops<State, 5>, gradients: &mut Gradients, _: &mut Checkpointer) {
            let State { tokens: Tokens { words, segments, seq }, entries, gamma, normalized, dropout } = ops.state;
            let (simd, hidden) = (Simd::detect(), rows_and_columns(&gamma)[1]);
            let gradient = contiguous(gradients.consume::<Flex>(&ops.node));
            let (gradient, _) = drop_and_sum::<f32>(simd, values(&gradient), hidden, dropout);
            let Normalized { rows, inverse_deviations } = normalized;
            let NormGradients { residual: of_sum, weight: of_gamma, bias: of_beta } =
                norm_backward::<f32>(simd, &gradient, NormRows::Kept(&rows), &inverse_deviations, values(&gamma));

            let [words_node, positions_node, segments_node, gamma_node, beta_node] = ops.parents;
            let entry: [&dyn Fn(usize) -> usize; 3] = [&|row| words[row], &|row| row % seq, &|row| segments[row]];
            for ((node, entries), entry) in
                [words_node, positions_node, segments_node].into_iter().zip(entries).zip(entry)
            {
                if let Some(node) = node {
                    let table = table_gradient(simd, &of_sum, hidden, entries, entry);
                    gradients.register::<Flex>(node.id, flex::new(table, &[entries, hidden]));
                }
            }
            for (node, values) in [(gamma_node, of_gamma), (beta_node, of_beta)] {
                if let Some(node) = node {
                    gradients.register::<Flex>(node.id, flex::new(values, &[hidden]));
                }
            }
        }
    }
}
