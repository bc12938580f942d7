//! Python: `@threaded_iterable_separate`. An iterator that waits for long gets a thread of its own: this one follows
//! a file, as `tail -f` does.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::time::Duration;
use std::{env, process};

use offthread::{block_on, threaded_iterable_separate, wait_cancelled};

threaded_iterable_separate! {
    /// The lines of a file, including those that are written later. Ends when the reader closes the iterable.
    fn follow(path: PathBuf) -> impl Iterator<Item = String> {
        let mut reader = BufReader::new(File::open(path).expect("the file exists"));
        let mut line = String::new();
        std::iter::from_fn(move || {
            // At the end of the file, or in an unfinished line: reads again soon, unless the iterable was closed.
            while reader.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
                if wait_cancelled(Duration::from_millis(1)) {
                    return None;
                }
            }
            Some(std::mem::take(&mut line))
        })
    }
}

fn main() {
    let path = env::temp_dir().join(format!("offthread-follow-{}", process::id()));
    let mut file = File::create(&path).unwrap();
    block_on(async {
        writeln!(file, "one").unwrap();
        follow(path.clone())
            .scope(async |lines| {
                assert_eq!(lines.next().await.as_deref(), Some("one\n"));
                // Written in two parts while the iterator waits: the two parts come as one line.
                write!(file, "tw").unwrap();
                writeln!(file, "o").unwrap();
                assert_eq!(lines.next().await.as_deref(), Some("two\n"));
            })
            .await; // `scope` has closed the iterable, and so dropped the iterator
    });
    fs::remove_file(path).unwrap();
    println!("followed a file for two lines");
}
