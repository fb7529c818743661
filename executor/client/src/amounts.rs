//! What our messages bring for gas, forwarding and rent, above the amounts they are about.
//!
//! What is not needed comes back or stays in the party's own contract: these are upper bounds, not prices.

use contracts::Nanoton;

/// `post_job`, above the least that the contracts' own getter names. It comes back with the job's end.
pub const JOB_MARGIN: Nanoton = Nanoton::new(10_000_000);
/// The most a job's fees may come to; a server that names more is not believed.
pub const JOB_FEES_LIMIT: Nanoton = Nanoton::new(2_000_000_000);
/// `cancel_job`, `expire_job`, `sweep_job`.
pub const JOB_ACTION: Nanoton = Nanoton::new(50_000_000);
/// The Librarian's deployment, above its libraries' rent.
pub const LIBRARIAN_DEPLOY: Nanoton = Nanoton::new(500_000_000);
/// The Attestor's rent, for years.
pub const ATTESTOR_RENT: Nanoton = Nanoton::new(1_000_000_000);
/// The Registry's rent, for years.
pub const REGISTRY_RENT: Nanoton = Nanoton::new(500_000_000);
/// `register_model` with the model's deployment and rent.
pub const MODEL_REGISTER: Nanoton = Nanoton::new(200_000_000);
/// `top_up_stake` with the worker's deployment and rent.
pub const WORKER_DEPLOY: Nanoton = Nanoton::new(200_000_000);
/// `verify_quote` for a registration: every step to the Worker's storing, and the Platform's rent.
pub const REGISTRATION: Nanoton = Nanoton::new(100_000_000);
/// Collateral for the Attestor: the most gas that a transaction may use, and the rent of what it leaves.
pub const POSTING: Nanoton = Nanoton::new(450_000_000);
/// `offer_model`, which asks the Model.
pub const OFFER: Nanoton = Nanoton::new(100_000_000);
/// Anything an owner or publisher orders that sends one message on.
pub const ORDER: Nanoton = Nanoton::new(100_000_000);
