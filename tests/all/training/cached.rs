//! Cached hidden states replace a frozen encoder.

use super::*;

/// A head trained on cached hidden states has the same weights as one whose encoder runs in each epoch.
#[test]
fn cached_hidden_states_stand_in_for_a_frozen_encoder() {
    let device = Flex::device(0);
    let frozen = || {
        let mut model = model();
        model.bert = model.bert.freeze();
        model
    };
    let (cache, runs) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let encodings = tiny::encodings();
    let rows: Vec<&kiln_tokenize::Encoding> = encodings.iter().collect();
    let config = TokenFeaturesConfig {
        batch_size: 2,
        cache: FeatureCache { folder: cache.path().to_owned(), encoder_hash: "tiny".to_owned() },
        max_bytes: 1 << 20,
    };
    let compute = |config: &TokenFeaturesConfig, computed: &mut usize| {
        let mut progress = |done| *computed = done;
        TokenFeatures::compute(&frozen().bert, &rows, config, &device, &mut progress).expect("the folder is writable")
    };
    let (mut first, mut second) = (0, 0);
    let (_, cached) = compute(&config, &mut first).expect("it is small");
    assert!(!cached && first == 5, "{first} of 5 rows are computed");
    let (features, cached) = compute(&config, &mut second).expect("it is small");
    assert!(cached && second == 0, "nothing is computed again");
    assert!(compute(&TokenFeaturesConfig { max_bytes: 100, ..config.clone() }, &mut second).is_none(), "the limit");

    // The head uses the mean of all tokens, so that every hidden state matters.
    let trained = |known: Option<std::sync::Arc<dyn kiln_bert::KnownStates>>| {
        let mut model = SequenceClassifier { pooling: Pooling::Mean, ..frozen() };
        model.bert.known_states = known;
        try_fit((&set(), model), (runs.path(), false), &self::config(), go_on).expect("it trains")
    };
    let expected = trained(None);
    // With cached states, the encoder does not run.
    let found = trained(Some(std::sync::Arc::new(features)));
    let (expected_head, found_head) = (by_name(&expected.model), by_name(&found.model));
    for (name, parameter) in expected_head {
        tiny::assert_close(&parameter.values, &found_head[&name].values, 1e-4, &name);
    }
    let losses = |fitted: &Fitted<SequenceClassifier>| fitted.epochs.last().expect("three").validation["loss"];
    assert!((losses(&expected) - losses(&found)).abs() < 1e-5, "{} and {}", losses(&expected), losses(&found));
}
