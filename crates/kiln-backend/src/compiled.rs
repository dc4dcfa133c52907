use std::fmt;

#[allow(unused_imports, reason = "which of them are used is a matter of features")]
use crate::backend::{Backend, Cuda, Flex, NdArray, Wgpu};

/// A function that is generic over the backend.
pub trait Entry {
    /// The return type.
    type Output;

    /// Runs the function on the backend `B`.
    fn run<B: Backend>(self) -> Self::Output;
}

/// Runs `entry` on the backend with this name.
///
/// # Errors
/// When no backend with this name is compiled in.
#[allow(unused_variables, reason = "without any backend there is nothing to run")]
pub fn run<E: Entry>(name: &str, entry: E) -> Result<E::Output, UnknownBackend> {
    match name {
        #[cfg(feature = "flex")]
        Flex::NAME => Ok(entry.run::<Flex>()),
        #[cfg(feature = "ndarray")]
        NdArray::NAME => Ok(entry.run::<NdArray>()),
        #[cfg(feature = "cuda")]
        Cuda::NAME => Ok(entry.run::<Cuda>()),
        #[cfg(feature = "wgpu")]
        Wgpu::NAME => Ok(entry.run::<Wgpu>()),
        _ => Err(UnknownBackend { name: name.to_owned() }),
    }
}

/// The names of the backends that are compiled in.
pub fn compiled_in() -> Vec<&'static str> {
    vec![
        #[cfg(feature = "flex")]
        Flex::NAME,
        #[cfg(feature = "ndarray")]
        NdArray::NAME,
        #[cfg(feature = "cuda")]
        Cuda::NAME,
        #[cfg(feature = "wgpu")]
        Wgpu::NAME,
    ]
}

/// The requested backend is not part of this build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownBackend {
    /// The requested name.
    pub name: String,
}

impl fmt::Display for UnknownBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name } = self;
        let here = compiled_in().join(", ");
        if ["flex", "ndarray", "cuda", "wgpu"].contains(&name.as_str()) {
            write!(f, "backend `{name}` is not compiled in (this build has: {here}); build with `--features {name}`")
        } else {
            write!(f, "there is no backend `{name}`; this build has: {here}")
        }
    }
}

impl std::error::Error for UnknownBackend {}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Tensor;

    use super::*;
    use crate::NoDevice;

    /// The product of [[1, 2], [3, 4]] and its transpose, computed on the first device.
    struct Product;
    impl Entry for Product {
        type Output = (&'static str, Vec<f32>);
        fn run<B: Backend>(self) -> Self::Output {
            let device = B::find_device(0).expect("a machine with the backend has a device");
            let matrix = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 4.0]], &device);
            let product = matrix.clone().matmul(matrix.transpose()).into_data().convert::<f32>();
            (B::NAME, product.try_into_vec().expect("it was converted to f32"))
        }
    }

    #[test]
    fn each_backend_of_the_build_computes_under_its_name() {
        let cpu: Vec<&str> = compiled_in().into_iter().filter(|name| ["flex", "ndarray"].contains(name)).collect();
        assert!(!cpu.is_empty());
        for name in cpu {
            assert_eq!(run(name, Product), Ok((name, vec![5.0, 11.0, 11.0, 25.0])));
        }
    }

    struct Ninth;
    impl Entry for Ninth {
        type Output = Option<NoDevice>;
        fn run<B: Backend>(self) -> Self::Output {
            B::find_device(9).err()
        }
    }

    #[test]
    fn a_cpu_has_one_device() {
        let error = run("flex", Ninth).expect("it is compiled in").expect("there is no device 9");
        assert_eq!(error.to_string(), "backend `flex` has no device 9; its only device is 0");
    }

    #[test]
    fn an_absent_backend_names_what_to_do() {
        let error = run("tpu", Product).expect_err("there is none");
        assert!(error.to_string().starts_with("there is no backend `tpu`"), "{error}");
        #[cfg(not(feature = "cuda"))]
        {
            let error = run("cuda", Product).expect_err("not compiled in");
            assert!(error.to_string().contains("--features cuda"), "{error}");
        }
    }
}
