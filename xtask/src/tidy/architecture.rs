//! Compares the table in `crates/README.md` with the workspace, so that they stay in sync.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata};

/// A row of the table.
struct Row {
    /// The layer; `None` for a package outside the layers.
    layer: Option<u8>,
    charter: String,
    /// The crates that may be imported; `None` for all crates.
    imports: Option<BTreeSet<String>>,
}

/// The properties of a package that the rules use.
pub struct Member {
    pub name: String,
    pub description: String,
    pub dependencies: Vec<Dependency>,
}

pub struct Dependency {
    pub name: String,
    /// Whether it is a normal dependency, not one of tests or a build script.
    pub normal: bool,
}

pub fn members(metadata: &Metadata) -> Vec<Member> {
    let dependency = |dependency: &cargo_metadata::Dependency| Dependency {
        name: dependency.name.clone(),
        normal: dependency.kind == DependencyKind::Normal,
    };
    metadata
        .workspace_packages()
        .iter()
        .map(|package| Member {
            name: package.name.to_string(),
            description: package.description.clone().unwrap_or_default(),
            dependencies: package.dependencies.iter().map(dependency).collect(),
        })
        .collect()
}

/// The differences between the table and the workspace, and the rules that the workspace breaks.
pub fn problems(map: &str, members: &[Member]) -> Vec<String> {
    let (table, mut problems) = parse(map);
    for name in table.keys().filter(|name| members.iter().all(|member| member.name != **name)) {
        problems.push(format!("`{name}` is no crate of the workspace"));
    }
    for member in members {
        match table.get(&member.name) {
            Some(row) => problems.extend(member_problems(member, row, &table)),
            None => problems.push(format!("`{}` has no row", member.name)),
        }
    }
    problems.into_iter().map(|problem| format!("crates/README.md: {problem}")).collect()
}

fn member_problems(member: &Member, row: &Row, table: &BTreeMap<String, Row>) -> Vec<String> {
    let Member { name, description, dependencies } = member;
    let mut problems = Vec::new();
    if row.charter != description.trim_end_matches('.') {
        problems.push(format!("the charter of `{name}` is not its package's description, \"{description}\""));
    }
    if ["core", "common", "utils", "util"].iter().any(|word| name.split('-').any(|part| part == *word)) {
        problems.push(format!("`{name}`: a crate is called by what it does"));
    }
    for dependency in dependencies.iter().filter(|dependency| dependency.normal) {
        let Some(imported) = table.get(&dependency.name) else { continue };
        if row.imports.as_ref().is_some_and(|imports| !imports.contains(&dependency.name)) {
            problems.push(format!("`{name}` imports `{}`, which its row does not name", dependency.name));
        }
        if row.layer.is_some_and(|layer| imported.layer.is_none_or(|imported| imported > layer)) {
            problems.push(format!("`{name}` imports `{}` of a higher layer", dependency.name));
        }
    }
    // Dependencies of tests count too, because they are compiled as often.
    for dependency in dependencies {
        if let Some(rule) = broken_rule(name, row.layer, &dependency.name) {
            problems.push(format!("`{name}` depends on `{}`: {rule}", dependency.name));
        }
    }
    problems
}

/// The rule for third-party crates that a dependency breaks.
fn broken_rule(name: &str, layer: Option<u8>, dependency: &str) -> Option<&'static str> {
    match dependency.split('-').next() {
        Some("burn") if layer.is_some_and(|layer| layer < 2) || name == "xtask" => {
            Some("only crates of layer 2 and above depend on burn")
        }
        Some("polars") if name != "kiln-dataset" => Some("only kiln-dataset depends on Polars"),
        _ if ["hf-hub", "ureq", "reqwest"].contains(&dependency) && name != "kiln-hub" => {
            Some("only kiln-hub uses the network")
        }
        _ => None,
    }
}

