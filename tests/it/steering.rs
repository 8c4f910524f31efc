//! Do listings show, and commands change, what runs?

use crate::fleet::Fleet;
use crate::pool::{Desk, Pool, begun, command, id_of, outcome, signal, until};
use serde_json::json;
use std::process::Stdio;

const SLEEPER: &str = "[job]\nname = \"sleeper\"\n[task]\ncommand = [\"sleep\", \"600\"]\n";

#[test]
fn whatever_is_steered_is_told_as_listings_tell_it() {
    let (pool, desk) = (Pool::shared(), Desk::new());
    let nowhere = "[require]\nlabels = { nobody = \"has\" }\n";
    desk.write("waits.toml", &format!("{SLEEPER}{nowhere}"));
    let job = pool.gleaner(&desk, &["submit", "waits.toml", "--json"]);
    let id = job.exits(0).json()["id"].clone();
    let id_text = id.to_string();
    let task = format!("{id}.0");
    for (verb, target, state, touched) in [
        ("pause", &id_text, "paused", 1),
        ("resume", &id_text, "waiting", 1),
        ("cancel", &task, "cancelled", 1),
        ("retry", &task, "ready", 1),
        ("cancel", &id_text, "cancelled", 1),
        ("delete", &id_text, "cancelled", 1),
    ] {
        let told = pool.gleaner(&desk, &[verb, target, "--json"]);
        let told = told.exits(0).json();
        let is_task = *target == task;
        let name = if is_task { "" } else { "sleeper" };
        let told_id = if is_task { json!(task) } else { id.clone() };
        let all = json!({ "id": told_id, "name": name, "state": state, "touched": touched });
        assert_eq!(told, all, "{verb}");
    }
}

#[test]
fn listings_have_id_name_and_state() {
    let (pool, desk) = (Pool::shared(), Desk::new());
    let older = pool
        .submit_and_wait(
            &desk,
            "[job]\nname = \"older\"\n[task]\ncommand = [\"true\"]\n",
        )
        .0;
    let newer = pool
        .submit_and_wait(
            &desk,
            "[job]\nname = \"newer\"\n[task]\ncommand = [\"true\"]\n",
        )
        .0;
    let jobs = pool.gleaner(&desk, &["jobs", "--json"]).exits(0).json();
    let at = |id: &str| {
        jobs.as_array()
            .unwrap()
            .iter()
            .position(|job| id_of(job) == id)
            .unwrap()
    };
    assert!(at(&newer) < at(&older), "newest first");
    assert_eq!(jobs[at(&newer)]["state"], "done");
    assert_eq!(jobs[at(&newer)]["name"], "newer");
    // Either node may have run it; both have a history of their own.
    let mut history = Vec::new();
    for node in ["node-1", "node-2"] {
        let data = pool.config().with_file_name(node);
        let asked = ["owner", "--data", data.to_str().unwrap(), "history"];
        let lines = pool.gleaner(&desk, &[&asked[..], &["--json"]].concat());
        history.extend(lines.exits(0).json().as_array().unwrap().clone());
    }
    let of_newer = history.iter().find(|line| line["name"] == "newer").unwrap();
    assert_eq!(of_newer["state"], "working");
    assert!(id_of(of_newer).starts_with(&format!("{newer}@")));
    let quiet = pool.gleaner(&desk, &["jobs", "--quiet"]).exits(0).stdout;
    assert!(quiet.lines().any(|line| line == newer), "{quiet}");
    let tasks = pool
        .gleaner(&desk, &["tasks", &newer, "--quiet"])
        .exits(0)
        .stdout;
    assert_eq!(tasks, format!("{newer}.0\n"));
    for node in pool
        .gleaner(&desk, &["nodes", "--json"])
        .exits(0)
        .json()
        .as_array()
        .unwrap()
    {
        assert!(
            node["name"].is_string() && node["state"] == "online",
            "{node}"
        );
    }
}

#[test]
fn logs_are_stdout_and_then_stderr() {
    let (pool, desk) = (Pool::shared(), Desk::new());
    let job = "[task]\ncommand = [\"sh\", \"-c\", \"echo err >&2; echo out\"]\n";
    let id = pool.submit_and_wait(&desk, job).0;
    let logs = pool.gleaner(&desk, &["logs", &format!("{id}.0")]).exits(0);
    assert_eq!(logs.stdout, "out\nerr\n");
}

#[test]
fn logs_follow_a_running_task() {
    let (pool, desk) = (Pool::shared(), Desk::new());
    let job =
        "[task]\ncommand = [\"sh\", \"-c\", \"for i in 1 2 3; do echo $i; sleep 0.3; done\"]\n";
    let id = pool.submit(&desk, job);
    let logs = pool
        .gleaner(&desk, &["logs", "-f", &format!("{id}.0")])
        .exits(0);
    assert_eq!(logs.stdout, "1\n2\n3\n");
}

