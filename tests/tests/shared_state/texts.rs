//! What members are told whose entries differ.

use super::*;

/// Names and shapes.
type Entries = Vec<(&'static str, Vec<u64>)>;

/// The error texts of three members, of which rank 1 has different entries.
fn told(entries: fn(usize) -> Entries) -> Vec<String> {
    told_by(3, entries)
}

/// The error texts of all members, of which rank 1 has different entries.
fn told_by(world_size: u32, entries: fn(usize) -> Entries) -> Vec<String> {
    run(world_size, move |communicator, rank| {
        let entries = entries(rank);
        let count = |shape: &[u64]| shape.iter().product::<u64>() as usize;
        let mut memory: Vec<_> = entries.iter().map(|it| vec![0_f32; count(&it.1)]).collect();
        let mut state = SharedState::new(1);
        for ((name, shape), memory) in entries.iter().zip(&mut memory) {
            state.add(name, shape, memory).unwrap();
        }
        let error = communicator
            .sync_shared_state(&mut state, SyncStrategy::EnforcePopular)
            .unwrap_err()
            .to_string();
        let (_, last) = error.rsplit_once(". ").unwrap();
        let odd = communicator.view().members[1].peer;
        let name = last
            .split_once(" (")
            .and_then(|(_, tail)| tail.split_once(')'));
        let name = name.map_or(String::new(), |(name, _)| format!(" ({name})"));
        last.replace(&format!("peer {odd}{name}"), "the odd one")
    })
}

#[test]
fn the_entry_that_differs_is_named_with_both_sides() {
    let words = told(|rank| {
        let shape = if rank == 1 { vec![20, 2] } else { vec![20] };
        vec![("a", vec![3]), ("w", shape), ("z", vec![])]
    });
    let usual = "\"w\" is f32 of shape [20] here, but f32 of shape [20, 2] on the odd one";
    let odd = "\"w\" is f32 of shape [20, 2] here, but f32 of shape [20] on the others";
    assert_eq!(words, [usual, odd, usual]);

    let words = told(|rank| match rank {
        1 => vec![("a", vec![3]), ("more", vec![1]), ("z", vec![])],
        _ => vec![("a", vec![3]), ("z", vec![])],
    });
    let usual = "\"more\" is f32 of shape [1] on the odd one, but is missing here";
    let odd = "\"more\" is f32 of shape [1] here, but is missing on the others";
    assert_eq!(words, [usual, odd, usual]);

    let words = told(|rank| match rank {
        1 => vec![("z", vec![]), ("a", vec![3])],
        _ => vec![("a", vec![3]), ("z", vec![])],
    });
    let usual = "the entries here and on the odd one are the same, but in a different order";
    let odd = "the entries here and on the others are the same, but in a different order";
    assert_eq!(words, [usual, odd, usual]);

    // All differ: the last two errors name the member admitted last.
    let words = told(|rank| vec![("a", vec![3]), (["x", "y", "z"][rank], vec![2])]);
    assert!(
        words
            .iter()
            .all(|words| words.contains(" is f32 of shape [2] ")),
        "{words:?}"
    );
}

#[test]
fn each_of_two_with_the_same_odd_entry_is_told_of_it() {
    let words = told_by(5, |rank| {
        let shape = if rank < 2 { vec![20, 2] } else { vec![20] };
        vec![("a", vec![3]), ("w", shape)]
    });
    let usual = "\"w\" is f32 of shape [20] here, but f32 of shape [20, 2] on the odd one";
    let odd = "\"w\" is f32 of shape [20, 2] here, but f32 of shape [20] on the others";
    assert_eq!(words, [odd, odd, usual, usual, usual]);
}

/// Entries are distinguished by cells, and in each cell more than one differs.
#[test]
fn many_entries_that_differ_are_counted() {
    const NAMES: [&str; 39] = [
        "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "b0", "b1", "b2", "b3", "b4",
        "b6", "b7", "b8", "b9", "c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9", "d0",
        "d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8", "d9",
    ];
    let words = told(|rank| {
        let shape = vec![if rank == 1 { 2 } else { 3 }];
        NAMES.iter().map(|name| (*name, shape.clone())).collect()
    });
    let odd = "at least 14 entries differ between this member and the others";
    let usual = "at least 14 entries differ between this member and the odd one";
    assert_eq!(words, [usual, odd, usual]);
    let words = told(|rank| {
        let shape = vec![if rank == 1 { 2 } else { 3 }];
        vec![("x", shape.clone()), ("y", shape)]
    });
    let more = "; at least one more entry differs";
    assert!(words.iter().all(|words| words.ends_with(more)), "{words:?}");
}

/// A name too long for a sketch is shown by its end, and a shape too long by its element count.
#[test]
fn an_entry_that_differs_is_named_as_far_as_there_is_room() {
    const LONG: [u64; 8] = [1, 1, 1, 1, 1, 1, 1, 3];
    let words = told(|rank| match rank {
        1 => vec![("a", vec![3])],
        _ => vec![("a", vec![3]), (NAME, LONG.to_vec())],
    });
    let (usual, odd) = (&words[0], &words[1]);
    let end = "but is missing on the odd one";
    assert!(
        usual.starts_with(&format!("{NAME:?} is f32")) && usual.ends_with(end),
        "{usual}"
    );
    let (name, tail) = odd
        .split_once(" is f32 of shape [1, 1, 1, 1, 1, 1, 1, 3] on ")
        .unwrap();
    assert_eq!(tail, "the others, but is missing here");
    let name = name.strip_prefix("\"…").unwrap().strip_suffix('"').unwrap();
    assert!(NAME.ends_with(name) && name.len() >= 60, "{name}");
}

const NAME: &str = "a.model.of.very.many.parts.whose.names.are.all.put.together.by.dots.until.nobody.\
                    reads.them.any.more.layers.31.self_attention.projection.weight";
