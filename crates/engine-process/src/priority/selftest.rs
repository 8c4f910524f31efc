//! Measures, before any work is taken, what a task would take from the owner.
//!
//! One spinner stands where the owner's programs run, one in a group of ours; both are pinned
//! to one CPU and their CPU-time counters are compared. Wall time plays no part, so a loaded PC
//! gives the same answer as a quiet one. The owner's spinner is never a neighbour of ours inside
//! our parent: an idle group loses only against its own neighbours, so a group deep in another
//! would look idle there and still take half of a CPU from the session beside.

use super::place::{Place, Stand};
use super::spin::{Role, SPIN_WORD, Spinner};
use super::{Means, autogroup_on};
use crate::cgroup::{Backend, Group};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// At this share of a contended CPU or more the agent refuses to work: 2 %, in hundredths of a
/// percent. The goal is half of it; an idle group takes about 0.5 %.
const REFUSE_BASIS_POINTS: u32 = 200;

/// One measurement. Long enough for a share of 2 % to be two scheduler slices (3 to 4 ms each):
/// in a shorter one a single slice would look like a failure.
const WINDOW: Duration = Duration::from_millis(400);

/// What a spinner runs before anything is counted. A group's weight on a CPU follows its load
/// there, an average over some 100 ms that still holds where the spinner ran before.
const SETTLE: Duration = Duration::from_millis(150);

/// A median of three is not moved by one disturbed window.
const WINDOWS: usize = 3;

/// Where three are too disturbed or the share is near the limit, more are taken, up to these.
const WINDOWS_MAX: usize = 12;

/// What the two had in one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// CPU time of the owner's spinner.
    pub owner: Duration,
    /// CPU time of the task's spinner.
    pub task: Duration,
    /// Wall time.
    pub window: Duration,
}

impl Sample {
    /// The task's part of what both had, in hundredths of a percent; none where both together
    /// had too little of the window for an answer.
    fn share(self) -> Option<u32> {
        /// Below a tenth of the window a single scheduler slice is more than the limit.
        const LEAST_PART: u32 = 10;
        let both = self.owner + self.task;
        if both.is_zero() || both < self.window / LEAST_PART {
            return None;
        }
        u32::try_from(self.task.as_nanos() * 10_000 / both.as_nanos()).ok()
    }
}

/// What the samples say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Tasks take this share of a contended CPU, in hundredths of a percent: fit for work.
    Fit(u32),
    /// They take this share: not fit.
    Unfit(u32),
    /// Too few windows could be used.
    Unclear,
}

/// Judges by the middle half of the windows, so that a disturbed one decides nothing: of three
/// it is the median. The middle ones are added up, because a scheduler slice is 1 % of a window.
#[must_use]
pub fn verdict(samples: &[Sample]) -> Verdict {
    let mut usable: Vec<(u32, Sample)> = samples
        .iter()
        .filter_map(|sample| Some((sample.share()?, *sample)))
        .collect();
    if usable.len() < WINDOWS {
        return Verdict::Unclear;
    }
    usable.sort_unstable_by_key(|(share, _)| *share);
    let cut = (usable.len() / 4).max(1);
    let middle = usable.get(cut..usable.len() - cut).unwrap_or_default();
    let sum = |of: fn(&Sample) -> Duration| middle.iter().map(|(_, sample)| of(sample)).sum();
    let whole = Sample {
        owner: sum(|sample| sample.owner),
        task: sum(|sample| sample.task),
        window: sum(|sample| sample.window),
    };
    match whole.share() {
        Some(share) if share < REFUSE_BASIS_POINTS => Verdict::Fit(share),
        Some(share) => Verdict::Unfit(share),
        None => Verdict::Unclear,
    }
}

/// Whether more windows would tell more: the share is near the limit, where one slice more or
/// less would turn the verdict.
fn close(samples: &[Sample]) -> bool {
    const NEAR: std::ops::Range<u32> = REFUSE_BASIS_POINTS / 2..REFUSE_BASIS_POINTS * 2;
    match verdict(samples) {
        Verdict::Fit(share) | Verdict::Unfit(share) => NEAR.contains(&share),
        Verdict::Unclear => true,
    }
}

