//! Makes entries durable, many at a time where many wait.

use std::sync::{Arc, mpsc};
use std::thread;

use session::{Entry, SessionId, SessionJournal, Written, write_all};
use tokio::sync::oneshot;

use crate::store::StoreError;

/// Where entries become durable.
pub(crate) type Store = dyn SessionJournal<Error = StoreError> + Send + Sync;

/// The thread that writes. Entries are written in the order in which they were given to it.
#[derive(Clone)]
pub(crate) struct Writer(mpsc::Sender<Command>);

enum Command {
    Commit(Box<Entry>, oneshot::Sender<Option<Written>>),
    Forget(SessionId),
}

impl Writer {
    /// Starts the thread, which ends with the last handle to it.
    pub(crate) fn start(store: Arc<Store>) -> std::io::Result<Self> {
        let (sender, commands) = mpsc::channel();
        thread::Builder::new().name("sessions".into()).spawn(move || run(&*store, &commands))?;
        Ok(Self(sender))
    }

    /// The entry's turn is the order of these calls. What comes of it: `None` where the store has failed, now or before.
    pub(crate) fn commit(&self, entry: Entry) -> oneshot::Receiver<Option<Written>> {
        let (answer, answered) = oneshot::channel();
        // A thread that is gone drops the sender, which is a failure too.
        let _ = self.0.send(Command::Commit(Box::new(entry), answer));
        answered
    }

    pub(crate) fn forget(&self, session: SessionId) {
        let _ = self.0.send(Command::Forget(session));
    }
}

fn run(store: &Store, commands: &mpsc::Receiver<Command>) {
    let mut failed = false;
    while let Ok(first) = commands.recv() {
        let mut entries = Vec::new();
        let mut answers = Vec::new();
        let mut over = Vec::new();
        for command in std::iter::once(first).chain(commands.try_iter().take(BATCH)) {
            match command {
                Command::Commit(entry, answer) => {
                    entries.push(*entry);
                    answers.push(answer);
                }
                Command::Forget(session) => over.push(session),
            }
        }
        if !failed && !entries.is_empty() {
            match write_all(store, entries) {
                Ok(written) => {
                    for (answer, written) in answers.into_iter().zip(written) {
                        // Whoever asked may be gone; the record is there all the same.
                        let _ = answer.send(Some(written));
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "sessions are not served any more");
                    failed = true;
                }
            }
        }
        for session in over.into_iter().filter(|_| !failed) {
            if let Err(error) = store.forget(&session) {
                tracing::warn!(%error, "a session that is over is kept");
            }
        }
    }
}

const BATCH: usize = 255;
