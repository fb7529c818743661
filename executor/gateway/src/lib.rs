//! An OpenAI-compatible gateway on the user's own machine. The API's requests are read in [`openai`], handed to a
//! [`Market`], and answered by [`http`]. [`SessionMarket`] is the market as it is: workers found on chain ([`Ground`]),
//! connections to them ([`link`]), sessions paid from the user's wallet (`purse`), and what must not be forgotten
//! ([`store`]).

pub mod ground;
pub mod http;
pub mod link;
pub mod market;
mod metrics;
mod on_chain;
pub mod openai;
mod openapi;
mod prompt;
mod purse;
mod session_market;
pub mod store;
mod tour;

pub use ground::{Ground, Seller};
pub use market::Market;
pub use on_chain::{Directory, KnownWorker, OnChain};
pub use session_market::{
    Counter, MarketError, MarketParts, NoCounter, SessionMarket, SessionSummary, Spending,
    equivocation_report,
};
