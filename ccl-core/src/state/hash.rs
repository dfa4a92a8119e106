//! Computes the digests of all blocks of a state on several threads.
//!
//! `digest` and `layout` fix what a digest covers: the result is the same on every machine, with
//! any number of threads. This file only splits the work.

use std::num::NonZero;
use std::ops::Range;

use crate::lock::Mutex;

use super::digest::block_digest;
use super::layout::Blocks;
use crate::signals::without_signals;
use crate::wire::state::Digest;

/// The default number of hashing threads: as many as the machine allows this process, at most
/// [`THREADS_MAX`].
#[must_use]
pub fn default_threads() -> usize {
    let available = std::thread::available_parallelism();
    available.map_or(1, NonZero::get).min(THREADS_MAX)
}

/// Digests to fill in, and the number of threads, including the caller's.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The blocks of the state.
    pub blocks: &'a Blocks,
    /// One for each block.
    pub digests: &'a mut [Digest],
    /// A small state uses fewer.
    pub threads: usize,
}

/// Digests of all blocks, in order. `entries` are the bytes of all entries in the order of the
/// keys; those of entries whose content may differ are not looked at.
///
/// At most `threads` work, the caller's among them; fewer on a small state.
///
/// # Panics
/// If the entries are not those that `blocks` was made for.
#[must_use]
pub fn hash_blocks(entries: &[&[u8]], blocks: &Blocks, threads: usize) -> Vec<Digest> {
    let mut digests = vec![Digest::default(); blocks.count() as usize];
    let all = std::iter::once(0..blocks.count());
    let wanted = Wanted {
        blocks,
        digests: &mut digests,
        threads,
    };
    hash_ranges(entries, wanted, all);
    digests
}

/// Brings earlier digests up to date when only the entries with the indices `touched` may have
/// changed since. They may be named in any order, and more than once.
///
/// # Panics
/// If the entries or digests are not those of `blocks`, or there is no such entry.
pub fn rehash_entries(entries: &[&[u8]], wanted: Wanted<'_>, touched: &[usize]) {
    let mut touched = touched.to_vec();
    touched.sort_unstable();
    touched.dedup();
    let blocks = wanted.blocks;
    let ranges = touched.iter().map(|&entry| blocks.of_entry(entry));
    hash_ranges(entries, wanted, ranges);
}

/// Ranges must ascend without overlap.
fn hash_ranges(entries: &[&[u8]], wanted: Wanted<'_>, ranges: impl Iterator<Item = Range<u32>>) {
    let blocks = wanted.blocks;
    check_lengths(entries, blocks);
    share_out(wanted, ranges, || {
        |first: u32, digests: &mut [Digest]| {
            for (span, digest) in blocks.spans_from(first).zip(digests) {
                let bytes = span.bytes.start as usize..span.bytes.end as usize;
                *digest = block_digest(&entries[span.entry][bytes]);
            }
            true
        }
    });
}

/// Lets several threads fill in the digests of the blocks in `ranges`, which ascend without
/// overlap. Each thread creates a worker, which is called with pieces: the first block, and the
/// places of its digest and those that follow. All stop soon after a worker returns `false`.
///
/// # Panics
/// If `digests` does not have one digest per block.
pub(crate) fn share_out<W>(
    wanted: Wanted<'_>,
    ranges: impl Iterator<Item = Range<u32>>,
    worker: impl Fn() -> W + Sync,
) where
    W: FnMut(u32, &mut [Digest]) -> bool,
{
    let Wanted {
        blocks,
        digests,
        threads,
    } = wanted;
    assert_eq!(digests.len(), blocks.count() as usize, "one digest a block");
    let (pieces, cost_bytes) = cut(blocks, ranges, digests);
    let threads = threads
        .min((cost_bytes / THREAD_BYTES_MIN) as usize)
        .min(pieces.len());
    let pieces = Mutex::new(pieces.into_iter());
    let work = || {
        let mut worker = worker();
        loop {
            // The lock is held only while a piece is taken.
            let piece = pieces.lock().next();
            let Some(piece) = piece else { break };
            if !worker(piece.first, piece.digests) {
                *pieces.lock() = Vec::new().into_iter();
            }
        }
    };
    std::thread::scope(|scope| {
        without_signals(|| {
            for _ in 1..threads {
                let helper = std::thread::Builder::new().name("ccl-hash".into());
                // If a thread cannot be started, the others do its share.
                let _ = helper.spawn_scoped(scope, work);
            }
        });
        work();
    });
}

/// Work that one thread does in one go.
struct Piece<'a> {
    first: u32,
    digests: &'a mut [Digest],
}

