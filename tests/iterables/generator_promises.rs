//! What generators promise: the tests check sentences of the public documentation, and what follows from these. What
//! the documentation says of iterables applies to generators too.

use crate::helpers::event_loop::{LONG, Living};
use crate::helpers::iterables::*;
use offthread::spsc::SendError;
use offthread::{ContextVar, EventLoop, IteratorWrapper, LoopHandle, SyncWaitError, ThreadPool, Yielder};
use offthread::{block_on, is_cancelled, spawn, sync_await, timeout, wait_cancelled, yield_now};
use offthread::{threaded, threaded_generator, threaded_generator_separate};
use std::cell::Cell;
use std::error::Error;
use std::fmt::Debug;
use std::fs::File;
use std::future::pending;
use std::io::{self, BufRead, BufReader};
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

/// How long a test waits at most for something that must happen.
const SOON: Duration = Duration::from_secs(20);

/// How long a test watches that something does not happen.
const A_MOMENT: Duration = Duration::from_millis(20);

fn pool(threads: usize) -> ThreadPool {
    ThreadPool::builder().threads(threads).name("gen-promise").build()
}

type Numbered = IteratorWrapper<usize>;

/// The body of an endless generator `0, 1, 2, ...`, which sends each number whose `put` returned `Ok`.
fn count(out: &mut Yielder<usize>, accepted: &mpsc::Sender<usize>) -> Put<usize> {
    for number in 0.. {
        out.put(number)?;
        // The test may no longer listen.
        let _ = accepted.send(number);
    }
    Ok(())
}

/// An endless generator whose buffer is full. No item has been taken.
fn counting(kind: Kind, pool: &ThreadPool, max_size: usize) -> (Numbered, mpsc::Receiver<usize>) {
    let (accept, accepted) = mpsc::channel();
    let start = Gate::default();
    let inside = start.clone();
    let mut stream = kind
        .generator(pool, move |out| {
            inside.pass();
            count(out, &accept)
        })
        .max_size(max_size);
    assert!(poll_once(&mut stream).is_pending());
    start.open();
    for number in 0..max_size {
        assert_eq!(accepted.recv_timeout(SOON), Ok(number));
    }
    (stream, accepted)
}

/// Closes the stream, or drops it, and returns what the body sends then. A close waits for the body.
fn end_it<T, R>(mut stream: IteratorWrapper<T>, closes: bool, sent: &mpsc::Receiver<R>) -> R {
    if closes {
        block_on(stream.close());
        sent.try_recv().unwrap()
    } else {
        drop(stream);
        sent.recv_timeout(SOON).unwrap()
    }
}

/// A value whose `Drop` is slow, and then sends a message.
fn slow() -> (OnDrop<impl FnOnce() + Send>, mpsc::Receiver<()>) {
    let (gone, is_gone) = mpsc::channel();
    let guard = on_drop(move || {
        for _ in 0..20 {
            thread::yield_now();
        }
        let _ = gone.send(());
    });
    (guard, is_gone)
}

// --- laziness ----------------------------------------------------------------------------------------------

#[test]
fn neither_the_thread_nor_the_body_runs_before_the_first_poll() {
    let _watchdog = watchdog();
    for kind in BOTH {
        let threads = Threads::default();
        let pool = threads.watch(ThreadPool::builder().threads(1).name("gen-promise-lazy")).build();
        let (run, has_run) = mpsc::channel();
        let mut stream = kind.generator(&pool, move |out| {
            run.send(()).unwrap();
            out.put(1)
        });
        drop(stream.next());
        assert_eq!(has_run.recv_timeout(A_MOMENT), Err(mpsc::RecvTimeoutError::Timeout), "{kind:?}");
        assert_eq!(threads.started(), 0);
        // A body that was already submitted would run before this job.
        pool.spawn(|| ()).wait();
        assert_eq!(has_run.try_recv(), Err(mpsc::TryRecvError::Empty), "{kind:?}");

        assert_eq!(take_all(&mut stream), [1]);
        assert_eq!(has_run.try_recv(), Ok(()));
    }
}

#[test]
fn closing_before_the_start_runs_nothing() {
    let _watchdog = watchdog();
    for kind in BOTH {
        let pool = pool(1);
        let (living, ran) = (Living::default(), Arc::new(AtomicBool::new(false)));
        let unstarted = || {
            let (value, ran) = (living.one(), Arc::clone(&ran));
            kind.generator(&pool, move |out| {
                ran.store(true, Ordering::SeqCst);
                out.put(value)
            })
        };

        let mut stream = unstarted();
        assert!(!stream.is_closed());
        block_on(stream.close());
        assert!(stream.is_closed());
        assert!(take(&mut stream).is_none());
        drop(stream);
        drop(unstarted());
        block_on(unstarted().scope(async |_| ()));

        until("the captured values are dropped", || living.count() == 0);
        // A body that was submitted would run before this job.
        pool.spawn(|| ()).wait();
        assert!(!ran.load(Ordering::SeqCst), "{kind:?}");
    }
}

