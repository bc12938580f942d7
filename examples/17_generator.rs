//! Python: a generator function, with `yield`. Code that has its items in the middle of a loop puts them out one by one.

use std::path::PathBuf;
use std::{fs, io};

use offthread::{IteratorWrapper, block_on, threaded_generator};

/// All files below a folder. An iterator would have to keep the state of this loop between two items.
fn files(root: &str) -> IteratorWrapper<io::Result<PathBuf>> {
    let mut folders = vec![PathBuf::from(root)];
    threaded_generator(move |out| {
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                // An error before the first item, or later: it is an item, and the last one.
                Err(error) => return out.put(Err(error)),
            };
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    // As `yield`. Blocks while the buffer is full; `?` ends the body when the reader has gone.
                    out.put(Ok(path))?;
                }
            }
        }
        Ok(())
    })
}

fn main() {
    block_on(async {
        let mut count = 0;
        let mut source = files("src").max_size(4);
        while let Some(path) = source.next().await {
            assert!(path.expect("src can be read").starts_with("src"));
            count += 1;
        }
        assert!(count > 20, "only {count} files");

        let error = files("no/such/folder").next().await.expect("an item").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);

        // A reader that stops early: the body ends at its next `put`, and has ended when `scope` returns.
        let first = files(".").max_size(1).scope(async |files| files.next().await).await;
        assert!(first.is_some());
        println!("{count} files below src");
    });
}
