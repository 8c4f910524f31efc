//! Do the recipes give what their READMEs say?

use crate::pool::{Desk, Pool};
use std::path::Path;

/// Submits a recipe where it lies and returns the folder with its results.
fn cook(name: &str) -> Desk {
    let desk = Desk::new();
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
    let job = recipes.join(name).join("job.toml");
    let pool = Pool::shared();
    let out = pool
        .gleaner(&desk, &["submit", job.to_str().unwrap(), "--json"])
        .exits(0);
    let id = crate::pool::id_of(&out.json());
    pool.gleaner(&desk, &["wait", &id]).exits(0);
    pool.gleaner(&desk, &["fetch", &id, "out"]).exits(0);
    desk
}

#[test]
fn primes_are_as_many_as_there_are() {
    let text = cook("primes").read("out/primes.txt");
    assert_eq!(text.lines().count(), 664_579);
    assert_eq!(text.lines().last(), Some("9999991"));
}

#[test]
fn words_add_up() {
    let text = cook("words").read("out/words.txt");
    assert_eq!(text.lines().count(), 263);
    assert_eq!(text.lines().next(), Some("74 the"));
    let sum: u32 = text
        .lines()
        .map(|l| l.split(' ').next().unwrap().parse::<u32>().unwrap())
        .sum();
    assert_eq!(sum, 694);
}

#[test]
fn the_desk_names_what_it_misses() {
    let empty = Desk::new();
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/desk/run");
    let mut command = std::process::Command::new("/usr/bin/python3");
    command
        .arg(run)
        .arg("--gleaner")
        .arg(crate::pool::binary())
        .arg("--dir")
        .arg(empty.path())
        .env("PATH", empty.path());
    crate::pool::finish(&mut command)
        .exits(2)
        .complains_of(&["apt-get install libreoffice-writer-nogui"]);
    assert!(empty.list().is_empty());
}