/// How the self-test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Fit for work.
    Passed {
        /// Share of a contended CPU, in hundredths of a percent.
        share: u32,
        /// Whether it was measured since the PC started, and not just now.
        cached: bool,
    },
    /// Not fit: the node is to be listed as refused.
    Refused {
        /// Share of a contended CPU, in hundredths of a percent.
        share: u32,
        /// What was found and what to do about it.
        sentence: String,
    },
    /// It could not be measured; worth another try later, no work until then.
    Unclear {
        /// Why, and what to do.
        sentence: String,
    },
}

/// A self-test that is ready to run.
///
/// It is made before [`Backend::detect`]: that may move a plain user's agent into another group,
/// and the owner's spinner must stay where the owner's session is.
#[derive(Debug)]
pub struct SelfTest {
    exe: PathBuf,
    args: Vec<String>,
    cpu: usize,
    owner: Option<Spinner>,
    /// Our group when the owner's spinner started, as in `/proc/self/cgroup`.
    home: String,
}

/// A result worth keeping until the PC starts again. Only a pass is kept: what was refused may
/// have been put right a moment ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    boot: String,
    place: String,
    share: u32,
}

impl SelfTest {
    /// Gets ready to run `exe` (this program) as a spinner. Costs nothing more until the test is
    /// run: the spinner is started here only for a plain user, who cannot place it later.
    #[must_use]
    pub fn prepare(exe: &Path) -> Self {
        Self::with_args(exe, vec![SPIN_WORD.to_owned()])
    }

    pub(super) fn with_args(exe: &Path, args: Vec<String>) -> Self {
        let cpu = last_cpu();
        let mut test = Self {
            exe: exe.to_path_buf(),
            args,
            cpu,
            owner: None,
            home: fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
        };
        if !rustix::process::geteuid().is_root() {
            test.owner = test.start(Role::Owner).ok();
        }
        test
    }

    fn start(&self, role: Role) -> io::Result<Spinner> {
        Spinner::start(&self.exe, &self.args, role, self.cpu)
    }

    /// Measures, or takes the result of an earlier test of the same group since the PC started
    /// from the `cache` file. Takes two seconds, near the limit five.
    #[must_use]
    pub fn run(mut self, backend: &Backend, cache: Option<&Path>) -> Outcome {
        let means = Means::of(backend);
        let key = (boot_id(), place(backend, means, &self.home));
        if let Some(share) = cache.and_then(|file| kept(file, &key)) {
            return Outcome::Passed {
                share,
                cached: true,
            };
        }
        let samples = match self.measure(backend, means) {
            Ok(samples) => samples,
            Err(error) => {
                return Outcome::Unclear {
                    sentence: format!(
                        "the self-test could not run ({error}); run gleaner doctor to see why"
                    ),
                };
            }
        };
        match verdict(&samples) {
            Verdict::Fit(share) if !protects(backend, means, &self.home) => Outcome::Refused {
                share,
                sentence: refusal(share, means, false),
            },
            Verdict::Fit(share) => {
                if let Some(file) = cache {
                    keep(file, key, share);
                }
                Outcome::Passed {
                    share,
                    cached: false,
                }
            }
            Verdict::Unfit(share) => Outcome::Refused {
                share,
                sentence: refusal(share, means, backend.at_top()),
            },
            Verdict::Unclear => Outcome::Unclear {
                sentence: format!(
                    "CPU {} was too busy to measure on; the agent tries again by itself",
                    self.cpu
                ),
            },
        }
    }

    fn measure(&mut self, backend: &Backend, means: Means) -> io::Result<Vec<Sample>> {
        // Declared before the spinner, so dropped after it: a group is removed when it is empty.
        let mut place = Place::new(Stand::Owner);
        let mut owner = match self.owner.take() {
            Some(owner) => owner,
            None => self.start(Role::Owner)?,
        };
        place.put(backend, &[owner.pid()]);
        let group = backend.create(&format!("try-{}", std::process::id()))?;
        let _cleared = Cleared(&group);
        let mut task = self.start(Role::Task(means))?;
        group.add(task.pid())?;
        task.go()?;
        // On purpose: the scheduler settles before the window opens.
        std::thread::sleep(SETTLE);
        owner.go()?;
        // On purpose: the scheduler settles before the window opens.
        std::thread::sleep(SETTLE);
        let mut samples = Vec::new();
        while samples.len() < WINDOWS_MAX && close(&samples) {
            samples.push(window(&owner, &task)?);
        }
        drop(owner);
        if !wanted_the_cpu(&mut task)? {
            samples.clear();
        }
        Ok(samples)
    }
}

