//! Does nothing get lost or run into the results twice when parts die?

use crate::fleet::Fleet;
use crate::pool::{
    Desk, Pool, begun, command, finish, long, processes, processes_with, signal, until,
};
use std::collections::BTreeSet;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Deaths of the server in a run: `$GLEANER_ROUNDS`, else some, and many with `GLEANER_LONG`.
fn rounds() -> u64 {
    match std::env::var("GLEANER_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("GLEANER_ROUNDS is a number"),
        Err(_) if long() => 200,
        Err(_) => 20,
    }
}

/// A moment between 20 and 420 ms, spread by a linear congruential generator.
fn moment(round: u64) -> Duration {
    let scrambled = round
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    Duration::from_millis(20 + (scrambled >> 33) % 400)
}

fn counting_job(tasks: u64, script: &str) -> String {
    format!(
        "[task]\ncommand = [\"sh\", \"-c\", \"{script}\"]\n[sweep]\ni = {{ range = [1, {tasks}] }}\n\
         [collect]\nmerge = {{ concat = \"all\", from = \"stdout\" }}\n"
    )
}

fn counted(tasks: u64) -> String {
    (1..=tasks).map(|i| format!("{i}\n")).collect()
}

#[test]
fn the_server_dies_with_a_thousand_tasks_in_flight() {
    let mut fleet = Fleet::start(2);
    let desk = Desk::new();
    let mut kills = 0;
    while kills < rounds() {
        let id = fleet.submit(&desk, &counting_job(1000, "echo {i}"));
        while kills < rounds() && fleet.job(&id)["state"] != "done" {
            // The moment of death is the point of this test, not a wait for something.
            thread::sleep(moment(kills));
            fleet.restart_server();
            kills += 1;
        }
        fleet.gleaner(&desk, &["wait", &id]).exits(0);
        fleet.gleaner(&desk, &["fetch", &id, "out"]).exits(0);
        assert_eq!(
            desk.read("out/all"),
            counted(1000),
            "each task once, in order"
        );
        std::fs::remove_dir_all(desk.path().join("out")).unwrap();
        let again = ran_before(&fleet, &id);
        assert!(
            again.is_empty(),
            "tasks ran again after {kills} deaths: {again:?}"
        );
    }
}

/// Attempts of a finished job that may have run, the last of each task apart.
fn ran_before(fleet: &Fleet, id: &str) -> Vec<serde_json::Value> {
    let mut ran = Vec::new();
    for task in fleet.tasks(id) {
        if task["attempts"] == 1 {
            continue;
        }
        let mut made = begun(&fleet.task(task["id"].as_str().unwrap()));
        assert_eq!(made.pop().unwrap()["state"], "finished");
        ran.append(&mut made);
    }
    ran
}

#[test]
fn an_acknowledged_submission_is_never_lost() {
    let mut fleet = Fleet::start(1);
    let desk = Desk::new();
    let mut acknowledged = BTreeSet::new();
    let stop = Arc::new(AtomicBool::new(false));
    let submitted = {
        let (stop, config) = (Arc::clone(&stop), fleet.config());
        thread::spawn(move || {
            let desk = Desk::new();
            let mut ids = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let arguments = ["run", "--detach", "--json", "--", "true"];
                let out = finish(&mut command(&config, &desk, &arguments));
                if out.code == 0 {
                    ids.push(crate::pool::id_of(&out.json()));
                }
            }
            ids
        })
    };
    for round in 0..rounds() / 2 {
        thread::sleep(moment(round + 1000));
        fleet.restart_server();
    }
    stop.store(true, Ordering::Relaxed);
    for id in submitted.join().unwrap() {
        assert!(
            acknowledged.insert(id.clone()),
            "job {id} was acknowledged twice"
        );
    }
    let jobs = fleet.gleaner(&desk, &["jobs", "--quiet"]).exits(0).stdout;
    let known: BTreeSet<String> = jobs.lines().map(str::to_owned).collect();
    let lost: Vec<_> = acknowledged.difference(&known).collect();
    assert!(lost.is_empty(), "{lost:?} of {}", acknowledged.len());
    for id in &acknowledged {
        fleet.gleaner(&desk, &["wait", id]).exits(0);
    }
}

