//! Does the same job give the same results in guests as in processes? Runs in the suite `vm`,
//! which builds the guest's program first.

use crate::checkpoints::{WHEN_TOLD, began, job, undisturbed};
use crate::fleet::Fleet;
use crate::images::{SCRIPT, userland};
use crate::pool::{Desk, Outcome, Pool, begun, id_of, long};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the first guest of a pool may take to be built, tried and offered.
const OFFERED_WITHIN: Duration = Duration::from_secs(240);

/// More than a minute's work under translation, some seconds' without.
const SUMS: &str =
    "$| = 1; for $n (1 .. 400) { $s = 0; $s += sqrt($_) for 1 .. 300000; print \"$n $s\\n\" }";

/// How long a job may take whose guest is translated.
const DONE_WITHIN: Duration = Duration::from_secs(240);

/// Steps of a program that is evicted in its midst.
const STEPS: u32 = 30;

/// A chain of hashes that says now and then how far it is.
const CHAIN: &str = "$|=1; $x='seed'; for (1..400000) { $x=sha256_hex($x); \
                     print \"$_\\n\" if $_ % 20000 == 0 } print \"$x\\n\"";

fn recipe(file: &str) -> String {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
    fs::read_to_string(recipes.join(file)).unwrap()
}

/// The results of a job in an engine, by name.
fn results(pool: &Pool, desk: &Desk, job: &str, engine: &str, file: &str) -> String {
    let text = job.replace("[task]\n", &format!("[task]\nengine = \"{engine}\"\n"));
    assert_ne!(text, job, "the job names its task");
    let name = format!("{engine}.toml");
    desk.write(&name, &text);
    let id = id_of(
        &pool
            .gleaner(desk, &["submit", &name, "--json"])
            .exits(0)
            .json(),
    );
    pool.gleaner(desk, &["wait", &id]).exits(0);
    let out = format!("out-{engine}");
    pool.gleaner(desk, &["fetch", &id, &out]).exits(0);
    desk.read(&format!("{out}/{file}"))
}

/// Waits until a node of the shared pool offers guests.
fn offered(pool: &Pool, desk: &Desk) {
    offer(1, || pool.gleaner(desk, &["nodes", "--json"]));
}

/// Waits until so many nodes offer guests.
fn offer(count: usize, nodes: impl Fn() -> Outcome) {
    within(OFFERED_WITHIN, "nodes offer guests", || {
        let nodes = nodes().exits(0).json();
        let engines = nodes
            .as_array()
            .unwrap()
            .iter()
            .map(|node| &node["engines"]);
        let guests = engines.filter(|engines| engines.to_string().contains("\"vm\""));
        guests.count() >= count
    });
}