/// Whether the owner's programs lie where our group's priority is compared with them.
///
/// What a group weighs follows its load on each CPU with some delay, so a group that is idle
/// among the wrong neighbours can still measure well for the first seconds. Therefore a group
/// that is not at the top must also have the owner's session below its own anchor.
fn protects(backend: &Backend, means: Means, home: &str) -> bool {
    let by_group = matches!(means, Means::GroupIdle | Means::GroupWeight);
    if !by_group || backend.at_top() {
        return true;
    }
    let (Some(top), Some(parent)) = (backend.cpu_top(), backend.cpu_parent()) else {
        return true;
    };
    let anchor = parent
        .parent()
        .and_then(|anchor| anchor.strip_prefix(top).ok());
    anchor.is_some_and(|anchor| lies_under(home, backend.cpu_key(), anchor))
}

/// Whether a process whose `/proc/PID/cgroup` says `own` is in `anchor` or below.
fn lies_under(own: &str, key: &str, anchor: &Path) -> bool {
    crate::cgroup::own_path(own, key)
        .is_some_and(|path| Path::new(path.trim_start_matches('/')).starts_with(anchor))
}

/// The counter-check: once the owner's spinner is gone, the task's must get the CPU now and then.
/// One that had ended would have passed for perfectly idle. `false` where the rest of the PC
/// leaves it nothing.
fn wanted_the_cpu(task: &mut Spinner) -> io::Result<bool> {
    const PROOF: Duration = Duration::from_micros(500);
    let end = Instant::now() + Duration::from_secs(8);
    let before = task.cpu_time()?;
    while task.cpu_time()?.saturating_sub(before) < PROOF {
        if task.has_ended() {
            return Err(io::Error::other("the task's spinner ended early"));
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(true)
}

fn window(owner: &Spinner, task: &Spinner) -> io::Result<Sample> {
    let (start, owner_at, task_at) = (Instant::now(), owner.cpu_time()?, task.cpu_time()?);
    std::thread::sleep(WINDOW);
    Ok(Sample {
        owner: owner.cpu_time()?.saturating_sub(owner_at),
        task: task.cpu_time()?.saturating_sub(task_at),
        window: start.elapsed(),
    })
}

/// Removes the test's group, whatever happened.
struct Cleared<'a>(&'a Group);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        let _empty = self.0.kill();
        let _gone = self.0.remove();
    }
}