#[test]
fn a_generator_in_the_queue_is_closed_without_waiting_for_a_thread() {
    let _watchdog = watchdog();
    let pool = pool(1);
    let held = hold(&pool, 1);
    let (living, ran) = (Living::default(), Arc::new(AtomicBool::new(false)));
    let (value, inside) = (living.one(), Arc::clone(&ran));
    let mut stream = threaded_generator(move |out| {
        inside.store(true, Ordering::SeqCst);
        out.put(value)
    })
    .on(&pool);
    assert!(poll_once(&mut stream).is_pending());
    // Hangs if the close waits for the thread.
    block_on(stream.close());
    assert!(take(&mut stream).is_none());
    drop(stream);
    release(held);
    pool.drain();
    assert!(!ran.load(Ordering::SeqCst));
    assert_eq!(living.count(), 0);
}

// --- the buffer --------------------------------------------------------------------------------------------

#[test]
fn the_buffer_holds_exactly_max_size_items() {
    let _watchdog = watchdog();
    for kind in BOTH {
        for max_size in [1, 2, 7] {
            let pool = pool(1);
            let (accept, accepted) = mpsc::channel();
            let (start, asked) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
            let (inside, asked_for) = (start.clone(), Arc::clone(&asked));
            let mut stream = kind
                .generator(&pool, move |out| {
                    inside.pass();
                    for number in 0.. {
                        out.put(number)?;
                        let most = asked_for.load(Ordering::SeqCst) + max_size;
                        assert!(number < most, "{number} of at most {most} items: {kind:?}, {max_size}");
                        let _ = accept.send(());
                    }
                    Ok(())
                })
                .max_size(max_size);
            assert!(poll_once(&mut stream).is_pending());
            start.open();
            for _ in 0..max_size {
                accepted.recv_timeout(SOON).expect("there is room for max_size items");
            }
            assert!(accepted.recv_timeout(A_MOMENT).is_err(), "no room for more: {kind:?}, {max_size}");
            for number in 0..30 {
                asked.store(number + 1, Ordering::SeqCst);
                assert_eq!(take(&mut stream), Some(number));
            }
        }
    }
}

#[test]
fn an_item_whose_put_returned_ok_is_received_in_order() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        for max_size in [1, 3, 1000] {
            let mut stream = kind.generator(&pool, |out| (0..600).try_for_each(|number| out.put(number)));
            stream = stream.max_size(max_size);
            assert!(take_all(&mut stream).into_iter().eq(0..600), "{kind:?}, {max_size}");
            assert!(stream.is_closed());
            assert!(take(&mut stream).is_none());
        }
    }
}

#[test]
fn a_max_size_of_zero_panics() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        panic_of(|| kind.generator(&pool, |out| out.put(1)).max_size(0));
    }
}

#[test]
fn max_size_panics_once_the_generator_has_started() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        let mut stream = kind.generator(&pool, |out| (0..3).try_for_each(|number| out.put(number)));
        assert_eq!(take(&mut stream), Some(0));
        panic_of(|| stream.max_size(5));
    }
}

#[test]
fn a_max_size_that_cannot_be_allocated_panics_with_its_size() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        let said = panic_of(|| {
            let mut stream = kind.generator(&pool, |out| out.put(1_u64)).max_size(usize::MAX);
            take(&mut stream)
        });
        assert_says(&said, &usize::MAX.to_string());
    }
}

// --- closing -----------------------------------------------------------------------------------------------

#[test]
fn put_gives_the_item_back_once_the_consumer_has_gone() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        for closes in [false, true] {
            let (back, given_back) = mpsc::channel();
            let gone = Gate::default();
            let is_gone = gone.clone();
            let mut stream = kind.generator(&pool, move |out| {
                out.put("first".to_owned())?;
                is_gone.pass();
                for item in ["second", "third"] {
                    let SendError(item) = out.put(item.to_owned()).unwrap_err();
                    back.send(item).unwrap();
                }
                out.put("fourth".to_owned())
            });
            assert_eq!(take(&mut stream).as_deref(), Some("first"));
            if closes {
                let witness = Witness::default();
                // The body is still at the gate.
                assert!(witness.poll(Box::pin(stream.close())).is_pending());
                gone.open();
                block_on(stream.close());
            } else {
                drop(stream);
                gone.open();
            }
            assert_eq!(given_back.recv_timeout(SOON).as_deref(), Ok("second"), "{kind:?}, {closes}");
            assert_eq!(given_back.recv_timeout(SOON).as_deref(), Ok("third"), "{kind:?}, {closes}");
        }
    }
}

#[test]
fn closing_wakes_a_body_that_waits_in_put() {
    let _watchdog = watchdog();
    for kind in BOTH {
        for closes in [false, true] {
            let pool = pool(1);
            let (accept, accepted) = mpsc::channel();
            let (back, given_back) = mpsc::channel();
            let start = Gate::default();
            let inside = start.clone();
            let mut stream = kind
                .generator(&pool, move |out| {
                    inside.pass();
                    out.put(0)?;
                    accept.send(ThisThread::new()).unwrap();
                    let SendError(item) = out.put(1).unwrap_err();
                    back.send(item).unwrap();
                    Err(SendError(item))
                })
                .max_size(1);
            assert!(poll_once(&mut stream).is_pending());
            start.open();
            // The body sleeps once it waits in `put`.
            accepted.recv_timeout(SOON).unwrap().wait_until_asleep();
            assert_eq!(end_it(stream, closes, &given_back), 1, "{kind:?}");
        }
    }
}

