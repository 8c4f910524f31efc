//! Peers that hang, fail or are not there, played by scripts of the shell.

use super::*;
use crate::dispatch::Kind;
use serde_json::Value;

/// Short enough for a test; long beside what a shell needs to answer.
const SHORT: Patience = Patience {
    start: Duration::from_secs(2),
    first: Duration::from_secs(2),
    first_task: Duration::ZERO,
    later: Duration::from_secs(2),
    later_times: 0,
};

/// A peer whose driver is a script of the shell.
fn peer(system: System, script: &str, stop: &Stop) -> Result<Peer, BenchError> {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    let until = Until::within(SHORT.start, stop);
    let driver = Driver::start(command, "nothing", until).map(Running::Driver);
    Peer::seated(system, driver, SHORT, stop)
}

/// Waits until no process has `word` in its command line.
fn gone(word: &str) -> bool {
    let among = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = all.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
        let mut lines = lines.map(|line| String::from_utf8_lossy(&line).into_owned());
        lines.any(|line| line.split('\0').any(|part| part == word))
    };
    let asked = Instant::now();
    while among() && asked.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(10));
    }
    !among()
}

#[test]
fn a_peer_that_hangs_is_told_and_the_rest_goes_on() {
    let stop = Stop::default();
    // It answers once. Then it stands still, deaf, with a child that nobody else knows.
    let deaf = "trap '' TERM; echo ready; read order; echo 0.5; read order; sleep 4711.25 & wait";
    let well = "echo hello; echo ready; while read order; do echo 0.25; done";
    let mut peers = [
        peer(System::Ray, deaf, &stop).unwrap(),
        peer(System::Hq, well, &stop).unwrap(),
    ];
    let mut kind = Kind::new("no-op tasks", "/bin/true".into(), Value::Null);
    kind.promised = true;
    kind.theirs = vec![Vec::new(); 2];
    for round in 1..=3 {
        kind.floor.push(100.0);
        kind.ours.push(80.0);
        for (peer, rates) in peers.iter_mut().zip(&mut kind.theirs) {
            let when = format!("round {round}");
            rates.extend(peer.rate(10, Path::new("/bin/true"), &when).unwrap());
        }
    }
    assert!(gone("4711.25"), "a process of the peer that hung is left");
    let rows = kind.rows(&peers);
    let figures: Vec<f64> = rows.iter().map(|row| row.figure).collect();
    assert_eq!(figures, [80.0, 100.0, 0.8, 20.0, 4.0, 40.0, 2.0]);
    let said = "1 rounds; hung in round 2: no answer within 2 s; its processes were ended";
    let notes: Vec<&str> = rows.iter().map(|row| row.note.as_str()).collect();
    assert_eq!(notes, ["", "", "", said, said, "", ""]);
}

#[test]
fn a_peer_that_never_starts_has_no_figure_and_says_why() {
    let stop = Stop::default();
    let mut hung = peer(System::Ray, "sleep 4712.25", &stop).unwrap();
    let rate = hung.rate(10, Path::new("/bin/true"), "round 1").unwrap();
    assert_eq!(rate, None);
    assert!(gone("4712.25"));
    let mut kind = Kind::new("no-op tasks", "/bin/true".into(), Value::Null);
    kind.promised = true;
    kind.ours.push(80.0);
    kind.theirs = vec![Vec::new()];
    let row = &serde_json::to_value(kind.rows(&[hung])).unwrap()[3];
    assert_eq!(
        (&row["figure"], &row["interval"]),
        (&Value::Null, &Value::Null)
    );
    let said = "0 rounds; hung in start: no answer within 2 s; its processes were ended";
    assert_eq!(row["note"], said);
}

#[test]
fn a_peer_that_is_not_installed_or_told_to_stop_is_no_hang() {
    let stop = Stop::default();
    let missing = peer(System::Ray, "exit 1", &stop).unwrap_err();
    assert!(missing.to_string().contains("is it installed"), "{missing}");
    let mut breaks = peer(System::Ray, "echo ready; read order; exit 1", &stop).unwrap();
    let rate = breaks.rate(10, Path::new("/bin/true"), "round 1").unwrap();
    assert_eq!(rate, None);
    let why = breaks.fell_out().unwrap();
    assert!(why.starts_with("failed in round 1"), "{why}");
    let mut waits = peer(System::Ray, "echo ready; sleep 4713.25", &stop).unwrap();
    stop.tell();
    let told = waits.rate(10, Path::new("/bin/true"), "round 1");
    assert!(matches!(told, Err(BenchError::Interrupted)));
    drop(waits);
    assert!(gone("4713.25"));
}

#[test]
fn later_runs_are_measured_by_the_slowest_before() {
    let run = |tasks, slowest: Option<u64>| {
        PATIENCE
            .run(tasks, slowest.map(Duration::from_secs))
            .as_secs()
    };
    assert_eq!(run(10, None), 180);
    assert_eq!(run(100_000, None), 5000);
    assert_eq!(run(10, Some(1)), 60);
    assert_eq!(run(10, Some(30)), 300);
}
