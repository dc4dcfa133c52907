use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::ask::{Ask, Wanted};
use crate::http::Client;
use crate::url::{Url, encoded};
use crate::{Error, disk};

/// The sizes and hashes that ModelScope declared for the files of a revision, by name. They are saved next to the
/// snapshot, so that the files can be verified offline.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Listing {
    pub(crate) commit: Option<String>,
    pub(crate) files: BTreeMap<String, Declared>,
    /// The folders that have been requested from the hub.
    #[serde(skip)]
    listed: Vec<String>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Declared {
    pub(crate) size: u64,
    pub(crate) sha256: String,
}

/// The page size. A data set may have millions of files, so its listing is divided into pages.
const PAGE: usize = 200;
/// The maximum number of pages, enough for two million files.
const MOST_PAGES: usize = 10_000;

impl Listing {
    /// Reads the saved listing, if there is one.
    pub(crate) fn recorded(record: &Path) -> Result<Option<Self>, Error> {
        let Some(text) = disk::read(record)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|source| Error::Json {
            path: record.to_owned(),
            expected: "the listing of a repository",
            source,
        })
    }

    pub(crate) fn record(&self, record: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self).expect("strings and numbers are valid JSON");
        disk::write(record, &text)
    }

    /// Requests the listing of the folder that contains the file `name`, unless it has been requested before.
    pub(crate) fn extend(&mut self, client: &Client, ask: Ask<'_>, revision: &str, name: &str) -> Result<(), Error> {
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        if self.listed.iter().any(|listed| listed == folder) {
            return Ok(());
        }
        match ask.wanted {
            Wanted::Checkpoint => {
                // Not recursive, because the hub returns only the first 3,000 entries.
                self.add(client, ask, &url(client, ask, revision, folder, None))?;
            }
            Wanted::File(_) => {
                for page in 1..=MOST_PAGES {
                    let count = self.add(client, ask, &url(client, ask, revision, folder, Some(page)))?;
                    if count < PAGE || self.files.contains_key(name) {
                        break;
                    }
                }
            }
        }
        self.listed.push(folder.to_owned());
        Ok(())
    }

    /// Requests one listing, again if the connection breaks off, and adds its entries. Returns their number.
    fn add(&mut self, client: &Client, ask: Ask<'_>, url: &Url) -> Result<usize, Error> {
        for attempt in 1..client.attempts() {
            match self.try_add(client, ask, url) {
                Err(Error::Request { .. }) => client.pause(attempt),
                other => return other,
            }
        }
        self.try_add(client, ask, url)
    }

    fn try_add(&mut self, client: &Client, ask: Ask<'_>, url: &Url) -> Result<usize, Error> {
        let answer = client.get(url, 0)?;
        let status = answer.response.status();
        let address = answer.url.shown();
        let refused = |reason| Error::NotFound { location: ask.to_string(), address: address.clone(), reason };
        match status.as_u16() {
            200 => {}
            401 | 403 | 404 => return Err(refused(status.to_string())),
            _ => return Err(answer.error("a listing of the repository", status.to_string())),
        }
        let ListAnswer { success, message, data } = answer.json()?;
        let Some(data) = data.filter(|_| success) else { return Err(refused(message.unwrap_or_default())) };
        let count = data.files.len();
        for entry in data.files.into_iter().filter(|entry| entry.kind.as_deref() != Some("tree")) {
            let (size, sha256) = (entry.size.unwrap_or_default(), entry.sha256.unwrap_or_default());
            self.files.insert(entry.path, Declared { size, sha256 });
        }
        let latest = data.latest_committer.unwrap_or_default();
        let commit = [latest.id, latest.short_id].into_iter().flatten().find(|commit| !commit.is_empty());
        self.commit = self.commit.take().or(commit);
        Ok(count)
    }
}

/// The address of a folder's listing. The empty folder is the whole repository.
pub(crate) fn url(client: &Client, ask: Ask<'_>, revision: &str, folder: &str, page: Option<usize>) -> Url {
    let id = ask.repository.id();
    let revision = revision.replace('/', "%2F");
    let root = match folder {
        "" => String::new(),
        folder => format!("&Root={}", encoded(folder).replace('/', "%2F")),
    };
    client.endpoint().append(&match page {
        None => format!("/api/v1/models/{id}/repo/files?Revision={revision}&Recursive=False{root}"),
        Some(page) => format!(
            "/api/v1/datasets/{id}/repo/tree?Revision={revision}&Recursive=True&PageNumber={page}&PageSize={PAGE}{root}"
        ),
    })
}

// Fields that the hub omits or sets to `null` are none.

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListAnswer {
    success: bool,
    message: Option<String>,
    data: Option<ListData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListData {
    files: Vec<Entry>,
    latest_committer: Option<Commit>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    path: String,
    /// `blob` or `tree`.
    #[serde(rename = "Type")]
    kind: Option<String>,
    size: Option<u64>,
    sha256: Option<String>,
}

/// The latest commit. Some responses have only the short id.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Commit {
    id: Option<String>,
    short_id: Option<String>,
}
