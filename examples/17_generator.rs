//! Python: a generator function, with `yield`. Blocking code hands out its items from the middle of a loop.

use std::path::PathBuf;
use std::{fs, io};

use offthread::{IteratorWrapper, block_on, threaded_generator};

/// All files below a folder. An iterator would have to store the state of both loops between two items.
fn files(root: &str) -> IteratorWrapper<io::Result<PathBuf>> {
    let mut folders = vec![PathBuf::from(root)];
    threaded_generator(move |out| {
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                // An error is an item, too: here the last one.
                Err(error) => return out.put(Err(error)),
            };
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    // As `yield`: blocks while the buffer is full. `?` ends the body when the stream is closed.
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

        // The reader stops early: the body ends at its next `put`, and `scope` waits for this end.
        let first = files(".").max_size(1).scope(async |files| files.next().await).await;
        assert!(first.is_some());
        println!("{count} files below src");
    });
}
