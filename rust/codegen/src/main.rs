//! Writes `rust/transport/src/generated/` from `proto/`, so that building Runferry needs no code generator.
//!
//! What it writes is committed: a reader can open it, a build is offline, and a change of the contract shows in review as
//! what it does to the code. The schema comes as a descriptor set, from the compiler that also writes the Python half.
//!
//! # Use
//! By `proto/generate.sh`: `runferry-codegen DESCRIPTORS` writes; with `--check` behind it writes nothing, names what is stale
//! and exits 1.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use prost::Message;
use prost_types::FileDescriptorSet;

/// First line of each file.
const MARK: &str = "// @generated from proto/ by proto/generate.sh. Do not edit.\n";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (descriptors, is_check) = match arguments.as_slice() {
        [descriptors] => (Path::new(descriptors), false),
        [descriptors, option] if option == "--check" => (Path::new(descriptors), true),
        _ => {
            eprintln!("usage: runferry-codegen DESCRIPTORS [--check]");
            return ExitCode::from(2);
        }
    };
    match generate(descriptors, is_check) {
        Ok(stale) if is_check && !stale.is_empty() => {
            for path in &stale {
                eprintln!("stale: {} (run proto/generate.sh)", path.display());
            }
            ExitCode::FAILURE
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("runferry-codegen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Generates into a fresh folder, then compares it with the committed one; without `is_check` the stale files are replaced.
/// Returns the stale ones, those that no schema makes any more included.
fn generate(descriptors: &Path, is_check: bool) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let committed = root.join("rust/transport/src/generated");
    let fresh = tempfile::tempdir()?;

    let schemas = FileDescriptorSet::decode(fs::read(descriptors)?.as_slice())?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true) // for scripted servers in tests; unused code is not linked
        .bytes(".") // frames are shared, not copied
        .out_dir(fresh.path())
        .compile_fds(schemas)?;

    let mut stale = Vec::new();
    let mut known = Vec::new();
    for entry in fs::read_dir(fresh.path())? {
        let entry = entry?;
        let target = committed.join(entry.file_name());
        let text = format!("{MARK}{}", fs::read_to_string(entry.path())?);
        known.push(entry.file_name());
        if fs::read_to_string(&target).is_ok_and(|found| found == text) {
            continue;
        }
        if !is_check {
            fs::create_dir_all(&committed)?;
            fs::write(&target, text)?;
        }
        stale.push(target);
    }
    for entry in fs::read_dir(&committed)? {
        let entry = entry?;
        if !known.contains(&entry.file_name()) {
            if !is_check {
                fs::remove_file(entry.path())?;
            }
            stale.push(entry.path());
        }
    }
    Ok(stale)
}
