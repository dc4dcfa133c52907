use burn::tensor::{Int, Tensor};
use kiln_bert::{Bert, Inputs};
use serde::{Deserialize, Serialize};

/// The vector that a sentence-level head reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The first token's hidden state.
    #[default]
    Cls,
    /// The mean of the hidden states over all tokens except padding.
    Mean,
    /// The pooler's output, which transformers' classification head reads.
    Pooler,
}

/// Computes one vector per row.
///
/// # Shapes
/// - `inputs`: three times `[batch, seq]`
/// - output: `[batch, hidden]`
///
/// # Panics
/// When `pooling` is [`Pooling::Pooler`] and the encoder has no pooler.
pub fn pool(bert: &Bert, inputs: Inputs, pooling: Pooling) -> Tensor<2> {
    match pooling {
        Pooling::Cls => bert.forward_first(inputs).squeeze_dim(1),
        Pooling::Mean => {
            let attention_mask = inputs.attention_mask.clone();
            mean_of_tokens(bert.forward(inputs), attention_mask)
        }
        Pooling::Pooler => {
            let pooler = bert.pooler.as_ref().expect("callers check that there is a pooler");
            if !pooler.reads_mean {
                return pooler.forward(bert.forward_first(inputs));
            }
            let attention_mask = inputs.attention_mask.clone();
            pooler.transform(mean_of_tokens(bert.forward(inputs), attention_mask))
        }
    }
}

/// The mean over each row's tokens, without padding.
///
/// # Shapes
/// - `hidden_states`: `[batch, seq, hidden]`
/// - `attention_mask`: `[batch, seq]`
/// - output: `[batch, hidden]`
fn mean_of_tokens(hidden_states: Tensor<3>, attention_mask: Tensor<2, Int>) -> Tensor<2> {
    // mask = [batch, seq, 1]
    let mask = attention_mask.float().unsqueeze_dim::<3>(2);
    let tokens = mask.clone().sum_dim(1);
    ((hidden_states * mask).sum_dim(1) / tokens).squeeze_dim(1)
}
