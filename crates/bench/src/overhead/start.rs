//! How long a start takes, and what gleaner itself reads and writes for a task.

use super::sides::{Asked, Inputs, idle};
use super::{Bench, Kind};
use crate::stats::{bootstrap, median, percentile};
use crate::{BenchError, Doing as _, Goal, Row};
use gleaner_model::Bytes;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// What ends at once, wherever it runs.
const NO_OP: &str = "/bin/true";
/// Memory of a task that does nothing, in bytes.
const MEMORY: Bytes = Bytes(64 << 20);
/// Seconds that the start of a module is expected to take, and its memory in MiB.
const MODULE_S: f64 = 0.1;
const MODULE_MIB: u32 = 64;
/// Seconds that a start is expected to take, native, in an engine and in a guest.
pub(crate) const USUAL_S: [f64; 3] = [0.002, 0.015, 2.0];

fn no_op(bundle: u64) -> Asked {
    Asked {
        command: vec![NO_OP.to_owned()],
        inputs: Vec::new(),
        image: None,
        bundle,
        memory: MEMORY,
    }
}

fn row(name: &str, times_ms: &[f64], goal: Option<f64>) -> Row {
    let row = Row::new(name, median(times_ms), "ms")
        .interval(bootstrap(times_ms, median))
        .note(format!("p99 {:.1} ms", percentile(times_ms, 0.99)));
    match goal {
        Some(goal) => row.goal(Goal::AtMost(goal)),
        None => row,
    }
}

impl Bench<'_> {
    /// Starts a program that ends at once.
    pub(crate) fn starts(&mut self, starts: u32, in_guests: u32) -> Result<(), BenchError> {
        self.begin(f64::from(starts) * USUAL_S[0], "starts");
        let mut native_ms = Vec::new();
        for _ in 0..starts {
            let started = Instant::now();
            let status = Command::new(NO_OP).stdin(Stdio::null()).status();
            status.doing("start /bin/true")?;
            native_ms.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        let name = "start to end of /bin/true, native, p50";
        self.rows.push(row(name, &native_ms, None));
        for at in 0..self.sides.len() {
            match self.sides[at].kind {
                Kind::Wasm => self.module_starts(at, starts)?,
                Kind::Process => self.process_starts(at, starts)?,
                Kind::UserModeLinux | Kind::Kvm | Kind::Tcg => self.guest_starts(at, in_guests)?,
            }
        }
        Ok(())
    }

    fn process_starts(&mut self, at: usize, starts: u32) -> Result<(), BenchError> {
        let (mut shared_ms, mut fresh_ms) = (Vec::new(), Vec::new());
        self.begin(f64::from(starts) * USUAL_S[1], "starts in the sandbox");
        for round in 0..starts {
            for (bundle, times_ms) in [(1, &mut shared_ms), (u64::from(round) + 2, &mut fresh_ms)] {
                times_ms.push(self.sides[at].run(no_op(bundle), self.options)?.took_ms);
            }
        }
        let name = "start to end of /bin/true, contained, p50";
        self.rows.push(row(name, &shared_ms, Some(5.0)));
        let name = "the same with namespaces of its own, p50";
        self.rows.push(row(name, &fresh_ms, None));
        Ok(())
    }

    /// A module is compiled at its first start; the smallest one shows what a start takes without
    /// loading much code.
    fn module_starts(&mut self, at: usize, starts: u32) -> Result<(), BenchError> {
        let inputs = Inputs::new(self.options)?;
        self.begin(f64::from(starts) * MODULE_S, "starts of a module");
        let (mut all_ms, mut nothing_ms) = (Vec::new(), Vec::new());
        for _ in 0..starts {
            for (input, times_ms) in [
                (inputs.of(Kind::Wasm), &mut all_ms),
                (inputs.nothing(), &mut nothing_ms),
            ] {
                let asked = idle(input, MODULE_MIB);
                times_ms.push(self.sides[at].run(asked, self.options)?.took_ms);
            }
        }
        let name = format!(
            "start to end of a module of {} KiB, {}, p50",
            inputs.module_bytes() >> 10,
            self.sides[at].name
        );
        self.rows.push(row(&name, &all_ms, None));
        let name = format!(
            "the same with a module of 36 bytes, {}, p50",
            self.sides[at].name
        );
        self.rows.push(row(&name, &nothing_ms, None));
        Ok(())
    }

    fn guest_starts(&mut self, at: usize, starts: u32) -> Result<(), BenchError> {
        let goal_ms = match self.sides[at].kind {
            Kind::Kvm => Some(500.0),
            Kind::UserModeLinux => Some(1500.0),
            Kind::Process | Kind::Tcg | Kind::Wasm => None,
        };
        let mut times_ms = Vec::new();
        for _ in 0..starts {
            let what = format!("starts, {}", self.sides[at].name);
            self.begin(USUAL_S[2], &what);
            times_ms.push(self.sides[at].run(no_op(1), self.options)?.took_ms);
        }
        // The goals are of the first instruction, which is before the end.
        let name = format!("start to end of /bin/true, {}, p50", self.sides[at].name);
        self.rows.push(row(&name, &times_ms, goal_ms));
        self.next_starts(at, starts)
    }

    /// Starts of tasks whose guests were booted while the task before them would have run.
    fn next_starts(&mut self, at: usize, starts: u32) -> Result<(), BenchError> {
        let goal_ms = match self.sides[at].kind {
            Kind::Kvm | Kind::UserModeLinux => Some(50.0),
            Kind::Process | Kind::Tcg | Kind::Wasm => None,
        };
        let mut times_ms = Vec::new();
        for _ in 0..starts {
            let what = format!("next starts, {}", self.sides[at].name);
            self.begin(USUAL_S[2], &what);
            let Some(spec) = self.sides[at].prepared(no_op(1), self.options)? else {
                return Ok(());
            };
            times_ms.push(self.sides[at].run_spec(spec, self.options)?.took_ms);
        }
        let name = format!(
            "start to end of /bin/true in a guest booted ahead, {}, p50",
            self.sides[at].name
        );
        self.rows.push(row(&name, &times_ms, goal_ms));
        Ok(())
    }

    /// Bytes that the engine and its shims read and write for a task that does nothing: what is
    /// left when the task's own are none.
    pub(crate) fn extra_io(&mut self, tasks: u32, in_guests: u32) -> Result<(), BenchError> {
        for at in 0..self.sides.len() {
            let (tasks, usual_s) = match self.sides[at].kind {
                Kind::Wasm => continue,
                Kind::Process => (tasks, USUAL_S[1]),
                Kind::UserModeLinux | Kind::Kvm | Kind::Tcg => (in_guests, USUAL_S[2]),
            };
            let what = format!("bytes of gleaner's own, {}", self.sides[at].name);
            self.begin(f64::from(tasks + 1) * usual_s, &what);
            // The first task of a job starts a shim, which others share.
            self.sides[at].run(no_op(1), self.options)?;
            let before = Traffic::of(&self.sides[at].home);
            for _ in 0..tasks {
                self.sides[at].run(no_op(1), self.options)?;
            }
            let (name, after) = (&self.sides[at].name, Traffic::of(&self.sides[at].home));
            let Some((before, after)) = before.zip(after) else {
                continue;
            };
            let each = |before: u64, after: u64| {
                #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
                let bytes = after.saturating_sub(before) as f64;
                bytes / f64::from(tasks) / 1024.0
            };
            let note = format!("engine and shims, {tasks} tasks that do nothing");
            let calls = each(before.calls, after.calls);
            let disk = each(before.disk, after.disk);
            self.rows.push(
                Row::new(
                    &format!("read and written for a task, {name}"),
                    calls,
                    "KiB",
                )
                .note(note.clone()),
            );
            self.rows.push(
                Row::new(&format!("of that to and from disks, {name}"), disk, "KiB").note(note),
            );
        }
        Ok(())
    }

    /// CPU time of a whole guest by the host's count, less that of one that does nothing, against
    /// what the guest's own clock said: near 1 where that clock can be believed.
    pub(crate) fn clock_rows(
        &mut self,
        inputs: &Inputs,
        worked: &[Vec<(f64, f64)>],
        memory_mib: u32,
    ) -> Result<(), BenchError> {
        for (at, worked) in worked.iter().enumerate() {
            if !self.sides[at].kind.is_guest() || worked.is_empty() {
                continue;
            }
            let mut idle_s = Vec::new();
            for _ in 0..3.min(worked.len()) {
                let what = format!("an idle guest, {}", self.sides[at].name);
                let input = inputs.of(self.sides[at].kind);
                self.begin(USUAL_S[2], &what);
                let done = self.sides[at].run(idle(input, memory_mib), self.options)?;
                idle_s.push(done.ending.usage.cpu_seconds);
            }
            let idle_s = median(&idle_s);
            let ratios: Vec<f64> = worked
                .iter()
                .map(|(host_s, guest_s)| (host_s - idle_s) / guest_s)
                .collect();
            let name = format!(
                "host's count of CPU time over the guest's, {}",
                self.sides[at].name
            );
            self.rows.push(
                Row::new(&name, median(&ratios), "x")
                    .interval(bootstrap(&ratios, median))
                    .note(format!("less an idle guest's {idle_s:.2} s")),
            );
        }
        Ok(())
    }
}