#[test]
fn a_restarted_agent_adopts_what_runs() {
    let mut fleet = Fleet::start(1);
    let desk = Desk::new();
    let id = fleet.submit(
        &desk,
        &counting_job(1, "for n in 1 2 3 4 5 6; do sleep 1; done; echo {i}"),
    );
    until("it runs", || fleet.job(&id)["tasks"]["running"] == 1);
    fleet.agents[0].kill();
    fleet.agents[0] = fleet.agent(0, fleet.port());
    fleet.gleaner(&desk, &["wait", &id]).exits(0);
    fleet.gleaner(&desk, &["fetch", &id, "out"]).exits(0);
    assert_eq!(desk.read("out/all"), "1\n");
    let made = begun(&fleet.task(&format!("{id}.0")));
    assert_eq!(made.len(), 1, "it was adopted, not run again: {made:?}");
}

#[test]
fn the_tasks_of_a_dead_agent_run_elsewhere() {
    let mut fleet = Fleet::start(2);
    let desk = Desk::new();
    let id = fleet.submit(&desk, &counting_job(1, "sleep 5; echo {i}"));
    until("it runs", || fleet.job(&id)["tasks"]["running"] == 1);
    let node = fleet.tasks(&id)[0]["node"].as_str().unwrap().to_owned();
    let index = usize::from(node == "node-1");
    fleet.agents[index].kill();
    fleet.gleaner(&desk, &["wait", &id]).exits(0);
    fleet.gleaner(&desk, &["fetch", &id, "out"]).exits(0);
    assert_eq!(desk.read("out/all"), "1\n");
    let task = &fleet.tasks(&id)[0];
    assert_ne!(task["node"], node.as_str(), "{task}");
    assert_eq!(fleet.online(), 1, "the dead one is listed as offline");
}

#[test]
fn a_cut_off_agent_gives_no_double_result() {
    let mut fleet = Fleet::start(1);
    let wire = Wire::to(fleet.port());
    fleet.agents[0].terminate();
    fleet.agents[0] = fleet.agent(0, wire.port);
    let desk = Desk::new();
    let id = fleet.submit(&desk, &counting_job(1, "sleep 3; echo {i}"));
    until("it runs", || fleet.job(&id)["tasks"]["running"] == 1);
    wire.cut();
    let cut = Instant::now();
    until("the server gives the node up", || fleet.online() == 0);
    // On purpose: the wire is cut for a minute in all; the task ended long ago.
    thread::sleep(Duration::from_secs(60).saturating_sub(cut.elapsed()));
    wire.mend();
    fleet.gleaner(&desk, &["wait", &id]).exits(0);
    fleet.gleaner(&desk, &["fetch", &id, "out"]).exits(0);
    assert_eq!(desk.read("out/all"), "1\n");
    assert_eq!(fleet.job(&id)["tasks"]["done"], 1);
}

#[test]
fn an_agent_that_polls_does_all_that_one_with_a_stream_does() {
    let mut fleet = Fleet::start(1);
    fleet.agents[0].terminate();
    fleet.agents[0] = fleet.agent_with(0, fleet.port(), &["--poll"]);
    let desk = Desk::new();
    let id = fleet.submit(&desk, &counting_job(200, "echo {i}"));
    fleet.restart_server();
    fleet.gleaner(&desk, &["wait", &id]).exits(0);
    fleet.gleaner(&desk, &["fetch", &id, "out"]).exits(0);
    assert_eq!(desk.read("out/all"), counted(200));
    assert!(ran_before(&fleet, &id).is_empty());
    // A word of the server reaches it with its next call.
    let long = fleet.submit(&desk, &counting_job(1, "echo begun; sleep 97531"));
    let logs = || fleet.gleaner(&desk, &["logs", &format!("{long}.0")]).stdout;
    until("its output is here", || logs() == "begun\n");
    fleet.gleaner(&desk, &["cancel", &long]).exits(0);
    until("it is ended", || processes_with("97531").is_empty());
    let next = fleet.submit(&desk, &counting_job(1, "echo {i}"));
    fleet.gleaner(&desk, &["wait", &next]).exits(0);
}

