//! A modified checkpoint is refused.

use super::*;

/// The error of resuming from a checkpoint of two updates, after a change of its tensors and its note.
fn resumed_after(change: impl FnOnce(&mut Vec<NamedParameter>, &mut String)) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    fit(folder.path(), false, &config(), stop_after(2));
    let path = folder.path().join("last.safetensors");
    let weights = Weights::from_file(&path).expect("it was written");
    let tensor = |name: &str| NamedParameter {
        name: name.to_owned(),
        shape: weights.shape(name).expect("it is listed").to_vec(),
        values: weights.read(name).expect("floats").expect("it is listed"),
    };
    let mut tensors: Vec<NamedParameter> = weights.names().map(tensor).collect();
    let mut note = weights.note().expect("a run's progress").to_owned();
    change(&mut tensors, &mut note);
    save_with_note(&path, &tensors, note).expect("it is writable");
    let before = std::fs::read(&path).expect("it was written");
    let result = try_fit((&set(), model()), (folder.path(), true), &config(), stop_after(3));
    let message = result.map(|_| String::new()).unwrap_or_else(|error| error.to_string());
    assert!(message.is_empty() || std::fs::read(&path).expect("it is there") == before, "nothing is overwritten");
    assert!(message.is_empty() || message.contains("last.safetensors"), "{message}");
    message
}

#[test]
fn a_damaged_checkpoint_is_refused_by_name() {
    const BIAS: &str = "bert.encoder.layer.1.output.dense.bias";
    fn at<'a>(tensors: &'a mut [NamedParameter], prefix: &str) -> &'a mut NamedParameter {
        let name = format!("{prefix}{BIAS}");
        tensors.iter_mut().find(|tensor| tensor.name == name).expect("the bias has been trained")
    }
    assert_eq!(resumed_after(|_, _| {}), "", "unchanged, it is resumed");
    let shape = resumed_after(|tensors, _| at(tensors, "first_moment.").shape = vec![4, 6]);
    assert!(shape.contains(&format!("`first_moment.{BIAS}` has shape [4, 6], expected [24]")), "{shape}");
    let length = resumed_after(|tensors, _| {
        let moment = at(tensors, "second_moment.");
        (moment.shape, moment.values) = (vec![23], vec![0.0; 23]);
    });
    assert!(length.contains(&format!("`second_moment.{BIAS}` has shape [23], expected [24]")), "{length}");
    let name = resumed_after(|tensors, _| at(tensors, "first_moment.").name = "first_moment.other".to_owned());
    assert!(name.contains("`first_moment.other` belongs to no parameter"), "{name}");
    let half = resumed_after(|tensors, _| tensors.retain(|tensor| tensor.name != format!("second_moment.{BIAS}")));
    assert!(half.contains(&format!("there is no `second_moment.{BIAS}`")), "{half}");
    let both = resumed_after(|tensors, _| tensors.retain(|t| !(t.name.contains("moment.") && t.name.ends_with(BIAS))));
    assert!(both.contains("moments of") && both.contains("parameters, expected"), "{both}");
    let weights = resumed_after(|tensors, _| at(tensors, "model.").shape = vec![4, 6]);
    assert!(weights.contains(&format!("`model.{BIAS}`")), "{weights}");
    let extra = resumed_after(|tensors, _| {
        let copy = at(tensors, "model.").clone();
        tensors.push(NamedParameter { name: "model.extra".to_owned(), ..copy });
    });
    assert!(extra.contains("`model.extra` is not a parameter of the model"), "{extra}");

    for (old, new, words) in [
        ("format = 5", "format = 1", "format 1, expected 5"),
        ("step = 2", "step = 7", "is inconsistent: 7 updates"),
        ("updates_in_epoch = 2", "updates_in_epoch = 4", "is inconsistent"),
        ("epoch = 0", "epoch = -1", "its progress is damaged"),
    ] {
        let message = resumed_after(|_, note| {
            let lines: Vec<&str> = note.lines().map(|line| if line == old { new } else { line }).collect();
            assert_ne!(lines.join("\n"), note.trim_end(), "`{old}` is a line of the note");
            *note = lines.join("\n");
        });
        assert!(message.contains(words), "{new}: {message}");
    }
}
