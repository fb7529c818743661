//! An answer as it is made: the engine's end and the caller's.

use std::fmt;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::error::EngineError;

/// The two ends of an answer. `cancel` is called, perhaps more than once, where the caller wants no more of it; it must
/// not block.
///
/// What waits between the ends is bounded by the answer itself: an engine never waits for a caller that reads slowly.
pub fn answer_channel(cancel: impl Fn() + Send + Sync + 'static) -> (AnswerSink, AnswerStream) {
    let (sender, receiver) = unbounded_channel();
    (AnswerSink(sender), AnswerStream { receiver, ended: false, outcome: None, cancel: Box::new(cancel) })
}

/// The engine's end. Dropped without [`AnswerSink::end`], the answer ends with [`EngineError::Failed`].
pub struct AnswerSink(UnboundedSender<Event>);

/// The caller's end. Dropped before the answer's end, it cancels the request.
pub struct AnswerStream {
    receiver: UnboundedReceiver<Event>,
    ended: bool,
    outcome: Option<Result<Generated, EngineError>>,
    cancel: Box<dyn Fn() + Send + Sync>,
}

/// A piece of an answer. Its `Debug` shows no text; wiped on drop.
#[derive(Clone, PartialEq, Zeroize, ZeroizeOnDrop)]
pub struct Piece {
    /// The token; absent with text that had waited when the answer ended.
    pub id: Option<u32>,
    /// The text that became certain; may be empty. All pieces together are the answer's text.
    pub text: String,
    /// Where it was asked for.
    pub logprobs: Option<TokenLogprobs>,
}

/// How likely a token was to the model, before penalties and temperature. Its `Debug` shows no token.
#[derive(Clone, PartialEq, Zeroize, ZeroizeOnDrop)]
pub struct TokenLogprobs {
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The most likely tokens and theirs, the most likely first.
    pub top: Vec<(u32, f32)>,
}

/// A whole answer. Its `Debug` shows no text; wiped on drop.
#[derive(Clone, PartialEq, Zeroize, ZeroizeOnDrop)]
pub struct Generated {
    /// Its text.
    pub text: String,
    /// Its tokens, without the one that ended it.
    pub output_ids: Vec<u32>,
    /// One for each token, where asked for, else none.
    pub logprobs: Vec<TokenLogprobs>,
    /// Why it ended.
    #[zeroize(skip)]
    pub finish_reason: FinishReason,
    /// What it took.
    #[zeroize(skip)]
    pub usage: Usage,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop string.
    Stop,
    /// The limit of the request or of the context.
    Length,
    /// The caller broke off; the answer is what was made until then.
    Cancelled,
}

/// What an answer took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt, all of them.
    pub prompt_tokens: u32,
    /// Those of them that had been computed before, for the same client.
    pub cached_prompt_tokens: u32,
    /// Tokens of the answer.
    pub output_tokens: u32,
    /// Time in the queue.
    pub waited_ms: u64,
    /// Time for the prompt.
    pub prefill_ms: u64,
    /// Time for the answer.
    pub decode_ms: u64,
}

impl AnswerSink {
    /// Hands over a piece. `false` where nobody reads any more.
    pub fn piece(&self, piece: Piece) -> bool {
        self.0.send(Event::Piece(piece)).is_ok()
    }

    /// Ends the answer.
    pub fn end(self, outcome: Result<Generated, EngineError>) {
        // A caller that is gone wants to know nothing.
        let _ = self.0.send(Event::End(Box::new(outcome)));
    }
}

impl AnswerStream {
    /// The next piece; `None` when there are no more.
    pub async fn next(&mut self) -> Option<Piece> {
        if self.ended {
            return None;
        }
        let event = self.receiver.recv().await;
        self.take(event)
    }

    /// As [`AnswerStream::next`], for threads that may block.
    ///
    /// # Panics
    /// In async code.
    pub fn next_blocking(&mut self) -> Option<Piece> {
        if self.ended {
            return None;
        }
        let event = self.receiver.blocking_recv();
        self.take(event)
    }

