//! Who is an owner of this PC: a uid with an active local session, a member of the group
//! `gleaner`, root, and the uid that the agent itself runs as.
//!
//! The kernel says who is at the other end of a socket; the session manager's files under
//! `/run/systemd/sessions` say who sits in front of the PC. Nothing here talks to a bus.

use std::fs;
use std::path::PathBuf;

/// The group whose members are owners wherever they sit.
const GROUP: &str = "gleaner";

/// Most sessions looked at; a PC with more is no PC.
const SESSIONS_MAX: usize = 1024;

/// Most bytes of a file that is read here.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Who is at the other end, as the kernel says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) pid: Option<i32>,
}

/// Where it is written who is who.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    sessions: PathBuf,
    groups: PathBuf,
    processes: PathBuf,
    /// The uid of the agent.
    own: u32,
}

impl Registry {
    /// This PC's.
    pub(crate) fn of_this_pc() -> Self {
        Self {
            sessions: "/run/systemd/sessions".into(),
            groups: "/etc/group".into(),
            processes: "/proc".into(),
            own: rustix::process::geteuid().as_raw(),
        }
    }

    /// Whether a peer is an owner.
    ///
    /// # Errors
    /// A sentence that says how to become one.
    pub(crate) fn admit(&self, peer: Peer) -> Result<(), String> {
        match self.admits_uid(peer.uid) || self.in_group(peer) {
            true => Ok(()),
            false => Err(format!(
                "user {} is not an owner of this PC: log in at its screen, or use sudo, or have \
                 an admin run `usermod -aG {GROUP} NAME` (and `groupadd --system {GROUP}` where \
                 there is no such group) and log in again",
                peer.uid
            )),
        }
    }

    /// Whether a uid is an owner by itself, whatever groups its programs are in.
    pub(super) fn admits_uid(&self, uid: u32) -> bool {
        uid == 0 || uid == self.own || self.sits_here(uid)
    }

    /// Whether the uid has a session that is active on a seat of this PC.
    fn sits_here(&self, uid: u32) -> bool {
        // A PC without a session manager has no such directory.
        let Ok(entries) = fs::read_dir(&self.sessions) else {
            return false;
        };
        entries
            .flatten()
            .take(SESSIONS_MAX)
            // Beside a session's file lies a pipe, which ends with the session: whoever opens that
            // waits until somebody writes, and nobody does.
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
            .any(|entry| read(entry.path()).is_some_and(|text| is_active_session(&text, uid)))
    }

    fn in_group(&self, peer: Peer) -> bool {
        let Some(group) = read(self.groups.clone()).and_then(|text| gid_of(&text, GROUP)) else {
            return false;
        };
        if peer.gid == group {
            return true;
        }
        let status = peer
            .pid
            .and_then(|pid| read(self.processes.join(pid.to_string()).join("status")));
        // The process may have ended and its number be another's: only one of the same uid counts.
        status.is_some_and(|status| {
            ids(&status, "Uid:").first() == Some(&peer.uid)
                && ids(&status, "Groups:").contains(&group)
        })
    }
}

fn read(path: PathBuf) -> Option<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = fs::File::open(path).ok()?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Whether the session manager's file of a session says: this uid, a person, active, at a seat.
fn is_active_session(text: &str, uid: u32) -> bool {
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    value("UID").and_then(|text| text.parse().ok()) == Some(uid)
        && value("ACTIVE") == Some("1")
        && value("REMOTE") != Some("1")
        && value("CLASS").is_none_or(|class| class.starts_with("user"))
        && value("SEAT").is_some_and(|seat| !seat.is_empty())
}

fn gid_of(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// The numbers after a key of a process' status file.
fn ids(status: &str, key: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = "# This is private data. Do not parse.\nUID=1000\nUSER=ada\nACTIVE=1\n\
                           STATE=active\nREMOTE=0\nTYPE=wayland\nCLASS=user\nSEAT=seat0\n";

    /// A PC with these sessions and groups, whose process 77 has these ids.
    fn pc(sessions: &[&str], status: &str) -> (tempfile::TempDir, Registry) {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry {
            sessions: dir.path().join("sessions"),
            groups: dir.path().join("group"),
            processes: dir.path().join("proc"),
            own: 990,
        };
        fs::create_dir_all(&registry.sessions).unwrap();
        fs::create_dir_all(registry.processes.join("77")).unwrap();
        for (number, text) in sessions.iter().enumerate() {
            fs::write(registry.sessions.join(number.to_string()), text).unwrap();
        }
        fs::write(&registry.groups, "root:x:0:\ngleaner:x:455:ada\nx:y\n").unwrap();
        fs::write(registry.processes.join("77/status"), status).unwrap();
        (dir, registry)
    }

    fn peer(uid: u32) -> Peer {
        Peer {
            uid,
            gid: 100,
            pid: Some(77),
        }
    }

    #[test]
    fn root_the_agent_and_who_sits_in_front_of_it_are_owners() {
        let (_dir, pc) = pc(&[SESSION], "");
        for (uid, owner) in [
            (0, true),
            (990, true),
            (1000, true),
            (1001, false),
            (65_534, false),
        ] {
            assert_eq!(pc.admit(peer(uid)).is_ok(), owner, "{uid}");
        }
    }

    #[test]
    fn a_session_counts_only_while_it_is_active_here_and_of_a_person() {
        for (from, to) in [
            ("ACTIVE=1", "ACTIVE=0"),
            ("REMOTE=0", "REMOTE=1"),
            ("CLASS=user", "CLASS=greeter"),
            ("SEAT=seat0\n", ""),
            ("UID=1000", "UID=10001"),
        ] {
            let (_dir, pc) = pc(&[&SESSION.replace(from, to), "garbage\0\n==", ""], "");
            assert!(pc.admit(peer(1000)).is_err(), "{to}");
        }
    }

    /// Every session has one, open for writing as long as it lasts, and never written to.
    #[test]
    fn the_pipe_beside_a_session_holds_nobody_up() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let (_dir, pc) = pc(&[SESSION], "");
        for name in ["0.ref", "7.ref"] {
            let pipe = pc.sessions.join(name);
            mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
        let (told, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let owners = [1000, 1001].map(|uid| pc.admit(peer(uid)).is_ok());
            told.send(owners).unwrap();
        });
        let owners = heard.recv_timeout(std::time::Duration::from_secs(60));
        assert_eq!(owners, Ok([true, false]));
    }

    #[test]
    fn the_group_counts_wherever_its_members_sit() {
        let status = "Name:\tsh\nUid:\t1001\t1001\t1001\t1001\nGroups:\t4 455 1001 \n";
        let (_dir, pc) = pc(&[], status);
        pc.admit(peer(1001)).unwrap();
        // Another uid's process of that number says nothing.
        pc.admit(peer(1002)).unwrap_err();
        let primary = Peer {
            gid: 455,
            pid: None,
            ..peer(1003)
        };
        pc.admit(primary).unwrap();
    }

    #[test]
    fn a_stranger_is_told_how_to_become_an_owner() {
        let (_dir, pc) = pc(&[], "");
        let sentence = pc.admit(peer(1001)).unwrap_err();
        for word in [
            "1001",
            "log in at its screen",
            "usermod -aG gleaner",
            "sudo",
        ] {
            assert!(sentence.contains(word), "{sentence}");
        }
    }
}
