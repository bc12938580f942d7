//! Shows that the loom models catch faults: breaks the crate in one place at a time, and reports which model fails.
//!
//! There are two kinds of faults. `scan.rs` finds every `Acquire`, `Release`, `AcqRel` and `SeqCst` of the source, and
//! each is weakened. `list.rs` lists mistakes in the logic. Each fault is planted in a copy of the workspace under the
//! target folder. The build folders are kept there, so that loom itself is built only once.
//!
//! ```sh
//! cargo run --release -p offthread-loom-tests --bin faults
//! cargo run --release -p offthread-loom-tests --bin faults -- oneshot.rs   # those with this in file, line or name
//! cargo run --release -p offthread-loom-tests --bin faults -- --list       # what would be planted
//! ```

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "nothing of this tool runs under loom")]

mod list;
mod run;
mod scan;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

use list::{ALLOWED, LOGIC};
use run::{Outcome, Worker};
use scan::Fault;

const HELP: &str = "\
Plants faults in a copy of the crate, one at a time, and reports which loom model catches each.

Usage: faults [OPTIONS] [FILTER]...

FILTER            only the faults whose file, line or name contains this text (several: any of them)

--list            print what would be planted, and run nothing
--jobs NUMBER     how many faults to try at once (2, or 1 on a single core)
--limit SECONDS   how long the models of one file may take for one fault (120)
--help            this text

LOOM_MAX_PREEMPTIONS is 2 unless it is set.
The exit status is 0 if every fault is caught, except those that list.rs allows to survive.
";

struct Options {
    filters: Vec<String>,
    list: bool,
    jobs: usize,
    limit: Duration,
}

impl Options {
    /// Returns `None` if the user asks for help.
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let mut options =
            Self { filters: Vec::new(), list: false, jobs: cores.min(2), limit: Duration::from_secs(120) };
        while let Some(arg) = args.next() {
            let mut number = || -> Result<u32, String> {
                let number = args.next().and_then(|value| value.parse().ok()).filter(|number| *number > 0);
                number.ok_or_else(|| format!("{arg} wants a positive number"))
            };
            match arg.as_str() {
                "--help" | "-h" => return Ok(None),
                "--list" => options.list = true,
                "--jobs" => options.jobs = number()? as usize,
                "--limit" => options.limit = Duration::from_secs(number()?.into()),
                option if option.starts_with('-') => return Err(format!("unknown option {option}; see --help")),
                _ => options.filters.push(arg),
            }
        }
        Ok(Some(options))
    }

    fn wants(&self, fault: &Fault) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| fault.to_string().contains(filter.as_str()))
    }
}