#[test]
fn dropping_closes_without_waiting() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        let living = Living::default();
        let (value, stop) = (living.one(), Gate::default());
        let inside = stop.clone();
        let mut stream = kind.generator(&pool, move |out| {
            out.put(())?;
            inside.pass();
            drop(value);
            out.put(())
        });
        assert_eq!(take(&mut stream), Some(()));
        // Hangs if the drop waits for the body.
        drop(stream);
        assert_eq!(living.count(), 1);
        stop.open();
        until("the body has ended", || living.count() == 0);
    }
}

#[test]
fn close_returns_only_after_the_values_of_the_body_were_dropped() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        let ((captured, captured_is_gone), (local, local_is_gone)) = (slow(), slow());
        let stop = Gate::default();
        let inside = stop.clone();
        let mut stream = kind.generator(&pool, move |out| {
            let _captured = &captured;
            out.put(())?;
            let _local = Box::new(local);
            inside.pass();
            out.put(())
        });
        assert_eq!(take(&mut stream), Some(()));
        let witness = Witness::default();
        let mut close = Box::pin(stream.close());
        // A close that is given up can be repeated.
        assert!(witness.poll(&mut close).is_pending(), "{kind:?}");
        drop(close);
        let mut close = Box::pin(stream.close());
        assert!(witness.poll(&mut close).is_pending(), "{kind:?}");
        stop.open();
        block_on(close);
        assert_eq!((captured_is_gone.try_recv(), local_is_gone.try_recv()), (Ok(()), Ok(())), "{kind:?}");
        block_on(stream.close());
        assert!(stream.is_closed());
        assert_eq!(take(&mut stream), None);
    }
}

#[test]
fn scope_returns_only_after_the_values_of_the_body_were_dropped() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        let (captured, is_gone) = slow();
        let (accept, _accepted) = mpsc::channel();
        let stream = kind.generator(&pool, move |out| {
            let _captured = &captured;
            count(out, &accept)
        });
        let items = block_on(stream.max_size(2).scope(async |stream| {
            let items = [stream.next().await, stream.next().await];
            assert_eq!(is_gone.try_recv(), Err(mpsc::TryRecvError::Empty));
            items
        }));
        assert_eq!(items, [Some(0), Some(1)]);
        assert_eq!(is_gone.try_recv(), Ok(()), "{kind:?}");
    }
}

#[test]
fn after_a_close_at_any_moment_each_item_is_dropped() {
    let _watchdog = watchdog();
    let pool = pool(2);
    for round in 0..300 {
        let kind = BOTH[round % 2];
        let living = Living::default();
        let (items, body) = (living.clone(), living.one());
        let mut stream = kind.generator(&pool, move |out| {
            let _body = on_drop(move || drop(body));
            loop {
                out.put(items.one())?;
            }
        });
        stream = stream.max_size(1 + round % 3);
        assert!((0..round % 7).all(|_| take(&mut stream).is_some()));
        block_on(stream.close());
        assert!(take(&mut stream).is_none());
        drop(stream);
        assert_eq!(living.count(), 0, "round {round}, {kind:?}");
    }
}

// --- how a body ends ---------------------------------------------------------------------------------------

fn lines(kind: Kind, pool: &ThreadPool, path: PathBuf) -> IteratorWrapper<io::Result<String>> {
    kind.generator(pool, move |out| {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) => return out.put(Err(error)),
        };
        for line in BufReader::new(file).lines() {
            out.put(line)?;
        }
        Ok(())
    })
}

#[test]
fn an_error_before_the_first_item_is_an_item() {
    let _watchdog = watchdog();
    let pool = pool(1);
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    for kind in BOTH {
        let mut stream = lines(kind, &pool, folder.join("no such file"));
        let error = take(&mut stream).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(take(&mut stream).is_none());
        assert!(stream.is_closed());

        let mut stream = lines(kind, &pool, folder.join("Cargo.toml"));
        let read: Vec<String> = take_all(&mut stream).into_iter().map(Result::unwrap).collect();
        let text = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        assert!(read.iter().map(String::as_str).eq(text.lines()));
    }
}

#[test]
fn a_body_that_returns_early_ends_the_stream() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        let mut stream = kind.generator(&pool, |out| {
            for number in 0.. {
                if number == 3 {
                    return Ok(());
                }
                out.put(number)?;
            }
            Ok(())
        });
        assert_eq!(take_all(&mut stream), [0, 1, 2]);
        assert!(stream.is_closed());
        assert_eq!(take_all(&mut kind.generator(&pool, |_: &mut Yielder<u8>| Ok(()))), []);
    }
}

#[test]
fn a_question_mark_after_put_ends_the_body_and_close_does_not_panic() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        let (mut stream, accepted) = counting(kind, &pool, 2);
        assert_eq!(take(&mut stream), Some(0));
        block_on(stream.close());
        // The body's sender has been dropped.
        while accepted.try_recv().is_ok() {}
        assert_eq!(accepted.try_recv(), Err(mpsc::TryRecvError::Disconnected), "{kind:?}");
        assert_eq!(take(&mut stream), None);
    }
}

