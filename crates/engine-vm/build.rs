//! Builds the guest's program and packs it into this crate, so that `gleaner` alone is enough
//! for a pool with guests.
//!
//! Only where the feature `program` is on and the build is one for release: others are rebuilt all
//! day, and find the program that `cargo xtask guest` made. A PC that cannot link statically gets
//! a `gleaner` without it, and a warning.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PACKAGE: &str = "gleaner-guest";

/// What the program is made of, from this crate's directory.
const MADE_OF: [&str; 4] = [
    "build.rs",
    "../guest/src",
    "../guest/Cargo.toml",
    "../../Cargo.lock",
];

fn main() -> Result<(), Box<dyn Error>> {
    for path in MADE_OF {
        println!("cargo:rerun-if-changed={path}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let program = if wanted() {
        built(&out).unwrap_or_else(|why| {
            println!(
                "cargo:warning=this gleaner has no program for guests, since it could not be \
                 linked statically (Debian: libc6-dev; Fedora: glibc-static): {why}"
            );
            Vec::new()
        })
    } else {
        Vec::new()
    };
    fs::write(out.join("program"), program)?;
    Ok(())
}

fn wanted() -> bool {
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    env::var_os("CARGO_FEATURE_PROGRAM").is_some()
        && is("PROFILE", "release")
        && is("CARGO_CFG_TARGET_OS", "linux")
}

/// Flags, compiler, linker and where crates come from are those of the build around us, by its
/// environment. The directory is our own: that of the build is locked while we run.
fn built(out: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let target = env::var("TARGET")?;
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../..");
    let dir = out.join("guest");
    let done = Command::new(env::var("CARGO")?)
        .args(["rustc", "--quiet", "--locked", "--release", "--bin", PACKAGE])
        .args(["-p", PACKAGE, "--target", &target, "--target-dir"])
        .arg(&dir)
        .args(["--", "-C", "target-feature=+crt-static"])
        // A kernel that starts its first process needs no position independence.
        .args(["-C", "relocation-model=static", "-C", "panic=abort"])
        .current_dir(root)
        // Lints are for the build around us.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .stdin(Stdio::null())
        .output()?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let line = said.lines().find(|line| line.starts_with("error"));
        return Err(line.unwrap_or("cargo does not say why").into());
    }
    let program = fs::read(dir.join(target).join("release").join(PACKAGE))?;
    // What it was made with is larger than itself, and made anew with any change.
    fs::remove_dir_all(dir)?;
    Ok(program)
}
