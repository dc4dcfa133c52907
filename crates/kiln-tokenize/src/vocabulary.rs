use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    AddedToken, Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    Trainer,
};

use crate::class::Class;
use crate::config::TokenizerConfig;
use crate::cuts::Cuts;
use crate::reading::PIECE;
use crate::{Error, Tokenizer, pipeline, wordpiece};

/// How to train a WordPiece vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VocabularyConfig {
    /// The maximum number of tokens, including the five special tokens.
    pub size: usize,
    /// How often a character or a pair of tokens must occur to become a token.
    pub min_count: u64,
    /// Whether texts are lower-cased and accents stripped.
    pub lower_case: bool,
}

impl Default for VocabularyConfig {
    /// The size of `bert-base-chinese`, 21,128, with a minimum count of 2.
    fn default() -> Self {
        Self { size: 21_128, min_count: 2, lower_case: true }
    }
}

/// The special tokens, in the order of their ids in `bert-base-chinese`.
const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

impl VocabularyConfig {
    /// Trains a vocabulary: counts the words of the texts, and merges the most frequent pairs of tokens. Each Chinese
    /// character is a word. Memory grows with the number of distinct words, not with the size of the texts.
    ///
    /// # Errors
    /// When no character is frequent enough, or `size` leaves no room for a character.
    pub fn train<S: AsRef<str> + Send>(&self, texts: impl Iterator<Item = S> + Send) -> Result<Tokenizer, Error> {
        let fail = |reason: String| Error::Vocabulary { reason };
        let cannot = |source: tokenizers::Error| Error::Vocabulary { reason: source.to_string() };
        let room = self.size.saturating_sub(SPECIAL_TOKENS.len());
        if room == 0 {
            return Err(fail(format!("a vocabulary of {} has no room beside its special tokens", self.size)));
        }
        let normalizer = BertNormalizer::new(true, true, None, self.lower_case);
        let characters = Mutex::new(HashMap::<char, Character>::new());
        let cuts = Cuts::of_bert();
        let words = |text: &str| {
            let mut words: Vec<String> = Vec::new();
            // A word takes far more memory before it is counted than after, so a text is processed in pieces.
            for piece in cuts.pieces(text, PIECE) {
                let mut normalized = NormalizedString::from(piece);
                normalizer.normalize(&mut normalized)?;
                let mut divided = PreTokenizedString::from(normalized);
                BertPreTokenizer.pre_tokenize(&mut divided)?;
                let split = divided.get_splits(OffsetReferential::Normalized, OffsetType::Byte).into_iter();
                words.extend(split.map(|(word, ..)| word).filter(|word| !is_unknown(word)).map(str::to_owned));
            }
            let mut counts = characters.lock().unwrap_or_else(PoisonError::into_inner);
            for (at, c) in words.iter().flat_map(|word| word.chars().enumerate()) {
                let character = counts.entry(c).or_default();
                character.count += 1;
                character.goes_on |= at > 0;
            }
            Ok(words)
        };
        let mut trainer = WordPieceTrainer::builder()
            .show_progress(false)
            .vocab_size(self.size)
            .min_frequency(self.min_count)
            .build();
        trainer.feed(texts, words).map_err(cannot)?;
        let counts = characters.into_inner().unwrap_or_else(PoisonError::into_inner);
        let alphabet = alphabet(counts.into_iter().collect(), self.min_count, room);
        if alphabet.is_empty() {
            return Err(fail(format!("no character of the texts occurs {} times or more", self.min_count)));
        }
        trainer.set_limit_alphabet(Some(alphabet.len()));
        // The trainer numbers the characters inside words in the order of a hash map, and breaks ties between pairs by
        // number. Passing them as special tokens fixes their order.
        let inside = alphabet.iter().filter(|(_, character)| character.goes_on).map(|(c, _)| format!("##{c}"));
        let first = SPECIAL_TOKENS.map(str::to_owned).into_iter().chain(inside);
        trainer.set_special_tokens(first.map(|token| AddedToken::from(token, true)).collect());
        let mut model = WordPiece::default();
        trainer.train(&mut model).map_err(cannot)?;
        self.tokenizer(&model)
    }

    /// BERT's tokenizer with the vocabulary of `model`.
    fn tokenizer(&self, model: &WordPiece) -> Result<Tokenizer, Error> {
        let mut tokens: Vec<(String, u32)> = model.get_vocab().into_iter().collect();
        tokens.sort_by_key(|(_, id)| *id);
        let vocab: String = tokens.into_iter().map(|(token, _)| token + "\n").collect();
        let mut keys = Map::new();
        keys.insert("do_lower_case".to_owned(), Value::from(self.lower_case));
        for (key, token) in
            ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"].iter().zip([0, 1, 2, 3, 4])
        {
            keys.insert((*key).to_owned(), Value::from(SPECIAL_TOKENS[token]));
        }
        let config = TokenizerConfig::from_parts(&keys, None).expect("the keys are those of a configuration");
        let model = wordpiece::from_vocab(Path::new(""), vocab.as_bytes(), &config)?;
        let mut pipeline = tokenizers::Tokenizer::new(model);
        pipeline::apply(&mut pipeline, Class::Bert, Path::new("vocab.txt"), &config)?;
        let max_length = config.max_length();
        let mut tokenizer = Tokenizer::new(pipeline, "vocab.txt".into(), config)?;
        tokenizer.companions = vec![("vocab.txt", vocab.into_bytes())];
        tokenizer.with_max_length(max_length)
    }
}