    /// Ends the answer where it is; what was made of it is still there, with [`FinishReason::Cancelled`].
    pub fn cancel(&self) {
        if !self.ended {
            (self.cancel)();
        }
    }

    /// The whole answer, with the pieces that were not read.
    ///
    /// # Errors
    /// [`EngineError::Deadline`], [`EngineError::Failed`].
    pub async fn finish(mut self) -> Result<Generated, EngineError> {
        while self.next().await.is_some() {}
        self.outcome.take().unwrap_or(Err(EngineError::Failed))
    }

    /// As [`AnswerStream::finish`], for threads that may block.
    ///
    /// # Errors
    /// [`EngineError::Deadline`], [`EngineError::Failed`].
    ///
    /// # Panics
    /// In async code.
    pub fn finish_blocking(mut self) -> Result<Generated, EngineError> {
        while self.next_blocking().is_some() {}
        self.outcome.take().unwrap_or(Err(EngineError::Failed))
    }

    fn take(&mut self, event: Option<Event>) -> Option<Piece> {
        match event {
            Some(Event::Piece(piece)) => return Some(piece),
            Some(Event::End(outcome)) => self.outcome = Some(*outcome),
            None => self.outcome = Some(Err(EngineError::Failed)),
        }
        self.ended = true;
        None
    }
}

impl Drop for AnswerStream {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl fmt::Debug for AnswerSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerSink").finish_non_exhaustive()
    }
}

impl fmt::Debug for AnswerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerStream").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece").finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenLogprobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenLogprobs").finish_non_exhaustive()
    }
}

impl fmt::Debug for Generated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generated")
            .field("finish_reason", &self.finish_reason)
            .field("usage", &self.usage)
            .finish_non_exhaustive()
    }
}

enum Event {
    Piece(Piece),
    End(Box<Result<Generated, EngineError>>),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn channel() -> (AnswerSink, AnswerStream, Arc<AtomicUsize>) {
        let cancelled = Arc::new(AtomicUsize::new(0));
        let count = cancelled.clone();
        let (sink, stream) = answer_channel(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        (sink, stream, cancelled)
    }

    fn piece(id: u32) -> Piece {
        Piece { id: Some(id), text: id.to_string(), logprobs: None }
    }

    fn whole() -> Generated {
        Generated {
            text: "12".into(),
            output_ids: vec![1, 2],
            logprobs: Vec::new(),
            finish_reason: FinishReason::Stop,
            usage: Usage::default(),
        }
    }

    #[tokio::test]
    async fn pieces_come_in_order_and_then_the_end() {
        let (sink, mut stream, cancelled) = channel();
        let engine = std::thread::spawn(move || {
            assert!(sink.piece(piece(1)) && sink.piece(piece(2)));
            sink.end(Ok(whole()));
        });
        assert_eq!(stream.next().await, Some(piece(1)));
        assert_eq!(stream.next().await, Some(piece(2)));
        assert_eq!(stream.next().await, None);
        assert_eq!(stream.next().await, None);
        stream.cancel();
        assert_eq!(stream.finish().await, Ok(whole()));
        assert_eq!(cancelled.load(Ordering::Relaxed), 0, "an answer that has ended is not cancelled");
        engine.join().unwrap();
    }

    #[test]
    fn a_thread_can_wait_too() {
        let (sink, mut stream, _) = channel();
        sink.piece(piece(1));
        assert_eq!(stream.next_blocking(), Some(piece(1)));
        sink.piece(piece(2));
        sink.end(Ok(whole()));
        assert_eq!(stream.finish_blocking(), Ok(whole()));
    }

    #[test]
    fn an_engine_that_vanishes_has_failed_and_a_caller_that_vanishes_cancels() {
        let (sink, stream, cancelled) = channel();
        drop(sink);
        assert_eq!(stream.finish_blocking(), Err(EngineError::Failed));
        assert_eq!(cancelled.load(Ordering::Relaxed), 0);
        let (sink, stream, cancelled) = channel();
        drop(stream);
        assert_eq!(cancelled.load(Ordering::Relaxed), 1);
        assert!(!sink.piece(piece(1)));
    }
}
