//! `examples/http.rs`, run as a process and used over real sockets: what the server serves and refuses, which clients
//! it gives up on, and how it stops.
//!
//! A test stops its server by closing the server's stdin. An empty stderr shows that no thread has panicked.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use std::{env, iter, thread};

use crate::helpers::common::{until, watchdog};
use crate::helpers::example::example;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

// --- the served files -----------------------------------------------------------------------------------------------

/// The content of a file beside the served directory. No response may contain it.
const SECRET: &str = "the secret";

/// More bytes than the socket buffers of both ends hold.
const HUGE: u64 = 64 << 20;

/// A test's own folder, which contains the served directory. Removed on drop.
struct Tree {
    top: PathBuf,
}

impl Tree {
    fn new() -> Self {
        // The first free name, because tests run in parallel.
        let top = (0..1000)
            .map(|number| env::temp_dir().join(format!("offthread-http-{}-{number}", process::id())))
            .find(|top| fs::create_dir(top).is_ok())
            .expect("a new folder");
        let tree = Self { top };
        for path in ["../secret.txt", "../site-beside/secret.txt", "../secret/index.html", "../secret/secret.txt"] {
            tree.file(path, SECRET);
        }
        tree.file("index.html", "the index");
        tree.file("plain.txt", "plain text");
        tree.file("empty.txt", "");
        tree.file("sub/index.html", "the index of sub");
        tree.file("sub/deeper/leaf.txt", "a leaf");
        tree
    }

    /// A path in the served directory.
    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.top.join("site").join(path)
    }

    fn file(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(path);
        // The parent of `site/../name` exists only once `site` does.
        fs::create_dir_all(self.path("")).expect("a new folder");
        fs::create_dir_all(path.parent().expect("a folder")).expect("a new folder");
        fs::write(&path, bytes).expect("a new file");
        path
    }

    /// A file that takes many reads and writes.
    fn big(&self) -> Vec<u8> {
        let bytes = noise(5_000_000);
        self.file("big.bin", &bytes);
        bytes
    }

    /// A file of zeros that takes no space on the disk.
    fn huge(&self) {
        File::create(self.path("huge.bin")).and_then(|file| file.set_len(HUGE)).expect("a big file");
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // An error is ignored: a panic here would hide the panic that failed the test.
        let _ = fs::remove_dir_all(&self.top);
    }
}

/// Bytes without a pattern.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(state.to_be_bytes()[0])
    };
    iter::from_fn(random).take(length).collect()
}

// --- the server -----------------------------------------------------------------------------------------------------

/// Runs the program to its end with an empty stdin, and returns its status, its stdout and its stderr.
fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> (Option<i32>, String, String) {
    let output = example("http").args(args).stdin(Stdio::null()).output().expect("starting the program");
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
    (output.status.code(), stdout, stderr)
}

struct Server {
    child: Child,
    address: SocketAddr,
    tree: Tree,
}

impl Server {
    fn new() -> Self {
        Self::with(Tree::new(), &[])
    }

    fn with(tree: Tree, options: &[&str]) -> Self {
        let mut command = example("http");
        command.arg(tree.path("")).arg("0").args(options);
        Self::start(tree, command)
    }

    /// With a low limit of file descriptors. (On Unix only.)
    fn with_few_files(tree: Tree, options: &[&str]) -> Self {
        if !cfg!(unix) {
            return Self::with(tree, options);
        }
        let mut command = Command::new("sh");
        command
            .args(["-c", "ulimit -n 16 && exec \"$@\"", "sh"])
            .arg(example("http").get_program())
            .arg(tree.path(""))
            .arg("0")
            .args(options);
        Self::start(tree, command)
    }

    fn start(tree: Tree, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starting the program");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("reading a pipe");
        let address = line.strip_prefix("listening on http://").and_then(|rest| rest.strip_suffix("/\n"));
        let address = address.and_then(|address| address.parse().ok()).unwrap_or_else(|| panic!("{line:?}"));
        Self { child, address, tree }
    }

    fn connect(&self) -> Client {
        Client::to(self.address)
    }

    /// The response to a request on a new connection.
    fn get(&self, target: &str) -> Response {
        self.connect().get(target)
    }

    /// Retries until there is a response: a server with a short time-out may find this client too slow.
    fn still_answers(&self) {
        until("the server answers", || {
            let mut client = self.connect();
            let _ = client.0.get_mut().write_all(b"GET /plain.txt HTTP/1.1\r\nHost: a\r\n\r\n");
            client.try_response(false).is_ok_and(|response| response.status == 200 && response.body == b"plain text")
        });
    }

    /// Whether the server's listener is gone.
    fn has_stopped_listening(&self) -> bool {
        TcpStream::connect(self.address).is_err()
    }

    /// Closes the server's stdin.
    fn ask_to_stop(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Stops the server, checks that it ended well, and returns its stderr.
    fn stop_with_stderr(mut self) -> String {
        self.ask_to_stop();
        let mut printed = [String::new(), String::new()];
        self.child.stdout.take().expect("a pipe").read_to_string(&mut printed[0]).expect("UTF-8");
        self.child.stderr.take().expect("a pipe").read_to_string(&mut printed[1]).expect("UTF-8");
        let status = self.child.wait().expect("the status of the server");
        assert_eq!((status.code(), printed[0].as_str()), (Some(0), ""), "{printed:?}");
        // The port is free again.
        drop(TcpListener::bind(self.address).expect("the port"));
        printed[1].clone()
    }

    fn stop(self) {
        assert_eq!(self.stop_with_stderr(), "");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process still runs only if the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// --- the client -----------------------------------------------------------------------------------------------------

struct Client(BufReader<TcpStream>);

#[derive(Debug)]
struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn closes(&self) -> bool {
        self.header("Connection") == Some("close")
    }
}

impl Client {
    fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        Self(BufReader::new(stream))
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).expect("sending");
    }

