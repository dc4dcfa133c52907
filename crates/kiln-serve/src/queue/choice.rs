use super::{Item, QueueConfig, Work};

/// The most rows in a batch. Larger batches are not faster on a CPU.
const MOST_ROWS: usize = 64;

/// The indices of the items in the next batch. `items` is not empty and is in order of arrival.
///
/// The item that has waited longest comes first. Bulk items count as if they had arrived later, by `bulk_patience`. Items of
/// the same group and class (bulk or small) follow, those of the most similar length first, until the padded batch is full.
pub(super) fn choose<W: Work>(items: &[Item<W>], config: &QueueConfig) -> Vec<usize> {
    let turn = |item: &Item<W>| item.since + if item.request.bulk { config.bulk_patience } else { Default::default() };
    let lead = (0..items.len()).min_by_key(|&at| turn(&items[at])).expect("there is an item");
    let leader = &items[lead];
    let is_companion =
        |item: &Item<W>| item.work.group() == leader.work.group() && item.request.bulk == leader.request.bulk;
    let mut companions: Vec<usize> = (0..items.len()).filter(|&at| at != lead && is_companion(&items[at])).collect();
    // The sort is stable, so the older of two items with equal lengths comes first.
    companions.sort_by_key(|&at| items[at].work.longest().abs_diff(leader.work.longest()));

    let (mut rows, mut longest) = (leader.work.rows(), leader.work.longest());
    let mut chosen = vec![lead];
    for at in companions {
        let work = &items[at].work;
        let (more_rows, longer) = (rows + work.rows(), longest.max(work.longest()));
        if more_rows > MOST_ROWS || more_rows * longer > config.batch_tokens {
            break;
        }
        (rows, longest) = (more_rows, longer);
        chosen.push(at);
    }
    chosen
}
