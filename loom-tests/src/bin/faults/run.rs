//! Plants one fault after another in a copy of the workspace, and runs the models against it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{env, fmt, fs, io, thread};

use crate::scan::Fault;

/// A build profile: short builds, but a fast loom. Without any optimisation, the models overflow their small stacks.
const PROFILE: &str = "
[profile.faults]
inherits = 'dev'
opt-level = 1
debug = 0
incremental = true
codegen-units = 16

[profile.faults.package.offthread-loom-tests]
opt-level = 1

[profile.faults.package.'*']
opt-level = 3
";

/// One file of models, `loom-tests/tests/NAME.rs`.
pub(crate) struct Binary {
    pub(crate) name: String,
    pub(crate) models: Vec<String>,
    /// The binary of the unchanged source.
    unbroken: PathBuf,
    /// How long each model takes on the unchanged source.
    baseline: OnceLock<Result<Vec<Duration>, String>>,
}

/// The result of planting a fault.
pub(crate) enum Outcome {
    /// This model failed.
    Caught { binary: String, model: String },
    /// All models passed.
    Survived,
    /// This model did not end, and no model of its binary failed. The models of later binaries were not run.
    TimedOut(String),
    /// The models could not be run: the fault does not compile, for example.
    Broken(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caught { binary, model } => write!(f, "{binary}::{model}"),
            Self::Survived => write!(f, "SURVIVED"),
            Self::TimedOut(model) => write!(f, "SURVIVED: {model} timed out"),
            Self::Broken(error) => write!(f, "NO RESULT: {}", error.lines().next().unwrap_or_default()),
        }
    }
}

/// The result of one run of one model.
enum Run {
    Passed,
    Failed,
    TimedOut,
}

/// A copy of the workspace, and its build folder.
pub(crate) struct Worker {
    tree: PathBuf,
    build: PathBuf,
    /// The file with the output of the last model.
    output: PathBuf,
    /// How many threads the compiler may use.
    threads: usize,
    /// How long all models of one binary may take together for one fault. Without a fault: how long each model may
    /// take.
    limit: Duration,
}

impl Worker {
    /// Makes the copy. The build folder is kept from run to run.
    pub(crate) fn new(root: &Path, target: &Path, number: usize, threads: usize, limit: Duration) -> io::Result<Self> {
        let folder = target.join("faults").join(number.to_string());
        let tree = folder.join("tree");
        if tree.exists() {
            fs::remove_dir_all(&tree)?;
        }
        copy(root, &tree, &|path| {
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            // Without this tool, which would otherwise be rebuilt for each fault.
            hidden || path == target || path == root.join("target") || path.ends_with("loom-tests/src/bin")
        })?;
        fs::create_dir_all(tree.join(".cargo"))?;
        fs::write(tree.join(".cargo/config.toml"), PROFILE)?;
        Ok(Self { tree, build: folder.join("build"), output: folder.join("output.txt"), threads, limit })
    }

    /// Builds the binaries without a fault, copies them into the folder `unbroken`, and lists their models.
    pub(crate) fn binaries(&self, unbroken: &Path) -> Result<Vec<Binary>, String> {
        let failed = |error: io::Error| format!("the models cannot be listed: {error}");
        fs::create_dir_all(unbroken).map_err(failed)?;
        let mut binaries = Vec::new();
        for (name, executable) in self.build(None)? {
            let copy = unbroken.join(executable.file_name().unwrap_or_default());
            fs::copy(&executable, &copy).map_err(failed)?;
            let list = Command::new(&copy).args(["--list", "--format=terse"]).output().map_err(failed)?;
            let list = String::from_utf8_lossy(&list.stdout);
            let models = list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
            binaries.push(Binary { name, models, unbroken: copy, baseline: OnceLock::new() });
        }
        Ok(binaries)
    }

