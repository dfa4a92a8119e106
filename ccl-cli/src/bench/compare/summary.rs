//! What a comparison says in a few sentences.

use super::contestant::{AUTO, Family};
use super::results::{CellResults, Results, Spread};
use super::units::{size_text, time_text};

/// One sentence each: how good `auto` is, and how this library stands beside the others.
pub fn summary(all: &[Results]) -> Vec<String> {
    let cells = || all.iter().flat_map(|results| &results.cells);
    let mut sentences: Vec<String> = choices(all).into_iter().collect();
    for (family, name) in [
        (Family::Gloo, "gloo"),
        (Family::Mpi, "Open MPI"),
        (Family::Sockets, "plain sockets"),
    ] {
        sentences.extend(beside(cells(), family, name));
    }
    let rare = cells().filter(|cell| cell.row(AUTO).is_some_and(|row| row.rounds() < ROUNDS_MIN));
    match rare.count() {
        0 => {}
        count => sentences.push(format!(
            "cells with fewer than {ROUNDS_MIN} rounds, which says little: {count}; raise --budget"
        )),
    }
    let wrong: u64 = cells()
        .flat_map(|cell| &cell.rows)
        .map(|row| row.wrong)
        .sum();
    if wrong > 0 {
        sentences.push(format!("{wrong} elements are wrong"));
    }
    sentences
}

fn choices(all: &[Results]) -> Option<String> {
    let cells = all
        .iter()
        .flat_map(|results| results.cells.iter().map(move |cell| (results, cell)));
    let choices: Vec<_> = cells
        .filter_map(|(results, cell)| Some((results, cell, cell.choice()?)))
        .collect();
    let (network, cell, worst) = choices
        .iter()
        .filter(|(_, _, choice)| choice.chosen != choice.best)
        .max_by(|a, b| a.2.ratio.total_cmp(&b.2.ratio))
        .or(choices.first())?;
    let good = choices.iter().filter(|(_, _, it)| it.is_good()).count();
    let sentence = format!(
        "{AUTO} is within 15 % of the best of ccl in {good} of {} cells",
        choices.len()
    );
    if worst.chosen == worst.best {
        return Some(sentence);
    }
    Some(format!(
        "{sentence}; the worst choice is {} instead of {}, {:.2} times its time, in {}, {}",
        worst.chosen,
        worst.best,
        worst.ratio,
        network.network,
        cell_text(cell)
    ))
}

fn cell_text(cell: &CellResults) -> String {
    let size = size_text(cell.cell.bytes);
    format!("{} peers, {}, {size}", cell.cell.world_size, form(cell))
}

/// Where the result goes.
pub const fn form(cell: &CellResults) -> &'static str {
    match cell.cell.in_place {
        true => "in place",
        false => "out of place",
    }
}

fn beside<'a>(
    cells: impl Iterator<Item = &'a CellResults>,
    family: Family,
    name: &str,
) -> Option<String> {
    let ratios = cells.filter_map(|cell| {
        let ratio = cell.row(AUTO)?.ratio_to(cell.best_of(family)?)?;
        Some(ratio.median)
    });
    let ratios: Vec<f64> = ratios.collect();
    let spread = Spread::of(ratios.iter().copied())?;
    let faster = ratios.iter().filter(|&&ratio| ratio < 1.0).count();
    Some(format!(
        "{AUTO} is faster than {name} in {faster} of {} cells; its time is {:.2} times that of \
         {name} (median; {:.2} to {:.2})",
        ratios.len(),
        spread.median,
        spread.min,
        spread.max
    ))
}

/// Fewer rounds have no spread worth the name.
pub const ROUNDS_MIN: usize = 3;

/// The 4-byte round trip that latencies are compared with.
pub fn ping_pong_text(cell: &CellResults) -> Option<String> {
    let spread = Spread::of(cell.ping_pong_us.iter().copied())?;
    Some(time_text(spread.median))
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::results;
    use super::*;

    #[test]
    fn a_bad_choice_is_named() {
        let sentences = summary(&[results()]);
        assert_eq!(
            sentences[0],
            "ccl auto is within 15 % of the best of ccl in 1 of 2 cells; the worst choice is ring \
             instead of two_shot, 2.00 times its time, in loopback, 4 peers, out of place, 4 B"
        );
    }

    #[test]
    fn others_are_counted_where_they_were_measured() {
        let sentences = summary(&[results()]);
        assert_eq!(
            sentences[1],
            "ccl auto is faster than gloo in 1 of 2 cells; its time is 1.25 times that of gloo \
             (median; 0.50 to 2.00)"
        );
        assert!(sentences[2].contains("plain sockets in 0 of 1 cells"));
        assert_eq!(sentences.len(), 3, "nothing is wrong, and there was no MPI");
    }

    #[test]
    fn wrong_elements_are_told() {
        let mut results = results();
        results.cells[0].rows[3].wrong = 7;
        assert_eq!(summary(&[results]).last().unwrap(), "7 elements are wrong");
    }

    #[test]
    fn too_few_rounds_are_told() {
        let mut results = results();
        results.cells[0].rows[0].time_us.truncate(2);
        let sentences = summary(&[results]);
        let last = sentences.last().unwrap();
        assert!(
            last.ends_with("which says little: 1; raise --budget"),
            "{last}"
        );
    }

    #[test]
    fn nothing_is_said_about_nothing() {
        assert!(summary(&[]).is_empty());
    }
}
