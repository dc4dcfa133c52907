use serde_json::{Value, json};

use crate::content::{decoded, file, git_blob, is_large, sha256, signed};
use crate::hub::State;
use crate::server::{Reply, Request};

/// Replies to `/{owner}/{name}/resolve/…`, with an optional `/datasets` before it, and `/api/{models,datasets}/…`; none
/// for other routes.
pub(crate) fn reply(state: &mut State, request: &Request, content_host: &str) -> Option<Reply> {
    let path = request.target.split('?').next().unwrap_or_default();
    let path = path.strip_prefix("/datasets").unwrap_or(path);
    if let Some(rest) = path.strip_prefix("/owner/name/resolve/") {
        return Some(resolve(state, request, rest, content_host));
    }
    if let Some(rest) = path.strip_prefix("/api/resolve-cache/models/owner/name/") {
        let (commit, name) = rest.split_once('/')?;
        let name = decoded(name);
        let etag = git_blob(state.files.get(&name)?);
        let reply = file(state, request, &name).with("X-Repo-Commit", commit);
        return Some(reply.with("ETag", format!("\"{etag}\"")));
    }
    let api = path.strip_prefix("/api/models/").or_else(|| path.strip_prefix("/api/datasets/"))?;
    let (kind, revision) = api.strip_prefix("owner/name/")?.split_once('/')?;
    if !is_revision(state, revision) {
        return Some(Reply::status(404).with("X-Error-Code", "RevisionNotFound"));
    }
    let body = match kind {
        "revision" => json!({"id": "owner/name", "sha": state.commit, "siblings": siblings(state)}),
        "tree" => tree(state),
        _ => return None,
    };
    Some(Reply { body: body.to_string().into_bytes(), ..Reply::status(200).with("Content-Type", "application/json") })
}

/// Replies to `revision/file`. A large file is redirected to the content host. A small file is sent, or redirected to
/// the hub's resolve cache.
fn resolve(state: &mut State, request: &Request, rest: &str, content_host: &str) -> Reply {
    let (revision, name) = rest.split_once('/').unwrap_or_default();
    if !is_revision(state, revision) {
        return Reply::status(404).with("X-Error-Code", "RevisionNotFound");
    }
    let name = decoded(name);
    let commit = state.commit.clone();
    let Some(content) = state.files.get(&name) else {
        return Reply::status(404).with("X-Repo-Commit", commit).with("X-Error-Code", "EntryNotFound");
    };
    let size = state.sizes.get(&name).copied().unwrap_or(content.len() as u64).to_string();
    if is_large(content) || state.sizes.contains_key(&name) {
        return Reply::status(302)
            .with("X-Repo-Commit", commit)
            .with("X-Linked-Etag", format!("\"{}\"", sha256(content)))
            .with("X-Linked-Size", size)
            .with("Location", signed(content_host, &name));
    }
    let etag = format!("\"{}\"", git_blob(content));
    if state.redirects_small {
        return Reply::status(307)
            .with("Location", format!("/api/resolve-cache/models/owner/name/{commit}/{name}"))
            .with("X-Repo-Commit", commit)
            .with("X-Linked-Etag", etag)
            .with("X-Linked-Size", size);
    }
    file(state, request, &name).with("X-Repo-Commit", commit).with("ETag", etag)
}

fn is_revision(state: &State, encoded: &str) -> bool {
    let revision = decoded(encoded);
    ["main", "refs/pr/1", "refs/convert/parquet", state.commit.as_str()].contains(&revision.as_str())
}

fn siblings(state: &State) -> Vec<Value> {
    state.files.keys().map(|name| json!({"rfilename": name})).collect()
}

fn tree(state: &State) -> Value {
    let entry = |(name, content): (&String, &Vec<u8>)| {
        let (size, oid) = (content.len(), git_blob(content));
        let mut entry = json!({"type": "file", "path": name, "size": size, "oid": oid});
        if is_large(content) {
            entry["lfs"] = json!({"oid": sha256(content), "size": size, "pointerSize": 130});
        }
        entry
    };
    state.files.iter().map(entry).collect()
}