#[test]
fn a_panic_in_the_body_is_resumed_in_next_after_the_items_and_then_the_stream_has_ended() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        let mut stream = kind.generator(&pool, |out| {
            out.put(1)?;
            out.put(2)?;
            resume_unwind(Box::new(4711_u64))
        });
        assert_eq!((take(&mut stream), take(&mut stream)), (Some(1), Some(2)));
        let payload = catch_unwind(AssertUnwindSafe(|| take(&mut stream))).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&4711_u64));
        assert_eq!((take(&mut stream), take(&mut stream)), (None, None));
        assert!(stream.is_closed());

        let mut stream = kind.generator(&pool, |_: &mut Yielder<u8>| quiet_panic("before the first item"));
        assert_eq!(assert_panics_once(&mut stream), "before the first item");
        assert_eq!(pool.spawn(|| 3).wait(), 3, "the worker lives");
    }
}

// --- context and loop --------------------------------------------------------------------------------------

#[test]
fn the_body_has_a_copy_of_the_context() {
    static NUMBER: ContextVar<u32> = ContextVar::new();
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        block_on(async {
            NUMBER.set(1);
            let mut stream = kind.generator(&pool, |out| {
                out.put(NUMBER.get())?;
                NUMBER.set(2);
                out.put(NUMBER.get())?;
                // The consumer may have set the variable by now.
                out.put(NUMBER.get())?;
                out.put(NUMBER.get())
            });
            stream = stream.max_size(1);
            assert_eq!(stream.next().await, Some(Some(1)));
            assert_eq!(stream.next().await, Some(Some(2)));
            assert_eq!(NUMBER.get(), Some(1), "{kind:?}");
            NUMBER.set(3);
            assert_eq!(stream.next().await, Some(Some(2)), "{kind:?}");
            assert_eq!(stream.next().await, Some(Some(2)), "{kind:?}");
            assert_eq!(stream.next().await, None);
            assert_eq!(NUMBER.get(), Some(3), "{kind:?}");
            NUMBER.clear();
            assert_eq!(threaded(|| NUMBER.get()).on(&pool).await, None, "nothing stays on the pool's thread");
        });
    }
}

#[test]
fn the_current_loop_travels_into_the_body() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        block_on(async {
            let mut stream = kind.generator(&pool, |out| {
                for _ in 0..3 {
                    out.put(sync_await(async { thread::current().id() }))?;
                }
                out.put(LoopHandle::current().sync_wait(async { thread::current().id() }).unwrap())
            });
            for _ in 0..4 {
                assert_eq!(stream.next().await, Some(thread::current().id()), "{kind:?}");
            }
            assert_eq!(stream.next().await, None);
        });
    }
}

#[test]
fn a_sync_wait_in_the_body_fails_once_the_loop_has_ended() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        let mut stream = kind.generator(&pool, |out| {
            let home = LoopHandle::current();
            out.put("first")?;
            match home.sync_wait(pending::<()>()) {
                Err(SyncWaitError::LoopClosed) => out.put("loop closed"),
                _ => out.put("another answer"),
            }
        });
        // Each `block_on` makes a loop, and the first one starts the body.
        assert_eq!(take_all(&mut stream), ["first", "loop closed"], "{kind:?}");
    }
}

#[test]
fn the_loops_default_pool_runs_a_generator_that_names_no_pool() {
    let _watchdog = watchdog();
    let mut event_loop = EventLoop::builder().pool(pool(1)).build();
    let name = event_loop.block_on(async { threaded_generator(|out| out.put(own_name())).next().await });
    assert!(name.as_deref().unwrap().starts_with("gen-promise"), "{name:?}");
}

#[test]
fn in_a_job_without_a_loop_a_generator_runs_on_the_jobs_pool() {
    let _watchdog = watchdog();
    let pool = pool(2);
    let job = pool.spawn(|| {
        let mut stream = threaded_generator(|out| out.put(own_name()));
        loop {
            match poll_once(&mut stream) {
                Poll::Ready(name) => return name,
                Poll::Pending => thread::yield_now(),
            }
        }
    });
    let name = job.wait();
    assert!(name.as_deref().unwrap().starts_with("gen-promise"), "{name:?}");
}

// --- being cancelled ---------------------------------------------------------------------------------------

#[test]
fn is_cancelled_turns_true_in_the_body_of_a_closed_generator() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        for closes in [false, true] {
            let (end, ended) = mpsc::channel();
            let mut stream = kind.generator(&pool, move |out| {
                out.put(is_cancelled())?;
                while !is_cancelled() {
                    thread::yield_now();
                }
                end.send(wait_cancelled(LONG)).unwrap();
                Ok(())
            });
            assert_eq!(take(&mut stream), Some(false));
            assert_eq!(ended.recv_timeout(A_MOMENT), Err(mpsc::RecvTimeoutError::Timeout));
            assert!(end_it(stream, closes, &ended), "{kind:?}");
        }
    }
}

#[test]
fn wait_cancelled_in_the_body_ends_when_the_generator_is_closed() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        for closes in [false, true] {
            let (end, ended) = mpsc::channel();
            let mut stream = kind.generator(&pool, move |out| {
                out.put(wait_cancelled(Duration::from_millis(1)))?;
                end.send(wait_cancelled(LONG)).unwrap();
                Ok(())
            });
            assert_eq!(take(&mut stream), Some(false), "the time was up");
            assert!(end_it(stream, closes, &ended), "{kind:?}");
        }
    }
}

