//! `examples/wc.rs`, run as a process on test trees: the numbers, the order, the messages and the exit status.

#![forbid(unsafe_code)]

use crate::helpers::example::example;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use std::{env, fs, process, thread};

// --- the program ----------------------------------------------------------------------------------------------------

/// How long a process may run before it counts as hanging.
const DEADLINE: Duration = Duration::from_secs(60);

/// The output and exit status of a process.
#[derive(Debug)]
struct Run {
    status: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

/// Runs a process to its end, and fails the test if the process hangs.
fn run(command: &mut Command) -> Run {
    fn collect(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
        let (sender, receiver) = mpsc::channel();
        let collect = move || {
            let mut bytes = Vec::new();
            pipe.read_to_end(&mut bytes).expect("reading a pipe");
            // If the receiver was dropped, the test has already failed.
            let _ = sender.send(bytes);
        };
        thread::Builder::new().spawn(collect).expect("starting a thread");
        receiver
    }

    let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starting the program");
    // A test may have redirected stdout.
    let stdout = child.stdout.take().map(collect);
    let stderr = child.stderr.take().map(collect);
    let [stdout, stderr] = [stdout, stderr].map(|pipe| {
        pipe.map_or(Ok(Vec::new()), |pipe| pipe.recv_timeout(DEADLINE)).unwrap_or_else(|_| {
            child.kill().expect("stopping the program");
            panic!("{command:?} hangs");
        })
    });
    let status = child.wait().expect("waiting for the program").code();
    Run { status, stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
}

/// Runs `wc` with these arguments.
fn wc_on<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Run {
    run(example("wc").args(args).stdout(Stdio::piped()))
}

impl Run {
    /// The parsed lines of stdout: lines, words, bytes, and the raw name.
    fn results(&self) -> Vec<([u64; 3], Vec<u8>)> {
        let text = self.stdout.strip_suffix(b"\n").unwrap_or(&self.stdout);
        if text.is_empty() {
            return Vec::new();
        }
        text.split(|&byte| byte == b'\n').map(|line| parse(line).unwrap_or_else(|| panic!("{self:?}"))).collect()
    }

    /// The results of a successful run with an empty stderr. (In a pipe there is no progress line.)
    fn clean_results(&self) -> Vec<([u64; 3], Vec<u8>)> {
        assert_eq!((self.status, self.stderr.as_str()), (Some(0), ""));
        self.results()
    }
}

/// Parses three right-aligned numbers, a space, and the name, which may contain spaces.
fn parse(line: &[u8]) -> Option<([u64; 3], Vec<u8>)> {
    let mut rest = line;
    let mut numbers = [0; 3];
    for number in &mut numbers {
        rest = rest.trim_ascii_start();
        let (digits, tail) = rest.split_at(rest.iter().position(|&byte| byte == b' ')?);
        *number = std::str::from_utf8(digits).ok()?.parse().ok()?;
        rest = tail;
    }
    Some((numbers, rest.strip_prefix(b" ")?.to_vec()))
}

// --- the expected output --------------------------------------------------------------------------------------------

/// A test's own folder, removed on drop.
struct Tree {
    root: PathBuf,
    /// The files, in the order in which `wc` should list them: paths compare name by name.
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Tree {
    fn new() -> Self {
        // The first free name, because tests run in parallel.
        let root = (0..1000)
            .map(|number| env::temp_dir().join(format!("offthread-wc-{}-{number}", process::id())))
            .find(|root| fs::create_dir(root).is_ok())
            .expect("a new folder");
        Self { root, files: BTreeMap::new() }
    }

    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        // Rebuilt from components, so that Windows has its own separators throughout.
        self.root.join(path).components().collect()
    }

    fn dir(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(&path).expect("a new folder");
        path
    }

    fn file(&mut self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a new folder");
        fs::write(&path, &bytes).expect("a new file");
        self.files.insert(path.clone(), bytes.as_ref().to_vec());
        path
    }

    /// The output that `wc` should print for all files.
    fn expected(&self) -> Vec<([u64; 3], Vec<u8>)> {
        let mut results: Vec<_> = self.files.iter().map(|(path, bytes)| (count(bytes), raw(path))).collect();
        let total = results.iter().fold([0; 3], |total, (counts, _)| [0, 1, 2].map(|i| total[i] + counts[i]));
        if results.len() > 1 {
            results.push((total, b"total".to_vec()));
        }
        results
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // An error is ignored: a panic here would hide the panic that failed the test.
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// White space in the C locale.
const SPACE: &[u8] = b" \t\n\x0b\x0c\r";

/// The numbers of lines, words and bytes, counted in the simplest way.
fn count(bytes: &[u8]) -> [u64; 3] {
    let lines = bytes.split(|&byte| byte == b'\n').count() - 1;
    let runs = bytes.split(|byte| SPACE.contains(byte));
    let words = runs.filter(|run| run.iter().any(|byte| (0x21..=0x7e).contains(byte))).count();
    [lines, words, bytes.len()].map(|number| number.try_into().expect("a small number"))
}

#[cfg(unix)]
fn raw(path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().to_vec()
}

#[cfg(not(unix))]
fn raw(path: &Path) -> Vec<u8> {
    path.to_string_lossy().into_owned().into_bytes()
}

/// Files of every kind: nested, empty, without a final newline, with arbitrary bytes, and longer than a buffer.
fn mixed() -> Tree {
    let mut tree = Tree::new();
    tree.file("plain.txt", "one two\nthree\n");
    tree.file("empty", "");
    tree.file("newline", "\n");
    tree.file("no newline at the end", "a word, and\nanother");
    tree.file("crlf.txt", "one\r\ntwo  three\r\n\r\n");
    tree.file("spaces", " \t\x0b\x0c\r\n \n");
    tree.file("sub/a", "x");
    tree.file("sub/deep/er/still/leaf.txt", "leaf leaf\n");
    tree.file("sub/z", "z z z\n");
    tree.file("sub-sorts-before-sub-slash", "as names go, it does not\n");
    tree.file("utf-8 ü.txt", "Grüße, κόσμε\nя\n");
    let all: Vec<u8> = (0..=255).collect();
    tree.file("bytes/all", &all);
    tree.file("bytes/alone", all.iter().flat_map(|&byte| [b' ', byte, b' ']).collect::<Vec<u8>>());
    tree.file("bytes/inside", all.iter().flat_map(|&byte| [b' ', b'a', byte, b'b', b' ']).collect::<Vec<u8>>());
    tree.file("bytes/before", all.iter().flat_map(|&byte| [b' ', byte, b'b', b' ']).collect::<Vec<u8>>());
    // Random bytes: a million bytes take many reads, which split words and lines anywhere.
    let mut state = 1_u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    tree.file("bytes/random", (0..1_000_000).map(|_| random()).collect::<Vec<u8>>());
    tree.file("bytes/few kinds", (0..1_000_000).map(|_| b" a\n\0\x80"[usize::from(random()) % 5]).collect::<Vec<u8>>());
    tree.file("bytes/one word", vec![b'w'; 1_000_000]);
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::ffi::OsStrExt;
        tree.file(OsStr::from_bytes(b"not utf-8 \xff\xc3"), "a b c\n");
        tree.file(Path::new(OsStr::from_bytes(b"\xfe-dir")).join("d"), "d\n");
    }
    tree
}

// --- the tests ------------------------------------------------------------------------------------------------------

#[test]
fn the_numbers_are_those_of_a_simple_count() {
    let tree = mixed();
    assert_eq!(wc_on([&tree.root]).clean_results(), tree.expected());
    // Also with each file as an argument.
    assert_eq!(wc_on(tree.files.keys()).clean_results(), tree.expected());
}

/// The system's `wc` may define words in binary data in another way. In that case only ASCII text is compared.
#[cfg(target_os = "linux")]
#[test]
fn the_numbers_are_those_of_the_systems_wc() {
    let system = |paths: &mut dyn Iterator<Item = &PathBuf>| {
        run(Command::new("wc").env("LC_ALL", "C").args(paths).stdout(Stdio::piped())).clean_results()
    };
    if Command::new("wc").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        eprintln!("not compared: this system has no wc");
        return;
    }
    let mut probe = Tree::new();
    probe.file("control", b"\x01");
    let same_rule = system(&mut probe.files.keys())[0].0[1] == 0;
    let mut tree = mixed();
    let text = |byte: &u8| byte.is_ascii_graphic() || SPACE.contains(byte);
    tree.files.retain(|_, bytes| same_rule || bytes.iter().all(text));
    assert!(tree.files.len() > 1);
    assert_eq!(wc_on(tree.files.keys()).clean_results(), system(&mut tree.files.keys()));
}

#[test]
fn the_order_is_that_of_the_names_for_any_number_of_threads() {
    let mut tree = Tree::new();
    // More files than may be in flight. One in ten is much larger than the others: with several threads it often
    // finishes after later files.
    for number in 0..600_usize {
        let size = if number % 10 == 0 { 50_000 } else { number };
        tree.file(format!("{:03}/{number}", number % 7), "word ".repeat(size));
    }
    for threads in ["-j1", "-j2", "-j8"] {
        assert_eq!(wc_on([OsStr::new(threads), tree.root.as_os_str()]).clean_results(), tree.expected(), "{threads}");
    }
}

#[test]
fn paths_keep_the_order_in_which_they_are_named() {
    let mut tree = Tree::new();
    let (a, b) = (tree.file("a", "a\n"), tree.file("b", "b b\n"));
    let named = [(count(b"b b\n"), raw(&b)), (count(b"a\n"), raw(&a)), (count(b"b b\n"), raw(&b))];
    let results = wc_on([&b, &a, &b]).clean_results();
    assert_eq!(results[..3], named);
    assert_eq!(results[3..], [([3, 5, 10], b"total".to_vec())]);
}

#[test]
fn one_file_has_no_total() {
    let mut tree = Tree::new();
    let empty = tree.dir("empty");
    assert_eq!(wc_on([&empty]).clean_results(), []);
    let file = tree.file("dir/file", "a b\n");
    for path in [file.as_path(), &tree.root] {
        assert_eq!(wc_on([path]).clean_results(), [([1, 2, 4], raw(&file))]);
    }
}

#[test]
fn an_unreadable_path_is_reported_and_the_rest_is_counted() {
    let mut tree = Tree::new();
    tree.file("dir/a", "a\n");
    tree.file("dir/b", "b\n");
    let (missing, dir, last) = (tree.path("missing"), tree.path("dir"), tree.file("last", "the last\n"));
    let run = wc_on([&missing, &dir, &missing.join("deeper"), &last]);
    assert_eq!(run.status, Some(1));
    assert_eq!(run.results(), tree.expected());
    let messages = [missing.clone(), missing.join("deeper")].map(|path| {
        let reason = fs::read(&path).expect_err("the file is missing");
        format!("wc: {}: {reason}\n", path.display())
    });
    assert_eq!(run.stderr, messages.concat());
}

/// Not even root can list a directory whose path is too long.
#[cfg(unix)]
#[test]
fn a_directory_that_cannot_be_listed_is_reported_and_the_rest_is_counted() {
    let mut tree = Tree::new();
    tree.file("a/first", "1\n");
    tree.file("z/last", "2\n");
    // A path longer than the limit is built from shorter ones, by moving one below the other.
    let long = PathBuf::from_iter(vec!["x".repeat(100); 8]);
    let top = tree.dir("long");
    for _ in 0..6 {
        let below = tree.dir("below").join(&long);
        fs::create_dir_all(below.parent().expect("a folder")).expect("a long path");
        fs::rename(&top, &below).expect("moving a folder");
        fs::rename(tree.path("below"), &top).expect("moving a folder");
    }
    let run = wc_on([&tree.root]);
    assert_eq!(run.status, Some(1));
    assert_eq!(run.results(), tree.expected());
    let start = format!("wc: {}/xxx", top.display());
    assert!(run.stderr.starts_with(&start) && run.stderr.lines().count() == 1, "{}", run.stderr);
    assert!(run.stderr.contains("name too long"), "{}", run.stderr);
}

#[cfg(unix)]
#[test]
fn symbolic_links_are_followed_only_as_arguments() {
    use std::os::unix::fs::symlink;
    let mut tree = Tree::new();
    let file = tree.file("dir/file", "a b\n");
    tree.file("dir/other", "c\n");
    symlink("..", tree.path("dir/loop")).expect("a link");
    symlink(".", tree.path("dir/self")).expect("a link");
    symlink("nowhere", tree.path("dir/dangling")).expect("a link");
    symlink(&file, tree.path("dir/to a file")).expect("a link");
    symlink(tree.path("dir"), tree.path("to a dir")).expect("a link");
    assert_eq!(wc_on([&tree.root]).clean_results(), tree.expected());

    let named = tree.path("dir/to a file");
    assert_eq!(wc_on([&named]).clean_results(), [([1, 2, 4], raw(&named))]);
    let named = tree.path("to a dir");
    assert_eq!(wc_on([&named]).clean_results()[0], ([1, 2, 4], raw(&named.join("file"))));
    let named = tree.path("dir/dangling");
    let run = wc_on([&named, &file]);
    assert_eq!(run.status, Some(1));
    assert_eq!(run.results()[0], ([1, 2, 4], raw(&file)));
    assert!(run.stderr.starts_with(&format!("wc: {}: ", named.display())), "{}", run.stderr);
}

#[cfg(unix)]
#[test]
fn special_files_are_skipped() {
    let mut tree = Tree::new();
    tree.file("file", "a b\n");
    let _listener = std::os::unix::net::UnixListener::bind(tree.path("a socket")).expect("a socket");
    assert_eq!(wc_on([&tree.root]).clean_results(), tree.expected());
}

#[test]
fn bad_arguments_get_the_usage_and_status_2() {
    let bad: [&[&str]; 13] = [
        &[],
        &["--"],
        &["-j"],
        &["-j2"],
        &["-j", "0", "."],
        &["-j0", "."],
        &["-j", "many", "."],
        &["-j2x", "."],
        &["-j", "-1", "."],
        &["-j", "", "."],
        &["-j99999999999999999999", "."],
        &["-l", "."],
        &[".", "--lines"],
    ];
    for args in bad {
        let run = wc_on(args);
        assert_eq!((run.status, run.stdout.as_slice()), (Some(2), &b""[..]), "{args:?}");
        assert!(run.stderr.starts_with("wc: ") && run.stderr.contains("\nUsage: wc "), "{args:?}: {}", run.stderr);
    }
    let help = wc_on(["--help"]);
    assert_eq!((help.status, help.stderr.as_str()), (Some(0), ""));
    assert!(help.stdout.starts_with(b"Usage: wc "), "{help:?}");
}

#[test]
fn options_may_be_written_in_several_ways() {
    let mut tree = Tree::new();
    for name in ["-", "-j1", "--help", "file"] {
        tree.file(name, "a b\n");
    }
    let names = |args: &[&str]| -> Vec<Vec<u8>> {
        let run = run(example("wc").args(args).current_dir(&tree.root).stdout(Stdio::piped()));
        run.clean_results().into_iter().map(|(_, name)| name).collect()
    };
    for args in [&["-j2", "file"][..], &["-j", "2", "file"], &["file", "-j2"], &["-j1", "--", "file"]] {
        assert_eq!(names(args), [b"file"], "{args:?}");
    }
    assert_eq!(names(&["-"]), [b"-"]);
    assert_eq!(names(&["--", "-j1", "--help"]), [&b"-j1"[..], b"--help", b"total"]);
}

/// A result is printed before a later file has been read; here the later file is a pipe that this test keeps open.
#[cfg(target_os = "linux")]
#[test]
fn results_are_printed_as_they_come() {
    use std::io::{BufRead, BufReader};
    let mut tree = Tree::new();
    let file = tree.file("file", "a b\n");
    let mut child = example("wc")
        .args([&file, Path::new("/dev/stdin")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starting the program");
    let (sender, receiver) = mpsc::channel();
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).split(b'\n');
    let send = move || lines.for_each(|line| drop(sender.send(line.expect("reading a pipe"))));
    thread::Builder::new().spawn(send).expect("starting a thread");
    let first = receiver.recv_timeout(DEADLINE);
    // Ends the second file, and with it the program.
    drop(child.stdin.take());
    assert_eq!(child.wait().expect("waiting for the program").code(), Some(0));
    assert_eq!(first.ok().and_then(|line| parse(&line)), Some(([1, 2, 4], raw(&file))));
    assert_eq!(receiver.iter().count(), 2);
}

/// On a terminal, each progress line is erased before other output, so that the same text remains as in a file.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_gets_a_progress_line_that_leaves_no_trace() {
    if Command::new("script").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        eprintln!("not tested: this system has no `script` to make a terminal");
        return;
    }
    let mut tree = Tree::new();
    for number in 0..9 {
        tree.file(number.to_string(), "word ".repeat(100_000));
    }
    let (program, tree_path) = (example("wc").get_program().to_os_string(), tree.root.display());
    for (message_at, paths) in [(0, format!("/missing '{tree_path}'")), (9, format!("'{tree_path}' /missing"))] {
        let command = format!("'{}' -j1 {paths}", Path::new(&program).display());
        let run = run(Command::new("script").args(["-q", "-e", "-c", &command, "/dev/null"]).stdout(Stdio::piped()));
        assert_eq!(run.status, Some(1));
        let output = String::from_utf8(run.stdout).expect("UTF-8");
        assert!(output.starts_with("0 files, "), "{output:?}");
        // Text before the last carriage return of a line was overwritten, and must have been erased with blanks.
        let in_place = |line: &str| {
            let (below, shown) = line.rsplit_once('\r').unwrap_or(("", line));
            assert_eq!(below.rsplit('\r').next().map(str::trim), Some(""), "{output:?}");
            shown.to_owned()
        };
        let mut shown: Vec<String> = output.lines().map(in_place).collect();
        assert!(shown.remove(message_at).starts_with("wc: /missing: "), "{output:?}");
        let results: Vec<_> = shown.iter().filter_map(|line| parse(line.as_bytes())).collect();
        assert_eq!((results, shown.len()), (tree.expected(), 10), "{output:?}");
    }
}

/// As in `wc … | head -1`: when the reader closes the pipe, the program ends without a message.
#[cfg(unix)]
#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    use std::os::{fd::OwnedFd, unix::net::UnixStream};
    let mut tree = Tree::new();
    for number in 0..500 {
        tree.file(number.to_string(), "a b\n");
    }
    for args in [vec![tree.root.as_os_str()], vec![OsStr::new("--help")]] {
        let (output, reader) = UnixStream::pair().expect("two connected sockets");
        drop(reader);
        let run = run(example("wc").args(args).env("RUST_BACKTRACE", "1").stdout(OwnedFd::from(output)));
        assert_eq!((run.status, run.stderr.as_str()), (Some(1), ""));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_reported() {
    let mut tree = Tree::new();
    let file = tree.file("file", "a b\n");
    let full = fs::File::options().write(true).open("/dev/full").expect("the disk that is always full");
    let run = run(example("wc").arg(&file).stdout(full));
    assert_eq!(run.status, Some(1));
    assert!(run.stderr.starts_with("wc: standard output: ") && run.stderr.lines().count() == 1, "{}", run.stderr);
}

/// A process whose data is limited to 32 MiB counts a file of 128 MiB.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_file() {
    const SIZE: u64 = 128 << 20;
    let tree = Tree::new();
    let path = tree.path("big");
    // A sparse file takes no space on the disk.
    fs::File::create(&path).and_then(|file| file.set_len(SIZE)).expect("a big file");
    let limited = "ulimit -d 32768 && exec \"$0\" -j1 \"$1\"";
    let run = run(Command::new("sh")
        .args(["-c", limited])
        .arg(example("wc").get_program())
        .arg(&path)
        .stdout(Stdio::piped()));
    assert_eq!(run.clean_results(), [([0, 0, SIZE], raw(&path))]);
}
