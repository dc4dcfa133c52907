//! Micro-kernels for the tile registers of AMX (Intel's servers since 2023). They compute 32 rows by 32 columns at a time.
//!
//! A tile register holds 16 rows of 64 bytes. The instructions are written in assembly, because the compiler has no stable
//! intrinsics for them. Packed panels already have the layout that the instructions require of a right operand: the lanes
//! of the same `k` are adjacent.
#![allow(unsafe_code, reason = "tile instructions, on pointers whose bounds the caller has checked")]

use std::arch::asm;
use std::marker::PhantomData;

use half::bf16;

use super::Element;
use super::tile::x86::Pointers;

/// The lanes in a row of an operand register. Also the rows and the columns of a register of sums.
pub(super) const SIDE: usize = 16;
/// The rows of a block: two registers of sums, one below the other.
pub(super) const ROWS: usize = 2 * SIDE;
/// The columns of a block: two registers side by side.
pub(super) const COLUMNS: usize = 2 * SIDE;
/// The bytes in a row of a register.
const ROW_BYTES: usize = 64;
/// The bytes in a panel's row of lanes, and in a row of its sums.
const WIDE: usize = 2 * ROW_BYTES;
/// The prefetch distance in the right operand, in bytes: two blocks.
const AHEAD: usize = 2 * WIDE * SIDE;

/// Requests permission for the tile registers from the operating system, which is needed once per process.
pub(super) fn is_granted() -> bool {
    std::arch::x86_64::__cpuid(0).eax >= 7 && has_instructions() && is_permitted()
}

/// Whether the processor has tiles, and their products of bf16 and of bytes (CPUID leaf 7, EDX).
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
    // SAFETY: the call does not access memory of this process. Operating system kernels without it return an error.
    unsafe {
        asm!("syscall", inlateout("rax") status, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") TILE_DATA,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    status == 0
}

/// Other operating systems have other rules and are untested.
#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// The shapes of the registers, in the format of `ldtilecfg`: palette 1, bytes per row, rows.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// The sums and the left operand have `upper` rows in the registers 0, 1 and 4, and `lower` rows in 2, 3 and 5. The
    /// right operand is in 6 and 7.
    fn new(upper: usize, lower: usize) -> Self {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        for (register, count) in [upper, upper, lower, lower, upper, lower, SIDE, SIDE].into_iter().enumerate() {
            // A register without rows must also have no bytes per row. It is not used.
            row_bytes[register] = if count > 0 { ROW_BYTES as u16 } else { 0 };
            rows[register] = count as u8;
        }
        Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    }
}

/// The tile registers of a thread, which keep their shape until this is dropped.
#[derive(Debug, Default)]
pub struct Registers {
    /// The number of rows of the current shape. 0 if there is none.
    rows: usize,
    /// Prevents sending this to another thread, because the registers belong to a thread.
    thread: PhantomData<*const ()>,
}

impl Registers {
    /// Configures the registers for `rows` rows, at most [`ROWS`]. This takes longer than the product of a few blocks.
    ///
    /// # Safety
    /// Tiles must be granted.
    unsafe fn shape(&mut self, rows: usize) {
        if self.rows == rows {
            return;
        }
        let upper = if rows <= SIDE { rows } else { rows.div_ceil(2) };
        let shapes = Shapes::new(upper, rows - upper);
        // SAFETY: the caller's promise. The shapes are valid for palette 1.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly)) };
        self.rows = rows;
    }
}

