//! Runs the examples that take no arguments. Each example checks its results by assertions.

use crate::helpers::example::example;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{fs, thread};

/// Examples that take arguments. Two of them have their own tests.
const OTHERS: [&str; 3] = ["bench", "http", "wc"];

/// Runs an example to its end, and returns its output.
fn run(name: &str) -> String {
    let start = Instant::now();
    let mut child = example(name).stdout(Stdio::piped()).spawn().expect("starting the example");
    // An example takes about a second, but the machine may be busy with other tests.
    while child.try_wait().expect("the state of the example").is_none() {
        if start.elapsed() > Duration::from_secs(20) {
            child.kill().expect("ending the example");
            panic!("{name} hangs");
        }
        thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().expect("the output of the example");
    assert!(output.status.success(), "{name}: {}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn each_example_succeeds_and_prints_something() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut names: Vec<_> = fs::read_dir(folder)
        .expect("the examples")
        .map(|entry| entry.expect("an entry").path().file_stem().expect("a name").to_str().expect("UTF-8").to_owned())
        .filter(|name| !OTHERS.contains(&name.as_str()))
        .collect();
    names.sort();
    assert!(names.len() >= 25, "only {names:?} found");
    for name in names {
        assert!(!run(&name).is_empty(), "{name} prints nothing");
    }
}
