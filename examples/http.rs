//! Serves the files of a directory to web browsers: an HTTP/1.1 server in threads.
//!
//! What it shows: [`TcpListener::incoming`] blocks, so a generator reads it in a separate thread. One async function
//! takes the connections from the generator, limits how many are in flight, and starts a job in a pool for each
//! connection. The jobs read requests and send files with plain blocking code. Another thread waits for the end of
//! stdin, which stops the server: the async function closes the generator, and then the pool. The jobs see this by
//! [`is_cancelled`], and end after the current answer.
//!
//! ```sh
//! cargo run --release --example http -- target/doc
//! cargo run --release --example http -- . 8080 --bind 0.0.0.0
//! ```
//!
//! The server answers GET and HEAD. It is strict: a request that can be read in two ways is refused. A file that does
//! not exist, may not be read, or lies outside of the directory gets the same answer: 404.

#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZero;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};
use std::{env, future};

use offthread::{
    Either, IteratorWrapper, Outcome, ThreadPool, Yielder, block_on, is_cancelled, race, sleep, threaded,
    threaded_generator_separate, threaded_separate, wait_cancelled,
};

const USAGE: &str = "\
Usage: http [OPTION...] DIR [PORT]

Serves the files below DIR by HTTP, by default on port 8000 (0: any free port),
and prints the address. The end of standard input stops the server.

  --bind ADDRESS   address to listen on (default: 127.0.0.1, this machine only)
  --connections N  serve this many clients at a time (default: 64); others wait
  --timeout SECS   how long a client may take for a request, or for each
                   64 KiB of an answer (default: 10)
  --help           print this text
";

/// The maximum length of the request line, and of all lines of a request together.
const MAX_LINE: usize = 8 * 1024;
const MAX_HEAD: usize = 32 * 1024;
const MAX_HEADERS: usize = 100;

/// After this many requests the connection is closed, so that another client gets its turn.
const MAX_REQUESTS: usize = 100;

/// How much of a file is read and sent at a time.
const CHUNK: u64 = 64 * 1024;

/// The pause after `accept` has failed, and the pause between two connections that the server makes to itself to end a
/// blocked `accept`; also the time-out of each of these connections.
const PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let outcome = match parse_arguments(env::args_os().skip(1)) {
        Ok(Some(options)) => block_on(run(options)),
        Ok(None) => io::stdout().write_all(USAGE.as_bytes()).map_err(|error| format!("standard output: {error}")),
        Err(problem) => {
            complain(&format!("{problem}\n{}", USAGE.trim_end()));
            return ExitCode::from(2);
        }
    };
    let Err(problem) = outcome else { return ExitCode::SUCCESS };
    complain(&problem);
    ExitCode::FAILURE
}

// --- threads and async code -----------------------------------------------------------------------------------------

/// A connection's job, and a weak reference to the connection, which lives as long as the job runs.
type InFlight = (Weak<TcpStream>, Outcome<io::Result<()>>);

