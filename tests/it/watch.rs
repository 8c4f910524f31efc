//! Does anything run that nobody watches?

use crate::fleet::Fleet;
use crate::pool::{Desk, until};
use std::fs;
use std::process::Command;

/// A job of one task that writes to its stream as long as it runs.
const CHATTER: &str = "[task]\ncommand = [\"sh\", \"-c\", \"while :; do echo x; sleep 0.01; done\"]\n\
     [limits]\nmemory = \"64MiB\"\n";

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// Bytes that the only task of an agent has written so far.
fn written(fleet: &Fleet) -> u64 {
    fn streams(dir: &std::path::Path) -> u64 {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .map(|entry| match entry.file_type() {
                Ok(kind) if kind.is_dir() => streams(&entry.path()),
                Ok(_) if entry.file_name() == "stdout" => {
                    entry.metadata().map_or(0, |data| data.len())
                }
                _ => 0,
            })
            .sum()
    }
    streams(&fleet.agent_data(0).join("process"))
}

/// Waits until nothing is written for longer than a frozen task could be on its way to a stop.
fn stands_still(fleet: &Fleet) {
    let mut last = written(fleet);
    until("the task stands still", || {
        // On purpose: a span in which a frozen program must not write.
        std::thread::sleep(std::time::Duration::from_millis(700));
        let now = written(fleet);
        std::mem::replace(&mut last, now) == now
    });
}

#[test]
fn a_stopped_agent_freezes_its_tasks_and_goes_on_with_them() {
    let fleet = Fleet::start(1);
    let desk = Desk::new();
    let id = fleet.submit(&desk, CHATTER);
    until("it writes", || written(&fleet) > 0);
    let agent = fleet.agents[0].pid();
    signal(agent, "STOP");
    stands_still(&fleet);
    let frozen = written(&fleet);
    signal(agent, "CONT");
    until("it goes on", || written(&fleet) > frozen);
    fleet.gleaner(&desk, &["cancel", &id]).exits(0);
}

#[test]
fn an_admins_pause_and_the_owners_both_count() {
    let fleet = Fleet::start(1);
    let desk = Desk::new();
    let id = fleet.submit(&desk, CHATTER);
    until("it writes", || written(&fleet) > 0);
    let data = fleet.agent_data(0).display().to_string();
    let owner = |word: &str| {
        let _said = fleet
            .gleaner(&desk, &["owner", "--data", &data, word])
            .exits(0);
    };
    fleet.gleaner(&desk, &["node", "1", "pause"]).exits(0);
    stands_still(&fleet);
    owner("pause");
    // The admin lets go; the owner does not.
    fleet.gleaner(&desk, &["node", "1", "resume"]).exits(0);
    stands_still(&fleet);
    let frozen = written(&fleet);
    owner("resume");
    until("it goes on", || written(&fleet) > frozen);
    fleet.gleaner(&desk, &["cancel", &id]).exits(0);
}
