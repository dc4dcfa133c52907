//! Pre-training on raw text: masked tokens and next sentences.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Module;
use kiln_dataset::{Columns, Passage, Source, corpus};
use kiln_heads::{Network, Pretrained, TaskModel};
use kiln_pretrain::{Drawing, Masking, PretrainingSet, TokenStore, TokenStoreConfig, split};
use kiln_schema::Splits;
use kiln_tokenize::Tokenizer;
use kiln_train::TrainingSet;

use super::job::Trained;
use super::{Outcome, Run};
use crate::console::{self, Interrupted, stage};
use crate::recipe::{Data, Files};

impl Run<'_> {
    pub fn masked_lm(&self) -> anyhow::Result<Outcome> {
        let recipe = self.recipe;
        let Files::Corpus { files, validation } = &self.files else {
            unreachable!("the recipe's task and its files are checked together");
        };
        let masking = recipe.masking.config()?.init(self.tokenizer())?;
        self.folder.create()?;
        let tokenizer = self.tokenizer();
        let max_tokens = recipe.train.max_length - tokenizer.num_special_tokens(recipe.next_sentence);
        let store = |files: &[PathBuf]| store(files, &recipe.data, tokenizer, max_tokens, &self.folder.path);
        let (train, validation) =
            (store(files)?, validation.as_ref().map(|file| store(std::slice::from_ref(file))).transpose()?);
        let drawing = self.drawing(masking);
        let (train, validation) = split(train, validation, drawing)?;
        let sizes = format!("train [{}], validation [{}]", train.rows(), validation.rows());
        stage("mask", "kiln-pretrain", format_args!("rows {sizes}, ≤ {} tokens each", recipe.train.max_length));

        let config = self.pretrained(0);
        let mut pretrained = config.masked_lm(&self.checkpoint.folder, recipe.next_sentence, self.device)?;
        self.prepare(&mut pretrained.model.bert);
        let cls = &pretrained.model.cls;
        let next = if recipe.next_sentence { ", next sentence → logits [2]" } else { "" };
        let head =
            format!("{} parameters; masked tokens → logits [{}]{next}", cls.num_params(), tokenizer.vocab_size());
        self.describe(&pretrained, &pretrained.model.bert, recipe.train.max_length, &head);
        self.begin()?;

        let sets = Splits { train, validation, test: None };
        let Pretrained { model, config, .. } = pretrained;
        let Trained { model, train, splits, .. } = self.job().fit(&sets, model, 0.0)?;
        self.finish(&TaskModel { network: Network::MaskedLm { model }, config }, train, splits, "")
    }

    fn drawing(&self, masking: Masking) -> Drawing {
        let (tokenizer, next_sentence) = (self.tokenizer().clone(), self.recipe.next_sentence);
        Drawing { tokenizer, masking, next_sentence, seed: self.recipe.train.seed }
    }
}

/// Files of raw text as tokens, in files without a name in `folder`.
fn store(
    files: &[PathBuf],
    data: &Data,
    tokenizer: &Tokenizer,
    max_tokens: usize,
    folder: &Path,
) -> anyhow::Result<TokenStore> {
    let started = Instant::now();
    let source = |path: &Path| Source {
        format: data.format,
        header: data.header,
        encoding: data.encoding,
        ..Source::new(path, data.columns.clone())
    };
    let sources: Vec<Source> = files.iter().map(|path| source(path)).collect();
    let store = read(&sources, tokenizer, max_tokens, folder)?;
    let seconds = started.elapsed().as_secs_f64();
    let sizes = format!("{} documents, {} tokens", store.documents(), store.tokens());
    stage("tokenize", "kiln-tokenize", format_args!("{sizes} in {seconds:.1} s"));
    Ok(store)
}

/// Tokenizes until all is read or Ctrl-C is pressed.
fn read(sources: &[Source], tokenizer: &Tokenizer, max_tokens: usize, folder: &Path) -> anyhow::Result<TokenStore> {
    let passages = sources.iter().map(corpus).collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
    let passages = passages.take_while(|_| console::unless_interrupted().is_continue());
    let store = TokenStoreConfig { folder: folder.to_owned(), max_tokens }.build(passages, tokenizer)?;
    if console::unless_interrupted().is_break() {
        return Err(Interrupted("nothing had been trained yet".to_owned()).into());
    }
    Ok(store)
}

/// The whole of a file as rows to be judged by.
pub fn whole(source: &Source, drawing: Drawing) -> anyhow::Result<PretrainingSet> {
    let tokenizer = &drawing.tokenizer;
    let max_tokens = tokenizer.max_length() - tokenizer.num_special_tokens(drawing.next_sentence);
    let sources = [source.clone()];
    Ok(PretrainingSet::whole(read(&sources, tokenizer, max_tokens, &std::env::temp_dir())?, drawing)?)
}

/// The texts of some files, for a vocabulary; the first error ends them and is kept.
pub fn texts<'a>(
    files: &[PathBuf],
    columns: &Columns,
    failed: &'a mut Option<kiln_dataset::Error>,
) -> Result<impl Iterator<Item = String> + Send + use<'a>, kiln_dataset::Error> {
    let sources =
        files.iter().map(|path| corpus(&Source::new(path, columns.clone()))).collect::<Result<Vec<_>, _>>()?;
    Ok(sources
        .into_iter()
        .flatten()
        .map_while(move |passage| match passage {
            Ok(Passage::Sentence(text)) => Some(Some(text)),
            Ok(Passage::End) => Some(None),
            Err(error) => {
                *failed = Some(error);
                None
            }
        })
        .flatten())
}
