//! Threads of sources: named, small, restarted when they fall over, stopped within a bound.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Stack of a source's thread, in bytes; the deepest of them reads a message of the bus.
const STACK_BYTES: usize = 256 * 1024;

/// First wait before a source that fell over is started again; doubled up to [`RESTART_MAX`].
const RESTART_MIN: Duration = Duration::from_secs(1);

/// Longest wait before a source that fell over is started again. Short, since a service that the
/// PC starts after the agent is found by it.
const RESTART_MAX: Duration = Duration::from_secs(10);

/// How long dropping waits for all threads together. One that hangs in a driver is left behind;
/// it ends when the driver lets go.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// Tells threads to end, also those that wait for files.
#[derive(Debug, Clone)]
pub(crate) struct Stop {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    stopped: AtomicBool,
    /// Readable from the stop on.
    wake: OwnedFd,
}

impl Stop {
    pub(crate) fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let inner = Inner {
            stopped: AtomicBool::new(false),
            wake,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    pub(crate) fn stop(&self) {
        self.inner.stopped.store(true, Ordering::SeqCst);
        // Fails only where the counter is full, and then it is readable.
        let _full = rustix::io::write(&self.inner.wake, &1_u64.to_ne_bytes());
    }

    pub(crate) fn stopped(&self) -> bool {
        self.inner.stopped.load(Ordering::SeqCst)
    }

    /// What becomes readable at the stop, for those who wait for other files as well.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.inner.wake.as_fd()
    }

    /// Waits so long; false where it is time to end.
    pub(crate) fn wait(&self, span: Duration) -> bool {
        let end = Instant::now() + span;
        loop {
            if self.stopped() {
                return false;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let mut fds = [PollFd::new(&self.inner.wake, PollFlags::IN)];
            let _interrupted = poll(&mut fds, Some(&timespec(left)));
        }
    }
}

/// A span as the kernel wants it.
pub(crate) fn timespec(span: Duration) -> Timespec {
    Timespec {
        tv_sec: span.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: span.subsec_nanos().into(),
    }
}

/// The running threads of all sources.
#[derive(Debug)]
pub(crate) struct Threads {
    stop: Stop,
    running: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(crate) const fn new(stop: Stop) -> Self {
        Self {
            stop,
            running: Vec::new(),
        }
    }

    /// Runs `work` until it returns after a stop. Where it returns earlier or panics, `fell` is
    /// told and it is started again, later each time. Where no thread can be had, `fell` is told.
    pub(crate) fn spawn(
        &mut self,
        name: &str,
        work: impl Fn(&Stop) + Send + 'static,
        fell: impl Fn(&str) + Send + Sync + 'static,
    ) {
        let stop = self.stop.clone();
        let fell = Arc::new(fell);
        let tell = Arc::clone(&fell);
        let body = move || {
            let mut wait = RESTART_MIN;
            while !stop.stopped() {
                let began = Instant::now();
                let end = catch_unwind(AssertUnwindSafe(|| work(&stop)));
                if stop.stopped() {
                    return;
                }
                if end.is_err() {
                    tell("its reader fell over; it is started again");
                }
                if began.elapsed() > RESTART_MAX {
                    wait = RESTART_MIN;
                }
                if !stop.wait(wait) {
                    return;
                }
                wait = (wait * 2).min(RESTART_MAX);
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("sense-{name}"))
            .stack_size(STACK_BYTES)
            .spawn(body);
        match thread {
            Ok(handle) => self.running.push(handle),
            Err(error) => fell(&format!("no thread for it: {error}")),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.stop();
        let end = Instant::now() + STOP_WAIT;
        while self.running.iter().any(|thread| !thread.is_finished()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        for thread in self.running.drain(..).filter(JoinHandle::is_finished) {
            let _panicked = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_source_that_falls_over_is_started_again() {
        let stop = Stop::new().unwrap();
        let mut threads = Threads::new(stop);
        let (runs, ran) = mpsc::channel();
        let (falls, fell) = mpsc::channel();
        threads.spawn(
            "test",
            move |stop| {
                runs.send(()).unwrap();
                assert!(stop.stopped(), "planted");
            },
            move |why| falls.send(why.to_owned()).unwrap(),
        );
        ran.recv_timeout(Duration::from_secs(30)).unwrap();
        ran.recv_timeout(Duration::from_secs(30)).unwrap();
        let why = fell.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(why.contains("fell over"));
    }

    #[test]
    fn a_thread_that_hangs_does_not_hold_up_the_end() {
        let mut threads = Threads::new(Stop::new().unwrap());
        let (hold, held) = mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let (begin, began) = mpsc::channel();
        threads.spawn(
            "test",
            move |_| {
                begin.send(()).unwrap();
                let _end = held.lock().unwrap().recv();
            },
            |_| {},
        );
        began.recv_timeout(Duration::from_secs(30)).unwrap();
        let start = Instant::now();
        drop(threads);
        assert!(start.elapsed() >= STOP_WAIT, "it waited as long as it may");
        drop(hold);
    }

    #[test]
    fn waiting_ends_at_the_stop() {
        let stop = Stop::new().unwrap();
        let other = stop.clone();
        let waiter = std::thread::spawn(move || other.wait(Duration::from_secs(3600)));
        stop.stop();
        assert!(!waiter.join().unwrap());
    }
}