/// Serves until the end of stdin.
async fn run(options: Options) -> Result<(), String> {
    let Options { dir, bind, port, connections: limit, timeout } = options;
    let root = dir.canonicalize().map_err(|error| format!("{}: {error}", dir.display()))?;
    let root: Arc<Path> = if root.is_dir() { root.into() } else { Err(format!("{}: not a directory", dir.display()))? };
    let listener = TcpListener::bind((bind, port)).map_err(|error| format!("{bind} port {port}: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    writeln!(io::stdout(), "listening on http://{address}/").map_err(|error| format!("standard output: {error}"))?;

    let pool = ThreadPool::builder().threads(limit).name("http").build();
    let mut in_flight = Vec::new();
    let mut connections = accept(listener);
    let mut end = threaded_separate(|| drop(io::copy(&mut io::stdin(), &mut io::sink()))).name("stdin").async_call();

    // If `end` wins the race, the server stops, and the connections in the buffer are dropped. `race` does not poll the
    // second future then, so no connection is taken.
    while let Either::Right(Some(stream)) = race(&mut end, async {
        fewer_than(limit, &mut in_flight).await;
        connections.next().await
    })
    .await
    {
        let (stream, root) = (Arc::new(stream), root.clone());
        let weak = Arc::downgrade(&stream);
        let job = threaded(move || serve(stream, &root, timeout)).on(&pool).async_call();
        // An outcome holds even a panic as a value, so a broken connection or a panic ends this connection only.
        in_flight.push((weak, job.outcome()));
    }

    stop_accepting(connections, address).await;
    // A job that waits for the next request reads the end of the connection instead.
    for stream in in_flight.iter().filter_map(|(stream, _)| stream.upgrade()) {
        let _ = stream.shutdown(Shutdown::Read);
    }
    // In the jobs, `is_cancelled` turns true. `shutdown` waits for the jobs, whose time-outs bound this wait.
    threaded_separate(move || pool.shutdown()).await;
    Ok(())
}

/// The connections, as they come. One connection may wait in the buffer, and one for room in the buffer. The others
/// wait in the system's queue, as for any listener.
fn accept(listener: TcpListener) -> IteratorWrapper<TcpStream> {
    let body = move |out: &mut Yielder<_>| {
        for stream in listener.incoming() {
            match stream {
                _ if is_cancelled() => break,
                Ok(stream) => out.put(stream)?,
                // The client has already left, or too many files are open: such an error is temporary.
                Err(error) => {
                    complain(&format!("no connection: {error}"));
                    wait_cancelled(PAUSE);
                }
            }
        }
        Ok(())
    };
    threaded_generator_separate(body).max_size(1).name("accept")
}

/// Closes the generator. When this returns, the generator's thread has dropped the listener, the port is free, and the
/// waiting clients have been refused.
async fn stop_accepting(mut connections: IteratorWrapper<TcpStream>, mut address: SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    // The blocked `accept` returns only when a client connects. So the server itself connects until the generator ends.
    let knock = async {
        loop {
            let _ = threaded_separate(move || TcpStream::connect_timeout(&address, PAUSE)).await;
            sleep(PAUSE).await;
        }
    };
    race(connections.close(), knock).await;
}

/// Removes the jobs that have finished, and waits until fewer than `limit` are left.
async fn fewer_than(limit: usize, in_flight: &mut Vec<InFlight>) {
    future::poll_fn(|cx| {
        in_flight.retain_mut(|(_, job)| Pin::new(job).poll(cx).is_pending());
        if in_flight.len() < limit { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

// --- a connection ---------------------------------------------------------------------------------------------------

/// A socket with a deadline. Time-outs of single reads and writes are not enough: a client that sends or takes a byte
/// now and then could occupy a thread for ever.
struct Client {
    stream: Arc<TcpStream>,
    timeout: Duration,
    deadline: Instant,
}

impl Client {
    /// Gives the client the full time-out for its next step.
    fn renew(&mut self) {
        self.deadline = Instant::now() + self.timeout;
    }

    fn time_left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.time_left()?)?;
        self.stream.as_ref().read(buffer)
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.time_left()?)?;
        self.stream.as_ref().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Answers a connection's requests, one after the other. Requests that the client has sent ahead wait in the buffer.
fn serve(stream: Arc<TcpStream>, root: &Path, timeout: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut client = BufReader::new(Client { stream, timeout, deadline: Instant::now() });
    for number in 1..=MAX_REQUESTS {
        client.get_mut().renew();
        if client.fill_buf()?.is_empty() {
            return Ok(());
        }
        client.get_mut().renew();
        let mut lines = Vec::new();
        let request = read_lines(&mut client, &mut lines).and_then(|()| parse_request(&lines));
        let close = number == MAX_REQUESTS || is_cancelled() || request.as_ref().map_or(true, |request| request.close);
        let is_head = lines.first().is_some_and(|line| line.starts_with(b"HEAD "));
        let response = request.and_then(|request| respond(root, &request.target));
        let allow = |status| if status == NOT_ALLOWED { "Allow: GET, HEAD\r\n" } else { "" };
        let response = response.unwrap_or_else(|status| Response::status(status, allow(status)));
        response.send(client.get_mut(), is_head, close)?;
        if close || is_cancelled() {
            break;
        }
    }
    // If the socket were closed while the client still sends, the system would discard the rest of the answer.
    client.get_mut().renew();
    client.get_ref().stream.shutdown(Shutdown::Write)?;
    io::copy(&mut client, &mut io::sink()).map(drop)
}

// --- requests -------------------------------------------------------------------------------------------------------

/// A status code and its name.
#[derive(Clone, Copy, PartialEq)]
struct Status(u16, &'static str);

const OK: Status = Status(200, "OK");
const MOVED: Status = Status(301, "Moved Permanently");
const BAD_REQUEST: Status = Status(400, "Bad Request");
const NOT_FOUND: Status = Status(404, "Not Found");
const NOT_ALLOWED: Status = Status(405, "Method Not Allowed");
const TIMEOUT: Status = Status(408, "Request Timeout");
const URI_TOO_LONG: Status = Status(414, "URI Too Long");
const EXPECTATION_FAILED: Status = Status(417, "Expectation Failed");
const HEADERS_TOO_LARGE: Status = Status(431, "Request Header Fields Too Large");
const SERVER_ERROR: Status = Status(500, "Internal Server Error");
const NOT_IMPLEMENTED: Status = Status(501, "Not Implemented");
const WRONG_VERSION: Status = Status(505, "HTTP Version Not Supported");

/// For errors while a request is being read. A request that breaks off is a bad request.
impl From<io::Error> for Status {
    fn from(error: io::Error) -> Self {
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) { TIMEOUT } else { BAD_REQUEST }
    }
}

/// Reads up to the empty line. Every line must end in CR LF: if a bare LF ended a line here, another program might see
/// one line where this server sees two.
fn read_lines(client: &mut impl BufRead, lines: &mut Vec<Vec<u8>>) -> Result<(), Status> {
    let mut left = MAX_HEAD;
    loop {
        let (limit, too_long) =
            if lines.is_empty() { (left.min(MAX_LINE), URI_TOO_LONG) } else { (left, HEADERS_TOO_LARGE) };
        let mut line = Vec::new();
        client.take(limit as u64).read_until(b'\n', &mut line)?;
        left -= line.len();
        if line.len() == limit && line.last() != Some(&b'\n') {
            return Err(too_long);
        }
        line.truncate(line.strip_suffix(b"\r\n").ok_or(BAD_REQUEST)?.len());
        match (line.is_empty(), lines.len()) {
            // Some clients send an extra line end after a request.
            (true, 0) => {}
            (true, _) => return Ok(()),
            (false, 0..=MAX_HEADERS) => lines.push(line),
            (false, _) => return Err(HEADERS_TOO_LARGE),
        }
    }
}

/// A GET or HEAD request: its target, and the meaning of its header fields.
#[derive(Default)]
struct Request {
    target: String,
    close: bool,
    host: bool,
    chunked: bool,
    content_length: Option<u64>,
}

/// Parses a request: the request line first, then the header fields.
fn parse_request(lines: &[Vec<u8>]) -> Result<Request, Status> {
    let (line, headers) = lines.split_first().ok_or(BAD_REQUEST)?;
    let parts: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let &[method, target, version] = &parts[..] else { return Err(BAD_REQUEST) };
    let minor = match version {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'9'] => minor - b'0',
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => return Err(WRONG_VERSION),
        _ => return Err(BAD_REQUEST),
    };
    if !is_token(method) || !target.iter().all(|&byte| byte.is_ascii_graphic() && !b"#\\".contains(&byte)) {
        return Err(BAD_REQUEST);
    }
    let mut request = Request { target: String::from_utf8_lossy(target).into_owned(), ..Request::default() };
    headers.iter().try_for_each(|line| request.add_header(line))?;
    request.decide(minor)?;
    match method {
        b"GET" | b"HEAD" => Ok(request),
        b"CONNECT" | b"DELETE" | b"OPTIONS" | b"PATCH" | b"POST" | b"PUT" | b"TRACE" => Err(NOT_ALLOWED),
        _ => Err(NOT_IMPLEMENTED),
    }
}

impl Request {
    fn add_header(&mut self, line: &[u8]) -> Result<(), Status> {
        let colon = line.iter().position(|&byte| byte == b':').ok_or(BAD_REQUEST)?;
        let (name, value) = (line[..colon].to_ascii_lowercase(), line[colon + 1..].trim_ascii().to_ascii_lowercase());
        // This also refuses blanks before the colon, and a field that continues on the next line.
        if !is_token(&name) || line.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
            return Err(BAD_REQUEST);
        }
        let in_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(byte);
        match &*name {
            b"host" if self.host || !value.iter().all(in_host) => return Err(BAD_REQUEST),
            b"host" => self.host = true,
            b"content-length" if self.content_length.is_some() || !value.iter().all(u8::is_ascii_digit) => {
                return Err(BAD_REQUEST);
            }
            b"content-length" => {
                self.content_length = Some(String::from_utf8_lossy(&value).parse().map_err(|_| BAD_REQUEST)?);
            }
            b"transfer-encoding" if self.chunked || value != b"chunked" => return Err(NOT_IMPLEMENTED),
            b"transfer-encoding" => self.chunked = true,
            b"connection" => self.close |= value.split(|&byte| byte == b',').any(|word| word.trim_ascii() == b"close"),
            b"expect" if value != b"100-continue" => return Err(EXPECTATION_FAILED),
            _ => {}
        }
        Ok(())
    }

    /// Checks that the header fields agree, and decides whether to close the connection after the answer.
    ///
    /// If there is a body, the connection is closed: the server does not read the body, and would have to trust the
    /// client about where the body ends.
    fn decide(&mut self, minor: u8) -> Result<(), Status> {
        let host_is_missing = minor > 0 && !self.host;
        if host_is_missing || self.chunked && (minor == 0 || self.content_length.is_some()) {
            return Err(BAD_REQUEST);
        }
        self.close |= minor == 0 || self.chunked || self.content_length.is_some_and(|length| length > 0);
        Ok(())
    }
}

/// Whether the text is a token, like a method or the name of a header field.
fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

// --- files ----------------------------------------------------------------------------------------------------------

/// Finds and opens the file that a target names below `root`, and no file outside of `root`, which is canonical.
///
/// First each name is checked, then all symbolic links are resolved, then the path is compared with the root. The file
/// is opened only if it is a regular file, because opening a pipe would block. The server trusts programs that rename
/// files in the directory meanwhile.
fn respond(root: &Path, target: &str) -> Result<Response, Status> {
    let inside = |path: PathBuf| path.canonicalize().ok().filter(|path| path.starts_with(root)).ok_or(NOT_FOUND);
    let (path, query) = split_target(target).ok_or(BAD_REQUEST)?;
    let names = path.strip_suffix('/').unwrap_or(path).split('/').skip(1);
    let names: PathBuf = names.map(decode_name).collect::<Result<_, _>>()?;
    let mut found = inside(root.join(names))?;
    if found.is_dir() {
        if !path.ends_with('/') {
            return Ok(Response::status(MOVED, &format!("Location: {path}/{query}\r\n")));
        }
        found = inside(found.join("index.html"))?;
    } else if path.ends_with('/') {
        return Err(NOT_FOUND);
    }
    if found.is_file() { Response::file(&found) } else { Err(NOT_FOUND) }
}

/// The path of a target, and the query with its question mark. A target may also be a whole URL.
fn split_target(target: &str) -> Option<(&str, &str)> {
    let local = match target.split_once("://") {
        _ if target.starts_with('/') => target,
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
            rest.trim_start_matches(|c| c != '/' && c != '?')
        }
        _ => return None,
    };
    let (path, query) = local.split_at(local.find('?').unwrap_or(local.len()));
    Some((if path.is_empty() { "/" } else { path }, query))
}

/// The decoded name of one file or directory. Refuses empty names, `.`, `..`, names with a `/` or a zero byte, and
/// invalid UTF-8; on Windows also names with a `:` or a `\`, such as drives.
fn decode_name(encoded: &str) -> Result<String, Status> {
    let mut name = Vec::new();
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or(BAD_REQUEST);
        name.push(if byte == b'%' { u8::try_from(digit()? * 16 + digit()?).map_err(|_| BAD_REQUEST)? } else { byte });
    }
    if name.contains(&0) {
        return Err(BAD_REQUEST);
    }
    let name = String::from_utf8(name).map_err(|_| NOT_FOUND)?;
    let is_name = Path::new(&name).components().next() == Some(Component::Normal(name.as_ref()));
    if is_name && !(cfg!(windows) && name.contains([':', '\\'])) { Ok(name) } else { Err(NOT_FOUND) }
}

// --- responses ------------------------------------------------------------------------------------------------------

struct Response {
    status: Status,
    headers: String,
    body: Box<dyn Read>,
    length: u64,
}

impl Response {
    fn file(path: &Path) -> Result<Self, Status> {
        let file = File::open(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::PermissionDenied => NOT_FOUND,
            _ => SERVER_ERROR,
        })?;
        let found = file.metadata().and_then(|metadata| Ok((metadata.len(), metadata.modified()?)));
        let (length, modified) = found.map_err(|_| SERVER_ERROR)?;
        let headers = format!("Content-Type: {}\r\nLast-Modified: {}\r\n", content_type(path), http_date(modified));
        Ok(Self { status: OK, headers, body: Box::new(file), length })
    }

    /// A page that shows only the status.
    fn status(status: Status, headers: &str) -> Self {
        let headers = format!("Content-Type: text/plain; charset=utf-8\r\n{headers}");
        let text = format!("{} {}\n", status.0, status.1);
        Self { status, headers, length: text.len() as u64, body: Box::new(io::Cursor::new(text)) }
    }

    fn send(mut self, client: &mut Client, is_head: bool, close: bool) -> io::Result<()> {
        let Self { status: Status(code, reason), headers, length, .. } = &self;
        let date = http_date(SystemTime::now());
        let connection = if close { "Connection: close\r\n" } else { "" };
        let mut bytes = format!(
            "HTTP/1.1 {code} {reason}\r\nDate: {date}\r\nContent-Length: {length}\r\n\
             X-Content-Type-Options: nosniff\r\n{headers}{connection}\r\n"
        )
        .into_bytes();
        let mut left = if is_head { 0 } else { self.length };
        loop {
            client.renew();
            client.write_all(&bytes)?;
            if left == 0 {
                return Ok(());
            }
            bytes.clear();
            let length = self.body.by_ref().take(left.min(CHUNK)).read_to_end(&mut bytes)?;
            if length == 0 {
                // The file has become shorter. The client notices this by the early end of the connection.
                return Err(ErrorKind::UnexpectedEof.into());
            }
            left -= length as u64;
        }
    }
}

