use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::content::{file, is_large, query, sha256, signed};
use crate::hub::State;
use crate::server::{Reply, Request};

/// Replies to `/api/v1/{models,datasets}/owner/name`, `…/repo`, `…/repo/files` of models and `…/repo/tree` of data
/// sets.
pub(crate) fn reply(state: &mut State, request: &Request, content_host: &str) -> Option<Reply> {
    let target = request.target.as_str();
    let path = target.split('?').next().unwrap_or_default();
    let is_dataset = path.starts_with("/api/v1/datasets/");
    let path = path.strip_prefix("/api/v1/datasets/").or_else(|| path.strip_prefix("/api/v1/models/"))?;
    let route = path.strip_prefix("owner/name")?;
    let revision = query(target, "Revision").unwrap_or_else(|| "master".to_owned());
    if !["master", state.commit.as_str()].contains(&revision.as_str()) {
        return Some(Reply::status(404));
    }
    match route {
        "" => Some(data(&json!({"Path": "owner", "Name": "name"}))),
        "/repo/files" if !is_dataset => Some(sent(state, listing(state, target, usize::MAX))),
        "/repo/tree" if is_dataset => {
            let size = query(target, "PageSize").and_then(|size| size.parse().ok()).unwrap_or(100);
            Some(sent(state, listing(state, target, size)))
        }
        "/repo" => {
            let name = query(target, "FilePath")?;
            match state.files.get(&name) {
                None => Some(Reply::status(404)),
                Some(content) if is_large(content) => {
                    Some(Reply::status(302).with("Location", signed(content_host, &name)))
                }
                Some(_) => Some(file(state, request, &name)),
            }
        }
        _ => None,
    }
}

/// A listing with the configured fault.
fn sent(state: &mut State, reply: Reply) -> Reply {
    let is_cut = state.cut_listings > 0;
    state.cut_listings -= usize::from(is_cut);
    let cut = is_cut.then_some(reply.body.len() / 2);
    Reply { cut, ..reply }
}

fn listing(state: &State, target: &str, page_size: usize) -> Reply {
    let root = query(target, "Root").map_or(String::new(), |root| format!("{}/", root.trim_matches('/')));
    let recursive = query(target, "Recursive").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let mut folders = BTreeSet::new();
    let mut entries = Vec::new();
    for (name, content) in &state.files {
        let Some(below) = name.strip_prefix(&root) else { continue };
        let parents = below.match_indices('/').map(|(at, _)| &name[..root.len() + at]);
        folders.extend(parents.take(if recursive { usize::MAX } else { 1 }).map(str::to_owned));
        if recursive || !below.contains('/') {
            let size = state.sizes.get(name).copied().unwrap_or(content.len() as u64);
            entries.push(json!({"Path": name, "Type": "blob", "Size": size, "Sha256": sha256(content)}));
        }
    }
    let folders = folders.iter().map(|path| json!({"Path": path, "Type": "tree", "Size": 0, "Sha256": null}));
    entries.extend(folders);
    let page = query(target, "PageNumber").and_then(|page| page.parse::<usize>().ok()).unwrap_or(1);
    let first = page.saturating_sub(1).saturating_mul(page_size);
    let entries: Vec<Value> = entries.into_iter().skip(first).take(page_size).collect();
    data(&json!({"Files": entries, "LatestCommitter": {"Id": state.commit, "ShortId": state.commit[..8]}}))
}

fn data(data: &Value) -> Reply {
    let body = json!({"Code": 200, "Success": true, "Message": "", "Data": data});
    Reply { body: body.to_string().into_bytes(), ..Reply::status(200).with("Content-Type", "application/json") }
}
