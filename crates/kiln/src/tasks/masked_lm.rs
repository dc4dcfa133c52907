//! Pre-training on raw text: masked tokens and next sentences.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::bail;
use burn::module::Module;
use burn::tensor::Device;
use kiln_bert::{Weights, load_bert};
use kiln_dataset::{Source, corpus};
use kiln_heads::{Calibration, MaskedLm, Network};
use kiln_predict::Predictor;
use kiln_pretrain::{
    Distillation, Drawing, MaskingConfig, PretrainingSet, Teacher, TeacherStates, TeacherStatesConfig, TokenStore,
    TokenStoreConfig, split,
};
use kiln_schema::Splits;
use kiln_tokenize::Tokenizer;
use kiln_train::{Dataset, EvaluationSet};

use super::{BATCH_SIZE, Judgement, Scored};
use crate::error::Interrupted;
use crate::recipe::Files;
use crate::stages::features::origin;
use crate::stages::fit::{FitOptions, Fitted, fit};
use crate::stages::model::{prepare, pretrained, scope};
use crate::stages::settle::Plan;
use crate::stages::teacher::{BATCH_SIZE as TEACHER_BATCH_SIZE, OUTPUTS_LIMIT, outputs_folder, teacher_hash};
use crate::stages::{Described, Learner, Stages, Tokens};
use crate::{Fold, Observer, UsageError};

/// The stages of masked language modelling, with next sentence prediction if the recipe enables it.
pub(crate) struct MaskedLmTask;

impl Stages for MaskedLmTask {
    /// Raw text is read and tokenized in one pass, because it may not fit in memory.
    type Rows = ();
    type Encoded = Splits<PretrainingSet>;
    type Model = MaskedLm;

    fn read(&self, _plan: &Plan<'_>, _observer: &mut dyn Observer) -> anyhow::Result<()> {
        Ok(())
    }

    fn encode(
        &self,
        plan: &Plan<'_>,
        _rows: &(),
        observer: &mut dyn Observer,
    ) -> anyhow::Result<Tokens<Self::Encoded>> {
        let recipe = plan.recipe;
        let Files::Corpus { files, validation } = &plan.files else {
            unreachable!("the recipe's task and its files are checked together");
        };
        let tokenizer = plan.tokenizer();
        let masking = recipe.masking.config()?.init(tokenizer)?;
        plan.folder.create()?;
        let max_length = recipe.train.max_length;
        let config = TokenStoreConfig {
            folder: plan.folder.path.clone(),
            max_tokens: max_length - tokenizer.num_special_tokens(recipe.next_sentence),
        };
        let train = store(plan, files, &config, observer)?;
        let validation = match validation {
            Some(file) => Some(store(plan, std::slice::from_ref(file), &config, observer)?),
            None => None,
        };
        let (next_sentence, seed) = (recipe.next_sentence, recipe.train.seed);
        let drawing = Drawing { tokenizer: tokenizer.clone(), masking, next_sentence, seed };
        let (train, validation) = split(train, validation, drawing)?;
        let sizes = format!("train [{}], validation [{}]", train.rows(), validation.rows());
        observer.stage("mask", "kiln-pretrain", &format_args!("rows {sizes}, ≤ {max_length} tokens each"));
        let tokens = Splits { train: vec![], validation: vec![], test: None };
        Ok(Tokens {
            num_rows: train.rows(),
            encoded: Splits { train, validation, test: None },
            longest: max_length,
            audit: String::new(),
            tokens,
        })
    }

    /// There are no rows to pick: [`crate::forecast`] refuses raw text.
    fn pick(&self, _rows: &(), _picked: &Splits<Vec<usize>>) {}

    fn hold_out(
        &self,
        _rows: Self::Rows,
        _encoded: Self::Encoded,
        _fold: Fold,
    ) -> anyhow::Result<(Self::Rows, Self::Encoded)> {
        bail!(UsageError("folds need labelled data; the recipe reads raw text".to_owned()))
    }

    fn model(&self, plan: &Plan<'_>, _rows: &()) -> anyhow::Result<Described<MaskedLm>> {
        let next_sentence = plan.recipe.next_sentence;
        let config = pretrained(plan, 0);
        let mut pretrained = config.masked_lm(&plan.checkpoint.folder, next_sentence, plan.device)?;
        prepare(plan, &mut pretrained.model.bert)?;
        let MaskedLm { bert, cls } = &pretrained.model;
        let next = if next_sentence { ", next sentence → logits [2]" } else { "" };
        let vocab_size = plan.tokenizer().vocab_size();
        let head = format!("{} parameters; masked tokens → logits [{vocab_size}]{next}", cls.num_params());
        Ok(Described { encoder_parameters: bert.parameter_count(), head, pretrained, teacher: None })
    }

