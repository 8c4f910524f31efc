//! Tasks of a job, and one task with its attempts.

use super::{Look, listing, name, seconds, state};
use gleaner_api::{TaskDetail, TaskView};
use gleaner_model::Engine;

/// What a narrow terminal does without, first to last: tries, CPU time, wall time, exit code.
const SPARE: [usize; 4] = [4, 6, 7, 5];

/// A page of tasks.
pub(crate) fn list(tasks: &[TaskView], look: Look) -> String {
    let header = [
        "TASK", "NAME", "STATE", "NODE", "TRIES", "CODE", "CPU", "WALL",
    ];
    let rows = tasks.iter().map(|task| {
        let cells = vec![
            task.id.to_string().into(),
            name(look, &task.name),
            state(task.state),
            task.node.as_deref().unwrap_or("").into(),
            task.attempts.into(),
            task.exit_code
                .map(|code| code.to_string())
                .unwrap_or_default()
                .into(),
            seconds(task.cpu_seconds).into(),
            seconds(task.wall_seconds).into(),
        ];
        (cells, task.reason.as_str())
    });
    listing(look, &header, rows.collect(), &SPARE)
}

/// One task: its line, and what became of each attempt.
pub(crate) fn one(detail: &TaskDetail, look: Look) -> String {
    let task = &detail.task;
    let mut shown = list(std::slice::from_ref(task), look);
    if let (count @ 1.., Some(last)) = (task.checkpoints, &task.checkpoint) {
        let saved = match count {
            1 => format!("saved once, in attempt {last}\n"),
            _ => format!("saved {count} times, last in attempt {last}\n"),
        };
        shown.push_str(&saved);
    }
    if detail.attempts_made.is_empty() {
        return shown;
    }
    let header = ["ATTEMPT", "STATE", "NODE", "PEAK MEMORY"];
    let rows = detail.attempts_made.iter().map(|attempt| {
        let peak = attempt
            .record
            .as_ref()
            .map(|record| gleaner_model::Bytes(record.usage.memory_peak).to_string());
        let cells = vec![
            (&attempt.id).into(),
            state(&attempt.state),
            (&attempt.node).into(),
            peak.unwrap_or_default().into(),
        ];
        (cells, attempt.reason.as_str())
    });
    shown.push('\n');
    shown.push_str(&listing(look, &header, rows.collect(), &[3]));
    for attempt in &detail.attempts_made {
        let Some(record) = &attempt.record else {
            continue;
        };
        let passed = record.limits.iter().filter(|held| held.at.is_some());
        let limits = passed.map(|held| {
            let shown = |value| super::of_limit(held.limit, value);
            format!(
                "limit {} is {}, was {}: {}",
                held.limit,
                shown(held.value),
                shown(held.peak),
                held.action
            )
        });
        let calls = &record.refused_calls;
        let refused = calls
            .iter()
            .map(|(call, count)| format!("refused {call} {count} times"));
        let degraded = record
            .degraded
            .iter()
            .map(|words| format!("degraded: {words}"));
        let from = record.went_on_from;
        let went_on = from.map(|from| format!("went on from attempt {from}"));
        // What tasks run in, unless they or their jobs ask for more.
        let engine = record.engine.filter(|engine| *engine != Engine::Process);
        let ran_in = engine.map(|engine| format!("ran in the engine {}", engine.as_str()));
        for sentence in ran_in
            .into_iter()
            .chain(went_on)
            .chain(limits)
            .chain(refused)
            .chain(degraded)
        {
            shown.extend([attempt.id.as_str(), ": ", &sentence, "\n"]);
        }
    }
    shown
}
