//! Python: `@threaded_iterable`. A blocking iterator becomes an async stream: here the lines of a file.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;

use offthread::{block_on, threaded_iterable};

threaded_iterable! {
    /// The file is opened and read in a thread, and not before the first line is asked for.
    fn lines(path: PathBuf) -> impl Iterator<Item = io::Result<String>> {
        // An error of `open` becomes the only item.
        let (file, error) = match File::open(path) {
            Ok(file) => (Some(file), None),
            Err(error) => (None, Some(Err(error))),
        };
        file.into_iter().flat_map(|file| BufReader::new(file).lines()).chain(error)
    }
}

fn main() {
    block_on(async {
        let mut longest = String::new();
        let mut source = lines("Cargo.toml".into());
        while let Some(line) = source.next().await {
            let line = line.expect("Cargo.toml can be read");
            if line.len() > longest.len() {
                longest = line;
            }
        }
        assert!(longest.len() > 10);

        let missing = lines("no/such/file".into()).next().await.expect("an item");
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
        println!("the longest line: {longest}");
    });
}