fn main() -> ExitCode {
    let done = match Options::parse(env::args().skip(1)) {
        Ok(Some(options)) => plant_all(&options),
        Ok(None) => {
            print!("{HELP}");
            Ok(true)
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Plants the selected faults, or lists them. Returns false if a fault survives that is not allowed to, if an allowed
/// fault is caught, or if the models could not be run for a fault.
fn plant_all(options: &Options) -> Result<bool, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("no workspace")?;
    let mut faults = find_faults(root)?;
    faults.retain(|fault| options.wants(fault));
    if faults.is_empty() {
        return Err(format!("no fault matches {}", options.filters.join(", ")));
    }
    if options.list {
        for fault in &faults {
            println!("{fault}{}", if fault.allowed.is_some() { " (allowed)" } else { "" });
        }
        let logic = faults.iter().filter(|fault| fault.model.is_some()).count();
        println!("{} faults: {} orderings, {logic} in the logic", faults.len(), faults.len() - logic);
        return Ok(true);
    }

    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let target = std::path::absolute(target).map_err(|error| error.to_string())?;
    let jobs = options.jobs.min(faults.len());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let worker = |number| Worker::new(root, &target, number, cores.div_ceil(jobs), options.limit);
    let workers: Vec<_> = (0..jobs)
        .map(worker)
        .collect::<io::Result<_>>()
        .map_err(|error| format!("cannot copy the workspace: {error}"))?;

    eprintln!("building the models, LOOM_MAX_PREEMPTIONS={}", run::preemptions());
    thread::scope(|scope| {
        let builds: Vec<_> = workers.iter().map(|worker| scope.spawn(|| worker.build(None))).collect();
        builds.into_iter().try_for_each(|build| build.join().expect("a build reports its errors").map(drop))
    })?;
    let binaries = workers[0].binaries(&target.join("faults/unbroken"))?;
    for entry in LOGIC {
        if !binaries.iter().flat_map(|binary| &binary.models).any(|model| model == entry.model) {
            return Err(format!(
                "{}: \"{}\" names the model {}, which does not exist",
                entry.file, entry.name, entry.model
            ));
        }
    }

    eprintln!("running them without a fault");
    let all = options.filters.is_empty();
    let needed = binaries.iter().filter(|binary| all || faults.iter().any(|fault| run::is_own(&fault.file, binary)));
    share(
        &workers,
        needed,
        |worker, binary| worker.baseline(binary),
        |binary, times| {
            eprintln!("{}: {:.1} s", binary.name, times?.iter().sum::<Duration>().as_secs_f64());
            Ok(())
        },
    )?;

    let mut tried = 0;
    let mut results = Vec::new();
    share(
        &workers,
        faults.iter(),
        |worker, &fault| {
            let started = Instant::now();
            let outcome = worker.try_fault(fault, &binaries);
            (outcome, started.elapsed(), worker.output())
        },
        |fault, (outcome, time, output)| {
            tried += 1;
            eprintln!("[{tried}/{}] {fault}: {outcome}, {:.1} s", faults.len(), time.as_secs_f64());
            // With a single fault, the user probably wants to see why a model failed, or none did.
            if faults.len() == 1 {
                eprintln!("{output}");
            }
            results.push((fault, outcome, time));
            Ok(())
        },
    )?;
    Ok(report(results))
}

/// The faults of all files, in order; or all errors in `list.rs`.
fn find_faults(root: &Path) -> Result<Vec<Fault>, String> {
    let mut files = Vec::new();
    source_files(&root.join("src"), "src", &mut files)
        .map_err(|error| format!("the source cannot be read: {error}"))?;
    let mut faults = Vec::new();
    let mut errors = Vec::new();
    for (file, source) in &files {
        faults.extend(scan::orderings(file, source));
    }
    for entry in ALLOWED {
        let mut matching: Vec<_> = faults.iter_mut().filter(|fault| entry.matches(fault)).collect();
        if let [fault] = &mut *matching {
            fault.allowed = Some(entry.why);
        } else {
            let (file, function, text, fault) = (entry.file, entry.function, entry.text, entry.fault);
            let found = matching.len();
            errors.push(format!(
                "{file}: allowing {fault} at \"{text}\" in fn {function} must match 1 fault, not {found}"
            ));
        }
    }
    for entry in LOGIC {
        match files.iter().find(|(file, _)| file == entry.file) {
            Some((_, source)) => match scan::logic(entry, source) {
                Ok(fault) => faults.push(fault),
                Err(error) => errors.push(error),
            },
            None => errors.push(format!("{}: \"{}\": there is no such file", entry.file, entry.name)),
        }
    }
    faults.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    if errors.is_empty() { Ok(faults) } else { Err(format!("list.rs is stale:\n{}", errors.join("\n"))) }
}

/// The source files under `folder`, named from the workspace root, except `sync.rs`, which replaces std by loom.
fn source_files(folder: &Path, name: &str, files: &mut Vec<(String, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = format!("{name}/{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            source_files(&path, &name, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "src/sync.rs" {
            files.push((name, fs::read_to_string(path)?));
        }
    }
    Ok(())
}

/// Lets the workers take one item after another, and passes each result to `done`. An error of `done` ends the run.
fn share<T: Send, R: Send>(
    workers: &[Worker],
    items: impl Iterator<Item = T> + Send,
    work: impl Fn(&Worker, &T) -> R + Sync,
    mut done: impl FnMut(T, R) -> Result<(), String>,
) -> Result<(), String> {
    let items = Mutex::new(items);
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        for worker in workers {
            let (items, work, sender) = (&items, &work, sender.clone());
            scope.spawn(move || {
                loop {
                    let Some(item) = items.lock().expect("an iterator does not panic").next() else { break };
                    let result = work(worker, &item);
                    if sender.send((item, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        results.into_iter().try_for_each(|(item, result)| done(item, result))
    })
}

/// Prints the table. Returns whether every fault was caught that must be, and every allowed fault survived.
fn report(mut results: Vec<(&Fault, Outcome, Duration)>) -> bool {
    results.sort_by(|(a, ..), (b, ..)| (&a.file, a.line, &a.name).cmp(&(&b.file, b.line, &b.name)));
    let (allowed, faults): (Vec<_>, Vec<_>) = results.iter().partition(|(fault, ..)| fault.allowed.is_some());
    let width = |texts: &mut dyn Iterator<Item = String>| texts.map(|text| text.chars().count()).max().unwrap_or(0);
    let fault_width = width(&mut faults.iter().map(|(fault, ..)| fault.to_string()));
    let model_width = width(&mut faults.iter().map(|(_, outcome, _)| outcome.to_string()));
    println!("{:fault_width$} | {:model_width$} | seconds", "fault", "caught by");
    for (fault, outcome, time) in &faults {
        let (fault, outcome) = (fault.to_string(), outcome.to_string());
        println!("{fault:fault_width$} | {outcome:model_width$} | {:7.1}", time.as_secs_f64());
    }

    let mut well = true;
    for (fault, outcome, _) in &allowed {
        println!("\nallowed to survive: {fault}\n    {}", fault.allowed.unwrap_or_default());
        if !matches!(outcome, Outcome::Survived | Outcome::TimedOut(_)) {
            well = false;
            println!("    ERROR: {outcome}, but list.rs says that the fault survives");
        }
    }
    let mut caught = 0;
    for (fault, outcome, _) in &results {
        match (outcome, fault.model) {
            (Outcome::Caught { model, .. }, Some(expected)) if model != expected => {
                println!("\nnote: {fault}: {expected} should catch it, but {model} did");
            }
            (Outcome::Broken(error), _) => println!("\nERROR: {fault}: {error}"),
            _ => {}
        }
        caught += usize::from(matches!(outcome, Outcome::Caught { .. }) && fault.allowed.is_none());
    }
    println!("\ncaught {caught} of {}", faults.len());
    well && caught == faults.len()
}
