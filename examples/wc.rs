//! Counts the lines, words and bytes of files, many at a time: `wc` with threads.
//!
//! What it shows: blocking work (opening and reading files) runs in the jobs of a pool, by `map`, which keeps a bounded
//! number of them in flight and gives their results in order. It asks the walk for the next file only when there is room
//! for one more: so the walk stays as far ahead as that, and reads a directory on the main thread now and then. There is
//! no lock: each job owns its path and hands back a value. Beside it, on the same thread, a task sleeps and shows how far
//! it has got, ten times a second.
//!
//! ```sh
//! cargo run --release --example wc -- src tests
//! cargo run --release --example wc -- -j 8 /usr/include
//! ```
//!
//! The numbers are those of coreutils' `wc` in the C locale; [`NEXT`] says which of its two rules for words this is.

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

use offthread::{ThreadPool, block_on, sleep, spawn};

const USAGE: &str = "\
Usage: wc [-j THREADS] PATH...

Counts the lines, words and bytes of every file, and of all of them together.
A directory is walked: the regular files below it are counted, symbolic links
in it are not followed. Standard input is not read: - is a name like any other.

  -j THREADS  count in so many threads (default: one for each processor)
  --          the end of the options: what follows is a PATH in any case
  --help      print this text
";

/// How many jobs may be in flight for each thread. Results are awaited in order, so this many files can be finished
/// behind one big file before the other threads run out of work. A job that waits costs little more than its path.
const IN_FLIGHT: usize = 32;

/// How much is read at a time. This is all the memory a running job needs, however big its file is.
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
            // Only writing the results fails here. A reader that has left (`wc … | head -1`) is no news to anyone.
            if error.kind() != ErrorKind::BrokenPipe {
                to_stderr(format!("wc: standard output: {error}\n").as_bytes());
            }
            ExitCode::FAILURE
        }
    }
}

/// Counts all files in the pool and prints the results in the order of the walk; `false` if one could not be read.
async fn run(threads: usize, paths: Vec<PathBuf>) -> io::Result<bool> {
    let pool = ThreadPool::new(threads);
    let count = |(path, found): (PathBuf, io::Result<()>)| {
        // What the walk could not read takes its place in the queue like any file.
        let counts = found.and_then(|()| count(File::open(&path)?));
        (path, counts)
    };
    let mut results = pool.map(Walk::new(paths), count).max_size(threads * IN_FLIGHT);
    // The two tasks share it, and need no lock for that: they take turns on one thread.
    let report = Rc::new(RefCell::new(Report::new()));
    // Dropped, and so cancelled, at the end.
    let _progress = io::stderr().is_terminal().then(|| spawn(show_progress(report.clone())));
    loop {
        let result = poll_fn(|cx| {
            let result = Pin::new(&mut results).poll_next(cx);
            if result.is_pending() {
                // While results come fast they are written in bulk.
                report.borrow_mut().out.flush()?;
            }
            result.map(Ok::<_, io::Error>)
        });
        match result.await? {
            // If this fails, returning drops the results that are left, which cancels their jobs.
            Some((path, counts)) => report.borrow_mut().add(&path, counts)?,
            None => return report.borrow_mut().finish(),
        }
    }
}

/// Draws the progress line over and over.
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

/// What each byte does to the state "in a word" (0 or 1): bit `i` is what state `i` becomes.
///
/// A word is a run of bytes without white space, but only if a printable ASCII character is among them: control bytes
/// and those from 128 on neither make nor end a word. That is the C locale's rule in coreutils up to 9.4. From 9.5 on,
/// any run without white space is a word; text gives the same numbers.
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

/// Counts what `input` yields. A line is a newline; [`NEXT`] says what a word is.
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
            // There is no branch in here, and so none to mispredict at each end of a word.
            let next = NEXT[usize::from(byte)] >> in_word & 1;
            counts.words += u64::from(next & !in_word);
            counts.lines += u64::from(byte == b'\n');
            in_word = next;
        }
    }
}

// --- finding the files ----------------------------------------------------------------------------------------------

/// A path, and whether it is a directory (or why that is not known).
type Entry = (PathBuf, io::Result<bool>);

/// What is left of a directory. The paths are put together one by one.
type Level = Box<dyn Iterator<Item = Entry>>;

/// Finds the files, one at a time and in an order that depends on their names alone. An error stands for a directory,
/// or for an entry of one, that could not be read.
///
/// It holds the names in the directories from the named one down to where it is, never those of the whole tree.
struct Walk {
    levels: Vec<Level>,
}

impl Walk {
    /// A path that is named is what it leads to: if it is a symbolic link, that one is followed.
    fn new(paths: Vec<PathBuf>) -> Self {
        let named = paths.into_iter().map(|path| {
            let is_dir = path.is_dir();
            (path, Ok(is_dir))
        });
        Self { levels: vec![Box::new(named)] }
    }

    /// What is in a directory, by name. Symbolic links are left out, so a walk cannot go round in circles; and devices,
    /// sockets and pipes are, since opening one may block for ever.
    fn list(dir: &Path) -> io::Result<Level> {
        let mut entries: Vec<(OsString, io::Result<FileType>)> = fs::read_dir(dir)?
            .map(|entry| match entry {
                Ok(entry) => (entry.file_name(), entry.file_type()),
                // The listing has broken off. An empty name makes this an error of the directory itself.
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

// --- saying what was found ------------------------------------------------------------------------------------------

/// Prints each result when it is there, and adds up the total.
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
                // On a terminal, the message is to stand where the result would have been.
                self.out.flush()?;
                self.progress.erase();
                to_stderr(&[b"wc: ", &*raw(path), format!(": {error}\n").as_bytes()].concat());
                Ok(())
            }
        }
    }

    /// The widths are fixed, since a result is printed before the later ones are known.
    fn line(&mut self, counts: Counts, name: &[u8]) -> io::Result<()> {
        self.progress.make_way();
        let Counts { lines, words, bytes } = counts;
        write!(self.out, "{lines:>8} {words:>8} {bytes:>10} ")?;
        self.out.write_all(name)?;
        self.out.write_all(b"\n")
    }

    fn show(&mut self) {
        // If this fails, so does the next one who writes, and he says so.
        if self.out.flush().is_ok() {
            self.progress.draw(self.files, self.total.bytes);
        }
    }

    /// As `wc` does, leaves the total out if there was but one file.
    fn finish(&mut self) -> io::Result<bool> {
        if self.files + self.unreadable > 1 {
            self.line(self.total, b"total")?;
        }
        self.out.flush()?;
        Ok(self.unreadable == 0)
    }
}

/// A line on stderr, a terminal, that is drawn over and over.
struct Progress {
    stdout_is_terminal: bool,
    visible: bool,
}

impl Progress {
    /// The columns that are written, and wiped.
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

    /// Blanks wipe what was there before, and whatever comes next begins at the left edge.
    fn write(text: &str) {
        to_stderr(format!("{text:<0$}\r", Self::WIDTH).as_bytes());
    }

    /// Something is going to stdout, which may be the same terminal.
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

/// One write, so that lines stay whole. If it fails there is nobody left to tell.
fn to_stderr(message: &[u8]) {
    let _ = io::stderr().write_all(message);
}

/// A path as it is, whether or not it is UTF-8.
#[cfg(unix)]
fn raw(path: &Path) -> Cow<'_, [u8]> {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().into()
}

/// A path as nearly as it can be written.
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
