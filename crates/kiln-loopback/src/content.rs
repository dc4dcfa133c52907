use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use crate::hub::State;
use crate::server::{Reply, Request};

/// The maximum size of a file that the hub sends itself. Larger files are on the content host.
const MOST_PLAIN_BYTES: usize = 1000;

/// The SHA-256 hash, in hexadecimal.
pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The git blob hash, in hexadecimal.
pub fn git_blob(content: &[u8]) -> String {
    let hash = Sha1::new_with_prefix(format!("blob {}\0", content.len())).chain_update(content).finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a file is on the content host.
pub(crate) fn is_large(content: &[u8]) -> bool {
    content.len() > MOST_PLAIN_BYTES
}

/// The address of a large file, with a signature in its query as on the real hubs.
pub(crate) fn signed(content_host: &str, name: &str) -> String {
    format!("{content_host}/{}?signature=secret", encoded(name))
}

/// The reply of the content host.
pub(crate) fn reply(state: &mut State, request: &Request) -> Reply {
    match request.target.trim_start_matches('/').strip_suffix("?signature=secret") {
        Some(name) => file(state, request, &decoded(name)),
        None => Reply::status(403),
    }
}

/// A file or the requested range of it, with the configured faults.
pub(crate) fn file(state: &mut State, request: &Request, name: &str) -> Reply {
    let Some(mut body) = state.files.get(name).cloned() else { return Reply::status(404) };
    if state.flipped.iter().any(|flipped| flipped == name) {
        let middle = body.len() / 2;
        body[middle] ^= 1;
    }
    if state.shortened.iter().any(|shortened| shortened == name) {
        body.pop();
    }
    let mut reply = Reply::status(200).with("Accept-Ranges", if state.no_ranges { "none" } else { "bytes" });
    let range = request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    if let Some((start, last)) = range.filter(|_| !state.no_ranges) {
        let size = body.len();
        let start: usize = start.parse().unwrap_or(usize::MAX);
        let end = last.parse().map_or(size, |last: usize| last.saturating_add(1).min(size));
        if start >= end {
            return Reply::status(416).with("Content-Range", format!("bytes */{size}"));
        }
        reply = reply.with("Content-Range", format!("bytes {start}-{}/{size}", end - 1));
        reply.status = 206;
        body = body[start..end].to_vec();
    }
    if is_large(&body) {
        if !state.cuts.is_empty() {
            reply.cut = Some(state.cuts.remove(0).min(body.len()));
        } else if !state.stalls.is_empty() {
            reply.cut = Some(state.stalls.remove(0).min(body.len()));
            reply.stalls = true;
        }
        reply.pace = state.pace;
    }
    Reply { body, ..reply }
}

/// The value of a query parameter, decoded.
pub(crate) fn query(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name)).map(|(_, value)| {
        // Only in a query is `+` a space.
        decoded(&value.replace('+', " "))
    })
}

/// Decodes percent-encoded bytes.
pub(crate) fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let code = behind.get(..2).and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        match code.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