#[test]
fn a_killed_shim_takes_its_sandbox_along() {
    let fleet = Fleet::start(1);
    let desk = Desk::new();
    let arguments = [
        "run",
        "--detach",
        "--json",
        "--",
        "sh",
        "-c",
        "sleep 98761 & sleep 98761",
    ];
    let id = crate::pool::id_of(&fleet.gleaner(&desk, &arguments).exits(0).json());
    let sleepers = || processes_with("98761");
    until("both run", || {
        sleepers()
            .iter()
            .filter(|p| p.1.starts_with("sleep"))
            .count()
            == 2
    });
    let program = sleepers()[0].0;
    let above = ancestors(program);
    // The cage's init has the same arguments, below it.
    let is_shim = |pid: &&u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("__shim")
    };
    let shim = above.iter().rfind(is_shim).unwrap();
    signal(*shim, "KILL");
    until("nothing of it is left, or it runs anew", || {
        processes_with("98761")
            .iter()
            .all(|(pid, _)| !above.contains(pid) && *pid != program)
    });
    fleet.gleaner(&desk, &["cancel", &id]).exits(0);
    until("nothing is left", || processes_with("98761").is_empty());
}

/// Parents of a process, the nearest first, without init.
fn ancestors(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut at = pid;
    while let Ok(stat) = std::fs::read_to_string(format!("/proc/{at}/stat")) {
        let parent = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse();
        at = parent.unwrap();
        if at <= 1 {
            break;
        }
        found.push(at);
    }
    found
}

#[test]
fn a_full_disk_is_a_sentence_and_passes() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: mounting a small disk needs root");
        return;
    };
    let pool = Pool::start_in(disk.dir.path(), 1);
    let desk = Desk::new();
    let small = ["run", "--disk", "8MiB", "--", "echo", "before"];
    pool.gleaner(&desk, &small).exits(0);
    let filler = disk.dir.path().join("filler");
    fill(&filler);
    desk.write("big", &"x".repeat(4 << 20));
    let run = [
        "run", "--disk", "8MiB", "--input", "big", "--", "wc", "-c", "big",
    ];
    let detached = [
        "run", "--detach", "--disk", "8MiB", "--input", "big", "--", "wc", "-c", "big",
    ];
    let out = pool.gleaner(&desk, &detached);
    assert_ne!(out.code, 0, "{out:?}");
    out.complains_of(&["space"]);
    std::fs::remove_file(filler).unwrap();
    until("it goes on", || pool.gleaner(&desk, &run).code == 0);
    let jobs = pool.gleaner(&desk, &["jobs", "--json"]).exits(0).json();
    assert!(jobs.as_array().unwrap().len() >= 2, "{jobs}");
    assert_eq!(
        pool.gleaner(&desk, &["logs", "1.0"]).exits(0).stdout,
        "before\n"
    );
}

#[test]
fn a_dev_pool_that_is_killed_takes_all_it_started_along() {
    let pool = Pool::start(1);
    let desk = Desk::new();
    let mark = format!("{}.5", 30_000_000 + std::process::id());
    pool.gleaner(&desk, &["run", "--detach", "--", "sleep", &mark])
        .exits(0);
    until("it sleeps", || !processes_with(&mark).is_empty());
    let data = pool.config().parent().unwrap().display().to_string();
    pool.with_daemon(crate::pool::Daemon::kill);
    until("nothing of it is left", || {
        processes_with(&data).is_empty() && processes_with(&mark).is_empty()
    });
}

/// Writes until the disk is full.
fn fill(path: &Path) {
    let mut dd = Command::new("dd");
    dd.arg("if=/dev/zero")
        .arg(format!("of={}", path.display()))
        .arg("bs=64k");
    assert_ne!(finish(&mut dd).code, 0, "the disk is full now");
}

/// A disk of a few megabytes, unmounted at the end.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=256m", "tmpfs"])
            .arg(dir.path());
        (finish(&mut mount).code == 0).then_some(Self { dir })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        umount.arg("--lazy").arg(self.dir.path());
        finish(&mut umount);
    }
}

/// A wire between an agent and the server that can be cut.
struct Wire {
    port: u16,
    cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Self {
            port: listener.local_addr().unwrap().port(),
            cut: Arc::new(AtomicBool::new(false)),
            open: Arc::new(Mutex::new(Vec::new())),
        };
        let (cut, open) = (Arc::clone(&wire.cut), Arc::clone(&wire.open));
        thread::spawn(move || {
            for inner in listener.incoming().map_while(Result::ok) {
                if cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(outer) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                let mut open = open.lock().unwrap();
                for (from, to) in [(&inner, &outer), (&outer, &inner)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    thread::spawn(move || {
                        // Either end may go at any time; the wire then ends as well.
                        let _: io::Result<u64> = io::copy(&mut from, &mut to);
                        let _: io::Result<()> = to.shutdown(Shutdown::Both);
                    });
                }
                open.extend([inner, outer]);
            }
        });
        wire
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            // One that is closed already is what was wanted.
            let _: io::Result<()> = stream.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }
}