    /// Shuts down the sending half of the connection.
    fn finish(&mut self) {
        self.0.get_mut().shutdown(Shutdown::Write).expect("a shutdown");
    }

    fn ask(&mut self, method: &str, target: &str) {
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: example.org\r\n\r\n"));
    }

    fn get(&mut self, target: &str) -> Response {
        self.ask("GET", target);
        self.response()
    }

    fn response(&mut self) -> Response {
        self.try_response(false).expect("a response")
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        line.strip_suffix("\r\n").map(str::to_owned).ok_or(ErrorKind::UnexpectedEof.into())
    }

    /// Reads the next response, and checks what all responses have in common.
    fn try_response(&mut self, is_head: bool) -> io::Result<Response> {
        let line = self.line()?;
        let (version, rest) = line.split_at(9);
        assert!(version == "HTTP/1.1 " && rest.as_bytes()[3] == b' ' && rest.len() > 4, "{line}");
        let mut response =
            Response { status: rest[..3].parse().expect("a number"), headers: Vec::new(), body: Vec::new() };
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else {
                assert_eq!(line, "");
                break;
            };
            response.headers.push((name.to_owned(), value.to_owned()));
        }
        assert!(response.header("Date").is_some_and(|date| date.ends_with(" GMT") && date.len() == 29), "{response:?}");
        assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"), "{response:?}");
        assert!(response.header("Content-Type").is_some(), "{response:?}");
        let length: usize = response.header("Content-Length").and_then(|text| text.parse().ok()).expect("a length");
        if !is_head {
            response.body.resize(length, 0);
            self.0.read_exact(&mut response.body)?;
        }
        assert!(!String::from_utf8_lossy(&response.body).contains(SECRET), "{response:?}");
        Ok(response)
    }

    /// Waits for the end of the connection, and asserts that nothing comes before it.
    fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).expect("an end in order");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

/// Reads to the end of the connection, and ignores errors.
fn drain(stream: &mut impl Read) {
    let _ = io::copy(stream, &mut io::sink());
}

// --- good requests --------------------------------------------------------------------------------------------------

