use kiln_kernels::Activation;
use serde::{Deserialize, Serialize};

/// The activation inside the feed-forward block, by transformers' names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenAct {
    /// x·Φ(x) with the exact error function; BERT's activation.
    #[default]
    Gelu,
    /// `gelu`, by another implementation in transformers.
    GeluPython,
    /// The tanh approximation of GELU.
    GeluNew,
    /// `gelu_new`, by another implementation in transformers.
    GeluPytorchTanh,
    /// `gelu_new`, by another implementation in transformers.
    GeluFast,
    /// x·σ(1.702x).
    QuickGelu,
    /// max(x, 0).
    Relu,
    /// x·σ(x).
    Silu,
    /// Another name for `silu`.
    Swish,
    /// tanh(x).
    Tanh,
}

impl From<HiddenAct> for Activation {
    fn from(hidden_act: HiddenAct) -> Self {
        match hidden_act {
            HiddenAct::Gelu | HiddenAct::GeluPython => Self::Gelu,
            HiddenAct::GeluNew | HiddenAct::GeluPytorchTanh | HiddenAct::GeluFast => Self::GeluTanh,
            HiddenAct::QuickGelu => Self::QuickGelu,
            HiddenAct::Relu => Self::Relu,
            HiddenAct::Silu | HiddenAct::Swish => Self::Silu,
            HiddenAct::Tanh => Self::Tanh,
        }
    }
}

/// All names, for an error message.
pub(crate) const HIDDEN_ACTS: &str = "one of \"gelu\", \"gelu_python\", \"gelu_new\", \"gelu_pytorch_tanh\", \"gelu_fast\", \
    \"quick_gelu\", \"relu\", \"silu\", \"swish\" and \"tanh\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_kept_and_listed() {
        let listed: Vec<&str> = HIDDEN_ACTS.split('"').skip(1).step_by(2).collect();
        assert_eq!(listed.len(), 10);
        for name in listed {
            let hidden_act = HiddenAct::deserialize(serde_json::json!(name)).expect("it is listed");
            assert_eq!(serde_json::json!(hidden_act), name);
        }
    }
}
