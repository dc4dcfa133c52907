//! The features of a frozen encoder, computed once for all epochs.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use kiln_bert::Bert;
use kiln_heads::SequenceClassifier;
use kiln_schema::Splits;
use kiln_tokenize::Encoding;
use kiln_train::{
    Dataset, Encoded, FeatureCache, Features, FeaturesConfig, Targets, TokenFeatures, TokenFeaturesConfig,
};

use super::settle::Plan;
use crate::Observer;
use crate::recipe::Encoder;

/// Maximum bytes of cached hidden states for one run; about ten million tokens of bert-base.
const TOKEN_FEATURES_LIMIT: u64 = 32 << 30;

/// Rows in a batch of a frozen encoder.
const BATCH_SIZE: usize = 32;

/// Computed features.
pub(crate) struct Computed<F> {
    pub features: F,
    /// Seconds that the encoder took; 0 if everything was cached.
    pub seconds: f64,
}

/// The frozen encoder's output for every row. Nothing is cached for random weights.
pub(crate) fn features(
    plan: &Plan<'_>,
    sets: &Splits<Encoded>,
    model: &SequenceClassifier,
    observer: &mut dyn Observer,
) -> anyhow::Result<Computed<Splits<Features>>> {
    let config = FeaturesConfig { batch_size: BATCH_SIZE, cache: cache(plan) };
    let mut seconds = 0.0;
    let mut compute = |name: &dyn fmt::Display, set: &Encoded| {
        let started = Instant::now();
        let rows = set.rows();
        let mut progress = |done| observer.rows("features", done, rows);
        let (features, is_cached) = Features::compute(model, set, &config, plan.device, &mut progress)?;
        let took = started.elapsed().as_secs_f64();
        seconds += if is_cached { 0.0 } else { took };
        let shape = format!("{name} [{rows}, {}]", features.width());
        observer.stage("features", "kiln-train", &format_args!("{shape} {}", origin(is_cached, took)));
        anyhow::Ok(features)
    };
    let features = match plan.fold {
        None => sets.as_ref().try_map(|split, set| compute(&split, set))?,
        Some(_) => {
            let all = InOneOrder::new(&sets.train, &sets.validation);
            let (train, validation) = all.divide(&compute(&"all folds", &all.rows)?, &sets.train, &sets.validation);
            let test = sets.test.as_ref().map(|set| compute(&"test", set)).transpose()?;
            Splits { train, validation, test }
        }
    };
    Ok(Computed { features, seconds })
}

/// The rows of all folds, in an order that does not depend on the fold that is held out, so that their features are
/// computed once.
struct InOneOrder {
    rows: Encoded,
    /// The position of each row in the order; rows of the training split come first.
    places: Vec<usize>,
}

impl InOneOrder {
    fn new(train: &Encoded, validation: &Encoded) -> Self {
        let all: Vec<&Encoding> = train.encodings().iter().chain(validation.encodings()).collect();
        let order = by_content(&all);
        let mut places = vec![0; all.len()];
        order.iter().enumerate().for_each(|(place, &row)| places[row] = place);
        let encodings: Vec<Encoding> = order.iter().map(|&row| all[row].clone()).collect();
        let targets = Targets::Numbers(vec![0.0; encodings.len()]);
        Self { rows: Encoded::new(encodings, targets, train.pad_token_id()), places }
    }

    fn divide(&self, features: &Features, train: &Encoded, validation: &Encoded) -> (Features, Features) {
        let (of_train, of_validation) = self.places.split_at(train.rows());
        let pick = |rows: &[usize], set: &Encoded| features.pick(rows, set.targets().clone());
        (pick(of_train, train), pick(of_validation, validation))
    }
}

/// The indices of the rows, sorted by their contents.
fn by_content(rows: &[&Encoding]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&row| (&rows[row].input_ids, &rows[row].token_type_ids));
    order
}

/// Computes the hidden states of a frozen encoder for all rows once, and caches them on disk. Returns the seconds it took:
/// 0 if they were cached, or if the encoder is trained.
pub(crate) fn cache_tokens(
    plan: &Plan<'_>,
    bert: &mut Bert,
    encodings: &[&Encoding],
    observer: &mut dyn Observer,
) -> anyhow::Result<f64> {
    let Some(cache) = cache(plan).filter(|_| plan.recipe.model.encoder == Encoder::Frozen) else {
        return Ok(0.0);
    };
    let sorted: Vec<&Encoding> = match plan.fold {
        Some(_) => by_content(encodings).into_iter().map(|row| encodings[row]).collect(),
        None => encodings.to_vec(),
    };
    let config = TokenFeaturesConfig { batch_size: BATCH_SIZE, cache, max_bytes: TOKEN_FEATURES_LIMIT };
    let started = Instant::now();
    let rows = encodings.len();
    let mut progress = |done| observer.rows("features", done, rows);
    let Some((features, is_cached)) = TokenFeatures::compute(bert, &sorted, &config, plan.device, &mut progress)?
    else {
        let limit = TOKEN_FEATURES_LIMIT >> 30;
        let note = format!("more than {limit} GiB of hidden states: the encoder runs in each epoch");
        observer.stage("features", "kiln-train", &note);
        return Ok(0.0);
    };
    bert.known_states = Some(Arc::new(features));
    let took = started.elapsed().as_secs_f64();
    let origin = origin(is_cached, took);
    observer.stage("features", "kiln-train", &format_args!("hidden states of {rows} rows {origin}"));
    Ok(if is_cached { 0.0 } else { took })
}

fn cache(plan: &Plan<'_>) -> Option<FeatureCache> {
    if !plan.keeps_features {
        return None;
    }
    let encoder_hash = plan.encoder_hash()?;
    Some(FeatureCache { folder: plan.cache.join("features"), encoder_hash })
}

pub(crate) fn origin(is_cached: bool, seconds: f64) -> String {
    if is_cached { "from the cache".to_owned() } else { format!("computed in {seconds:.1} s") }
}
