use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of available levels that [`Simd::detect`] may choose from.
static LEVELS: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The instructions that the kernels may use. Only detection creates a `Simd`, so its instructions are available on this
/// machine. One binary works on every machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Simd(Level);

/// The instructions of a [`Simd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Instructions of every machine of the architecture.
    Portable,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2 {
        /// Has products of groups of four bytes (`avxvnni`).
        vnni: bool,
    },
    /// AVX-512 F, BW, DQ and VL, with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx512 {
        /// Has products of bf16 pairs (`avx512bf16`).
        bf16: bool,
        /// Has products of groups of four bytes (`avx512vnni`).
        vnni: bool,
        /// Has AMX: tile registers, and their products of bf16 and of bytes.
        amx: bool,
    },
}

impl std::fmt::Debug for Simd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Simd {
    /// Instructions of every machine of the architecture.
    pub const PORTABLE: Self = Self(Level::Portable);

    /// The best instructions of this machine, within the limit of [`Simd::limit`].
    pub fn detect() -> Self {
        let available = Self::available();
        let levels = LEVELS.load(Ordering::Relaxed).min(available.len());
        *available[..levels].last().expect("the portable level is always there")
    }

    /// Limits this process to the given instructions, one of [`Simd::available`]. Call it before anything is computed,
    /// because operands that are already packed do not change.
    pub fn limit(most: Self) {
        let levels = Self::available().iter().position(|level| *level == most).map_or(usize::MAX, |at| at + 1);
        LEVELS.store(levels, Ordering::Relaxed);
    }

    /// The level's name: `portable`, `avx2` or `avx512`. With instructions for products of bytes or of bf16, it is
    /// `avx2-vnni`, `avx512-vnni`, `avx512-bf16` or `avx512-amx`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 { vnni: false } => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 { vnni: true } => "avx2-vnni",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 { amx: true, .. } => "avx512-amx",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 { bf16: true, .. } => "avx512-bf16",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 { vnni: true, .. } => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 { .. } => "avx512",
        }
    }

    /// Returns the available level with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::available().iter().copied().find(|level| level.name() == name)
    }

    /// All levels of this machine, from the simplest to the best.
    pub fn available() -> &'static [Self] {
        static AVAILABLE: std::sync::OnceLock<Vec<Simd>> = std::sync::OnceLock::new();
        AVAILABLE.get_or_init(|| {
            #[allow(unused_mut, reason = "other architectures have one level")]
            let mut available = vec![Self::PORTABLE];
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::is_x86_feature_detected as has;
                if has!("avx2") && has!("fma") {
                    available.push(Self(Level::Avx2 { vnni: false }));
                    if has!("avxvnni") {
                        available.push(Self(Level::Avx2 { vnni: true }));
                    }
                    if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
                        let (bf16, vnni) = (has!("avx512bf16"), has!("avx512vnni"));
                        available.push(Self(Level::Avx512 { bf16: false, vnni: false, amx: false }));
                        if bf16 || vnni {
                            available.push(Self(Level::Avx512 { bf16, vnni, amx: false }));
                        }
                        if super::amx::is_granted() {
                            available.push(Self(Level::Avx512 { bf16, vnni, amx: true }));
                        }
                    }
                }
            }
            available
        })
    }

    #[inline(always)]
    pub(crate) fn level(self) -> Level {
        self.0
    }
}

/// Defines functions whose first argument is a [`Simd`]. Each body is compiled once per level, and the compiler vectorizes
/// it with the instructions of that level. The compiler neither fuses nor reorders floating-point operations, so AVX2 and
/// AVX-512 give the same bits. A body uses the [`Arithmetic`](crate::cpu::arithmetic::Arithmetic) `A` for operations that
/// should be fused.
macro_rules! vectorized {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident $(<$($kind:ident: $bound:path),+>)? ($($arg:ident: $type:ty),* $(,)?) $(-> $output:ty)? $body:block)*) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "the numbers of a formula")]
        $vis fn $name $(<$($kind: $bound),+>)? (simd: $crate::cpu::Simd, $($arg: $type),*) $(-> $output)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, clippy::extra_unused_type_parameters, reason = "the numbers of a formula")]
            fn body <A: $crate::cpu::arithmetic::Arithmetic, $($($kind: $bound),+)?> ($($arg: $type),*) $(-> $output)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments, reason = "the numbers of a formula")]
            fn avx2 $(<$($kind: $bound),+>)? ($($arg: $type),*) $(-> $output)? {
                body::<$crate::cpu::arithmetic::Fused, $($($kind),+)?>($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            #[allow(clippy::too_many_arguments, reason = "the numbers of a formula")]
            fn avx512 $(<$($kind: $bound),+>)? ($($arg: $type),*) $(-> $output)? {
                body::<$crate::cpu::arithmetic::Avx512, $($($kind),+)?>($($arg),*)
            }

            #[allow(unsafe_code, reason = "a function with more instructions than its caller can only be called so")]
            match simd.level() {
                $crate::cpu::simd::Level::Portable => body::<$crate::cpu::arithmetic::Portable, $($($kind),+)?>($($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: a `Simd` of this level exists only if these instructions were detected on this machine.
                $crate::cpu::simd::Level::Avx2 { .. } => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::cpu::simd::Level::Avx512 { .. } => unsafe { avx512($($arg),*) },
            }
        }
    )*};
}
pub(crate) use vectorized;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_found_by_their_names() {
        assert_eq!(Simd::available()[0].name(), "portable");
        for level in Simd::available() {
            assert_eq!(Simd::named(level.name()), Some(*level));
        }
        assert_eq!(Simd::named("avx1024"), None);
    }
}
