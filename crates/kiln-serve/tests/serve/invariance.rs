//! The prediction for a text does not depend on other texts. Every byte is the same alone, with other texts in its request,
//! and with concurrent requests, for every task and precision.

use std::collections::HashSet;

use kiln_kernels::Precision;
use serde_json::{Value, json};

use crate::running::{MODELS, Running, load_in};

/// A route for each task, and routes of other clients. All take a list of `inputs` and return a list.
const ROUTES: [&str; 9] = [
    "/models/reviews",
    "/models/topics",
    "/models/ranks",
    "/models/names",
    "/models/answers",
    "/models/masks",
    "/models/vectors",
    "/predict",
    "/embed",
];

/// The number of texts per route, of client threads, and of requests per thread.
const TEXTS: usize = 10;
const THREADS: u64 = 4;
const REQUESTS: usize = 30;

/// xorshift64 (Marsaglia, *Xorshift RNGs*, 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn text(&mut self, most: usize) -> String {
        let characters: Vec<char> = "房间很干净屏幕太暗酒店位置好a".chars().collect();
        let length = 1 + self.below(most);
        (0..length).map(|_| characters[self.below(characters.len())]).collect()
    }

    /// A random input in the form of the route. Inputs of names and contexts can be several windows long.
    fn input(&mut self, route: &str) -> Value {
        let text = self.text(25);
        match (route, self.below(2)) {
            ("/models/names", _) => json!(self.text(150)),
            ("/models/answers", _) => json!({ "question": text, "context": self.text(150) }),
            ("/models/masks", _) => json!(format!("{text}[MASK]{}", self.text(20))),
            ("/models/vectors" | "/embed", _) => json!(text),
            ("/predict", 0) => json!([text]),
            ("/predict", _) => json!([text, self.text(25)]),
            (_, 0) => json!(text),
            _ => json!({ "text": text, "text_pair": self.text(25) }),
        }
    }
}

/// The response body for some inputs.
fn answered(server: &Running, route: &str, inputs: &[&Value]) -> String {
    let answer = server.post(route, &json!({ "inputs": inputs }));
    assert_eq!(answer.status, 200, "{route} {inputs:?}: {}", answer.body);
    answer.body
}

/// A route with its inputs, and the response for each input alone.
struct Asked {
    route: &'static str,
    inputs: Vec<Value>,
    alone: Vec<String>,
}

impl Asked {
    fn new(server: &Running, route: &'static str, random: &mut Random) -> Self {
        let inputs: Vec<Value> = (0..TEXTS).map(|_| random.input(route)).collect();
        let item = |input| {
            let body = answered(server, route, &[input]);
            let item = body.strip_prefix('[').and_then(|body| body.strip_suffix(']')).expect("a list of one");
            item.to_owned()
        };
        let alone: Vec<String> = inputs.iter().map(item).collect();
        let different: HashSet<&String> = alone.iter().collect();
        assert!(different.len() > TEXTS / 2, "{route}: answers tell texts apart: {alone:?}");
        Self { route, inputs, alone }
    }
}

#[test]
fn every_byte_of_an_answer_is_its_texts_own() {
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let server = Running::with(|_| {}, move || load_in(&MODELS.1, Some(precision)));
        let mut random = Random(7);
        let all = ROUTES.map(|route| Asked::new(&server, route, &mut random));
        std::thread::scope(|scope| {
            for thread in 1..=THREADS {
                let (server, all) = (&server, &all);
                scope.spawn(move || {
                    let mut random = Random(1_000 * thread);
                    for _ in 0..REQUESTS {
                        let Asked { route, inputs, alone } = &all[random.below(all.len())];
                        let count = 1 + random.below(TEXTS);
                        let chosen: Vec<usize> = (0..count).map(|_| random.below(TEXTS)).collect();
                        let asked: Vec<&Value> = chosen.iter().map(|&at| &inputs[at]).collect();
                        let expected: Vec<&str> = chosen.iter().map(|&at| alone[at].as_str()).collect();
                        let found = answered(server, route, &asked);
                        assert_eq!(found, format!("[{}]", expected.join(",")), "{precision:?} {route} {chosen:?}");
                    }
                });
            }
        });
    }
}

/// OpenAI's clients get the same base64 vectors in every batch.
#[test]
fn vectors_in_base64_are_their_texts_own() {
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let server = Running::with(|_| {}, move || load_in(&MODELS.1, Some(precision)));
        let mut random = Random(11);
        let texts: Vec<String> = (0..TEXTS).map(|_| random.text(40)).collect();
        let vectors = |texts: &[&String]| -> Vec<Value> {
            let body = json!({ "input": texts, "model": "vectors", "encoding_format": "base64" });
            let answer = server.ask("/v1/embeddings", &body);
            answer["data"].as_array().expect("a list").iter().map(|item| item["embedding"].clone()).collect()
        };
        let alone: Vec<Value> = texts.iter().flat_map(|text| vectors(&[text])).collect();
        for _ in 0..REQUESTS {
            let chosen: Vec<usize> = (0..1 + random.below(TEXTS)).map(|_| random.below(TEXTS)).collect();
            let found = vectors(&chosen.iter().map(|&at| &texts[at]).collect::<Vec<_>>());
            let expected: Vec<Value> = chosen.iter().map(|&at| alone[at].clone()).collect();
            assert_eq!(found, expected, "{precision:?} {chosen:?}");
        }
    }
}
