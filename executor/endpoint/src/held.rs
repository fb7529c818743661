//! An answer in memory: written once, read from any frame on, by any number of connections. Wiped when it goes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use session::message::Frame;
use session::{Reason, Refused};
use tokio::sync::Notify;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// The frames of one request.
pub(crate) struct Answer {
    state: Mutex<State>,
    /// A frame has come, or the end.
    changed: Notify,
    cancelled: AtomicBool,
    cancel: Notify,
}

struct State {
    frames: Vec<Bytes>,
    bytes: usize,
    first: Option<First>,
    ended_at: Option<Instant>,
    readers: usize,
    /// Since when nobody reads.
    alone_since: Instant,
}

/// How an answer began.
#[derive(Debug, Clone, Copy)]
pub(crate) enum First {
    /// Frames follow.
    Accepted,
    /// That is all.
    Refused(Refused),
}

impl Answer {
    pub(crate) fn new() -> Self {
        let state = State {
            frames: Vec::new(),
            bytes: 0,
            first: None,
            ended_at: None,
            readers: 0,
            alone_since: Instant::now(),
        };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
            cancelled: AtomicBool::new(false),
            cancel: Notify::new(),
        }
    }

    /// Adds a frame; after the last, nothing. Returns the bytes held since.
    pub(crate) fn push(&self, frame: &Frame) -> usize {
        let line = line_of(frame);
        let mut state = self.lock();
        if state.ended_at.is_some() {
            return state.bytes;
        }
        state.first.get_or_insert(match frame {
            Frame::Refused(refused) => First::Refused(*refused),
            _ => First::Accepted,
        });
        state.bytes = state.bytes.saturating_add(line.len() + FRAME_OVERHEAD_BYTES);
        state.frames.push(line);
        if frame.is_last() {
            state.ended_at = Some(Instant::now());
        }
        let bytes = state.bytes;
        drop(state);
        self.changed.notify_waiters();
        bytes
    }

    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    pub(crate) fn ended_at(&self) -> Option<Instant> {
        self.lock().ended_at
    }

    /// Since when nobody reads it, while it is under way.
    pub(crate) fn alone_since(&self) -> Option<Instant> {
        let state = self.lock();
        (state.readers == 0 && state.ended_at.is_none()).then_some(state.alone_since)
    }

    /// Asks whoever makes it to stop.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.cancel.notify_waiters();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Returns when it has been cancelled.
    pub(crate) async fn cancelled(&self) {
        loop {
            let woken = self.cancel.notified();
            if self.is_cancelled() {
                return;
            }
            woken.await;
        }
    }

    /// How it began, once it has.
    pub(crate) async fn first(&self) -> First {
        loop {
            let woken = self.changed.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if let Some(first) = self.lock().first {
                return first;
            }
            woken.await;
        }
    }

    /// Reads from the frame `at` on.
    pub(crate) fn read(self: &Arc<Self>, at: usize) -> Reader {
        self.lock().readers += 1;
        Reader { answer: Arc::clone(self), at }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who reads an answer.
pub(crate) struct Reader {
    answer: Arc<Answer>,
    at: usize,
}

impl Reader {
    /// The next frames, all that are there; `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<Vec<Bytes>> {
        loop {
            let woken = self.answer.changed.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            {
                let state = self.answer.lock();
                if let Some(frames) = state.frames.get(self.at..).filter(|frames| !frames.is_empty()) {
                    let frames = frames.to_vec();
                    self.at += frames.len();
                    return Some(frames);
                }
                if state.ended_at.is_some() {
                    return None;
                }
            }
            woken.await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.answer.lock();
        state.readers -= 1;
        state.alone_since = Instant::now();
    }
}

/// A frame as a line. The bytes are wiped when the last that holds them lets go.
pub(crate) fn line_of(frame: &Frame) -> Bytes {
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_BYTES));
    let written = serde_json::to_writer(&mut *line, frame);
    if written.is_err() {
        // Numbers that are none: the vector of a broken model.
        line.clear();
        let refused = Frame::Refused(Reason::EngineFailed.into());
        if serde_json::to_writer(&mut *line, &refused).is_err() {
            line.clear();
        }
    }
    line.push(b'\n');
    Bytes::from_owner(line)
}

/// Of the list and the allocation behind a frame.
const FRAME_OVERHEAD_BYTES: usize = 64;
/// Holds most frames.
const LINE_BYTES: usize = 96;
