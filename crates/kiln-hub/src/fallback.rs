use crate::ask::Ask;
use crate::gather::{Declared, Gathered};
use crate::{Error, Hub, Progress, PullConfig, Repository, hugging_face, model_scope};

/// Pulls from the requested hub. If it cannot be reached, tries the fallback hubs. Files are checked against all hashes
/// that any of these hubs declared. Returns the hub that was used, and the repository pinned to the commit.
pub(crate) fn pull(
    ask: Ask<'_>,
    config: &PullConfig,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(Hub, Repository, Gathered), Error> {
    let mut hubs = vec![ask.hub];
    for hub in &config.fallback {
        if !hubs.contains(hub) {
            hubs.push(*hub);
        }
    }
    let mut declared = Declared::default();
    let mut attempts = Vec::new();
    for (at, hub) in hubs.iter().enumerate() {
        let repository = if *hub == ask.hub { ask.repository.clone() } else { ask.repository.elsewhere(ask.hub) };
        let ask = Ask { hub: *hub, repository: &repository, ..ask };
        let outcome = match hub {
            Hub::HuggingFace => hugging_face::pull(ask, config, &mut declared, progress),
            Hub::ModelScope => model_scope::pull(ask, config, &mut declared, progress),
        };
        match outcome {
            Ok(gathered) => return Ok((*hub, repository.pinned(gathered.commit.as_deref()), gathered)),
            Err(error) if error.may_be_elsewhere() => {
                if let Some(next) = hubs.get(at + 1) {
                    progress(Progress::Unreachable { error: &error, next: *next });
                }
                attempts.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    match attempts.len() {
        1 => Err(attempts.remove(0)),
        _ => Err(Error::Nowhere { attempts }),
    }
}
