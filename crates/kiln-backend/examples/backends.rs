//! Runs one generic function on every backend of this build: `cargo run --release -p kiln-backend --example backends`
#![expect(clippy::print_stdout, reason = "an example prints")]

use burn::tensor::Tensor;
use kiln_backend::{Backend, Entry, UnknownBackend, compiled_in, run};

struct Product;

impl Entry for Product {
    type Output = f32;

    fn run<B: Backend>(self) -> f32 {
        let device = B::device(0);
        let a = Tensor::<2>::ones([3, 4], &device);
        let b = Tensor::<2>::ones([4, 5], &device);
        a.matmul(b).sum().into_scalar()
    }
}

fn main() -> Result<(), UnknownBackend> {
    for name in compiled_in() {
        println!("{name}: {}", run(name, Product)?);
    }
    Ok(())
}
