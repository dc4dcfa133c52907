//! The gradients of an update, summed over the batches of all processes.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use kiln_bert::ParameterPath;

use crate::{GradientSum, Reduce, Reduction, Trainable};

/// Sums the gradients of an update in rounds. In each round, every process has at most one batch.
pub(crate) struct SharedSum<'a> {
    reduction: &'a dyn Reduction,
    way: Way,
}

enum Way {
    /// Each process sums the gradients of its own batches. The sums of all processes are added at the end.
    Local { sum: GradientSum, layout: Layout },
    /// The processes exchange the gradients of each round, and each process sums its share of every parameter.
    InOrder(OrderedSum),
}

/// The number of elements of each trained parameter, by name.
type Layout = BTreeMap<String, usize>;

impl<'a> SharedSum<'a> {
    pub fn new<M: Module>(reduction: &'a dyn Reduction, reduce: Reduce, model: &M, trainable: &Trainable) -> Self {
        let way = match (reduction.ranks(), reduce) {
            (1, _) => Way::Local { sum: GradientSum::default(), layout: Layout::new() },
            (_, Reduce::Fast) => Way::Local { sum: GradientSum::default(), layout: layout(model, trainable) },
            (_, Reduce::Exact) => {
                Way::InOrder(OrderedSum { layout: layout(model, trainable), ..OrderedSum::default() })
            }
        };
        Self { reduction, way }
    }

    /// Adds a gradient of the batch of this process.
    pub fn add(&mut self, name: String, gradient: Tensor<1>) {
        match &mut self.way {
            Way::Local { sum, .. } => sum.insert(name, gradient),
            Way::InOrder(sum) => sum.of_batch.entry(name).or_default().push(gradient),
        }
    }

    /// Ends a round, after every process has added the gradients of its batch, if it has one.
    pub fn end_round(&mut self) {
        if let Way::InOrder(sum) = &mut self.way {
            sum.add_round(self.reduction);
        }
    }

    /// The sum over all batches, the same in every process.
    pub fn finish(self, device: &Device) -> GradientSum {
        match self.way {
            Way::Local { sum, .. } if self.reduction.ranks() == 1 => sum,
            Way::Local { sum, layout } => add_all(self.reduction, sum, &layout, device),
            Way::InOrder(sum) => sum.gathered(self.reduction, device),
        }
    }
}

/// Adds the sums of all processes.
fn add_all(reduction: &dyn Reduction, mut sum: GradientSum, layout: &Layout, device: &Device) -> GradientSum {
    let mut total = GradientSum::default();
    let mine: Vec<u8> = layout.keys().map(|name| u8::from(sum.contains(name))).collect();
    let counts = counts(reduction, &mine);
    for (at, (name, &elements)) in layout.iter().enumerate() {
        if counts.iter().any(|of_rank| of_rank[at] > 0) {
            let mut values = sum.take(name).map_or_else(|| vec![0.0; elements], values);
            reduction.add(&mut values);
            total.insert(name.clone(), tensor(values, device));
        }
    }
    total
}

/// Adds the same gradients as a single process, in the same order, so that the sum is identical, bit for bit, for any number
/// of processes. With gradient checkpointing, a batch may have several gradients of one parameter, if layers or embeddings
/// are shared. Each of these is added separately.
#[derive(Default)]
struct OrderedSum {
    layout: Layout,
    /// The gradients of this process's batch in the current round, in the order of [`SharedSum::add`].
    of_batch: BTreeMap<String, Vec<Tensor<1>>>,
    /// This process's share of each sum.
    shares: BTreeMap<String, Vec<f32>>,
}

/// The maximum number of elements of a gradient that are sent at once.
const PIECE: usize = 1 << 22;

impl OrderedSum {
    /// Adds the gradients of a round, in the order of the ranks.
    fn add_round(&mut self, reduction: &dyn Reduction) {
        let count = |name: &String| {
            let count = self.of_batch.get(name).map_or(0, Vec::len);
            u8::try_from(count).expect("an encoder has fewer than 256 layers")
        };
        let mine: Vec<u8> = self.layout.keys().map(count).collect();
        let counts = counts(reduction, &mine);
        for (at, (name, &elements)) in self.layout.iter().enumerate() {
            let of_ranks: Vec<usize> = counts.iter().map(|of_rank| usize::from(of_rank[at])).collect();
            if of_ranks.iter().all(|count| *count == 0) {
                continue;
            }
            let gradients: Vec<Vec<f32>> =
                self.of_batch.remove(name).unwrap_or_default().into_iter().map(values).collect();
            let share = self.shares.entry(name.clone()).or_default();
            for piece in pieces(elements, reduction.ranks()) {
                let received = exchange(reduction, &gradients, &of_ranks, &piece.ranges);
                let length = piece.ranges[reduction.rank()].len();
                for gradient in received.chunks(length.max(1)) {
                    if share.len() == piece.start {
                        share.extend(gradient);
                    } else {
                        share[piece.start..].iter_mut().zip(gradient).for_each(|(sum, value)| *sum += value);
                    }
                }
            }
        }
        assert!(self.of_batch.is_empty(), "every parameter with a gradient is one that learns");
    }

