//! Where every nanoTON of a job went.

use contracts::StdAddr;
use contracts::network::WORKCHAIN;
use serde::Serialize;

use super::life::Life;
use super::steps::Step;

/// Everything the job's account received, and where it went; all in nanoTON. What was received is the sum of the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Ledger {
    /// With all messages, refused ones and bonds too.
    pub received_nanoton: u128,
    /// Sent to the client.
    pub to_client_nanoton: u128,
    /// Sent to the Worker that serves, or to those of the market that held the job before it: bonds and pay.
    pub to_worker_nanoton: u128,
    /// Sent to the Model: royalty and fee.
    pub to_model_nanoton: u128,
    /// Sent to others: refused messages back to their senders, what came too much back to who ended the job.
    pub to_others_nanoton: u128,
    /// Taken by the chain: gas, rent, and the fees of messages.
    pub to_chain_nanoton: u128,
    /// On the account still.
    pub left_nanoton: u128,
}

impl Ledger {
    pub(super) fn of(life: &Life<'_>, steps: &[Step], left: u128) -> Self {
        let mut workers = Vec::new();
        let mut model = None;
        let states = std::iter::once(&life.posted).chain(life.acts.iter().map(|act| &act.after));
        for state in states {
            if let Some(seller) = &state.posting.seller {
                let worker = StdAddr::new(WORKCHAIN, seller.worker);
                if !workers.contains(&worker) {
                    workers.push(worker);
                }
                model = Some(StdAddr::new(WORKCHAIN, seller.model));
            }
        }
        let mut ledger = Self { left_nanoton: left, ..Self::default() };
        let add = |sum: &mut u128, amount: u128| *sum = sum.saturating_add(amount);
        for step in steps {
            add(&mut ledger.received_nanoton, step.value);
            add(&mut ledger.to_chain_nanoton, step.fees);
            for sent in &step.sent {
                add(&mut ledger.to_chain_nanoton, sent.forward_fee);
                let place = if sent.to == life.client {
                    &mut ledger.to_client_nanoton
                } else if workers.contains(&sent.to) {
                    &mut ledger.to_worker_nanoton
                } else if Some(&sent.to) == model.as_ref() {
                    &mut ledger.to_model_nanoton
                } else {
                    &mut ledger.to_others_nanoton
                };
                add(place, sent.value);
            }
        }
        ledger
    }

    /// Received less everything else: zero where nothing was lost or made.
    pub fn unaccounted_nanoton(&self) -> i128 {
        let out = [
            self.to_client_nanoton,
            self.to_worker_nanoton,
            self.to_model_nanoton,
            self.to_others_nanoton,
            self.to_chain_nanoton,
            self.left_nanoton,
        ];
        let signed = |amount: u128| i128::try_from(amount).unwrap_or(i128::MAX);
        out.into_iter().fold(signed(self.received_nanoton), |rest, part| rest.saturating_sub(signed(part)))
    }
}
