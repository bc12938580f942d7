//! Python: `FromThreadChannel(max_size=2)`. A thread puts items in, async code takes them out.

use std::thread;
use std::time::Duration;

use offthread::spsc::{self, RecvTimeoutError, TrySendError};
use offthread::{block_on, threaded};

fn main() {
    block_on(async {
        let (mut sender, mut receiver) = spsc::channel(2);

        let producer = thread::spawn(move || {
            for n in 0..10 {
                // Blocks while two items wait in the channel.
                sender.send_blocking(n).expect("the receiver is there");
            }
            // Dropping the sender closes the channel.
        });
        let mut items = Vec::new();
        while let Some(item) = receiver.recv().await {
            items.push(item);
        }
        producer.join().unwrap();
        assert_eq!(items, (0..10).collect::<Vec<_>>());

        // Both ends can also try without waiting, wait with a time limit, and close the channel.
        let (mut sender, mut receiver) = spsc::channel(1);
        assert_eq!(receiver.recv_timeout(Duration::from_millis(1)).await, Err(RecvTimeoutError::Timeout));
        assert_eq!(sender.try_send("first"), Ok(()));
        assert_eq!(sender.try_send("second"), Err(TrySendError::Full("second")));
        receiver.close();
        assert_eq!(sender.try_send("third"), Err(TrySendError::Closed("third")));
        assert_eq!(receiver.recv().await, Some("first"), "sent before the close");

        // The other direction: async code sends, a thread receives.
        let (mut sender, receiver) = spsc::channel(1);
        let sum = threaded(move || receiver.into_iter().sum::<u32>()).async_call();
        for n in 1..=4 {
            sender.send(n).await.expect("the thread listens");
        }
        drop(sender);
        assert_eq!(sum.await, 10);
        println!("{} items came, and a thread computed the sum 10", items.len());
    });
}
