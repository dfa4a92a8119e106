//! Vector width: the levels, their detection, and the floating-point unit's mode.
//!
//! Each level is the same inlined loop, compiled with more of the machine's instructions; only f16
//! has instructions of its own, for its conversions. What is computed is fixed in `number` and
//! `rule`.
#![expect(
    unsafe_code,
    reason = "wider instructions and the floating-point control register"
)]

use super::ReduceOp;
use control::{CHANGED_BITS, Control, TRAPS_OFF_BITS, read_control, write_control};

/// A set of instructions. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The target's baseline: SSE2 on x86-64, NEON on aarch64.
    Baseline,
    /// AVX2 and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl Level {
    /// All of them, narrowest first.
    pub const ALL: [Self; 3] = [Self::Baseline, Self::Avx2, Self::Avx512];

    /// The widest level of this machine.
    #[must_use]
    pub fn best() -> Self {
        if Self::Avx512.is_available() {
            Self::Avx512
        } else if Self::Avx2.is_available() {
            Self::Avx2
        } else {
            Self::Baseline
        }
    }

    /// Whether this machine has it. Asked once, then remembered by the standard library.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Self::Baseline => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::Avx512 => false,
        }
    }
}

/// Loops that are compiled once for each level. What they compute must not depend on it.
pub(super) trait Kernel {
    type Output;

    /// The loops; `#[inline(always)]`, as is all that they call.
    fn run(self) -> Self::Output;
}

/// Runs the loops at one level, in IEEE 754 mode.
///
/// # Panics
/// If this machine lacks the level.
pub(super) fn run_at<K: Kernel>(level: Level, kernel: K) -> K::Output {
    assert!(level.is_available(), "this machine lacks {level:?}");
    let _environment = FloatEnvironment::enter();
    match level {
        Level::Baseline => run_baseline(kernel),
        // SAFETY: the features of the level were detected on this machine, above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { run_avx2(kernel) },
        // SAFETY: the features of the level were detected on this machine, above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { run_avx512(kernel) },
        #[cfg(not(target_arch = "x86_64"))]
        Level::Avx2 | Level::Avx512 => unreachable!("not available"),
    }
}

/// Calls `work` in IEEE 754 mode, for arithmetic without loops.
pub(super) fn on_ieee_terms<T, F: FnOnce() -> T>(work: F) -> T {
    struct Call<F>(F);
    impl<T, F: FnOnce() -> T> Kernel for Call<F> {
        type Output = T;

        #[inline(always)]
        fn run(self) -> T {
            self.0()
        }
    }
    run_at(Level::Baseline, Call(work))
}

/// Never inlined, so that no arithmetic moves out of the IEEE 754 mode.
#[inline(never)]
fn run_baseline<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx2")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[inline(never)]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

/// Sum, average and product of f16 with the machine's own conversions.
#[cfg(target_arch = "x86_64")]
pub(super) fn reduce_f16(what: (ReduceOp, u32), inputs: &[&[u8]], out: &mut [u8]) {
    assert!(Level::Avx2.is_available(), "this machine lacks AVX2");
    let _environment = FloatEnvironment::enter();
    let (op, divisor) = what;
    // SAFETY: AVX2 and F16C were detected on this machine, above.
    unsafe {
        match op {
            ReduceOp::Sum => f16c::sweep::<{ f16c::SUM }>(1, inputs, out),
            ReduceOp::Avg => f16c::sweep::<{ f16c::AVERAGE }>(divisor, inputs, out),
            ReduceOp::Prod => f16c::sweep::<{ f16c::PRODUCT }>(1, inputs, out),
            ReduceOp::Min | ReduceOp::Max => unreachable!("compared as integers, not converted"),
        }
    }
}

/// Sum, average and product of f16 with the machine's own conversions.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn reduce_f16(_what: (ReduceOp, u32), _inputs: &[&[u8]], _out: &mut [u8]) {
    unreachable!("no level of this architecture converts f16 by itself");
}

