//! Which files of this PC's distribution go into the base image: those of a few packages and of
//! all that they need. Package managers know them, so nothing of the owner's can get in.

use super::{ImageError, run};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Packages in the image where they are installed, besides the essential ones.
const WANTED: [&str; 5] = ["perl", "mawk", "procps", "bc", "xz-utils"];

/// What no program needs to run.
const LEFT_OUT: [&str; 8] = [
    "/usr/share/doc",
    "/usr/share/man",
    "/usr/share/info",
    "/usr/share/locale",
    "/usr/share/lintian",
    "/usr/share/bash-completion",
    "/usr/share/zoneinfo",
    "/usr/lib/systemd",
];

/// Where programs and their data lie.
const KEPT: [&str; 5] = ["/usr", "/bin", "/sbin", "/lib", "/lib64"];

/// One line of the package database.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Package {
    version: String,
    essential: bool,
    /// For each need, the packages that satisfy it.
    needs: Vec<Vec<String>>,
}

/// The packages, with their versions.
pub(super) fn closure() -> Result<BTreeMap<String, String>, ImageError> {
    let format = "${db:Status-Abbrev}\t${Package}\t${Version}\t${Essential}\t${Pre-Depends}, \
                  ${Depends}\n";
    let list = run(
        Command::new("dpkg-query").args(["-W", "-f", format]),
        "dpkg (the base image is made of Debian's or Ubuntu's packages)",
    )?;
    Ok(needed(&parse(&list), &WANTED))
}

fn parse(list: &str) -> BTreeMap<String, Package> {
    let parse = |line: &str| {
        let mut fields = line.split('\t');
        let mut next = || fields.next();
        let installed = next()?.starts_with("ii");
        let name = next()?.to_owned();
        let package = Package {
            version: next()?.to_owned(),
            essential: next()? == "yes",
            needs: next()?.split(',').map(alternatives).collect(),
        };
        installed.then_some((name, package))
    };
    list.lines().filter_map(parse).collect()
}

/// `a (>= 1) | b:any` is satisfied by `a` and by `b`.
fn alternatives(need: &str) -> Vec<String> {
    let name = |one: &str| {
        let name = one.split_whitespace().next()?;
        Some(name.split(':').next().unwrap_or(name).to_owned())
    };
    need.split('|').filter_map(name).collect()
}

fn needed(all: &BTreeMap<String, Package>, wanted: &[&str]) -> BTreeMap<String, String> {
    let essential = all.iter().filter(|(_, package)| package.essential);
    let essential = essential.map(|(name, _)| name.clone());
    let wanted = wanted.iter().map(|&name| name.to_owned());
    let mut left: Vec<String> = essential.chain(wanted).collect();
    let mut found = BTreeMap::new();
    while let Some(name) = left.pop() {
        let Some(package) = all.get(&name) else {
            continue;
        };
        if found.insert(name, package.version.clone()).is_none() {
            let installed =
                |names: &Vec<String>| names.iter().find(|name| all.contains_key(*name)).cloned();
            left.extend(package.needs.iter().filter_map(installed));
        }
    }
    found
}

/// Every path that these packages brought, as the file system has it, without those that are
/// gone or left out. Links of the distribution's alternatives are among them.
pub(super) fn paths(packages: &BTreeMap<String, String>) -> Result<BTreeSet<PathBuf>, ImageError> {
    let list = run(
        Command::new("dpkg-query").arg("-L").args(packages.keys()),
        "dpkg",
    )?;
    let mut paths: BTreeSet<PathBuf> = list.lines().filter_map(real).collect();
    let links = std::fs::read_dir("/etc/alternatives").into_iter().flatten();
    for link in links.flatten().map(|entry| entry.path()) {
        let target = std::fs::read_link(&link).ok();
        let target = target.and_then(|target| real(&target.to_string_lossy()));
        if !target.is_some_and(|target| paths.contains(&target)) {
            continue;
        }
        let name = link.file_name().unwrap_or_default();
        let record = Path::new("/var/lib/dpkg/alternatives").join(name);
        // Its second line is the name by which the program is called.
        let record = std::fs::read_to_string(record).unwrap_or_default();
        if let Some(place) = record.lines().nth(1).and_then(real) {
            paths.insert(place);
            paths.insert(link);
        }
    }
    Ok(paths)
}

/// The path with the links of its directories resolved; none where it is of no use.
fn real(path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    KEPT.iter()
        .any(|kept| path.starts_with(kept))
        .then_some(())?;
    let real = path.parent()?.canonicalize().ok()?.join(path.file_name()?);
    // Top-level names are made elsewhere.
    real.parent()?.parent()?;
    let left_out = LEFT_OUT.iter().any(|left| real.starts_with(left));
    (!left_out && real.symlink_metadata().is_ok()).then_some(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_followed_to_what_is_installed() {
        let list = "ii \tcore\t1\tyes\t, libc6 (>= 2.36) | libc6.1, missing\n\
                    ii \tlibc6\t2\tno\t, \n\
                    ii \tperl\t3\tno\tperl-base (= 3), libc6:any\n\
                    rc \tperl-base\t3\tno\t, \n\
                    ii \tother\t9\tno\t, core\n";
        let found = needed(&parse(list), &["perl", "absent"]);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["core", "libc6", "perl"]);
        assert_eq!(found["libc6"], "2");
    }

    #[test]
    fn paths_are_real_and_only_of_programs() {
        assert_eq!(real("/etc/passwd"), None);
        assert_eq!(real("/usr/no/such/path"), None);
        let sh = real("/bin/sh").unwrap();
        assert!(
            sh.ends_with("bin/sh")
                && sh.parent().unwrap().canonicalize().unwrap() == sh.parent().unwrap()
        );
    }
}