/// Whether a word is so long that WordPiece maps it to the unknown token. Such a word is useless for training, and merging
/// its pairs would take time quadratic in its length.
fn is_unknown(word: &str) -> bool {
    word.chars().nth(WordPiece::default().max_input_chars_per_word).is_some()
}

/// How often a character occurs, and whether it also occurs inside a word, where it needs a second token such as `##s`.
#[derive(Clone, Copy, Debug, Default)]
struct Character {
    count: u64,
    goes_on: bool,
}

/// The characters that become tokens, in code point order: the most frequent ones that occur at least `min_count` times and
/// fit into `room`. Of equally frequent characters all or none are kept, so that the same texts always give the same
/// vocabulary.
fn alphabet(mut characters: Vec<(char, Character)>, min_count: u64, room: usize) -> Vec<(char, Character)> {
    characters.sort_unstable_by_key(|(c, character)| (std::cmp::Reverse(character.count), *c));
    let (mut kept, mut tokens) = (0, 0);
    for alike in characters.chunk_by(|(_, a), (_, b)| a.count == b.count) {
        tokens += alike.iter().map(|(_, character)| 1 + usize::from(character.goes_on)).sum::<usize>();
        if alike[0].1.count < min_count.max(1) || tokens > room {
            break;
        }
        kept += alike.len();
    }
    characters.truncate(kept);
    characters.sort_unstable_by_key(|(c, _)| *c);
    characters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(size: usize, min_count: u64, texts: &[&str]) -> Result<Tokenizer, Error> {
        VocabularyConfig { size, min_count, lower_case: true }.train(texts.iter())
    }

    #[test]
    fn chinese_is_split_and_english_merged() {
        let texts = ["好好好 running runner Runs 好房间", "run 房间 runs 稀"];
        let tokenizer = train(60, 2, &texts).expect("there are characters");
        let folder = tempfile::tempdir().expect("a temporary folder");
        tokenizer.save(folder.path()).expect("it is writable");
        let vocab = std::fs::read_to_string(folder.path().join("vocab.txt")).expect("it was saved");
        let tokens: Vec<&str> = vocab.lines().collect();
        assert_eq!(tokens[..5], SPECIAL_TOKENS);
        for token in ["好", "房", "间", "run"] {
            assert!(tokens.contains(&token), "{token} of {tokens:?}");
        }
        assert!(!tokens.contains(&"稀") && !tokens.contains(&"好房"), "{tokens:?}");
        let again = Tokenizer::from_folder(folder.path()).expect("what was saved is whole");
        assert_eq!((again.mask_token_id(), again.vocab_size()), (Some(4), tokens.len()));
        let ids =
            |tokenizer: &Tokenizer| tokenizer.encode("好RUNS 稀", None).expect("there is an unknown token").input_ids;
        assert_eq!(ids(&again), ids(&tokenizer));
        assert_eq!(ids(&again).iter().filter(|id| **id == 1).count(), 1, "what is rare is unknown");
        assert!(train(9, 1, &texts).expect("there are characters").vocab_size() <= 9);
        let same = train(60, 2, &texts).expect("there are characters");
        assert_eq!(same.pipeline.get_vocab(false), tokenizer.pipeline.get_vocab(false));
    }

    #[test]
    fn words_that_would_be_unknown_are_not_learned_from() {
        let (longest, longer) = ("y".repeat(100), "z".repeat(101));
        let tokenizer = train(60, 1, &[&longest, &longer, "run"]).expect("there are characters");
        let has = |token| tokenizer.pipeline.token_to_id(token).is_some();
        assert!(has("y") && has("r") && !has("z"));
    }

    #[test]
    fn what_gives_no_vocabulary_is_refused() {
        assert!(train(5, 1, &["好"]).expect_err("no room").to_string().contains("5"));
        assert!(train(60, 2, &["好"]).expect_err("all are rare").to_string().contains("2 times"));
        assert!(train(60, 1, &[]).is_err());
    }

    #[test]
    fn rare_characters_stay_out_and_ties_go_together() {
        let kept = |counts: [u64; 4], goes_on, min_count, room| {
            let characters = "dcba".chars().zip(counts.map(|count| Character { count, goes_on })).collect();
            alphabet(characters, min_count, room).into_iter().map(|(c, _)| c).collect::<String>()
        };
        assert_eq!(kept([5, 3, 3, 1], false, 2, 10), "bcd");
        assert_eq!(kept([5, 3, 3, 1], false, 1, 2), "d");
        assert_eq!(kept([5, 3, 3, 1], false, 1, 3), "bcd");
        assert_eq!(kept([5, 3, 3, 1], true, 1, 7), "bcd", "inside a word a character is another token");
    }
}
