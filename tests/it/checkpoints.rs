//! Does a program that saves itself go on where it was, wherever that is?

use crate::fleet::Fleet;
use crate::pool::{Desk, begun, until};
use serde_json::Value;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// How long a task may take in all, and how often to look.
const DEADLINE: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(200);

/// Steps that each task does; a step takes a tenth of a second at least.
const STEPS: u32 = 100;

/// Counts steps, one line each: how many there are is how far it is, so that any moment will do
/// for a copy. `started` tells at which step each attempt began.
const COUNT: &str = r#"n=0
[ -e lines ] && n=$(wc -l < lines)
echo $n >> started
while [ $n -lt STEPS ]; do
    n=$((n+1))
    echo $n >> lines
    sleep 0.1
done
cksum < lines > sum
"#;

/// The same, but it writes how far it is only when it is told to end, and takes its time for it.
pub(crate) const WHEN_TOLD: &str = r#"n=0
[ -e state ] && n=$(cat state)
echo $n >> started
trap 'sleep 4; echo $n > state; exit 85' TERM
while [ $n -lt STEPS ]; do
    n=$((n+1))
    echo $n >> lines
    sleep 0.1
done
cksum < lines > sum
"#;

pub(crate) fn job(keys: &str, script: &str) -> String {
    let script = script.replace("STEPS", &STEPS.to_string());
    format!(
        "[job]\nname = \"count\"\n[task]\ncommand = [\"sh\", \"-c\", '''\n{script}''']\n\
         outputs = [\"sum\", \"started\"]\n{keys}\n"
    )
}

fn task(fleet: &Fleet, id: &str) -> Value {
    fleet.task(&format!("{id}.0"))
}

/// Waits for the end of a job whose tasks get little of a busy PC.
fn done(fleet: &Fleet, id: &str) {
    let begun = Instant::now();
    while fleet.job(id)["state"] != "done" {
        assert!(begun.elapsed() < DEADLINE, "{}", task(fleet, id));
        thread::sleep(LOOK);
    }
}

/// The steps at which attempts began.
pub(crate) fn began(desk: &Desk) -> Vec<u32> {
    let text = desk.read("out/0/started");
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// What a run that nothing disturbs writes: the steps in order, each once.
pub(crate) fn undisturbed(steps: u32) -> String {
    let desk = Desk::new();
    let steps: String = (1..=steps).map(|step| format!("{step}\n")).collect();
    desk.write("lines", &steps);
    let sum = Command::new("cksum")
        .stdin(File::open(desk.path().join("lines")).unwrap())
        .output();
    String::from_utf8(sum.unwrap().stdout).unwrap()
}

/// Waits until the task was saved after some steps, and says on which node it runs.
fn saved(fleet: &Fleet, id: &str, times: u64) -> usize {
    until("it is saved", || {
        task(fleet, id)["checkpoints"].as_u64() >= Some(times)
    });
    let node = task(fleet, id)["node"].as_str().unwrap().to_owned();
    usize::from(node == "node-1")
}

#[test]
fn a_task_goes_on_elsewhere_when_its_node_dies() {
    let mut fleet = Fleet::start(2);
    let desk = Desk::new();
    let keys = "checkpoint = \"1s\"\ncheckpoint_files = [\"lines\", \"started\"]";
    let id = fleet.submit(&desk, &job(keys, COUNT));
    saved(&fleet, &id, 1);
    // What the server had when it died it has again.
    fleet.restart_server();
    let index = saved(&fleet, &id, 2);
    fleet.agents[index].kill();
    done(&fleet, &id);
    fleet.gleaner(&desk, &["fetch", &id, "out"]).exits(0);
    assert_eq!(desk.read("out/0/sum"), undisturbed(STEPS));
    let began = began(&desk);
    assert!(began.len() == 2 && began[1] > 0, "begun anew: {began:?}");
    let task = task(&fleet, &id);
    let attempts = begun(&task);
    assert_eq!(attempts.len(), 2, "{task}");
    assert_eq!(attempts[0]["state"], "lost", "{task}");
    assert_eq!(attempts[1]["state"], "finished", "{task}");
    assert_eq!(task["went_on_from"], attempts[0]["id"], "{task}");
    assert!(task["checkpoints"].as_u64() > Some(2), "{task}");
}

#[test]
fn an_evicted_task_saves_itself_in_time() {
    let fleet = Fleet::start(2);
    let desk = Desk::new();
    let keys = "checkpoint_files = [\"state\", \"lines\", \"started\"]";
    let id = fleet.submit(&desk, &job(keys, WHEN_TOLD));
    until("it runs", || task(&fleet, &id)["state"] == "running");
    let node = task(&fleet, &id)["node"].as_str().unwrap().to_owned();
    let index = usize::from(node == "node-1");
    until("it has done some steps", || {
        lines(&fleet.agent_data(index)) > 5
    });
    fleet.gleaner(&desk, &["node", &node, "evict"]).exits(0);
    until("it runs elsewhere", || {
        let now = task(&fleet, &id);
        now["state"] == "running" && now["node"] != node.as_str()
    });
    done(&fleet, &id);
    fleet.gleaner(&desk, &["fetch", &id, "out"]).exits(0);
    assert_eq!(desk.read("out/0/sum"), undisturbed(STEPS));
    let began = began(&desk);
    assert!(began.len() == 2 && began[1] > 5, "begun anew: {began:?}");
    let task = task(&fleet, &id);
    let first = &begun(&task)[0];
    assert_eq!(first["state"], "checkpointed", "{task}");
    assert_eq!(task["went_on_from"], first["id"], "{task}");
}

/// Lines of the file `lines` in whatever scratch directory below `dir` has one.
fn lines(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let found = entries.map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => lines(&entry.path()),
        Ok(_) if entry.file_name() == "lines" => {
            fs::read_to_string(entry.path()).map_or(0, |text| text.lines().count())
        }
        _ => 0,
    });
    found.max().unwrap_or(0)
}

#[test]
fn a_program_that_saves_itself_for_ever_ends_with_a_reason() {
    let fleet = Fleet::start(1);
    let desk = Desk::new();
    let script = "echo 1 > state; exit 85";
    let id = fleet.submit(&desk, &job("checkpoint_files = [\"state\"]", script));
    fleet.gleaner(&desk, &["wait", &id]).exits(1);
    let task = task(&fleet, &id);
    assert_eq!(task["state"], "failed", "{task}");
    let reason = task["reason"].as_str().unwrap();
    assert!(reason.contains("same files each time"), "{reason}");
    let made = begun(&task).len();
    assert_eq!(made, 4, "the first, and three that changed nothing");
}

#[test]
fn what_cannot_be_saved_waits_or_is_refused_and_says_why() {
    let fleet = Fleet::start(1);
    let desk = Desk::new();
    desk.write(
        "job.toml",
        "[task]\ncommand = [\"true\"]\ncheckpoint = \"10min\"\n",
    );
    let refused = fleet.gleaner(&desk, &["submit", "job.toml"]).exits(2);
    refused.complains_of(&["task.checkpoint", "checkpoint_files"]);
    let guest = "[task]\ncommand = [\"true\"]\nengine = \"vm\"\ncheckpoint = \"10min\"\n";
    let id = fleet.submit(&desk, guest);
    let why = fleet
        .gleaner(&desk, &["explain", &id, "--json"])
        .exits(0)
        .json();
    let rules: Vec<&str> = why["rules"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|rule| rule["rule"].as_str())
        .collect();
    assert!(rules.contains(&"checkpoint"), "{why}");
    fleet.gleaner(&desk, &["cancel", &id]).exits(0);
}
