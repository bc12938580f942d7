//! Finds the examples: `cargo test` builds them into a folder beside the tests' folder.

use std::env;
use std::path::Path;
use std::process::Command;

/// A command that runs an example.
pub fn example(name: &str) -> Command {
    let test = env::current_exe().expect("the path of this test");
    let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
    let program = profile.join("examples").join(format!("{name}{}", env::consts::EXE_SUFFIX));
    assert!(program.exists(), "{} is missing: run `cargo build --example {name}` first", program.display());
    Command::new(program)
}