    fn fit(
        &self,
        plan: &Plan<'_>,
        _rows: &(),
        sets: Self::Encoded,
        learner: Learner<MaskedLm>,
        observer: &mut dyn Observer,
    ) -> anyhow::Result<Fitted<MaskedLm>> {
        let metric = plan.recipe.metric();
        let (train, teacher_seconds) = taught(plan, sets.train, observer)?;
        let sets = Splits { train, ..sets };
        let options = FitOptions {
            metric,
            scope: scope(plan, &learner.model.bert),
            encoder_seconds: 0.0,
            teacher_seconds,
            judge: |_: &_, _: &_, _: Option<&Calibration>| Judgement::none(),
        };
        fit(plan, &sets, learner.model, options, observer)
    }

    fn network(&self, _rows: (), model: MaskedLm) -> Network {
        Network::MaskedLm { model }
    }
}

/// The training rows with the teacher's hidden states, if there is a teacher, and the seconds it took: 0 if everything was
/// cached.
fn taught(
    plan: &Plan<'_>,
    train: PretrainingSet,
    observer: &mut dyn Observer,
) -> anyhow::Result<(PretrainingSet, f64)> {
    let (Some(distill), Some(teacher)) = (&plan.recipe.distill, &plan.teacher) else { return Ok((train, 0.0)) };
    let started = Instant::now();
    let weights = Weights::from_folder(&teacher.folder)?;
    let mut bert = load_bert(&teacher.config, &weights, plan.device)?.module;
    bert.products.precision = plan.precision;
    let hash = teacher_hash(plan);
    let config = TeacherStatesConfig {
        width: plan.checkpoint.config.hidden_size,
        batch_size: TEACHER_BATCH_SIZE,
        folder: outputs_folder(plan),
        max_bytes: OUTPUTS_LIMIT,
    };
    let rows = train.store().rows();
    let mut progress = |done| observer.rows("teacher", done, rows);
    let teacher = Teacher { bert: &bert, tokenizer: &teacher.tokenizer, hash: &hash };
    let (states, is_cached) =
        TeacherStates::compute(teacher, train.store(), plan.tokenizer(), &config, plan.device, &mut progress)?;
    let seconds = started.elapsed().as_secs_f64();
    let origin = origin(is_cached, seconds);
    observer.stage("teacher", "kiln-pretrain", &format_args!("hidden states of {rows} rows {origin}"));
    let train = train.with_distillation(Distillation { states, alpha: distill.alpha });
    Ok((train, if is_cached { 0.0 } else { seconds }))
}

/// Tokenizes files of raw text into anonymous files in the config's folder.
fn store(
    plan: &Plan<'_>,
    files: &[PathBuf],
    config: &TokenStoreConfig,
    observer: &mut dyn Observer,
) -> anyhow::Result<TokenStore> {
    let started = Instant::now();
    let data = &plan.recipe.data;
    let source = |path: &Path| Source {
        format: data.format,
        header: data.header,
        encoding: data.encoding,
        ..Source::new(path, data.columns.clone())
    };
    let sources: Vec<Source> = files.iter().map(|path| source(path)).collect();
    let store = tokenize(&sources, plan.tokenizer(), config, observer)?;
    let seconds = started.elapsed().as_secs_f64();
    let sizes = format!("{} documents, {} tokens", store.documents(), store.tokens());
    observer.stage("tokenize", "kiln-tokenize", &format_args!("{sizes} in {seconds:.1} s"));
    Ok(store)
}

/// Tokenizes until all text is read or the observer breaks.
fn tokenize(
    sources: &[Source],
    tokenizer: &Tokenizer,
    config: &TokenStoreConfig,
    observer: &mut dyn Observer,
) -> anyhow::Result<TokenStore> {
    let mut is_broken = false;
    let passages = sources.iter().map(corpus).collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
    let passages = passages.take_while(|_| {
        is_broken = is_broken || observer.control().is_break();
        !is_broken
    });
    let store = config.build(passages, tokenizer)?;
    if is_broken {
        bail!(Interrupted("nothing had been trained yet".to_owned()));
    }
    Ok(store)
}

/// The seed of the masks for an evaluation; the same for every model.
const SEED: u64 = 42;

/// The scores of a trained model on raw text.
pub(crate) fn score(
    predictor: &Predictor,
    model: &MaskedLm,
    source: &Source,
    device: &Device,
    observer: &mut dyn Observer,
) -> anyhow::Result<Scored> {
    let tokenizer = predictor.tokenizer();
    let next_sentence = model.cls.seq_relationship.is_some();
    let masking = MaskingConfig::default().init(tokenizer)?;
    let max_tokens = tokenizer.max_length() - tokenizer.num_special_tokens(next_sentence);
    let config = TokenStoreConfig { folder: std::env::temp_dir(), max_tokens };
    let store = tokenize(std::slice::from_ref(source), tokenizer, &config, observer)?;
    let drawing = Drawing { tokenizer: tokenizer.clone(), masking, next_sentence, seed: SEED };
    let set = PretrainingSet::whole(store, drawing)?;
    let output = set.output(model, BATCH_SIZE, device);
    Ok(Scored::new(set.report(&output)?, Judgement::none()))
}
