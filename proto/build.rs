//! Compiles the protobuf files with a compiler written in Rust, so that no `protoc` is needed.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

use prost::Message;
use protox::Compiler;

/// What clients see: also the content of the descriptor set that reflection serves.
const CLIENT_API: [&str; 4] = [
    "triad/v1/types.proto",
    "triad/v1/kv_service.proto",
    "triad/v1/cluster_service.proto",
    "triad/v1/operations.proto",
];

/// What nodes say to each other: described for tests, never reflected.
const PEER_API: [&str; 1] = ["triad/peer/v1/peer_service.proto"];

/// What tests ask of programs built for them: reflected, too, but never together with the client API.
const TEST_API: [&str; 1] = ["triad/test/v1/fault_service.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=triad");
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let sets = [
        ("triad.v1.bin", &CLIENT_API[..]),
        ("triad.peer.v1.bin", &PEER_API[..]),
        ("triad.test.v1.bin", &TEST_API[..]),
    ];
    for (name, api) in sets {
        let reflected = compiler(&root, api)?.include_source_info(false).file_descriptor_set();
        fs::write(out.join(name), reflected.encode_to_vec())?;
    }

    let all = [&CLIENT_API[..], &PEER_API[..], &TEST_API[..]].concat();
    let files = compiler(&root, &all)?.include_source_info(true).file_descriptor_set();
    tonic_prost_build::configure().bytes(".").emit_rerun_if_changed(false).compile_fds(files)?;
    Ok(())
}

fn compiler(root: &Path, files: &[&str]) -> Result<Compiler, protox::Error> {
    let mut compiler = Compiler::new([root])?;
    compiler.include_imports(true);
    // Source info must be asked for before the files are opened: comments become rustdoc.
    compiler.include_source_info(true);
    compiler.open_files(files)?;
    Ok(compiler)
}
