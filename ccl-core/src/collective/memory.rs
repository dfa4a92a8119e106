//! The memory of operations: the caller's, lent for one attempt, and staging memory for results
//! that must not overwrite their input before the verdict.
//!
//! The exchange decides which bytes are used when; this file knows where they are, and takes them
//! back.

use std::ops::Range;
use std::sync::Arc;

use super::exchange::is_staged;
use super::layout::{Side, Span};
use crate::buffer::{Gate, Inside, Lent, NoMemory, Region, Storage};
use crate::ids::Rank;
use crate::limits;
use crate::reduce::{self, Dtype};
use crate::wire::control::Fingerprint;

/// One buffer of a call.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// What this peer contributes.
    pub send: Lent,
    /// Where the result goes; the same memory as `send`: in place.
    pub receive: Lent,
    /// Elements: of the whole buffer for all-reduce and broadcast, of one rank's share for
    /// all-gather and reduce-scatter.
    pub count: usize,
    /// Element type.
    pub dtype: Dtype,
}

/// What one peer brings to an operation.
#[derive(Clone, Debug)]
pub struct Brought {
    /// Its memory.
    pub buffers: Vec<Buffer>,
    /// By how much its contribution counts: 1 without weights.
    pub weight: u32,
    /// Of random numbers, if it rounds stochastically.
    pub seed: Option<u64>,
}

impl Brought {
    /// No memory.
    pub const NOTHING: Self = Self {
        buffers: Vec::new(),
        weight: 1,
        seed: None,
    };
}

impl Buffer {
    fn is_in_place(&self) -> bool {
        self.send.is_same(&self.receive)
    }
}

/// Memory for contributions on their way, of all operations of an engine.
#[derive(Clone, Debug)]
pub struct Scratch(pub(super) Arc<Storage>);

impl Scratch {
    /// `bytes` bytes, at least 16 MiB, and the reserve for data ahead of credits behind them; the
    /// system gives them as they are used.
    ///
    /// # Errors
    /// If it refuses.
    pub fn new(bytes: usize) -> Result<Self, NoMemory> {
        let all = bytes.saturating_add(limits::RESERVE_POOL_BYTES);
        Storage::try_new(all).map(Self)
    }

    /// Without the reserve.
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes() - limits::RESERVE_POOL_BYTES
    }
}

/// The memory of one operation, until it is taken back.
#[derive(Debug)]
pub(super) struct Memory {
    gate: Arc<Gate>,
    inputs: Vec<Region>,
    results: Vec<Region>,
    /// Where wire forms are; empty where those are the memory's.
    wires: Vec<Region>,
    /// The scratch memory, behind this operation's gate.
    scratch: Region,
    /// Results that go home after the commit: the caller's memory, and where the result is.
    staged: Vec<(Lent, Range<usize>)>,
    staging: Option<Arc<Storage>>,
    seed: Option<u64>,
}

/// What an operation has in its staging memory, and where.
struct Places {
    /// Results that go home after the commit, and their homes.
    staged: Vec<(Lent, Range<usize>)>,
    /// Wire forms, by buffer.
    wires: Vec<Range<usize>>,
    bytes: usize,
}

/// What, apart from the buffers, determines the memory that an operation needs at a rank.
#[derive(Clone, Copy)]
pub(super) struct CallAt<'a> {
    pub(super) fingerprint: &'a Fingerprint,
    pub(super) rank: Rank,
    /// Of random numbers, if it rounds stochastically.
    pub(super) seed: Option<u64>,
}

/// Bytes of staging memory that an operation of these buffers needs.
pub(super) fn staging_bytes(buffers: &[Buffer], called: CallAt<'_>) -> usize {
    places(buffers, called).bytes
}

fn places(buffers: &[Buffer], called: CallAt<'_>) -> Places {
    let mut next = 0_usize;
    let mut place = |bytes: usize| {
        let range = next..next.saturating_add(bytes);
        next = next_place(range.end);
        range
    };
    let staged = buffers
        .iter()
        .filter(|buffer| needs_staging(buffer, called))
        .map(|buffer| (buffer.receive.clone(), place(buffer.receive.bytes())))
        .collect();
    let is_raw = called.fingerprint.encoding.is_none();
    let wires = buffers
        .iter()
        .filter(|_| !is_raw)
        .map(|buffer| place(wire_bytes(buffer, called)))
        .collect();
    Places {
        staged,
        wires,
        bytes: next,
    }
}

