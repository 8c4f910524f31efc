//! What engines cost: a table for each part of the benchmark, and the promises below.

use super::bench::{figure, promises};
use super::{Look, Tone, table, text, toned};
use comfy_table::{Cell, CellAlignment};
use gleaner_bench::overhead::{Line, OverheadReport, Table, named};

/// From this ratio on, an engine is clearly dearer than native.
const DEAR: f64 = 1.2;

/// The whole report.
pub(crate) fn report(report: &OverheadReport, look: Look) -> String {
    let setting = &report.setting;
    let mut shown = String::new();
    for table in &report.tables {
        shown.push_str(table.group.title());
        shown.push('\n');
        shown.push_str(&one(table, &setting.engines, look));
        shown.push('\n');
    }
    shown.push_str(&promises(&report.rows, look));
    if let Some(blas) = &setting.blas {
        shown.push_str("BLAS: ");
        shown.push_str(blas);
        shown.push('\n');
    }
    for why in &setting.missing {
        shown.push_str("not measured: ");
        shown.push_str(why);
        shown.push('\n');
    }
    if setting.busy {
        shown.push_str("Others used this PC: these figures say little.\n");
    }
    shown
}

fn one(part: &Table, engines: &[String], look: Look) -> String {
    let mut heads = vec!["WHAT".to_owned(), "UNIT".to_owned(), "NATIVE".to_owned()];
    for engine in engines {
        heads.push(engine.to_uppercase());
        heads.push("TIMES NATIVE".to_owned());
    }
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    let mut rows = table(look, &heads);
    for line in &part.lines {
        rows.add_row(cells(line));
    }
    text(rows)
}

fn cells(line: &Line) -> Vec<Cell> {
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut cells = vec![
        Cell::new(named(line)),
        Cell::new(line.unit),
        right(figure(line.native)),
    ];
    for own in &line.engines {
        let Some(own) = own else {
            cells.extend([right("–".to_owned()), Cell::new("")]);
            continue;
        };
        let ratio = format!(
            "{} ({}–{})",
            figure(own.ratio),
            figure(own.interval.low),
            figure(own.interval.high)
        );
        let tone = match own.interval.low > DEAR {
            true => Tone::Held,
            false => Tone::Plain,
        };
        cells.extend([right(figure(own.figure)), toned(&ratio, tone)]);
    }
    cells
}