#[test]
fn a_sync_wait_in_the_body_of_a_closed_generator_returns_cancelled() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        let living = Living::default();
        let value = living.one();
        let (end, ended) = mpsc::channel();
        block_on(async {
            let mut stream = kind.generator(&pool, move |out| {
                out.put(())?;
                let result = LoopHandle::current().sync_wait(never_ending(value));
                end.send(matches!(result, Err(SyncWaitError::Cancelled))).unwrap();
                Ok(())
            });
            assert_eq!(stream.next().await, Some(()));
            // The future runs on this loop.
            for _ in 0..10 {
                yield_now().await;
            }
            stream.close().await;
            assert_eq!(ended.try_recv(), Ok(true), "{kind:?}");
            turn_until("the future is dropped", || living.count() == 0).await;
        });
    }
}

#[test]
fn a_sync_await_in_the_body_of_a_closed_generator_unwinds_and_close_does_not_panic() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        for has_loop in [true, false] {
            let (local, is_gone) = slow();
            let passed = Arc::new(AtomicBool::new(false));
            let inside = Arc::clone(&passed);
            let mut stream = kind.generator(&pool, move |out| {
                let _local = local;
                out.put(LoopHandle::try_current().is_some())?;
                sync_await(pending::<()>());
                inside.store(true, Ordering::SeqCst);
                out.put(false)
            });
            if has_loop {
                block_on(async {
                    assert_eq!(stream.next().await, Some(true));
                    stream.close().await;
                    assert_eq!(is_gone.try_recv(), Ok(()), "{kind:?}");
                    assert_eq!(stream.next().await, None);
                });
            } else {
                until("the first item came", || match poll_once(&mut stream) {
                    Poll::Ready(item) => {
                        assert_eq!(item, Some(false));
                        true
                    }
                    Poll::Pending => false,
                });
                drop(stream);
                assert_eq!(is_gone.recv_timeout(SOON), Ok(()), "{kind:?}");
            }
            assert!(!passed.load(Ordering::SeqCst), "{kind:?}, {has_loop}");
        }
    }
    assert_eq!(pool.spawn(|| 3).wait(), 3, "the worker lives");
}

// --- the pool is shut down ---------------------------------------------------------------------------------

#[test]
fn after_a_shutdown_or_a_drain_the_buffered_items_are_delivered_and_then_next_panics_once() {
    let _watchdog = watchdog();
    for drains in [false, true] {
        let pool = pool(1);
        let (mut stream, accepted) = counting(Kind::Pool, &pool, 3);
        // Both calls end the `put` in which the body waits, with an error.
        if drains {
            pool.drain();
        } else {
            pool.shutdown();
        }
        assert_eq!(accepted.recv_timeout(SOON), Err(mpsc::RecvTimeoutError::Disconnected), "no more items");
        for number in 0..3 {
            assert_eq!(take(&mut stream), Some(number), "{drains}");
        }
        assert_says(&assert_panics_once(&mut stream), "pool");
    }
}

#[test]
fn a_drain_does_not_wait_for_an_endless_generator_that_is_read() {
    let _watchdog = watchdog();
    for max_size in [1, 16] {
        let pool = pool(1);
        let (accept, accepted) = mpsc::channel();
        let mut stream = threaded_generator(move |out| count(out, &accept)).on(&pool).max_size(max_size);
        let reader = thread::spawn(move || {
            let mut items = 0;
            let said = panic_of(|| {
                while let Some(number) = take(&mut stream) {
                    assert_eq!(number, items);
                    items += 1;
                }
            });
            (items, said)
        });
        for _ in 0..50 {
            accepted.recv_timeout(SOON).unwrap();
        }
        pool.drain();
        let (items, said) = reader.join().unwrap();
        assert_says(&said, "pool");
        assert_eq!(items, 50 + accepted.iter().count(), "each item whose put returned Ok is received");
    }
}

#[test]
fn a_shutdown_cancels_the_body_and_waits_for_it() {
    let _watchdog = watchdog();
    let pool = pool(1);
    let (local, is_gone) = slow();
    let (end, ended) = mpsc::channel();
    let mut stream = threaded_generator(move |out| {
        let _local = local;
        out.put(())?;
        end.send(wait_cancelled(LONG)).unwrap();
        Ok(())
    })
    .on(&pool);
    assert_eq!(take(&mut stream), Some(()));
    pool.shutdown();
    assert_eq!(ended.try_recv(), Ok(true));
    assert_eq!(is_gone.try_recv(), Ok(()));
}

#[test]
fn a_stream_whose_body_had_ended_before_the_shutdown_ends_without_a_panic() {
    let _watchdog = watchdog();
    let pool = pool(1);
    let (end, ended) = mpsc::channel();
    let mut stream = threaded_generator(move |out| {
        let _end = on_drop(move || end.send(()).unwrap());
        (0..5).try_for_each(|number| out.put(number))
    })
    .on(&pool);
    assert_eq!(take(&mut stream), Some(0));
    ended.recv_timeout(SOON).unwrap();
    // The thread has returned from the body when it runs the next job.
    pool.spawn(|| ()).wait();
    pool.shutdown();
    assert_eq!(take_all(&mut stream), [1, 2, 3, 4]);
    assert!(stream.is_closed());
}

