//! Tasks of a job, and one task with its attempts.

use super::{Look, seconds, state, table, text};
use gleaner_api::{TaskDetail, TaskView};

/// A page of tasks.
pub(crate) fn list(tasks: &[TaskView], look: Look) -> String {
    let header = [
        "TASK", "NAME", "STATE", "NODE", "TRIES", "CODE", "CPU", "WALL", "REASON",
    ];
    let mut rows = table(look, &header);
    for task in tasks {
        rows.add_row(vec![
            task.id.to_string().into(),
            (&task.name).into(),
            state(task.state),
            task.node.as_deref().unwrap_or("").into(),
            task.attempts.into(),
            task.exit_code
                .map(|code| code.to_string())
                .unwrap_or_default()
                .into(),
            seconds(task.cpu_seconds).into(),
            seconds(task.wall_seconds).into(),
            comfy_table::Cell::new(&task.reason),
        ]);
    }
    text(rows)
}

/// One task: its line, and what became of each attempt.
pub(crate) fn one(detail: &TaskDetail, look: Look) -> String {
    let task = &detail.task;
    let mut shown = list(std::slice::from_ref(task), look);
    if let (count @ 1.., Some(last)) = (task.checkpoints, &task.checkpoint) {
        let saved = format!("saved {count} times, last in attempt {last}\n");
        shown.push_str(&saved);
    }
    if detail.attempts_made.is_empty() {
        return shown;
    }
    let header = ["ATTEMPT", "STATE", "NODE", "PEAK MEMORY", "REASON"];
    let mut rows = table(look, &header);
    for attempt in &detail.attempts_made {
        let peak = attempt
            .record
            .as_ref()
            .map(|record| gleaner_model::Bytes(record.usage.memory_peak).to_string());
        rows.add_row(vec![
            (&attempt.id).into(),
            state(&attempt.state),
            (&attempt.node).into(),
            peak.unwrap_or_default().into(),
            comfy_table::Cell::new(&attempt.reason),
        ]);
    }
    shown.push('\n');
    shown.push_str(&text(rows));
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
        for sentence in went_on
            .into_iter()
            .chain(limits)
            .chain(refused)
            .chain(degraded)
        {
            shown.extend([attempt.id.as_str(), ": ", &sentence, "\n"]);
        }
    }
    shown
}
