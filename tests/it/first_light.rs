//! Does the shortest way work: one command in, its result out?

use crate::pool::{Desk, Pool, finish, outcome, processes_with, signal, until};
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

#[test]
fn run_shows_output_and_exits_with_the_code_of_the_program() {
    let desk = Desk::new();
    let script = "echo to stdout; echo to stderr >&2; exit 7";
    let out = Pool::shared()
        .gleaner(&desk, &["run", "--", "sh", "-c", script])
        .exits(7);
    assert_eq!(out.stdout, "to stdout\n");
    assert!(out.stderr.contains("to stderr\n"), "{}", out.stderr);
}

#[test]
fn run_exits_with_128_and_the_signal() {
    let desk = Desk::new();
    Pool::shared()
        .gleaner(&desk, &["run", "--", "sh", "-c", "kill -TERM $$"])
        .exits(143);
}

#[test]
fn run_exits_with_124_for_a_limit() {
    let desk = Desk::new();
    Pool::shared()
        .gleaner(&desk, &["run", "--time", "1s", "--", "sleep", "600"])
        .exits(124)
        .complains_of(&["time"]);
}

#[test]
fn run_takes_inputs_and_fetches_outputs() {
    let desk = Desk::new();
    desk.write("numbers", "3\n1\n2\n");
    Pool::shared()
        .gleaner(
            &desk,
            &[
                "run",
                "--input",
                "numbers",
                "--output",
                "sorted*",
                "--",
                "sh",
                "-c",
                "sort numbers > sorted.txt",
            ],
        )
        .exits(0);
    let fetched = desk
        .list()
        .into_iter()
        .find(|name| name.ends_with("/0/sorted.txt"));
    let fetched = fetched.unwrap_or_else(|| panic!("{:?}", desk.list()));
    assert_eq!(desk.read(&fetched), "1\n2\n3\n");
}

#[test]
fn run_has_its_limits_on_the_command_line() {
    let desk = Desk::new();
    let arguments = [
        "run", "--cpus", "1", "--memory", "128MiB", "--time", "1min", "--name", "n", "--", "true",
    ];
    Pool::shared().gleaner(&desk, &arguments).exits(0);
}

#[test]
fn run_detached_prints_the_job_and_leaves() {
    let desk = Desk::new();
    let pool = Pool::shared();
    let out = pool
        .gleaner(&desk, &["run", "--detach", "--json", "--", "echo", "later"])
        .exits(0);
    let id = crate::pool::id_of(&out.json());
    pool.gleaner(&desk, &["wait", &id]).exits(0);
    assert_eq!(
        pool.gleaner(&desk, &["logs", &format!("{id}.0")])
            .exits(0)
            .stdout,
        "later\n"
    );
}

