//! Element types, operators, algorithms, options of a call, and its outcome.

use std::time::Duration;

use ccl_core::limits::TIMER_MAX;
use ccl_core::{Algorithm, Dtype, Encoding, Error, Options, ReduceOp, Tag};

use crate::call::call;
use crate::memory::{self, Growing, GrowingOut};
use crate::result::{Outcome, cclResult_t};

/// Type of the elements of a buffer.
pub type cclDataType_t = u32;

/// 8-bit unsigned integer.
pub const cclUint8: cclDataType_t = 0;
/// 16-bit unsigned integer.
pub const cclUint16: cclDataType_t = 1;
/// 32-bit unsigned integer.
pub const cclUint32: cclDataType_t = 2;
/// 64-bit unsigned integer.
pub const cclUint64: cclDataType_t = 3;
/// 8-bit signed integer.
pub const cclInt8: cclDataType_t = 4;
/// 16-bit signed integer.
pub const cclInt16: cclDataType_t = 5;
/// 32-bit signed integer.
pub const cclInt32: cclDataType_t = 6;
/// 64-bit signed integer.
pub const cclInt64: cclDataType_t = 7;
/// IEEE 754 binary16; added in binary32 and rounded once.
pub const cclFloat16: cclDataType_t = 8;
/// The upper half of a binary32; added in binary32 and rounded once.
pub const cclBfloat16: cclDataType_t = 9;
/// IEEE 754 binary32.
pub const cclFloat32: cclDataType_t = 10;
/// IEEE 754 binary64.
pub const cclFloat64: cclDataType_t = 11;

/// How elements are combined, in rank order. Integers wrap.
pub type cclReduceOp_t = u32;

/// The sum.
pub const cclSum: cclReduceOp_t = 0;
/// The sum divided by the number of contributors; of integers the exact sum, which never wraps,
/// truncated toward zero.
pub const cclAvg: cclReduceOp_t = 1;
/// The product.
pub const cclProd: cclReduceOp_t = 2;
/// The smallest; NaN wins.
pub const cclMin: cclReduceOp_t = 3;
/// The largest; NaN wins.
pub const cclMax: cclReduceOp_t = 4;

/// The algorithm that moves the data.
pub type cclAlgorithm_t = u32;

/// The library's choice, the same on all members.
pub const cclAlgorithmAuto: cclAlgorithm_t = 0;
/// Each chunk goes to its owner, who reduces it and sends the result to all.
pub const cclAlgorithmTwoShot: cclAlgorithm_t = 1;
/// An older name of cclAlgorithmTwoShot.
pub const cclAlgorithmDirect: cclAlgorithm_t = 1;
/// Chunks travel around the ring of the view.
pub const cclAlgorithmRing: cclAlgorithm_t = 2;
/// Every member sends all it contributes to every other, and reduces everything itself.
pub const cclAlgorithmOneShot: cclAlgorithm_t = 3;

/// What contributions are rounded to, and how they travel: for cclSum and cclAvg of floating-point
/// elements by all-reduce and reduce-scatter.
pub type cclEncoding_t = u32;

/// As they are in memory.
pub const cclEncodingNone: cclEncoding_t = 0;
/// f32, for f64 elements.
pub const cclEncodingFloat32: cclEncoding_t = 1;
/// bfloat16: half the bytes of f32.
pub const cclEncodingBfloat16: cclEncoding_t = 2;
/// IEEE 754 half precision, half the bytes of f32; what is too large becomes the largest number.
pub const cclEncodingFloat16: cclEncoding_t = 3;
/// Integers of 8 bits with a scale for each 256 elements: 0.254 of the bytes of f32.
pub const cclEncodingInt8: cclEncoding_t = 4;
/// Powers of two of 4 bits (E3M0) with a scale for each 256 elements: 0.126 of the bytes.
pub const cclEncodingE3m0: cclEncoding_t = 5;
/// Integers of 4 bits with a scale for each 256 elements: 0.127 of the bytes.
pub const cclEncodingInt4: cclEncoding_t = 6;
/// -1, 0 and 1 with a scale for each 256 elements: 0.064 of the bytes.
pub const cclEncodingInt2: cclEncoding_t = 7;

/// No timeout. Any time of more than a year counts as a year.
pub const CCL_FOREVER: u64 = u64::MAX;

