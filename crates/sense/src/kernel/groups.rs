//! Which control groups are the owner's: all that are not ours, nor above ours.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Most groups that are looked at; a PC has a handful beside ours.
const GROUPS_MAX: usize = 32;

/// The largest groups of version 2 below `root` that hold nothing of ours, given our own groups.
/// Empty where ours are not among them, so nobody can tell.
pub(super) fn of_owner(root: &Path, own: &[PathBuf]) -> Vec<PathBuf> {
    let ours: Vec<&PathBuf> = own
        .iter()
        .filter(|group| group.starts_with(root) && *group != root)
        .collect();
    let mut above: BTreeSet<&Path> = BTreeSet::new();
    for group in &ours {
        let up = group.ancestors().skip(1);
        above.extend(up.take_while(|path| path.starts_with(root)));
    }
    let mut found = Vec::new();
    for parent in above {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let path = entry.path();
            let holds_ours = ours.iter().any(|group| group.starts_with(&path));
            if !holds_ours && path.join("cpu.pressure").exists() && found.len() < GROUPS_MAX {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(groups: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for group in groups {
            let path = root.path().join(group);
            fs::create_dir_all(&path).unwrap();
            for level in path.ancestors().take_while(|level| *level != root.path()) {
                fs::write(level.join("cpu.pressure"), "").unwrap();
            }
        }
        root
    }

    fn names(root: &Path, own: &[&str]) -> Vec<String> {
        let own: Vec<PathBuf> = own.iter().map(|name| root.join(name)).collect();
        of_owner(root, &own)
            .iter()
            .map(|path| path.strip_prefix(root).unwrap().display().to_string())
            .collect()
    }

    #[test]
    fn a_system_service() {
        let tree = tree(&[
            "user.slice/user-1000.slice",
            "system.slice",
            "gleaner.slice/a-1",
        ]);
        let found = names(tree.path(), &["gleaner.slice"]);
        assert_eq!(found, ["system.slice", "user.slice"]);
    }

    #[test]
    fn a_plain_users_agent() {
        let manager = "user.slice/user-1000.slice/user@1000.service";
        let tree = tree(&[
            "system.slice",
            "user.slice/user-1000.slice/session-2.scope",
            &format!("{manager}/app.slice"),
            &format!("{manager}/gleaner.slice"),
        ]);
        let found = names(tree.path(), &[&format!("{manager}/gleaner.slice")]);
        let expected = [
            "system.slice",
            "user.slice/user-1000.slice/session-2.scope",
            &format!("{manager}/app.slice"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn groups_of_the_other_version_tell_nothing() {
        let tree = tree(&["system.slice"]);
        assert_eq!(of_owner(tree.path(), &[]), [] as [PathBuf; 0]);
        let elsewhere = [PathBuf::from("/sys/fs/cgroup/cpu/gleaner.slice")];
        assert_eq!(of_owner(tree.path(), &elsewhere), [] as [PathBuf; 0]);
    }
}
