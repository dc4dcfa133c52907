//! Checks whether a training fits into the available memory, before anything is written.

use anyhow::bail;
use kiln_bert::BertConfig;

use super::Described;
use super::settle::Plan;
use crate::UsageError;
use crate::memory::available_bytes;
use crate::recipe::{Encoder, Precision, Train};

/// A lower bound of the memory of a training besides the weights, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Needs {
    /// The gradients of the trained weights.
    gradients: u64,
    /// AdamW's two moments of each trained weight.
    optimizer: u64,
    /// The activations of a batch that the backward pass reads.
    activations: u64,
}

/// The settings that determine the needs.
#[derive(Clone, Copy, Debug)]
struct Settings<'a> {
    config: &'a BertConfig,
    encoder_parameters: u64,
    encoder: Encoder,
    batch_size: u64,
    /// Number of tokens of the longest row.
    longest: u64,
    precision: Precision,
    gradient_checkpointing: bool,
}

/// Refuses a training that cannot fit into memory. The estimate is a lower bound, so that no training that could run is
/// refused. `kiln forecast` measures the real need.
pub(crate) fn check_fits<M>(
    plan: &Plan<'_>,
    described: &Described<M>,
    longest: usize,
    rows: usize,
) -> anyhow::Result<()> {
    let Some(available) = available_bytes().filter(|_| plan.in_main_memory) else { return Ok(()) };
    let Train { batch_size, precision, gradient_checkpointing, .. } = plan.recipe.train;
    let settings = Settings {
        config: &described.pretrained.config,
        encoder_parameters: described.encoder_parameters as u64,
        encoder: plan.recipe.model.encoder,
        batch_size: batch_size.min(rows) as u64,
        longest: longest as u64,
        precision,
        gradient_checkpointing,
    };
    match settings.refusal(available) {
        Some(refusal) => bail!(UsageError(refusal)),
        None => Ok(()),
    }
}

impl Settings<'_> {
    fn needs(&self) -> Needs {
        let number = size_of::<f32>() as u64;
        let learns = if self.encoder == Encoder::Full { self.encoder_parameters } else { 0 };
        Needs { gradients: learns * number, optimizer: learns * 2 * number, activations: self.activations() }
    }

    /// For each layer, the inputs of its matrix products and normalizations. With gradient checkpointing, these of one
    /// layer, and only the input of each of the others. Adapters need about half of this, a frozen encoder nothing.
    fn activations(&self) -> u64 {
        let BertConfig { hidden_size, intermediate_size, num_hidden_layers, .. } = self.config;
        let number = if self.precision == Precision::F32 { 4 } else { 2 };
        let [hidden, intermediate, layers] =
            [*hidden_size, *intermediate_size, *num_hidden_layers].map(|size| size as u64);
        let of_layer = (6 * hidden + intermediate) * number;
        let of_token = match self.gradient_checkpointing {
            true => of_layer + layers * hidden * number,
            false => of_layer * layers,
        };
        let of_batch = self.batch_size.saturating_mul(self.longest).saturating_mul(of_token);
        match self.encoder {
            Encoder::Full => of_batch,
            Encoder::Lora | Encoder::Qlora => of_batch / 2,
            Encoder::Frozen => 0,
        }
    }

    /// A message with the needed and the available memory and the settings that would fit; `None` if the training fits.
    fn refusal(&self, available: u64) -> Option<String> {
        let needs = self.needs();
        if needs.total() <= available {
            return None;
        }
        let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
        let fits = |settings: &Self| settings.needs().total() <= available;
        let fitting: Vec<String> =
            self.alternatives(fits).into_iter().filter(|(settings, _)| fits(settings)).map(|(_, text)| text).collect();
        let advice = match fitting.as_slice() {
            [] => "no smaller batch, gradient checkpointing, adapter or frozen encoder would fit".to_owned(),
            fitting => format!("these settings need less: {}", fitting.join("; or ")),
        };
        Some(format!(
            "the training needs at least {} of memory besides the weights (gradients {}, optimizer {}, activations of a batch \
             {}), and {} are free; {advice}",
            gigabytes(needs.total()),
            gigabytes(needs.gradients),
            gigabytes(needs.optimizer),
            gigabytes(needs.activations),
            gigabytes(available),
        ))
    }

    /// Settings that need less memory, those that change the result least first. Only the largest batch size that fits is
    /// listed.
    fn alternatives(&self, fits: impl Fn(&Self) -> bool) -> Vec<(Self, String)> {
        let checkpointing = Self { gradient_checkpointing: true, ..*self };
        let mut alternatives = vec![(checkpointing, "`train.gradient_checkpointing = true`".to_owned())];
        let halved = (1..).map(|power| 1 << power).take_while(|times: &u64| self.batch_size / times > 0);
        let mut smaller = halved.map(|times| (Self { batch_size: self.batch_size / times, ..*self }, times));
        if let Some((settings, times)) = smaller.find(|(settings, _)| fits(settings)) {
            let batch_size = settings.batch_size;
            let text =
                format!("`train.batch_size = {batch_size}` with {times} times the `train.gradient_accumulation_steps`");
            alternatives.push((settings, text));
        }
        for (encoder, name) in [(Encoder::Lora, "lora"), (Encoder::Frozen, "frozen")] {
            alternatives.push((Self { encoder, ..*self }, format!("`model.encoder = \"{name}\"`")));
        }
        alternatives
    }
}

impl Needs {
    fn total(self) -> u64 {
        self.gradients.saturating_add(self.optimizer).saturating_add(self.activations)
    }
}

#[cfg(test)]
mod tests {
    use kiln_bert::Size;

    use super::*;

    const GB: u64 = 1_000_000_000;

    fn base(config: &BertConfig) -> Settings<'_> {
        Settings {
            config,
            encoder_parameters: 102_000_000,
            encoder: Encoder::Full,
            batch_size: 64,
            longest: 512,
            precision: Precision::F32,
            gradient_checkpointing: false,
        }
    }

    #[test]
    fn needs_by_hand() {
        let config = BertConfig::of_size(Size::Base);
        let settings = base(&config);
        // 12 layers of 6 · 768 + 3,072 numbers, for 64 · 512 tokens.
        let activations = 64 * 512 * 12 * (6 * 768 + 3_072) * 4;
        assert_eq!(settings.needs(), Needs { gradients: 408_000_000, optimizer: 816_000_000, activations });
        let less = Settings { gradient_checkpointing: true, precision: Precision::Bf16, ..settings };
        assert_eq!(less.needs().activations, 64 * 512 * (6 * 768 + 3_072 + 12 * 768) * 2);
        let frozen = Settings { encoder: Encoder::Frozen, ..settings };
        assert_eq!(frozen.needs().total(), 0);
    }

    #[test]
    fn a_refusal_names_what_would_fit() {
        let config = BertConfig::of_size(Size::Base);
        let settings = base(&config);
        assert_eq!(settings.refusal(14 * GB), None);
        let refusal = settings.refusal(4 * GB).expect("it needs 13.3 GB");
        assert!(refusal.contains("at least 13.3 GB") && refusal.contains("and 4.0 GB are free"), "{refusal}");
        assert!(refusal.contains("`train.gradient_checkpointing = true`"), "{refusal}");
        assert!(
            refusal.contains("`train.batch_size = 8` with 8 times") && !refusal.contains("size = 32`"),
            "{refusal}"
        );
        assert!(refusal.contains("\"frozen\"") && !refusal.contains("\"lora\""), "{refusal}");
        assert!(settings.refusal(GB).expect("it needs more").ends_with("need less: `model.encoder = \"frozen\"`"));
    }
}
