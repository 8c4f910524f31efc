//! From a file to code: what is not a program of this kind is told apart, each with what to do.

use wasmtime::{Config, Engine, ExternType, Inlining, Memory, MemoryType, Module, OptLevel, Store};

/// How every module begins.
const MAGIC: &[u8] = b"\0asm";

/// The four bytes after it: version 1 of the core language.
const VERSION: &[u8] = &[1, 0, 0, 0];

/// Bytes that a component has at the place of a module's last two: the layer.
const LAYER: &[u8] = &[1, 0];

/// Stack of the program's calls, in bytes; the usual one of wasmtime's command line.
const STACK_BYTES: usize = 1 << 20;

/// What is written after everything that does not fit.
const COMPILE_FOR: &str = "compile it for wasm32-wasip1 (wasm32-wasi in older compilers)";

/// What code can do besides being fast.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Code {
    /// The bits of NaNs are the same in every run.
    pub(crate) deterministic: bool,
    /// It looks at the engine's epoch in every loop and call.
    pub(crate) interruptible: bool,
}

/// Code that was compiled before.
#[derive(Debug)]
pub(crate) struct Ready(pub(super) Module);

/// The bytes that [`believe`] makes code of.
///
/// # Errors
/// As [`compile`].
pub(crate) fn precompile(name: &str, bytes: &[u8], code: Code) -> Result<Vec<u8>, String> {
    let cannot = |error: wasmtime::Error| format!("the code of {name} cannot be kept: {error:#}");
    compile(name, bytes, code)?.serialize().map_err(cannot)
}

/// Code from bytes of [`precompile`]; none where they were made by another version, with other
/// settings or for another processor.
///
/// Whoever may choose these bytes may choose what this process does. So they come from nobody but
/// an agent, which keeps what processes left that ran nothing but this crate's compiler; and
/// this process is in a cage of the task's own, where all else that it does is the task's.
#[expect(unsafe_code, reason = "nothing else believes compiled code")]
pub(crate) fn believe(bytes: &[u8], code: Code) -> Option<Ready> {
    let engine = engine(code).ok()?;
    // SAFETY: the bytes are what `precompile` returned: the agent handed them in with the task, or
    // a process of ours made them in this cage before anything else could run in it.
    let module = unsafe { Module::deserialize(&engine, bytes) };
    module.ok().map(Ready)
}

/// The module in these bytes, compiled.
///
/// # Errors
/// In words: what they are instead, and what to do about it.
pub(crate) fn compile(name: &str, bytes: &[u8], code: Code) -> Result<Module, String> {
    kind(name, bytes)?;
    let cannot = |error: wasmtime::Error| format!("this PC cannot run WebAssembly: {error:#}");
    let engine = engine(code).map_err(cannot)?;
    let module = Module::new(&engine, bytes).map_err(|error| {
        format!(
            "{name} is not executable: {error:#}. Threads, garbage collection, exceptions and \
             64-bit memories are not offered; {COMPILE_FOR} without them"
        )
    })?;
    match module.get_export("_start") {
        Some(ExternType::Func(main)) if main.params().len() == 0 && main.results().len() == 0 => {
            Ok(module)
        }
        _ => Err(format!(
            "{name} is not executable: it has no `_start`, so it is a library; link it as a \
             program with a `main`"
        )),
    }
}

/// Whether these bytes are a module at all.
fn kind(name: &str, bytes: &[u8]) -> Result<(), String> {
    let Some(version) = bytes.strip_prefix(MAGIC) else {
        return Err(format!(
            "{name} is not executable: it is no WebAssembly; {COMPILE_FOR}"
        ));
    };
    let version = version.get(..4).unwrap_or(version);
    if version == VERSION {
        return Ok(());
    }
    if version.get(2..) == Some(LAYER) {
        return Err(format!(
            "{name} is not executable: it is a WebAssembly component, and this engine runs \
             modules; {COMPILE_FOR}"
        ));
    }
    Err(format!(
        "{name} is not executable: it is WebAssembly of an unknown version; {COMPILE_FOR}"
    ))
}

/// A compiler whose code runs here. Memories lie in 4 GiB of addresses each, so that no access
/// needs a check; where addresses are bounded (`ulimit -v`) they grow in place of that.
fn engine(code: Code) -> wasmtime::Result<Engine> {
    let mut config = config(code);
    let engine = Engine::new(&config)?;
    let trial = Memory::new(Store::new(&engine, ()), MemoryType::new(1, None));
    if trial.is_ok() {
        return Ok(engine);
    }
    config
        .memory_reservation(0)
        .memory_guard_size(0)
        .memory_reservation_for_growth(0);
    Engine::new(&config)
}

fn config(code: Code) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(code.interruptible)
        .cranelift_opt_level(OptLevel::Speed)
        .compiler_inlining(Inlining::Yes)
        .max_wasm_stack(STACK_BYTES)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .cranelift_nan_canonicalization(code.deterministic)
        .relaxed_simd_deterministic(code.deterministic);
    config
}

/// Why a module that compiles cannot be started: it asks for what nobody has.
pub(crate) fn not_runnable(name: &str, module: &Module, error: &wasmtime::Error) -> String {
    let other = module
        .imports()
        .find(|import| import.module() != "wasi_snapshot_preview1");
    match other {
        Some(import) if import.module() == "wasi_unstable" => format!(
            "{name} is not executable: it was made for a draft of WASI from before preview 1; \
             {COMPILE_FOR}"
        ),
        Some(import) => format!(
            "{name} is not executable: it needs `{}` of `{}`, and there is nothing but WASI \
             preview 1 here; {COMPILE_FOR}",
            import.name(),
            import.module()
        ),
        None => format!("{name} is not executable: {error:#}; {COMPILE_FOR}"),
    }
}
