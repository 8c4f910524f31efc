//! From an input to tasks that stand still: time until the freeze is written, and until nothing of
//! any task has a CPU any more.

use super::plan::{Chance, Kind};
use super::proc::{self, Machine};
use super::session::{OTHERS_MAX, Session, cpus_f};
use super::work::Record;
use crate::stats::{bootstrap, percentile};
use crate::{BenchError, Goal, Row, Verdict};

/// Time that the tasks run before each input, in milliseconds: between these two.
const RUN_MS: (u64, u64) = (20, 60);

/// Freezes and thaws tasks of these kinds `times` over: two runnable threads a CPU where two
/// kinds are given.
pub(crate) fn measure(
    session: &Session,
    kinds: &[Kind],
    times: u32,
) -> Result<Vec<Row>, BenchError> {
    let (ours, stop) = (session.ours(), session.stop());
    let mut chance = Chance::new(17);
    let (mut written_ms, mut still_ms) = (Vec::new(), Vec::new());
    let before = (Machine::now()?, tasks_s(session, kinds)?);
    for _ in 0..times {
        ours.resume(kinds, stop)?;
        let run_ns = chance.between(RUN_MS.0, RUN_MS.1) * 1_000_000;
        proc::sleep_until(proc::now_ns() + run_ns);
        if let Some(tracer) = session.tracer() {
            tracer.start()?;
        }
        let input_s = proc::seconds(proc::now_ns());
        ours.hold(true);
        written_ms.push(since_ms(input_s));
        // Each is frozen by itself as well, as an agent does it: then all of them stand still.
        ours.pause(kinds, stop)?;
        still_ms.push(match session.tracer() {
            Some(tracer) => {
                let said_ms = since_ms(input_s);
                tracer.stop()?;
                let last_ms = tracer
                    .last_of_tasks()?
                    .map(|at_s| (at_s - input_s) * 1000.0);
                last_ms.unwrap_or(0.0).clamp(0.0, said_ms)
            }
            // What the engine says comes a little later than what it says.
            None => since_ms(input_s),
        });
        ours.hold(false);
    }
    let after = (Machine::now()?, tasks_s(session, kinds)?);
    let window_s = after.0.at_s - before.0.at_s;
    let spare_s = (after.0.idle_s - before.0.idle_s) + (after.0.steal_s - before.0.steal_s);
    let others = cpus_f() - (spare_s + after.1 - before.1) / window_s;
    let means = match session.tracer() {
        Some(_) => "sched events",
        None => "the engine's word",
    };
    let row = |name: &str, values: &[f64], goal: f64| {
        let row = Row::new(name, percentile(values, 0.99), "ms")
            .interval(bootstrap(values, |values| percentile(values, 0.99)))
            .goal(Goal::AtMost(goal));
        // On a busy PC frozen and waiting look alike, and both take their time.
        match row.verdict == Verdict::Missed && others > OTHERS_MAX {
            true => Row {
                verdict: Verdict::CannotTell,
                ..row
            }
            .note(format!(
                "others kept {others:.1} CPUs busy while tasks were frozen"
            )),
            false => row.note(format!(
                "{times} inputs, {} runnable threads a CPU, by {means}; p50 {:.2} ms",
                kinds.len(),
                percentile(values, 0.5)
            )),
        }
    };
    Ok(vec![
        row("input to freeze written, p99", &written_ms, 5.0),
        row("input to no task thread running, p99", &still_ms, 50.0),
    ])
}

fn since_ms(start_s: f64) -> f64 {
    (proc::seconds(proc::now_ns()) - start_s) * 1000.0
}

/// CPU seconds of all tasks of these kinds.
fn tasks_s(session: &Session, kinds: &[Kind]) -> Result<f64, BenchError> {
    let mut sum_ns = 0;
    for kind in kinds {
        let mut outputs = session.ours().outputs(*kind)?;
        let records = outputs.iter_mut().filter_map(Record::read);
        sum_ns += records.map(|record| record.cpu_ns).sum::<u64>();
    }
    Ok(proc::seconds(sum_ns))
}