/// Bytes of what a peer contributes as it travels. Each share begins with a block.
fn wire_bytes(buffer: &Buffer, called: CallAt<'_>) -> usize {
    let share_bytes = buffer.count * buffer.dtype.bytes();
    let shares = buffer.send.bytes().checked_div(share_bytes).unwrap_or(0);
    shares * reduce::wire_bytes(called.fingerprint.encoding, buffer.dtype, buffer.count)
}

fn next_place(end: usize) -> usize {
    let next = end.checked_next_multiple_of(STAGING_ALIGNMENT_BYTES);
    next.unwrap_or(usize::MAX)
}

/// The root of a broadcast has its result already where it belongs.
fn needs_staging(buffer: &Buffer, called: CallAt<'_>) -> bool {
    let is_source = called.fingerprint.called.root() == Some(called.rank);
    !is_source && is_staged(buffer.is_in_place())
}

impl Memory {
    /// Lends a call's buffers; `staging` has as many bytes as `staging_bytes` says, or more.
    pub(super) fn new(
        buffers: &[Buffer],
        called: CallAt<'_>,
        scratch: &Arc<Storage>,
        staging: Option<Arc<Storage>>,
    ) -> Self {
        let Places { staged, wires, .. } = places(buffers, called);
        let mut kept = vec![Arc::clone(scratch)];
        kept.extend(staging.clone());
        let gate = Gate::keeping(kept);
        let mut places = staged.iter().map(|(_, range)| range.clone());
        let mut result = |buffer: &Buffer| match &staging {
            Some(storage) if needs_staging(buffer, called) => {
                let range = places.next().expect("one place a staged buffer");
                storage.open(&gate).slice(range)
            }
            _ => buffer.receive.open(&gate),
        };
        // Without elements nothing is staged.
        let wires = staging.iter().flat_map(|storage| {
            let wires = wires.iter().cloned();
            wires.map(|range| storage.open(&gate).slice(range))
        });
        Self {
            results: buffers.iter().map(&mut result).collect(),
            wires: wires.collect(),
            inputs: buffers
                .iter()
                .map(|buffer| buffer.send.open(&gate))
                .collect(),
            scratch: scratch.open(&gate),
            staged,
            staging,
            seed: called.seed,
            gate,
        }
    }

    /// The scratch memory alone, for what comes ahead of an operation's credits.
    pub(super) fn of_scratch(scratch: &Arc<Storage>) -> Self {
        let gate = Gate::keeping(vec![Arc::clone(scratch)]);
        Self {
            inputs: Vec::new(),
            results: Vec::new(),
            wires: Vec::new(),
            scratch: scratch.open(&gate),
            staged: Vec::new(),
            staging: None,
            seed: None,
            gate,
        }
    }

    /// Of random numbers, if own input is rounded stochastically.
    pub(super) fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// Whether the memory was taken back.
    pub(super) fn is_taken_back(&self) -> bool {
        self.gate.is_closed()
    }

