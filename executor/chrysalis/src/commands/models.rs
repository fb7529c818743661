//! `chrysalis models`, `workers` and `price`: what is on sale, from chain data alone.

use std::sync::Arc;

use clap::Args;
use contracts::money::Amount;
use contracts::{Prices, Units};
use gateway::{Directory, Seller};
use serde_json::{Value, json};

use crate::exit::Exit;
use crate::network::{NetworkArguments, QuoteArguments};

/// Whose offers.
#[derive(Args)]
pub(crate) struct OffersArguments {
    #[command(flatten)]
    network: NetworkArguments,
    #[command(flatten)]
    quote: QuoteArguments,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Of what.
#[derive(Args)]
pub(crate) struct PriceArguments {
    /// A model's name or hexadecimal id.
    model: String,
    /// Prompt tokens, or seconds of audio.
    #[arg(long, default_value_t = 1000)]
    input: u32,
    /// Answer tokens.
    #[arg(long, default_value_t = 1000)]
    output: u32,
    #[command(flatten)]
    offers: OffersArguments,
}

/// `chrysalis models`.
pub(crate) async fn models(arguments: OffersArguments) -> anyhow::Result<Exit> {
    let sellers = sellers(&arguments).await?;
    let mut models: Vec<(&Seller, Vec<&Seller>)> = Vec::new();
    for seller in &sellers {
        match models.iter_mut().find(|(first, _)| first.model_id == seller.model_id) {
            Some((_, all)) => all.push(seller),
            None => models.push((seller, vec![seller])),
        }
    }
    let rows: Vec<Value> = models
        .iter()
        .map(|(first, all)| {
            let cheapest = all.iter().map(|seller| seller.prices).min_by_key(|prices| prices.cost(&THOUSAND));
            json!({
                "name": first.model_name, "model_id": first.model_id.to_string(), "licence": first.licence,
                "context_tokens": first.context_tokens, "publisher": first.publisher, "workers": all.len(),
                "price_nanoton_per_1k": cheapest,
            })
        })
        .collect();
    if arguments.json {
        println!("{}", json!({ "models": rows }));
        return Ok(Exit::Success);
    }
    for (first, all) in &models {
        let licence = if first.licence.is_empty() { "no licence stated" } else { &first.licence };
        println!("{}\n    {} · {} worker(s) · {}", first.model_id, named(first), all.len(), licence);
        if let Some(prices) =
            all.iter().map(|seller| seller.prices).min_by_key(|prices| prices.cost(&THOUSAND))
        {
            println!("    from {}", priced(&prices));
        }
    }
    if models.is_empty() {
        eprintln!("nobody sells a model within this policy just now");
    }
    Ok(Exit::Success)
}

/// `chrysalis workers`.
pub(crate) async fn workers(arguments: OffersArguments) -> anyhow::Result<Exit> {
    let sellers = sellers(&arguments).await?;
    if arguments.json {
        println!("{}", json!({ "offers": sellers.iter().map(row).collect::<Vec<_>>() }));
        return Ok(Exit::Success);
    }
    for seller in &sellers {
        println!(
            "{} at {}\n    {} · {} · stake {} nanoTON · attested until {}",
            seller.expected.worker,
            seller.endpoint,
            named(seller),
            priced(&seller.prices),
            seller.stake,
            seller.expected.attested_until_s,
        );
    }
    if sellers.is_empty() {
        eprintln!("no worker within this policy offers a model at an endpoint just now");
    }
    Ok(Exit::Success)
}

/// `chrysalis price`.
pub(crate) async fn price(arguments: PriceArguments) -> anyhow::Result<Exit> {
    let sellers = sellers(&arguments.offers).await?;
    let units = Units { input: arguments.input, cached_input: 0, output: arguments.output };
    let mut offers: Vec<&Seller> = sellers
        .iter()
        .filter(|seller| {
            seller.model_name == arguments.model || seller.model_id.to_string() == arguments.model
        })
        .collect();
    offers.sort_by_key(|seller| seller.prices.cost(&units));
    if offers.is_empty() {
        anyhow::bail!(
            "no worker within this policy sells '{}'; `chrysalis models` lists what is on sale",
            arguments.model
        );
    }
    if arguments.offers.json {
        let rows: Vec<Value> = offers
            .iter()
            .map(|seller| {
                let mut row = row(seller);
                row["cost_nanoton"] = json!(Amount::try_from(seller.prices.cost(&units)).ok());
                row
            })
            .collect();
        println!("{}", json!({ "input": arguments.input, "output": arguments.output, "offers": rows }));
        return Ok(Exit::Success);
    }
    for seller in offers {
        println!("{} nanoTON from {}", seller.prices.cost(&units).get(), seller.expected.worker);
    }
    Ok(Exit::Success)
}

async fn sellers(arguments: &OffersArguments) -> anyhow::Result<Vec<Seller>> {
    let at = arguments.network.open()?;
    let judge = Arc::new(arguments.quote.judge(&at)?);
    let directory =
        Directory::new(at.chain.clone(), at.network.clone(), at.file.registry_code, judge, Vec::new());
    Ok(directory.sellers().await?)
}

fn row(seller: &Seller) -> Value {
    json!({
        "worker": seller.expected.worker.to_string(), "endpoint": seller.endpoint,
        "model": seller.model_name, "model_id": seller.model_id.to_string(),
        "price_nanoton_per_1k": seller.prices, "min_deposit_nanoton": seller.min_deposit,
        "stake_nanoton": seller.stake, "attested_until_s": seller.expected.attested_until_s,
    })
}

fn named(seller: &Seller) -> &str {
    if seller.model_name.is_empty() { "a model without a name" } else { &seller.model_name }
}

fn priced(prices: &Prices) -> String {
    format!(
        "{} in, {} cached, {} out, nanoTON per 1 000",
        prices.input.get(),
        prices.cached_input.get(),
        prices.output.get()
    )
}

const THOUSAND: Units = Units { input: 1000, cached_input: 0, output: 1000 };
