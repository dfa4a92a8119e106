//! Results as Markdown, for `docs/performance.md`: a line for each cell.

use super::contestant::{AUTO, Family};
use super::results::{CellResults, Results, Row};
use super::summary::{ROUNDS_MIN, form, ping_pong_text, summary};
use super::units::{digits, size_text, time_text};

/// A table for each network, world and form, and the summary.
pub fn markdown(all: &[Results]) -> String {
    let mut lines = Vec::new();
    for results in all {
        lines.push(format!("#### {}", results.network));
        let mut last = None;
        for cell in &results.cells {
            let group = (cell.cell.world_size, cell.cell.in_place);
            if last.replace(group) != Some(group) {
                lines.push(String::new());
                lines.push(format!("{} peers, {}:", cell.cell.world_size, form(cell)));
                lines.push(String::new());
                lines.push(HEADER.to_owned());
                lines.push("|---".repeat(COLUMNS) + "|");
            }
            lines.push(line(cell));
        }
        lines.push(String::new());
        let processors = results.processors;
        let mut notes = vec![format!("{processors} processors")];
        notes.extend(results.versions.iter().cloned());
        lines.push(format!("{}.", notes.join("; ")));
        let missing = results.missing.iter();
        lines.extend(missing.map(|text| format!("Not measured: {text}.")));
        lines.push(String::new());
    }
    lines.extend(summary(all).into_iter().map(|text| format!("- {text}")));
    lines.join("\n")
}

fn line(cell: &CellResults) -> String {
    let auto = cell.row(AUTO);
    let rows = [auto, cell.best_of(Family::Gloo), cell.best_of(Family::Mpi)];
    let choice = cell.choice().map_or("–".to_owned(), |choice| {
        let ratio = digits(choice.ratio);
        format!("{}, {ratio} × {}", choice.chosen, choice.best)
    });
    let each = |text: &dyn Fn(&Row) -> Option<String>| {
        let texts = rows
            .iter()
            .map(|row| row.and_then(text).unwrap_or("–".into()));
        texts.collect::<Vec<_>>().join(" / ")
    };
    let mib = |row: &Row| Some(digits(row.extra_rss_bytes? as f64 / f64::from(1 << 20)));
    let mut columns = vec![size_text(cell.cell.bytes)];
    columns.push(rows[0].map_or("–".to_owned(), |row| time_cell(cell, row)));
    columns.push(choice);
    for row in rows
        .iter()
        .skip(1)
        .copied()
        .chain([cell.best_of(Family::Sockets)])
    {
        columns.push(row.map_or("–".to_owned(), |row| time_cell(cell, row)));
    }
    columns.push(ping_pong_text(cell).unwrap_or("–".into()));
    columns.push(each(&|row| cpu_text(cell, row)));
    columns.push(each(&mib));
    assert_eq!(columns.len(), COLUMNS, "the header names every column");
    format!("| {} |", columns.join(" | "))
}

/// Time and its spread; for small buffers in round trips too.
fn time_cell(cell: &CellResults, row: &Row) -> String {
    let Some(time) = row.time() else {
        return "–".to_owned();
    };
    let percent = time.half_width * 100.0;
    let text = match row.rounds() {
        0..ROUNDS_MIN => time_text(time.median),
        _ => format!("{} ± {percent:.0} %", time_text(time.median)),
    };
    match cell.round_trips(row) {
        Some(round_trips) => format!("{text} ({} RTT)", digits(round_trips.median)),
        None => text,
    }
}

/// For small buffers of a call, otherwise of a GiB.
fn cpu_text(cell: &CellResults, row: &Row) -> Option<String> {
    let seconds = row.cpu()?;
    let calls = f64::from(1 << 30) / cell.cell.bytes as f64;
    Some(match cell.cell.is_small() {
        true => time_text(seconds / calls * 1e6),
        false => digits(seconds),
    })
}

const HEADER: &str = "| size | ccl auto | its choice | gloo | Open MPI | plain sockets | 4-byte RTT | \
                      CPU s/GiB, or time of a call: ccl / gloo / MPI | extra MiB: ccl / gloo / MPI |";
const COLUMNS: usize = 9;

#[cfg(test)]
mod tests {
    use super::super::results::tests::results;
    use super::*;

    #[test]
    fn every_cell_has_a_line_with_all_contestants() {
        let text = markdown(&[results()]);
        assert!(text.starts_with("#### loopback\n\n4 peers, out of place:\n\n| size | ccl auto"));
        let small = "| 4 B | 44.0 µs ± 11 % (4.00 RTT) | ring, 2.00 × two_shot | 80.0 µs ± 9 % \
                     (8.00 RTT) | – | – | 10.0 µs | 0.00 µs / 0.00 µs / – | 3.00 / 3.00 / – |";
        assert!(text.contains(small), "{text}");
        let large = "| 1 MiB | 2.00 ms ± 2 % | two_shot, 1.00 × two_shot | 1.00 ms ± 2 % | – | \
                     1.00 ms ± 0 % | – |";
        assert!(text.contains(large), "{text}");
        assert!(text.contains("\n2 processors; gloo of torch 2.\n"));
        assert!(text.contains("\nNot measured: Open MPI: not installed.\n"));
        assert!(text.contains("\n- ccl auto is within 15 %"));
    }

    #[test]
    fn a_single_round_has_no_spread() {
        let mut results = results();
        results.cells[1].rows[0].time_us = vec![Some(2e3)];
        let text = markdown(&[results]);
        assert!(text.contains("| 1 MiB | 2.00 ms | two_shot"), "{text}");
    }

    #[test]
    fn all_lines_have_the_columns_of_the_header() {
        assert_eq!(HEADER.matches('|').count(), COLUMNS + 1);
    }
}
