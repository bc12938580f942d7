//! Counts the lines, words and bytes of files, many at a time: `wc` with threads.
//!
//! What it shows: `map` runs blocking work, which opens and reads files, in the jobs of a pool. The map keeps a bounded
//! number of jobs in flight, and returns their results in order. The walk, which reads the directories, runs on the
//! main thread; the map takes the next file from the walk only when there is room for another job. There is no lock:
//! each job owns its path and returns a value. On the main thread, a second task draws a progress line.
//!
//! ```sh
//! cargo run --release --example wc -- src tests
//! cargo run --release --example wc -- -j 8 /usr/include
//! ```
//!
//! The numbers are those of coreutils' `wc` in the C locale. For words, coreutils has had two rules: see [`NEXT`].

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::{self, File, FileType};
use std::future::poll_fn;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Read, StdoutLock, Write};
use std::num::NonZero;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;
use std::{env, thread};

use offthread::{ThreadPool, block_on, sleep, spawn, yield_now};

const USAGE: &str = "\
Usage: wc [-j THREADS] PATH...

Counts the lines, words and bytes of each file, and of all files together.
A directory is walked: the regular files below it are counted, symbolic links
in it are not followed. Standard input is not read: - is a name like any other.

  -j THREADS  count in this many threads (default: one for each processor)
  --          the end of the options: every later argument is a PATH
  --help      print this text
";

/// How many jobs may be in flight for each thread. Results are awaited in order. So while one thread reads a big file,
/// the others can finish this many files each before they run out of work. A waiting job costs little more than its
/// path.
const IN_FLIGHT: usize = 32;

/// How many bytes are read at a time. A running job needs no more memory than this, however big its file is.
const BUFFER_SIZE: usize = 64 * 1024;

fn main() -> ExitCode {
    let outcome = match parse(env::args_os().skip(1)) {
        Ok(Command::Count { threads, paths }) => block_on(run(threads, paths)),
        Ok(Command::Help) => io::stdout().write_all(USAGE.as_bytes()).map(|()| true),
        Err(problem) => {
            to_stderr(format!("wc: {problem}\n{USAGE}").as_bytes());
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Only writing to stdout can fail here. If the reader has closed the pipe, as in `wc … | head -1`, there
            // is nothing to report.
            if error.kind() != ErrorKind::BrokenPipe {
                to_stderr(format!("wc: standard output: {error}\n").as_bytes());
            }
            ExitCode::FAILURE
        }
    }
}

/// Counts all files in the pool, and prints the results in the order of the walk. Returns false if a file could not be
/// read.
async fn run(threads: usize, paths: Vec<PathBuf>) -> io::Result<bool> {
    let pool = ThreadPool::new(threads);
    let count = |(path, found): (PathBuf, io::Result<()>)| {
        // A path that the walk could not read passes through a job too, so that its error is reported in order.
        let counts = found.and_then(|()| count(File::open(&path)?));
        (path, counts)
    };
    let mut results = pool.map(Walk::new(paths), count).max_size(threads * IN_FLIGHT);
    // The two tasks share the report without a lock, because they take turns on one thread.
    let report = Rc::new(RefCell::new(Report::new()));
    // The task is cancelled when this function returns and drops the handle.
    let _progress = io::stderr().is_terminal().then(|| spawn(show_progress(report.clone())));
    // Lets the task draw its first line now: the walk may block this thread for long before it finds a file.
    yield_now().await;
    loop {
        let result = poll_fn(|cx| {
            let result = Pin::new(&mut results).poll_next(cx);
            if result.is_pending() {
                // Here the output is flushed only when the map is pending, so fast results are written in bulk.
                report.borrow_mut().out.flush()?;
            }
            result.map(Ok::<_, io::Error>)
        });
        match result.await? {
            // If this fails, the function returns and drops the map, which cancels the remaining jobs.
            Some((path, counts)) => report.borrow_mut().add(&path, counts)?,
            None => return report.borrow_mut().finish(),
        }
    }
}

/// Draws the progress line again and again.
async fn show_progress(report: Rc<RefCell<Report>>) {
    loop {
        report.borrow_mut().show();
        sleep(Progress::INTERVAL).await;
    }
}

// --- counting -------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Default)]
struct Counts {
    lines: u64,
    words: u64,
    bytes: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.lines += other.lines;
        self.words += other.words;
        self.bytes += other.bytes;
    }
}