impl Drop for Registers {
    /// Releases the registers, because saving them makes interrupting the thread slower.
    fn drop(&mut self) {
        if self.rows > 0 {
            // SAFETY: tiles were granted when a shape was set.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }
}

/// The operands of the assembly: addresses, and distances in bytes.
struct Operands {
    a: *const u8,
    a_step: usize,
    b: *const u8,
    /// The address in the right operand that is prefetched.
    ahead: *const u8,
    sums: *mut u8,
    /// Whether the sums are loaded first. Otherwise they start at zero.
    has_sums: usize,
    /// The number of blocks of 16 lanes, at least one.
    blocks: usize,
}

/// Prefetches some cache lines of the right operand, [`AHEAD`] bytes ahead of the multiplication, and the next line of four
/// rows of the left operand. The processor does not prefetch for tile loads by itself. Between tile instructions,
/// prefetches are nearly free.
macro_rules! fetch {
    ($($line:literal)*) => {
        concat!(
            $("prefetcht0 [{ahead} + 64*", $line, "]\n",)*
            "prefetcht0 [{next_a}]\n",
            "prefetcht0 [{next_a} + {a_step}]\n",
            "prefetcht0 [{next_a} + 2*{a_step}]\n",
            "prefetcht0 [{next_a} + {three_steps}]\n",
            "lea {next_a}, [{next_a} + 4*{a_step}]\n",
        )
    };
}

/// The loop over blocks of 16 lanes, for one and for two registers of rows.
macro_rules! kernel {
    ($name:ident, $element:ty, $product:literal) => {
        pub(super) mod $name {
            use super::*;

            /// Adds the product over `p.lanes` lanes to the sums of at most [`ROWS`] rows and of [`COLUMNS`] columns.
            /// `p.lanes` must be a positive multiple of [`SIDE`].
            ///
            /// # Safety
            /// Tiles must be granted. All rows, columns and lanes must be within the memory that `p` points to. The lanes
            /// of each row of the left operand must be adjacent.
            pub(in super::super) unsafe fn run(rows: usize, p: Pointers<$element>, registers: &mut Registers) {
                const { assert!(COLUMNS * size_of::<$element>() * <$element>::PER_LANE == WIDE) };
                debug_assert!(p.width == COLUMNS && p.lanes % SIDE == 0 && p.lanes > 0 && (1..=ROWS).contains(&rows));
                let operands = Operands {
                    a: p.a.cast(),
                    a_step: p.row_step * size_of::<$element>(),
                    b: p.b.cast(),
                    ahead: p.b.cast::<u8>().wrapping_add(AHEAD),
                    sums: p.sums.cast(),
                    has_sums: usize::from(!p.is_first),
                    blocks: p.lanes / SIDE,
                };
                // SAFETY: the caller's promise.
                unsafe {
                    registers.shape(rows);
                    if rows <= SIDE {
                        one(operands);
                    } else {
                        two(operands, rows.div_ceil(2));
                    }
                }
            }

            unsafe fn one(o: Operands) {
                // SAFETY: the caller's promise.
                unsafe {
                    asm!(
                        "tilezero tmm0",
                        "tilezero tmm1",
                        "test {has_sums}, {has_sums}",
                        "jz 2f",
                        "tileloadd tmm0, [{sums} + {wide}*1]",
                        "tileloadd tmm1, [{sums} + {wide}*1 + 64]",
                        "2:",
                        "lea {next_a}, [{a} + 64]",
                        "tileloadd tmm4, [{a} + {a_step}*1]",
                        fetch!(0 1 2 3 4 5 6 7),
                        "tileloadd tmm6, [{b} + {wide}*1]",
                        fetch!(8 9 10 11 12 13 14 15),
                        concat!($product, " tmm0, tmm4, tmm6"),
                        fetch!(16 17 18 19 20 21 22 23),
                        "tileloadd tmm7, [{b} + {wide}*1 + 64]",
                        fetch!(24 25 26 27 28 29 30 31),
                        concat!($product, " tmm1, tmm4, tmm7"),
                        "add {a}, 64",
                        "add {b}, {b_block}",
                        "add {ahead}, {b_block}",
                        "dec {blocks}",
                        "jnz 2b",
                        "tilestored [{sums} + {wide}*1], tmm0",
                        "tilestored [{sums} + {wide}*1 + 64], tmm1",
                        a = inout(reg) o.a => _,
                        next_a = out(reg) _,
                        a_step = in(reg) o.a_step,
                        three_steps = in(reg) 3 * o.a_step,
                        b = inout(reg) o.b => _,
                        ahead = inout(reg) o.ahead => _,
                        b_block = const WIDE * SIDE,
                        wide = in(reg) WIDE,
                        sums = in(reg) o.sums,
                        has_sums = in(reg) o.has_sums,
                        blocks = inout(reg) o.blocks => _,
                        options(nostack),
                    );
                }
            }

            unsafe fn two(o: Operands, upper: usize) {
                // SAFETY: the caller's promise; the lower rows begin `upper` rows below the first.
                unsafe {
                    asm!(
                        "tilezero tmm0",
                        "tilezero tmm1",
                        "tilezero tmm2",
                        "tilezero tmm3",
                        "test {has_sums}, {has_sums}",
                        "jz 2f",
                        "tileloadd tmm0, [{sums} + {wide}*1]",
                        "tileloadd tmm1, [{sums} + {wide}*1 + 64]",
                        "tileloadd tmm2, [{lower_sums} + {wide}*1]",
                        "tileloadd tmm3, [{lower_sums} + {wide}*1 + 64]",
                        "2:",
                        "lea {next_a}, [{a} + 64]",
                        "tileloadd tmm4, [{a} + {a_step}*1]",
                        fetch!(0 1 2 3),
                        "tileloadd tmm6, [{b} + {wide}*1]",
                        fetch!(4 5 6 7),
                        concat!($product, " tmm0, tmm4, tmm6"),
                        fetch!(8 9 10 11),
                        "tileloadd tmm7, [{b} + {wide}*1 + 64]",
                        fetch!(12 13 14 15),
                        concat!($product, " tmm1, tmm4, tmm7"),
                        fetch!(16 17 18 19),
                        "tileloadd tmm5, [{lower_a} + {a_step}*1]",
                        fetch!(20 21 22 23),
                        concat!($product, " tmm2, tmm5, tmm6"),
                        fetch!(24 25 26 27),
                        concat!($product, " tmm3, tmm5, tmm7"),
                        fetch!(28 29 30 31),
                        "add {a}, 64",
                        "add {lower_a}, 64",
                        "add {b}, {b_block}",
                        "add {ahead}, {b_block}",
                        "dec {blocks}",
                        "jnz 2b",
                        "tilestored [{sums} + {wide}*1], tmm0",
                        "tilestored [{sums} + {wide}*1 + 64], tmm1",
                        "tilestored [{lower_sums} + {wide}*1], tmm2",
                        "tilestored [{lower_sums} + {wide}*1 + 64], tmm3",
                        a = inout(reg) o.a => _,
                        lower_a = inout(reg) o.a.wrapping_add(upper * o.a_step) => _,
                        next_a = out(reg) _,
                        a_step = in(reg) o.a_step,
                        three_steps = in(reg) 3 * o.a_step,
                        b = inout(reg) o.b => _,
                        ahead = inout(reg) o.ahead => _,
                        b_block = const WIDE * SIDE,
                        wide = in(reg) WIDE,
                        sums = in(reg) o.sums,
                        lower_sums = in(reg) o.sums.wrapping_add(upper * WIDE),
                        has_sums = in(reg) o.has_sums,
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