fn content_type(path: &Path) -> &'static str {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    match extension.to_str().unwrap_or_default() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "txt" | "md" | "rs" | "toml" => "text/plain; charset=utf-8",
        "json" => "application/json",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        _ => "application/octet-stream",
    }
}

/// Formats a time, as in `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(time: SystemTime) -> String {
    const MONTHS: [&str; 12] = ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    const WEEKDAYS: [&str; 7] = ["Wed", "Thu", "Fri", "Sat", "Sun", "Mon", "Tue"];
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // The days since 1 March of the year 0. If years start in March, a leap day is the last day of its year, and of its
    // cycle of four years. The leap day of a year that 400 divides is also the last day of its cycle of 400 years.
    let days = seconds / 86400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // From March on, the lengths of the months repeat every five months: 31, 30, 31, 30 and 31 days.
    let month = (5 * day + 2) / 153;
    let (weekday, name) = (WEEKDAYS[(days % 7) as usize], MONTHS[month as usize]);
    let (day, year) = (day - (153 * month + 2) / 5 + 1, era * 400 + year + u64::from(month >= 10));
    let (hours, minutes, seconds) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{weekday}, {day:02} {name} {year:04} {hours:02}:{minutes:02}:{seconds:02} GMT")
}

// --- the command line -----------------------------------------------------------------------------------------------

