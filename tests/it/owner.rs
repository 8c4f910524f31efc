//! The owner of a PC: sees, stops and limits what runs there, with or without the server.

use crate::fleet::Fleet;
use crate::pool::{Desk, Outcome, binary, finish, until};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

/// A task that works until it is ended.
const ENDLESS: &str =
    "[job]\nname = \"endless sums\"\n[task]\ncommand = [\"sh\", \"-c\", \"while :; do :; done\"]\n";

/// `gleaner owner …` for an agent of a fleet.
#[track_caller]
fn owner(fleet: &Fleet, index: usize, words: &[&str]) -> Outcome {
    let data = fleet.agent_data(index);
    let arguments = [&["owner", "--data", data.to_str().unwrap()], words].concat();
    fleet.gleaner(&Desk::new(), &arguments)
}

#[track_caller]
fn status(fleet: &Fleet) -> Value {
    owner(fleet, 0, &["status", "--json"]).exits(0).json()
}

fn node(fleet: &Fleet) -> Value {
    let nodes = fleet
        .gleaner(&Desk::new(), &["nodes", "--json"])
        .exits(0)
        .json();
    nodes[0].clone()
}

/// Waits until the one task on the PC is in this state.
fn wait_for_task(fleet: &Fleet, state: &str) {
    until(&format!("the task is {state}"), || {
        status(fleet)["running"][0]["state"] == state
    });
}

#[test]
fn a_pause_freezes_tasks_says_why_and_outlives_the_agent() {
    let (mut fleet, desk) = (Fleet::start(1), Desk::new());
    let id = fleet.submit(&desk, ENDLESS);
    wait_for_task(&fleet, "running");
    let now = status(&fleet);
    assert_eq!(now["running"][0]["name"], "endless sums", "{now}");
    assert!(
        !now["running"][0]["user"].as_str().unwrap().is_empty(),
        "{now}"
    );

    let paused = owner(&fleet, 0, &["pause", "1h", "--json"]).exits(0).json();
    assert_eq!(
        (&paused["mode"], &paused["owner_paused"]),
        (&"paused".into(), &true.into())
    );
    wait_for_task(&fleet, "paused");
    until("the pool knows", || node(&fleet)["state"] == "paused");
    let reason = node(&fleet)["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("asked for a pause"), "{reason}");
    let why = owner(&fleet, 0, &["why", "--json"]).exits(0).json();
    assert_eq!(why["rule"], "owner-pause", "{why}");

    fleet.agents[0].kill();
    fleet.agents[0] = fleet.agent(0, fleet.port());
    until("the agent is back", || {
        owner(&fleet, 0, &["status"]).code == 0
    });
    until("it is paused as before", || {
        let now = status(&fleet);
        now["owner_paused"] == true && now["until"] == paused["until"]
    });
    wait_for_task(&fleet, "paused");

    owner(&fleet, 0, &["resume"]).exits(0);
    wait_for_task(&fleet, "running");
    until("the pool knows", || node(&fleet)["state"] == "online");
    fleet.gleaner(&desk, &["cancel", &id]).exits(0);
    until("it is in the history", || {
        let history = owner(&fleet, 0, &["history", "--json"]).exits(0).json();
        let entries = history.as_array().unwrap().clone();
        let has = |key: &str, value: &str| entries.iter().any(|entry| entry[key] == value);
        has("name", "endless sums") && has("rule", "owner-pause")
    });
}

#[test]
fn what_stays_frozen_longer_than_the_owner_allows_runs_elsewhere() {
    let (fleet, desk) = (Fleet::start(2), Desk::new());
    let id = fleet.submit(&desk, ENDLESS);
    let task = || fleet.tasks(&id)[0].clone();
    let node = || task()["node"].as_str().unwrap_or_default().to_owned();
    until("a node has it", || task()["state"] == "running");
    let first = node();
    let index = usize::from(first == "node-1");
    let here = || owner(&fleet, index, &["status", "--json"]).exits(0).json()["running"].take();
    until("its program runs", || here()[0]["state"] == "running");
    owner(&fleet, index, &["limits", "--frozen", "2s"]).exits(0);
    owner(&fleet, index, &["pause"]).exits(0);
    until("another node has it", || {
        task()["state"] == "running" && node() != first
    });
    let whole = fleet.gleaner(&desk, &["tasks", "--json", &format!("{id}.0")]);
    let made = whole.exits(0).json()["attempts_made"].take();
    let states: Vec<&str> = made
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["state"].as_str().unwrap())
        .collect();
    assert_eq!(states[0], "evicted", "{made}");
    // Nothing of it is left on the PC whose owner wanted it back.
    until("the owner has the memory again", || {
        here().as_array().unwrap().is_empty()
    });
    fleet.gleaner(&desk, &["cancel", &id]).exits(0);
}

#[test]
fn an_owner_needs_no_server() {
    let mut fleet = Fleet::start(1);
    fleet.server.kill();
    until("the agent sees that it is alone", || {
        status(&fleet)["connected"] == false
    });
    let now = owner(&fleet, 0, &["pause", "--json"]).exits(0).json();
    assert_eq!(
        (&now["mode"], &now["until"]),
        (&"paused".into(), &Value::Null)
    );
    owner(&fleet, 0, &["limits", "--cpus", "1"]).exits(0);
    let now = owner(&fleet, 0, &["resume", "--json"]).exits(0).json();
    assert_eq!(now["owner_paused"], false, "{now}");
}