/// Cuts ranges into pieces of about equal work, and estimates the whole.
fn cut<'a>(
    blocks: &Blocks,
    ranges: impl Iterator<Item = Range<u32>>,
    digests: &'a mut [Digest],
) -> (Vec<Piece<'a>>, u64) {
    let mut pieces = Vec::new();
    let mut cost_bytes = 0;
    let mut rest = digests;
    let mut rest_first = 0;
    for range in ranges {
        let mut start = range.start;
        while start < range.end {
            let (end, cost) = piece_end(blocks, start..range.end);
            let (_, tail) = rest.split_at_mut((start - rest_first) as usize);
            let (digests, tail) = tail.split_at_mut((end - start) as usize);
            let first = start;
            pieces.push(Piece { first, digests });
            cost_bytes += cost;
            (rest, rest_first, start) = (tail, end, end);
        }
    }
    (pieces, cost_bytes)
}

/// Where a piece from the start of `range` ends, and its work.
fn piece_end(blocks: &Blocks, range: Range<u32>) -> (u32, u64) {
    let mut cost = 0;
    let mut end = range.start;
    let spans = blocks.spans_from(range.start);
    for span in spans.take((range.end - range.start) as usize) {
        cost += (span.bytes.end - span.bytes.start).max(BLOCK_COST_BYTES_MIN);
        end += 1;
        if cost >= PIECE_BYTES {
            break;
        }
    }
    (end, cost)
}

fn check_lengths(entries: &[&[u8]], blocks: &Blocks) {
    assert_eq!(entries.len(), blocks.entries(), "all entries of the layout");
    for (index, entry) in entries.iter().enumerate() {
        let range = blocks.of_entry(index);
        if !range.is_empty() {
            let last = blocks.span(range.end - 1);
            let expected = last.bytes.end;
            assert_eq!(entry.len() as u64, expected, "bytes of entry {index}");
        }
    }
}

