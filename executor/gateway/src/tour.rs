//! A request's way from worker to worker, and what is checked of an answer on it.

use std::sync::Arc;
use std::time::Instant;

use contracts::HashBytes;
use session::message::{Done as SessionDone, Frame, StartRequest};
use session::work::{Work, WorkKind};
use session::{Counted, Reason, UnitBound};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::ground::Seller;
use crate::link::{Frames, LinkError};
use crate::market::{AnswerEvent, Done, Paid, TextPiece, TokenLogprob, Usage};
use crate::openai::ApiError;
use crate::purse::{Flight, Purse};
use crate::session_market::{Ended, Inner, matching, nobody};

/// A request, and the workers that have not been asked yet.
pub(crate) struct Tour {
    market: Arc<Inner>,
    work: Work,
    bound: UnitBound,
    counted_input: Option<u32>,
    candidates: std::vec::IntoIter<Seller>,
}

/// A request under way at one worker. Dropped, it is taken back.
pub(crate) struct Stop {
    pub(crate) market: Arc<Inner>,
    pub(crate) purse: Arc<Purse>,
    pub(crate) request: StartRequest,
    pub(crate) flight: Flight,
    pub(crate) frames: Frames,
    pub(crate) counted_input: Option<u32>,
    pub(crate) began: Instant,
    output: Zeroizing<Vec<u32>>,
    is_accepted: bool,
    /// How often the same request was posted again.
    posted_again: u32,
    resumes: u32,
    /// How much of what was told this answer has repeated.
    passed: Told,
    vectors: usize,
}

/// What whoever asked has read already.
#[derive(Default)]
pub(crate) struct Told {
    text: Zeroizing<String>,
    logprobs: usize,
}

impl Tour {
    pub(crate) async fn begin(market: Arc<Inner>, model: &str, work: Work) -> Result<Self, ApiError> {
        let sellers = market.sellers().await?;
        let matching = matching(&sellers, model)?;
        let model_id = matching[0].model_id;
        let (counter, asked) = (market.parts.counter.clone(), work.clone());
        let counted_input = tokio::task::spawn_blocking(move || counter.count(&model_id, &asked))
            .await
            .map_err(|_| ApiError::upstream("gateway: it is stopping"))?;
        let bound = bound_of(&work, counted_input);
        let candidates = market.ranked(matching, &bound).into_iter();
        Ok(Self { market, work, bound, counted_input, candidates })
    }

    /// Has the next worker accept it. `before` is what was wrong with the last.
    pub(crate) async fn next_stop(&mut self, before: Option<ApiError>) -> Result<Stop, ApiError> {
        let mut last = before;
        for seller in self.candidates.by_ref() {
            match self.market.start_at(&seller, self.bound, &self.work, self.counted_input).await {
                Ok(stop) => return Ok(stop),
                Err(Ended::Elsewhere(error)) => last = Some(error),
                Err(Ended::Finally(error)) => return Err(error),
                Err(Ended::Well | Ended::Gone) => {}
            }
        }
        Err(last.unwrap_or_else(nobody))
    }
}

impl Stop {
    pub(crate) fn new(
        market: Arc<Inner>,
        purse: Arc<Purse>,
        request: StartRequest,
        flight: Flight,
        frames: Frames,
        counted_input: Option<u32>,
        began: Instant,
    ) -> Self {
        Self {
            market,
            purse,
            request,
            flight,
            frames,
            counted_input,
            began,
            output: Zeroizing::default(),
            is_accepted: false,
            posted_again: 0,
            resumes: 0,
            passed: Told::default(),
            vectors: 0,
        }
    }

    /// Passes on what comes until the end. `told` is what whoever asked has read already, from an earlier stop too.
    pub(crate) async fn pump(&mut self, to: &mpsc::Sender<AnswerEvent>, told: &mut Told) -> Ended {
        loop {
            let frame = match self.frame().await {
                Ok(frame) => frame,
                Err(ended) => return ended,
            };
            match frame {
                Frame::Piece(piece) => {
                    let Some((text, logprobs)) = self.passed.news(told, &piece) else {
                        return different();
                    };
                    if text.is_empty() && logprobs.is_empty() {
                        continue;
                    }
                    told.text.push_str(&text);
                    told.logprobs += logprobs.len();
                    if to.send(AnswerEvent::Piece(TextPiece { text, logprobs })).await.is_err() {
                        return Ended::Gone;
                    }
                }
                Frame::Done(done) => {
                    let done = match self.done(&done).await {
                        Ok(done) => done,
                        Err(ended) => return ended,
                    };
                    if self.passed.text.len() < told.text.len() {
                        return different();
                    }
                    // Whether it is read or not: it is paid.
                    let _ = to.send(AnswerEvent::Done(done)).await;
                    return Ended::Well;
                }
                Frame::Accepted(_) | Frame::Vector(_) | Frame::Segment(_) | Frame::Refused(_) => {}
            }
        }
    }

