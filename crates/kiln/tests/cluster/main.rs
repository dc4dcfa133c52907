//! `kiln cluster`: the same rows as `kiln predict`, and the same bytes wherever and however often a shard is computed, even
//! after faults.

mod place;
mod store;
mod tables;
mod input;
mod faults;

use std::fs;

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::Float32Type;
use datafusion::prelude::SessionContext;
use kiln_backend::{Backend, Flex};
use kiln_predict::Predictor;
use place::{Place, Written, end, files, kiln, model, other_model};

/// Two files with seven row groups, in four shards.
fn place() -> Place {
    let place = Place::new();
    tables::write_reviews(&place.path("in/a.parquet"), 0, 430);
    tables::write_reviews(&place.path("in/b.parquet"), 430, 230);
    place
}

#[test]
fn one_process_answers_as_kiln_predict() {
    let place = place();
    let written = place.ran("out", &[]);
    assert_eq!(written.names().len(), 5);
    let rows = tables::read(&place.path("out"), &written.names());
    assert_eq!(tables::numbers(&rows, "id"), (0..660).collect::<Vec<_>>(), "every column is kept, in order");
    let answers = tables::texts(&rows, "kiln_prediction");
    let mut expected = Vec::new();
    for name in ["in/a.parquet", "in/b.parquet"] {
        let mut predict = kiln();
        predict
            .args(["predict", "--model"])
            .arg(model())
            .arg("--file")
            .arg(place.path(name))
            .args(["--text-column", "text"]);
        let predicted = end(predict);
        assert_eq!(predicted.code, Some(0), "{}", predicted.log);
        expected.extend(predicted.log.lines().filter(|line| line.starts_with('{')).map(|line| Some(line.to_owned())));
    }
    assert_eq!(answers.len(), expected.len());
    for (answer, expected) in answers.iter().zip(&expected) {
        same_answer(answer.as_deref().expect("an answer"), expected.as_deref().expect("an answer"));
    }
    assert!((written.manifest["rows"] == 660) && (written.manifest["bad_rows"] == 0), "{}", written.manifest);
}

#[test]
fn sql_has_the_answers_of_a_model() {
    let predictor = Predictor::from_folder(model(), &Flex::device(0)).expect("a model with a head");
    let expected = predictor.predict(&[("房间很干净", None)]).expect("an answer");
    let mut session = SessionContext::new();
    kiln_cluster::register(&mut session, kiln_cluster::Model::Predictor(Box::new(predictor)))
        .expect("it takes functions");
    let query = "SELECT kiln_predict(column1) AS answer FROM (VALUES ('房间很干净'), (NULL))";
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let rows = runtime.block_on(async { session.sql(query).await?.collect().await }).expect("a good query");
    let answers = tables::texts(&rows, "answer");
    assert_eq!(answers[1], None);
    same_answer(answers[0].as_deref().expect("an answer"), &serde_json::to_string(&expected[0]).expect("JSON"));
}

/// Texts are batched with others of similar length. A shard has other batches than the whole file, so the last digits may
/// differ.
fn same_answer(answer: &str, expected: &str) {
    let [answer, expected] =
        [answer, expected].map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    assert!(answer["text"] == expected["text"] && answer["label"] == expected["label"], "{answer} {expected}");
    let [score, expected_score] = [&answer, &expected].map(|answer| answer["score"].as_f64().expect("a number"));
    assert!((score - expected_score).abs() < 1e-6, "{answer} {expected}");
}

#[test]
fn vectors_are_those_of_kiln_embed() {
    let place = place();
    let written = place.ran("out", &["--task", "embed", "--normalize"]);
    let mut embed = kiln();
    embed.args(["embed", "--normalize", "--text-column", "text", "--model"]).arg(model());
    embed.arg("--file").arg(place.path("in/a.parquet")).arg("--out").arg(place.path("vectors.parquet"));
    assert_eq!(end(embed).code, Some(0));
    let rows = tables::read(&place.path("out"), &written.names());
    let vectors = rows.iter().flat_map(|batch| {
        let lists = batch.column_by_name("kiln_embedding").expect("the column").as_fixed_size_list().clone();
        (0..lists.len()).map(move |row| lists.value(row).as_primitive::<Float32Type>().values().to_vec())
    });
    let expected = tables::read(&place.path(""), &["vectors.parquet".to_owned()]);
    let expected = expected.iter().flat_map(|batch| {
        let lists = batch.column_by_name("embedding").expect("the column").clone();
        (0..lists.len()).map(move |row| {
            let list =
                lists.as_list_opt::<i64>().map_or_else(|| lists.as_list::<i32>().value(row), |lists| lists.value(row));
            list.as_primitive::<Float32Type>().values().to_vec()
        })
    });
    let pairs: Vec<_> = vectors.zip(expected).collect();
    assert_eq!(pairs.len(), 430);
    for (vector, expected) in pairs {
        assert_eq!(vector.len(), expected.len());
        assert!(vector.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{vector:?} {expected:?}");
    }
}

#[test]
fn what_is_written_is_not_computed_again() {
    let place = place();
    let first = place.ran("out", &[]);
    let again = place.run("out", &[]);
    assert!(again.code == Some(0) && again.log.contains("5 of them written before"), "{}", again.log);
    // One shard is deleted, another is truncated, and the manifest is deleted.
    let names = files(&place.path("out"), ".parquet");
    fs::remove_file(place.path("out").join(&names[0])).expect("it is there");
    fs::write(place.path("out").join(&names[1]), "PAR1").expect("it is writable");
    fs::remove_file(place.path("out/manifest.json")).expect("it is there");
    let repaired = place.run("out", &[]);
    assert!(repaired.code == Some(0) && repaired.log.contains("3 of them written before"), "{}", repaired.log);
    assert!(Written::read(&place.path("out")) == first, "the same bytes");
    // Another division into shards is another job.
    let other = place.run("out", &["--rows-per-shard", "100"]);
    assert!(other.code == Some(1) && other.log.contains("found the manifest of job"), "{}", other.log);
    assert!(Written::read(&place.path("out")) == first, "and it has written nothing");
}

#[test]
fn two_executors_write_the_same_bytes() {
    let place = place();
    let alone = place.ran("alone", &[]);
    let (_scheduler, address) = place.scheduler("0");
    let _executors = [place.executor(&address), place.executor(&address)];
    assert!(place.ran("shared", &["--scheduler", &address]) == alone, "the same manifest and bytes");
    // A second job on the same processes.
    let vectors = place.ran("vectors", &["--scheduler", &address, "--task", "embed"]);
    assert!(place.ran("vectors-alone", &["--task", "embed"]) == vectors);
}

#[test]
fn an_executor_with_another_model_is_refused() {
    let place = place();
    let (_scheduler, address) = place.scheduler("0");
    let _executor = place.executor_of(&address, other_model(), &[]);
    let refused = place.run("out", &["--scheduler", &address]);
    assert_eq!(refused.code, Some(1), "{}", refused.log);
    assert!(
        refused.log.contains("executor 127.0.0.1:") && refused.log.contains("found another model"),
        "{}",
        refused.log
    );
    assert!(!place.path("out/manifest.json").exists());
}
