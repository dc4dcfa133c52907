use super::{Item, QueueConfig, Work};

/// Rows of a batch; more gain nothing on a CPU.
const MOST_ROWS: usize = 64;

/// The places of the items that the next batch is made of. `items` is not empty, and in the order in which they came.
///
/// The item that has waited longest leads, where bulk counts as having come later by its patience. Items of its group and
/// its class follow, those first whose length is nearest, as long as the padded batch stays within its bounds.
pub(super) fn choose<W: Work>(items: &[Item<W>], config: &QueueConfig) -> Vec<usize> {
    let turn = |item: &Item<W>| item.since + if item.request.bulk { config.bulk_patience } else { Default::default() };
    let lead = (0..items.len()).min_by_key(|&at| turn(&items[at])).expect("there is an item");
    let leader = &items[lead];
    let is_companion =
        |item: &Item<W>| item.work.group() == leader.work.group() && item.request.bulk == leader.request.bulk;
    let mut companions: Vec<usize> = (0..items.len()).filter(|&at| at != lead && is_companion(&items[at])).collect();
    // Stable, so that of equal lengths the older comes first.
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
