//! Tests of how operations are cut.

use super::*;
use crate::wire::control::Algorithm;

const SMALL: SegmentLimits = SegmentLimits {
    bytes_min: 64,
    bytes_max: 256,
    scratch_bytes: 4096,
    eager_bytes_max: 96,
};

fn ranks(n: usize) -> Vec<Rank> {
    (0..n as u32).map(Rank).collect()
}

fn layout(kind: Kind, algorithm: Algorithm, n: usize, parts: &[Part]) -> Layout {
    let ring_order: Vec<Rank> = ranks(n).into_iter().rev().collect();
    let shape = Shape {
        kind,
        algorithm,
        parts,
        world_size: n,
        ring_order: &ring_order,
        root: (kind == Kind::Broadcast).then_some(Rank(0)),
        encoding: None,
        segments_per_chunk: 4,
    };
    Layout::new(&shape, &SMALL)
}

fn part(dtype: Dtype, count: u64) -> Part {
    Part { dtype, count }
}

/// Every byte of every part is in exactly one segment, in order, on the side that is cut.
fn assert_covers(layout: &Layout, side: Side, part_bytes: &[usize]) {
    let mut spans: Vec<Span> = (0..layout.segment_count())
        .map(|segment| layout.span(side, segment))
        .collect();
    spans.sort_by_key(|span| (span.part, span.start));
    let mut at: Vec<usize> = vec![0; part_bytes.len()];
    for span in spans {
        assert!(span.bytes > 0);
        assert_eq!(span.start, at[span.part as usize]);
        at[span.part as usize] += span.bytes;
    }
    assert_eq!(at, part_bytes);
}

#[test]
fn segments_cover_all_bytes_once_and_split_no_element() {
    let parts = [
        part(Dtype::F64, 3),
        part(Dtype::U8, 0),
        part(Dtype::I8, 1001),
        part(Dtype::Bf16, 555),
        part(Dtype::F64, 200),
    ];
    let bytes: Vec<usize> = parts.iter().map(Part::bytes).collect();
    for n in 1..=9 {
        for algorithm in [Algorithm::OneShot, Algorithm::TwoShot, Algorithm::Ring] {
            let layout = layout(Kind::AllReduce, algorithm, n, &parts);
            assert_covers(&layout, Side::Input, &bytes);
            assert_covers(&layout, Side::Result, &bytes);
            for segment in 0..layout.segment_count() {
                let width = layout.dtype(segment).bytes();
                let span = layout.span(Side::Input, segment);
                assert_eq!(span.start % width, 0);
                assert_eq!(span.bytes % width, 0);
                assert!(span.bytes <= SMALL.bytes_max);
            }
        }
    }
}

#[test]
fn chunks_are_nearly_equal() {
    for n in 1..=9 {
        let layout = layout(
            Kind::AllReduce,
            Algorithm::TwoShot,
            n,
            &[part(Dtype::F32, 5000)],
        );
        let chunks = (0..n).map(|chunk| layout.chunk_wire_bytes(chunk));
        let (least, most) = (chunks.clone().min().unwrap(), chunks.clone().max().unwrap());
        assert!(
            most - least <= 2 * CHUNK_ALIGNMENT_BYTES,
            "{n}: {least} to {most}"
        );
        assert_eq!(chunks.sum::<usize>(), 20_000);
    }
}

/// The bits of a ring all-reduce depend on these.
#[test]
fn chunk_boundaries_are_the_documented_ones() {
    let parts = [part(Dtype::F32, 100), part(Dtype::F32, 300)];
    let layout = layout(Kind::AllReduce, Algorithm::Ring, 3, &parts);
    let starts: Vec<(u32, usize)> = (0..3)
        .map(|chunk| layout.span(Side::Result, layout.chunk_segments(chunk).start))
        .map(|span| (span.part, span.start))
        .collect();
    // Bytes 0, 533 and 1066 of 1600; the second part begins at byte 400.
    assert_eq!(starts, [(0, 0), (1, 128), (1, 640)]);
    let owners: Vec<Rank> = (0..3)
        .map(|chunk| layout.owner(layout.chunk_segments(chunk).start))
        .collect();
    assert_eq!(owners, [Rank(2), Rank(1), Rank(0)], "in ring order");
}

#[test]
fn shares_lie_one_after_the_other_where_they_are_together() {
    let parts = [part(Dtype::F32, 70), part(Dtype::U8, 3)];
    let scatter = layout(Kind::ReduceScatter, Algorithm::TwoShot, 3, &parts);
    assert_covers(&scatter, Side::Input, &[840, 9]);
    let gather = layout(Kind::AllGather, Algorithm::TwoShot, 3, &parts);
    assert_covers(&gather, Side::Result, &[840, 9]);
    for segment in gather.owned(Rank(2)) {
        let (own, all) = (
            gather.span(Side::Input, segment),
            gather.span(Side::Result, segment),
        );
        let share = [280, 3][own.part as usize];
        assert_eq!(all.start, 2 * share + own.start);
    }
}

#[test]
fn fewer_elements_than_members_leave_chunks_empty() {
    let layout = layout(
        Kind::AllReduce,
        Algorithm::TwoShot,
        9,
        &[part(Dtype::U8, 5)],
    );
    assert_eq!(layout.segment_count(), 1);
    assert_eq!(layout.owned(Rank(8)), 0..1);
    assert!(layout.owned(Rank(0)).is_empty());
}

#[test]
fn the_largest_world_still_fits_its_contributions_into_the_scratch_memory() {
    let limits = SegmentLimits::default();
    for n in [2, 3, 4, 17, 64, limits::WORLD_SIZE_MAX] {
        let bytes = segment_bytes(1 << 40, n, &limits);
        assert!(bytes * (n - 1) <= limits.scratch_bytes);
        assert!(bytes.is_power_of_two());
    }
    assert_eq!(segment_bytes(1 << 40, 4, &limits), limits.bytes_max);
}

#[test]
fn a_small_broadcast_comes_from_its_root_whole() {
    let layout = layout(
        Kind::Broadcast,
        Algorithm::TwoShot,
        3,
        &[part(Dtype::F32, 24)],
    );
    assert!(layout.is_eager());
    assert_eq!(layout.owned_wire_bytes(Rank(0)), 96);
}
