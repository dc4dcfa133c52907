use burn::module::{Module, Param};
use burn::nn::Initializer;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

/// A linear-chain conditional random field (CRF; Lafferty et al., 2001). It adds scores for pairs of neighbouring tags, and
/// for the first and the last tag of a text, to the emissions, which are the scores of the tags of each unit.
///
/// Decoding uses a whole text, even if it is longer than a window. Training uses each window separately: the scores of a
/// text's first and last tag are used only in the windows that contain these tags. At other borders of a window there is no
/// such score, and the pair of tags across the border is not used.
#[derive(Module, Debug)]
pub struct Crf {
    /// The scores of a text's first tag, `[num_tags]`.
    pub start_transitions: Param<Tensor<1>>,
    /// The scores of a transition from the row's tag to the column's tag, `[num_tags, num_tags]`.
    pub transitions: Param<Tensor<2>>,
    /// The scores of a text's last tag, `[num_tags]`.
    pub end_transitions: Param<Tensor<1>>,
}

/// The target tags of a batch of sequences.
#[derive(Clone, Debug)]
pub struct TagBatch {
    /// Tag ids, `[batch, units]`. The ids after the end of a sequence are ignored.
    pub tags: Tensor<2, Int>,
    /// `[batch, units]`, true up to the end of each sequence. Each sequence has at least one unit.
    pub units: Tensor<2, Bool>,
    /// `[batch]`, 1 if a sequence begins its text, otherwise 0.
    pub begins: Tensor<1>,
    /// `[batch]`, 1 if a sequence ends its text, otherwise 0.
    pub ends: Tensor<1>,
}

impl Crf {
    /// Fresh scores: uniform between −0.1 and 0.1.
    pub fn new(num_tags: usize, device: &Device) -> Self {
        let fresh = Initializer::Uniform { min: -0.1, max: 0.1 };
        Self {
            start_transitions: fresh.init([num_tags], device),
            transitions: fresh.init([num_tags, num_tags], device),
            end_transitions: fresh.init([num_tags], device),
        }
    }

    /// The negative log-likelihood −Σ log p(tags | emissions) over the batch.
    ///
    /// # Shapes
    /// - `emissions`: `[batch, units, num_tags]`
    /// - output: `[1]`, in nats
    pub fn loss_sum(&self, emissions: Tensor<3>, batch: TagBatch) -> Tensor<1> {
        (self.log_partition(emissions.clone(), &batch) - self.score(emissions, batch)).sum()
    }

    /// The score of each sequence: the sum of its emissions and transitions, `[batch]`.
    fn score(&self, emissions: Tensor<3>, batch: TagBatch) -> Tensor<1> {
        let TagBatch { tags, units, begins, ends } = batch;
        let [batch, seq, num_tags] = emissions.dims();
        let real = units.clone().float();
        let emitted = emissions.gather(2, tags.clone().reshape([batch, seq, 1])).reshape([batch, seq]) * real.clone();
        let mut score: Tensor<1> = emitted.sum_dim(1).squeeze_dim(1);
        if seq > 1 {
            let (from, to) = (tags.clone().narrow(1, 0, seq - 1), tags.clone().narrow(1, 1, seq - 1));
            let pairs = (from * num_tags as i64 + to).reshape([batch * (seq - 1)]);
            let moved = self.transitions.val().reshape([num_tags * num_tags]).select(0, pairs);
            let moved = moved.reshape([batch, seq - 1]) * real.clone().narrow(1, 1, seq - 1);
            score = score + moved.sum_dim(1).squeeze_dim::<1>(1);
        }
        let last = units.int().sum_dim(1) - 1;
        let last: Tensor<1, Int> = tags.clone().gather(1, last).squeeze_dim(1);
        let first: Tensor<1, Int> = tags.narrow(1, 0, 1).squeeze_dim(1);
        let start = self.start_transitions.val().select(0, first) * begins;
        let end = self.end_transitions.val().select(0, last) * ends;
        score + start + end
    }

