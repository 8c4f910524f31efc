//! The suite `uml`: the sandbox's tests again, in a guest that has what users' machines have.
//!
//! A build machine may lack control groups of version 2 or own them otherwise. A user-mode-linux
//! guest over the host's own files boots in a second, has version 2 with delegation, and runs the
//! very test binaries that cargo has built: once as root, once as a plain user.

use crate::again;
use crate::debian;
use crate::process::{self, Counts, End, Outcome};
use crate::workspace::{Workspace, capture, cargo_command};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// Packages whose tests run in the guest.
const PACKAGES: &[&str] = &["gleaner-engine-process"];

/// The plain user in the guest; needs no account.
const PLAIN_UID: u32 = 1001;

/// Memory of the guest; it has one processor.
const MEMORY: &str = "mem=2G";

/// Size of the guest's disk, a sparse file: a real file system, so that page cache is page cache.
const DISK_BYTES: u64 = 2 << 30;

/// A wait status: exit code 1.
const FAILED: i32 = 1 << 8;

/// The line by which the guest says that the tests passed.
const PASSED: &str = "guest: all passed";

/// Boots the guest once for each kind of user.
///
/// # Errors
/// The tests do not build, or the guest cannot be started.
pub(crate) fn run(workspace: &Workspace, deadline: Duration) -> Result<(End, Counts), String> {
    let binaries = binaries(workspace)?;
    let folder = workspace.target.join("uml");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut counts = Counts::default();
    let mut end = End::Success;
    for user in [0, PLAIN_UID] {
        println!("guest with control groups of version 2, tests as uid {user}");
        let outcome = again::run(|names| {
            let text = |log: &Path| script_text(&binaries, (user, names), log);
            guest(&folder, text, deadline)
        })?;
        counts += outcome.counts;
        if outcome.end != End::Success {
            end = outcome.end;
            counts.failed = counts.failed.max(1);
        }
    }
    Ok((end, counts))
}

/// One boot with a script that gets a file to say in how it went.
fn guest(
    folder: &Path,
    text: impl FnOnce(&Path) -> String,
    deadline: Duration,
) -> Result<Outcome, String> {
    let (log, script) = (folder.join("passed"), folder.join("init"));
    // The file of an earlier run must not speak for this one.
    let _: std::io::Result<()> = fs::remove_file(&log);
    write_script(&script, &text(&log))?;
    let disk = make_disk(folder)?;
    let mut outcome =
        process::run(&mut boot(&script, &disk), deadline).map_err(|e| format!("linux.uml: {e}"))?;
    // How the guest ends says nothing of the tests in it.
    let passed = fs::read_to_string(&log).is_ok_and(|text| text.trim() == PASSED);
    if outcome.end != End::Stuck {
        outcome.end = match passed {
            true => End::Success,
            false => End::Failure(ExitStatus::from_raw(FAILED)),
        };
    }
    Ok(outcome)
}

/// The test binaries, built if need be.
fn binaries(workspace: &Workspace) -> Result<Vec<PathBuf>, String> {
    let mut command = cargo_command();
    command.args(["test", "--locked", "--no-run", "--message-format=json"]);
    for package in PACKAGES {
        command.args(["-p", package]);
    }
    let text = capture(command.current_dir(&workspace.root))?;
    Ok(text.lines().filter_map(test_binary).collect())
}

/// The test binary that a message of cargo is about, if it is about one.
fn test_binary(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    (message["profile"]["test"] == true).then_some(())?;
    Some(message["executable"].as_str()?.into())
}

/// A disk with an empty file system.
fn make_disk(folder: &Path) -> Result<PathBuf, String> {
    let path = folder.join("disk");
    fs::File::create(&path)
        .and_then(|file| file.set_len(DISK_BYTES))
        .map_err(|e| format!("{}: {e}", path.display()))?;
    let path_text = path.to_string_lossy();
    let mkfs = debian::find("mkfs.ext4").ok_or("mkfs.ext4 is missing")?;
    capture(Command::new(mkfs).args(["-q", "-F", "-E", "root_owner=0:0", &path_text]))?;
    Ok(path)
}

fn boot(script: &Path, disk: &Path) -> Command {
    let mut command = Command::new("linux.uml");
    command
        .args([MEMORY, "rootfstype=hostfs", "rootflags=/", "rw", "quiet"])
        .args(["con=null", "con0=fd:0,fd:1"])
        .arg(format!("ubd0={}", disk.display()))
        .arg(format!("init={}", script.display()));
    command
}

fn write_script(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(|e| format!("{}: {e}", path.display()))
}

/// What the guest runs as its first program. Everything is written inside the guest, apart from
/// the one line that says how it went: the root is the host's.
fn script_text(binaries: &[PathBuf], (user, names): (u32, &[String]), log: &Path) -> String {
    let only = match names {
        [] => String::new(),
        _ => format!(" --exact '{}'", names.join("' '")),
    };
    let tests: String = binaries
        .iter()
        .map(|binary| {
            let (binary, name) = (binary.display(), name_of(binary));
            format!("cp {binary} /run/bin/{name}\nas_user /run/bin/{name} --test-threads=1{only} || failed=1\n")
        })
        .collect();
    format!(
        "#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
mkdir /run/bin /run/tmp
mknod /run/disk b 98 0
mount -t ext4 /run/disk /run/tmp
chmod 1777 /run/tmp
export TMPDIR=/run/tmp HOME=/run/tmp GLEANER_UML=1
for controller in cpu io memory pids; do
    echo +$controller > /sys/fs/cgroup/cgroup.subtree_control
done
# As a service manager delegates: the group and its files belong to the user.
group=/sys/fs/cgroup/tests.service
mkdir $group $group/agent
chown {user}:{user} $group $group/cgroup.* $group/agent $group/agent/cgroup.*
echo $$ > $group/agent/cgroup.procs
for controller in cpu io memory pids; do
    echo +$controller > $group/cgroup.subtree_control
done
as_user() {{
    setpriv --reuid {user} --regid {user} --clear-groups -- \"$@\"
}}
cd /run/tmp
failed=0
{tests}[ $failed = 0 ] && echo '{PASSED}' > {log}
echo o > /proc/sysrq-trigger
while :; do sleep 1; done
",
        log = log.display(),
    )
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_binaries_are_found_among_cargos_messages() {
        let yes = r#"{"reason":"compiler-artifact","profile":{"test":true},"executable":"/t/x-1"}"#;
        let no = r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":"/t/x"}"#;
        assert_eq!(test_binary(yes), Some("/t/x-1".into()));
        assert_eq!(test_binary(no), None);
        assert_eq!(test_binary("Compiling x"), None);
    }

    #[test]
    fn the_guest_runs_every_binary_as_the_user() {
        let text = script_text(
            &["/t/a-1".into(), "/t/b-2".into()],
            (1001, &["a case".to_owned()]),
            Path::new("/t/passed"),
        );
        let call = "as_user /run/bin/a-1 --test-threads=1 --exact 'a case'";
        assert!(text.contains(call), "{text}");
        assert!(text.contains("as_user /run/bin/b-2"), "{text}");
        assert!(text.contains("--reuid 1001"), "{text}");
    }
}