    /// All frames, where an answer is no use before it is whole.
    pub(crate) async fn collect(&mut self) -> Result<(Vec<Frame>, Done), Ended> {
        let mut frames = Vec::new();
        loop {
            match self.frame().await? {
                // Posted again, it comes from the start.
                Frame::Accepted(_) => frames.clear(),
                Frame::Done(done) => return Ok((frames, self.done(&done).await?)),
                frame => frames.push(frame),
            }
        }
    }

    /// The next frame that belongs to this work, over a new connection where the old one broke.
    async fn frame(&mut self) -> Result<Frame, Ended> {
        loop {
            let most = self.market.parts.limits.answer_timeout;
            let next = tokio::time::timeout(most.saturating_sub(self.began.elapsed()), self.frames.next());
            let error = match next.await {
                Err(_) => return Err(self.market.failed(&self.purse, &LinkError::Silent(most))),
                Ok(Ok(Some(frame))) => return self.take(frame),
                Ok(Ok(None)) => LinkError::BrokenOff,
                // What is not of this protocol will not be the next time.
                Ok(Err(error @ LinkError::Malformed(_))) => {
                    return Err(self.market.failed(&self.purse, &error));
                }
                Ok(Err(error)) => error,
            };
            self.reconnect(error).await?;
        }
    }

    fn take(&mut self, frame: Frame) -> Result<Frame, Ended> {
        let kind = self.request.work.kind();
        let is_expected = match &frame {
            Frame::Accepted(accepted) => {
                !std::mem::replace(&mut self.is_accepted, true) && accepted.request == self.flight.id()
            }
            Frame::Refused(_) => true,
            _ if !self.is_accepted => false,
            Frame::Piece(_) => matches!(kind, WorkKind::Chat | WorkKind::Completion),
            Frame::Vector(_) => kind == WorkKind::Embeddings,
            Frame::Segment(_) => kind == WorkKind::Transcription,
            Frame::Done(_) => true,
        };
        if !is_expected {
            return Err(self.market.failed(&self.purse, &LinkError::Malformed("a frame out of place")));
        }
        match &frame {
            Frame::Refused(refused) => {
                self.flight.refused(refused);
                return Err(self.market.refusal(&self.purse, &(*refused).into()));
            }
            Frame::Piece(piece) => {
                if self.output.is_empty() && !piece.tokens.is_empty() {
                    self.market.first_piece(&self.purse.seller().expected.worker, self.began.elapsed());
                }
                self.output.extend_from_slice(&piece.tokens);
                if self.output.len() as u64 > u64::from(self.request.bound.output) {
                    return Err(self.market.dishonest(&self.purse, "it sends more than was asked for"));
                }
            }
            Frame::Segment(part) => self.output.extend_from_slice(&part.tokens),
            Frame::Vector(vector) => {
                self.vectors += 1;
                let asked = match &self.request.work {
                    Work::Embeddings(work) => work.texts.len(),
                    _ => 0,
                };
                if self.vectors > asked {
                    return Err(self.market.dishonest(&self.purse, "it sends more than was asked for"));
                }
                self.output.extend(vector.iter().map(|number| number.to_bits()));
            }
            Frame::Accepted(_) | Frame::Done(_) => {}
        }
        Ok(frame)
    }

    /// Takes the answer up where it broke off. Where the worker does not hold it any more, the same request is posted once
    /// more, which is charged once: then its frames begin anew.
    async fn reconnect(&mut self, why: LinkError) -> Result<(), Ended> {
        let session = self.request.session.clone();
        loop {
            self.resumes += 1;
            if self.resumes > RESUMES {
                return Err(self.market.failed(&self.purse, &why));
            }
            tokio::time::sleep(RESUME_PAUSE * self.resumes).await;
            let (link, count) = (self.purse.link(), self.frames.count());
            match link.resume(&session, self.flight.id(), count).await {
                Ok(frames) => {
                    self.frames = frames.after(count);
                    return Ok(());
                }
                Err(LinkError::Refused(refused))
                    if matches!(refused.reason, Reason::UnknownRequest | Reason::AnswerGone) => {}
                Err(LinkError::Refused(refused)) if refused.reason == Reason::Draining => {
                    return Err(self.market.failed(&self.purse, &why));
                }
                Err(_) => continue,
            }
            match link.start(&self.request).await {
                Ok(frames) => {
                    self.frames = frames;
                    self.posted_again += 1;
                    self.output.clear();
                    self.passed = Told::default();
                    self.vectors = 0;
                    self.is_accepted = false;
                    return Ok(());
                }
                Err(error @ LinkError::Refused(refused)) => match refused.reason {
                    Reason::UnknownSession | Reason::Busy => {}
                    Reason::AnswerGone => return Err(self.market.failed(&self.purse, &error)),
                    _ => {
                        self.flight.refused(&refused);
                        return Err(self.market.refusal(&self.purse, &error));
                    }
                },
                Err(_) => {}
            }
        }
    }

