//! `chrysalis session`: the gateway's sessions, from its data folder and the chain.

use clap::{Args, Subcommand};
use contracts::money::Amount;
use gateway::store::Stage;
use serde_json::{Value, json};

use super::gateway::MarketArguments;
use crate::exit::Exit;

/// What to do with sessions.
#[derive(Subcommand)]
pub(crate) enum SessionCommand {
    /// Open a session with the best worker of a model, or show the one there is.
    Open(OpenArguments),
    /// List sessions: what they may cost, what they have cost, where they are. The gateway has to be stopped.
    List(ListArguments),
    /// Have every open session ended by its worker, or on chain where the worker does not answer.
    Close(ListArguments),
    /// Show the chain every kept proof that a worker signed two receipts of one sequence: its stake is cut.
    Prove(ListArguments),
}

/// Which sessions.
#[derive(Args)]
pub(crate) struct ListArguments {
    #[command(flatten)]
    market: MarketArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// For which model.
#[derive(Args)]
pub(crate) struct OpenArguments {
    /// A model's name or hexadecimal id, as `chrysalis models` lists it.
    model: String,
    #[command(flatten)]
    list: ListArguments,
}

pub(crate) async fn run(command: SessionCommand) -> anyhow::Result<Exit> {
    let list = match command {
        SessionCommand::Open(OpenArguments { model, list }) => {
            let open = list.market.open().await?;
            let session = open.market.open_session(&model).await?;
            return show(&open.market, list.json, Some(&session.job.to_string())).await;
        }
        SessionCommand::Close(list) => {
            let open = list.market.open().await?;
            open.market.close().await;
            return show(&open.market, list.json, None).await;
        }
        SessionCommand::Prove(list) => {
            let open = list.market.open().await?;
            let shown: Vec<String> = open.market.prove().await?.iter().map(ToString::to_string).collect();
            match list.json {
                true => println!("{}", json!({ "shown": shown })),
                false if shown.is_empty() => println!("there is no proof that the chain has not seen"),
                false => shown.iter().for_each(|session| println!("{session}: shown")),
            }
            return Ok(Exit::Success);
        }
        SessionCommand::List(list) => list,
    };
    let open = list.market.open().await?;
    show(&open.market, list.json, None).await
}

async fn show(market: &gateway::SessionMarket, as_json: bool, only: Option<&str>) -> anyhow::Result<Exit> {
    let sessions = market.sessions().await?;
    let rows: Vec<Value> = sessions
        .iter()
        .filter(|session| only.is_none_or(|only| session.stored.job.to_string() == only))
        .map(|session| {
            let stored = &session.stored;
            let (state, promised, charged) = match &stored.stage {
                Stage::Opening { .. } => ("opening", Amount::ZERO, Amount::ZERO),
                Stage::Open(record) => (
                    session.facts.as_ref().map_or("gone", |facts| facts.status.name()),
                    record.promised,
                    record.receipt.map_or(Amount::ZERO, |receipt| receipt.amount),
                ),
                Stage::Over { spent } => ("over", *spent, *spent),
            };
            json!({
                "session": stored.job.to_string(),
                "worker": stored.worker.to_string(),
                "model_id": stored.model_id.to_string(),
                "state": state,
                "sent_nanoton": stored.money.sent,
                "deposit_nanoton": session.facts.as_ref().map(|facts| facts.deposit),
                "promised_nanoton": promised,
                "charged_nanoton": charged,
            })
        })
        .collect();
    let committed = market.committed()?;
    if as_json {
        println!("{}", json!({ "sessions": rows, "committed_nanoton": committed }));
        return Ok(Exit::Success);
    }
    for row in &rows {
        println!(
            "{} {:8} charged {} of {} nanoTON, worker {}",
            row["session"].as_str().unwrap_or_default(),
            row["state"].as_str().unwrap_or_default(),
            row["charged_nanoton"].as_str().unwrap_or("0"),
            row["sent_nanoton"].as_str().unwrap_or("0"),
            row["worker"].as_str().unwrap_or_default(),
        );
    }
    println!("{committed} nanoTON are spent or may yet be");
    Ok(Exit::Success)
}