#[test]
fn a_drain_runs_a_queued_generator_for_at_most_max_size_items() {
    let _watchdog = watchdog();
    for (items, is_whole) in [(2, true), (5, false)] {
        let pool = pool(1);
        let held = hold(&pool, 1);
        let body = move |out: &mut Yielder<usize>| (0..items).try_for_each(|number| out.put(number));
        let mut stream = threaded_generator(body).on(&pool).max_size(3);
        assert!(poll_once(&mut stream).is_pending());
        let draining = thread::spawn({
            let pool = pool.clone();
            move || pool.drain()
        });
        until("the pool is closed", || pool.is_closed());
        release(held);
        draining.join().unwrap();
        if is_whole {
            assert_eq!(take_all(&mut stream), [0, 1]);
        } else {
            let mut read = vec![];
            let said = panic_of(|| {
                while let Some(number) = take(&mut stream) {
                    read.push(number);
                }
            });
            assert_says(&said, "pool");
            assert!(read.into_iter().eq(0..3), "room for three, and nobody took one");
            assert_eq!(take(&mut stream), None);
        }
    }
}

#[test]
fn a_generator_of_a_closed_pool_panics_once() {
    let _watchdog = watchdog();
    let pool = pool(1);
    pool.shutdown();
    let mut stream = threaded_generator(|out| out.put(1)).on(&pool);
    assert_says(&assert_panics_once(&mut stream), "pool");
}

// --- a pool of one thread ----------------------------------------------------------------------------------

#[test]
fn a_pool_of_one_thread_gets_through_sixty_generators_in_lockstep() {
    let _watchdog = watchdog();
    let pool = pool(1);
    let mut streams: Vec<_> = (0..60_usize)
        .map(|id| {
            let body = move |out: &mut Yielder<_>| (0..10_usize).try_for_each(|number| out.put((id, number)));
            threaded_generator(body).on(&pool).max_size(1 + id % 2)
        })
        .collect();
    block_on(async {
        for number in 0..10 {
            for (id, stream) in streams.iter_mut().enumerate() {
                assert_eq!(stream.next().await, Some((id, number)));
            }
        }
        for stream in &mut streams {
            assert_eq!(stream.next().await, None);
        }
    });
}

#[test]
fn a_generator_that_waits_in_put_leaves_the_pool_to_jobs_and_iterables() {
    let _watchdog = watchdog();
    let pool = pool(1);
    let mut streams: Vec<_> = (0..5).map(|_| counting(Kind::Pool, &pool, 2).0).collect();
    assert_eq!(pool.spawn(|| 7).wait(), 7);
    let inner = pool.clone();
    assert_eq!(pool.spawn(move || inner.spawn(|| 8).wait()).wait(), 8);
    assert_eq!(take_all(&mut IteratorWrapper::new(|| 0..3).on(&pool).max_size(1)), [0, 1, 2]);
    for stream in &mut streams {
        assert_eq!((take(stream), take(stream), take(stream)), (Some(0), Some(1), Some(2)));
        block_on(stream.close());
    }
}

#[test]
fn a_body_reads_generators_and_awaits_jobs_of_its_own_pool_of_one_thread() {
    fn nested(pool: &ThreadPool, depth: usize) -> IteratorWrapper<usize> {
        let inner = pool.clone();
        threaded_generator(move |out| {
            if depth == 0 {
                return (0..20).try_for_each(|number| out.put(number));
            }
            let mut source = nested(&inner, depth - 1);
            loop {
                // On the loop of the outermost reader, while this thread waits.
                let (item, rest) = sync_await(async move { (source.next().await, source) });
                source = rest;
                let Some(number) = item else { return Ok(()) };
                let pool = inner.clone();
                let job = async move { threaded(move || number + 1).on(&pool).await };
                out.put(sync_await(job))?;
            }
        })
        .on(pool)
        .max_size(1)
    }
    let _watchdog = watchdog();
    let pool = pool(1);
    let numbers = block_on(async {
        let (mut stream, mut numbers) = (nested(&pool, 8), vec![]);
        while let Some(number) = stream.next().await {
            numbers.push(number);
        }
        numbers
    });
    assert!(numbers.into_iter().eq(8..28));
}

#[test]
fn a_generator_counts_nowhere_in_the_statistics_of_jobs() {
    let _watchdog = watchdog();
    let pool = pool(1);
    assert_eq!(take_all(&mut threaded_generator(|out| out.put(1)).on(&pool)), [1]);
    assert_panics_once(&mut threaded_generator(|_: &mut Yielder<u8>| quiet_panic("on purpose")).on(&pool));
    drop(counting(Kind::Pool, &pool, 1));
    pool.drain();
    let stats = pool.stats();
    let ended = [stats.succeeded, stats.panicked, stats.cancelled];
    assert_eq!((stats.submitted, ended), (0, [0, 0, 0]), "{stats:?}");
}

// --- where it runs -----------------------------------------------------------------------------------------

