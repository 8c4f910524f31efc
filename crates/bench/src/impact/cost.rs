//! What the agent itself costs its PC: CPU share and memory, idle and with tasks, from a real pool.

use super::plan::Kind;
use super::work::{Lowered, task_args};
use super::{Stop, proc};
use crate::dispatch::pool::Pool;
use crate::{BenchError, Goal, Row};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time that an agent has after its start before it is looked at.
const SETTLE: Duration = Duration::from_secs(3);
/// Longest wait for the tasks to run.
const RUN_WITHIN: Duration = Duration::from_secs(60);

/// Watches an agent for so many seconds without tasks, and as many with one task a CPU.
pub(crate) fn measure(program: &Path, seconds: u32, stop: &Stop) -> Result<Vec<Row>, BenchError> {
    let mut pool = Pool::start(program)?;
    pool.set_agent("agent", &[])?;
    let Some(agent) = pool.agent_id() else {
        return Ok(Vec::new());
    };
    wait(SETTLE, stop)?;
    let mut rows = watch(agent, seconds, "idle", stop)?;
    let mut command = vec![program.display().to_string()];
    command.extend(task_args(Kind::Cpu, Lowered::No));
    let job = json!({
        "task": { "command": command },
        "sweep": { "i": { "range": [1, proc::cpus()] } },
    });
    let (job, _) = pool.submit(&job)?;
    let deadline = Instant::now() + RUN_WITHIN;
    while pool.call(&["job", &job, "--json"])?["tasks"]["running"] == 0 {
        if Instant::now() > deadline {
            return Err(BenchError::Broken("the agent runs no task".to_owned()));
        }
        wait(Duration::from_millis(200), stop)?;
    }
    wait(SETTLE, stop)?;
    rows.extend(watch(agent, seconds, "with tasks", stop)?);
    Ok(rows)
}

fn wait(time: Duration, stop: &Stop) -> Result<(), BenchError> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        stop.check()?;
        std::thread::sleep(Duration::from_millis(100).min(time));
    }
    Ok(())
}

fn watch(agent: u32, seconds: u32, when: &str, stop: &Stop) -> Result<Vec<Row>, BenchError> {
    let gone = || BenchError::Broken("the agent ended".to_owned());
    let (before_s, _) = proc::cost(agent).ok_or_else(gone)?;
    let started = Instant::now();
    wait(Duration::from_secs(u64::from(seconds)), stop)?;
    let (after_s, rss) = proc::cost(agent).ok_or_else(gone)?;
    let share = (after_s - before_s) / started.elapsed().as_secs_f64() * 100.0;
    #[expect(clippy::cast_precision_loss, reason = "a size of megabytes")]
    let mb = rss as f64 / 1e6;
    let note = format!("over {seconds} s, shims apart");
    Ok(vec![
        Row::new(&format!("agent's own CPU, {when}"), share, "% of a core")
            .goal(Goal::AtMost(0.5))
            .note(note),
        Row::new(&format!("agent's own memory, {when}"), mb, "MB")
            .goal(Goal::AtMost(40.0))
            .note("resident"),
    ])
}