    /// log Σ exp(score) over all sequences of tags, by the forward algorithm in log space, `[batch]`.
    fn log_partition(&self, emissions: Tensor<3>, TagBatch { units, begins, ends, .. }: &TagBatch) -> Tensor<1> {
        let [batch, seq, num_tags] = emissions.dims();
        let at = |unit: usize| emissions.clone().narrow(1, unit, 1).squeeze_dim::<2>(1);
        let transitions = self.transitions.val().unsqueeze::<3>();
        // start, end = [batch, num_tags]
        let start = begins.clone().unsqueeze_dim::<2>(1) * self.start_transitions.val().unsqueeze::<2>();
        let end = ends.clone().unsqueeze_dim::<2>(1) * self.end_transitions.val().unsqueeze::<2>();
        // sums = [batch, num_tags], over all sequences that end in a tag
        let mut sums = start + at(0);
        for unit in 1..seq {
            let longer = log_sum_exp(sums.clone().unsqueeze_dim::<3>(2) + transitions.clone()) + at(unit);
            let goes_on = units.clone().narrow(1, unit, 1).expand([batch, num_tags]);
            sums = sums.mask_where(goes_on, longer);
        }
        log_sum_exp((sums + end).unsqueeze_dim::<3>(2)).squeeze_dim(1)
    }

    /// Copies the scores to the host, for [`Transitions::decode`].
    pub fn to_host(&self) -> Transitions {
        let values =
            |tensor: TensorData| tensor.convert::<f32>().try_into_vec::<f32>().expect("it was converted to f32");
        Transitions {
            start: values(self.start_transitions.val().inner().into_data()),
            between: values(self.transitions.val().inner().into_data()),
            end: values(self.end_transitions.val().inner().into_data()),
        }
    }
}

/// log Σ exp over the middle axis: `[a, b, c]` to `[a, c]`.
fn log_sum_exp(x: Tensor<3>) -> Tensor<2> {
    let most = x.clone().detach().max_dim(1);
    ((x - most.clone()).exp().sum_dim(1).log() + most).squeeze_dim(1)
}

/// The scores of a CRF on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Transitions {
    start: Vec<f32>,
    between: Vec<f32>,
    end: Vec<f32>,
}

impl Transitions {
    /// The best sequence of tags of a whole text, by the Viterbi algorithm. Of equally good sequences, it is the one with
    /// the lowest ids, compared from the end.
    ///
    /// # Shapes
    /// - `emissions`: row-major `[units, num_tags]`
    /// - output: `[units]`
    pub fn decode(&self, emissions: &[f32]) -> Vec<usize> {
        let num_tags = self.start.len();
        let mut rows = emissions.chunks_exact(num_tags);
        let Some(first) = rows.next() else { return Vec::new() };
        let mut scores: Vec<f32> = first.iter().zip(&self.start).map(|(emission, start)| emission + start).collect();
        let mut back: Vec<Vec<u32>> = Vec::new();
        for row in rows {
            let best = |to: usize| best_of((0..num_tags).map(|from| scores[from] + self.between[from * num_tags + to]));
            let (from, reached): (Vec<u32>, Vec<f32>) =
                (0..num_tags).map(best).map(|(from, score)| (from as u32, score)).unzip();
            scores = reached.iter().zip(row).map(|(score, emission)| score + emission).collect();
            back.push(from);
        }
        let (mut tag, _) = best_of(scores.iter().zip(&self.end).map(|(score, end)| score + end));
        let mut tags = vec![tag];
        for from in back.iter().rev() {
            tag = from[tag] as usize;
            tags.push(tag);
        }
        tags.reverse();
        tags
    }
}

/// The index of the first maximum, and its value.
fn best_of(values: impl Iterator<Item = f32>) -> (usize, f32) {
    let first = (0, f32::NEG_INFINITY);
    values.enumerate().fold(first, |best, (at, value)| if value > best.1 { (at, value) } else { best })
}

#[cfg(test)]
mod tests {
    use kiln_backend::{Backend, Flex};

    use super::*;

    const TAGS: usize = 3;