#[test]
fn on_chooses_the_pool_and_name_names_the_separate_thread() {
    let _watchdog = watchdog();
    let pool = pool(1);
    let name = take(&mut threaded_generator(|out| out.put(own_name())).on(&pool)).unwrap();
    assert!(name.starts_with("gen-promise"), "{name}");
    let mut stream = threaded_generator_separate(|out| out.put(own_name())).name("gd-alone");
    assert_eq!(take(&mut stream).as_deref(), Some("gd-alone"));
}

#[test]
fn on_panics_for_a_separate_generator() {
    let _watchdog = watchdog();
    let pool = pool(1);
    panic_of(|| threaded_generator_separate(|out| out.put(1)).on(&pool));
}

#[test]
fn a_separate_generator_needs_no_thread_of_a_pool() {
    let _watchdog = watchdog();
    let pool = pool(1);
    let held = hold(&pool, 1);
    let mut event_loop = EventLoop::builder().pool(pool).build();
    let thread = event_loop.block_on(async {
        let mut stream = threaded_generator_separate(|out| out.put(thread::current().id()));
        stream.next().await.unwrap()
    });
    assert_ne!(thread, thread::current().id());
    release(held);
}

#[test]
fn the_body_runs_on_one_thread_so_its_values_need_not_be_send() {
    let _watchdog = watchdog();
    let pool = pool(2);
    for kind in BOTH {
        let mut stream = kind
            .generator(&pool, |out| {
                let number = Rc::new(Cell::new(0_u32));
                for _ in 0..150 {
                    number.set(number.get() + 1);
                    out.put((number.get(), thread::current().id()))?;
                }
                Ok(())
            })
            .max_size(2);
        // Jobs take the threads that are free meanwhile.
        let mut jobs = vec![];
        let (first, thread) = take(&mut stream).unwrap();
        assert_eq!(first, 1);
        for expected in 2..=150 {
            jobs.push(pool.spawn(|| ()));
            assert_eq!(take(&mut stream), Some((expected, thread)), "{kind:?}");
        }
        assert_eq!(take(&mut stream), None);
    }
}

#[test]
fn items_need_not_be_sync_and_the_stream_may_move_between_threads() {
    fn is_handle<T: Send + Unpin + Debug>(_: &T) {}
    fn is_unwind_safe<T: UnwindSafe + RefUnwindSafe>(_: &T) {}
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        is_unwind_safe(&kind.generator(&pool, |out| out.put(1)));
        let body = |out: &mut Yielder<_>| (0..20).try_for_each(|number| out.put(Cell::new(number)));
        let mut stream = kind.generator(&pool, body).max_size(1);
        is_handle(&stream);
        for expected in 0..20 {
            let reader = thread::spawn(move || {
                let item = take(&mut stream).map(Cell::into_inner);
                (stream, item)
            });
            let (rest, item) = reader.join().unwrap();
            assert_eq!(item, Some(expected), "{kind:?}");
            stream = rest;
        }
    }
}

// --- reading -----------------------------------------------------------------------------------------------

#[test]
fn next_many_adds_at_most_limit_items_and_returns_zero_at_the_end() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        let mut stream = kind.generator(&pool, |out| (0..50).try_for_each(|number| out.put(number)));
        block_on(async {
            let mut items = vec![1000];
            loop {
                let before = items.len();
                let added = stream.next_many(&mut items, 7).await;
                assert_eq!(items.len(), before + added);
                assert!(added <= 7);
                if added == 0 {
                    break;
                }
            }
            assert_eq!(items.remove(0), 1000);
            assert!(items.into_iter().eq(0..50), "{kind:?}");
            assert_eq!(stream.next_many(&mut vec![], 7).await, 0);
        });
    }
}

#[test]
fn put_wakes_the_waker_of_poll_next() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        let start = Gate::default();
        let inside = start.clone();
        let mut stream = kind.generator(&pool, move |out| {
            inside.pass();
            out.put(5)
        });
        let witness = Witness::default();
        let poll = |stream: &mut _, witness: &Witness| {
            IteratorWrapper::poll_next(Pin::new(stream), &mut Context::from_waker(&witness.waker()))
        };
        assert!(poll(&mut stream, &witness).is_pending());
        assert_eq!(witness.wakes(), 0);
        start.open();
        witness.wait();
        assert_eq!(poll(&mut stream, &witness), Poll::Ready(Some(5)), "{kind:?}");
        // The end wakes the waker too, perhaps after a wake-up for nothing.
        let end = loop {
            let witness = Witness::default();
            match poll(&mut stream, &witness) {
                Poll::Ready(end) => break end,
                Poll::Pending => witness.wait(),
            }
        };
        assert_eq!(end, None, "{kind:?}");
    }
}

#[test]
fn a_next_that_is_given_up_loses_no_item() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        let start = Gate::default();
        let inside = start.clone();
        let mut stream = kind.generator(&pool, move |out| {
            inside.pass();
            (0..200).try_for_each(|number| out.put(number))
        });
        stream = stream.max_size(1);
        let mut numbers = vec![];
        block_on(async {
            assert!(timeout(Duration::from_millis(1), stream.next()).await.is_err());
            start.open();
            loop {
                match timeout(Duration::ZERO, stream.next()).await {
                    Ok(Some(number)) => numbers.push(number),
                    Ok(None) => break,
                    Err(_) => yield_now().await,
                }
            }
        });
        assert!(numbers.into_iter().eq(0..200), "{kind:?}");
    }
}

