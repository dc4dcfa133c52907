//! Checks and decisions on which the processes that train together agree.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use kiln_bert::ParameterPath;
use sha2::{Digest, Sha256};

use crate::checkpoint::Progress;
use crate::{Error, Fingerprint, Reduction, Trainable};

/// Checks that there are not more processes than batches per update, because some would have nothing to do.
///
/// # Errors
/// When there are more processes than `batches`.
pub fn check_ranks(reduction: &dyn Reduction, batches: usize) -> Result<(), Error> {
    match reduction.ranks() {
        ranks if ranks > batches => Err(Error::TooManyRanks { ranks, batches }),
        _ => Ok(()),
    }
}

/// Checks that all processes have the same fingerprint, which covers everything that the result depends on.
///
/// # Errors
/// When the fingerprint of a process differs from that of the first. All processes return the same error.
pub fn check_same(reduction: &dyn Reduction, fingerprint: &Fingerprint) -> Result<(), Error> {
    let text = toml::to_string(fingerprint).expect("a fingerprint is TOML");
    // One process may still be downloading files that the others already have.
    reduction.meet();
    let all: Vec<Fingerprint> = messages(reduction, text.as_bytes())
        .into_iter()
        // Another version of Kiln may use another format. Then the fingerprint is empty, and so differs.
        .map(|bytes| toml::from_slice(&bytes).unwrap_or_default())
        .collect();
    let of_rank = |(rank, other): (usize, &Fingerprint)| -> Vec<String> {
        let values = |key: &String| match (all[0].settings.get(key), other.settings.get(key)) {
            (Some(first), Some(other)) => format!(": {other}, rank 0 has {first}"),
            _ => String::new(),
        };
        let differing = all[0].differing_keys(other);
        differing.into_iter().map(|key| format!("rank {rank} has a different {key}{}", values(&key))).collect()
    };
    let differences: Vec<String> = all.iter().enumerate().flat_map(of_rank).collect();
    if differences.is_empty() { Ok(()) } else { Err(Error::OtherRank { differences }) }
}

/// The messages of all processes, by rank.
fn messages(reduction: &dyn Reduction, mine: &[u8]) -> Vec<Vec<u8>> {
    let lengths = numbers(reduction, [mine.len() as u64]);
    let counts: Vec<usize> = lengths.iter().map(|[length]| *length as usize).collect();
    let mut all = vec![0; counts.iter().sum()];
    reduction.gather(mine, &counts, &mut all);
    let mut rest = all.as_slice();
    let mut next = |count: usize| rest.split_off(..count).expect("there are as many bytes as counted").to_vec();
    counts.into_iter().map(&mut next).collect()
}

/// The numbers of all processes, by rank.
pub(crate) fn numbers<const N: usize>(reduction: &dyn Reduction, mine: [u64; N]) -> Vec<[u64; N]> {
    let mut all = vec![[0; N]; reduction.ranks()];
    let counts = vec![size_of::<[u64; N]>(); reduction.ranks()];
    reduction.gather(bytemuck::cast_slice(&mine), &counts, bytemuck::cast_slice_mut(all.as_flattened_mut()));
    all
}

/// Whether each condition is true in at least one process.
pub(crate) fn any<const N: usize>(reduction: &dyn Reduction, mine: [bool; N]) -> [bool; N] {
    if reduction.ranks() == 1 {
        return mine;
    }
    let all = numbers(reduction, mine.map(u64::from));
    std::array::from_fn(|at| all.iter().any(|of_rank| of_rank[at] != 0))
}

/// The progress of the first process, in all processes.
pub(crate) fn first_progress(reduction: &dyn Reduction, mine: Progress) -> Progress {
    if reduction.ranks() == 1 {
        return mine;
    }
    let text = if reduction.rank() == 0 { toml::to_string(&mine).expect("progress is TOML") } else { String::new() };
    let messages = messages(reduction, text.as_bytes());
    toml::from_slice(&messages[0]).expect("another process of this program has written it")
}

/// Checks that all processes have the same weights and number of updates.
pub(crate) fn check_weights<M: Module>(
    reduction: &dyn Reduction,
    model: &M,
    trainable: &Trainable,
    step: usize,
) -> Result<(), Error> {
    if reduction.ranks() == 1 {
        return Ok(());
    }
    let mut hasher = Hasher { trainable, path: ParameterPath::default(), hash: Sha256::new() };
    model.visit(&mut hasher);
    let mut mine = [step as u64; 5];
    bytemuck::cast_slice_mut::<u64, u8>(&mut mine[1..]).copy_from_slice(&hasher.hash.finalize());
    let all = numbers(reduction, mine);
    match all.iter().position(|of_rank| *of_rank != all[0]) {
        Some(rank) => Err(Error::RanksDiverged { rank, step: all[rank][0] as usize, first_step: all[0][0] as usize }),
        None => Ok(()),
    }
}

/// Hashes the trained parameters.
struct Hasher<'a> {
    trainable: &'a Trainable,
    path: ParameterPath,
    hash: Sha256,
}

impl ModuleVisitor for Hasher<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.trainable.learns(&self.path.name()) {
            self.hash.update(param.val().inner().into_data().as_bytes());
        }
    }
}
