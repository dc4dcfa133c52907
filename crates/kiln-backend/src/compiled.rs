use std::fmt;

#[allow(unused_imports, reason = "which of them are used is a matter of features")]
use crate::backend::{Backend, Cuda, Flex, NdArray, Wgpu};

/// What runs on a backend: a function that is generic over it.
pub trait Entry {
    /// What it returns.
    type Output;

    /// Runs on the backend `B`.
    fn run<B: Backend>(self) -> Self::Output;
}

/// Runs `entry` on the backend of that name.
///
/// # Errors
/// When no backend of that name is compiled in.
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

/// The names of the backends compiled in.
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

/// A backend was asked for that this build does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownBackend {
    /// The name asked for.
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Name;
    impl Entry for Name {
        type Output = &'static str;
        fn run<B: Backend>(self) -> &'static str {
            B::NAME
        }
    }

    #[test]
    fn every_backend_compiled_in_runs_under_its_name() {
        for name in compiled_in() {
            assert_eq!(run(name, Name), Ok(name));
        }
    }

    #[test]
    fn an_absent_backend_names_what_to_do() {
        let error = run("tpu", Name).expect_err("there is none");
        assert!(error.to_string().starts_with("there is no backend `tpu`"), "{error}");
        #[cfg(not(feature = "cuda"))]
        {
            let error = run("cuda", Name).expect_err("not compiled in");
            assert!(error.to_string().contains("--features cuda"), "{error}");
        }
    }
}