/// Bytes that some processes have read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Traffic {
    /// By calls, caches and pipes included.
    calls: u64,
    /// To and from disks.
    disk: u64,
}

impl Traffic {
    /// This process, which has the engine, and the processes whose command line names `home`:
    /// the engine's shims, with those of their children that have ended.
    fn of(home: &Path) -> Option<Self> {
        let word = home.as_os_str().as_encoded_bytes();
        let mut sum = Self::read(Path::new("/proc/self/io"))?;
        for entry in fs::read_dir("/proc").ok()?.flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let named = line.windows(word.len().max(1)).any(|part| part == word);
            let own = entry.file_name().to_str() == Some(std::process::id().to_string().as_str());
            if named && !own {
                // A shim that may not be looked at leaves the answer open.
                let one = Self::read(&entry.path().join("io"))?;
                sum.calls += one.calls;
                sum.disk += one.disk;
            }
        }
        Some(sum)
    }

    fn read(path: &Path) -> Option<Self> {
        Some(Self::parse(&fs::read_to_string(path).ok()?))
    }

    fn parse(text: &str) -> Self {
        let of = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
        };
        Self {
            calls: of("rchar:") + of("wchar:"),
            disk: of("read_bytes:") + of("write_bytes:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_the_kernel_tells_them() {
        let text = "rchar: 100\nwchar: 20\nsyscr: 7\nsyscw: 7\nread_bytes: 4096\nwrite_bytes: 8192\n\
                    cancelled_write_bytes: 1\n";
        let wanted = Traffic {
            calls: 120,
            disk: 12_288,
        };
        assert_eq!(Traffic::parse(text), wanted);
        assert!(Traffic::of(Path::new("/no/such/place")).is_some());
    }
}