    /// Keeps the memory from being taken back; `None` if it was.
    pub(super) fn enter(&self) -> Option<Inside<'_>> {
        self.gate.enter()
    }

    pub(super) fn read<'a>(&'a self, inside: &'a Inside<'_>, side: Side, span: Span) -> &'a [u8] {
        self.side(side)[span.part as usize].look(inside, span.range())
    }

    #[allow(clippy::mut_from_ref)]
    pub(super) fn write<'a>(&'a self, inside: &'a Inside<'_>, span: Span) -> &'a mut [u8] {
        self.results[span.part as usize].touch(inside, span.range())
    }

    #[allow(clippy::mut_from_ref)]
    pub(super) fn write_wire<'a>(&'a self, inside: &'a Inside<'_>, span: Span) -> &'a mut [u8] {
        self.wires[span.part as usize].touch(inside, span.range())
    }

    pub(super) fn slot<'a>(
        &'a self,
        inside: &'a Inside<'_>,
        start: usize,
        bytes: usize,
    ) -> &'a [u8] {
        self.scratch.look(inside, start..start + bytes)
    }

    /// Whether the result of a part is the memory of its input.
    pub(super) fn is_aliased(&self, part: u32) -> bool {
        let part = part as usize;
        self.inputs[part].is_same(&self.results[part])
    }

    pub(super) fn region(&self, side: Side, span: Span) -> Region {
        self.side(side)[span.part as usize].slice(span.range())
    }

    pub(super) fn slot_region(&self, start: usize, bytes: usize) -> Region {
        self.scratch.slice(start..start + bytes)
    }

    /// Takes the memory back: nobody reads or writes it through this operation any more.
    pub(super) fn take_back(&self) {
        self.gate.close();
    }

    /// Brings staged results home, once the memory was taken back.
    pub(super) fn bring_home(&self) {
        assert!(self.gate.is_closed(), "nobody else uses the memory then");
        let Some(storage) = &self.staging else {
            return;
        };
        let gate = Gate::keeping(vec![Arc::clone(storage)]);
        let staging = storage.open(&gate);
        for (home, range) in &self.staged {
            let home = home.open(&gate);
            let inside = gate.enter().expect("this gate is closed below");
            let bytes = 0..home.bytes();
            let source = staging.look(&inside, range.clone());
            home.touch(&inside, bytes).copy_from_slice(source);
        }
        gate.close();
    }

    /// Bytes that go home after the commit.
    pub(super) fn staged_bytes(&self) -> usize {
        self.staged.iter().map(|(_, range)| range.len()).sum()
    }

    /// The staging memory, for the pool.
    pub(super) fn staging(&self) -> Option<Arc<Storage>> {
        self.staging.clone()
    }

    fn side(&self, side: Side) -> &[Region] {
        match side {
            Side::Input => &self.inputs,
            Side::Result => &self.results,
            Side::Wire => &self.wires,
        }
    }
}

/// Staging memory to be given back to the system, by dropping it.
pub(super) type Unused = Vec<Arc<Storage>>;

/// Staging memory between operations, so that a training step need not allocate it again.
#[derive(Debug, Default)]
pub(super) struct StagingPool {
    /// With the number of `trim` calls that each has been idle.
    idle: Vec<(Arc<Storage>, u32)>,
}

impl StagingPool {
    /// Idle memory of at least `bytes` bytes, and little more. If none fits, what is idle is to be
    /// dropped before memory that fits is made.
    pub(super) fn take(&mut self, bytes: usize) -> (Option<Arc<Storage>>, Unused) {
        let bytes = bytes.max(STAGING_BYTES_MIN);
        let fits =
            |storage: &Arc<Storage>| storage.bytes() >= bytes && storage.bytes() / 2 <= bytes;
        if let Some(index) = self.idle.iter().position(|(storage, _)| fits(storage)) {
            return (Some(self.idle.swap_remove(index).0), Unused::default());
        }
        let unused = self.idle.drain(..).map(|(storage, _)| storage);
        (None, unused.collect())
    }

    /// Memory that `take` has none of.
    ///
    /// # Errors
    /// If the system gives none.
    pub(super) fn make(bytes: usize) -> Result<Arc<Storage>, NoMemory> {
        Storage::try_new(bytes.max(STAGING_BYTES_MIN))
    }

    pub(super) fn give_back(&mut self, storage: Arc<Storage>) {
        if self.idle.len() < STAGING_IDLE_MAX {
            self.idle.push((storage, 0));
        }
    }

    /// Takes out what was idle since the call before.
    pub(super) fn trim(&mut self) -> Unused {
        let unused = self
            .idle
            .extract_if(.., |&mut (_, trims)| trims > 0)
            .map(|(storage, _)| storage)
            .collect();
        for (_, trims) in &mut self.idle {
            *trims += 1;
        }
        unused
    }

    #[cfg(test)]
    pub(super) fn idle_bytes(&self) -> usize {
        self.idle.iter().map(|(storage, _)| storage.bytes()).sum()
    }
}

/// Parts begin at multiples of this in staging memory, so that the kernels meet whole cache lines.
const STAGING_ALIGNMENT_BYTES: usize = 64;
/// Small staging memory is made this long, so that small operations of any length share it.
const STAGING_BYTES_MIN: usize = 64 << 10;
/// Idle pieces of staging memory: as many in-place operations at once find theirs again.
const STAGING_IDLE_MAX: usize = 8;
