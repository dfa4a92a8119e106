//! Results as text: a line for each contestant in each cell.

use super::contestant::{AUTO, Family};
use super::results::{CellResults, Results, Row};
use super::summary::{form, summary};

/// The whole table.
pub fn table(all: &[Results]) -> String {
    let mut lines = Vec::new();
    for results in all {
        let mut last = None;
        for cell in &results.cells {
            let group = (cell.cell.world_size, cell.cell.in_place);
            if last.replace(group) != Some(group) {
                let network = &results.network;
                let world_size = cell.cell.world_size;
                lines.push(format!("# {network}, {world_size} peers, {}", form(cell)));
                lines.push(HEADER.to_owned());
            }
            lines.extend(cell.rows.iter().filter_map(|row| line(cell, row)));
        }
        lines.extend(results.versions.iter().map(|text| format!("# {text}")));
        lines.extend(
            results
                .missing
                .iter()
                .map(|text| format!("# not measured: {text}")),
        );
    }
    lines.extend(summary(all).into_iter().map(|text| format!("# {text}")));
    lines.join("\n")
}

fn line(cell: &CellResults, row: &Row) -> Option<String> {
    let time = row.time()?;
    let optional = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
    let floor = cell.best_of(Family::Sockets);
    let floor_ratio = floor.and_then(|floor| row.ratio_to(floor));
    let extra = row.extra_rss_bytes.map(|it| it as f64 / f64::from(1 << 20));
    let text = format!(
        "{:>12} {:<12} {:>11.1} {:>11.1} {:>11.1} {:>7.3} {:>7} {:>8} {:>6} {:>6}  {}",
        cell.cell.bytes,
        row.contestant,
        time.median,
        time.min,
        time.max,
        cell.busbw(time.median),
        optional(row.cpu()),
        optional(extra),
        optional(floor_ratio.map(|ratio| ratio.median)),
        row.rounds(),
        remarks(cell, row),
    );
    Some(text.trim_end().to_owned())
}

fn remarks(cell: &CellResults, row: &Row) -> String {
    let mut remarks = Vec::new();
    if row.wrong > 0 {
        remarks.push(format!("{} elements wrong", row.wrong));
    }
    if let Some(round_trips) = cell.round_trips(row) {
        remarks.push(format!("{:.2} round trips", round_trips.median));
    }
    if let Some(choice) = cell.choice().filter(|_| row.contestant == AUTO) {
        let mark = if choice.is_good() { "" } else { " (!)" };
        let (chosen, best, ratio) = (choice.chosen, choice.best, choice.ratio);
        remarks.push(format!("{chosen}, {ratio:.2} × {best}{mark}"));
    }
    remarks.join("; ")
}

const HEADER: &str = "\
#      bytes contestant          time         min         max   busbw     cpu    extra  ratio rounds
#                                (us)        (us)        (us)  (GB/s) (s/GiB)    (MiB)  floor";

#[cfg(test)]
mod tests {
    use super::super::results::tests::results;
    use super::*;

    #[test]
    fn every_contestant_has_a_line_in_every_cell() {
        let text = table(&[results()]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "# loopback, 4 peers, out of place");
        let numbers: Vec<&str> = lines[3].split_whitespace().collect();
        let expected = "4 ccl auto 44.0 40.0 60.0 0.000 0.50 3.00 - 3 4.00 round trips; ring, \
                        2.00 × two_shot (!)";
        assert_eq!(numbers.join(" "), expected);
        let data = lines.iter().filter(|line| !line.starts_with('#'));
        assert_eq!(data.count(), 4 + 5);
        assert!(text.contains("# not measured: Open MPI: not installed"));
        assert!(text.contains("# ccl auto is faster than gloo in 1 of 2 cells"));
    }

    #[test]
    fn who_has_not_been_measured_has_no_line() {
        let mut results = results();
        results.cells[0].rows[0].time_us = vec![None];
        let text = table(&[results]);
        assert_eq!(
            text.matches("ccl auto ").count(),
            1 + 3,
            "a line, and sentences"
        );
    }
}
