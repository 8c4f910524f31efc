//! `cargo xtask check`: everything about the sources that can be judged without running them.

use crate::process::Counts;
use crate::workspace::{Workspace, cargo_command};
use crate::{Failure, arrows, deps, documents, sources, tidy};
use std::time::Instant;

/// How much to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What takes seconds: no compiler.
    Fast,
    /// All of it.
    Whole,
}

/// One check: its name, whether it is fast, and what it finds.
struct Check {
    name: &'static str,
    extent: Extent,
    look: fn(&Workspace) -> Vec<String>,
}

const CHECKS: &[Check] = &[
    Check {
        name: "format",
        extent: Extent::Fast,
        look: format,
    },
    Check {
        name: "arrows",
        extent: Extent::Fast,
        look: arrows::check,
    },
    Check {
        name: "tidy",
        extent: Extent::Fast,
        look: tidy,
    },
    Check {
        name: "documents",
        extent: Extent::Fast,
        look: documents,
    },
    Check {
        name: "licences and bans",
        extent: Extent::Fast,
        look: deps::check,
    },
    Check {
        name: "lints",
        extent: Extent::Whole,
        look: lints,
    },
    Check {
        name: "docs",
        extent: Extent::Whole,
        look: docs,
    },
];

/// Runs the checks and prints what they find.
///
/// # Errors
/// Something was found, or the workspace cannot be read.
pub(crate) fn run(extent: Extent) -> Result<(), Failure> {
    let counts = checks(extent)?;
    println!("{} passed, {} failed", counts.passed, counts.failed);
    if counts.failed == 0 {
        Ok(())
    } else {
        Err(Failure::Failed("check: see the findings above".to_owned()))
    }
}

/// The same as a suite of tests: each check counts as one.
///
/// # Errors
/// The workspace cannot be read.
pub(crate) fn checks(extent: Extent) -> Result<Counts, Failure> {
    let workspace = Workspace::load()?;
    let mut counts = Counts::default();
    for check in CHECKS {
        if extent == Extent::Fast && check.extent == Extent::Whole {
            continue;
        }
        let start = Instant::now();
        let found = (check.look)(&workspace);
        let verdict = if found.is_empty() { "ok" } else { "FAILED" };
        println!(
            "check {:<18} {verdict} ({:.1} s)",
            check.name,
            start.elapsed().as_secs_f64()
        );
        for finding in &found {
            println!("  {finding}");
        }
        if found.is_empty() {
            counts.passed += 1;
        } else {
            counts.failed += 1;
        }
    }
    Ok(counts)
}

fn format(workspace: &Workspace) -> Vec<String> {
    cargo_says(
        workspace,
        &["fmt", "--all", "--check"],
        "run `cargo fmt --all`",
    )
}

fn lints(workspace: &Workspace) -> Vec<String> {
    let arguments = [
        "clippy",
        "--quiet",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    cargo_says(workspace, &arguments, "clippy has objections, see above")
}

fn docs(workspace: &Workspace) -> Vec<String> {
    // Binaries have no readers but their help, whose texts are not markdown.
    let arguments = [
        "doc",
        "--quiet",
        "--locked",
        "--workspace",
        "--no-deps",
        "--lib",
    ];
    cargo_says(workspace, &arguments, "rustdoc has objections, see above")
}

fn cargo_says(workspace: &Workspace, arguments: &[&str], advice: &str) -> Vec<String> {
    let status = cargo_command()
        .args(arguments)
        .env("RUSTDOCFLAGS", "-D warnings")
        .current_dir(&workspace.root)
        .status();
    match status {
        Ok(status) if status.success() => Vec::new(),
        Ok(_) => vec![advice.to_owned()],
        Err(error) => vec![format!("cargo {}: {error}", arguments[0])],
    }
}

fn tidy(workspace: &Workspace) -> Vec<String> {
    match sources::walk(&workspace.root, &[".rs"]) {
        Ok(files) => tidy::check(workspace, &files),
        Err(error) => vec![error],
    }
}

fn documents(workspace: &Workspace) -> Vec<String> {
    let endings = [".md", ".toml", ".sh", ".service", ".svg"];
    match sources::walk(&workspace.root, &endings) {
        Ok(files) => documents::check(&workspace.root, &files),
        Err(error) => vec![error],
    }
}
