//! The training itself, of a whole model or of a head on features, and what it cost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;
use kiln_bert::Bert;
use kiln_eval::{SplitReport, TrainReport};
use kiln_heads::SequenceClassifier;
use kiln_schema::{Split, Splits};
use kiln_tokenize::Encoding;
use kiln_train::{
    Encoded, FeatureCache, Features, FeaturesConfig, Fingerprint, Fit, Fitted, TokenFeatures, TokenFeaturesConfig,
    TrainingSet,
};

use super::Run;
use super::observer::Observer;
use crate::console::{Progress, stage};
use crate::environment::cache_folder;
use crate::recipe::{Encoder, Recipe};
use crate::run_folder::RunFolder;

/// What both kinds of training share.
pub struct Job<'a> {
    pub recipe: &'a Recipe,
    pub folder: &'a RunFolder,
    pub fingerprint: &'a Fingerprint,
    pub device: &'a Device,
}

/// A trained model, what it cost, and how it does.
pub struct Trained<M, O> {
    pub model: M,
    pub train: TrainReport,
    pub splits: BTreeMap<Split, SplitReport>,
    /// Its output for the test split, or for the validation split where there is no test split.
    pub judged: O,
}

impl Job<'_> {
    pub fn fit<S: TrainingSet>(
        &self,
        sets: &Splits<S>,
        model: S::Model,
        encoder_seconds: f64,
    ) -> anyhow::Result<Trained<S::Model, S::Output>> {
        let mut config = self.recipe.train.config(self.recipe.metric());
        config.scope = self.recipe.model.encoder.scope();
        let fit = Fit {
            train: &sets.train,
            validation: &sets.validation,
            config: &config,
            fingerprint: self.fingerprint,
            device: self.device,
            checkpoints: &self.folder.checkpoints(),
            resume: self.folder.resume,
        };
        let mut observer = Observer::new(self.folder, &config);
        let fitted = fit.run(model, &mut |event| observer.observe(event))?;
        observer.finish(fitted.steps, fitted.end)?;
        let Fitted { model, best_epoch, epochs, steps, padding_share, end: _ } = fitted;
        stage("train", "kiln-train", format_args!("{steps} updates; epoch {best_epoch} is the best"));

        let update_seconds: f64 = epochs.iter().map(|epoch| epoch.train_seconds).sum();
        let tokens: usize = sets.train.tokens();
        let encoded: usize = sets.iter().map(|(_, set)| set.rows()).sum();
        let an_epoch = |amount: usize| (amount * epochs.len()) as f64 / update_seconds;
        let train = TrainReport {
            epochs: epochs.len(),
            best_epoch,
            steps,
            seconds: epochs.iter().map(|epoch| epoch.seconds).sum::<f64>() + encoder_seconds,
            encoder_seconds,
            update_seconds,
            examples_per_second: an_epoch(sets.train.rows()),
            tokens_per_second: an_epoch(tokens),
            encoder_examples_per_second: if encoder_seconds > 0.0 { encoded as f64 / encoder_seconds } else { 0.0 },
            padding_share,
            peak_rss_bytes: 0,
        };
        let mut splits = BTreeMap::new();
        let mut judged = None;
        for (split, set) in sets.iter().filter(|(split, _)| *split != Split::Train) {
            let output = set.output(&model, config.batch_size, self.device);
            splits.insert(split, set.report(&output)?);
            judged = Some(output);
        }
        Ok(Trained { model, train, splits, judged: judged.expect("there is a validation split") })
    }

    /// The frozen encoder's output for every row, and the seconds that it took; 0 when all was cached. Without a hash of
    /// the weights nothing is cached.
    pub fn features(
        &self,
        sets: &Splits<Encoded>,
        model: &SequenceClassifier,
        weights_hash: Option<String>,
    ) -> anyhow::Result<(Splits<Features>, f64)> {
        let cache =
            weights_hash.map(|weights_hash| FeatureCache { folder: cache_folder().join("features"), weights_hash });
        let config = FeaturesConfig { batch_size: FEATURE_BATCH, cache };
        let mut seconds = 0.0;
        let features = sets.clone().try_map(|split, set| {
            let started = Instant::now();
            let mut progress = Progress::new("features", set.rows());
            let (features, cached) = Features::compute(model, &set, &config, self.device, &mut |done| {
                progress.set(done, String::new);
            })?;
            progress.finish();
            let took = started.elapsed().as_secs_f64();
            let how = if cached { "from the cache".to_owned() } else { format!("computed in {took:.1} s") };
            seconds += if cached { 0.0 } else { took };
            let shape = format!("{split} [{}, {}]", set.rows(), features.width());
            stage("features", "kiln-train", format_args!("{shape} {how}"));
            anyhow::Ok(features)
        })?;
        Ok((features, seconds))
    }
}

impl Run<'_> {
    /// Lets a frozen encoder compute the hidden states of all rows once, and keeps them on disk. Returns the seconds that it
    /// took: 0 when they were there before, or when the encoder is trained.
    pub fn cache_tokens(&self, bert: &mut Bert, encodings: &[&Encoding]) -> anyhow::Result<f64> {
        let Some(weights_hash) = self.weights_hash().filter(|_| self.recipe.model.encoder == Encoder::Frozen) else {
            return Ok(0.0);
        };
        let cache = FeatureCache { folder: cache_folder().join("features"), weights_hash };
        let config = TokenFeaturesConfig { batch_size: FEATURE_BATCH, cache, max_bytes: TOKEN_FEATURES_LIMIT };
        let started = Instant::now();
        let mut progress = Progress::new("features", encodings.len());
        let features = TokenFeatures::compute(bert, encodings, &config, self.device, &mut |done| {
            progress.set(done, String::new);
        })?;
        progress.finish();
        let Some((features, cached)) = features else {
            let limit = TOKEN_FEATURES_LIMIT >> 30;
            let note = format!("more than {limit} GiB of hidden states: the encoder runs in each epoch");
            stage("features", "kiln-train", note);
            return Ok(0.0);
        };
        bert.known_states = Some(Arc::new(features));
        let seconds = if cached { 0.0 } else { started.elapsed().as_secs_f64() };
        let how = if cached { "from the cache".to_owned() } else { format!("computed in {seconds:.1} s") };
        stage("features", "kiln-train", format_args!("hidden states of {} rows {how}", encodings.len()));
        Ok(seconds)
    }
}

/// The most bytes of hidden states that are kept for one run; of bert-base that is ten million tokens.
const TOKEN_FEATURES_LIMIT: u64 = 32 << 30;

/// Rows that a frozen encoder computes at once.
const FEATURE_BATCH: usize = 32;
