//! Does the same job give the same results in guests as in processes? Runs in the suite `vm`,
//! which builds the guest's program first.

use crate::images::{SCRIPT, userland};
use crate::pool::{Desk, Pool, id_of};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the first guest of a pool may take to be built, tried and offered.
const OFFERED_WITHIN: Duration = Duration::from_secs(240);

fn recipe(file: &str) -> String {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
    std::fs::read_to_string(recipes.join(file)).unwrap()
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

/// Waits until a node offers guests.
fn offered(pool: &Pool, desk: &Desk) {
    let end = Instant::now() + OFFERED_WITHIN;
    loop {
        let nodes = pool.gleaner(desk, &["nodes", "--json"]).exits(0).json();
        if nodes.to_string().contains("\"vm\"") {
            return;
        }
        assert!(Instant::now() < end, "no node offers guests: {nodes}");
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