#[test]
fn cancel_ends_what_runs() {
    let (pool, desk) = (Pool::shared(), Desk::new());
    let id = pool.submit(&desk, SLEEPER);
    pool.wait_for_state(&id, "running");
    pool.gleaner(&desk, &["cancel", &id]).exits(0);
    pool.wait_for_state(&id, "cancelled");
    assert_eq!(pool.tasks(&id)[0]["state"], "cancelled");
    pool.gleaner(&desk, &["wait", &id]).exits(1);
}

#[test]
fn a_paused_job_starts_nothing_until_it_is_resumed() {
    let pool = Pool::start(1);
    let desk = Desk::new();
    let blocker = pool.submit(
        &desk,
        "[task]\ncommand = [\"sleep\", \"600\"]\n[limits]\ncpus = 1\nmemory = \"1MiB\"\n",
    );
    pool.wait_for_state(&blocker, "running");
    let id = pool.submit(
        &desk,
        "[task]\ncommand = [\"echo\", \"{i}\"]\n[sweep]\ni = { range = [1, 50] }\n",
    );
    pool.gleaner(&desk, &["pause", &id]).exits(0);
    assert_eq!(pool.job(&id)["state"], "paused");
    pool.gleaner(&desk, &["cancel", &blocker]).exits(0);
    pool.wait_for_state(&blocker, "cancelled");
    // What was granted before the pause ends as it would; then nothing moves.
    until("nothing of it runs", || {
        pool.job(&id)["tasks"]["running"] == 0
    });
    let before = pool.job(&id)["tasks"].clone();
    pool.gleaner(&desk, &["run", "--", "true"]).exits(0);
    assert_eq!(pool.job(&id)["tasks"], before);
    pool.gleaner(&desk, &["resume", &id]).exits(0);
    pool.gleaner(&desk, &["wait", &id]).exits(0);
}

#[test]
fn retry_runs_what_failed() {
    let (pool, desk) = (Pool::shared(), Desk::new());
    let job = "[task]\ncommand = [\"sh\", \"-c\", \"exit {i}\"]\n[sweep]\ni = { range = [0, 2] }\n[retry]\nattempts = 1\n";
    let (id, out) = pool.submit_and_wait(&desk, job);
    out.exits(1);
    assert_eq!(pool.job(&id)["tasks"]["failed"], 2);
    pool.gleaner(&desk, &["retry", &id]).exits(0);
    pool.gleaner(&desk, &["wait", &id]).exits(1);
    for (index, times) in [(0, 1), (1, 2)] {
        let task = pool.task(&format!("{id}.{index}"));
        assert_eq!(begun(&task).len(), times, "{task}");
    }
}

#[test]
fn a_deleted_job_is_gone_and_its_neighbour_stays() {
    let (pool, desk) = (Pool::shared(), Desk::new());
    let job = |name: &str| {
        format!("[job]\nname = \"{name}\"\n[task]\ncommand = [\"echo\", \"{name}\"]\n")
    };
    let id = pool.submit_and_wait(&desk, &job("doomed")).0;
    let neighbour = pool.submit_and_wait(&desk, &job("neighbour")).0;
    let running = pool.submit(&desk, SLEEPER);
    pool.gleaner(&desk, &["delete", &running])
        .exits(4)
        .complains_of(&["cancel"]);
    pool.gleaner(&desk, &["delete", &id]).exits(0);
    for command in ["job", "logs", "fetch", "delete"] {
        pool.gleaner(&desk, &[command, &id])
            .exits(4)
            .complains_of(&[&id]);
    }
    let jobs = pool.gleaner(&desk, &["jobs", "--quiet"]).exits(0).stdout;
    assert!(jobs.lines().all(|line| line != id), "{jobs}");
    let logs = pool.gleaner(&desk, &["logs", &format!("{neighbour}.0")]);
    assert_eq!(logs.exits(0).stdout, "neighbour\n");
    pool.gleaner(&desk, &["cancel", &running]).exits(0);
}

#[test]
fn a_task_for_a_guest_waits_where_no_node_has_any() {
    let fleet = Fleet::start(1);
    let desk = Desk::new();
    let id = fleet.submit(&desk, "[task]\nengine = \"vm\"\ncommand = [\"true\"]\n");
    let why = fleet.gleaner(&desk, &["explain", &id, "--json"]).exits(0);
    assert_eq!(why.json()["rule"], "engine", "{}", why.stdout);
    // What leaves the engine open runs in what there is.
    let id = fleet.submit(&desk, "[task]\nengine = \"auto\"\ncommand = [\"true\"]\n");
    fleet.gleaner(&desk, &["wait", &id]).exits(0);
    let why = fleet.gleaner(&desk, &["explain", &id]).exits(0);
    assert!(why.stdout.contains("engine auto"), "{}", why.stdout);
}