#[test]
fn files_are_served_byte_for_byte_with_their_type() {
    let _watchdog = watchdog();
    let server = Server::new();
    server.tree.big();
    for (name, content_type) in [
        ("big.bin", "application/octet-stream"),
        ("plain.txt", "text/plain; charset=utf-8"),
        ("empty.txt", "text/plain; charset=utf-8"),
        ("index.html", "text/html; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("SCRIPT.JS", "text/javascript; charset=utf-8"),
        ("data.json", "application/json"),
        ("a.b.png", "image/png"),
        ("photo.jpeg", "image/jpeg"),
        ("drawing.svg", "image/svg+xml"),
        ("code.wasm", "application/wasm"),
        ("README", "application/octet-stream"),
        (".html", "application/octet-stream"),
    ] {
        let path = server.tree.path(name);
        if !path.exists() {
            server.tree.file(name, name);
        }
        let response = server.get(&format!("/{name}"));
        assert_eq!((response.status, response.header("Content-Type")), (200, Some(content_type)), "{name}");
        assert!(response.body == fs::read(&path).expect("a file"), "{name}");
    }
    server.stop();
}

#[test]
fn directories_serve_their_index() {
    let _watchdog = watchdog();
    let server = Server::new();
    for (target, body) in [("/", "the index"), ("/sub/", "the index of sub"), ("/sub/index.html", "the index of sub")] {
        let response = server.get(target);
        assert_eq!((response.status, response.body.as_slice()), (200, body.as_bytes()), "{target}");
        assert_eq!(response.header("Content-Type"), Some("text/html; charset=utf-8"));
    }
    for (target, location) in
        [("/sub", "/sub/"), ("/sub?a=/b&c", "/sub/?a=/b&c"), ("/%73ub", "/%73ub/"), ("http://a/sub", "/sub/")]
    {
        let response = server.get(target);
        assert_eq!((response.status, response.header("Location")), (301, Some(location)), "{target}");
    }
    // There is no listing, and a file is not a directory.
    for target in ["/sub/deeper/", "/plain.txt/", "/plain.txt/index.html", "/missing/", "/missing"] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
    server.stop();
}

#[test]
fn names_may_be_written_in_several_ways() {
    let _watchdog = watchdog();
    let server = Server::new();
    for name in ["a b.txt", "100%.txt", "ü.txt", "+.txt", ".hidden", "..two", "three...", "~", "a&b=c;d"] {
        // Windows has no names that end in a dot.
        if cfg!(windows) && name.ends_with('.') {
            continue;
        }
        server.tree.file(name, name);
        let encoded = name.bytes().fold(String::new(), |text, byte| text + &format!("%{byte:02X}"));
        for target in [format!("/{encoded}"), format!("/{}?%zz", encoded.to_lowercase())] {
            assert_eq!(server.get(&target).body, name.as_bytes(), "{target}");
        }
    }
    for target in ["/plain.txt?", "/plain.txt?../..", "http://host/plain.txt", "HTTP://host:80/plain.txt?/", "/..two"] {
        assert_eq!(server.get(target).status, 200, "{target}");
    }
    for target in ["http://host", "http://host/", "http://host?query"] {
        assert_eq!(server.get(target).body, b"the index", "{target}");
    }
    server.stop();
}

#[test]
fn head_is_get_without_a_body() {
    let _watchdog = watchdog();
    let server = Server::new();
    server.tree.big();
    let mut client = server.connect();
    let headers = |response: Response| response.headers.into_iter().filter(|(name, _)| name != "Date");
    for target in ["/", "/big.bin", "/sub", "/missing"] {
        client.ask("HEAD", target);
        let head = client.try_response(true).expect("a response");
        let get = client.get(target);
        assert_eq!(head.status, get.status);
        assert!(headers(head).eq(headers(get)), "{target}");
    }
    // The response to a refused `HEAD` has no body either.
    client.send("HEAD / HTTP/1.1\r\n\r\n");
    assert_eq!(client.try_response(true).expect("a response").status, 400);
    client.expect_end();
    server.stop();
}

#[test]
fn dates_are_right() {
    let _watchdog = watchdog();
    let server = Server::new();
    let path = server.tree.path("plain.txt");
    let modified = |time: SystemTime| {
        let _ = File::options().write(true).open(&path).expect("a file").set_modified(time);
        server.get("/plain.txt")
    };
    for (text, seconds) in [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
        ("Tue, 29 Feb 2000 00:00:00 GMT", 951_782_400),
        ("Tue, 29 Feb 2000 23:59:59 GMT", 951_868_799),
        ("Wed, 01 Mar 2000 00:00:00 GMT", 951_868_800),
        ("Sun, 31 Dec 2023 23:59:59 GMT", 1_704_067_199),
        ("Thu, 29 Feb 2024 00:00:00 GMT", 1_709_164_800),
        ("Tue, 31 Dec 2024 23:59:59 GMT", 1_735_689_599),
        ("Sun, 28 Feb 2100 23:59:59 GMT", 4_107_542_399),
        ("Mon, 01 Mar 2100 00:00:00 GMT", 4_107_542_400),
    ] {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let response = modified(time);
        // Some file systems cannot store this time.
        if fs::metadata(&path).and_then(|metadata| metadata.modified()).is_ok_and(|stored| stored == time) {
            assert_eq!(response.header("Last-Modified"), Some(text));
        }
    }
    // The clock may advance by a second between the two calls.
    until("`Date` is now", || {
        let response = modified(SystemTime::now());
        response.header("Last-Modified") == response.header("Date")
    });
    server.stop();
}

#[test]
fn a_connection_is_kept_for_more_requests() {
    let _watchdog = watchdog();
    let server = Server::new();
    let mut client = server.connect();
    for number in 1..=100 {
        let response = client.get(["/plain.txt", "/sub", "/missing"][number % 3]);
        assert_eq!((response.status, response.closes()), ([200, 301, 404][number % 3], number == 100), "{number}");
    }
    client.expect_end();
    for option in ["close", "Close", "keep-alive, close", "x ,\tCLOSE"] {
        let mut client = server.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {option}\r\n\r\n"));
        assert!(client.response().closes(), "{option}");
        client.expect_end();
    }
    for request in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"] {
        let mut client = server.connect();
        client.send(request);
        let response = client.response();
        assert_eq!((response.status, response.closes()), (200, true));
        client.expect_end();
    }
    server.stop();
}

#[test]
fn requests_may_come_in_any_pieces() {
    let _watchdog = watchdog();
    let server = Server::new();
    let request =
        "GET /plain.txt HTTP/1.1\r\nhOsT:example.org\r\nX-Empty:\r\nX-\u{fc}: 1\r\n\r\n".replace('\u{fc}', "u");
    // All at once, with an extra line end between requests, as some clients send.
    let mut client = server.connect();
    client.send(request.repeat(30) + "\r\nHEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + &request);
    for _ in 0..30 {
        assert_eq!(client.response().body, b"plain text");
    }
    assert_eq!(client.try_response(true).expect("a response").status, 200);
    assert_eq!(client.response().body, b"plain text");
    // Byte by byte.
    for byte in request.bytes() {
        client.send([byte]);
    }
    assert_eq!(client.response().body, b"plain text");
    // Requests that were sent before the client shut down its half are answered.
    client.send(request.repeat(2));
    client.finish();
    assert_eq!([client.response().status, client.response().status], [200, 200]);
    client.expect_end();
    server.stop();
}

#[test]
fn clients_that_come_at_once_are_all_served() {
    let _watchdog = watchdog();
    for limit in ["1", "3", "64"] {
        let server = Server::with(Tree::new(), &["--connections", limit]);
        let big = server.tree.big();
        thread::scope(|scope| {
            for number in 0..24 {
                let (server, big) = (&server, &big);
                scope.spawn(move || {
                    let mut client = server.connect();
                    for _ in 0..10 {
                        assert_eq!(client.get("/plain.txt").body, b"plain text");
                    }
                    assert!(number % 4 > 0 || client.get("/big.bin").body == *big);
                });
            }
        });
        server.stop();
    }
}

#[test]
fn connections_beyond_the_limit_wait() {
    let _watchdog = watchdog();
    let server = Server::with_few_files(Tree::new(), &["--connections", "2", "--timeout", "3600"]);
    let mut busy = [server.connect(), server.connect()];
    for client in &mut busy {
        assert_eq!(client.get("/").status, 200);
    }
    // The server accepts two of these connections ahead; the others wait in the listener's backlog. The server has too
    // few descriptors for all of them, and reports no error.
    let mut waiting: Vec<_> = (0..30).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.ask("GET", "/plain.txt");
    }
    // The test can only wait a while for a response that must not come. Too short a wait cannot fail the test.
    waiting[0].0.get_mut().set_read_timeout(Some(Duration::from_millis(50))).expect("an option");
    let error = waiting[0].0.fill_buf().expect_err("a response beyond the limit of connections");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    waiting[0].0.get_mut().set_read_timeout(None).expect("an option");
    // When one client leaves, another is served.
    let [first, mut second] = busy;
    drop(first);
    for mut client in waiting {
        assert_eq!(client.response().status, 200);
    }
    assert_eq!(second.get("/").status, 200);
    drop(second);
    server.stop();
}