/// Threads beyond this wait for memory more than they hash.
pub const THREADS_MAX: usize = 8;
/// Work a thread takes in one go, in bytes: a millisecond or two, so that all end at about the same
/// time, and taking it costs nothing beside.
const PIECE_BYTES: u64 = 4 << 20;
/// What a thread must have to do to be worth starting, in bytes.
const THREAD_BYTES_MIN: u64 = 1 << 20;
/// The shortest block takes as long as one of this many bytes.
const BLOCK_COST_BYTES_MIN: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reduce::Dtype;
    use crate::state::{BLOCK_BYTES, Key};

    fn keys(lengths: &[(usize, bool)]) -> Vec<Key> {
        let numbered = lengths.iter().enumerate();
        numbered
            .map(|(index, &(bytes, allow_inequality))| Key {
                name: index.to_string(),
                dtype: Dtype::U8,
                shape: vec![bytes as u64],
                allow_inequality,
            })
            .collect()
    }

    fn content(bytes: usize, seed: usize) -> Vec<u8> {
        (0..bytes)
            .map(|index| ((index * 31) ^ (index >> 8) ^ (seed * 7)) as u8)
            .collect()
    }

    /// Entries of every kind around the length of a block, and their contents.
    fn mixture() -> (Blocks, Vec<Vec<u8>>) {
        let lengths = [
            (0, false),
            (1, false),
            (BLOCK_BYTES - 1, false),
            (3 * BLOCK_BYTES, true),
            (BLOCK_BYTES, false),
            (20 * BLOCK_BYTES + 5, false),
            (0, false),
            (7, true),
            (9 * BLOCK_BYTES, false),
        ];
        let contents = lengths
            .iter()
            .enumerate()
            .map(|(seed, (bytes, _))| content(*bytes, seed));
        (Blocks::new(&keys(&lengths)).unwrap(), contents.collect())
    }

    fn slices(contents: &[Vec<u8>]) -> Vec<&[u8]> {
        contents.iter().map(Vec::as_slice).collect()
    }

    fn one_by_one(entries: &[&[u8]], blocks: &Blocks) -> Vec<Digest> {
        (0..blocks.count())
            .map(|block| {
                let span = blocks.span(block);
                let bytes = span.bytes.start as usize..span.bytes.end as usize;
                block_digest(&entries[span.entry][bytes])
            })
            .collect()
    }

    fn wanted<'a>(blocks: &'a Blocks, digests: &'a mut [Digest], threads: usize) -> Wanted<'a> {
        Wanted {
            blocks,
            digests,
            threads,
        }
    }

    #[test]
    fn every_number_of_threads_gives_the_digests_of_the_blocks_one_by_one() {
        let (blocks, contents) = mixture();
        let entries = slices(&contents);
        let expected = one_by_one(&entries, &blocks);
        for threads in [0, 1, 2, 3, 8, 100] {
            assert_eq!(hash_blocks(&entries, &blocks, threads), expected);
        }
    }

    #[test]
    fn the_touched_entries_and_no_others_are_hashed_again() {
        let (blocks, mut contents) = mixture();
        let mut digests = hash_blocks(&slices(&contents), &blocks, 2);
        for changed in [1, 2, 5, 8] {
            contents[changed][0] ^= 1;
        }
        let entries = slices(&contents);
        let touched = [8, 3, 1, 5, 5, 0];
        rehash_entries(&entries, wanted(&blocks, &mut digests, 3), &touched);
        let right = hash_blocks(&entries, &blocks, 1);
        let different: Vec<u32> = (0..blocks.count())
            .filter(|&block| digests[block as usize] != right[block as usize])
            .collect();
        let missed: Vec<u32> = blocks.of_entry(2).collect();
        assert_eq!(different, missed, "entry 2 changed and was not named");
        rehash_entries(&entries, wanted(&blocks, &mut digests, 3), &[2]);
        assert_eq!(digests, right);
    }

    #[test]
    fn a_state_of_nothing_has_no_digests() {
        let blocks = Blocks::new(&[]).unwrap();
        assert_eq!(hash_blocks(&[], &blocks, 8), []);
        rehash_entries(&[], wanted(&blocks, &mut [], 8), &[]);
    }

    #[test]
    fn a_hundred_thousand_tiny_entries_are_cut_into_a_few_pieces() {
        let lengths = vec![(4, false); 100_000];
        let blocks = Blocks::new(&keys(&lengths)).unwrap();
        let mut digests = vec![Digest::default(); 100_000];
        let (pieces, cost_bytes) = cut(&blocks, std::iter::once(0..100_000), &mut digests);
        assert_eq!(pieces.len(), 7);
        assert_eq!(cost_bytes, 25_600_000);
        let contents: Vec<_> = (0..100_000_u32).map(u32::to_le_bytes).collect();
        let entries: Vec<&[u8]> = contents.iter().map(<[u8; 4]>::as_slice).collect();
        let expected = one_by_one(&entries, &blocks);
        assert_eq!(hash_blocks(&entries, &blocks, 4), expected);
    }

    #[test]
    fn a_small_state_is_hashed_by_the_caller_alone() {
        let blocks = Blocks::new(&keys(&[(BLOCK_BYTES, false); 3])).unwrap();
        let contents = vec![vec![1; BLOCK_BYTES]; 3];
        let entries = slices(&contents);
        let caller = std::thread::current().id();
        let mut digests = vec![Digest::default(); 3];
        let ranges = std::iter::once(0..3);
        share_out(wanted(&blocks, &mut digests, 8), ranges, || {
            assert_eq!(std::thread::current().id(), caller);
            |_: u32, digests: &mut [Digest]| {
                digests.fill(block_digest(entries[0]));
                true
            }
        });
        assert_eq!(digests, hash_blocks(&entries, &blocks, 1));
    }

    #[test]
    fn helping_threads_take_no_signal_and_the_caller_keeps_its_own() {
        use nix::sys::signal::{SigSet, Signal};
        let blocks = Blocks::new(&keys(&[(64 * BLOCK_BYTES, false)])).unwrap();
        let mut digests = vec![Digest::default(); 64];
        let (caller, before) = (
            std::thread::current().id(),
            SigSet::thread_get_mask().unwrap(),
        );
        let helpers = std::sync::atomic::AtomicUsize::new(0);
        let worker = || {
            let mask = SigSet::thread_get_mask().unwrap();
            if std::thread::current().id() == caller {
                assert_eq!(mask, before);
            } else {
                assert!(mask.contains(Signal::SIGINT) && mask.contains(Signal::SIGUSR1));
                helpers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            |_: u32, _: &mut [Digest]| true
        };
        share_out(
            wanted(&blocks, &mut digests, 4),
            std::iter::once(0..64),
            worker,
        );
        assert_eq!(helpers.into_inner(), 3);
    }

    #[test]
    fn nothing_is_taken_up_after_a_worker_gives_up() {
        let blocks = Blocks::new(&keys(&[(64 * BLOCK_BYTES, false)])).unwrap();
        let mut digests = vec![Digest::default(); 64];
        let calls = std::sync::atomic::AtomicUsize::new(0);
        let ranges = std::iter::once(0..64);
        share_out(wanted(&blocks, &mut digests, 1), ranges, || {
            |_: u32, _: &mut [Digest]| calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0
        });
        assert_eq!(calls.into_inner(), 2, "of four pieces");
    }

    #[test]
    #[should_panic(expected = "bytes of entry 1")]
    fn an_entry_of_another_length_is_no_entry_of_this_layout() {
        let blocks = Blocks::new(&keys(&[(1, false), (5, false)])).unwrap();
        let _digests = hash_blocks(&[&[0], &[0; 6]], &blocks, 1);
    }
}
