//! Results as a picture: everybody's time beside that of this library over size, a panel for each
//! network, world and form. Absolute figures would cover six decades, in which a factor of two is
//! a hair.

use std::fmt::Write;

use super::contestant::{AUTO, Family};
use super::results::{CellResults, Results, Row, Spread};
use super::summary::form;
use super::units::size_text;

/// The picture as SVG.
pub fn plot(all: &[Results]) -> String {
    let panels = panels(all);
    let rows = panels.len().div_ceil(COLUMNS);
    let width = WIDTH * COLUMNS.min(panels.len()).max(1) as f64;
    let height = HEIGHT * rows.max(1) as f64;
    let mut svg = Svg::default();
    for (place, panel) in panels.iter().enumerate() {
        let (left, top) = ((place % COLUMNS) as f64, (place / COLUMNS) as f64);
        svg.open(left * WIDTH, top * HEIGHT);
        draw(&mut svg, panel);
        svg.close();
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{}</svg>\n",
        svg.text
    )
}

/// Cells that differ in size only.
struct Panel<'a> {
    title: String,
    cells: Vec<&'a CellResults>,
}

fn panels(all: &[Results]) -> Vec<Panel<'_>> {
    let mut panels: Vec<Panel<'_>> = Vec::new();
    for results in all {
        for cell in &results.cells {
            let world_size = cell.cell.world_size;
            let title = format!("{}, {world_size} peers, {}", results.network, form(cell));
            match panels.last_mut().filter(|panel| panel.title == title) {
                Some(panel) => panel.cells.push(cell),
                None => panels.push(Panel {
                    title,
                    cells: vec![cell],
                }),
            }
        }
    }
    panels
}

/// One contestant in the cells of a panel.
struct Line<'a> {
    name: &'a str,
    family: Family,
    points: Vec<Point>,
}

/// Time as a multiple of that of this library.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    bytes: f64,
    ratio: Spread,
}

fn lines<'a>(panel: &Panel<'a>) -> Vec<Line<'a>> {
    let mut lines: Vec<Line<'a>> = Vec::new();
    for cell in &panel.cells {
        for row in &cell.rows {
            let Some(point) = point(cell, row) else {
                continue;
            };
            match lines.iter_mut().find(|line| line.name == row.contestant) {
                Some(line) => line.points.push(point),
                None => lines.push(Line {
                    name: &row.contestant,
                    family: row.family,
                    points: vec![point],
                }),
            }
        }
    }
    lines
}

fn point(cell: &CellResults, row: &Row) -> Option<Point> {
    let ratio = row.ratio_to(cell.row(AUTO)?)?;
    (ratio.min > 0.0).then_some(Point {
        bytes: cell.cell.bytes as f64,
        ratio,
    })
}

fn draw(svg: &mut Svg, panel: &Panel<'_>) {
    let lines = lines(panel);
    let points = || lines.iter().flat_map(|line| &line.points);
    let sizes = Axis::over(points().map(|it| it.bytes), LEFT, WIDTH - LEGEND);
    // Single slow rounds are not worth the room.
    let ratios = Axis::over(points().map(|it| it.ratio.median), HEIGHT - BOTTOM, TOP);
    let title = format!("{}: time ÷ that of {AUTO}", panel.title);
    svg.label(LEFT, TOP - 14.0, "start", &title);
    for ratio in ratios.powers_of_two() {
        let y = ratios.place(ratio);
        let colour = if ratio == 1.0 { "#666666" } else { "#dddddd" };
        svg.line([LEFT, y, WIDTH - LEGEND, y], colour, 1.0);
        svg.label(LEFT - 4.0, y + 4.0, "end", &format!("{ratio}"));
    }
    for cell in &panel.cells {
        let x = sizes.place(cell.cell.bytes as f64);
        svg.label(
            x,
            HEIGHT - BOTTOM + 16.0,
            "middle",
            &size_text(cell.cell.bytes),
        );
    }
    for (place, line) in lines.iter().enumerate() {
        let pen = Pen::of(line, place);
        let at: Vec<(f64, f64)> = line
            .points
            .iter()
            .map(|point| (sizes.place(point.bytes), ratios.place(point.ratio.median)))
            .collect();
        svg.curve(&at, pen);
        for (point, &(x, _)) in line.points.iter().zip(&at) {
            let (best, worst) = (
                ratios.inside(point.ratio.min),
                ratios.inside(point.ratio.max),
            );
            svg.line([x, best, x, worst], pen.colour, 0.7);
        }
        let y = TOP + 14.0 * place as f64;
        let x = WIDTH - LEGEND + 10.0;
        svg.curve(&[(x, y), (x + 18.0, y)], pen);
        svg.label(x + 22.0, y + 4.0, "start", line.name);
    }
}

