//! Turns `proto/pool.proto` into Rust without an external compiler.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(["proto/pool.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .codec_path("crate::BoundedCodec")
        .compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
