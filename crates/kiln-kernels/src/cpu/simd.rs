/// The instructions that the kernels may use; found at run time, so that one binary serves every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Simd {
    /// What every machine has.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512 {
        /// It multiplies bf16 pairs (`avx512bf16`).
        bf16: bool,
        /// It multiplies 8-bit quadruples (`avx512vnni`).
        vnni: bool,
    },
}

impl Simd {
    /// The best that this machine has.
    pub fn detect() -> Self {
        *Self::available().last().expect("`Portable` is always there")
    }

    /// All that this machine has, the plainest first.
    pub fn available() -> &'static [Self] {
        static AVAILABLE: std::sync::OnceLock<Vec<Simd>> = std::sync::OnceLock::new();
        AVAILABLE.get_or_init(|| {
            #[allow(unused_mut, reason = "elsewhere there is but one")]
            let mut available = vec![Self::Portable];
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::is_x86_feature_detected as has;
                if has!("avx2") && has!("fma") {
                    available.push(Self::Avx2);
                    if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
                        let (bf16, vnni) = (has!("avx512bf16"), has!("avx512vnni"));
                        available.push(Self::Avx512 { bf16: false, vnni: false });
                        if bf16 || vnni {
                            available.push(Self::Avx512 { bf16, vnni });
                        }
                    }
                }
            }
            available
        })
    }
}

/// Defines a function that takes a [`Simd`] first and is compiled once for each: the compiler vectorizes the one body
/// with what each level has. Nothing in a body may be fused or reassociated, so that all levels give the same bits.
macro_rules! vectorized {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident $(<$($kind:ident: $bound:path),+>)? ($($arg:ident: $type:ty),* $(,)?) $(-> $output:ty)? $body:block)*) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "the numbers of a formula")]
        $vis fn $name $(<$($kind: $bound),+>)? (simd: $crate::cpu::Simd, $($arg: $type),*) $(-> $output)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "the numbers of a formula")]
            fn body $(<$($kind: $bound),+>)? ($($arg: $type),*) $(-> $output)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments, reason = "the numbers of a formula")]
            fn avx2 $(<$($kind: $bound),+>)? ($($arg: $type),*) $(-> $output)? {
                body($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            #[allow(clippy::too_many_arguments, reason = "the numbers of a formula")]
            fn avx512 $(<$($kind: $bound),+>)? ($($arg: $type),*) $(-> $output)? {
                body($($arg),*)
            }

            #[allow(unsafe_code, reason = "a function with more instructions than its caller can only be called so")]
            match simd {
                $crate::cpu::Simd::Portable => body($($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `Simd::available` has found these instructions on this machine.
                $crate::cpu::Simd::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::cpu::Simd::Avx512 { .. } => unsafe { avx512($($arg),*) },
                #[cfg(not(target_arch = "x86_64"))]
                _ => body($($arg),*),
            }
        }
    )*};
}
pub(crate) use vectorized;