/// Options of one call. 0 is the default of every field. All members must use the same `algorithm`,
/// `attempts`, `encoding` and `is_weighted`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct cclOptions_t {
    /// `sizeof(cclOptions_t)`.
    pub struct_bytes: usize,
    /// Stream of operations: those of one tag run one after the other, in the same order on all
    /// members; those of different tags run at once.
    pub tag: u64,
    /// After this time the operation is cancelled for all members, in milliseconds; 0: the
    /// communicator's `operation_timeout_ms`.
    pub deadline_ms: u64,
    /// A cclAlgorithm constant.
    pub algorithm: cclAlgorithm_t,
    /// Most attempts, including the first: after a peer is lost, the call is retried with the
    /// survivors. 0 and 1: no retry.
    pub attempts: u32,
    /// A cclEncoding constant. NaN or an infinity in an input is then an error that names it,
    /// before anything is sent.
    pub encoding: cclEncoding_t,
    /// 1: contributions have weights. The result is the sum of weight times contribution, of cclAvg
    /// divided by the sum of the weights.
    pub is_weighted: u32,
    /// By how much this peer's contribution counts, if contributions have weights: at most
    /// 16,777,216. 0: it contributes nothing, and sends no data. If all are 0, so is the result.
    pub weight: u32,
    /// 0.
    pub reserved: u32,
    /// Not 0: rounds to the encoding up or down at random, so that the mean error is 0, with random
    /// numbers from this seed; another one for each member and call. 0: to the nearer code.
    pub seed: u64,
}

// SAFETY: repr(C), opens with `struct_bytes`, integers only.
unsafe impl Growing for cclOptions_t {
    fn struct_bytes(&mut self) -> &mut usize {
        &mut self.struct_bytes
    }
}

/// The result of a successful operation. Set `struct_bytes`, and `contributors` and its capacity if
/// you want the contributors, `weights` if you want theirs; the rest is written, on success only.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct cclOutcome_t {
    /// `sizeof(cclOutcome_t)`.
    pub struct_bytes: usize,
    /// Array for peer ids, or NULL. At most `contributors_capacity` are written.
    pub contributors: *mut u64,
    /// Capacity of that array.
    pub contributors_capacity: usize,
    /// Number of peers whose data is in the result.
    pub contributors_count: usize,
    /// The operation's tag.
    pub tag: u64,
    /// Its number in the tag's sequence.
    pub number: u64,
    /// Term of the view this peer was in when it learned the outcome.
    pub term: u32,
    /// Epoch of that view.
    pub epoch: u32,
    /// Members of that view.
    pub world_size: u32,
    /// Number of attempts.
    pub attempts: u32,
    /// Array for the contributors' weights, or NULL. At most `contributors_capacity` are written: 1
    /// for each without weights.
    pub weights: *mut u32,
}

impl Default for cclOutcome_t {
    fn default() -> Self {
        Self {
            struct_bytes: 0,
            contributors: std::ptr::null_mut(),
            contributors_capacity: 0,
            contributors_count: 0,
            tag: 0,
            number: 0,
            term: 0,
            epoch: 0,
            world_size: 0,
            attempts: 0,
            weights: std::ptr::null_mut(),
        }
    }
}

// SAFETY: repr(C), opens with `struct_bytes`, integers and pointers only.
unsafe impl Growing for cclOutcome_t {
    fn struct_bytes(&mut self) -> &mut usize {
        &mut self.struct_bytes
    }
}

/// Writes the bytes of one element of a type. Does not block.
///
/// Errors: cclErrorInvalidArgument.
#[unsafe(export_name = "cclGetDataTypeBytes")]
pub unsafe extern "C" fn get_data_type_bytes(
    dtype: cclDataType_t,
    bytes: *mut usize,
) -> cclResult_t {
    call(|| {
        // SAFETY: NULL, or what the header asks for.
        let place = unsafe { memory::out(bytes, "bytes") }?;
        place.set(self::dtype(dtype)?.bytes());
        Ok(())
    })
}

/// The core's element type.
pub(crate) fn dtype(number: cclDataType_t) -> Outcome<Dtype> {
    pick(&Dtype::ALL, number, "data type")
}

/// The core's operator.
pub(crate) fn reduce_op(number: cclReduceOp_t) -> Outcome<ReduceOp> {
    pick(&ReduceOp::ALL, number, "reduce operator")
}

/// A time in milliseconds; 0 means `default`.
pub(crate) fn milliseconds(number: u64, default: Duration) -> Duration {
    match number {
        0 => default,
        number => bounded(number),
    }
}

/// A waiting time that the library can reckon with.
pub(crate) fn bounded(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds).min(TIMER_MAX)
}

/// A waiting time that may be for ever.
pub(crate) fn optional_milliseconds(number: u64, default: Option<Duration>) -> Option<Duration> {
    match number {
        0 => default,
        CCL_FOREVER => None,
        number => Some(bounded(number)),
    }
}

/// How a call is made.
///
/// # Safety
/// `pointer` is NULL or points to options.
pub(crate) unsafe fn options(pointer: *const cclOptions_t) -> Outcome<Options> {
    // SAFETY: passed on from the caller.
    let options = unsafe { memory::growing(pointer, "options") }?;
    let algorithms = [
        Algorithm::Auto,
        Algorithm::TwoShot,
        Algorithm::Ring,
        Algorithm::OneShot,
    ];
    Ok(Options {
        tag: Tag(options.tag),
        algorithm: pick(&algorithms, options.algorithm, "algorithm")?,
        deadline: (options.deadline_ms != 0).then(|| bounded(options.deadline_ms)),
        attempts: options.attempts,
        encoding: encoding(options.encoding)?,
        seed: (options.seed != 0).then_some(options.seed),
        weight: weight(&options)?,
        caller: String::new(),
    })
}