/// The rows by crate, and the problems in the table.
fn parse(map: &str) -> (BTreeMap<String, Row>, Vec<String>) {
    let mut table = BTreeMap::new();
    let mut problems = Vec::new();
    let rows = map.lines().filter(|line| line.starts_with('|') && line.contains("| `"));
    for line in rows {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [layer, name, charter, imports] = cells[..] else {
            problems
                .push(format!("found {} cells, expected 4 (layer, crate, charter, may import): {line}", cells.len()));
            continue;
        };
        let layer = match layer {
            "–" => None,
            layer => match layer.parse() {
                Ok(layer) => Some(layer),
                Err(_) => {
                    problems.push(format!("found the layer \"{layer}\", expected a number or –: {line}"));
                    continue;
                }
            },
        };
        let imports = match imports {
            "all" => None,
            "–" => Some(BTreeSet::new()),
            names => Some(names.split(',').map(|name| format!("kiln-{}", name.trim())).collect()),
        };
        let name = name.trim_matches('`').to_owned();
        if table.insert(name.clone(), Row { layer, charter: charter.to_owned(), imports }).is_some() {
            problems.push(format!("`{name}` has two rows"));
        }
    }
    for (name, row) in &table {
        for import in row.imports.iter().flatten().filter(|import| !table.contains_key(*import)) {
            problems.push(format!("`{name}` may import `{import}`, which has no row"));
        }
    }
    (table, problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
| layer | crate | charter | may import |
|---|---|---|---|
| 0 | `kiln-schema` | Words | – |
| 1 | `kiln-dataset` | Rows | schema |
| 2 | `kiln-bert` | BERT | – |
| – | `xtask` | Checks | – |
";

    fn member(name: &str, description: &str, dependencies: &[&str]) -> Member {
        let dependencies =
            dependencies.iter().map(|name| Dependency { name: (*name).to_owned(), normal: true }).collect();
        Member { name: name.to_owned(), description: description.to_owned(), dependencies }
    }

    fn members() -> Vec<Member> {
        vec![
            member("kiln-schema", "Words.", &["serde"]),
            member("kiln-dataset", "Rows.", &["kiln-schema", "polars"]),
            member("kiln-bert", "BERT.", &["burn"]),
            member("xtask", "Checks.", &["anyhow"]),
        ]
    }

    /// The single problem after adding `dependency` to `name`.
    fn problem_with(name: &str, dependency: &str) -> String {
        let mut members = members();
        let member = members.iter_mut().find(|member| member.name == name).expect("a member");
        member.dependencies.push(Dependency { name: dependency.to_owned(), normal: true });
        let mut problems = problems(TABLE, &members);
        let problem = problems.pop().expect("a problem");
        assert_eq!(problems, [""; 0], "besides {problem}");
        problem
    }

    #[test]
    fn a_true_table_passes() {
        assert_eq!(problems(TABLE, &members()), [""; 0]);
    }

    #[test]
    fn a_wrong_table_fails() {
        for (old, new, expected) in [
            ("| 0 | `kiln-schema` | Words | – |\n", "", "`kiln-dataset` may import `kiln-schema`, which has no row"),
            ("| 2 | `kiln-bert` | BERT | – |\n", "", "`kiln-bert` has no row"),
            ("| Rows | schema |", "| Rows | – |", "`kiln-dataset` imports `kiln-schema`, which its row does not name"),
            ("| BERT |", "| Bert |", "the charter of `kiln-bert` is not its package's description, \"BERT.\""),
            ("| 0 | `kiln-s", "| 2 | `kiln-s", "`kiln-dataset` imports `kiln-schema` of a higher layer"),
            ("| 2 |", "| 1 |", "`kiln-bert` depends on `burn`: only crates of layer 2 and above depend on burn"),
            ("| 2 |", "| two |", "found the layer \"two\", expected a number or –"),
            ("| Checks |", "|", "found 3 cells, expected 4"),
            ("| – | `xtask`", "| – | `kiln-x` | X | – |\n| – | `xtask`", "`kiln-x` is no crate of the workspace"),
            ("| – | `xtask`", "| 0 | `kiln-schema` | Words | – |\n| – | `xtask`", "`kiln-schema` has two rows"),
        ] {
            assert_eq!(TABLE.matches(old).count(), 1, "{old}");
            let problems = problems(&TABLE.replace(old, new), &members());
            let expected = format!("crates/README.md: {expected}");
            assert!(problems.iter().any(|problem| problem.starts_with(&expected)), "{problems:?} lacks {expected}");
        }
    }

    #[test]
    fn a_wrong_import_fails() {
        for (name, dependency, expected) in [
            ("kiln-bert", "kiln-schema", "`kiln-bert` imports `kiln-schema`, which its row does not name"),
            (
                "kiln-schema",
                "burn-flex",
                "`kiln-schema` depends on `burn-flex`: only crates of layer 2 and above depend on burn",
            ),
            ("xtask", "burn", "`xtask` depends on `burn`: only crates of layer 2 and above depend on burn"),
            ("kiln-bert", "polars-core", "`kiln-bert` depends on `polars-core`: only kiln-dataset depends on Polars"),
            ("kiln-dataset", "ureq", "`kiln-dataset` depends on `ureq`: only kiln-hub uses the network"),
        ] {
            assert_eq!(problem_with(name, dependency), format!("crates/README.md: {expected}"));
        }
    }

    #[test]
    fn the_workspace_is_as_its_map_says() {
        let root = crate::workspace::root();
        let map = std::fs::read_to_string(root.join("crates/README.md")).expect("the map is there");
        let metadata = crate::workspace::metadata().expect("cargo reads the workspace");
        assert_eq!(problems(&map, &super::members(&metadata)), [""; 0]);
    }
}