#[test]
fn sync_call_needs_no_loop_on_the_calling_thread() {
    let _watchdog = watchdog();
    for kind in BOTH {
        let pool = pool(1);
        let five = |out: &mut Yielder<u8>| {
            let own = Rc::new(());
            (0..5).try_for_each(|number| out.put(number + u8::from(Rc::strong_count(&own) > 1)))
        };
        let numbers: Vec<u8> = kind.generator(&pool, five).max_size(1).sync_call().collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4], "{kind:?}");

        // In the only thread of the generator's pool.
        let inner = pool.clone();
        let job = pool.spawn(move || kind.generator(&inner, five).max_size(1).sync_call().collect());
        let numbers: Vec<u8> = job.wait();
        assert_eq!(numbers, [0, 1, 2, 3, 4], "{kind:?}");

        let (local, is_gone) = slow();
        let (accept, _accepted) = mpsc::channel();
        let endless = kind.generator(&pool, move |out| {
            let _local = local;
            count(out, &accept)
        });
        let numbers: Vec<usize> = endless.max_size(2).sync_call().take(5).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4], "{kind:?}");
        assert_eq!(is_gone.recv_timeout(SOON), Ok(()), "the drop closes the generator: {kind:?}");

        let panics = kind.generator(&pool, |_: &mut Yielder<u8>| quiet_panic("on purpose"));
        assert_eq!(panic_of(|| panics.sync_call().next()), "on purpose");
    }
}

/// A generator of which all items are in the buffer, so that its reader never has to wait.
fn buffered(kind: Kind, pool: &ThreadPool, items: usize) -> IteratorWrapper<usize> {
    let start = Gate::default();
    let inside = start.clone();
    let (end, ended) = mpsc::channel();
    let mut stream = kind
        .generator(pool, move |out| {
            inside.pass();
            (0..items).try_for_each(|number| out.put(number))?;
            end.send(()).unwrap();
            Ok(())
        })
        .max_size(items);
    assert!(poll_once(&mut stream).is_pending());
    start.open();
    ended.recv_timeout(SOON).unwrap();
    stream
}

#[test]
fn a_reader_gives_way_after_128_items_in_a_row() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        let mut stream = buffered(kind, &pool, 400);
        let mut number = 0;
        for _ in 0..3 {
            let witness = Witness::default();
            let mut in_a_row = 0;
            while let Poll::Ready(item) = witness.poll(Box::pin(stream.next())) {
                assert_eq!(item, Some(number));
                number += 1;
                in_a_row += 1;
                assert!(in_a_row <= 128, "{kind:?}");
            }
            assert_eq!(in_a_row, 128, "{kind:?}");
            assert!(witness.wakes() > 0, "{kind:?}");
        }
    }
}

#[test]
fn a_timeout_fires_although_its_reader_never_waits() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        let mut stream = buffered(kind, &pool, 1000);
        let reader = async {
            assert_eq!(stream.next().await, Some(0));
            // The time is up before the next item is read.
            thread::sleep(Duration::from_millis(2));
            while stream.next().await.is_some() {}
        };
        assert!(block_on(timeout(Duration::from_millis(1), reader)).is_err(), "{kind:?}");
        assert!(take(&mut stream).is_some(), "{kind:?}");
    }
}

#[test]
fn other_tasks_run_beside_a_reader_that_never_waits() {
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        let mut stream = buffered(kind, &pool, 1000);
        block_on(async {
            let ran = Rc::new(Cell::new(false));
            let inside = Rc::clone(&ran);
            let task = spawn(async move { inside.set(true) });
            let mut read = 0;
            while stream.next().await.is_some() {
                read += 1;
                assert!(ran.get() || read <= 128, "{kind:?}");
            }
            assert_eq!(read, 1000);
            task.await;
        });
    }
}

#[test]
fn the_types_print_and_the_error_needs_no_printable_item() {
    /// Implements nothing.
    struct Opaque;
    fn is_error(error: &dyn Error) -> String {
        error.to_string()
    }
    let _watchdog = watchdog();
    let pool = pool(1);
    for kind in BOTH {
        let (say, said) = mpsc::channel();
        let gone = Gate::default();
        let is_gone = gone.clone();
        let mut stream = kind.generator(&pool, move |out| {
            say.send(format!("{out:?}")).unwrap();
            out.put(Opaque)?;
            is_gone.pass();
            let error = out.put(Opaque).unwrap_err();
            say.send(is_error(&error)).unwrap();
            say.send(format!("{error:?}")).unwrap();
            Err(error)
        });
        assert!(format!("{stream:?}").contains("IteratorWrapper"));
        assert!(take(&mut stream).is_some());
        assert!(format!("{stream:?}").contains("IteratorWrapper"));
        drop(stream);
        gone.open();
        assert!(said.recv_timeout(SOON).unwrap().contains("Yielder"));
        assert!(!said.recv_timeout(SOON).unwrap().is_empty());
        assert!(said.recv_timeout(SOON).unwrap().contains("SendError"));
    }
}