    fn wave(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|at| (at as f32 * step).sin() * 2.0).collect()
    }

    fn crf(device: &Device) -> Crf {
        Crf {
            start_transitions: Param::from_data(TensorData::new(wave(TAGS, 0.7), [TAGS]), device),
            transitions: Param::from_data(TensorData::new(wave(TAGS * TAGS, 1.3), [TAGS, TAGS]), device),
            end_transitions: Param::from_data(TensorData::new(wave(TAGS, 2.9), [TAGS]), device),
        }
    }

    /// All sequences of tags with their scores. The sequence may begin its text, end it, both or neither.
    fn all(crf: &Transitions, emissions: &[f32], begins: bool, ends: bool) -> Vec<(Vec<usize>, f64)> {
        let len = emissions.len() / TAGS;
        let sequences =
            (0..TAGS.pow(len as u32)).map(|code| (0..len).map(|at| code / TAGS.pow(at as u32) % TAGS).collect());
        let score = |tags: &Vec<usize>| {
            let emitted: f32 = tags.iter().enumerate().map(|(at, tag)| emissions[at * TAGS + tag]).sum();
            let moved: f32 = tags.windows(2).map(|pair| crf.between[pair[0] * TAGS + pair[1]]).sum();
            let start = if begins { crf.start[tags[0]] } else { 0.0 };
            let end = if ends { crf.end[tags[len - 1]] } else { 0.0 };
            f64::from(emitted + moved + start + end)
        };
        sequences.map(|tags: Vec<usize>| (tags.clone(), score(&tags))).collect()
    }

    /// Tests whole texts, and the first, a middle and the last part of a text.
    #[test]
    fn the_loss_and_the_best_sequence_are_brute_forces() {
        let device = Flex::device(0);
        const ROWS: usize = 5;
        let (lengths, seq) = ([1, 4, 3, 2, 4], 4);
        let (begins, ends) = ([true, true, true, false, false], [true, true, false, false, true]);
        let tags = [2, 0, 0, 0, 1, 1, 0, 2, 0, 2, 2, 1, 0, 1, 1, 1, 2, 2, 0, 1];
        let emissions = wave(ROWS * seq * TAGS, 0.37);
        let units: Vec<bool> = lengths.iter().flat_map(|len| (0..seq).map(move |at| at < *len)).collect();
        let flags = |flags: [bool; ROWS]| Tensor::from_data(flags.map(|flag| f32::from(u8::from(flag))), &device);
        let batch = TagBatch {
            tags: Tensor::from_data(TensorData::new(tags.to_vec(), [ROWS, seq]), &device),
            units: Tensor::from_data(TensorData::new(units, [ROWS, seq]), &device),
            begins: flags(begins),
            ends: flags(ends),
        };
        let crf = crf(&device);
        let host = crf.to_host();
        let loss =
            crf.loss_sum(Tensor::from_data(TensorData::new(emissions.clone(), [ROWS, seq, TAGS]), &device), batch);
        let mut expected = 0.0;
        for (row, len) in lengths.into_iter().enumerate() {
            let emissions = &emissions[row * seq * TAGS..][..len * TAGS];
            let sequences = all(&host, emissions, begins[row], ends[row]);
            let tags: Vec<usize> = tags[row * seq..][..len].iter().map(|tag| *tag as usize).collect();
            let score = sequences.iter().find(|(other, _)| *other == tags).expect("it is one of them").1;
            expected += sequences.iter().map(|(_, score)| score.exp()).sum::<f64>().ln() - score;
            let whole = all(&host, emissions, true, true);
            let best = whole.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are some").0;
            assert_eq!(host.decode(emissions), best, "row {row}");
        }
        let loss = loss.into_scalar::<f64>();
        assert!((loss - expected).abs() < 1e-4, "{loss}, not {expected}");
        assert!(host.decode(&[]).is_empty());
    }

    #[test]
    fn gradients_reach_every_score() {
        let device = Flex::device(0).autodiff();
        let crf = crf(&device).train();
        let emissions = Tensor::<3>::from_data(TensorData::new(wave(2 * 3 * TAGS, 0.61), [2, 3, TAGS]), &device);
        let batch = TagBatch {
            tags: Tensor::from_data([[0, 1, 2], [2, 2, 0]], &device),
            units: Tensor::from_data([[true, true, true], [true, true, false]], &device),
            begins: Tensor::from_data([1.0, 0.0], &device),
            ends: Tensor::from_data([0.0, 1.0], &device),
        };
        let loss = |crf: &Crf| crf.loss_sum(emissions.clone(), batch.clone());
        let gradients = loss(&crf).backward();
        let of_transitions = crf.transitions.val().grad(&gradients).expect("they take part").into_data();
        let slopes = of_transitions.try_into_vec::<f32>().expect("it is f32");
        assert!(
            crf.start_transitions.val().grad(&gradients).is_some()
                && crf.end_transitions.val().grad(&gradients).is_some()
        );
        for (at, slope) in slopes.into_iter().enumerate() {
            let moved = |by: f32| {
                let mut step = vec![0.0; TAGS * TAGS];
                step[at] = by;
                let step = Tensor::<2>::from_data(TensorData::new(step, [TAGS, TAGS]), &device);
                let mut moved = crf.clone();
                let values = crf.transitions.val().inner() + step.inner();
                moved.transitions = Param::from_tensor(Tensor::from_inner(values).require_grad());
                loss(&moved).into_scalar::<f32>()
            };
            let expected = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((slope - expected).abs() < 2e-3, "{at}: {slope}, not {expected}");
        }
    }
}
