use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::http::StatusCode;

use crate::config::{Limits, ServeConfig};
use crate::inputs::Text;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::model::{Kind, Model, Outcome, TextWork};
use crate::queue::{Failure, Queue, QueueConfig, Refused};
use crate::refusal::{Reason, Refusal};

/// The state that all requests share.
#[derive(Debug)]
pub struct App {
    pub config: ServeConfig,
    pub queue: Queue<TextWork>,
    pub metrics: Arc<Metrics>,
    keys: RwLock<Option<Arc<Keys>>>,
    models: RwLock<Arc<[Arc<Model>]>>,
    draining: AtomicBool,
}

/// What to compute for the texts of a request.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    pub kind: Kind,
    /// Whether texts that are too long are truncated. The default is the server's setting.
    pub truncate: Option<bool>,
    /// The number of tokens to predict for each mask.
    pub top: Option<usize>,
}

/// Tokenized texts that are ready for the queue.
#[derive(Debug)]
pub struct Tokenized {
    works: Vec<TextWork>,
    pub tokens: usize,
}

/// Texts up to this many bytes are tokenized on the request's thread, because handing them to another would take longer.
const FEW_BYTES: usize = 4 << 10;
/// An upper bound for the bytes of a token. No tokenizer needs so many bytes per token.
const MOST_BYTES_PER_TOKEN: usize = 512;
/// How much longer bulk requests wait than small ones.
const BULK_PATIENCE: Duration = Duration::from_millis(500);
/// A request with more texts is bulk.
const FEW_TEXTS: usize = 4;

impl App {
    pub fn new(config: ServeConfig, models: Vec<Model>, keys: Option<Keys>, metrics: Metrics) -> Self {
        let Limits { queue_tokens, batch_tokens, deadline, .. } = config.limits;
        let queue = Queue::new(QueueConfig {
            max_tokens: queue_tokens,
            batch_tokens,
            few_texts: FEW_TEXTS,
            bulk_patience: BULK_PATIENCE,
            deadline,
        });
        let app = Self {
            config,
            queue,
            metrics: Arc::new(metrics),
            keys: RwLock::new(keys.map(Arc::new)),
            models: RwLock::new(Arc::from([])),
            draining: AtomicBool::new(false),
        };
        app.swap(models);
        app
    }

    /// The current models. A request keeps the model that it started with.
    pub fn models(&self) -> Arc<[Arc<Model>]> {
        self.models.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the models.
    pub fn swap(&self, models: Vec<Model>) {
        let models: Arc<[Arc<Model>]> = models.into_iter().map(Arc::new).collect();
        *self.models.write().unwrap_or_else(PoisonError::into_inner) = models;
    }

    /// The current keys of clients, if requests need one.
    pub fn keys(&self) -> Option<Arc<Keys>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the keys of clients.
    pub fn swap_keys(&self, keys: Option<Keys>) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.map(Arc::new);
    }

    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// The model with that name. Without a name, the first model that `fits`.
    pub fn model(&self, name: Option<&str>, fits: impl Fn(&Model) -> bool, what: &str) -> Result<Arc<Model>, Refusal> {
        let models = self.models();
        let not_found = |message| Refusal::new(StatusCode::NOT_FOUND, Reason::NoModel, message);
        match name {
            None => {
                let model = models.iter().find(|model| fits(model));
                let tasks: Vec<&str> = models.iter().map(|model| model.ability().task()).collect();
                let message = || format!("no model here gives {what}; there is {}", tasks.join(", "));
                model.cloned().ok_or_else(|| not_found(message()))
            }
            Some(name) => {
                let model = models.iter().find(|model| model.name == name);
                let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
                let message = || format!("no model of that name is served; there is {}", names.join(", "));
                let model = model.ok_or_else(|| not_found(message()))?;
                let task = model.ability().task();
                let message = || format!("the model `{}` does not give {what}: its task is {task}", model.name);
                fits(model).then(|| model.clone()).ok_or_else(|| not_found(message()))
            }
        }
    }

