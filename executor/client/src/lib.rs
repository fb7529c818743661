//! The developer's side: post a job from a wallet, follow it, decrypt the answer.

pub mod amounts;
pub mod deploy;
mod error;
mod follow;
mod outcome;
mod recover;
mod reply_key;
mod request;
mod story;
mod worker;

pub use error::{ClientError, Unfit};
pub use follow::{Follower, MAX_JOB_TRANSACTIONS, Progress, read_story};
pub use outcome::{Outcome, Settled, outcome};
pub use recover::{PostedJob, jobs_in, posted_jobs};
pub use reply_key::reply_key;
pub use request::{JobRequest, Posting, SealedJob};
pub use story::{JobEvent, JobStep, JobStory, event_of};
pub use worker::{MAX_WALK, Registration, WorkerView, find_registration, read_worker, registration_in};
