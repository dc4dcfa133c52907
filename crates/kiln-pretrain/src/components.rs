use rayon::prelude::*;

/// A projection of hidden states to a smaller width: their first principal components, scaled to a mean square of 1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Components {
    mean: Vec<f64>,
    /// The direction of each component, with as many numbers as a state has.
    directions: Vec<Vec<f64>>,
}

impl Components {
    /// Computes the components of states, row-major `[states, width]`.
    pub fn of(states: &[f32], width: usize, components: usize) -> Self {
        let count = (states.len() / width).max(1) as f64;
        let mut mean = vec![0.0; width];
        for state in states.chunks(width) {
            mean.iter_mut().zip(state).for_each(|(mean, value)| *mean += f64::from(*value) / count);
        }
        // Row-major; the loop fills the upper triangle.
        let mut covariance = vec![0.0; width * width];
        for state in states.chunks(width) {
            let centred: Vec<f64> = state.iter().zip(&mean).map(|(value, mean)| f64::from(*value) - mean).collect();
            for (a, row) in covariance.chunks_mut(width).enumerate() {
                let share = centred[a] / count;
                row[a..].iter_mut().zip(&centred[a..]).for_each(|(sum, value)| *sum += share * value);
            }
        }
        for a in 0..width {
            for b in 0..a {
                covariance[a * width + b] = covariance[b * width + a];
            }
        }
        let mut directions = eigenvectors(covariance, width);
        directions.sort_by(|a, b| b.0.total_cmp(&a.0));
        directions.truncate(components);
        let variance = directions.iter().map(|(variance, _)| variance).sum::<f64>() / components as f64;
        let scale = 1.0 / variance.max(f64::MIN_POSITIVE).sqrt();
        let scaled = |(_, direction): (f64, Vec<f64>)| direction.into_iter().map(|value| value * scale).collect();
        Self { mean, directions: directions.into_iter().map(scaled).collect() }
    }

    /// Projects states to their components.
    ///
    /// # Shapes
    /// - `states`: row-major `[states, width]`
    /// - output: row-major `[states, components]`
    pub fn project(&self, states: &[f32]) -> Vec<f32> {
        let of_state = |state: &[f32]| {
            let centred: Vec<f64> =
                state.iter().zip(&self.mean).map(|(value, mean)| f64::from(*value) - mean).collect();
            let along = |direction: &Vec<f64>| direction.iter().zip(&centred).map(|(a, b)| a * b).sum::<f64>() as f32;
            self.directions.iter().map(along).collect::<Vec<_>>()
        };
        states.par_chunks(self.mean.len()).flat_map_iter(of_state).collect()
    }
}

/// The limit of passes over all pairs; a matrix needs about ten.
const MOST_SWEEPS: usize = 50;

/// Eigenvalues and eigenvectors of a symmetric matrix, row-major `[width, width]`, in no order. Jacobi's method rotates all
/// pairs of rows and columns in turn (Golub and Van Loan, Matrix Computations, section 8.5).
fn eigenvectors(mut matrix: Vec<f64>, width: usize) -> Vec<(f64, Vec<f64>)> {
    // Each row becomes an eigenvector.
    let mut vectors: Vec<Vec<f64>> =
        (0..width).map(|at| (0..width).map(|to| f64::from(u8::from(at == to))).collect()).collect();
    let total: f64 = matrix.iter().map(|value| value * value).sum();
    for _ in 0..MOST_SWEEPS {
        let above = |row: usize| matrix[row * width..][row + 1..width].iter().map(|value| value * value).sum::<f64>();
        if (0..width).map(above).sum::<f64>() <= total * 1e-24 {
            break;
        }
        for p in 0..width {
            for q in p + 1..width {
                let [pp, qq, pq] = [matrix[p * width + p], matrix[q * width + q], matrix[p * width + q]];
                if pq == 0.0 {
                    continue;
                }
                // The tangent of the smaller of the two angles that make `pq` 0.
                let theta = (qq - pp) / (2.0 * pq);
                let tangent = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let cosine = 1.0 / tangent.hypot(1.0);
                let rotation = [cosine, tangent * cosine];
                for at in 0..width {
                    let [a, b] = rotated(rotation, [matrix[at * width + p], matrix[at * width + q]]);
                    (matrix[at * width + p], matrix[at * width + q]) = (a, b);
                }
                let (above, below) = matrix.split_at_mut(q * width);
                rotate(rotation, &mut above[p * width..][..width], &mut below[..width]);
                let (before, from_q) = vectors.split_at_mut(q);
                rotate(rotation, &mut before[p], &mut from_q[0]);
            }
        }
    }
    vectors.into_iter().enumerate().map(|(at, vector)| (matrix[at * width + at], vector)).collect()
}

fn rotate(rotation: [f64; 2], first: &mut [f64], second: &mut [f64]) {
    for (a, b) in first.iter_mut().zip(second) {
        [*a, *b] = rotated(rotation, [*a, *b]);
    }
}

fn rotated([cosine, sine]: [f64; 2], [a, b]: [f64; 2]) -> [f64; 2] {
    [cosine * a - sine * b, sine * a + cosine * b]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvectors_are_orthonormal_and_make_up_the_matrix() {
        let width = 12;
        let value = |a: usize, b: usize| ((a * b + a + b) % 7) as f64 - 3.0;
        let matrix: Vec<f64> = (0..width * width).map(|at| value(at / width, at % width)).collect();
        let pairs = eigenvectors(matrix.clone(), width);
        for a in 0..width {
            for b in 0..width {
                let product: f64 = pairs[a].1.iter().zip(&pairs[b].1).map(|(x, y)| x * y).sum();
                assert!((product - f64::from(u8::from(a == b))).abs() < 1e-12, "{a} {b}: {product}");
                let sum: f64 = pairs.iter().map(|(value, vector)| value * vector[a] * vector[b]).sum();
                assert!((sum - matrix[a * width + b]).abs() < 1e-11, "{a} {b}: {sum}");
            }
        }
    }

    #[test]
    fn what_varies_most_is_kept_at_a_mean_square_of_one() {
        // The states vary 10 times as much along (3, 4, 0) as along (0, 0, 1), around (1, 2, 3), and not along (4, −3, 0).
        let along = [[-1.0, 0.5], [1.0, 0.5], [-1.0, -0.5], [1.0, -0.5]];
        let states: Vec<f32> = along.iter().flat_map(|[a, b]| [1.0 + 6.0 * a, 2.0 + 8.0 * a, 3.0 + 2.0 * b]).collect();
        let one = Components::of(&states, 3, 1).project(&states);
        let expected = [-1.0f32, 1.0, -1.0, 1.0].map(|value| value * one[1].signum());
        assert!(one.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6), "{one:?}");
        let two = Components::of(&states, 3, 2).project(&states);
        let squares: f32 = two.iter().map(|value| value * value).sum();
        assert!((squares / two.len() as f32 - 1.0).abs() < 1e-5, "{two:?}");
        // Distances keep their ratios.
        let distance = |a: usize, b: usize| (two[2 * a] - two[2 * b]).hypot(two[2 * a + 1] - two[2 * b + 1]);
        assert!((distance(0, 1) / distance(0, 2) - 10.0).abs() < 1e-4, "{two:?}");
    }
}
