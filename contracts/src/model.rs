//! The Model: publisher, royalty, and the shares of every job, which are its balance above a year's rent.

use serde::{Deserialize, Serialize};
use tycho_types::cell::{CellBuilder, CellContext, CellSlice, HashBytes, Load, Store};
use tycho_types::error::Error as CellError;
use tycho_types::models::StdAddr;

use crate::money::{Nanoton, Prices};
use crate::network::Network;
use crate::wire::{Ref, Snake, WireError, messages};

/// What a model is sold by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Unit {
    /// Input, cached input and output tokens.
    Token = 0,
    /// Seconds of audio in.
    AudioSecond = 1,
    /// Images in and out.
    Image = 2,
}

impl Unit {
    pub fn from_wire(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Token),
            1 => Some(Self::AudioSecond),
            2 => Some(Self::Image),
            _ => None,
        }
    }
}

impl Store for Unit {
    fn store_into(&self, builder: &mut CellBuilder, _: &dyn CellContext) -> Result<(), CellError> {
        builder.store_u8(*self as u8)
    }
}

impl<'a> Load<'a> for Unit {
    fn load_from(slice: &mut CellSlice<'a>) -> Result<Self, CellError> {
        Self::from_wire(slice.load_u8()?).ok_or(CellError::InvalidData)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct ModelStorage {
    pub model_id: HashBytes,
    pub network: Ref<Network>,
    pub state: Option<ModelState>,
}

impl ModelStorage {
    /// As deployed: without state.
    pub fn initial(network: &Network, model_id: HashBytes) -> Result<Self, WireError> {
        Ok(Self { model_id, network: Ref::new(network.clone())?, state: None })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Store, Load)]
pub struct ModelState {
    pub publisher: StdAddr,
    /// To whom the model is offered.
    pub next_publisher: Option<StdAddr>,
    pub royalty_bps: u16,
    pub unit: Unit,
    pub deprecated: bool,
    /// Whether the model's id named who registered it ([`crate::model_manifest::published_id`]).
    pub named: bool,
    /// [`crate::model_metadata::ModelMetadata`], or whatever else its publisher wrote.
    pub metadata: Ref<Snake>,
}

messages! {
    /// Whoever sends it first, with the state init, becomes the publisher; whom the id names replaces one whom it does
    /// not.
    "register_model" "#43480201" RegisterModel {
        query_id: u64,
        royalty_bps: u16,
        unit: Unit,
        /// With the sender it makes the id, where that names its publisher.
        files_root: Option<HashBytes>,
        metadata: Ref<Snake>,
    }
    /// Worker to Model, for an offer.
    "ask_royalty" "#43480202" AskRoyalty {
        query_id: u64,
        worker_owner: StdAddr,
        min_deposit: Nanoton,
        prices: Ref<Prices>,
    }
    /// Model to Worker.
    "royalty_quoted" "#43480203" RoyaltyQuoted {
        query_id: u64,
        model_id: HashBytes,
        royalty_bps: u16,
        min_deposit: Nanoton,
        prices: Ref<Prices>,
    }
    /// Job to Model, with royalty and fee in one sum.
    "share_paid" "#43480204" SharePaid { query_id: u64 }
    /// Anyone: what lies above the rent to publisher and treasury, as [`crate::money::ShareSplit`] says.
    "withdraw_shares" "#43480205" WithdrawShares { query_id: u64 }
    /// Publisher: offer the model, or take the offer back with nothing.
    "transfer_model" "#43480206" TransferModel { query_id: u64, new_publisher: Option<StdAddr> }
    /// To whom it is offered.
    "accept_model" "#43480209" AcceptModel { query_id: u64 }
    /// Publisher: no new offers.
    "deprecate_model" "#43480207" DeprecateModel { query_id: u64 }
}