fn encoding(number: u32) -> Outcome<Option<Encoding>> {
    let mut all = vec![None];
    all.extend(Encoding::ALL.map(Some));
    pick(&all, number, "encoding")
}

fn weight(options: &cclOptions_t) -> Outcome<Option<u32>> {
    match (options.is_weighted, options.weight) {
        (0, 0) => Ok(None),
        (0, weight) => {
            let words = format!("weight is {weight}, but is_weighted is 0; set it to 1");
            Err(Error::invalid(words).into())
        }
        (1, weight) => Ok(Some(weight)),
        (other, _) => {
            let words = format!("is_weighted is {other}; expected 0 or 1");
            Err(Error::invalid(words).into())
        }
    }
}

/// Where to write the outcome of a call, if anywhere.
#[derive(Debug)]
pub(crate) struct OutcomeOut(Option<(cclOutcome_t, GrowingOut<cclOutcome_t>)>);

impl OutcomeOut {
    /// # Safety
    /// `pointer` is NULL or points to an outcome whose list has the length it states; no other
    /// thread uses it until the call returns.
    pub(crate) unsafe fn new(pointer: *mut cclOutcome_t) -> Outcome<Self> {
        if pointer.is_null() {
            return Ok(Self(None));
        }
        // SAFETY: passed on from the caller.
        let (asked, place) = unsafe {
            (
                memory::growing(pointer.cast_const(), "outcome")?,
                memory::growing_out(pointer, "outcome")?,
            )
        };
        memory::check_list(
            asked.contributors,
            asked.contributors_capacity,
            "outcome->contributors",
        )?;
        if !asked.weights.is_null() {
            memory::check_list(
                asked.weights,
                asked.contributors_capacity,
                "outcome->weights",
            )?;
        }
        Ok(Self(Some((asked, place))))
    }

    /// Writes the outcome.
    pub(crate) fn set(self, outcome: &ccl_core::Outcome) -> Outcome<()> {
        let Some((asked, place)) = self.0 else {
            return Ok(());
        };
        let contributors: Vec<u64> = outcome.contributors.iter().map(|peer| peer.0).collect();
        let weights = match outcome.weights.is_empty() {
            true => vec![1; contributors.len()],
            false => outcome.weights.clone(),
        };
        let world_size = outcome.view.members.len();
        // SAFETY: the caller of `new` vouched for the list.
        unsafe {
            memory::set_list(
                asked.contributors,
                asked.contributors_capacity,
                "outcome->contributors",
                &contributors,
            )?;
            if !asked.weights.is_null() {
                memory::set_list(
                    asked.weights,
                    asked.contributors_capacity,
                    "outcome->weights",
                    &weights,
                )?;
            }
        }
        place.set(cclOutcome_t {
            contributors_count: contributors.len(),
            tag: outcome.op.tag.0,
            number: outcome.op.n.0,
            term: outcome.view.vid.term.0,
            epoch: outcome.view.vid.epoch.0,
            world_size: u32::try_from(world_size).expect("a view has at most WORLD_SIZE_MAX"),
            attempts: outcome.attempts,
            ..asked
        });
        Ok(())
    }
}

/// The one of these that a number stands for.
pub(crate) fn pick<T: Copy>(all: &[T], number: u32, name: &str) -> Outcome<T> {
    let found = usize::try_from(number)
        .ok()
        .and_then(|index| all.get(index));
    found.copied().ok_or_else(|| {
        let largest = all.len() - 1;
        Error::invalid(format!("unknown {name} {number}; expected 0 to {largest}")).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_core() {
        for known in Dtype::ALL {
            assert_eq!(dtype(known as u32).unwrap(), known);
        }
        for known in ReduceOp::ALL {
            assert_eq!(reduce_op(known as u32).unwrap(), known);
        }
        let named = [
            cclUint8,
            cclInt8,
            cclFloat16,
            cclBfloat16,
            cclFloat32,
            cclFloat64,
        ];
        let names = named.map(|number| dtype(number).unwrap().name());
        assert_eq!(names, ["u8", "i8", "f16", "bf16", "f32", "f64"]);
        let named = [cclSum, cclAvg, cclProd, cclMin, cclMax];
        let names = named.map(|number| reduce_op(number).unwrap().name());
        assert_eq!(names, ["sum", "avg", "prod", "min", "max"]);
        for known in Encoding::ALL {
            assert_eq!(encoding(known as u32).unwrap(), Some(known));
        }
        assert!(dtype(12).is_err() && reduce_op(5).is_err() && dtype(u32::MAX).is_err());
    }
}
