//! The `chrysalis` command: data on stdout, logs on stderr, `--json` everywhere a program might read.

mod commands;
mod engine;
mod evidence;
mod exit;
mod market;
mod memory;
mod network;
mod ready;
mod rehearsal;
mod report;
mod stop;
mod tasks;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(version, about = "A confidential AI inference market that settles on TON")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one job on an embedded local chain, from a wallet transaction to a paid receipt, and check all of it.
    Demo(commands::demo::DemoArguments),
    /// Run a local chain with a liteserver and the toncenter v2 API. A simulation: no validator signatures.
    Localnet(commands::localnet::LocalnetArguments),
    /// Sell inference: watch the chain, claim jobs, answer them.
    Worker(commands::worker::WorkerArguments),
    /// Re-check a job from chain data and the worker's quote.
    Verify(commands::verify::VerifyArguments),
    /// Post a job, follow it, open its answer, take it back.
    #[command(subcommand)]
    Job(commands::job::JobCommand),
    /// Show a quote, post its collateral, register a worker's keys, report a revoked platform.
    #[command(subcommand)]
    Attest(commands::attest::AttestCommand),
    /// A worker's stake and earnings: add, unbond, withdraw, pause; by a wallet or a link.
    #[command(subcommand)]
    Stake(commands::stake::StakeCommand),
    /// Show a model's id, or register it.
    #[command(subcommand)]
    Model(commands::model::ModelCommand),
    /// Serve the OpenAI API on this machine: each request is private to an attested worker, metered and checked.
    Gateway(commands::gateway::GatewayArguments),
    /// The gateway's sessions: open, list, close.
    #[command(subcommand)]
    Session(commands::session::SessionCommand),
    /// Models on sale, with their prices.
    Models(commands::models::OffersArguments),
    /// Workers that satisfy the policy, with what they offer.
    Workers(commands::models::OffersArguments),
    /// What a request of this size costs, worker by worker.
    Price(commands::models::PriceArguments),
    /// Make or import a wallet, show what it holds.
    #[command(subcommand)]
    Wallet(commands::wallet::WalletCommand),
}

fn main() -> ExitCode {
    // Before any thread: it gives up memory that threads would reserve.
    if std::env::args_os().nth(1).is_some_and(|first| first == RENDER_TEMPLATE) {
        return inference::render_in_child();
    }
    if let Some(this) = this_program() {
        inference::isolate_templates(this, vec![RENDER_TEMPLATE.into()]);
    }
    run()
}

const RENDER_TEMPLATE: &str = "render-template";

/// This program as it was started, whatever its file has become since.
fn this_program() -> Option<std::path::PathBuf> {
    let running = std::path::PathBuf::from("/proc/self/exe");
    if running.exists() { Some(running) } else { std::env::current_exe().ok() }
}

#[tokio::main]
async fn run() -> ExitCode {
    ::worker::panics::hide_messages();
    let filter = EnvFilter::try_from_env("CHRYSALIS_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .init();
    let result = match Arguments::parse().command {
        Command::Demo(arguments) => commands::demo::run(arguments).await,
        Command::Localnet(arguments) => commands::localnet::run(arguments).await,
        Command::Worker(arguments) => commands::worker::run(arguments).await,
        Command::Verify(arguments) => commands::verify::run(arguments).await,
        Command::Job(command) => commands::job::run(command).await,
        Command::Attest(command) => commands::attest::run(command).await,
        Command::Stake(command) => commands::stake::run(command).await,
        Command::Model(command) => commands::model::run(command).await,
        Command::Gateway(arguments) => commands::gateway::run(arguments).await,
        Command::Session(command) => commands::session::run(command).await,
        Command::Models(arguments) => commands::models::models(arguments).await,
        Command::Workers(arguments) => commands::models::workers(arguments).await,
        Command::Price(arguments) => commands::models::price(arguments).await,
        Command::Wallet(command) => commands::wallet::run(command).await,
    };
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