// --- hostile requests -----------------------------------------------------------------------------------------------

/// Targets that must not be served.
const ESCAPES: &[&str] = &[
    "/../secret.txt",
    "/../../../../../../../../etc/passwd",
    "/./plain.txt",
    "/.",
    "/..",
    "/../",
    "/../site/plain.txt",
    "/sub/../plain.txt",
    "/sub/../../secret.txt",
    "/sub/..",
    "/sub/deeper/../../../secret.txt",
    "/%2e%2e/secret.txt",
    "/%2E%2E/secret.txt",
    "/.%2e/secret.txt",
    "/%2e./secret.txt",
    "/..%2fsecret.txt",
    "/..%2Fsecret.txt",
    "/%2e%2e%2fsecret.txt",
    "/sub%2f..%2f..%2fsecret.txt",
    "/sub%2findex.html",
    "/%252e%252e/secret.txt",
    "/%252e%252e%252fsecret.txt",
    "/..%5csecret.txt",
    "/%2e%2e%5csecret.txt",
    "/%c0%ae%c0%ae/secret.txt",
    "/%c0%ae%c0%ae%c0%afsecret.txt",
    "/%e0%80%ae%e0%80%ae/secret.txt",
    "/%ff",
    "/%uff0e%uff0e/secret.txt",
    "/..;/secret.txt",
    "/.../secret.txt",
    "/..%00/secret.txt",
    "/../secret.txt%00.html",
    "/plain.txt%00",
    "/%",
    "/%2",
    "/%zz",
    "/%+2e",
    "//",
    "//etc/passwd",
    "//plain.txt",
    "/sub//index.html",
    "/sub//",
    "/%2fetc%2fpasswd",
    "/etc/passwd",
    "/C:/Windows/win.ini",
    "/C%3A%5CWindows%5Cwin.ini",
    "/plain.txt::$DATA",
    "/../site-beside/secret.txt",
    "/-beside/secret.txt",
    "http://host/../secret.txt",
    "http://host//etc/passwd",
    "http:///../secret.txt",
    "..",
    "../secret.txt",
    "plain.txt",
    "secret.txt",
    "etc/passwd",
    "file:///etc/passwd",
    "ftp://host/plain.txt",
    "*",
    "host:80",
    "/\\..\\secret.txt",
    "/plain.txt#fragment",
    "?plain.txt",
    "%2fplain.txt",
];

#[test]
fn no_target_leads_out_of_the_served_directory() {
    let _watchdog = watchdog();
    let server = Server::new();
    for target in ESCAPES {
        for method in ["GET", "HEAD"] {
            let mut client = server.connect();
            client.ask(method, target);
            let response = client.try_response(method == "HEAD").expect("a response");
            assert!(matches!(response.status, 400 | 404), "{target}: {response:?}");
        }
    }
    let absolute = server.tree.path("../secret.txt");
    assert_ne!(server.get(&absolute.to_string_lossy().replace('\\', "/")).status, 200);
    server.still_answers();
    server.stop();
}

#[cfg(unix)]
#[test]
fn no_symbolic_link_leads_out_of_the_served_directory() {
    use std::os::unix::fs::symlink;
    let _watchdog = watchdog();
    let server = Server::new();
    let link = |to: &Path, from: &str| symlink(to, server.tree.path(from)).expect("a link");
    fs::create_dir(server.tree.path("trap")).expect("a folder");
    for (to, from) in [
        ("../secret.txt", "out.txt"),
        ("../secret", "out"),
        ("../site-beside", "beside"),
        ("..", "up"),
        ("/", "slash"),
        ("/dev/zero", "zero"),
        ("../../secret.txt", "trap/index.html"),
        ("nowhere", "dangling"),
        ("itself", "itself"),
        ("out.txt", "twice"),
        ("sub/index.html", "inside.txt"),
        ("sub", "inside"),
        (".", "here"),
    ] {
        link(Path::new(to), from);
    }
    link(&server.tree.path("../secret.txt"), "out absolute");
    link(&server.tree.path("plain.txt"), "in absolute");
    for target in [
        "/out.txt",
        "/out",
        "/out/",
        "/out/secret.txt",
        "/beside/secret.txt",
        "/up/secret.txt",
        "/slash/etc/passwd",
        "/zero",
        "/trap/",
        "/dangling",
        "/itself",
        "/itself/a",
        "/twice",
        "/here/here/out.txt",
        "/out%20absolute",
    ] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
    // A link that leads out and in again is allowed: only the final path counts.
    assert_eq!(server.get("/up/site/plain.txt").body, b"plain text");
    for target in ["/inside.txt", "/inside/", "/here/sub/"] {
        assert_eq!(server.get(target).body, b"the index of sub", "{target}");
    }
    assert_eq!(server.get("/in%20absolute").body, b"plain text");
    server.stop();
}

