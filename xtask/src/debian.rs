//! Programs of the distribution that a command needs: found, or installed with their names
//! printed, or asked for.

use crate::Failure;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program and where it comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    /// The program, looked for in PATH; or the absolute path of a file, where a package has no
    /// program.
    pub(crate) program: &'static str,
    /// Package of Debian and Ubuntu that has it.
    pub(crate) package: &'static str,
    /// What it is for; shown before it is installed.
    pub(crate) purpose: &'static str,
}

/// Who we are decides how a package can be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rights {
    /// May install.
    Root,
    /// Needs sudo.
    Plain,
}

/// Sees to it that all these programs are there.
///
/// # Errors
/// [`Failure::Usage`] with the exact command where we may not install, [`Failure::Failed`] where
/// the installation itself fails.
pub(crate) fn ensure(needs: &[Need]) -> Result<(), Failure> {
    let missing: Vec<Need> = needs
        .iter()
        .copied()
        .filter(|need| !there(need.program))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        println!("{} is needed: {}", need.package, need.purpose);
    }
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    if !present("apt-get") {
        return Err(Failure::Usage(format!(
            "please install with your package manager: {}",
            packages.join(" ")
        )));
    }
    let rights = rights();
    if rights == Rights::Plain && !quiet(Command::new("sudo").args(["-n", "true"])) {
        return Err(Failure::Usage(format!(
            "please run: {}",
            by_hand(&packages)
        )));
    }
    println!("installing {}", packages.join(" "));
    // Lists may be absent (a fresh container) or stale, so a failure is tried once more.
    let done = apt(rights, &install(&packages))
        || apt(rights, &["update".to_owned()]) && apt(rights, &install(&packages));
    let still: Vec<&str> = missing
        .iter()
        .filter(|n| !there(n.program))
        .map(|n| n.package)
        .collect();
    if done && still.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "could not install; please run: {}",
        by_hand(&packages)
    )))
}

/// The same for what tests do more with and can do without: says so where it cannot be had.
pub(crate) fn wish(needs: &[Need]) {
    if let Err(Failure::Failed(why) | Failure::Usage(why)) = ensure(needs) {
        println!("goes on without: {why}");
    }
}

fn install(packages: &[&str]) -> Vec<String> {
    let options = [
        "-o",
        "DPkg::Lock::Timeout=120",
        "-qq",
        "-y",
        "--no-install-recommends",
    ];
    let words = ["install"]
        .into_iter()
        .chain(options)
        .chain(packages.iter().copied());
    words.map(str::to_owned).collect()
}

fn by_hand(packages: &[&str]) -> String {
    format!(
        "sudo apt-get update && sudo apt-get install -y {}",
        packages.join(" ")
    )
}

fn apt(rights: Rights, arguments: &[String]) -> bool {
    let mut command = match rights {
        Rights::Root => Command::new("env"),
        Rights::Plain => {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "env"]);
            sudo
        }
    };
    command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn quiet(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether what is needed is there.
fn there(program: &str) -> bool {
    let path = Path::new(program);
    if path.is_absolute() {
        path.exists()
    } else {
        present(program)
    }
}

/// Whether a program is there.
pub(crate) fn present(program: &str) -> bool {
    find(program).is_some()
}

/// Looks in PATH and where administrators' programs lie, which is not in every PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|path| executable(path))
}

fn executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Who we are.
pub(crate) fn rights() -> Rights {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective_uid(&status).map_or(Rights::Plain, |uid| {
        if uid == 0 {
            Rights::Root
        } else {
            Rights::Plain
        }
    })
}

fn effective_uid(status: &str) -> Option<u32> {
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_path() {
        assert!(present("sh"));
        assert!(!present("no-such-program-anywhere"));
        assert!(there("sh") && there("/etc/passwd"));
        assert!(!there("/no/such/file"));
    }

    #[test]
    fn the_second_id_is_the_effective_one() {
        assert_eq!(effective_uid("Name:\tx\nUid:\t1000\t0\t0\t0\n"), Some(0));
        assert_eq!(effective_uid("Name:\tx\n"), None);
    }

    #[test]
    fn nothing_missing_needs_no_rights() {
        let need = Need {
            program: "sh",
            package: "dash",
            purpose: "tests",
        };
        ensure(&[need]).unwrap();
    }

    #[test]
    fn apt_asks_no_questions() {
        let words = install(&["povray"]);
        assert!(words.contains(&"-y".to_owned()));
        assert_eq!(words.last().map(String::as_str), Some("povray"));
    }
}