/// How each byte changes the state "in a word", which is 0 or 1: bit `i` is the new state after state `i`.
///
/// A word is a run of bytes without white space that contains a printable ASCII character: control bytes, and bytes
/// from 128 on, neither start nor end a word. That is the C locale's rule in coreutils up to 9.4. From 9.5 on, any run
/// without white space is a word. For ASCII text, both rules give the same numbers.
const NEXT: [u8; 256] = {
    let mut next = [0b10; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        match byte {
            b' ' | b'\t'..=b'\r' => next[byte as usize] = 0b00,
            b'!'..=b'~' => next[byte as usize] = 0b11,
            _ => {}
        }
        byte += 1;
    }
    next
};

/// Counts the lines, words and bytes of `input`. A newline counts as a line; [`NEXT`] defines words.
fn count(mut input: impl Read) -> io::Result<Counts> {
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut counts = Counts::default();
    let mut in_word = 0;
    loop {
        let chunk = match input.read(&mut buffer) {
            Ok(0) => return Ok(counts),
            Ok(length) => &buffer[..length],
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        counts.bytes += chunk.len() as u64;
        for &byte in chunk {
            // This code has no branch that could be mispredicted at each end of a word.
            let next = NEXT[usize::from(byte)] >> in_word & 1;
            counts.words += u64::from(next & !in_word);
            counts.lines += u64::from(byte == b'\n');
            in_word = next;
        }
    }
}

// --- finding the files ----------------------------------------------------------------------------------------------

/// A path, and whether it is a directory. An error: this is not known.
type Entry = (PathBuf, io::Result<bool>);

/// The remaining entries of a directory. Each path is built only when the walk reaches it.
type Level = Box<dyn Iterator<Item = Entry>>;

/// Finds the files, one at a time: the given paths in their order, and the files below a directory sorted by name. An
/// error stands for a directory, or for an entry of a directory, that could not be read.
///
/// The walk keeps the names in the current directory and in its ancestors, never the names of the whole tree.
struct Walk {
    levels: Vec<Level>,
}

impl Walk {
    /// Symbolic links among the given paths are followed.
    fn new(paths: Vec<PathBuf>) -> Self {
        let named = paths.into_iter().map(|path| {
            let is_dir = path.is_dir();
            (path, Ok(is_dir))
        });
        Self { levels: vec![Box::new(named)] }
    }

    /// The entries of a directory, sorted by name. Symbolic links are left out, so that a walk cannot go round in
    /// circles. Devices, sockets and pipes are left out too, because opening one may block for ever.
    fn list(dir: &Path) -> io::Result<Level> {
        let mut entries: Vec<(OsString, io::Result<FileType>)> = fs::read_dir(dir)?
            .map(|entry| match entry {
                Ok(entry) => (entry.file_name(), entry.file_type()),
                // The listing has failed midway. The empty name makes this an error of the directory itself.
                Err(error) => (OsString::new(), Err(error)),
            })
            .filter(|(_, kind)| kind.as_ref().map_or(true, |kind| kind.is_file() || kind.is_dir()))
            .collect();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let dir = dir.to_owned();
        Ok(Box::new(entries.into_iter().map(move |(name, kind)| (dir.join(name), kind.map(|kind| kind.is_dir())))))
    }
}

impl Iterator for Walk {
    type Item = (PathBuf, io::Result<()>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.levels.last_mut()?.next() {
                Some((path, Ok(false))) => return Some((path, Ok(()))),
                Some((path, Ok(true))) => match Self::list(&path) {
                    Ok(level) => self.levels.push(level),
                    Err(error) => return Some((path, Err(error))),
                },
                Some((path, Err(error))) => return Some((path, Err(error))),
                None => drop(self.levels.pop()),
            }
        }
    }
}

// --- the output -----------------------------------------------------------------------------------------------------

/// Prints the results one by one, and adds up the total.
struct Report {
    out: BufWriter<StdoutLock<'static>>,
    progress: Progress,
    total: Counts,
    files: u64,
    unreadable: u64,
}

impl Report {
    fn new() -> Self {
        Self {
            out: BufWriter::new(io::stdout().lock()),
            progress: Progress::new(),
            total: Counts::default(),
            files: 0,
            unreadable: 0,
        }
    }