#[cfg(target_arch = "x86_64")]
mod f16c {
    //! Eight elements at a time: widened to f32, combined over all inputs, narrowed once.

    use std::arch::x86_64::*;

    pub(super) const SUM: u8 = 0;
    pub(super) const AVERAGE: u8 = 1;
    pub(super) const PRODUCT: u8 = 2;

    type Cell = [u8; 16];

    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn sweep<const OP: u8>(divisor: u32, inputs: &[&[u8]], out: &mut [u8]) {
        let (cells, tail) = out.as_chunks_mut::<16>();
        let divisor = _mm256_set1_ps(divisor as f32);
        let whole_bytes = cells.len() * 16;
        let (first, rest) = inputs.split_first().expect("checked: at least one input");
        for (index, cell) in cells.iter_mut().enumerate() {
            let mut combined = widen(first.as_chunks().0[index]);
            for input in rest {
                combined = combine::<OP>(combined, widen(input.as_chunks().0[index]));
            }
            *cell = narrow::<OP>(combined, divisor);
        }
        let mut combined = widen(padded(&first[whole_bytes..]));
        for input in rest {
            combined = combine::<OP>(combined, widen(padded(&input[whole_bytes..])));
        }
        let cell = narrow::<OP>(combined, divisor);
        tail.copy_from_slice(&cell[..tail.len()]);
    }

