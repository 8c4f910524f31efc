//! The report as a picture: for each item how many times as long it takes on each engine, and the
//! memory sweep as curves over size, as NDDE drew them. Pure.

use super::markdown::{figure, named, size};
use super::{Line, OverheadReport, Table, Versus};
use crate::svg::{AREA, FAINT, Place, THEIRS, begin, circle, end, f, rect, text};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 20.0;
const ROW: f64 = 22.0;
const HEAD: f64 = 40.0;
const GAP: f64 = 18.0;
/// Where the axis of ratios begins, and its length.
const AXIS_X: f64 = 330.0;
const AXIS_WIDTH: f64 = 400.0;
/// The axis is logarithmic between these ratios; what lies outside stands at its end.
const RATIO_LOW: f64 = 0.8;
const RATIO_HIGH: f64 = 500.0;
/// A plot of a sweep.
const PLOT: Place = (400.0, 150.0);
const PLOT_X: f64 = 70.0;

/// Colours of engines, in their order; after the last they come again.
const COLOURS: [&str; 4] = ["#1a7f5a", "#b7562b", "#3b5bb5", "#8a3ab9"];

fn colour(engine: usize) -> &'static str {
    COLOURS[engine % COLOURS.len()]
}

/// The picture.
#[must_use]
pub fn picture(report: &OverheadReport) -> String {
    let body: f64 = report.tables.iter().map(height).sum();
    let mut svg = begin((WIDTH, 86.0 + body));
    let setting = &report.setting;
    text(&mut svg, (LEFT, 26.0), "17", "What engines cost a program");
    let busy = if setting.busy {
        " · others used this PC: these figures say little"
    } else {
        ""
    };
    let words = format!(
        "gleaner {} · {} CPUs · load {:.1} before the run{busy}",
        report.version, setting.cpus, setting.load
    );
    text(&mut svg, (LEFT, 46.0), "12", &words);
    let mut x = LEFT;
    for (name, colour) in legend(&setting.engines) {
        circle(&mut svg, (x + 5.0, 64.0), 4.5, colour);
        text(&mut svg, (x + 16.0, 68.0), "12", &name);
        x += 40.0 + 8.0 * f(name.chars().count());
    }
    let mut y = 86.0;
    for table in &report.tables {
        draw(&mut svg, table, y);
        y += height(table);
    }
    end(svg)
}

fn legend(engines: &[String]) -> Vec<(String, &'static str)> {
    let native = ("native".to_owned(), THEIRS);
    let engines = engines.iter().enumerate();
    [native]
        .into_iter()
        .chain(engines.map(|(at, name)| (name.clone(), colour(at))))
        .collect()
}

/// Items with sizes make a curve each, the others a row each.
fn curves(table: &Table) -> Vec<(&str, Vec<&Line>)> {
    let mut curves: Vec<(&str, Vec<&Line>)> = Vec::new();
    for line in table.lines.iter().filter(|line| line.size.is_some()) {
        match curves.iter_mut().find(|(item, _)| *item == line.item) {
            Some((_, lines)) => lines.push(line),
            None => curves.push((&line.item, vec![line])),
        }
    }
    curves
}

fn single(table: &Table) -> impl Iterator<Item = &Line> {
    table.lines.iter().filter(|line| line.size.is_none())
}

fn height(table: &Table) -> f64 {
    let plots = curves(table).len().div_ceil(2);
    HEAD + ROW * f(single(table).count()) + (PLOT.1 + HEAD) * f(plots) + GAP
}

fn draw(svg: &mut String, table: &Table, y: f64) {
    text(svg, (LEFT, y + 16.0), "15", table.group.title());
    let rows = single(table).count();
    if rows > 0 {
        text(svg, (AXIS_X, y + 16.0), "12", "times native (log)");
        let one = AXIS_X + AXIS_WIDTH * place(1.0);
        rect(
            svg,
            (one - 0.5, y + HEAD - 12.0),
            (1.0, ROW * f(rows)),
            FAINT,
        );
    }
    for (at, line) in single(table).enumerate() {
        row(svg, line, y + HEAD + ROW * f(at));
    }
    let top = y + HEAD + ROW * f(rows);
    for (at, (item, lines)) in curves(table).iter().enumerate() {
        let corner = (
            PLOT_X + (PLOT.0 + 40.0) * f(at % 2),
            top + (PLOT.1 + HEAD) * f(at / 2),
        );
        plot(svg, item, lines, corner);
    }
}

/// Where on the axis a ratio stands, from 0 to 1.
fn place(ratio: f64) -> f64 {
    let ratio = if ratio.is_nan() { 1.0 } else { ratio };
    let bounded = ratio.clamp(RATIO_LOW, RATIO_HIGH);
    (bounded / RATIO_LOW).ln() / (RATIO_HIGH / RATIO_LOW).ln()
}

