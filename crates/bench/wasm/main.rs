//! The work of `gleaner bench overhead` as a program of WebAssembly: the files that the `gleaner`
//! program is made of, compiled for another machine. `work.wasm` beside this file is what came of
//! it, so that nobody needs that compiler; every run compares what it computes with what native
//! computes. In the directory of the workspace, after `rustup target add wasm32-wasip1`:
//!
//! ```sh
//! rustc --edition 2024 --target wasm32-wasip1 -C opt-level=3 -C panic=abort -C strip=symbols \
//!     -C target-feature=+simd128 -C llvm-args=-force-vector-interleave=4 \
//!     -C llvm-args=-unroll-partial-threshold=150 -C llvm-args=-pre-RA-sched=source \
//!     -o crates/bench/wasm/work.wasm crates/bench/wasm/main.rs
//! ```
//!
//! These are the flags that `docs/user/webassembly.md` tells users, and for their reasons. Vectors
//! of 128 bits are what native has as well: every x86-64 processor has them. Native has its loops
//! unrolled without being told. As in a release build of cargo, nothing is optimised across
//! crates: what becomes one large function loses registers.

#[path = "../src/burn/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the benchmark's half is not in the module")]
mod burn;

fn main() -> std::process::ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    burn::burn_main(&args)
}