#[test]
fn ctrl_c_in_run_cancels() {
    let desk = Desk::new();
    let pool = Pool::shared();
    let mut command = pool.command(&desk, &["run", "--name", "ctrl-c", "--", "sleep", "600"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let job = || {
        let jobs = pool.gleaner(&desk, &["jobs", "--json"]).exits(0).json();
        jobs.as_array()
            .unwrap()
            .iter()
            .find(|job| job["name"] == "ctrl-c")
            .cloned()
    };
    until("it runs", || {
        job().is_some_and(|job| job["state"] == "running")
    });
    signal(child.id(), "INT");
    outcome(child).exits(130);
    until("it is cancelled", || {
        job().is_some_and(|job| job["state"] == "cancelled")
    });
}

#[test]
fn an_early_ctrl_c_leaves_no_job_behind() {
    let desk = Desk::new();
    let pool = Pool::shared();
    for after_ms in (0..60).step_by(3) {
        let name = format!("early-{after_ms}");
        let run = pool.command(&desk, &["run", "--name", &name, "--", "sleep", "600"]);
        // Tests that run in the background of a shell inherit that the signal is ignored, which
        // ends with the program that says so.
        let mut command = Command::new("env");
        command
            .args([
                "--default-signal=INT",
                "sh",
                "-c",
                "echo && exec \"$@\"",
                "sh",
            ])
            .arg(run.get_program())
            .args(run.get_args())
            .env("GLEANER_CONFIG", pool.config())
            .current_dir(desk.path());
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.as_mut().unwrap();
        stdout.read_exact(&mut [0]).unwrap();
        // On purpose: from before the program listens until after its task runs.
        thread::sleep(Duration::from_millis(after_ms));
        signal(child.id(), "INT");
        outcome(child).exits(130);
    }
    let jobs = pool.gleaner(&desk, &["jobs", "--json"]).exits(0).json();
    for job in jobs.as_array().unwrap() {
        if job["name"].as_str().unwrap().starts_with("early-") {
            assert_eq!(job["state"], "cancelled", "{job}");
        }
    }
}

#[test]
fn map_runs_once_a_file() {
    let desk = Desk::new();
    desk.write("in/a.txt", "one\n")
        .write("in/b.txt", "one\ntwo\n");
    Pool::shared()
        .gleaner(&desk, &["map", "in/*.txt", "--", "wc", "-l", "{}"])
        .exits(0);
    let mut counts: Vec<String> = desk
        .list()
        .iter()
        .filter(|name| name.ends_with("/stdout"))
        .map(|name| {
            desk.read(name)
                .split_whitespace()
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    counts.sort();
    assert_eq!(counts, ["1", "2"]);
}

#[test]
fn outputs_are_found_by_the_names_of_odd_inputs() {
    let desk = Desk::new();
    desk.write("in/a[1].dat", "x").write("in/b*.dat", "y");
    let script = "cp \"$1\" \"$1.out\"";
    let map = [
        "map", "in/*.dat", "--output", "{}.out", "--output", "stdout",
    ];
    let command = ["--results", "got", "--", "sh", "-c", script, "sh", "{}"];
    let pool = Pool::shared();
    pool.gleaner(&desk, &[&map[..], &command].concat()).exits(0);
    assert_eq!(desk.read("got/0/a[1].dat.out"), "x");
    assert_eq!(desk.read("got/1/b*.dat.out"), "y");
    let wrong = ["run", "--output", "[x", "--", "true"];
    let refused = pool.gleaner(&desk, &wrong).exits(2);
    refused.complains_of(&["--output", "not a glob"]);
}

#[test]
fn map_runs_once_a_line() {
    let desk = Desk::new();
    desk.write("names", "ada\nalan\ngrace\n");
    Pool::shared()
        .gleaner(
            &desk,
            &["map", "--lines", "names", "--", "echo", "hello {}"],
        )
        .exits(0);
    let stdouts: Vec<String> = desk
        .list()
        .iter()
        .filter(|n| n.ends_with("/stdout"))
        .map(|n| desk.read(n))
        .collect();
    assert_eq!(stdouts, ["hello ada\n", "hello alan\n", "hello grace\n"]);
}

#[test]
fn map_says_that_a_task_failed() {
    let desk = Desk::new();
    desk.write("names", "0\n1\n");
    Pool::shared()
        .gleaner(
            &desk,
            &["map", "--lines", "names", "--", "sh", "-c", "exit {}"],
        )
        .exits(1);
}

#[test]
fn the_sandbox_shows_nothing_of_the_owner() {
    let desk = Desk::new();
    let script = "id -u; ls -A /home 2>/dev/null; ls -A /root 2>/dev/null; env | cut -d= -f1 | sort | tr '\\n' ' '; pwd";
    let mut command = Pool::shared().command(&desk, &["run", "--", "sh", "-c", script]);
    let out = finish(command.env("GLEANER_SECRET_OF_MINE", "x")).exits(0);
    let lines: Vec<&str> = out.stdout.lines().collect();
    assert_ne!(lines[0], "0", "the program must not be root");
    let words: Vec<&str> = lines[1]
        .split(' ')
        .filter(|w| !["PWD", "SHLVL", "_", "OLDPWD"].contains(w))
        .collect();
    assert_eq!(words[..4], ["HOME", "LANG", "PATH", "TMPDIR"], "{out:?}");
}

#[test]
fn an_unreachable_server_is_code_3() {
    let desk = Desk::new();
    desk.write(
        "client.toml",
        "server = \"http://127.0.0.1:1\"\ntoken = \"x\"\n",
    );
    let config = desk.path().join("client.toml");
    let out = finish(&mut crate::pool::command(&config, &desk, &["jobs"])).exits(3);
    assert!(!out.stderr.is_empty());
}

#[test]
fn a_wrong_token_is_code_4() {
    let desk = Desk::new();
    let config = std::fs::read_to_string(Pool::shared().config()).unwrap();
    let forged: String = config
        .lines()
        .map(|line| {
            if line.starts_with("token") {
                "token = \"wrong\""
            } else {
                line
            }
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    desk.write("client.toml", &forged);
    let config = desk.path().join("client.toml");
    finish(&mut crate::pool::command(&config, &desk, &["jobs"])).exits(4);
}

#[test]
fn wrong_usage_is_code_2() {
    let desk = Desk::new();
    for arguments in [
        &["no-such-command"][..],
        &["run"],
        &["wait"],
        &["jobs", "--no-such-flag"],
    ] {
        Pool::shared().gleaner(&desk, arguments).exits(2);
    }
}

#[test]
fn a_pool_ends_all_it_started() {
    let pool = Pool::start(2);
    let desk = Desk::new();
    pool.gleaner(&desk, &["run", "--detach", "--", "sleep", "86399"])
        .exits(0);
    until("it runs", || running(&pool, &desk) == 1);
    let status = pool.with_daemon(crate::pool::Daemon::terminate);
    assert!(status.success(), "{status}");
    assert_eq!(processes_with("86399"), []);
}

fn running(pool: &Pool, desk: &Desk) -> usize {
    let jobs = pool.gleaner(desk, &["jobs", "--json"]).exits(0).json();
    jobs.as_array()
        .unwrap()
        .iter()
        .filter(|job| job["state"] == "running")
        .count()
}

#[test]
fn a_pool_keeps_its_jobs_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let desk = Desk::new();
    let first = Pool::start_in(dir.path(), 1);
    first
        .gleaner(&desk, &["run", "--name", "kept", "--", "echo", "once"])
        .exits(0);
    drop(first);
    let second = Pool::start_in(dir.path(), 1);
    let jobs = second.gleaner(&desk, &["jobs", "--json"]).exits(0).json();
    assert_eq!(jobs[0]["name"], "kept");
    assert_eq!(jobs[0]["state"], "done");
    let id = crate::pool::id_of(&jobs[0]);
    assert_eq!(
        second
            .gleaner(&desk, &["logs", &format!("{id}.0")])
            .exits(0)
            .stdout,
        "once\n"
    );
}