    /// How long each model of a binary takes on the unchanged source. Measured once in a run of the tool.
    pub(crate) fn baseline<'a>(&self, binary: &'a Binary) -> Result<&'a [Duration], String> {
        let run = |model: &String| {
            let started = Instant::now();
            match self.run(&binary.unbroken, model, self.limit) {
                Run::Passed => Ok(started.elapsed()),
                Run::Failed => Err(format!("{}::{model} fails without a fault:\n{}", binary.name, self.output())),
                Run::TimedOut => Err(format!("{}::{model} exceeds the limit without a fault", binary.name)),
            }
        };
        let times = binary.baseline.get_or_init(|| binary.models.iter().map(run).collect());
        times.as_deref().map_err(Clone::clone)
    }

    /// Plants the fault, looks for a model that catches it, and restores the file.
    pub(crate) fn try_fault(&self, fault: &Fault, binaries: &[Binary]) -> Outcome {
        let file = self.tree.join(&fault.file);
        let source = fs::read_to_string(&file).expect("the copy can be read");
        fs::write(&file, fault.plant(&source)).expect("the copy can be written");
        let outcome = self.find_model(fault, binaries).unwrap_or_else(Outcome::Broken);
        fs::write(&file, source).expect("the copy can be written");
        outcome
    }

    fn find_model(&self, fault: &Fault, binaries: &[Binary]) -> Result<Outcome, String> {
        let expected = |model: &String| fault.model.is_some_and(|name| model == name);
        let mut order: Vec<_> = binaries.iter().collect();
        order.sort_by_key(|binary| (!binary.models.iter().any(expected), !is_own(&fault.file, binary)));
        for binary in order {
            let times = self.baseline(binary)?;
            let executables = self.build(Some(&binary.name))?;
            let executable = executables.get(&binary.name).ok_or("cargo names no test binary")?;
            let mut models: Vec<_> = binary.models.iter().zip(times).collect();
            models.sort_by_key(|(model, time)| (!expected(model), **time));
            let started = Instant::now();
            let mut timed_out = None;
            for (model, time) in models {
                // A model that becomes endless must not use up the time of a model that would fail.
                let limit = self.limit.saturating_sub(started.elapsed()).min((*time * 10).max(Duration::from_secs(10)));
                match self.run(executable, model, limit) {
                    Run::Passed => {}
                    Run::Failed => {
                        // A stack overflow without an earlier panic proves nothing, because loom's threads have small
                        // stacks.
                        let overflow = "overflowed its stack";
                        if self.output().split("panicked").next().is_some_and(|start| start.contains(overflow)) {
                            return Err(format!("{}::{model} {overflow}", binary.name));
                        }
                        return Ok(Outcome::Caught { binary: binary.name.clone(), model: model.clone() });
                    }
                    Run::TimedOut => timed_out = timed_out.or(Some(format!("{}::{model}", binary.name))),
                }
            }
            if let Some(model) = timed_out {
                return Ok(Outcome::TimedOut(model));
            }
        }
        Ok(Outcome::Survived)
    }

    /// Builds one test binary, or all. Returns their names and paths.
    pub(crate) fn build(&self, binary: Option<&str>) -> Result<BTreeMap<String, PathBuf>, String> {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.build);
        // A fault may leave an import unused, which must not fail the build.
        let flags = env::var("RUSTFLAGS").unwrap_or_default();
        cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", format!("{flags} --cap-lints=allow"));
        cargo.args(["test", "--no-run", "--quiet", "--message-format=json-render-diagnostics", "--profile=faults"]);
        cargo.args(["-p", "offthread-loom-tests", &format!("-j{}", self.threads)]);
        match binary {
            Some(name) => cargo.args(["--test", name]),
            None => cargo.args(["--test", "*"]),
        };
        let output = cargo.output().map_err(|error| format!("cargo does not start: {error}"))?;
        if !output.status.success() {
            return Err(format!("the compiler refuses the source:\n{}", String::from_utf8_lossy(&output.stderr)));
        }
        let mut executables = BTreeMap::new();
        for message in String::from_utf8_lossy(&output.stdout).lines() {
            let after = |key: &str| message.split_once(key).and_then(|(_, value)| value.split_once('"'));
            if let Some((path, _)) = after("\"executable\":\"") {
                // The name of the target, not that of the package.
                let name = after("\"kind\":[\"test\"]").and_then(|(_, target)| target.split_once("\"name\":\""));
                let name = name.and_then(|(_, name)| name.split_once('"')).ok_or("cargo names no target")?.0;
                executables.insert(name.to_owned(), PathBuf::from(path.replace("\\\\", "\\")));
            }
        }
        Ok(executables)
    }

    /// Runs one model in its own process, because the model may abort or never end.
    fn run(&self, executable: &Path, model: &str, limit: Duration) -> Run {
        let started = Instant::now();
        let mut command = Command::new(executable);
        command.args([model, "--exact", "--test-threads=1", "--nocapture"]).current_dir(self.tree.join("loom-tests"));
        command.env("RUST_BACKTRACE", "0").env("LOOM_MAX_PREEMPTIONS", preemptions()).stdin(Stdio::null());
        let output = fs::File::create(&self.output).expect("the folder is ours");
        command.stdout(output.try_clone().expect("a file can be cloned")).stderr(output);
        let mut child = command.spawn().expect("the models were just built");
        loop {
            match child.try_wait().expect("the child is ours") {
                Some(status) if status.success() => return Run::Passed,
                Some(_) => return Run::Failed,
                None if started.elapsed() >= limit => {
                    // An error is ignored: the process may just have ended by itself.
                    _ = child.kill();
                    _ = child.wait();
                    return Run::TimedOut;
                }
                None => thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// The output of the last model.
    pub(crate) fn output(&self) -> String {
        fs::read(&self.output)
            .map_or_else(|error| error.to_string(), |text| String::from_utf8_lossy(&text).into_owned())
    }
}

/// loom's limit of preemptions.
pub(crate) fn preemptions() -> String {
    env::var("LOOM_MAX_PREEMPTIONS").unwrap_or("2".to_owned())
}

/// Whether a binary has the name of a source file, or of the file's folder: then it usually has the file's models.
pub(crate) fn is_own(file: &str, binary: &Binary) -> bool {
    file.trim_end_matches(".rs").rsplit('/').take(2).any(|name| name == binary.name)
}

/// Copies a folder, except the paths for which `skip` returns true.
fn copy(from: &Path, to: &Path, skip: &dyn Fn(&Path) -> bool) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if skip(&path) {
        } else if path.is_dir() {
            copy(&path, &to, skip)?;
        } else {
            fs::copy(&path, &to)?;
        }
    }
    Ok(())
}
