//! How a command that ran to its end came out.

use std::process::ExitCode;

use verifier::Conclusion;

/// What the exit status says. An error is 1 as well; wrong usage is 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done, and everything that was checked held.
    Success,
    /// 1: something that was checked did not hold.
    Failed,
    /// 3: the job is not over yet; ask again later.
    Unfinished,
}

impl From<bool> for Exit {
    fn from(holds: bool) -> Self {
        if holds { Self::Success } else { Self::Failed }
    }
}

impl From<Conclusion> for Exit {
    fn from(conclusion: Conclusion) -> Self {
        match conclusion {
            Conclusion::Holds => Self::Success,
            Conclusion::Unfinished => Self::Unfinished,
            Conclusion::Fails => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Success => Self::SUCCESS,
            Exit::Failed => Self::from(1),
            Exit::Unfinished => Self::from(3),
        }
    }
}