    fn gathered(mut self, reduction: &dyn Reduction, device: &Device) -> GradientSum {
        let mut sum = GradientSum::default();
        for (name, &elements) in &self.layout {
            let Some(share) = self.shares.remove(name) else { continue };
            let counts: Vec<usize> =
                shares(elements, reduction.ranks()).map(|share| share.len() * size_of::<f32>()).collect();
            let mut all = vec![0.0f32; elements];
            reduction.gather(bytemuck::cast_slice(&share), &counts, bytemuck::cast_slice_mut(&mut all));
            sum.insert(name.clone(), tensor(all, device));
        }
        sum
    }
}

/// A piece of every rank's share of a parameter.
struct Piece {
    /// The offset of the piece in each share.
    start: usize,
    /// The range of the piece in the parameter, by rank.
    ranges: Vec<Range<usize>>,
}

/// The range of a parameter's elements that each rank sums.
fn shares(elements: usize, ranks: usize) -> impl Iterator<Item = Range<usize>> {
    (0..ranks).map(move |rank| rank * elements / ranks..(rank + 1) * elements / ranks)
}

/// Divides the shares of a parameter into pieces, so that messages have a bounded size.
fn pieces(elements: usize, ranks: usize) -> impl Iterator<Item = Piece> {
    let longest = elements.div_ceil(ranks);
    let most = (PIECE / ranks).max(1);
    (0..longest).step_by(most).map(move |start| {
        let within = |share: Range<usize>| {
            let start = share.end.min(share.start + start);
            start..share.end.min(start + most)
        };
        Piece { start, ranges: shares(elements, ranks).map(within).collect() }
    })
}

/// Sends each rank its piece of this process's gradients, and returns the gradients of all ranks for this process's piece:
/// `of_ranks[rank]` gradients of each rank, in the order of the ranks.
fn exchange(reduction: &dyn Reduction, gradients: &[Vec<f32>], of_ranks: &[usize], piece: &[Range<usize>]) -> Vec<f32> {
    let parts: Vec<&[f32]> =
        piece.iter().flat_map(|range| gradients.iter().map(|gradient| &gradient[range.clone()])).collect();
    let values = parts.concat();
    let sent: Vec<usize> = piece.iter().map(|range| range.len() * gradients.len()).collect();
    let mine = piece[reduction.rank()].len();
    let received: Vec<usize> = of_ranks.iter().map(|count| mine * count).collect();
    reduction.exchange(&values, &sent, &received)
}

/// The number of gradients of each parameter, by rank.
fn counts(reduction: &dyn Reduction, mine: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![0; mine.len() * reduction.ranks()];
    reduction.gather(mine, &vec![mine.len(); reduction.ranks()], &mut all);
    all.chunks(mine.len().max(1)).map(<[u8]>::to_vec).collect()
}

fn values(gradient: Tensor<1>) -> Vec<f32> {
    gradient.into_data().convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32")
}

fn tensor(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let elements = values.len();
    Tensor::from_data(TensorData::new(values, [elements]), device)
}

fn layout<M: Module>(model: &M, trainable: &Trainable) -> Layout {
    let mut sizes = Sizes { trainable, path: ParameterPath::default(), layout: Layout::new() };
    model.visit(&mut sizes);
    sizes.layout
}

struct Sizes<'a> {
    trainable: &'a Trainable,
    path: ParameterPath,
    layout: Layout,
}

impl ModuleVisitor for Sizes<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.name();
        if self.trainable.learns(&name) {
            self.layout.insert(name, param.val().shape().num_elements());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_each_share_once() {
        for (elements, ranks) in [(0, 3), (1, 2), (7, 3), (PIECE + 5, 2), (3 * PIECE, 4)] {
            let mut covered: Vec<usize> = shares(elements, ranks).map(|share| share.start).collect();
            for piece in pieces(elements, ranks) {
                assert!(piece.ranges.iter().map(Range::len).sum::<usize>() <= PIECE);
                for ((range, covered), share) in piece.ranges.iter().zip(&mut covered).zip(shares(elements, ranks)) {
                    if !range.is_empty() {
                        assert_eq!((range.start, piece.start), (*covered, *covered - share.start));
                    }
                    *covered += range.len();
                }
            }
            assert_eq!(covered, shares(elements, ranks).map(|share| share.end).collect::<Vec<_>>());
        }
    }
}
