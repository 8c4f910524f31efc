//! The suite's scripts as a program of WebAssembly, and the engine that puts it in their place.
//!
//! The cases of the suite are the same for all engines; only here a script means the program
//! `cases.c` with an argument, since there is no shell.

use gleaner_engine::{
    Adopted, AfterSave, AttemptSpec, Capability, CollectedFile, Control, Engine, EngineError,
    InputFile, Saves,
};
use gleaner_engine_wasm::WasmEngine;
use gleaner_model::{AttemptId, Digest, Usage};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// How a script begins, and the arguments that stand for it.
const SCRIPTS: &[(&str, &[&str])] = &[
    ("seq 1 20000 | sort -r | cksum;", &["digest"]),
    ("cat data", &["cat", "data"]),
    ("ls in | wc -l", &["count", "in"]),
    ("head -c 200m /dev/zero | tail", &["memory"]),
    ("head -c 128m /dev/zero > f; cat f f", &["cache"]),
    ("i=0; while [ $i -lt 160 ]; do head -c 64m", &["disk"]),
    ("exec perl -e 'my $b = \"x\" x (16 << 20);", &["unlinked"]),
    ("sleep 100", &["sleep", "100"]),
    ("while :; do :; done & while :; do :; done", &["spin"]),
    ("head -c 3000000 /dev/zero > big", &["big"]),
    ("while :; do echo x; sleep 0.01; done &", &["tell"]),
    ("(i=0; while [ $i -lt 200000 ];", &["usage"]),
    (
        "echo secret > /tmp/s; echo secret > /dev/shm/s;",
        &["leave"],
    ),
    ("find /tmp/ /dev/shm . -type f;", &["find", "/tmp", "."]),
    ("exec -a sleeper sleep 5", &["sleep", "5"]),
    ("n=$(cat state/n", &["step"]),
    ("i=0; while :; do i=$((i+1)); echo $i > a;", &["pair"]),
    ("ln -s /etc/passwd a;", &["unsaved", "link"]),
    ("echo x > a; exit 85", &["unsaved", "one"]),
    ("mkdir a; echo x > b;", &["unsaved", "dir"]),
    ("head -c 3m /dev/zero > a;", &["unsaved", "large"]),
];

/// The program's name in scratch.
pub(crate) const NAME: &str = "cases.wasm";

/// Compiles the program for WASI, and for this PC.
pub(crate) fn compile(dir: &Path) -> (PathBuf, PathBuf) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engine/cases.c");
    let call = |output: &Path, options: &[&str]| {
        let status = Command::new("clang")
            .args(options)
            .args(["-O2", "-ffp-contract=off", "-o"])
            .args([output, &source])
            .status();
        assert!(
            status.unwrap().success(),
            "clang could not compile {source:?}"
        );
    };
    let (module, native) = (dir.join(NAME), dir.join("cases"));
    call(
        &module,
        &[
            "--target=wasm32-wasi",
            "--sysroot=/usr",
            "-Wl,--strip-debug",
        ],
    );
    call(&native, &[]);
    (module, native)
}

/// An engine that is asked for scripts and runs the program.
#[derive(Debug, Clone)]
pub(crate) struct Scripted {
    pub(crate) engine: WasmEngine,
    pub(crate) module: Arc<InputFile>,
}

/// The program as an input.
pub(crate) fn input(module: &Path) -> InputFile {
    let bytes = std::fs::read(module).unwrap();
    InputFile {
        name: NAME.to_owned(),
        source: module.to_owned(),
        digest: Digest(*blake3::hash(&bytes).as_bytes()),
        mode: 0o644,
    }
}

impl Scripted {
    fn translate(&self, spec: AttemptSpec) -> AttemptSpec {
        let words: Vec<&str> = spec.command.iter().map(String::as_str).collect();
        let arguments: &[&str] = match *words.as_slice() {
            ["/bin/sh", "-c", script] => {
                let known = SCRIPTS.iter().find(|(begin, _)| script.starts_with(begin));
                known.unwrap_or_else(|| panic!("no program for {script}")).1
            }
            ["yes"] => &["yes"],
            _ => return spec,
        };
        self.calling(spec, arguments)
    }

    fn calling(&self, mut spec: AttemptSpec, arguments: &[&str]) -> AttemptSpec {
        let words = std::iter::once(&NAME).chain(arguments);
        spec.command = words.map(|&word| word.to_owned()).collect();
        spec.inputs.push(InputFile::clone(&self.module));
        spec
    }
}

impl Engine for Scripted {
    fn kind(&self) -> gleaner_model::Engine {
        self.engine.kind()
    }

    fn probe(&self) -> Vec<Capability> {
        self.engine.probe()
    }

    fn start(&self, spec: AttemptSpec) -> Result<(), EngineError> {
        self.engine.start(self.translate(spec))
    }

    fn control(&self, attempt: AttemptId, control: Control) -> Result<(), EngineError> {
        self.engine.control(attempt, control)
    }

    fn place(&self, attempt: AttemptId, cpu: Option<u32>) {
        self.engine.place(attempt, cpu);
    }

    fn beat(&self, lease_left_ms: u64) {
        self.engine.beat(lease_left_ms);
    }

    fn usage(&self, attempt: AttemptId) -> Result<Usage, EngineError> {
        self.engine.usage(attempt)
    }

    fn streams(&self, attempt: AttemptId) -> Result<[File; 2], EngineError> {
        self.engine.streams(attempt)
    }

    fn collect(&self, attempt: AttemptId) -> Result<Vec<CollectedFile>, EngineError> {
        self.engine.collect(attempt)
    }

    fn saves(&self) -> Saves {
        self.engine.saves()
    }

    fn save(&self, attempt: AttemptId, then: AfterSave) -> Result<(), EngineError> {
        self.engine.save(attempt, then)
    }

    fn saved(&self, attempt: AttemptId) -> Result<Vec<CollectedFile>, EngineError> {
        self.engine.saved(attempt)
    }

    fn discard(&self, attempt: AttemptId) {
        self.engine.discard(attempt);
    }

    fn adopt(&self) -> Result<Vec<Adopted>, EngineError> {
        self.engine.adopt()
    }
}
