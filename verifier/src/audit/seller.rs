//! Whether the chain says of the one who serves what the job says.

use contracts::job::{JobState, Seller};
use contracts::model::{ModelStorage, RoyaltyQuoted};
use contracts::network::WORKCHAIN;
use contracts::wire::from_cell;

use contracts::{Cell, Network, StdAddr};

use super::JobHistory;
use super::life::Life;
use crate::check::{Party, Verdict, holds};
use crate::registration::Taken;

/// The Model's word on its part, and the Worker's on its price.
pub(super) fn check_seller(verdict: &mut Verdict, history: &JobHistory, life: &Life<'_>) {
    let Some(seller) = life.seller() else { return };
    let was_paid = !life.state().paid.is_zero();
    if was_paid || history.model.is_some() {
        verdict.add(
            "model_share",
            "publisher and treasury get what the Model and the network ask, at the Model's own account",
            Party::Client,
            model_share(&history.network, history.model.as_ref(), seller),
        );
    }
    if let Some(offer) = &history.offer {
        verdict.add(
            "offer",
            "the job pays the prices of an offer that the Worker had made, or more",
            Party::Client,
            offered(&history.network, offer, seller, life),
        );
    }
}

fn model_share(network: &Network, model: Option<&Cell>, seller: &Seller) -> Result<String, String> {
    let data = model.ok_or("the Model was not read")?;
    let storage: ModelStorage = from_cell(data).map_err(|_| "the Model's storage does not parse")?;
    let address = network.model_address(&storage.model_id).map_err(|error| error.to_string())?;
    if address != StdAddr::new(WORKCHAIN, seller.model) {
        return Err("the share goes to another account than the Model's".into());
    }
    let state = storage.state.ok_or("the Model was never registered")?;
    let due_bps = network.generation.share_bps(state.royalty_bps);
    holds(
        seller.share_bps == due_bps,
        format!("model {}, {due_bps} of 10 000", storage.model_id),
        format!("the job gives {} of 10 000, {due_bps} are due", seller.share_bps),
    )
}

fn offered(network: &Network, cell: &Cell, seller: &Seller, life: &Life<'_>) -> Result<String, String> {
    let quoted = Taken::read("Worker", &StdAddr::new(WORKCHAIN, seller.worker), cell)?;
    let offer: RoyaltyQuoted = quoted.message()?;
    let model = network.model_address(&offer.model_id).map_err(|error| error.to_string())?;
    let JobState { deposit, .. } = &life.posted;
    holds(
        quoted.from == model
            && model == StdAddr::new(WORKCHAIN, seller.model)
            && offer.prices.at_most(&seller.prices)
            && offer.min_deposit <= deposit.nanoton()
            && seller.share_bps == network.generation.share_bps(offer.royalty_bps)
            && quoted.at_s <= life.engaged_at_s(),
        format!("model {}", offer.model_id),
        "the Worker's offer is another",
    )
}
