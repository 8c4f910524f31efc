//! The same picture as an SVG file. Pure.

use super::ImpactReport;
use super::figures::{Cell, Estimate};
use super::plan::Rule;
use super::plot::{Felt, Panel, felt, panels, place};
use crate::svg::{AREA, BAD, FAINT, OURS, THEIRS, begin, circle, end, f, rect, text};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 20.0;
/// Where bars begin, and how long the whole idle CPU is.
const BAR_X: f64 = 190.0;
const BAR_WIDTH: f64 = 230.0;
/// Where the axis of ratios begins, and its length.
const AXIS_X: f64 = 500.0;
const AXIS_WIDTH: f64 = 270.0;
/// Where the share of waiting stands.
const WAIT_X: f64 = 850.0;
const ROW: f64 = 24.0;
/// Title and heads of a panel.
const HEAD: f64 = 52.0;
const GAP: f64 = 22.0;

/// The picture.
#[must_use]
pub fn picture(report: &ImpactReport) -> String {
    let panels = panels(&report.cells);
    let rows = |panel: &Panel<'_>| HEAD + ROW * f(panel.cells.len()) + GAP;
    let height = 64.0 + panels.iter().map(rows).sum::<f64>();
    let mut svg = begin((WIDTH, height));
    text(
        &mut svg,
        (LEFT, 26.0),
        "17",
        "What the owner feels, and what tasks get of the idle CPU",
    );
    let setting = &report.setting;
    let line = format!(
        "gleaner {} · {} CPUs · {} · {} segments, {} of them disturbed",
        report.version, setting.cpus, setting.groups, setting.segments, setting.dropped
    );
    text(&mut svg, (LEFT, 46.0), "12", &line);
    let mut y = 64.0;
    for panel in &panels {
        draw(&mut svg, panel, y);
        y += rows(panel);
    }
    end(svg)
}

fn draw(svg: &mut String, panel: &Panel<'_>, y: f64) {
    let title = format!("{} beside {} tasks", panel.mix.text(), panel.kind.text());
    text(svg, (LEFT, y + 18.0), "15", &title);
    text(svg, (BAR_X, y + 40.0), "12", "idle CPU harvested");
    let model = panel.mix.models().first().map_or("", |model| model.text());
    let head = format!("{model} p99, times that without tasks (log)");
    text(svg, (AXIS_X, y + 40.0), "12", &head);
    if panel.cells.iter().any(|cell| cell.task_wait.is_some()) {
        text(svg, (WAIT_X, y + 40.0), "12", "waits behind tasks / CPU");
    }
    let height = ROW * f(panel.cells.len());
    if let Some(noise) = panel.noise {
        let (from, to) = span(noise.p99);
        rect(svg, (from, y + HEAD - 4.0), (to - from, height), AREA);
    }
    let one = AXIS_X + AXIS_WIDTH * place(1.0);
    rect(svg, (one - 0.5, y + HEAD - 4.0), (1.0, height), FAINT);
    for (row, cell) in panel.cells.iter().enumerate() {
        draw_cell(
            svg,
            cell,
            panel.noise.map(|noise| noise.p99),
            y + HEAD + ROW * f(row),
        );
    }
}

fn draw_cell(svg: &mut String, cell: &Cell, noise: Option<Estimate>, y: f64) {
    let rule = cell.rule.map_or("", Rule::text);
    let own = cell.rule == Some(Rule::Gleaner);
    text(svg, (LEFT, y + 12.0), "13", rule);
    let harvested = cell.harvested.map_or(0.0, |estimate| estimate.figure);
    let harvested = if harvested.is_finite() {
        harvested.clamp(0.0, 1.0)
    } else {
        0.0
    };
    rect(svg, (BAR_X, y), (BAR_WIDTH, 14.0), "#f3f4f6");
    let fill = if own { OURS } else { THEIRS };
    rect(svg, (BAR_X, y), (BAR_WIDTH * harvested, 14.0), fill);
    let words = format!("{:.0} %", harvested * 100.0);
    text(svg, (BAR_X + BAR_WIDTH + 8.0, y + 12.0), "13", &words);
    let Some(answers) = cell.answers.first() else {
        return;
    };
    let ratio = answers.p99.figure;
    let ink = match felt(answers.p99, noise) {
        Felt::Yes => BAD,
        Felt::No | Felt::Perhaps => fill,
    };
    let (from, to) = span(answers.p99);
    rect(svg, (from, y + 6.0), (to - from, 2.0), ink);
    let x = AXIS_X + AXIS_WIDTH * place(if ratio.is_finite() { ratio } else { 1.0 });
    circle(svg, (x, y + 7.0), 4.5, ink);
    text(
        svg,
        (AXIS_X + AXIS_WIDTH + 12.0, y + 12.0),
        "13",
        &format!("{ratio:.2}"),
    );
    if let Some(wait) = cell.task_wait {
        let words = format!("{:.2} %", wait.figure * 100.0);
        text(svg, (WAIT_X, y + 12.0), "13", &words);
    }
}

/// Both ends of an interval on the axis.
fn span(estimate: Estimate) -> (f64, f64) {
    let x = |ratio: f64| AXIS_X + AXIS_WIDTH * place(ratio);
    (x(estimate.interval.low), x(estimate.interval.high))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::figures::{cells, tests::segment};
    use super::super::plan::{Beside, Kind};
    use super::super::{Setting, gates};
    use super::*;
    use crate::svg::tests::check_xml;

    /// A small report: our engine costs nothing, SCHED_IDLE doubles every time.
    pub(in super::super) fn report() -> ImpactReport {
        let mut segments = Vec::new();
        for round in 0..4 {
            let times: Vec<f64> = (0..100).map(|at| 4.0 + f64::from(at) / 50.0).collect();
            let doubled: Vec<f64> = times.iter().map(|late| late * 2.0).collect();
            let tasks = |rule| Beside::Tasks(Kind::Cpu, rule);
            segments.push(segment(round, Beside::None, times.clone()));
            segments.push(segment(round, Beside::NoneAgain, times.clone()));
            let mut ours = segment(round, tasks(Rule::Gleaner), times);
            ours.tasks_s = 5.1;
            ours.idle_s = 0.1;
            segments.push(ours);
            segments.push(segment(round, tasks(Rule::SchedIdle), doubled));
        }
        let cells = cells(&segments);
        ImpactReport {
            bench: "impact",
            version: "0 <&> \"1\"",
            setting: Setting {
                cpus: 2,
                groups: "cgroup v2",
                priority: "cpu.idle",
                attribution: "sched events".to_owned(),
                segments: segments.len(),
                dropped: 0,
                load: 0.1,
                seconds: 1.0,
            },
            rows: gates::rows(&cells),
            cells,
            segments,
        }
    }

    #[test]
    fn the_picture_is_well_formed() {
        let svg = picture(&report());
        assert!(check_xml(&svg) > 20);
        assert!(svg.contains("SCHED_IDLE, daemon") && svg.contains("98 %"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn a_report_without_answers_is_a_picture_too() {
        let mut report = report();
        for cell in &mut report.cells {
            cell.answers.clear();
            cell.harvested = None;
        }
        assert!(check_xml(&picture(&report)) > 10);
    }
}