fn row(svg: &mut String, line: &Line, y: f64) {
    text(svg, (LEFT, y + 4.0), "13", &named(line));
    let native = format!("{} {}", figure(line.native), line.unit);
    text(svg, (230.0, y + 4.0), "12", &native);
    let mut words = Vec::new();
    for (at, own) in line.engines.iter().enumerate() {
        let Some(own) = own else { continue };
        let x = |ratio| AXIS_X + AXIS_WIDTH * place(ratio);
        let (from, to) = (x(own.interval.low), x(own.interval.high));
        rect(svg, (from, y - 1.0), (to - from, 2.0), colour(at));
        circle(svg, (x(own.ratio), y), 4.5, colour(at));
        words.push(figure(own.ratio));
    }
    let words = words.join(" / ");
    text(svg, (AXIS_X + AXIS_WIDTH + 16.0, y + 4.0), "13", &words);
}

/// Figures over sizes: each step of the sweep is as wide as the next.
fn plot(svg: &mut String, item: &str, lines: &[&Line], (x, y): Place) {
    let unit = lines.first().map_or("", |line| line.unit);
    text(svg, (x, y), "13", &format!("{item}, {unit}"));
    let (top, bottom) = (y + 10.0, y + PLOT.1);
    rect(svg, (x, top), (PLOT.0, bottom - top), AREA);
    let all = lines.iter().flat_map(|line| {
        let engines = line.engines.iter().flatten().map(|own| own.figure);
        [line.native].into_iter().chain(engines)
    });
    let most = all.filter(|value| value.is_finite()).fold(0.0, f64::max);
    let most = if most > 0.0 { most } else { 1.0 };
    let step = PLOT.0 / f(lines.len().max(2) - 1);
    let at =
        |index: usize, value: f64| (x + step * f(index), bottom - (bottom - top) * value / most);
    let curve = |svg: &mut String, of: &dyn Fn(&Line) -> Option<f64>, colour: &str| {
        let places: Vec<Place> = lines
            .iter()
            .enumerate()
            .filter_map(|(index, line)| Some(at(index, of(line)?)))
            .collect();
        if places.len() > 1 {
            crate::svg::line(svg, &places, colour);
        }
        for place in places {
            circle(svg, place, 2.5, colour);
        }
    };
    curve(svg, &|line| Some(line.native), THEIRS);
    let engines = lines
        .iter()
        .map(|line| line.engines.len())
        .max()
        .unwrap_or(0);
    for engine in 0..engines {
        let of = |line: &Line| line.engines.get(engine)?.map(|own: Versus| own.figure);
        curve(svg, &of, colour(engine));
    }
    text(svg, (x - 45.0, top + 10.0), "11", &figure(most));
    text(svg, (x - 45.0, bottom), "11", "0");
    for (index, line) in lines.iter().enumerate().step_by(2) {
        let words = line.size.map_or_else(String::new, size);
        text(
            svg,
            (x + step * f(index) - 14.0, bottom + 14.0),
            "10",
            &words,
        );
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{Group, Kind, Setting};
    use super::*;
    use crate::svg::tests::check_xml;
    use crate::{Goal, Interval, Row};

    fn setting() -> Setting {
        Setting {
            cpus: 2,
            load: 3.0,
            busy: true,
            seconds: 60.0,
            engines: vec!["process".to_owned(), "vm".to_owned()],
            kinds: vec![Kind::Process, Kind::UserModeLinux],
            blas: None,
            missing: vec!["no numpy for python3 here".to_owned()],
        }
    }

    /// A report with a line of each shape.
    pub(in super::super) fn report() -> OverheadReport {
        let own = |figure: f64, ratio: f64| {
            Some(Versus {
                figure,
                ratio,
                interval: Interval {
                    low: ratio - 0.01,
                    high: ratio + 0.01,
                },
                pairs: 20,
            })
        };
        let line = |item: &str, size, unit, native, engines| Line {
            item: item.to_owned(),
            size,
            unit,
            native,
            engines,
        };
        let memory = vec![
            line(
                "read",
                Some(4 << 10),
                "GB/s",
                20.0,
                vec![own(19.8, 1.01), None],
            ),
            line(
                "read",
                Some(16 << 10),
                "GB/s",
                19.0,
                vec![own(19.0, 1.0), own(10.0, 1.9)],
            ),
        ];
        let calls = vec![line(
            "getppid",
            None,
            "µs",
            0.1,
            vec![own(0.1, 1.0), own(16.0, 160.0)],
        )];
        OverheadReport {
            bench: "overhead",
            version: "0 <&>",
            setting: setting(),
            tables: vec![
                Table {
                    group: Group::Memory,
                    lines: memory,
                },
                Table {
                    group: Group::Calls,
                    lines: calls,
                },
            ],
            rows: vec![
                Row::new("CPU-bound program, process over native", 0.4, "%")
                    .interval(Interval {
                        low: -0.2,
                        high: 1.1,
                    })
                    .goal(Goal::AtMost(1.0)),
            ],
        }
    }

    #[test]
    fn the_picture_is_well_formed() {
        let svg = picture(&report());
        assert!(check_xml(&svg) > 20);
        for part in ["read, GB/s", "getppid", "1.00 / 160", "others used"] {
            assert!(svg.contains(part), "{part} in {svg}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn a_report_without_figures_is_a_picture_too() {
        let mut report = report();
        for table in &mut report.tables {
            for line in &mut table.lines {
                line.native = f64::NAN;
                line.engines = vec![None, None];
            }
        }
        let svg = picture(&report);
        assert!(check_xml(&svg) > 10);
    }
}