    /// Checks the end: what was charged against what came, and the commitment to both.
    async fn done(&mut self, done: &SessionDone) -> Result<Done, Ended> {
        let seller = self.purse.seller();
        let (used, is_text) = (done.used, matches!(self.request.work, Work::Chat(_) | Work::Completion(_)));
        let output = if is_text { self.output.len() } else { 0 };
        let output = u32::try_from(output).unwrap_or(u32::MAX);
        let input = used.input.saturating_add(used.cached_input);
        let shown = u32::try_from(done.input_tokens.len()).unwrap_or(u32::MAX);
        let fault = |why| Err(self.market.dishonest(&self.purse, why));
        if done.request != self.flight.id() {
            return fault("it answers a request that was not asked");
        }
        if done.again && self.posted_again == 0 {
            return fault("it says of a new request that it was charged before");
        }
        // What is served once more is under the receipt of another answer.
        let params = match &self.request.work {
            _ if done.again => None,
            Work::Chat(_) | Work::Completion(_) => Some(self.request.work.params_digest(done.limit, &[])),
            Work::Transcription(_) => Some(self.request.work.params_digest(0, &[])),
            // How the tokens are shared among several texts is not told.
            Work::Embeddings(work) => {
                (work.texts.len() == 1).then(|| self.request.work.params_digest(0, &[shown]))
            }
        };
        let names_it = |params: HashBytes| {
            let committed = done.transcript(&seller.model_id, &params, &self.output);
            committed.is_some_and(|hash| hash.0 == done.receipt.content.transcript)
        };
        if (is_text && shown != input) || !params.is_none_or(names_it) {
            return fault("its receipt names another prompt or answer");
        }
        let counted = Counted { input: self.counted_input, output };
        if let Err(fault) = self.flight.done(done, &counted).await {
            return Err(self.market.faulty(&self.purse, fault));
        }
        // Where a report has settled it before, the ledger has held it to its bound alone.
        if used.output > output || counted.input.is_some_and(|counted| input > counted) {
            return Err(self.market.faulty(&self.purse, session::Fault::Overcharge));
        }
        Ok(Done {
            finish: done.finish_reason,
            usage: Usage {
                prompt_tokens: input.into(),
                cached_tokens: used.cached_input.into(),
                completion_tokens: used.output.into(),
            },
            paid: Paid {
                worker: seller.expected.worker.to_string(),
                session: self.purse.session().job.to_string(),
                amount: self.purse.ledger().facts().prices.cost(&used),
            },
        })
    }
}

impl Told {
    /// What of a piece has not been told; `self` is what of this answer has come before. `None` where it is not what was
    /// told.
    fn news(&mut self, told: &Self, piece: &session::message::Piece) -> Option<(String, Vec<TokenLogprob>)> {
        let from = self.text.len();
        let again = piece.text.len().min(told.text.len().saturating_sub(from));
        let is_same =
            again == 0 || piece.text.as_bytes()[..again] == told.text.as_bytes()[from..from + again];
        let new = piece.text.get(again..).filter(|_| is_same)?.to_owned();
        let known = told.logprobs.saturating_sub(self.logprobs);
        self.text.push_str(&piece.text);
        self.logprobs += piece.logprobs.len();
        Some((new, piece.logprobs.iter().skip(known).map(logprob).collect()))
    }
}

fn different() -> Ended {
    Ended::Finally(ApiError::upstream("worker: it broke off, and another answer followed; ask again"))
}

/// What a request may be charged at most. Where the input is not counted, a token has at least one byte, and a template
/// adds little to each message.
fn bound_of(work: &Work, counted: Option<u32>) -> UnitBound {
    let text = |text: &str| text.len() + 8;
    let (input, output) = match work {
        Work::Chat(chat) => {
            let messages: usize = chat
                .messages
                .iter()
                .map(|message| {
                    let calls = message.tool_calls.iter();
                    text(&message.role)
                        + text(&message.content)
                        + message.name.as_deref().map_or(0, text)
                        + calls.map(|call| text(&call.name) + text(&call.arguments) + 64).sum::<usize>()
                })
                .sum();
            let tools: usize = chat.tools.iter().map(|tool| tool.0.to_string().len() * 2).sum();
            (messages + tools + TEMPLATE_TOKENS, chat.params.max_output_tokens)
        }
        Work::Completion(completion) => (text(&completion.prompt), completion.params.max_output_tokens),
        Work::Embeddings(embeddings) => (embeddings.texts.iter().map(|one| text(one)).sum(), 0),
        // A second of the least that any recording has: 8 kHz, 8 bits.
        Work::Transcription(recording) => (recording.audio.len() / 8_000 + 1, 0),
    };
    UnitBound { input: counted.unwrap_or_else(|| u32::try_from(input).unwrap_or(u32::MAX)), output }
}

fn logprob(logprob: &session::message::TokenLogprobs) -> TokenLogprob {
    let mut bytes = logprob.bytes.iter().map(|text| hex::decode(text).unwrap_or_default());
    let token = bytes.next().unwrap_or_default();
    let top = logprob.top.iter().map(|(_, value)| (bytes.next().unwrap_or_default(), *value)).collect();
    TokenLogprob { token, logprob: logprob.logprob, top }
}

const TEMPLATE_TOKENS: usize = 256;
/// Of one request at one worker.
const RESUMES: u32 = 6;
const RESUME_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
