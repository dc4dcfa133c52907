//! The micro-kernels on the tile registers of AMX (Intel's servers since 2023): 32 rows by 32 columns at a time.
//!
//! A tile register holds 16 rows of 64 bytes. The instructions are written as assembly, because the compiler has no stable
//! functions for them. Packed panels already have the layout that they want of a right operand: lanes of one `k` side by side.
#![allow(unsafe_code, reason = "tile instructions, on pointers whose bounds the caller has checked")]

use std::arch::asm;

use half::bf16;

use super::tile::x86::Pointers;

/// Lanes that one register of operands holds, and rows and columns of a register of sums.
pub(super) const SIDE: usize = 16;
/// Rows of a block: two registers of sums, one below the other.
pub(super) const ROWS: usize = 2 * SIDE;
/// Columns of a block: two registers side by side.
pub(super) const COLUMNS: usize = 2 * SIDE;
/// Bytes of a register's row.
const ROW_BYTES: usize = 64;

/// Asks the operating system for the tile registers, which each process must do once.
pub(super) fn is_granted() -> bool {
    std::arch::x86_64::__cpuid(0).eax >= 7 && has_instructions() && is_permitted()
}

/// Whether the processor has tiles, and products of bf16 and of bytes on them (CPUID leaf 7, EDX).
fn has_instructions() -> bool {
    const BF16_TILE_INT8: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    std::arch::x86_64::__cpuid_count(7, 0).edx & BF16_TILE_INT8 == BF16_TILE_INT8
}

#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let mut status = ARCH_PRCTL;
    // SAFETY: the call reads and writes no memory of ours; kernels without it return an error.
    unsafe {
        asm!("syscall", inlateout("rax") status, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") TILE_DATA,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    status == 0
}

/// Other systems have other rules, and were not tried.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// The shapes of the registers, as `ldtilecfg` reads them: palette 1, bytes of a row, rows.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Sums and left operand have `upper` rows in the registers 0, 1 and 4, and `lower` in 2, 3 and 5. The right operand is
    /// in 6 and 7.
    fn new(upper: usize, lower: usize) -> Self {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        for (register, count) in [upper, upper, lower, lower, upper, lower, SIDE, SIDE].into_iter().enumerate() {
            // A register without rows must have no bytes either; it takes no part.
            row_bytes[register] = if count > 0 { ROW_BYTES as u16 } else { 0 };
            rows[register] = count as u8;
        }
        Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    }
}

/// What the assembly reads: addresses, and distances in bytes.
struct Operands {
    a: *const u8,
    a_step: usize,
    b: *const u8,
    b_step: usize,
    sums: *mut u8,
    sums_step: usize,
    /// Of 16 lanes, at least one.
    blocks: usize,
}

/// Fetches the right operand's block after the next: tile loads wait for memory one by one, as no fetcher foresees them.
macro_rules! prefetch {
    () => {
        concat!(
            ".irp line, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, ",
            "16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31\n",
            "prefetcht0 [{b} + 4096 + 64*\\line]\n",
            ".endr"
        )
    };
}

