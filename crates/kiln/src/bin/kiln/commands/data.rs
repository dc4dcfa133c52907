//! `kiln data audit` and `kiln data split`.

use kiln::{Audited, Recipe, check_leaks};
use serde_json::json;

use crate::cli::{AuditArgs, SplitArgs};
use crate::console;
use crate::observer::Console;

pub fn audit(arguments: &AuditArgs, json: bool) -> anyhow::Result<()> {
    let recipe = Recipe::load(&arguments.recipe, &arguments.set.set)?;
    let mut console = Console::default();
    let Audited { audit, answer_offsets } = kiln::audit(&recipe, &arguments.hub.options(), &mut console)?;
    if json {
        console::json(&audit)?;
    } else {
        for (split, offsets) in answer_offsets {
            console::result(format_args!("{split}: {offsets}"))?;
        }
        console::result(&audit)?;
    }
    Ok(check_leaks(&audit, arguments.strict, &recipe, &mut console)?)
}

pub fn split(arguments: &SplitArgs, json: bool) -> anyhow::Result<()> {
    let recipe = Recipe::load(&arguments.recipe, &arguments.set.set)?;
    let written = kiln::split(&recipe, &arguments.out, &arguments.hub.options(), &mut Console::default())?;
    if json {
        let object: serde_json::Map<String, serde_json::Value> = written
            .into_iter()
            .map(|split| (split.split.to_string(), json!({ "examples": split.examples, "path": split.path })))
            .collect();
        return console::json(&object);
    }
    for split in written {
        console::result(format_args!("{:<10} {:>8}  {}", split.split, split.examples, split.path.display()))?;
    }
    Ok(())
}