/// Opening a named pipe would block until another process opens its other end.
#[cfg(unix)]
#[test]
fn only_regular_files_are_opened() {
    let _watchdog = watchdog();
    let server = Server::with(Tree::new(), &["--connections", "1"]);
    let made = Command::new("mkfifo").arg(server.tree.path("pipe")).status().expect("mkfifo");
    assert!(made.success());
    fs::create_dir(server.tree.path("trap")).expect("a folder");
    std::os::unix::fs::symlink("../pipe", server.tree.path("trap/index.html")).expect("a link");
    let _socket = std::os::unix::net::UnixListener::bind(server.tree.path("socket")).expect("a socket");
    for target in ["/pipe", "/pipe/", "/trap/", "/socket"] {
        assert_eq!(server.get(target).status, 404, "{target}");
    }
    server.still_answers();
    server.stop();
}

#[test]
fn random_paths_lead_to_a_served_file_or_nowhere() {
    const PIECES: &[&str] = &[
        "/",
        "/",
        "/",
        "..",
        ".",
        "%2e",
        "%2E%2e",
        "%252e",
        "%2f",
        "%5c",
        "\\",
        "%00",
        "%",
        "%zz",
        "?",
        "#",
        "//",
        "sub",
        "site",
        "secret.txt",
        "secret",
        "plain.txt",
        "index.html",
        "out",
        "out.txt",
        "deeper",
        "leaf.txt",
        "etc/passwd",
        "http://a",
        ":",
        "%c3%bc",
        "%ff",
        "~",
    ];
    let _watchdog = watchdog();
    let server = Server::new();
    #[cfg(unix)]
    for (to, from) in [("../secret", "out"), ("../secret.txt", "out.txt")] {
        std::os::unix::fs::symlink(to, server.tree.path(from)).expect("a link");
    }
    let inside = ["the index", "plain text", "the index of sub", "a leaf"];
    let mut runner = TestRunner::new(Config { cases: 1000, failure_persistence: None, ..Config::default() });
    let targets = proptest::collection::vec(proptest::sample::select(PIECES), 0..8);
    let result = runner.run(&targets, |pieces| {
        let target = format!("/{}", pieces.concat());
        let response = server.get(&target);
        let location = response.header("Location").unwrap_or_default();
        prop_assert!(
            match response.status {
                200 => inside.iter().any(|text| text.as_bytes() == response.body),
                301 => location.starts_with("/sub/") || location.starts_with("/sub/deeper/"),
                400 | 404 => true,
                _ => false,
            },
            "{target}: {response:?}"
        );
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    server.stop();
}

/// Each bad request gets one response with the given status; then the connection ends, whatever follows.
#[test]
fn bad_requests_are_refused() {
    let _watchdog = watchdog();
    let server = Server::new();
    let field = |fields: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n").into_bytes();
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n").into_bytes();
    let mut table: Vec<(u16, Vec<u8>)> = vec![
        (400, b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        (400, b"GET / HTTP/1.1\nHost: a\n\n".to_vec()),
        (400, b"GET / HTTP/1.1\r\nHost: a\n\r\n".to_vec()),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n".to_vec()),
        (400, b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n".to_vec()),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\r\n\r\n".to_vec()),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: \x0ca\r\n\r\n".to_vec()),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n".to_vec()),
        (400, b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        (400, b"GET /\xc3\xbc HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        (400, b"\0\0\0\0\r\n\r\n".to_vec()),
        (400, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n".to_vec()),
        (400, b"\xff\xfe\r\n\r\n".to_vec()),
        (400, b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec()),
        (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
    ];
    for text in
        ["GET", "GET /", "GET  / HTTP/1.1", "GET / HTTP/1.1 ", " GET / HTTP/1.1", "GET\t/\tHTTP/1.1", "/ HTTP/1.1"]
    {
        table.push((400, line(text)));
    }
    for text in
        ["GET / http/1.1", "GET / HTTP/1", "GET / HTTP/1.1.1", "GET / HTTP/11", "GET / HTTP/1.x", "GET / TTP/1.1"]
    {
        table.push((400, line(text)));
    }
    for text in ["G(T / HTTP/1.1", " / HTTP/1.1", "GET / / HTTP/1.1"] {
        table.push((400, line(text)));
    }
    for text in ["GET / HTTP/2.0", "GET / HTTP/0.9", "GET / HTTP/9.9"] {
        table.push((505, line(text)));
    }
    for text in ["get / HTTP/1.1", "BREW / HTTP/1.1", "GETT / HTTP/1.1", "PROPFIND / HTTP/1.1"] {
        table.push((501, line(text)));
    }
    for text in ["POST / HTTP/1.1", "PUT /x HTTP/1.1", "DELETE /plain.txt HTTP/1.1", "OPTIONS * HTTP/1.1"] {
        table.push((405, line(text)));
    }
    for text in ["OPTIONS / HTTP/1.1", "TRACE / HTTP/1.1", "PATCH / HTTP/1.1", "CONNECT a:80 HTTP/1.1"] {
        table.push((405, line(text)));
    }
    for text in
        ["X", "X : a", ": a", " X: a", "X: a\r\n folded", "X: a\r\n\tfolded", "X\t: a", "(X): a", "X: \x7f", "X: \x1b"]
    {
        table.push((400, field(text)));
    }
    for text in ["Host: a", "Host: b", "host:", "HOST : a"] {
        table.push((400, field(text)));
    }
    for host in ["a b", "a/b", "user@a", "a\\b", "a?", "\"a\""] {
        table.push((400, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()));
    }
    table.push((417, field("Expect: a miracle")));
    for (status, request) in table {
        let shown = String::from_utf8_lossy(&request).into_owned();
        let mut client = server.connect();
        client.send(&request);
        // Must not be answered as a second request.
        client.send("GET /plain.txt HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.response();
        assert_eq!((response.status, response.closes()), (status, true), "{shown:?}");
        assert_eq!(response.header("Allow"), (status == 405).then_some("GET, HEAD"));
        client.finish();
        client.expect_end();
    }
    server.still_answers();
    server.stop();
}

/// Request smuggling needs servers that disagree about the end of a body. Nothing after a body is read as a request.
#[test]
fn no_request_is_smuggled_in_a_body() {
    let _watchdog = watchdog();
    let server = Server::new();
    for (status, fields) in [
        (200, "Content-Length: 5"),
        (200, "Content-Length: 18446744073709551615"),
        (200, "Transfer-Encoding: chunked"),
        (200, "Transfer-Encoding: Chunked"),
        (200, "Expect: 100-continue\r\nContent-Length: 5"),
        (400, "Content-Length: 5\r\nTransfer-Encoding: chunked"),
        (400, "Transfer-Encoding: chunked\r\nContent-Length: 0"),
        (400, "Content-Length: 5\r\nContent-Length: 6"),
        (400, "Content-Length: 5\r\ncontent-length: 5"),
        (400, "Content-Length: 5, 5"),
        (400, "Content-Length: +5"),
        (400, "Content-Length: -5"),
        (400, "Content-Length: 0x5"),
        (400, "Content-Length: 5 5"),
        (400, "Content-Length:"),
        (400, "Content-Length: 18446744073709551616"),
        (400, "Content-Length : 5"),
        (400, "Content-Length: 0\r\n Transfer-Encoding: chunked"),
        (400, "Transfer-Encoding : chunked"),
        (400, "Transfer-Encoding\t: chunked"),
        (400, "Transfer-Encoding: \x0cchunked"),
        (400, "Transfer-Encoding: chunked\r"),
        (400, "Content-Length: 5\r"),
        (501, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        (501, "Transfer-Encoding: identity"),
        (501, "Transfer-Encoding: gzip, chunked"),
        (501, "Transfer-Encoding: xchunked"),
        (501, "Transfer-Encoding: \"chunked\""),
        (501, "Transfer-Encoding:"),
    ] {
        for line in ["GET /plain.txt HTTP/1.1", "POST /plain.txt HTTP/1.1"] {
            let mut client = server.connect();
            client.send(format!("{line}\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\nGET /sub/ HTTP/1.1\r\nHost: a\r\n\r\n"));
            let response = client.response();
            let expected = if status == 200 && line.starts_with("POST") { 405 } else { status };
            assert_eq!((response.status, response.closes()), (expected, true), "{line} {fields:?}");
            client.finish();
            client.expect_end();
        }
    }
    // A request with an empty body keeps the connection.
    let mut client = server.connect();
    client.send("GET /plain.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".repeat(2));
    assert_eq!([client.response().closes(), client.response().closes()], [false, false]);
    drop(client);
    server.stop();
}

#[test]
fn requests_that_are_too_long_are_refused() {
    let _watchdog = watchdog();
    let server = Server::new();
    let long_line = |length: usize| {
        let empty = "GET /? HTTP/1.1\r\n".len();
        format!("GET /?{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(length - empty))
    };
    let many = |headers: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: a\r\n".repeat(headers - 1));
    let heavy = |length: usize| {
        let empty = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(length - empty))
    };
    for (status, request) in [
        (200, long_line(8 * 1024)),
        (414, long_line(8 * 1024 + 1)),
        (414, long_line(1 << 20)),
        (414, "a".repeat(1 << 20)),
        (200, many(100)),
        (431, many(101)),
        (431, many(100_000)),
        (200, heavy(32 * 1024)),
        (431, heavy(32 * 1024 + 1)),
        (431, heavy(1 << 20)),
        (414, "\r\n".repeat(1 << 20)),
    ] {
        let mut client = server.connect();
        client.send(&request);
        let response = client.response();
        assert_eq!((response.status, response.closes()), (status, status != 200), "{} bytes", request.len());
    }
    // A name that is too long for any file system.
    assert_eq!(server.get(&format!("/{}", "a".repeat(5000))).status, 404);
    assert_eq!(server.get(&"/a".repeat(4000)).status, 404);
    server.still_answers();
    server.stop();
}

#[test]
fn clients_that_leave_in_the_middle_are_forgotten() {
    let _watchdog = watchdog();
    let tree = Tree::new();
    tree.huge();
    let server = Server::with(tree, &["--connections", "1", "--timeout", "3600"]);
    let request = "GET /huge.bin HTTP/1.1\r\nHost: a\r\n\r\n";
    for length in 0..request.len() {
        // This client drops its connection at once. The next one shuts down its sending half and reads the response.
        let mut client = server.connect();
        client.send(&request[..length]);
        drop(client);
        let mut client = server.connect();
        client.send(&request[..length]);
        client.finish();
        let told = client.try_response(false).map(|response| response.status).ok();
        assert_eq!(told, (length > 0).then_some(400), "{length}");
        client.expect_end();
    }
    for taken in [0, 1, 1000, 1_000_000] {
        let mut client = server.connect();
        client.send(request);
        client.0.read_exact(&mut vec![0; taken]).expect("a part of the answer");
    }
    // The only connection slot is free again.
    server.still_answers();
    server.stop();
}

/// A server with one connection slot and a short time-out.
fn impatient_server(timeout: Duration) -> Server {
    let tree = Tree::new();
    tree.huge();
    Server::with(tree, &["--connections", "1", "--timeout", &timeout.as_secs_f64().to_string()])
}

#[test]
fn clients_that_send_or_read_nothing_time_out() {
    let _watchdog = watchdog();
    let server = impatient_server(Duration::from_secs(1));
    // A client that sends nothing gets no response.
    server.connect().expect_end();
    let mut client = server.connect();
    client.ask("GET", "/huge.bin");
    server.still_answers();
    // The client gets what was already in the buffers.
    let mut taken = Vec::new();
    let _ = client.0.read_to_end(&mut taken);
    assert!((taken.len() as u64) < HUGE);
    server.stop();
}

/// The time-out applies to the whole request, not to each byte.
#[test]
fn clients_that_send_slowly_time_out() {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let _watchdog = watchdog();
    let server = impatient_server(TIMEOUT);
    for begin in ["GET / HT", "GET / HTTP/1.1\r\nHost: a\r\nX: "] {
        let start = Instant::now();
        let mut client = server.connect();
        client.send(begin);
        let mut writer = client.0.get_ref().try_clone().expect("another handle");
        let drip = thread::spawn(move || {
            while writer.write_all(b"a").is_ok() {
                thread::sleep(TIMEOUT / 50);
            }
        });
        let response = client.response();
        assert_eq!((response.status, response.closes()), (408, true));
        assert!(start.elapsed() >= TIMEOUT);
        // The connection slot is free, although the client goes on sending.
        server.still_answers();
        drop(client);
        drip.join().expect("no panic");
    }
    server.stop();
}

/// A damaged request gets a response, which never contains the secret; then the connection ends.
#[test]
fn damaged_requests_are_answered() {
    const NASTY: &[u8] = b"\r\n\0 :/%.\t\x80\xff,;?#\\\"*@0159AZaz";
    let _watchdog = watchdog();
    let server = Server::new();
    let good =
        b"GET /sub/../plain.txt?a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc".to_vec();
    let damage = (any::<prop::sample::Index>(), 0..3_u8, prop::sample::select(NASTY));
    let damages = proptest::collection::vec(damage, 0..12);
    let mut runner = TestRunner::new(Config { cases: 1000, failure_persistence: None, ..Config::default() });
    let result = runner.run(&damages, |damages| {
        let mut request = good.clone();
        for (at, how, byte) in damages {
            let at = at.index(request.len());
            match how {
                0 => request.insert(at, byte),
                1 => request[at] = byte,
                _ => drop(request.remove(at)),
            }
        }
        let mut client = server.connect();
        client.send(&request);
        client.finish();
        let mut answer = Vec::new();
        client.0.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        prop_assert!(answer.starts_with("HTTP/1.1 ") && answer.contains("\r\n\r\n"), "{answer}");
        prop_assert!(!answer.contains(SECRET));
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    server.still_answers();
    server.stop();
}

/// If a file becomes shorter than its `Content-Length`, the connection ends.
#[test]
fn a_file_that_shrinks_ends_the_connection() {
    let _watchdog = watchdog();
    let tree = Tree::new();
    tree.huge();
    let server = Server::with(tree, &["--timeout", "3600"]);
    let mut client = server.connect();
    client.ask("GET", "/huge.bin");
    client.0.fill_buf().expect("a part of the answer");
    File::options()
        .write(true)
        .open(server.tree.path("huge.bin"))
        .and_then(|file| file.set_len(1))
        .expect("a short file");
    let error = client.try_response(false).expect_err("the response is cut off");
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    server.stop();
}

/// The system refuses connections for a while; the server waits and goes on.
#[cfg(unix)]
#[test]
fn the_server_survives_too_many_open_files() {
    let _watchdog = watchdog();
    for is_stopped_meanwhile in [false, true] {
        let mut server = Server::with_few_files(Tree::new(), &[]);
        let clients: Vec<_> = (0..30).map(|_| server.connect()).collect();
        let mut stderr = BufReader::new(server.child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        stderr.read_line(&mut line).expect("UTF-8");
        assert!(line.starts_with("http: no connection: "), "{line}");
        if is_stopped_meanwhile {
            server.ask_to_stop();
            assert!(server.child.wait().expect("the status of the server").success());
        } else {
            drop(clients);
            server.still_answers();
        }
        server.child.stderr = Some(stderr.into_inner());
        assert!(server.stop_with_stderr().lines().all(|line| line.starts_with("http: no connection: ")));
    }
}

// --- the end --------------------------------------------------------------------------------------------------------

#[test]
fn the_end_of_stdin_stops_the_server() {
    let _watchdog = watchdog();
    // At once.
    let tree = Tree::new();
    let (status, stdout, stderr) = run([tree.path("").as_os_str(), "0".as_ref()]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    assert!(stdout.starts_with("listening on http://127.0.0.1:") && stdout.lines().count() == 1, "{stdout}");
    // With an idle server, whose stdin may contain anything.
    let mut server = Server::new();
    server.child.stdin.as_mut().expect("a pipe").write_all(b"quit\n\x04\n").expect("writing");
    server.still_answers();
    server.stop();
}

/// Connections that wait for a slot or for a request, or are in the middle of one, do not delay the end.
#[test]
fn idle_connections_end_with_the_server() {
    let _watchdog = watchdog();
    let mut server = Server::with(Tree::new(), &["--connections", "4", "--timeout", "3600"]);
    let mut fresh = server.connect();
    let [mut kept, mut half] = [server.connect(), server.connect()];
    for client in [&mut kept, &mut half] {
        assert_eq!(client.get("/plain.txt").status, 200);
    }
    half.send("GET / HTTP/1.1\r\nHo");
    let mut asked_to_close = server.connect();
    asked_to_close.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(asked_to_close.response().status, 200);
    let waiting: Vec<_> = (0..5).map(|_| server.connect()).collect();
    server.ask_to_stop();
    kept.expect_end();
    drain(&mut fresh.0);
    drain(&mut half.0);
    for mut client in waiting {
        drain(&mut client.0);
    }
    server.stop();
}

#[test]
fn a_download_is_finished_before_the_end() {
    let _watchdog = watchdog();
    let tree = Tree::new();
    tree.huge();
    let mut server = Server::with(tree, &["--timeout", "3600"]);
    let mut client = server.connect();
    client.ask("GET", "/huge.bin");
    client.ask("GET", "/plain.txt");
    client.0.fill_buf().expect("the beginning of the answer");
    server.ask_to_stop();
    until("nobody listens any more", || server.has_stopped_listening());
    assert!(server.child.try_wait().expect("the state of the server").is_none());
    let response = client.response();
    assert_eq!((response.status, response.body.len() as u64), (200, HUGE));
    assert!(response.body == vec![0; response.body.len()]);
    // The second request gets no response.
    client.expect_end();
    server.stop();
}

#[test]
fn a_client_that_reads_nothing_delays_the_end_by_its_time_out_only() {
    let _watchdog = watchdog();
    let tree = Tree::new();
    tree.huge();
    let server = Server::with(tree, &["--timeout", "0.5"]);
    // So many that the end is late if the server waits for one after the other.
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.ask("GET", "/huge.bin");
    }
    for client in &mut clients {
        client.0.fill_buf().expect("the beginning of the answer");
    }
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn the_server_stops_on_every_address() {
    let _watchdog = watchdog();
    for (bind, reachable) in [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("::1", "::1"), ("127.0.0.1", "127.0.0.1")] {
        let address: IpAddr = bind.parse().expect("an address");
        if TcpListener::bind((address, 0)).is_err() {
            eprintln!("not tested: this system has no {bind}");
            continue;
        }
        let server = Server::with(Tree::new(), &["--bind", bind]);
        assert_eq!(server.address.ip(), address);
        let mut client = Client::to(SocketAddr::new(reachable.parse().expect("an address"), server.address.port()));
        assert_eq!(client.get("/plain.txt").status, 200);
        server.stop();
    }
}

#[test]
fn bad_arguments_get_the_usage_and_status_2() {
    let _watchdog = watchdog();
    let bad: [&[&str]; 14] = [
        &[],
        &["--bind", "127.0.0.1"],
        &[".", "port"],
        &[".", "65536"],
        &[".", "-1"],
        &[".", "0", "more"],
        &[".", "0", "--bind"],
        &[".", "0", "--bind", "localhost"],
        &[".", "0", "--connections", "0"],
        &[".", "0", "--connections", "many"],
        &[".", "0", "--timeout", "-1"],
        &[".", "0", "--timeout", "NaN"],
        &[".", "0", "--timeout"],
        &[".", "0", "--verbose"],
    ];
    for args in bad {
        let (status, stdout, stderr) = run(args);
        assert_eq!((status, stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(stderr.starts_with("http: ") && stderr.contains("\nUsage: http "), "{args:?}: {stderr}");
    }
    let (status, stdout, stderr) = run(["--help"]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    assert!(stdout.starts_with("Usage: http "), "{stdout}");
}

#[test]
fn a_directory_or_port_that_cannot_be_used_is_reported() {
    let _watchdog = watchdog();
    let server = Server::new();
    let (file, missing) = (server.tree.path("plain.txt"), server.tree.path("missing"));
    let root = server.tree.path("");
    let port = server.address.port().to_string();
    for (dir, port) in [(&file, "0"), (&missing, "0"), (&root, &*port)] {
        let (status, stdout, stderr) = run([dir.as_os_str(), port.as_ref()]);
        assert_eq!((status, stdout.as_str(), stderr.lines().count()), (Some(1), "", 1), "{dir:?} {port}: {stderr}");
    }
    server.stop();
    // A time-out beyond the clock's range is accepted.
    let server = Server::with(Tree::new(), &["--timeout", "1e19"]);
    server.still_answers();
    server.stop();
}