/// The loop over blocks of 16 lanes, for one register of rows and for two.
macro_rules! kernel {
    ($name:ident, $element:ty, $product:literal) => {
        pub(super) mod $name {
            use super::*;

            /// Adds to the sums of at most [`ROWS`] rows and of [`COLUMNS`] columns the product over `p.lanes` lanes, a
            /// multiple of [`SIDE`] above 0.
            ///
            /// # Safety
            /// Tiles must be granted; all rows, columns and lanes must lie within what `p` points to; the lanes of a row of the
            /// left operand must lie side by side.
            pub(in super::super) unsafe fn run(rows: usize, p: Pointers<$element>) {
                debug_assert!(p.width == COLUMNS && p.lanes % SIDE == 0 && p.lanes > 0 && (1..=ROWS).contains(&rows));
                let operands = Operands {
                    a: p.a.cast(),
                    a_step: p.row_step * size_of::<$element>(),
                    b: p.b.cast(),
                    b_step: p.b_step * size_of::<$element>(),
                    sums: p.sums.cast(),
                    sums_step: p.width * size_of::<f32>(),
                    blocks: p.lanes / SIDE,
                };
                // SAFETY: the caller's promise.
                unsafe {
                    if rows <= SIDE {
                        one(&Shapes::new(rows, 0), operands);
                    } else {
                        let upper = rows.div_ceil(2);
                        two(&Shapes::new(upper, rows - upper), operands, upper);
                    }
                }
            }

            unsafe fn one(shapes: &Shapes, o: Operands) {
                // SAFETY: the caller's promise.
                unsafe {
                    asm!(
                        "ldtilecfg [{shapes}]",
                        "tileloadd tmm0, [{sums} + {sums_step}*1]",
                        "tileloadd tmm1, [{sums} + {sums_step}*1 + 64]",
                        "2:",
                        prefetch!(),
                        "tileloadd tmm4, [{a} + {a_step}*1]",
                        "tileloadd tmm6, [{b} + {b_step}*1]",
                        concat!($product, " tmm0, tmm4, tmm6"),
                        "tileloadd tmm7, [{b} + {b_step}*1 + 64]",
                        concat!($product, " tmm1, tmm4, tmm7"),
                        "add {a}, 64",
                        "add {b}, {b_block}",
                        "dec {blocks}",
                        "jnz 2b",
                        "tilestored [{sums} + {sums_step}*1], tmm0",
                        "tilestored [{sums} + {sums_step}*1 + 64], tmm1",
                        "tilerelease",
                        shapes = in(reg) shapes,
                        a = inout(reg) o.a => _,
                        a_step = in(reg) o.a_step,
                        b = inout(reg) o.b => _,
                        b_step = in(reg) o.b_step,
                        b_block = in(reg) o.b_step * SIDE,
                        sums = in(reg) o.sums,
                        sums_step = in(reg) o.sums_step,
                        blocks = inout(reg) o.blocks => _,
                        options(nostack),
                    );
                }
            }

            unsafe fn two(shapes: &Shapes, o: Operands, upper: usize) {
                // SAFETY: the caller's promise; the lower rows begin `upper` rows below the first.
                unsafe {
                    asm!(
                        "ldtilecfg [{shapes}]",
                        "tileloadd tmm0, [{sums} + {sums_step}*1]",
                        "tileloadd tmm1, [{sums} + {sums_step}*1 + 64]",
                        "tileloadd tmm2, [{lower_sums} + {sums_step}*1]",
                        "tileloadd tmm3, [{lower_sums} + {sums_step}*1 + 64]",
                        "2:",
                        prefetch!(),
                        "tileloadd tmm4, [{a} + {a_step}*1]",
                        "tileloadd tmm6, [{b} + {b_step}*1]",
                        concat!($product, " tmm0, tmm4, tmm6"),
                        "tileloadd tmm7, [{b} + {b_step}*1 + 64]",
                        concat!($product, " tmm1, tmm4, tmm7"),
                        "tileloadd tmm5, [{lower_a} + {a_step}*1]",
                        concat!($product, " tmm2, tmm5, tmm6"),
                        concat!($product, " tmm3, tmm5, tmm7"),
                        "add {a}, 64",
                        "add {lower_a}, 64",
                        "add {b}, {b_block}",
                        "dec {blocks}",
                        "jnz 2b",
                        "tilestored [{sums} + {sums_step}*1], tmm0",
                        "tilestored [{sums} + {sums_step}*1 + 64], tmm1",
                        "tilestored [{lower_sums} + {sums_step}*1], tmm2",
                        "tilestored [{lower_sums} + {sums_step}*1 + 64], tmm3",
                        "tilerelease",
                        shapes = in(reg) shapes,
                        a = inout(reg) o.a => _,
                        lower_a = inout(reg) o.a.wrapping_add(upper * o.a_step) => _,
                        a_step = in(reg) o.a_step,
                        b = inout(reg) o.b => _,
                        b_step = in(reg) o.b_step,
                        b_block = in(reg) o.b_step * SIDE,
                        sums = in(reg) o.sums,
                        lower_sums = in(reg) o.sums.wrapping_add(upper * o.sums_step),
                        sums_step = in(reg) o.sums_step,
                        blocks = inout(reg) o.blocks => _,
                        options(nostack),
                    );
                }
            }
        }
    };
}
kernel!(bf16_tiles, bf16, "tdpbf16ps");
kernel!(i8_tiles, i8, "tdpbusd");
