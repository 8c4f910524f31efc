//! The guest's program: static, so that it runs where nothing else is, and the tests that need
//! it.
//!
//! No further target of the toolchain is needed: the C library of the host is linked in.

use crate::again;
use crate::debian::{self, Need};
use crate::needs::{KERNEL, QEMU};
use crate::process::{self, Counts, End};
use crate::workspace::{Workspace, cargo_command};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const PACKAGE: &str = "gleaner-guest";

/// Tells agents where the image is.
const IMAGE: &str = "GLEANER_GUEST_DIR";

/// Longest build that somebody waits for.
pub(crate) const BUILD_MAX: Duration = Duration::from_secs(1200);

/// Tells the tests where the program is.
const PROGRAM: &str = "GLEANER_GUEST";

/// Builds the program; where it lies. It has a target directory of its own, since its parts are
/// linked otherwise than everybody else's.
///
/// # Errors
/// It does not build.
pub(crate) fn build(workspace: &Workspace, deadline: Duration) -> Result<PathBuf, String> {
    let target = workspace.target.join("guest");
    let mut command = cargo_command();
    command
        .args(["rustc", "--locked", "--release", "--bin", PACKAGE])
        .args(["-p", PACKAGE, "--target-dir"])
        .arg(&target)
        .args(["--", "-C", "target-feature=+crt-static"])
        // A kernel that starts its first process needs no position independence.
        .args(["-C", "relocation-model=static", "-C", "panic=abort"])
        .current_dir(&workspace.root);
    let outcome = process::run(&mut command, deadline).map_err(|e| format!("cargo: {e}"))?;
    match outcome.end {
        End::Success => Ok(target.join("release").join(PACKAGE)),
        End::Failure(_) | End::Stuck => Err("the guest's program does not build".to_owned()),
    }
}

/// What the tests of guests under QEMU need. The PC's own kernel will do, and only where it has
/// none, as containers have, one is installed: a PC might boot it next time.
fn wishes() -> Vec<Need> {
    let boot = std::fs::read_dir("/boot").into_iter().flatten().flatten();
    let is_kernel = |name: &str| name.starts_with("vmlinuz");
    let mut names = boot.filter_map(|entry| entry.file_name().into_string().ok());
    let own = names.any(|name| is_kernel(&name)) || std::path::Path::new("/lib/modules").exists();
    let all = [QEMU, KERNEL].into_iter();
    all.take(if own { 1 } else { 2 }).collect()
}

/// Builds it and runs the tests of the engine, and those of jobs on it.
///
/// # Errors
/// The program does not build.
pub(crate) fn test(
    workspace: &Workspace,
    long: bool,
    deadline: Instant,
) -> Result<(End, Counts), String> {
    debian::wish(&wishes());
    let left = || deadline.saturating_duration_since(Instant::now());
    let program = build(workspace, left())?;
    let steps: [&[&str]; 3] = [
        &[
            "test",
            "--locked",
            "--no-fail-fast",
            "-p",
            "gleaner-engine-vm",
        ],
        &["build", "--locked", "--bin", "gleaner"],
        &[
            "test",
            "--locked",
            "-p",
            "gleaner-tests",
            "--features=guests",
            "guests::",
        ],
    ];
    let mut counts = Counts::default();
    for step in steps {
        let outcome = again::run(|names| {
            let mut command = cargo_command();
            command
                .args(step)
                .args(again::only(names))
                .env(PROGRAM, &program)
                .env(IMAGE, program.with_file_name("image"));
            if long {
                command.env(process::LONG, "1");
            }
            process::run(&mut command, left())
        });
        let outcome = outcome.map_err(|e| format!("cargo: {e}"))?;
        counts += outcome.counts;
        if outcome.end != End::Success {
            counts.failed = counts.failed.max(1);
            return Ok((outcome.end, counts));
        }
    }
    Ok((End::Success, counts))
}
