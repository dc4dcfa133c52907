//! Fine-tunes, evaluates and predicts: `cargo run --release -p kiln --example fine_tune`
#![expect(clippy::print_stdout, reason = "an example prints")]

use kiln::{Recipe, RunOptions};
use kiln_backend::Flex;
use kiln_schema::Split;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    // A small BERT and 2,063 reviews. For your own data, write a recipe like this one.
    let sample = kiln_sample::unpack(folder.path())?;
    let recipe = Recipe::load(&sample.recipe, &["train.epochs=5".to_owned()])?;
    let options = RunOptions { out: Some(folder.path().join("run")), ..RunOptions::default() };
    let trained = kiln::train::<Flex>(&recipe, &options, &mut ())?;
    println!("test accuracy {:?}", trained.report.splits[&Split::Test].score("accuracy"));

    let texts = [("房间很干净，早餐也好吃", None), ("屏幕坏了，客服没有人理", None)];
    for prediction in trained.predictor()?.predict(&texts)? {
        println!("{}", serde_json::to_string(&prediction)?);
    }
    Ok(())
}