    /// Checks the number of texts of a request.
    pub fn check_count(&self, texts: usize) -> Result<(), Refusal> {
        let most = self.config.limits.texts;
        if texts > most {
            let message = format!("found {texts} texts, expected at most {most}");
            return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, Reason::TooLarge, message));
        }
        Ok(())
    }

    /// Tokenizes texts, after checking that the queue has room.
    pub async fn tokenize(
        &self,
        model: &Arc<Model>,
        texts: Vec<Text>,
        question: Question,
    ) -> Result<Tokenized, Refusal> {
        self.check_count(texts.len())?;
        let text_tokens = self.config.limits.text_tokens;
        self.queue.has_room().map_err(refused)?;
        let bytes: usize = texts.iter().map(bytes_of).sum();
        let truncate = question.truncate.unwrap_or(self.config.truncate);
        let preparation = Preparation { model: model.clone(), question, truncate, text_tokens };
        if bytes <= FEW_BYTES {
            return preparation.run(texts);
        }
        let prepared = tokio::task::spawn_blocking(move || preparation.run(texts));
        let Ok(prepared) = tokio::time::timeout(self.config.limits.deadline, prepared).await else {
            return Err(self.too_late());
        };
        prepared.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(_) => Err(closing()),
        })
    }

    /// The results for the texts, in their order.
    pub async fn compute(&self, texts: Tokenized) -> Result<Vec<Outcome>, Refusal> {
        let ticket = self.queue.submit(texts.works).map_err(refused)?;
        let deadline = self.config.limits.deadline;
        match tokio::time::timeout(deadline, ticket.results()).await {
            Ok(Ok(outcomes)) => Ok(outcomes),
            Ok(Err(Failure::Closed)) => Err(closing()),
            Ok(Err(Failure::Panic | Failure::Text(_))) => Err(Refusal::internal()),
            Err(_) => Err(self.too_late()),
        }
    }

    fn too_late(&self) -> Refusal {
        let message = format!("there was no answer within {} s", self.config.limits.deadline.as_secs());
        Refusal::new(StatusCode::GATEWAY_TIMEOUT, Reason::Deadline, message)
    }
}

fn bytes_of(text: &Text) -> usize {
    text.text.len() + text.text_pair.as_ref().map_or(0, String::len)
}

fn closing() -> Refusal {
    let mut refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Reason::Closing, "the server is shutting down");
    refusal.retry_after = Some(1);
    refusal
}

fn refused(refused: Refused) -> Refusal {
    match refused {
        Refused::Closed => closing(),
        Refused::TooLarge => {
            let message =
                "the request has more tokens than the server's queue takes; send its texts in several requests";
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Reason::TooLarge, message)
        }
        Refused::Full(wait) => {
            /// An upper bound, because the queue may empty faster than expected.
            const MOST_SECONDS: f64 = 60.0;
            let seconds = wait.as_secs_f64().ceil().clamp(1.0, MOST_SECONDS) as u64;
            let message = format!("too many requests are waiting; try again in {seconds} s");
            let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, Reason::Overloaded, message);
            Refusal { retry_after: Some(seconds), ..refusal }
        }
    }
}

/// The settings for tokenizing the texts of a request.
struct Preparation {
    model: Arc<Model>,
    question: Question,
    truncate: bool,
    text_tokens: usize,
}

impl Preparation {
    fn run(&self, texts: Vec<Text>) -> Result<Tokenized, Refusal> {
        let works = (0..).zip(&texts).map(|(at, text)| self.work(text, at, texts.len()));
        let works: Vec<TextWork> = works.collect::<Result<_, _>>()?;
        let tokens = works.iter().map(|work| work.prepared.tokens()).sum();
        Ok(Tokenized { works, tokens })
    }

    fn work(&self, text: &Text, at: usize, count: usize) -> Result<TextWork, Refusal> {
        let Self { model, question, truncate, text_tokens } = self;
        let which = if count == 1 { "the text".to_owned() } else { format!("text {at}") };
        let too_long = |tokens: &str, limit: String| {
            let message = format!("{which} has {tokens} tokens, and {limit}");
            Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, Reason::TooLarge, message)
        };
        let of_server = || format!("this server takes {text_tokens} (--max-text-tokens)");
        let has_windows = model.has_windows() && question.kind == Kind::Answer;
        if has_windows && bytes_of(text) / MOST_BYTES_PER_TOKEN > *text_tokens {
            return Err(too_long("too many", of_server()));
        }
        let prepared = model.prepare(&text.text, text.text_pair.as_deref(), question.kind);
        let prepared = prepared.map_err(|error| Refusal::unprocessable(format!("{which}: {error}")))?;
        if let Some(tokens) = prepared.cut_from().filter(|_| !truncate) {
            let most = model.tokenizer().max_length();
            let limit = format!("the model `{}` takes {most}; with `truncate` the rest is cut off", model.name);
            return Err(too_long(&format!("at least {tokens}"), limit));
        }
        if prepared.own_tokens() > *text_tokens {
            return Err(too_long(&prepared.own_tokens().to_string(), of_server()));
        }
        let prepared = match question.top {
            Some(top) => prepared.with_top(top),
            None => prepared,
        };
        Ok(TextWork { model: model.clone(), kind: question.kind, prepared })
    }
}
