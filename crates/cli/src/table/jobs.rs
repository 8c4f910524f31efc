//! Jobs, many and one.

use super::{Look, ago, listing, name, seconds, state, table, text, tone, toned, took};
use gleaner_api::JobView;

/// What a narrow terminal does without, first to last: user, time it took, running, age.
const SPARE: [usize; 4] = [6, 8, 4, 7];

/// The listing, newest first as it came.
pub(crate) fn list(jobs: &[JobView], look: Look) -> String {
    if jobs.is_empty() {
        return "no jobs yet; `gleaner run -- CMD` or `gleaner submit FILE` makes one\n".into();
    }
    let header = [
        "JOB", "NAME", "STATE", "DONE", "RUNNING", "FAILED", "USER", "AGE", "TOOK",
    ];
    let rows = jobs.iter().map(|job| {
        let failed = match job.tasks.failed {
            0 => toned(0, super::Tone::Plain),
            some => toned(some, super::Tone::Bad),
        };
        let cells = vec![
            job.id.to_string().into(),
            name(look, &job.name),
            state(job.state),
            format!("{}/{}", job.tasks.done, job.task_count).into(),
            job.tasks.running.to_string().into(),
            failed,
            job.user.clone().into(),
            ago(look, &job.submitted).into(),
            took(look, job.started.as_deref(), job.ended.as_deref()).into(),
        ];
        (cells, job.reason.as_str())
    });
    listing(look, &header, rows.collect(), &SPARE)
}

/// One job, a fact a line.
pub(crate) fn one(job: &JobView, look: Look) -> String {
    let counts = &job.tasks;
    let mut rows = table(look, &["JOB", &job.id.to_string()]);
    let word = job.state.to_string();
    let mut fact = |name: &str, value: comfy_table::Cell| {
        rows.add_row(vec![comfy_table::Cell::new(name), value]);
    };
    fact("name", (&job.name).into());
    fact("state", toned(&word, tone(&word)));
    if !job.reason.is_empty() {
        fact("reason", (&job.reason).into());
    }
    fact("user", (&job.user).into());
    fact("priority", job.priority.into());
    for (tag, value) in &job.tags {
        fact("tag", format!("{tag} = {value}").into());
    }
    if let Some(image) = &job.image {
        fact("image", (&image.name).into());
        fact("image file", image.digest.to_string().into());
    }
    fact("tasks", job.task_count.into());
    for (word, count) in [
        ("waiting", counts.waiting),
        ("ready", counts.ready),
        ("running", counts.running),
        ("done", counts.done),
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
    ] {
        if count > 0 {
            fact(&format!("  {word}"), toned(count, tone(word)));
        }
    }
    fact("submitted", (&job.submitted).into());
    if let Some(started) = &job.started {
        fact("started", started.into());
        fact(
            "took",
            took(look, Some(started), job.ended.as_deref()).into(),
        );
    }
    if let Some(ended) = &job.ended {
        fact("ended", ended.into());
    }
    fact("CPU time", seconds(job.cpu_seconds).into());
    if job.checkpoints > 0 {
        fact("checkpoints", job.checkpoints.into());
    }
    text(rows)
}