#[test]
fn explain_names_the_rule() {
    let (pool, desk) = (Pool::shared(), Desk::new());
    let table = [
        ("[require]\nlabels = { room = \"nowhere\" }\n", "label"),
        ("[require]\narch = \"pdp11\"\n", "arch"),
        ("[limits]\nmemory = \"900TiB\"\n", "memory"),
        ("[limits]\ncpus = 4000\n", "cpu"),
    ];
    for (rest, word) in table {
        let id = pool.submit(&desk, &format!("[task]\ncommand = [\"true\"]\n{rest}"));
        let explained = pool
            .gleaner(&desk, &["explain", &id, "--json"])
            .exits(0)
            .json();
        let rule = explained["rule"]
            .as_str()
            .unwrap_or_default()
            .to_lowercase();
        assert!(rule.contains(word), "{word}: {explained}");
        assert_eq!(explained["id"].to_string(), id);
        let as_listed = (explained["name"].as_str(), explained["state"].as_str());
        assert_eq!(as_listed, (Some("true"), Some("waiting")), "{explained}");
        assert_eq!(
            explained["nodes_failing"], explained["nodes"],
            "{explained}"
        );
        pool.gleaner(&desk, &["cancel", &id]).exits(0);
    }
}

#[test]
fn a_program_that_no_node_has_is_a_reason_to_wait() {
    let (pool, desk) = (Pool::shared(), Desk::new());
    let id = pool.submit(&desk, "[task]\ncommand = [\"no-such-program-anywhere\"]\n");
    until("explain says so", || {
        let explained = pool.gleaner(&desk, &["explain", &id]).exits(0).stdout;
        explained.contains("no-program") || explained.contains("no-such-program-anywhere")
    });
    assert_ne!(pool.job(&id)["state"], "failed");
    pool.gleaner(&desk, &["cancel", &id]).exits(0);
}

#[test]
fn ctrl_c_in_wait_detaches_and_the_job_goes_on() {
    let (pool, desk) = (Pool::shared(), Desk::new());
    let id = pool.submit(&desk, "[task]\ncommand = [\"sleep\", \"3\"]\n");
    let mut command = pool.command(&desk, &["wait", &id]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    pool.wait_for_state(&id, "running");
    signal(child.id(), "INT");
    let out = outcome(child).exits(130);
    assert!(
        format!("{}{}", out.stdout, out.stderr).contains("gleaner wait"),
        "{out:?}"
    );
    pool.gleaner(&desk, &["wait", &id]).exits(0);
}

#[test]
fn ctrl_c_while_files_are_read_submits_nothing() {
    let desk = Desk::new();
    // Nobody listens there, and nobody is asked before the files are read.
    desk.write(
        "client.toml",
        "server = \"http://127.0.0.1:1\"\ntoken = \"t\"\n",
    );
    let large = desk.path().join("large");
    // Holes take no room, and reading them takes minutes.
    let made = std::fs::File::create(&large).and_then(|file| file.set_len(1 << 40));
    made.unwrap();
    for words in [
        &["run", "--input", "large", "--", "true"][..],
        &["map", "large", "--", "true", "{}"],
    ] {
        let mut command = command(&desk.path().join("client.toml"), &desk, words);
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = piped.spawn().unwrap();
        let open = format!("/proc/{}/fd", child.id());
        until("the file is read", || {
            let files = std::fs::read_dir(&open).into_iter().flatten().flatten();
            files
                .filter_map(|file| std::fs::read_link(file.path()).ok())
                .any(|file| file == large)
        });
        signal(child.id(), "INT");
        outcome(child)
            .exits(130)
            .complains_of(&["before anything was submitted"]);
    }
}

#[test]
fn a_million_tasks_are_one_small_submission() {
    let pool = Pool::start(1);
    let desk = Desk::new();
    let job = "[task]\ncommand = [\"echo\", \"{i}\"]\n[sweep]\ni = { range = [1, 1000000] }\n";
    let id = pool.submit(&desk, job);
    assert_eq!(pool.job(&id)["task_count"], 1_000_000);
    until("some are done", || {
        pool.job(&id)["tasks"]["done"].as_u64().unwrap() > 5
    });
    pool.gleaner(&desk, &["cancel", &id]).exits(0);
    pool.wait_for_state(&id, "cancelled");
}
