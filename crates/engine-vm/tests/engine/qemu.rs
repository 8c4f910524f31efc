//! What is different under QEMU, here where it translates each instruction: that runs anywhere.

use gleaner_engine::conformance::Bench;
use gleaner_engine::conformance::harness::group_parent;
use gleaner_engine_process::ProcessConfig;
use gleaner_engine_vm::image::Image;
use gleaner_engine_vm::probe::{Outcome, Remembered, chosen, trials};
use gleaner_engine_vm::{Accelerator, VmConfig};
use std::path::Path;
use std::time::{Duration, Instant};

type Test = fn(&Bench, &Image);

pub(crate) const TESTS: &[(&str, Test)] = &[
    (
        "a distribution's kernel, and no device leads out",
        own_kernel,
    ),
    ("nothing is refused in an ordinary run", nothing_refused),
    (
        "what the trial of the device says is bounded and remembered",
        device,
    ),
];

fn own_kernel(bench: &Bench, image: &Image) {
    let said = bench.stdout_of(
        &bench.script("uname -r; ls /sys/class/net; nproc; ls /dev | tr '\\n' ' '; id -u | wc -c"),
    );
    let release = image.manifest.kernel(Accelerator::Tcg).unwrap();
    let devices = "fd full null random shm stderr stdin stdout urandom zero ";
    // A user without rights: its number has more digits than that of root.
    let expected = format!("{release}\nlo\n1\n{devices}");
    let rest = said
        .strip_prefix(&expected)
        .unwrap_or_else(|| panic!("{said}"));
    assert_ne!(rest.trim(), "2", "not root");
}

fn nothing_refused(bench: &Bench, _: &Image) {
    let (ending, _) = bench.run(&bench.script("head -c 5m /dev/zero > f; sync f; true"));
    assert!(ending.refused_calls.is_empty(), "{ending:?}");
    assert!(ending.degraded.is_empty(), "{ending:?}");
}

/// On a PC whose virtualisation works this is quick; on one where the device opens and hangs it
/// must not take long either. A busy PC is asked again, so nothing is remembered then.
fn device(_: &Bench, image: &Image) {
    let dir = tempfile::tempdir().unwrap();
    let process = ProcessConfig {
        group_parent: group_parent(),
        ..ProcessConfig::new(dir.path().join("engine"))
    };
    let copy = dir.path().join("image");
    std::os::unix::fs::symlink(&image.dir, &copy).unwrap();
    let config = VmConfig {
        accelerator: Some(Accelerator::Kvm),
        ..VmConfig::new(process, copy)
    };
    let begun = Instant::now();
    let first = trials(&config, image, Remembered::Believed);
    let took = begun.elapsed();
    assert_eq!(first.len(), 1, "{first:?}");
    match &first[0].outcome {
        Outcome::Works { .. } => assert_eq!(chosen(&first), Some(Accelerator::Kvm)),
        Outcome::Absent { why } => {
            assert!(
                !Path::new("/dev/kvm").exists() || why.contains("group"),
                "{why}"
            );
        }
        Outcome::Fails { why } => {
            assert_eq!(chosen(&first), None);
            // Generous: the bound holds on a busy PC.
            assert!(took < Duration::from_secs(90), "{took:?}");
            if !why.contains("busy") {
                let again = Instant::now();
                assert_eq!(trials(&config, image, Remembered::Believed), first);
                assert!(again.elapsed() < Duration::from_secs(5), "it is remembered");
            }
        }
    }
}