    fn add(&mut self, path: &Path, counts: io::Result<Counts>) -> io::Result<()> {
        match counts {
            Ok(counts) => {
                self.files += 1;
                self.total += counts;
                self.line(counts, &raw(path))
            }
            Err(error) => {
                self.unreadable += 1;
                // On a terminal, the message then stands where the result would have been.
                self.out.flush()?;
                self.progress.erase();
                to_stderr(&[b"wc: ", &*raw(path), format!(": {error}\n").as_bytes()].concat());
                Ok(())
            }
        }
    }

    /// Prints one line. The columns have fixed widths, because a result is printed before the later results are known.
    fn line(&mut self, counts: Counts, name: &[u8]) -> io::Result<()> {
        self.progress.make_way();
        let Counts { lines, words, bytes } = counts;
        write!(self.out, "{lines:>8} {words:>8} {bytes:>10} ")?;
        self.out.write_all(name)?;
        self.out.write_all(b"\n")
    }

    fn show(&mut self) {
        // If this fails, the rest stays in the buffer. The next flush writes it, or fails and returns the error.
        if self.out.flush().is_ok() {
            self.progress.draw(self.files, self.total.bytes);
        }
    }

    /// Prints the total if there was more than one file. Returns whether all files could be read.
    fn finish(&mut self) -> io::Result<bool> {
        if self.files + self.unreadable > 1 {
            self.line(self.total, b"total")?;
        }
        self.out.flush()?;
        Ok(self.unreadable == 0)
    }
}

/// A progress line, which is drawn again and again on stderr if that is a terminal.
struct Progress {
    stdout_is_terminal: bool,
    visible: bool,
}

impl Progress {
    /// How many columns are written, and erased.
    const WIDTH: usize = 60;
    const INTERVAL: Duration = Duration::from_millis(100);

    fn new() -> Self {
        Self { stdout_is_terminal: io::stdout().is_terminal(), visible: false }
    }

    fn draw(&mut self, files: u64, bytes: u64) {
        Self::write(&format!("{files} files, {} MiB", bytes >> 20));
        self.visible = true;
    }

    fn erase(&mut self) {
        if self.visible {
            Self::write("");
            self.visible = false;
        }
    }

    /// Writes the text, and blanks that erase the rest of the previous line. Any later output starts in the first
    /// column.
    fn write(text: &str) {
        to_stderr(format!("{text:<0$}\r", Self::WIDTH).as_bytes());
    }

    /// Called before output to stdout, which may be the same terminal.
    fn make_way(&mut self) {
        if self.stdout_is_terminal {
            self.erase();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.erase();
    }
}

/// Writes the message in one call, so that lines stay whole. An error is ignored, because it could not be reported.
fn to_stderr(message: &[u8]) {
    let _ = io::stderr().write_all(message);
}

/// The bytes of a path, which need not be UTF-8.
#[cfg(unix)]
fn raw(path: &Path) -> Cow<'_, [u8]> {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().into()
}

/// The text of a path. Characters that have no UTF-8 form are replaced.
#[cfg(not(unix))]
fn raw(path: &Path) -> Cow<'_, [u8]> {
    path.to_string_lossy().into_owned().into_bytes().into()
}

// --- the command line -----------------------------------------------------------------------------------------------

enum Command {
    Count { threads: usize, paths: Vec<PathBuf> },
    Help,
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut threads = thread::available_parallelism().map_or(1, NonZero::get);
    let mut paths = Vec::new();
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy();
        if let Some(attached) = text.strip_prefix("-j") {
            let number = match attached {
                "" => args.next().ok_or("-j needs a number")?.to_string_lossy().into_owned(),
                _ => attached.to_owned(),
            };
            let number: NonZero<u16> = number.parse().map_err(|error| format!("-j {number}: {error}"))?;
            threads = number.get().into();
        } else if text == "--help" {
            return Ok(Command::Help);
        } else if text == "--" {
            paths.extend(args.by_ref().map(PathBuf::from));
        } else if text.starts_with('-') && text != "-" {
            return Err(format!("unknown option {text}"));
        } else {
            paths.push(PathBuf::from(&arg));
        }
    }
    if paths.is_empty() { Err("no PATH given".to_owned()) } else { Ok(Command::Count { threads, paths }) }
}