#[test]
fn a_log_that_cannot_be_written_ends_no_daemon() {
    let desk = Desk::new();
    let config = desk.path().join("server/client.toml");
    let full = std::fs::File::options().write(true).open("/dev/full");
    let words = [
        "server",
        "--data",
        "server",
        "--listen",
        "127.0.0.1:0",
        "--until-stdin-closes",
    ];
    let mut server = command(&config, &desk, &words)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(full.unwrap())
        .spawn()
        .unwrap();
    until("it is up, or has ended", || {
        config.exists() || server.try_wait().unwrap().is_some()
    });
    finish(&mut command(&config, &desk, &["jobs"])).exits(0);
    drop(server.stdin.take());
    assert!(server.wait().unwrap().success());
}

#[test]
fn who_follows_a_log_sees_all_of_it_through_a_death_of_the_server() {
    let mut fleet = Fleet::start(1);
    let desk = Desk::new();
    let counts = "[task]\ncommand = [\"sh\", \"-c\", \"for i in 1 2 3 4 5 6 7 8; do echo $i; \
                  sleep 0.5; done\"]\n";
    let id = fleet.submit(&desk, counts);
    until("it runs", || fleet.tasks(&id)[0]["state"] == "running");
    let logs = command(&fleet.config(), &desk, &["logs", "-f", &id])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    fleet.restart_server();
    let seen = crate::pool::outcome(logs).exits(0);
    assert_eq!(seen.stdout, "1\n2\n3\n4\n5\n6\n7\n8\n");
}

/// The word after this one in a command line.
fn word_after<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    line.split(' ').skip_while(|word| *word != name).nth(1)
}

/// The directories of a group, in every hierarchy.
fn groups(name: &str) -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(top).into_iter().flatten().flatten();
    let tops = hierarchies.map(|entry| entry.path());
    let all = tops.chain([top.to_owned()]).map(|top| top.join(name));
    all.filter(|dir| dir.is_dir()).collect()
}

#[test]
fn groups_of_a_killed_pool_go_when_another_starts_anywhere() {
    let (desk, dead, beside) = (Desk::new(), Desk::new(), Desk::new());
    let live = Pool::start_in(beside.path(), 1);
    let killed = Pool::start_in(dead.path(), 2);
    killed.gleaner(&desk, &["run", "--", "true"]).exits(0);
    let of = |folder: &Desk| -> Vec<(u32, String)> {
        let folder = folder.path().to_str().unwrap();
        let mut all = processes();
        all.retain(|(_, line)| line.contains(folder));
        all
    };
    let group = |folder: &Desk| {
        let all = of(folder);
        let found = all.iter().find_map(|(_, line)| word_after(line, "--group"));
        found.expect("an agent runs").to_owned()
    };
    let (gone, stays) = (group(&dead), group(&beside));
    let were = groups(&stays);
    until("the whole pool is killed", || {
        let left = of(&dead);
        for (pid, _) in &left {
            signal(*pid, "KILL");
        }
        left.is_empty()
    });
    // Without groups, or as a plain user with none of the top, there is nothing to leave.
    assert_eq!(groups(&gone).is_empty(), were.is_empty());
    let _third = Pool::start(1);
    until("its groups are gone", || groups(&gone).is_empty());
    assert_eq!(groups(&stays), were, "whose agent lives, although idle");
    live.gleaner(&desk, &["run", "--", "true"]).exits(0);
}

/// A server that may open few files, which are fewer than there are connections that say nothing.
#[test]
fn silent_connections_keep_nobody_out() {
    const FILES: u64 = 160;
    let fleet = Fleet::start_bounded(FILES);
    let silent: Vec<_> = (0..FILES + 60)
        .filter_map(|_| {
            let address = ([127, 0, 0, 1], fleet.port()).into();
            // Those that find no place wait in line, and the line has an end.
            TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok()
        })
        .collect();
    assert!(silent.len() as u64 > FILES, "{}", silent.len());
    let desk = Desk::new();
    desk.write("input", "some bytes");
    // The silent ones are sent away by and by, and the server could always write down a job.
    let submit = ["run", "--detach", "--input", "input", "--", "cat", "input"];
    until("a job is taken", || fleet.gleaner(&desk, &submit).code == 0);
    let log = fleet.server.log();
    assert!(!log.contains("could not be accepted"), "{log}");
}