#[test]
fn an_owner_hears_what_the_admin_wants() {
    let (fleet, desk) = (Fleet::start(1), Desk::new());
    let why = || owner(&fleet, 0, &["why", "--json"]).exits(0).json();
    fleet.gleaner(&desk, &["node", "node-0", "pause"]).exits(0);
    until("the owner hears of it", || why()["rule"] == "admin");
    let now = status(&fleet);
    let owners = (&now["mode"], &now["owner_paused"]);
    assert_eq!(owners, (&"paused".into(), &false.into()), "{now}");
    fleet.gleaner(&desk, &["node", "node-0", "resume"]).exits(0);
    until("and of its end", || why()["rule"] != "admin");
}

#[test]
fn the_admins_rules_hold_and_an_owner_is_only_stricter() {
    let mut fleet = Fleet::start(1);
    let file = fleet.server_data().join("node-settings.toml");
    fs::write(
        &file,
        "cpus = 0.5\nmemory = \"1GiB\"\nhours = [\"daily\"]\n",
    )
    .unwrap();
    fleet.restart_server();
    until("the agent hears of the rules", || {
        let limits = owner(&fleet, 0, &["limits", "--json"]).exits(0).json();
        limits["admin"]["cpus"] == 0.5 && limits["offered"]["memory"] == 1 << 30
    });
    until("the pool is offered less", || {
        node(&fleet)["memory"] == 1 << 30
    });
    for (words, said) in [
        (["limits", "--cpus", "1"], "at most 0.5 CPUs"),
        (["limits", "--memory", "2GiB"], "at most 1 GiB"),
        (["limits", "--battery", "yes"], "mains"),
    ] {
        let refused = owner(&fleet, 0, &words).exits(4);
        assert!(refused.stderr.contains(said), "{refused:?}");
        assert!(refused.stderr.contains("only be stricter"), "{refused:?}");
    }
    let limits = owner(&fleet, 0, &["limits", "--memory", "512MiB", "--json"])
        .exits(0)
        .json();
    assert_eq!(limits["owner"]["memory"], 512 << 20, "{limits}");
    until("the pool is offered less still", || {
        node(&fleet)["memory"] == 512 << 20
    });

    // Rules that somebody only thinks to have are none: the server says so and does not start.
    fleet.server.kill();
    fs::write(&file, "cpu = 1\n").unwrap();
    let data = fleet.server_data();
    let arguments = [
        "server",
        "--data",
        data.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
    ];
    let refused = fleet.gleaner(&Desk::new(), &arguments).exits(2);
    refused.complains_of(&["node-settings.toml", "cpu"]);
}

#[test]
fn nonsense_on_the_socket_hurts_nobody() {
    let fleet = Fleet::start(1);
    let path = fleet.agent_data(0).join("owner.sock");
    let mut held = Vec::new();
    for index in 0..1000 {
        let mut stream = UnixStream::connect(&path).unwrap();
        if index % 3 == 0 {
            // Whoever came too often is told so and hears nothing more.
            let _closed = stream.write_all(b"\xff\0{\"ask\":[[[[\n");
        }
        held.push(stream);
    }
    until("the owner is heard among them", || {
        owner(&fleet, 0, &["status"]).code == 0
    });
    drop(held);
    assert_eq!(status(&fleet)["state"], "online");
}

#[test]
fn the_page_opens_with_its_token_and_not_without() {
    let fleet = Fleet::start(1);
    let url = owner(&fleet, 0, &["page", "--print"]).exits(0).stdout;
    let rest = url.trim().strip_prefix("http://").unwrap();
    let (address, token) = rest.split_once("/?token=").unwrap();
    assert!(address.starts_with("127.0.0.1:"), "{url}");
    let get = |path: &str, headers: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(get("/", "").starts_with("HTTP/1.1 401"));
    let entered = get(&format!("/?token={token}"), "");
    let cookie = entered
        .lines()
        .find_map(|line| line.strip_prefix("set-cookie: "))
        .unwrap();
    let cookie = cookie.split(';').next().unwrap();
    let page = get("/", &format!("Cookie: {cookie}\r\n"));
    assert!(
        page.starts_with("HTTP/1.1 200") && page.contains("node-0"),
        "{page}"
    );
    // Asked again, it is the same page.
    assert_eq!(owner(&fleet, 0, &["page", "--print"]).exits(0).stdout, url);
}

#[test]
fn a_stranger_is_refused_and_told_how_to_become_an_owner() {
    let me = Command::new("id").arg("-u").output().unwrap().stdout;
    let fleet = Fleet::start(1);
    if me != b"0\n" {
        // Only root can play a stranger; who started the agent is its owner.
        assert_eq!(status(&fleet)["state"], "online");
        return;
    }
    // A place from which nobody may start the program.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("gleaner");
    fs::copy(binary(), &program).unwrap();
    for words in [["status"], ["pause"], ["top"]] {
        let mut stranger = Command::new("setpriv");
        stranger
            .args([
                "--reuid",
                "65534",
                "--regid",
                "65534",
                "--clear-groups",
                "--",
            ])
            .arg(&program)
            .arg("owner")
            .args(words)
            .env_remove("XDG_RUNTIME_DIR")
            .current_dir("/");
        let refused = finish(&mut stranger);
        if words == ["top"] {
            // It has no terminal either; what counts is that it shows nothing.
            assert!(
                refused.code != 0 && refused.stdout.is_empty(),
                "{refused:?}"
            );
            continue;
        }
        refused
            .exits(4)
            .complains_of(&["65534", "not an owner", "usermod -aG gleaner"]);
    }
    assert_eq!(status(&fleet)["owner_paused"], false);
}