    /// The elements after the last whole cell; zeros stand for the missing.
    fn padded(bytes: &[u8]) -> Cell {
        let mut cell = [0; 16];
        cell[..bytes.len()].copy_from_slice(bytes);
        cell
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn widen(cell: Cell) -> __m256 {
        // SAFETY: both types are 16 bytes of which every pattern is valid.
        _mm256_cvtph_ps(unsafe { std::mem::transmute::<Cell, __m128i>(cell) })
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn combine<const OP: u8>(left: __m256, right: __m256) -> __m256 {
        if OP == PRODUCT {
            _mm256_mul_ps(left, right)
        } else {
            _mm256_add_ps(left, right)
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn narrow<const OP: u8>(value: __m256, divisor: __m256) -> Cell {
        let value = if OP == AVERAGE {
            _mm256_div_ps(value, divisor)
        } else {
            value
        };
        let is_nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(value, value);
        let canonical = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc0_0000));
        let value = _mm256_blendv_ps(value, canonical, is_nan);
        let cell = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value);
        // SAFETY: both types are 16 bytes of which every pattern is valid.
        unsafe { std::mem::transmute::<__m128i, Cell>(cell) }
    }
}

/// Keeps the floating-point unit of this thread in IEEE 754 mode until dropped.
///
/// The thread may be the caller's, and the caller may have loaded code that makes it flush
/// subnormal numbers to zero. Then the same sum would have different bits here than elsewhere. A
/// caller may also have asked for a signal at inexact results or overflow; none is sent inside.
pub(super) struct FloatEnvironment {
    /// The value to restore; `None` if nothing had to be changed.
    changed_from: Option<Control>,
}

impl FloatEnvironment {
    pub(super) fn enter() -> Self {
        let found = read_control();
        let wanted = found & !CHANGED_BITS | TRAPS_OFF_BITS;
        if wanted == found {
            return Self { changed_from: None };
        }
        write_control(wanted);
        Self {
            changed_from: Some(found),
        }
    }
}

impl Drop for FloatEnvironment {
    fn drop(&mut self) {
        if let Some(found) = self.changed_from {
            write_control(found);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod control {
    pub(super) type Control = u32;

    /// FTZ, DAZ, the two rounding bits and the six masks of MXCSR.
    pub(super) const CHANGED_BITS: Control = 1 << 15 | 1 << 6 | 3 << 13 | TRAPS_OFF_BITS;
    /// The masks: an exception whose bit is set sends no signal.
    pub(super) const TRAPS_OFF_BITS: Control = 0x3f << 7;

    pub(super) fn read_control() -> Control {
        let mut value: Control = 0;
        // SAFETY: stores four bytes to a local of four bytes; SSE is part of x86-64.
        unsafe {
            std::arch::asm!(
                "stmxcsr [{}]",
                in(reg) &raw mut value,
                options(nostack, preserves_flags)
            );
        }
        value
    }

    pub(super) fn write_control(value: Control) {
        // SAFETY: the value was read from this register, and differs at most in how subnormals are
        // treated, how results are rounded and which exceptions are masked: no reserved bit is set.
        unsafe {
            std::arch::asm!(
                "ldmxcsr [{}]",
                in(reg) &raw const value,
                options(nostack, preserves_flags)
            );
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod control {
    pub(super) type Control = u64;

    /// FZ, the two rounding bits, FZ16, AH, FIZ and the six trap enables of FPCR.
    pub(super) const CHANGED_BITS: Control = 1 << 24 | 3 << 22 | 1 << 19 | 3 | 1 << 15 | 0x1f << 8;
    /// Traps are off where their bits are clear.
    pub(super) const TRAPS_OFF_BITS: Control = 0;

    pub(super) fn read_control() -> Control {
        let value: Control;
        // SAFETY: reads a register that user code may read.
        unsafe {
            std::arch::asm!("mrs {}, fpcr", out(reg) value, options(nostack, preserves_flags));
        }
        value
    }

    pub(super) fn write_control(value: Control) {
        // SAFETY: the value was read from this register, and differs at most in how subnormals are
        // treated, how results are rounded and which exceptions trap.
        unsafe {
            std::arch::asm!("msr fpcr, {}", in(reg) value, options(nostack, preserves_flags));
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("docs/numerics.md: bits are promised on x86-64 and aarch64 only");

/// Runs `work` on a thread that flushes subnormal numbers and rounds toward zero, as a host process
/// may have left it.
#[cfg(test)]
pub(super) fn on_a_hostile_thread<T>(work: impl FnOnce() -> T) -> T {
    let found = read_control();
    write_control(found | CHANGED_BITS);
    let before = read_control();
    let result = work();
    let after = read_control();
    write_control(found);
    assert_eq!(after & CHANGED_BITS, before & CHANGED_BITS);
    result
}

#[cfg(test)]
mod tests {
    use super::super::{Dtype, ReduceOp, reduce};
    use super::*;

    #[test]
    fn a_thread_that_flushes_subnormals_is_put_right_and_back() {
        let inside = on_a_hostile_thread(|| {
            let _environment = FloatEnvironment::enter();
            read_control() & CHANGED_BITS
        });
        assert_eq!(inside, TRAPS_OFF_BITS);
    }

    /// The caller may want a signal at a division by zero. Infinity is a fine result here.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn a_thread_that_traps_gets_its_result_and_its_traps_back() {
        let found = read_control();
        write_control(found & !TRAPS_OFF_BITS);
        let large = f32::MAX.to_ne_bytes();
        let mut out = [0; 4];
        reduce(Dtype::F32, ReduceOp::Sum, 1, &[&large, &large], &mut out);
        let after = read_control();
        write_control(found);
        assert_eq!(out, f32::INFINITY.to_ne_bytes());
        assert_eq!(after & TRAPS_OFF_BITS, 0);
    }

    #[test]
    fn subnormal_sums_are_exact_on_a_thread_that_flushes_them() {
        let tiny = f32::from_bits(3).to_ne_bytes().repeat(9);
        let mut out = vec![0; tiny.len()];
        on_a_hostile_thread(|| {
            reduce(Dtype::F32, ReduceOp::Sum, 1, &[&tiny, &tiny], &mut out);
        });
        assert_eq!(out, f32::from_bits(6).to_ne_bytes().repeat(9));
    }

    #[test]
    fn the_best_level_is_available_and_the_last_that_is() {
        let last = Level::ALL.into_iter().rfind(|level| level.is_available());
        assert_eq!(last, Some(Level::best()));
    }
}
