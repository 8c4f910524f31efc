//! What a guest's kernel, or the machine that it runs on, is for the host: the program of a cage, with
//! nobody's rights and behind a filter, at idle priority, and no larger than its guest needs.

use crate::guests::{called, until};
use crate::qemu::said;
use gleaner_engine::conformance::Bench;
use gleaner_engine::{AttemptSpec, Control};
use gleaner_engine_vm::Accelerator;
use gleaner_engine_vm::image::Image;
use gleaner_model::Bytes;
use std::fs;
use tempfile::TempDir;

type Test = fn(&Image, Accelerator);

const CONFINED: (&str, Test) = (
    "what runs a guest's kernel has nobody's rights on the host",
    confined,
);

pub(crate) const TESTS: &[(&str, Test)] = &[CONFINED];

pub(crate) const UNDER_QEMU: &[(&str, Test)] = &[
    CONFINED,
    (
        "memory that a guest has freed is the host's again",
        gives_memory_back,
    ),
];

/// Namespaces that a cage has of its own.
const NAMESPACES: [&str; 6] = ["user", "mnt", "pid", "net", "ipc", "uts"];

/// `SCHED_IDLE` of sched(7).
const IDLE: &str = "5";

fn bench(image: &Image, dir: &TempDir, accelerator: Accelerator) -> Bench {
    let blobs = dir.path().join("blobs");
    fs::create_dir(&blobs).unwrap();
    let place = dir.path().join("engine");
    Bench::new(blobs, |events| {
        crate::engine(image, &place, accelerator, events)
    })
}

/// What runs the one guest there is: all its processes.
fn machine(accelerator: Accelerator) -> Vec<u32> {
    let program = match accelerator {
        Accelerator::Uml => "/run/guest/kernel",
        Accelerator::Kvm | Accelerator::Tcg => "/usr/bin/qemu-system-x86_64",
    };
    called(program)
}

/// What the kernel says of a process, by the name of the line.
fn status(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}: {text}"))
        .trim()
        .to_owned()
}

fn end(bench: &Bench, spec: &AttemptSpec) {
    let stop = Control::Stop { grace_ms: 0 };
    bench.engine().control(spec.attempt, stop).unwrap();
    bench.ending(spec.attempt);
    bench.engine().discard(spec.attempt);
}

fn confined(image: &Image, accelerator: Accelerator) {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(image, &dir, accelerator);
    let spec = bench.script("echo ready; sleep 1000");
    bench.start(&spec);
    said(&bench, &spec, 6);
    let all = machine(accelerator);
    assert!(!all.is_empty());
    // QEMU has one more of its own.
    let filters = match accelerator {
        Accelerator::Uml => 1,
        Accelerator::Kvm | Accelerator::Tcg => 2,
    };
    for pid in all {
        for ids in [status(pid, "Uid"), status(pid, "Gid")] {
            assert!(ids.split_whitespace().all(|id| id != "0"), "{ids}");
        }
        for rights in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status(pid, rights), "0".repeat(16), "{rights}");
        }
        let bound = ["NoNewPrivs", "Seccomp"].map(|name| status(pid, name));
        assert_eq!(bound, ["1", "2"]);
        let found: u32 = status(pid, "Seccomp_filters").parse().unwrap();
        assert!(found >= filters, "{found}");
        for space in NAMESPACES {
            let of = |whose: &str| fs::read_link(format!("/proc/{whose}/ns/{space}")).unwrap();
            assert_ne!(of(&pid.to_string()), of("self"), "{space}");
        }
        let devices = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
        let names = devices.lines().skip(2);
        let names: Vec<_> = names.filter_map(|line| line.split(':').next()).collect();
        assert_eq!(names, ["    lo"]);
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // After its name, which may hold anything, the policy is the 39th word of proc(5).
        let words = stat.rsplit(") ").next().unwrap();
        assert_eq!(words.split(' ').nth(38), Some(IDLE), "{stat}");
    }
    end(&bench, &spec);
}

fn gives_memory_back(image: &Image, accelerator: Accelerator) {
    let dir = tempfile::tempdir().unwrap();
    let bench = bench(image, &dir, accelerator);
    // Whoever gives the end of a stream keeps what may be the end, until it ends itself.
    let script = "head -c 170m /dev/zero | tail -c 160m | wc -c; sleep 1000";
    let mut spec = bench.script(script);
    spec.limits.memory = Bytes(256 << 20);
    bench.start(&spec);
    said(&bench, &spec, 10);
    let [pid] = machine(accelerator)[..] else {
        panic!("not one machine")
    };
    let mib = |name: &str| {
        let text = status(pid, name);
        let kib: u64 = text.trim_end_matches(" kB").parse().unwrap();
        kib >> 10
    };
    let most = mib("VmHWM");
    assert!(most > 160, "{most} MiB");
    until("most of it comes back", || mib("VmRSS") + 120 < most);
    println!("{} MiB of {most}", mib("VmRSS"));
    end(&bench, &spec);
}