/// The last CPU that we may use: the first ones take most interrupts.
fn last_cpu() -> usize {
    let Ok(cpus) = rustix::thread::sched_getaffinity(None) else {
        return 0;
    };
    (0..rustix::thread::CpuSet::MAX_CPU)
        .rev()
        .find(|cpu| cpus.is_set(*cpu))
        .unwrap_or(0)
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// All that the result depends on besides the running kernel.
fn place(backend: &Backend, means: Means, home: &str) -> String {
    let group = backend
        .cpu_parent()
        .map_or_else(|| "no group".into(), |dir| dir.display().to_string());
    let autogroup = autogroup_on();
    let home = home.trim().replace('\n', " ");
    format!("{group}; {}; autogroup {autogroup}; {home}", means.words())
}

fn kept(file: &Path, key: &(String, String)) -> Option<u32> {
    let kept: Kept = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let same = kept.boot == key.0 && kept.place == key.1 && !key.0.is_empty();
    (same && kept.share < REFUSE_BASIS_POINTS).then_some(kept.share)
}

fn keep(file: &Path, key: (String, String), share: u32) {
    let kept = Kept {
        boot: key.0,
        place: key.1,
        share,
    };
    // A result that is not kept is measured again, that is all.
    if let Ok(text) = serde_json::to_vec(&kept) {
        let _best_effort = fs::write(file, text);
    }
}

/// Hundredths of a percent as a reader wants them.
pub(crate) fn percent(share: u32) -> String {
    format!("{}.{:02} %", share / 100, share % 100)
}

fn refusal(share: u32, means: Means, at_top: bool) -> String {
    let fix = match means {
        Means::GroupIdle | Means::GroupWeight if !at_top => {
            "the group is compared only with its neighbours, not with the owner's session; run \
             the agent as a service: sudo systemctl enable --now gleaner-agent"
        }
        Means::GroupIdle | Means::GroupWeight => {
            "another program may have changed the group's priority, or the kernel is older than \
             5.15; restart the agent, and if that does not help: sudo apt full-upgrade"
        }
        Means::Autogroup => {
            "the session's nice value does not hold; run the agent as a service: sudo systemctl \
             enable --now gleaner-agent"
        }
        Means::Process => {
            "no group and no session can be lowered; run the agent as a service: sudo systemctl \
             enable --now gleaner-agent, or: sudo sysctl kernel.sched_autogroup_enabled=1"
        }
    };
    format!(
        "tasks would take {} of a CPU that the owner wants (limit {}), by {}: {fix}",
        percent(share),
        percent(REFUSE_BASIS_POINTS),
        means.words()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::DetectOptions;
    use std::sync::{Mutex, PoisonError};

    fn sample(owner_us: u64, task_us: u64) -> Sample {
        Sample {
            owner: Duration::from_micros(owner_us),
            task: Duration::from_micros(task_us),
            window: WINDOW,
        }
    }

    #[test]
    fn the_middle_judges() {
        let idle = sample(398_000, 2_000);
        let half = sample(200_000, 200_000);
        let busy = sample(15_000, 15_000);
        let slice = |count: u64| sample(400_000 - 4_000 * count, 4_000 * count);
        for (samples, wanted) in [
            (vec![idle, idle, idle], Verdict::Fit(50)),
            (vec![half, half, half], Verdict::Unfit(5000)),
            (vec![idle, half, idle], Verdict::Fit(50)),
            (vec![half, idle, half], Verdict::Unfit(5000)),
            (vec![half, half, idle, idle], Verdict::Unfit(2525)),
            // Slices of 4 ms, seven in two seconds: 1.4 %, though single windows show 2 %.
            (
                vec![slice(2), slice(1), slice(2), slice(1), slice(1), slice(2)],
                Verdict::Fit(150),
            ),
            (vec![busy, idle, busy, idle, idle], Verdict::Fit(50)),
            (vec![busy; WINDOWS_MAX], Verdict::Unclear),
            (vec![idle, idle], Verdict::Unclear),
            (vec![sample(0, 0); 3], Verdict::Unclear),
            (vec![sample(98_000, 2_000); 3], Verdict::Unfit(200)),
            (vec![sample(98_010, 1_990); 3], Verdict::Fit(199)),
            // A PC under load twelve times over: little for both, the same ratio.
            (vec![sample(39_800, 200); 3], Verdict::Fit(50)),
        ] {
            assert_eq!(verdict(&samples), wanted, "{samples:?}");
        }
    }

    #[test]
    fn more_is_measured_near_the_limit_only() {
        let clear = sample(398_000, 2_000);
        let near = sample(394_000, 6_000);
        assert!(close(&[clear, clear]), "two are too few");
        assert!(!close(&[clear, clear, clear]));
        assert!(close(&[near, near, near]));
        assert!(!close(&[sample(200_000, 200_000); 3]));
    }

    #[test]
    fn every_refusal_names_a_command() {
        let all = [
            Means::GroupIdle,
            Means::GroupWeight,
            Means::Autogroup,
            Means::Process,
        ];
        for (means, at_top) in all
            .into_iter()
            .flat_map(|means| [(means, false), (means, true)])
        {
            let text = refusal(5000, means, at_top);
            assert!(text.contains("50.00 %") && text.contains("sudo "), "{text}");
        }
    }

    #[test]
    fn a_pass_is_kept_for_its_boot_and_place_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("selftest.json");
        let key = |boot: &str, place: &str| (boot.to_owned(), place.to_owned());
        assert_eq!(kept(&file, &key("b", "p")), None);
        keep(&file, key("b", "p"), 60);
        assert_eq!(kept(&file, &key("b", "p")), Some(60));
        assert_eq!(kept(&file, &key("c", "p")), None);
        assert_eq!(kept(&file, &key("b", "q")), None);
        keep(&file, key("b", "p"), 5000);
        assert_eq!(
            kept(&file, &key("b", "p")),
            None,
            "a refusal is measured again"
        );
        fs::write(&file, "{ broken").unwrap();
        assert_eq!(kept(&file, &key("b", "p")), None);
    }

    /// Not a test of anything when run by itself: the self-tests below start this test program
    /// again with only this in it, as `gleaner` starts itself.
    #[test]
    fn spinner_child() {
        let spinner = std::env::var_os("GLEANER_SPIN").is_some();
        if spinner {
            assert_eq!(super::super::spin_main(), std::process::ExitCode::SUCCESS);
        }
        assert!(spinner || !super::super::is_spin_call(&[]));
    }

    /// Tests that spin take turns: they would use the same CPU.
    static TURN: Mutex<()> = Mutex::new(());

    fn test_here() -> SelfTest {
        let name = "priority::selftest::tests::spinner_child";
        let args = ["--exact", name, "--nocapture", "--test-threads=1"];
        let exe = std::env::current_exe().unwrap();
        SelfTest::with_args(&exe, args.map(str::to_owned).into())
    }

    #[test]
    fn the_group_found_here_is_fit_or_refused_with_a_reason() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let test = test_here();
        let options = DetectOptions {
            parent_name: format!("gleaner-selftest-{}", std::process::id()),
            ..DetectOptions::default()
        };
        let backend = Backend::detect(&options);
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("selftest.json");
        let outcome = test.run(&backend, Some(&cache));
        println!(
            "{} at top {}: {outcome:?}",
            backend.name(),
            backend.at_top()
        );
        match &outcome {
            Outcome::Passed { share, cached } => {
                assert!(*share < REFUSE_BASIS_POINTS && !cached);
                assert_eq!(
                    test_here().run(&backend, Some(&cache)),
                    Outcome::Passed {
                        share: *share,
                        cached: true
                    }
                );
            }
            // A group at the top with cpu.idle is fit on every kernel; elsewhere it depends.
            Outcome::Refused { sentence, .. } => {
                assert!(!backend.at_top() || backend.idle() == crate::cgroup::IdleMeans::None);
                assert!(sentence.contains("sudo "), "{sentence}");
            }
            Outcome::Unclear { sentence } => {
                assert!(sentence.contains("busy"), "{sentence}");
            }
        }
        backend.remove_parent().unwrap();
    }

    #[test]
    fn an_owner_outside_the_anchor_is_not_protected() {
        let v2 = "0::/user.slice/user-7.slice/session-2.scope\n";
        let v1 = "4:cpu,cpuacct:/a/b\n0::/elsewhere\n";
        let anchor = Path::new("user.slice/user-7.slice/user@7.service");
        for (own, key, anchor, inside) in [
            (v2, "", anchor, false),
            (v2, "", Path::new("user.slice/user-7.slice"), true),
            (v2, "", Path::new("user.slice/user-7"), false),
            (v2, "", Path::new(""), true),
            (v1, "cpu", Path::new("a"), true),
            (v1, "cpu", Path::new("elsewhere"), false),
        ] {
            assert_eq!(lies_under(own, key, anchor), inside, "{own} {anchor:?}");
        }
    }

    #[test]
    fn two_equals_are_refused() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // Both spinners as owner: what a daemon at normal priority would take.
        let test = test_here();
        let (mut one, mut other) = (
            test.start(Role::Owner).unwrap(),
            test.start(Role::Owner).unwrap(),
        );
        one.go().unwrap();
        other.go().unwrap();
        // On purpose: the scheduler settles before the window opens.
        std::thread::sleep(SETTLE);
        let samples: Vec<Sample> = (0..WINDOWS_MAX)
            .map(|_| window(&one, &other).unwrap())
            .collect();
        match verdict(&samples) {
            Verdict::Unfit(share) => assert!(share > 2000, "{share}"),
            Verdict::Unclear => assert!(samples.iter().any(|sample| sample.share().is_none())),
            Verdict::Fit(share) => panic!("equals share alike, not {share}"),
        }
    }
}