struct Options {
    dir: PathBuf,
    port: u16,
    bind: IpAddr,
    connections: usize,
    timeout: Duration,
}

/// Parses the options. Returns `None` if the user asks for help.
fn parse_arguments(mut args: impl Iterator<Item = OsString>) -> Result<Option<Options>, String> {
    fn number<T: FromStr<Err: Display>>(what: &str, text: &OsStr) -> Result<T, String> {
        let text = text.to_string_lossy();
        text.parse().map_err(|error| format!("{what} {text}: {error}"))
    }

    let (mut dir, mut port) = (None, None);
    let mut bind = IpAddr::from(Ipv4Addr::LOCALHOST);
    let mut connections = 64;
    let mut timeout = 10.0;
    while let Some(arg) = args.next() {
        let option = arg.to_string_lossy();
        let mut value = || args.next().unwrap_or_default();
        match &*option {
            "--bind" => bind = number(&option, &value())?,
            "--connections" => connections = number::<NonZero<u16>>(&option, &value())?.get().into(),
            "--timeout" => timeout = number(&option, &value())?,
            "--help" => return Ok(None),
            _ if option.starts_with('-') => return Err(format!("unknown option {option}")),
            _ if dir.is_none() => dir = Some(PathBuf::from(arg)),
            _ if port.is_none() => port = Some(number("PORT", &arg)?),
            _ => return Err(format!("unexpected argument {option}")),
        }
    }
    let dir = dir.ok_or("no DIR given")?;
    let timeout = Duration::try_from_secs_f64(timeout).map_err(|error| format!("--timeout {timeout}: {error}"))?;
    // The limit keeps every deadline within the range of the clock.
    let timeout = timeout.min(Duration::from_secs(86400));
    Ok(Some(Options { dir, port: port.unwrap_or(8000), bind, connections, timeout }))
}

/// Writes the message in one call, so that lines stay whole. An error is ignored, because it could not be reported.
fn complain(problem: &str) {
    let _ = io::stderr().write_all(format!("http: {problem}\n").as_bytes());
}