/// A logarithmic axis from the smallest to the largest value.
#[derive(Clone, Copy, Debug)]
struct Axis {
    least: f64,
    most: f64,
    start: f64,
    end: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64> + Clone, start: f64, end: f64) -> Self {
        let least = values.clone().reduce(f64::min).unwrap_or(1.0);
        let most = values.reduce(f64::max).unwrap_or(1.0);
        Self {
            least,
            // A single value is at the start.
            most: if most > least { most } else { least * 2.0 },
            start,
            end,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let part = (value / self.least).ln() / (self.most / self.least).ln();
        self.start + part * (self.end - self.start)
    }

    /// The place of a value, or the end of the axis that it lies beyond.
    fn inside(&self, value: f64) -> f64 {
        self.place(value.clamp(self.least, self.most))
    }

    /// A few of them, 1 among them if it is inside.
    fn powers_of_two(&self) -> Vec<f64> {
        let first = self.least.log2().ceil() as i32;
        let last = self.most.log2().floor() as i32;
        let step = (last - first) / MARKS + 1;
        let powers = (first..=last).filter(|power| power % step == 0);
        powers.map(f64::from).map(f64::exp2).collect()
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug)]
struct Pen {
    colour: &'static str,
    width: f64,
    dashes: &'static str,
}

impl Pen {
    fn of(line: &Line<'_>, place: usize) -> Self {
        let pen = |colour, width, dashes| Self {
            colour,
            width,
            dashes,
        };
        match line.family {
            Family::Ccl if line.name == AUTO => pen("#000000", 2.5, ""),
            Family::Ccl => pen(OURS[place % OURS.len()], 1.2, ""),
            Family::Gloo => pen("#d55e00", 2.0, ""),
            Family::Mpi => pen("#cc79a7", 2.0, ""),
            Family::Sockets => pen("#999999", 1.2, ["4 3", "1 3"][place % 2]),
        }
    }
}

/// Elements of a picture, one a line.
#[derive(Default)]
struct Svg {
    text: String,
}

impl Svg {
    fn add(&mut self, element: &str) {
        writeln!(self.text, "{element}").expect("a string can be written to");
    }

    fn open(&mut self, x: f64, y: f64) {
        self.add(&format!("<g transform=\"translate({x} {y})\">"));
    }

    fn close(&mut self) {
        self.add("</g>");
    }

    fn line(&mut self, ends: [f64; 4], colour: &str, width: f64) {
        let [x1, y1, x2, y2] = ends;
        self.add(&format!(
            "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"{colour}\" \
             stroke-width=\"{width}\"/>"
        ));
    }

    fn curve(&mut self, points: &[(f64, f64)], pen: Pen) {
        let places: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let Pen {
            colour,
            width,
            dashes,
        } = pen;
        self.add(&format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" \
             stroke-dasharray=\"{dashes}\"/>",
            places.join(" ")
        ));
    }

    fn label(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.add(&format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }
}

/// Most horizontal lines, nearly.
const MARKS: i32 = 8;
/// Panels side by side.
const COLUMNS: usize = 2;
/// A panel, in pixels.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
/// Its margins.
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 30.0;
/// Room for the names at the right.
const LEGEND: f64 = 160.0;
/// Colours that also the colour-blind can tell apart.
const OURS: [&str; 4] = ["#0072b2", "#009e73", "#56b4e9", "#e69f00"];

#[cfg(test)]
mod tests {
    use super::super::results::tests::results;
    use super::*;

    #[test]
    fn a_panel_has_a_line_for_each_contestant() {
        let results = [results()];
        let panels = panels(&results);
        assert_eq!(panels.len(), 1);
        assert_eq!(panels[0].title, "loopback, 4 peers, out of place");
        let lines = lines(&panels[0]);
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[0].points.len(), 2, "both sizes");
        assert_eq!(lines[0].points[1].ratio.median, 1.0, "auto beside itself");
        let gloo = lines.iter().find(|line| line.name == "gloo").unwrap();
        assert_eq!(gloo.points[0].ratio.median, 2.0);
        assert_eq!(gloo.points[1].ratio.median, 0.5);
    }

    #[test]
    fn a_logarithmic_axis_goes_from_the_smallest_to_the_largest() {
        let axis = Axis::over([10.0, 1000.0, 100.0].into_iter(), 0.0, 200.0);
        assert_eq!([10.0, 1000.0].map(|it| axis.place(it)), [0.0, 200.0]);
        assert!((axis.place(100.0) - 100.0).abs() < 1e-9);
        assert_eq!(axis.inside(5.0), 0.0, "beyond the end");
        let marks = axis.powers_of_two();
        assert_eq!(marks, [16.0, 32.0, 64.0, 128.0, 256.0, 512.0]);
        let wide = Axis::over([0.001, 1000.0].into_iter(), 0.0, 1.0);
        let marks = wide.powers_of_two();
        assert!(marks.contains(&1.0) && marks.len() <= 9, "{marks:?}");
        let single = Axis::over([5.0].into_iter(), 0.0, 200.0);
        assert_eq!(single.place(5.0), 0.0);
    }

    #[test]
    fn a_picture_has_only_whole_elements_and_finite_places() {
        let mut results = results();
        results.network = "a<b & c".into();
        let picture = plot(&[results.clone(), results]);
        assert_eq!(
            picture.matches("<g ").count(),
            picture.matches("</g>").count()
        );
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert!(picture.contains("a&lt;b &amp; c, 4 peers"));
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
        assert!(!plot(&[]).contains("NaN"));
    }
}
