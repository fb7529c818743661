//! `chrysalis stake`: what a worker's owner does with money, by a wallet's words or by a link.

use chain::Transfer;
use clap::{Args, Subcommand};
use client::deploy;
use contracts::artifacts::{Contract, code};
use contracts::{Nanoton, Network, StdAddr};
use serde_json::json;

use super::link::ByArguments;
use crate::exit::Exit;
use crate::network::NetworkArguments;

/// What to do with a worker's stake and earnings.
#[derive(Subcommand)]
pub(crate) enum StakeCommand {
    /// Add to the stake; the first time, deploy the worker's contract.
    Add(AmountArguments),
    /// Give the contract funds for bonds and gas.
    Fund(AmountArguments),
    /// Start to take stake out; it takes 28 days at least.
    Unbond(AmountArguments),
    /// Take stake whose unbonding is over.
    Withdraw(PlainArguments),
    /// Take earnings; without an amount, all but what a claim costs.
    Earnings(EarningsArguments),
    /// Take no new jobs.
    Pause(PlainArguments),
    /// Take jobs again.
    Resume(PlainArguments),
}

/// Where, by whom.
#[derive(Args)]
pub(crate) struct PlainArguments {
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    by: ByArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// How much.
#[derive(Args)]
pub(crate) struct AmountArguments {
    /// How much, nanoTON.
    #[arg(long, value_name = "NANOTON")]
    amount: Nanoton,
    #[command(flatten)]
    plain: PlainArguments,
}

/// How much, or all.
#[derive(Args)]
pub(crate) struct EarningsArguments {
    /// How much, nanoTON.
    #[arg(long, value_name = "NANOTON", default_value = "0")]
    amount: Nanoton,
    #[command(flatten)]
    plain: PlainArguments,
}

pub(crate) async fn run(command: StakeCommand) -> anyhow::Result<Exit> {
    type Order = Box<dyn Fn(&Network, &StdAddr) -> Result<Transfer, client::ClientError> + Send>;
    let (plain, order): (PlainArguments, Order) = match command {
        StakeCommand::Add(AmountArguments { amount, plain }) => (
            plain,
            Box::new(move |network, owner| {
                deploy::top_up_stake(network, &code(Contract::Worker), owner, amount)
            }),
        ),
        StakeCommand::Fund(AmountArguments { amount, plain }) => {
            (plain, Box::new(move |network, owner| deploy::fund_gas(network, owner, amount)))
        }
        StakeCommand::Unbond(AmountArguments { amount, plain }) => {
            (plain, Box::new(move |network, owner| deploy::request_unbond(network, owner, amount)))
        }
        StakeCommand::Withdraw(plain) => (plain, Box::new(deploy::withdraw_unbonded)),
        StakeCommand::Earnings(EarningsArguments { amount, plain }) => {
            (plain, Box::new(move |network, owner| deploy::withdraw_earnings(network, owner, amount)))
        }
        StakeCommand::Pause(plain) => {
            (plain, Box::new(|network, owner| deploy::pause_worker(network, owner, true)))
        }
        StakeCommand::Resume(plain) => {
            (plain, Box::new(|network, owner| deploy::pause_worker(network, owner, false)))
        }
    };
    let at = plain.network.open()?;
    let owner = plain.by.owner(&at)?;
    let transfer = order(&at.network, &owner)?;
    let worker = transfer.to.clone();
    if plain.by.carry_out(&at, transfer, plain.json).await? {
        if plain.json {
            println!("{:#}", json!({ "worker": worker.to_string() }));
        } else {
            println!("{worker}");
        }
    }
    Ok(Exit::Success)
}