fn within(patience: Duration, what: &str, happened: impl Fn() -> bool) {
    let end = Instant::now() + patience;
    while !happened() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn an_image_is_the_same_root_in_guests() {
    let (pool, desk) = (Pool::shared(), Desk::new());
    offered(pool, &desk);
    userland(&desk, "any");
    pool.gleaner(&desk, &["image", "import", "e2e:guests", "root"])
        .exits(0);
    let run = |engine| {
        let options = ["run", "--image", "e2e:guests", "--engine", engine];
        let command = [&options[..], &["--", "sh", "-c", SCRIPT]].concat();
        pool.gleaner(&desk, &command).exits(0).stdout
    };
    assert_eq!(run("vm"), run("process"));
}

#[test]
fn primes_and_words_are_the_same_in_guests() {
    let (pool, desk) = (Pool::shared(), Desk::new());
    offered(pool, &desk);
    desk.write("sieve.pl", &recipe("primes/sieve.pl"));
    let primes = recipe("primes/job.toml").replace("[0, 39]", "[0, 1]");
    let of = |engine| results(pool, &desk, &primes, engine, "primes.txt");
    let (process, vm) = (of("process"), of("vm"));
    assert_eq!(process.lines().count(), 41_538);
    assert_eq!(process, vm);
    desk.write("text.txt", &recipe("words/text.txt"));
    let words = recipe("words/job.toml");
    let of = |engine| results(pool, &desk, &words, engine, "words.txt");
    assert_eq!(of("process"), of("vm"));
    // A process of the same PC knows its kernel; the guest has another.
    let job = "[job]\nname = \"kernel\"\n[task]\ncommand = [\"uname\", \"-r\"]\n\
               [collect]\nmerge = { concat = \"kernel\", from = \"stdout\" }\n";
    let of = |engine| results(pool, &desk, job, engine, "kernel");
    assert_ne!(of("process"), of("vm"));
}

#[test]
fn a_guest_goes_on_elsewhere_when_its_node_is_evicted() {
    let fleet = Fleet::start_on("tcg", 2, &[]);
    let desk = Desk::new();
    offer(2, || fleet.gleaner(&desk, &["nodes", "--json"]));
    let command = ["perl", "-MDigest::SHA=sha256_hex", "-e", CHAIN];
    let native = Command::new(command[0]).args(&command[1..]).output();
    let native = String::from_utf8(native.unwrap().stdout).unwrap();
    let id = fleet.submit(
        &desk,
        &format!(
            "[task]\nengine = \"vm\"\ncheckpoint = \"10min\"\ncommand = {command:?}\n\
             [limits]\nmemory = \"64MiB\"\ndisk = \"64MiB\"\n"
        ),
    );
    let task = || fleet.task(&format!("{id}.0"));
    let said = || {
        let logs = fleet.gleaner(&desk, &["logs", &format!("{id}.0")]);
        logs.stdout.lines().count() >= 2
    };
    within(DONE_WITHIN, "it has begun", said);
    let node = task()["node"].as_str().unwrap().to_owned();
    fleet.gleaner(&desk, &["node", &node, "evict"]).exits(0);
    let done = || fleet.job(&id)["state"] == "done";
    within(DONE_WITHIN, "it is done", done);
    let logs = fleet.gleaner(&desk, &["logs", &format!("{id}.0")]).exits(0);
    assert_eq!(
        logs.stdout, native,
        "the words of one run that nothing disturbs"
    );
    let task = task();
    let attempts = begun(&task);
    assert_eq!(attempts[0]["state"], "evicted", "{task}");
    assert_eq!(attempts[1]["record"]["checkpoints"], 1, "{task}");
    assert_eq!(task["went_on_from"], attempts[0]["id"], "{task}");
    assert_ne!(attempts[0]["node"], attempts[1]["node"], "{task}");
}

#[test]
fn a_guest_that_is_saved_now_and_then_goes_on_elsewhere_when_its_node_dies() {
    // Half a minute of a lease beside two trials and a long task under translation.
    if !long() {
        return;
    }
    let mut fleet = Fleet::start_on("tcg", 2, &[]);
    let desk = Desk::new();
    offer(2, || fleet.gleaner(&desk, &["nodes", "--json"]));
    let command = ["perl", "-e", SUMS];
    let native = Command::new(command[0]).args(&command[1..]).output();
    let native = String::from_utf8(native.unwrap().stdout).unwrap();
    let id = fleet.submit(
        &desk,
        &format!(
            "[task]\nengine = \"vm\"\ncheckpoint = \"10s\"\ncommand = {command:?}\n\
             [limits]\nmemory = \"64MiB\"\ndisk = \"64MiB\"\n"
        ),
    );
    let task = |fleet: &Fleet| fleet.task(&format!("{id}.0"));
    let saved = || task(&fleet)["checkpoints"].as_u64() >= Some(2);
    within(DONE_WITHIN, "it was saved twice", saved);
    let index = usize::from(task(&fleet)["node"] == "node-1");
    fleet.agents[index].kill();
    let done = || fleet.job(&id)["state"] == "done";
    within(DONE_WITHIN, "it is done", done);
    let logs = fleet.gleaner(&desk, &["logs", &format!("{id}.0")]).exits(0);
    assert_eq!(logs.stdout, native);
    let task = task(&fleet);
    let attempts = begun(&task);
    assert_eq!(attempts[0]["state"], "lost", "{task}");
    assert_eq!(task["went_on_from"], attempts[0]["id"], "{task}");
    assert_ne!(attempts[0]["node"], attempts[1]["node"], "{task}");
}

#[test]
fn a_program_in_a_guest_that_is_evicted_saves_itself_in_time() {
    let fleet = Fleet::start_on("uml", 2, &[]);
    let desk = Desk::new();
    offer(2, || fleet.gleaner(&desk, &["nodes", "--json"]));
    let keys = "engine = \"vm\"\ncheckpoint_files = [\"state\", \"lines\", \"started\"]";
    // Each step is a program that is started, which takes its time in a guest on a busy PC.
    let says = WHEN_TOLD.replace("STEPS", &STEPS.to_string());
    let says = says.replace("echo $n >> lines", "echo $n >> lines; echo $n");
    let limits = "[limits]\nmemory = \"64MiB\"\ndisk = \"64MiB\"\n";
    let id = fleet.submit(&desk, &(job(keys, &says) + limits));
    let task = || fleet.task(&format!("{id}.0"));
    let logs = || fleet.gleaner(&desk, &["logs", &format!("{id}.0")]).stdout;
    within(DONE_WITHIN, "it has begun", || logs().lines().count() > 5);
    let node = task()["node"].as_str().unwrap().to_owned();
    fleet.gleaner(&desk, &["node", &node, "evict"]).exits(0);
    within(DONE_WITHIN, "it is done", || {
        fleet.job(&id)["state"] == "done"
    });
    fleet.gleaner(&desk, &["fetch", &id, "out"]).exits(0);
    assert_eq!(desk.read("out/0/sum"), undisturbed(STEPS));
    let (began, task) = (began(&desk), task());
    assert!(began.len() == 2 && began[1] > 5, "begun anew: {began:?}");
    let attempts = begun(&task);
    assert_eq!(attempts[0]["state"], "checkpointed", "{task}");
    assert_eq!(task["went_on_from"], attempts[0]["id"], "{task}");
    assert_ne!(attempts[0]["node"], attempts[1]["node"], "{task}");
}

/// A copy of the image that guests are made of, whose base image is another file: as on a PC with
/// other versions of the same packages.
fn other_image(to: &Path) {
    let from = std::env::var_os("GLEANER_GUEST_DIR").expect("the suite `vm` sets it");
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap().flatten() {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    // Beyond the end of a file system nobody looks.
    let base = to.join("base.img");
    let mut content = fs::read(&base).unwrap();
    content.resize(content.len() + 4096, 0);
    fs::write(&base, &content).unwrap();
    let manifest = to.join("guest.json");
    let mut said: serde_json::Value =
        serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    said["files"]["base.img"] = blake3::hash(&content).to_hex().as_str().into();
    fs::write(&manifest, said.to_string()).unwrap();
}

#[test]
fn a_saved_guest_that_fits_no_node_left_is_refused_and_its_task_begins_anew() {
    // Two trials and most of a long task under translation.
    if !long() {
        return;
    }
    let mut fleet = Fleet::start_on("tcg", 1, &[]);
    let desk = Desk::new();
    offer(1, || fleet.gleaner(&desk, &["nodes", "--json"]));
    let native = Command::new("perl")
        .args(["-MDigest::SHA=sha256_hex", "-e", CHAIN])
        .output();
    let native = String::from_utf8(native.unwrap().stdout).unwrap();
    let id = fleet.submit(
        &desk,
        &format!(
            "[task]\nengine = \"vm\"\ncheckpoint = \"10min\"\n\
             command = [\"perl\", \"-MDigest::SHA=sha256_hex\", \"-e\", {CHAIN:?}]\n\
             [limits]\nmemory = \"64MiB\"\ndisk = \"64MiB\"\n"
        ),
    );
    let logs = || fleet.gleaner(&desk, &["logs", &format!("{id}.0")]).stdout;
    within(DONE_WITHIN, "it has begun", || logs().lines().count() >= 2);
    fleet.gleaner(&desk, &["node", "1", "drain"]).exits(0);
    let task = || fleet.task(&format!("{id}.0"));
    within(DONE_WITHIN, "it is saved and given back", || {
        begun(&task())
            .first()
            .is_some_and(|one| one["state"] == "evicted")
    });
    let image = desk.path().join("other");
    other_image(&image);
    let environment = [("GLEANER_GUEST_DIR", image.to_str().unwrap())];
    let other = fleet.agent_in(&environment, 1, fleet.port(), &[]);
    fleet.agents.push(other);
    within(OFFERED_WITHIN + DONE_WITHIN, "it is done", || {
        fleet.job(&id)["state"] == "done"
    });
    let logs = fleet.gleaner(&desk, &["logs", &format!("{id}.0")]).exits(0);
    assert_eq!(logs.stdout, native, "as if nothing had been saved");
    let task = fleet.task(&format!("{id}.0"));
    let attempts = begun(&task);
    assert!(task["went_on_from"].is_null(), "{task}");
    let refused: Vec<&serde_json::Value> = attempts
        .iter()
        .filter(|one| {
            one["record"]["reason"]
                .to_string()
                .contains("was saved on machine")
        })
        .collect();
    assert_eq!(refused.len(), 1, "{task}");
    let last = attempts.last().unwrap();
    assert_eq!(last["state"], "finished", "{task}");
    assert_ne!(last["node"], attempts[0]["node"], "{task}");
}

#[test]
fn a_job_that_leaves_its_engine_open_moves_into_guests_and_back_as_it_was_measured() {
    // One processor: the second task begins when the first has ended.
    let fleet = Fleet::start_on("uml", 1, &["--cpus", "1"]);
    let desk = Desk::new();
    offer(1, || fleet.gleaner(&desk, &["nodes", "--json"]));
    // The first two are long enough that a boot is little beside them; the first spends little in the
    // kernel. The others ask their kernel all the time: dear in a guest, and next to nothing in a process.
    let script = "my $x = 1; if ($ARGV[0] == 0) { for (1..40000000) { $x = $x * 5 % 1000003 } } \
                  else { getppid for 1..900000 } sleep((31, 14)[$ARGV[0]] || 0); print $x";
    let job = format!(
        "[task]\nengine = \"auto\"\ncommand = [\"perl\", \"-e\", \"{script}\", \"{{i}}\"]\n\
         [sweep]\ni = {{ range = [0, 5] }}\n"
    );
    let id = fleet.submit(&desk, &job);
    let done = || fleet.job(&id)["state"] == "done";
    within(DONE_WITHIN, "it is done", done);
    let engine = |index: u32| {
        let task = fleet.task(&format!("{id}.{index}"));
        begun(&task)[0]["record"]["engine"].clone()
    };
    assert_eq!((engine(0), engine(1)), ("process".into(), "vm".into()));
    // Where calls are not so dear it takes another task or two until enough was seen of them.
    let engines: Vec<serde_json::Value> = (1..=5).map(engine).collect();
    let guests = engines.iter().take_while(|engine| **engine == "vm").count();
    assert!(guests < engines.len(), "{engines:?}");
    assert!(
        engines
            .iter()
            .skip(guests)
            .all(|engine| engine == "process"),
        "{engines:?}"
    );
    let why = fleet.gleaner(&desk, &["explain", &id]).exits(0);
    for words in [
        "engine auto: processes, because of",
        "what calls took in guests",
    ] {
        assert!(why.stdout.contains(words), "{}", why.stdout);
    }
}
