//! Links the `gleaner` binary at a fixed address.
//!
//! It is executed for every shim and every call of the command line, and has some fifty thousand
//! addresses in its tables. At a place that is only known when it starts, the loader writes each of
//! them and so touches a megabyte before `main`: milliseconds, at each start. Linked at a fixed
//! place it has none to write. Heap, stack, libraries and the kernel's pages lie at random places as
//! before.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // Where static executables are the rule, the C library is linked in and chooses for itself.
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo:rustc-link-arg-bins=-no-pie");
    }
}
