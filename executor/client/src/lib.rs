//! The developer's side: post a job from a wallet, follow it, decrypt the answer.

pub mod amounts;
mod attestor;
mod client;
pub mod deploy;
mod directory;
mod error;
mod follow;
mod history;
pub mod link;
mod model;
pub mod order;
mod outcome;
mod recover;
mod registry;
mod reply_key;
mod request;
mod session;
mod story;
mod trust;
mod worker;

pub use attestor::{AttestorView, read_attestor, read_platform};
pub use client::{Client, Finished, least_job_value, model_of, seal};
pub use directory::registered_workers;
pub use error::{ClientError, Unfit};
pub use follow::{ABSENT_LIMIT_S, Follower, MAX_JOB_TRANSACTIONS, Progress, read_story, read_story_from};
pub use history::{CollectedJob, collect_job};
pub use model::{ModelView, read_model};
pub use outcome::{Outcome, SessionEnd, Settled, outcome};
pub use recover::{PostedJob, jobs_in, posted_jobs};
pub use registry::{RegistryView, earlier_generation, read_registry};
pub use reply_key::reply_key;
pub use request::{JobRequest, JobTerms, Posting, SealedJob};
pub use session::{
    SessionRequest, close_session, least_session_value, read_job, session_key, top_up_session,
};
pub use story::{JobEvent, JobStory, refused_posting};
pub use trust::{QuoteJudge, TrustedWorker, WorkerEvidence, check_worker};
pub use worker::{
    MAX_WALK, Registration, WorkerView, attestation_in, find_registration, newest_registration, read_worker,
};
